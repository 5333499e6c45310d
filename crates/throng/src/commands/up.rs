//! `throng up`: starts a node and keeps it until SIGINT or SIGTERM.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use throng_ledger::{SpecLedger, SqliteLedger};
use throng_model::SystemClock;
use throng_server::{Node, NodeConfig};
use throng_spec::Spec;

use crate::args::UpArgs;
use crate::out;
use crate::rehearsal::FollowedClock;

pub(crate) async fn run(arguments: UpArgs, json: bool) -> Result<ExitCode> {
    let spec = match &arguments.spec {
        Some(path) => match throng_spec::load(path) {
            Ok(spec) => spec,
            Err(problems) => return super::spec::report(&problems, json),
        },
        None => applied_before(&arguments).await?,
    };
    let node = Node::start(NodeConfig {
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
        env: Arc::new(|name: &str| std::env::var(name).ok()),
    })
    .await
    .with_context(|| format!("cannot start a node on {}", arguments.dir.display()))?;
    if json {
        // One line, so that a program can wait for it.
        out::line(serde_json::json!({ "url": node.url() }));
    } else {
        out::line(format!("throng is up: {}", node.url()));
    }
    shutdown_signal().await?;
    out::say("stopping: work in hand is put down so that it can be taken up again");
    node.shutdown().await;
    Ok(ExitCode::SUCCESS)
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
    let applied = ledger.applied_spec().await?.with_context(help)?;
    serde_json::from_value(applied.spec)
        .context("the applied spec was written by another version: name the spec with --spec")
}

/// Waits for SIGINT or SIGTERM.
pub(super) async fn shutdown_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for SIGINT")?,
    }
    Ok(())
}
