//! `throng up`: starts a node and keeps it until SIGINT or SIGTERM.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use throng_ledger::SqliteLedger;
use throng_model::SystemClock;
use throng_server::{LimitsChange, Node, NodeConfig, WorkerCommand};
use throng_spec::{Role, Spec};
use throng_store::{MaintenanceLedger as _, SpecLedger as _};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::UpArgs;
use crate::failure::report_problems;
use crate::local::Registration;
use crate::out;
use crate::rehearsal::FollowedClock;

pub(crate) async fn run(arguments: UpArgs, json: bool) -> Result<ExitCode> {
    let spec = match &arguments.spec {
        Some(path) => match throng_spec::load(path) {
            Ok(spec) => spec,
            Err(problems) => return Ok(report_problems(&problems, json)),
        },
        None => applied_before(&arguments).await?,
    };
    let recovery = arguments.recovery();
    // Listened for before anything else: by itself SIGHUP ends a process.
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    // Before the roles start: a signal between their first claim and the first look for it would end
    // the process with the claim in hand.
    let mut signal = ShutdownSignal::listen()?;
    let starting = Node::start(NodeConfig {
        accept_log_loss: arguments.accept_log_loss,
        data_dir: arguments.dir.clone(),
        spec,
        join: arguments.join,
        roles: arguments.roles,
        listen: arguments.listen,
        clock: match arguments.clock {
            Some(path) => Arc::new(FollowedClock::new(path)),
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
        // No role is at work before the node has started: there is nothing to put down.
        () = signal.received() => {
            out::say("stopped before the node was up");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let _registration = Registration::new(&node.url(), &arguments.dir);
    let has_pages = node.context().roles.contains(&Role::Api);
    let sign_in = if has_pages { sign_in_link(&node).await } else { None };
    let node = Arc::new(node);
    let reloading = tokio::spawn(reload_on_hangup(hangups, Arc::clone(&node)));
    if json {
        // One line, so that a program can wait for it.
        out::line(serde_json::json!({ "url": node.url(), "sign_in": sign_in }));
    } else {
        out::line(format!("throng is up: {}", node.url()));
        if let Some(link) = sign_in {
            out::line(format!("sign in, once, within ten minutes: {link}"));
        }
    }
    signal.received().await;
    out::say("stopping: work in hand is put down so that it can be taken up again");
    reloading.abort();
    // Only once it has ended is this the only one that has the node.
    let _ = reloading.await;
    let node = Arc::into_inner(node).context("the node is still in use")?;
    node.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// A link for the operator. A node that cannot make one serves all the same: `throng sign-in` makes
/// another.
async fn sign_in_link(node: &Node) -> Option<String> {
    let link = node.sign_in_link().await;
    link.inspect_err(|error| {
        tracing::warn!(error = error as &dyn std::error::Error, "failed to create a sign-in link");
    })
    .ok()
}

/// Reads the limits again on every SIGHUP.
async fn reload_on_hangup(mut hangups: Signal, node: Arc<Node>) {
    while hangups.recv().await.is_some() {
        match node.reload_limits() {
            Ok(LimitsChange { added, removed }) => {
                tracing::info!(?added, ?removed, "SIGHUP: the limits were read again");
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "SIGHUP: the limits stay as they were"
            ),
        }
    }
}

/// The spec that the ledger of this data directory holds.
async fn applied_before(arguments: &UpArgs) -> Result<Spec> {
    let path = arguments.dir.join("ledger.db");
    let help = || {
        format!(
            "{} holds no applied spec: name one with --spec, a file or a folder",
            arguments.dir.display()
        )
    };
    if !path.try_exists().unwrap_or(false) {
        anyhow::bail!(help());
    }
    let ledger = SqliteLedger::open(&path).await?;
    let applied = ledger.applied_spec().await;
    // So that the node's start can compare the file with its checksum again.
    ledger.close().await?;
    let applied = applied?.with_context(help)?;
    serde_json::from_value(applied.spec)
        .context("the applied spec in the ledger cannot be used: name a spec with --spec")
}

/// SIGINT and SIGTERM. From the moment that this is made a signal does not end the process by
/// itself: whoever holds this decides what to put down first.
pub(super) struct ShutdownSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignal {
    /// Starts to listen.
    pub(super) fn listen() -> Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the next signal; one that came since `listen` counts.
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
