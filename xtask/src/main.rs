//! Development tasks: `cargo xtask test`, `cargo xtask attack`, `cargo xtask services`, `cargo xtask tidy`,
//! `cargo xtask deny`, `cargo xtask chart`, `cargo xtask gen`.

mod chart;
mod deny;
mod generate;
mod needs;
mod services;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};

/// Commands that are not part of this program.
const OTHER_COMMANDS: &str = "\
Other commands:
  cargo demo           Run the demo on public data and keep its page running
  cargo fmt --all      Format the sources
  .ci/run              Run all checks of a change
  just                 All commands, if just is installed
  cargo +nightly fuzz  Fuzz targets: fuzz/README.md";

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks", after_help = OTHER_COMMANDS)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run all tests and doctests; install what they need (a browser, another SQL engine)
    Test {
        /// Arguments of `cargo test`, for example `-p throng-spec`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Run the attack tests at full size
    Attack {
        /// Only attacks whose name contains this: unauthorized, page, connections, statements, damage, disk, restore
        #[arg(default_value = "")]
        name: String,
    },
    /// Start or stop services for development: PostgreSQL, Kafka, S3, Redis, Bigtable, a fault-injecting proxy
    Services {
        #[command(subcommand)]
        action: Action,
        /// Print JSON
        #[arg(long, global = true)]
        json: bool,
    },
    /// Check layers, cycles of modules, sizes and words
    Tidy(tidy::Options),
    /// Check the dependencies: advisories, licenses, sources
    Deny {
        /// Update the offline copy of the advisories
        #[arg(long)]
        update: bool,
    },
    /// Check the Helm chart: lint, templates, and the schemas of three versions of Kubernetes
    Chart,
    /// Write the generated files (JSON schema, golden outputs, figures in docs)
    Gen,
}

#[derive(Subcommand)]
enum Action {
    /// Start the services unless they run; print their addresses as shell variables
    Up,
    /// Stop the services and remove their data
    Down,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Test { rest } => test(&rest),
        Task::Attack { name } => attack(&name),
        Task::Services { action: Action::Up, json } => services::background::up(json),
        Task::Services { action: Action::Down, json } => services::background::down(json),
        Task::Tidy(options) => root().and_then(|root| tidy::check(&root, options)),
        Task::Deny { update } => root().and_then(|root| deny::check(&root, update)),
        Task::Chart => root().and_then(|root| chart::check(&root).map(|_| ())),
        Task::Gen => generate::all(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: the failed command has printed the details.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The cargo features that `cargo demo` does not build. The same ones wherever the workspace is built, so that DataFusion
/// is built once.
const FEATURES: &str = "throng/ballista";

/// The folder of the workspace.
fn root() -> Result<PathBuf> {
    // From the environment first: two clones that share a target folder share this program.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    Ok(manifest.parent().context("xtask is in the workspace")?.to_owned())
}

fn test(rest: &[String]) -> Result<()> {
    let root = root()?;
    // Without a selection, as CI runs it. What the tests need is downloaded and started meanwhile: most of that is
    // waiting.
    let mut compilation = if rest.is_empty() { Some(Compilation::start(&root)?) } else { None };
    let needs = needs::provide(&root)?;
    compilation.as_mut().map_or(Ok(()), Compilation::check)?;
    let services = services::Services::start()?;
    compilation.as_mut().map_or(Ok(()), Compilation::check)?;
    // A selected test needs no chart.
    let chart = if rest.is_empty() { Some(chart::check(&root)?) } else { None };
    if let Some(compilation) = compilation {
        compilation.wait()?;
    }
    let is_selected = rest.iter().any(|a| a == "-p" || a == "--package");
    let mut cargo = cargo_test(&root, !is_selected);
    // Without a selection of targets (`--lib`, `--test`) cargo runs doctests too.
    cargo.args(rest).envs(needs).envs(services.variables());
    cargo.envs(chart.iter().map(|settings| ("THRONG_CHART_SETTINGS", settings.path())));
    run(&mut cargo)
}

/// `cargo test`, of all packages if `workspace`.
fn cargo_test(root: &Path, workspace: bool) -> Command {
    let mut cargo = cargo();
    cargo.current_dir(root).args(["test", "--locked"]);
    if workspace {
        cargo.args(["--workspace", "--features", FEATURES]);
    }
    cargo
}

/// The compilation of all tests by another process. Dropping it, after an error of what runs beside it, waits for its end:
/// the compilers that cargo has started would continue without it.
struct Compilation(Child);

impl Compilation {
    fn start(root: &Path) -> Result<Self> {
        let mut cargo = cargo_test(root, true);
        cargo.arg("--no-run");
        Ok(Self(cargo.spawn().with_context(|| format!("cannot start {cargo:?}"))?))
    }

    /// Does not wait.
    ///
    /// # Errors
    /// If it has ended because a test does not compile.
    fn check(&mut self) -> Result<()> {
        let ended = self.0.try_wait().context("cannot wait for cargo")?;
        ended.map_or(Ok(()), compiled)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If a test does not compile.
    fn wait(mut self) -> Result<()> {
        compiled(self.0.wait().context("cannot wait for cargo")?)
    }
}

fn compiled(status: ExitStatus) -> Result<()> {
    ensure!(status.success(), "the tests do not compile: cargo ended with {status}");
    Ok(())
}

impl Drop for Compilation {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            eprintln!("waiting for the end of the compilation");
            let _ = self.0.wait();
        }
    }
}

/// Runs the tests of `crates/throng/tests/it/attack` in sequence, at full size.
fn attack(name: &str) -> Result<()> {
    let root = root()?;
    let needs = needs::provide(&root)?;
    let mut cargo = cargo_test(&root, true);
    cargo
        .args(["--test", "it", "--", "--nocapture", "--test-threads", "1"])
        .arg(format!("attack::{name}"));
    run(cargo.envs(needs).env("THRONG_ATTACK", "full"))
}

/// Cargo without the variables that the cargo running this program has set: build scripts would run again
/// because of them (`ring`'s depends on them), and half of the dependencies would be rebuilt.
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

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    fn shell(script: &str) -> Compilation {
        let mut shell = Command::new("sh");
        Compilation(shell.args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap())
    }

    #[test]
    fn a_failed_compilation_is_reported_before_it_is_waited_for() {
        let mut failed = shell("exit 101");
        failed.0.wait().unwrap();
        assert!(failed.check().unwrap_err().to_string().contains("do not compile"));
        let mut ended = shell("exit 0");
        ended.0.wait().unwrap();
        ended.check().unwrap();
    }

    #[test]
    fn a_compilation_that_is_dropped_runs_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("compiled");
        // It reads until the pipe is closed, which waiting for it does.
        let mut running = shell(&format!("cat; echo done > '{}'", file.display()));
        running.check().unwrap();
        drop(running);
        assert_eq!(std::fs::read_to_string(file).unwrap(), "done\n");
    }
}
