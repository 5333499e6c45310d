//! What every node does besides its roles: notice what other nodes applied and published.

use std::sync::Arc;
use std::time::Duration;

use throng_ledger::LedgerError;
use tokio_util::sync::CancellationToken;

use super::build::reload_membership;
use crate::node::{NodeError, follow_spec};
use crate::{Change, NodeContext};

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// However fast the clock runs, the ledger is not kept busy by looking.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(200);
/// After the ledger or the objects failed.
const AFTER_TROUBLE: Duration = Duration::from_secs(2);

/// Runs until `shutdown`.
pub async fn run(ctx: Arc<NodeContext>, shutdown: CancellationToken) {
    // Versions for which a reload was tried, so that a damaged snapshot is not tried for ever.
    let mut tried = Vec::new();
    loop {
        let looked = look(&ctx, &mut tried).await;
        let pause = match looked {
            Ok(()) => ctx.clock.wall_duration(LOOK_EVERY).max(LOOK_AT_MOST_EVERY),
            Err(error) => {
                tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "what other nodes did cannot be followed"
                );
                AFTER_TROUBLE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

type Versions = Vec<(throng_model::AudienceName, u64)>;

async fn look(
    ctx: &Arc<NodeContext>,
    tried: &mut Versions,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    spec(ctx).await?;
    if !ctx.serves_membership {
        return Ok(());
    }
    let missing = missing(ctx).await?;
    if missing.iter().any(|of| !tried.contains(of)) {
        tried.clear();
        reload_membership(ctx).await?;
        ctx.wake_activate.notify_waiters();
        ctx.changed(Change::Audiences);
    }
    *tried = missing;
    Ok(())
}

async fn spec(ctx: &Arc<NodeContext>) -> Result<(), NodeError> {
    let applied = ctx.ledger.applied_version().await?.unwrap_or(0);
    if applied > ctx.budgets.catalog().version {
        follow_spec(ctx).await?;
    }
    Ok(())
}

/// Versions that are published but not served here.
async fn missing(ctx: &NodeContext) -> Result<Versions, LedgerError> {
    let served = ctx.ledger.served_versions().await?;
    let index = ctx.membership.load_full();
    Ok(served
        .into_iter()
        .filter(|(name, version)| {
            index.snapshot(name).map(|file| file.meta().version) != Some(*version)
        })
        .collect())
}
