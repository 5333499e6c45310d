//! Project chores: `cargo xtask test`, `cargo xtask attack`, `cargo xtask tidy`, `cargo xtask deny`,
//! `cargo xtask gen`.

mod deny;
mod generate;
mod needs;
mod services;
mod tidy;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

/// Commands of the project that are not chores of this program.
const OTHERS: &str = "\
Other commands:
  cargo demo           Run everything on public data and leave its page up
  cargo fmt --all      Format the sources
  .ci/run              Everything that a change has to pass
  just                 All commands, if just is installed
  cargo +nightly fuzz  Fuzz targets: fuzz/README.md";

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Project chores", after_help = OTHERS)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run every test and doctest, with whatever they need (a browser, another SQL engine)
    Test {
        /// Passed on to `cargo test`, for example `-p throng-spec`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Attack a node in every way that the tests know, at full size
    Attack {
        /// Only attacks whose name contains this: unauthorized, page, connections, statements, damage, disk, restore
        #[arg(default_value = "")]
        name: String,
    },
    /// Start or stop real services to develop against: PostgreSQL, Kafka, S3, a faulty proxy
    Services {
        #[command(subcommand)]
        action: Action,
        /// Answer in JSON
        #[arg(long, global = true)]
        json: bool,
    },
    /// Check layers, circles of modules, sizes and words
    Tidy(tidy::Options),
    /// Check the dependencies: advisories, licenses, sources
    Deny {
        /// Update the offline copy of the advisories
        #[arg(long)]
        update: bool,
    },
    /// Write the generated files (JSON schema, golden outputs, figures in docs)
    Gen,
}

#[derive(Subcommand)]
enum Action {
    /// Start them, or find those that run; prints where they are, for a shell
    Up,
    /// Stop them and remove their data
    Down,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Test { rest } => test(&rest),
        Chore::Attack { name } => attack(&name),
        Chore::Services { action: Action::Up, json } => services::background::up(json),
        Chore::Services { action: Action::Down, json } => services::background::down(json),
        Chore::Tidy(options) => root().and_then(|root| tidy::check(&root, options)),
        Chore::Deny { update } => root().and_then(|root| deny::check(&root, update)),
        Chore::Gen => generate::all(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In one line: a chore that failed has said the rest itself.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace.
fn root() -> Result<PathBuf> {
    // As cargo says now: two clones that share a target folder share this program.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    Ok(manifest.parent().context("xtask lies in the workspace")?.to_owned())
}

fn test(rest: &[String]) -> Result<()> {
    let root = root()?;
    let needs = needs::provide(&root)?;
    let mut cargo = cargo();
    cargo.current_dir(&root);
    // Without a choice of targets (`--lib`, `--test`) cargo runs doctests too.
    cargo.args(["test", "--locked"]);
    if !rest.iter().any(|a| a == "-p" || a == "--package") {
        cargo.arg("--workspace");
    }
    let services = services::Services::start()?;
    cargo.args(rest).envs(needs).envs(services.variables());
    run(&mut cargo)
}

/// The attacks of `crates/throng/tests/it/attack`, one after another, at full size.
fn attack(name: &str) -> Result<()> {
    let root = root()?;
    let needs = needs::provide(&root)?;
    let mut cargo = cargo();
    cargo.current_dir(&root).args(["test", "--locked", "--workspace", "--test", "it", "--"]);
    cargo.args(["--nocapture", "--test-threads", "1"]).arg(format!("attack::{name}"));
    run(cargo.envs(needs).env("THRONG_ATTACK", "full"))
}

/// Cargo, as if it had been called by hand: what the cargo that runs this program has set for it would
/// make build scripts run again (`ring` looks at it), and with them half of the dependencies.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let set_by_cargo = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if set_by_cargo {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
