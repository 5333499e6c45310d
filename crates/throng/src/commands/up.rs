//! `throng up`: runs a node until SIGINT or SIGTERM.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use throng_access::{LimitsChange, Registration};
use throng_ledger::SqliteLedger;
use throng_model::SystemClock;
use throng_server::{Node, NodeConfig, WorkerCommand};
use throng_sim::clock_file::SimulatedClock;
use throng_spec::{Role, Spec};
use throng_store::{MaintenanceLedger as _, SpecLedger as _};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::UpArgs;
use crate::failure::report_problems;
use crate::out::{self, Output};

/// What a node that is ready prints with `--json`.
#[derive(Serialize, Deserialize)]
pub(super) struct ReadyNode {
    pub(super) url: String,
    /// A sign-in link; null without the role `api`.
    sign_in: Option<String>,
}

pub(crate) async fn run(arguments: UpArgs, output: Output) -> Result<ExitCode> {
    let spec = match &arguments.spec {
        Some(path) => match throng_spec::load(path) {
            Ok(spec) => spec,
            Err(problems) => return Ok(report_problems(&problems, output)),
        },
        None => last_applied_spec(&arguments).await?,
    };
    // Each is read when it is needed, which may be days later.
    let secrets = throng_spec::unreadable_secrets(&spec, &|name: &str| std::env::var(name).ok());
    for warning in throng_spec::collapsed_warnings(&secrets, "throng check --json") {
        out::message(format_args!("warning: {warning}"));
    }
    let recovery = arguments.recovery();
    // Installed first: the default action of SIGHUP ends the process.
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    // Installed before the roles start: a signal between their first claim and the installation of the
    // handler would end the process while it holds the claim, which others could take only after its
    // lease has expired.
    let mut signal = ShutdownSignal::listen()?;
    let starting = Node::start(NodeConfig {
        accept_log_loss: arguments.accept_log_loss,
        data_dir: arguments.dir.clone(),
        spec,
        join: arguments.join,
        roles: arguments.roles,
        listen: arguments.listen,
        clock: match arguments.clock {
            Some(path) => Arc::new(SimulatedClock::new(path)),
            None => Arc::new(SystemClock),
        },
        access_clock: Arc::new(SystemClock),
        recovery,
        env: Arc::new(|name: &str| std::env::var(name).ok()),
        limits: arguments.limits.config(),
        query_worker: WorkerCommand::default(),
    });
    let node = tokio::select! {
        started = starting => started
            .with_context(|| format!("cannot start a node on {}", arguments.dir.display()))?,
        // No role runs before the node has started, so nothing has to be halted.
        () = signal.received() => {
            out::message("stopped before the node was ready");
            return Ok(ExitCode::SUCCESS);
        }
    };
    if let Some(plan) = node.context().applier.take_replaced() {
        out::message(format_args!(
            "warning: this spec replaces the one that was applied last:\n{plan}"
        ));
    }
    let _registration = Registration::new(&node.url(), &arguments.dir);
    let has_pages = node.context().roles.contains(&Role::Api);
    let sign_in = if has_pages { sign_in_link(&node).await } else { None };
    let node = Arc::new(node);
    let reloading = tokio::spawn(reload_on_hangup(hangups, Arc::clone(&node)));
    if output.is_json() {
        out::json_line(&ReadyNode { url: node.url(), sign_in })?;
    } else {
        out::line(format!("throng is up: {}", node.url()));
        if let Some(link) = sign_in {
            out::line(format!("sign in (once, within ten minutes): {link}"));
        }
    }
    signal.received().await;
    out::message("stopping: work in progress is halted and continues at the next start");
    reloading.abort();
    // The task holds a reference to the node, which is dropped only when the task has ended.
    let _ = reloading.await;
    let node = Arc::into_inner(node).context("the node is still in use")?;
    node.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// A sign-in link for the operator. A failure does not end the node: `throng sign-in` creates another
/// link.
async fn sign_in_link(node: &Node) -> Option<String> {
    let link = node.sign_in_link().await;
    link.inspect_err(|error| {
        tracing::warn!(error = error as &dyn std::error::Error, "failed to create a sign-in link");
    })
    .ok()
}

/// Reloads the limits on every SIGHUP.
async fn reload_on_hangup(mut hangups: Signal, node: Arc<Node>) {
    while hangups.recv().await.is_some() {
        match node.reload_limits() {
            Ok(LimitsChange { added, removed }) => {
                tracing::info!(?added, ?removed, "reloaded limits");
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "failed to reload limits")
            }
        }
    }
}

/// The spec in the ledger of the data directory.
async fn last_applied_spec(arguments: &UpArgs) -> Result<Spec> {
    let path = arguments.dir.join("ledger.db");
    let help = || {
        format!(
            "{} has no applied spec: give one with --spec, a file or a folder",
            arguments.dir.display()
        )
    };
    if !path.try_exists().unwrap_or(false) {
        anyhow::bail!(help());
    }
    let ledger = SqliteLedger::open(&path).await?;
    let applied = ledger.applied_spec().await;
    // A clean close writes the checksum of the file, which the start of the node compares.
    ledger.close().await?;
    let applied = applied?.with_context(help)?;
    serde_json::from_value(applied.spec)
        .context("the applied spec in the ledger cannot be used: give one with --spec")
}

/// SIGINT and SIGTERM. Once this exists, a signal no longer ends the process: its owner halts the work
/// in progress first.
pub(super) struct ShutdownSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignal {
    /// Installs the handlers.
    pub(super) fn listen() -> Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the next signal; returns at once if one arrived since `listen`.
    pub(super) async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for SIGINT or SIGTERM.
pub(super) async fn shutdown_signal() -> Result<()> {
    ShutdownSignal::listen()?.received().await;
    Ok(())
}
