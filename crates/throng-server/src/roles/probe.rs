//! Probes the backends and reports to the node's health, so that `/readyz` needs no I/O.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{NodeContext, ProblemClass};

/// Time between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// A ledger that takes longer to answer counts as unavailable.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Probes until `stop`.
pub async fn run(ctx: Arc<NodeContext>, stop: CancellationToken) {
    loop {
        probe_ledger(&ctx).await;
        tokio::select! {
            () = tokio::time::sleep(PROBE_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn probe_ledger(ctx: &NodeContext) {
    let answer = tokio::time::timeout(LEDGER_TIMEOUT, ctx.ledger.applied_version()).await;
    let problem = match answer {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(throng_model::with_causes(&error)),
        Err(_) => Some(format!("no answer within {} s", LEDGER_TIMEOUT.as_secs())),
    };
    match problem {
        Some(detail) => ctx.health.report(ProblemClass::Ledger, "read", detail),
        None => ctx.health.clear(ProblemClass::Ledger, "read"),
    }
}
