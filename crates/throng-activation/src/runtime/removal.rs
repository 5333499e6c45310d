//! Removals of syncs: their declarations, and how an executed removal ends.

use throng_model::SyncName;
use throng_spec::{Destination, Sync};
use throng_store::{DeliveredRecord, HistoryEntry, HistoryEvent, LedgerError, Removal, SyncRun};

use super::context::Activation;
use super::declaration::find_declaration;
use super::errors::InputError;
use super::removed_sync::RemovalDefinition;
use crate::{SendClass, SendError};

/// An error of a removal that a person has to resolve.
pub(super) fn stop_error(message: String) -> SendError {
    SendError::local(SendClass::Stop, message)
}

/// The sync and the destination of a removal. The destination is the one of the applied spec if that has the
/// same account, because its secrets may have changed.
///
/// # Errors
/// `Stop` if the definition cannot be read.
pub(super) fn sync_and_destination(
    ctx: &Activation,
    removal: &Removal,
) -> Result<(Sync, Destination), SendError> {
    let definition = RemovalDefinition::of(removal).map_err(|error| {
        stop_error(format!(
            "cannot decode the definition of the removed sync {}: {error}",
            removal.sync
        ))
    })?;
    let RemovalDefinition { sync, destination } = definition;
    let spec = ctx.node.spec();
    let is_same = |current: &&Destination| {
        current.name == destination.name && current.account() == destination.account()
    };
    let current = spec.destinations.iter().find(is_same).cloned();
    Ok((sync, current.unwrap_or(destination)))
}

/// The approved removal of a sync, if there is one.
pub(super) async fn approved(
    ctx: &Activation,
    sync: &SyncName,
) -> Result<Option<Removal>, LedgerError> {
    let removal = ctx.ledger.removal(sync).await?;
    Ok(removal.filter(|removal| removal.approved_at.is_some()))
}

/// The declaration of a sync and its destination: by its removal while an approved removal is executed, otherwise by
/// the spec.
///
/// # Errors
/// If it is missing: `Stop` if this process has the newest spec, `Retry` if a newer spec is applied that this process
/// has not loaded yet.
pub(super) async fn declared(
    ctx: &Activation,
    sync: &SyncName,
) -> Result<(Sync, Destination), InputError> {
    if let Some(removal) = approved(ctx, sync).await? {
        return sync_and_destination(ctx, &removal).map_err(InputError::from);
    }
    let (spec, version) = ctx.node.spec_and_version();
    let missing = match find_declaration(&spec, sync) {
        Ok(declaration) => return Ok(declaration),
        Err(missing) => missing,
    };
    let (class, message) = if ctx.ledger.applied_version().await? == Some(version) {
        let message =
            format!("{missing} is no longer in the applied spec; restore it, or ignore this task");
        (SendClass::Stop, message)
    } else {
        let message =
            format!("{missing} is not in the spec of this process; a newer one is applied");
        (SendClass::Retry, message)
    };
    Err(SendError::local(class, message).into())
}

/// Whether a run was planned to execute a removal.
pub(super) fn is_run_of(removal: &Removal, run: &SyncRun) -> bool {
    removal.approved_at.is_some_and(|at| run.created_at >= at)
}

/// The delivered state of the sync of a removal.
///
/// # Errors
/// `Stop` if it was delivered to another account than the one that the sync names.
pub(super) async fn delivered_record(
    ctx: &Activation,
    sync: &SyncName,
    account: &str,
) -> Result<Option<DeliveredRecord>, InputError> {
    let record = ctx.ledger.delivered_record(sync).await?;
    if let Some(record) = record.as_ref().filter(|record| record.account != account) {
        let message = format!(
            "the audience is on account {}, but the sync was last declared for {account}: remove the \
             audience there by hand",
            record.account
        );
        return Err(stop_error(message).into());
    }
    Ok(record)
}

/// Deletes an executed removal and all records of the sync's audience. `false` if another process has done so.
pub(super) async fn finish(
    ctx: &Activation,
    removal: &Removal,
    how: &str,
) -> Result<bool, LedgerError> {
    let sync = &removal.sync;
    let now = ctx.clock.now();
    let records = ctx.ledger.delivered_records().await?;
    let states = records.into_iter().filter(|r| r.sync == *sync).filter_map(|r| r.state);
    let runs = ctx.ledger.unrecorded_runs().await?;
    let plans = runs.into_iter().filter(|run| run.sync == *sync).filter_map(|run| run.plan);
    let objects: Vec<String> = states.chain(plans).collect();
    match ctx.ledger.finish_removal(sync, now).await {
        Ok(()) => {}
        Err(LedgerError::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(error),
    }
    for object in objects {
        // Objects that remain here are removed when the next process leads.
        if let Err(error) = ctx.objects.remove(&object).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, object, "failed to remove unreferenced object");
        }
    }
    let by = removal.approved_by.as_deref().unwrap_or("unknown");
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Sync,
        subject: sync.to_string(),
        what: HistoryEvent::RemovalDone,
        why: format!("{how}; approved by {by}; the delivered state is deleted"),
        at: now,
        actor: None,
    };
    ctx.ledger.record_history(&[entry]).await?;
    Ok(true)
}
