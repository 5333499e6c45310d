//! The `throng` binary: parses the command line, sets up logging, runs one command.
//!
//! Exit codes: 0 success, 1 failure, 2 the command line or the spec is wrong; `throng build` also uses 3
//! and 75, and `throng ingest` 4. docs/reference/cli.md lists them for users.

mod allocator;
mod answers;
mod args;
mod client;
mod commands;
#[cfg(test)]
mod deploy_tests;
mod failure;
mod out;
mod secret_input;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use throng_api::DecideRequest;
use throng_model::SystemClock;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use args::{Arguments, Command, EventsCommand, LogCommand};
use failure::Failure;
use out::Output;

/// Threads for calls that block: on files of the log and of objects, on name resolution. Builders have their own
/// threads. With the runtime's default of 512, a burst of small calls starts hundreds of threads, and the allocator
/// keeps memory for each of them.
const BLOCKING_THREADS: usize = 32;

fn main() -> ExitCode {
    // A query worker reads nothing from the command line. It sets its limits first: a file that is opened
    // before, or a thread that is started before, would not be subject to them.
    #[cfg(feature = "ballista")]
    let worker = |cluster| throng_platforms::query_worker_with_cluster(&SystemClock, cluster);
    #[cfg(feature = "ballista")]
    if let Some(code) = throng_ballista::process(worker) {
        return code;
    }
    if std::env::args_os().nth(1).is_some_and(|first| first == throng_worker::SUBCOMMAND) {
        return throng_platforms::query_worker(&SystemClock);
    }
    if std::env::args_os().nth(1).is_some_and(|first| first == commands::sim::BIGQUERY_WORKER) {
        return throng_sim_bigquery::row_worker();
    }
    allocator::return_freed_memory_at_once();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let output = Output::of(failure::wants_json(std::env::args_os()));
            return failure::report_command_line(&error, output);
        }
    };
    let output = Output::of(arguments.json);
    let code = run_all(arguments).unwrap_or_else(|error| failure::report(&error, output));
    // All of the command is dropped with its runtime.
    throng_log::wait_until_clients_close();
    match out::stdout_error() {
        Some(error) => {
            out::message(format!("error: cannot write to the standard output: {error}"));
            ExitCode::FAILURE
        }
        None => code,
    }
}

/// Sets up logging, TLS and the runtime, and runs one command.
fn run_all(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let writes = matches!(
        arguments.command,
        Command::Up(_) | Command::Build(_) | Command::Demo(_) | Command::Gate(_)
    );
    if writes {
        // What a node or a gate writes can be read by its own user only.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    }
    set_up_logging(&arguments)?;
    // Dependencies can bring more than one TLS provider; the process uses this one.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is already installed");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(arguments))
}

fn set_up_logging(arguments: &Arguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&arguments.log)
        .map_err(|e| Failure::wrong_input(format!("--log {}: {e}", arguments.log)))?;
    let registry = tracing_subscriber::registry().with(filter);
    let has_colors = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(has_colors);
    match arguments.log_json {
        true => registry.with(lines.json()).try_init()?,
        false => registry.with(lines).try_init()?,
    }
    Ok(())
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let output = Output::of(arguments.json);
    match arguments.command {
        Command::Demo(demo) => commands::demo::run(demo, output).await,
        Command::Up(up) => commands::up::run(up, output).await,
        Command::Gate(gate) => commands::gate::run(gate, output).await,
        Command::Build(build) => commands::build::run(build, output).await,
        Command::Check { spec, connect, workspace } => {
            commands::spec::check(&spec, connect, workspace.as_deref(), output).await
        }
        Command::Migrate { spec, dir } => {
            commands::spec::migrate(&spec, dir.as_deref(), output).await
        }
        Command::Backup { dir, to } => commands::backup::backup(&dir, &to, output).await,
        Command::Restore { from, dir } => commands::backup::restore(&from, &dir, output).await,
        Command::Plan { apply, workspace } => {
            commands::spec::plan(&apply, workspace.as_deref(), output).await
        }
        Command::Apply { apply, base_version } => {
            commands::spec::apply(&apply, base_version, output).await
        }
        Command::Sources { workspace, node } => {
            commands::sources::sources(&node, workspace.as_deref(), output).await
        }
        Command::Ingest(ingest) => commands::ingest::run(&ingest, output).await,
        Command::Lookup { users, keys, node } => {
            commands::inspect::lookup(users, keys, &node, output).await
        }
        Command::Audience(command) => commands::audience::run(command, output).await,
        Command::Sync(command) => commands::sync::run(command, output).await,
        Command::Store(command) => commands::store::run(command, output).await,
        Command::Alerts(command) => commands::alerts::run(command, output).await,
        Command::Tasks(command) => commands::sync::tasks_command(command, output).await,
        Command::Events(EventsCommand::Quarantine { node }) => {
            commands::events::quarantine(&node, output).await
        }
        Command::Log(LogCommand::Repair { dir }) => commands::events::repair(&dir, output),
        Command::Budget(budget) => commands::budget::run(budget, output).await,
        Command::Decide { user, ad_groups, record_insertion, node } => {
            let request = DecideRequest { user: Some(user), ad_groups, record_insertion };
            commands::inspect::decide(&request, &node, output).await
        }
        Command::Why { kind, name, node } => {
            commands::inspect::why(kind, &name, &node, output).await
        }
        Command::Token(command) => commands::access::token(command, output).await,
        Command::Session(command) => commands::access::session(command, output).await,
        Command::SignIn { node } => commands::access::sign_in(&node, output).await,
        Command::Sim(command) => commands::sim::run(command, output).await,
        Command::Schema => {
            out::json(&throng_spec::json_schema());
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "throng", &mut script);
            out::text(&String::from_utf8_lossy(&script));
            Ok(ExitCode::SUCCESS)
        }
    }
}
