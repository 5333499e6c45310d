//! Operations on removals: what happens to the audience on the platform of a sync that was removed from the
//! spec.

use std::collections::HashMap;

use throng_activation::{RemovalDefinition, users_of, users_text};
use throng_api::SyncRemoval;
use throng_model::{SyncName, Timestamp};
use throng_store::{HistoryEvent, LedgerError, Removal, RemovalRule};

use crate::error::{OperationError, Result};
use crate::mapping::activation as mapping;
use crate::{Operations, syncs};

/// The removals that are not finished, each with the time at which removals of users that the platform refused
/// are retried, if there are such.
///
/// # Errors
/// [`LedgerError`].
pub async fn list(
    operations: &Operations,
) -> Result<Vec<(SyncRemoval, Option<Timestamp>)>, LedgerError> {
    let ledger = &operations.ledger;
    let mut removals = ledger.removals().await?;
    removals.retain(|removal| operations.can_access(removal.sync.workspace()));
    if removals.is_empty() {
        return Ok(Vec::new());
    }
    let mut audiences: HashMap<_, _> = ledger.delivered().await?.into_iter().collect();
    let records = ledger.delivered_records().await?;
    let records: HashMap<_, _> = records.into_iter().map(|r| (r.sync.clone(), r)).collect();
    let removals = removals.into_iter().map(|removal| {
        let definition = RemovalDefinition::of(&removal).ok();
        let audience = audiences.remove(&removal.sync);
        let record = records.get(&removal.sync);
        let refused = record.filter(|record| record.due > 0).and_then(|record| record.retry_at);
        let removal = SyncRemoval {
            rule: mapping::removal_rule(removal.rule),
            audience: definition.as_ref().map(RemovalDefinition::platform_name),
            destination: definition.map(|definition| definition.destination.name),
            platform_id: audience.map(|audience| audience.platform_id),
            users: users_of(record),
            sync: removal.sync,
            requested_at: removal.requested_at,
            approved_at: removal.approved_at,
            approved_by: removal.approved_by,
            tries: removal.tries,
            retry_at: removal.retry_at,
            last_error: removal.last_error,
        };
        (removal, refused)
    });
    Ok(removals.collect())
}

/// Approves a removal: the audience on the platform is emptied or deleted.
///
/// # Errors
/// [`OperationError`].
pub async fn approve(operations: &Operations, name: &str, actor: &str) -> Result<SyncName> {
    let removal = open_removal(operations, name).await?;
    operations.ledger.approve_removal(&removal.sync, actor, operations.clock.now()).await?;
    let what = match removal.rule {
        RemovalRule::Empty => "is emptied",
        RemovalRule::Delete => "is deleted",
    };
    let why = format!("{} {what}", describe_audience(operations, &removal).await?);
    syncs::finish(operations, &removal.sync, actor, HistoryEvent::RemovalApproved, why).await?;
    Ok(removal.sync)
}

/// Discards a removal: the audience on the platform is not changed.
///
/// # Errors
/// [`OperationError`].
pub async fn discard(operations: &Operations, name: &str, actor: &str) -> Result<SyncName> {
    let removal = open_removal(operations, name).await?;
    operations.ledger.discard_removal(&removal.sync, operations.clock.now()).await?;
    let why = format!("{} is not changed", describe_audience(operations, &removal).await?);
    syncs::finish(operations, &removal.sync, actor, HistoryEvent::RemovalDiscarded, why).await?;
    Ok(removal.sync)
}

async fn open_removal(operations: &Operations, name: &str) -> Result<Removal> {
    let removals = operations.ledger.removals().await?;
    let wanted = operations.qualified(name);
    let found = removals.into_iter().find(|removal| {
        removal.sync.as_str() == wanted && operations.can_access(removal.sync.workspace())
    });
    found.ok_or_else(|| {
        OperationError::not_found(format!("no removal of a sync `{name}`"))
            .help("`throng sync removals` lists the removals that are not finished")
    })
}

/// Describes the audience of a removal with its number of users, for the history.
async fn describe_audience(operations: &Operations, removal: &Removal) -> Result<String> {
    let Some(audience) = operations.ledger.platform_audience(&removal.sync).await? else {
        return Ok("its audience, which is not on the platform,".to_owned());
    };
    let records = operations.ledger.delivered_records().await?;
    let record = records.iter().find(|record| record.sync == removal.sync);
    let users = users_text(users_of(record));
    Ok(format!("the audience {} on the platform with {users}", audience.platform_id))
}
