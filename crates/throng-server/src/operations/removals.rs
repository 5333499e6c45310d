//! Operations on removals: what happens to the audience on the platform of a sync that was removed from the
//! spec.

use throng_activation::{users_of, users_text};
use throng_model::SyncName;
use throng_store::{HistoryEvent, Removal, RemovalRule};

use super::{OperationError, Result, syncs};
use crate::NodeContext;

/// Approves a removal: the audience on the platform is emptied or deleted.
pub(crate) async fn approve(ctx: &NodeContext, name: &str, actor: &str) -> Result<SyncName> {
    let removal = open_removal(ctx, name).await?;
    ctx.ledger.approve_removal(&removal.sync, actor, ctx.clock.now()).await?;
    let what = match removal.rule {
        RemovalRule::Empty => "is emptied",
        RemovalRule::Delete => "is deleted",
    };
    let why = format!("{} {what}", describe_audience(ctx, &removal).await?);
    syncs::finish(ctx, &removal.sync, actor, HistoryEvent::RemovalApproved, why).await?;
    Ok(removal.sync)
}

/// Discards a removal: the audience on the platform is not changed.
pub(crate) async fn discard(ctx: &NodeContext, name: &str, actor: &str) -> Result<SyncName> {
    let removal = open_removal(ctx, name).await?;
    ctx.ledger.discard_removal(&removal.sync, ctx.clock.now()).await?;
    let why = format!("{} is not changed", describe_audience(ctx, &removal).await?);
    syncs::finish(ctx, &removal.sync, actor, HistoryEvent::RemovalDiscarded, why).await?;
    Ok(removal.sync)
}

async fn open_removal(ctx: &NodeContext, name: &str) -> Result<Removal> {
    let removals = ctx.ledger.removals().await?;
    let found = removals.into_iter().find(|removal| removal.sync.as_str() == name);
    found.ok_or_else(|| {
        OperationError::not_found(format!("no removal of a sync `{name}`"))
            .help("`throng sync removals` lists the removals that are not finished")
    })
}

/// Describes the audience of a removal with its number of users, for the history.
async fn describe_audience(ctx: &NodeContext, removal: &Removal) -> Result<String> {
    let Some(audience) = ctx.ledger.platform_audience(&removal.sync).await? else {
        return Ok("its audience, which is not on the platform,".to_owned());
    };
    let records = ctx.ledger.delivered_records().await?;
    let record = records.iter().find(|record| record.sync == removal.sync);
    let users = users_text(users_of(record));
    Ok(format!("the audience {} on the platform with {users}", audience.platform_id))
}
