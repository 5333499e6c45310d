//! Operations on audiences.

use std::collections::HashMap;

use throng_api::{
    AudienceDetail, AudienceList, AudienceRefresh, AudienceSnapshot, AudienceSummary,
};
use throng_lake::Model;
use throng_model::{AudienceName, RefreshId, Retry, with_causes};
use throng_refresh::{open_snapshot, refresh_if_stale};
use throng_spec::{Audience, Schedule};
use throng_store::{AlertKind, HistoryEvent, LedgerError, Snapshot, SnapshotState, SubjectKind};

use crate::Operations;
use crate::error::{OperationError, Result};
use crate::mapping::audiences as mapping;
use crate::record::Record;

/// All audiences of the applied spec, in its order.
///
/// # Errors
/// [`LedgerError`].
pub async fn list(operations: &Operations) -> Result<AudienceList, LedgerError> {
    let rows = operations.ledger.audiences().await?;
    let mut rows: HashMap<AudienceName, _> =
        rows.into_iter().map(|row| (row.name.clone(), row)).collect();
    let now = operations.clock.now();
    let audiences = operations.spec.audiences.iter().map(|audience| {
        let row = rows.remove(&audience.name);
        mapping::summary(audience.name.clone(), row, now)
    });
    Ok(AudienceList { audiences: audiences.collect(), next_cursor: None, previous_cursor: None })
}

/// An audience with its snapshot and its newest refresh.
///
/// # Errors
/// [`LedgerError`].
pub async fn summary(
    operations: &Operations,
    name: AudienceName,
) -> Result<AudienceSummary, LedgerError> {
    let row = operations.ledger.audience(&name).await?;
    Ok(mapping::summary(name, row, operations.clock.now()))
}

/// An audience with its snapshots, and the newest `max_sizes` sizes.
///
/// # Errors
/// [`LedgerError`].
pub async fn detail(
    operations: &Operations,
    name: AudienceName,
    max_sizes: u32,
) -> Result<AudienceDetail, LedgerError> {
    let snapshots = operations.ledger.snapshots(&name).await?;
    let sizes = operations.ledger.size_history(&name, max_sizes).await?;
    let audience = summary(operations, name).await?;
    let snapshots = snapshots.into_iter().map(mapping::snapshot).collect();
    Ok(AudienceDetail { audience, snapshots, sizes })
}

/// The name of an audience of the applied spec.
///
/// # Errors
/// [`OperationError`].
pub fn declared(operations: &Operations, name: &str) -> Result<AudienceName> {
    let (spec, wanted) = (&operations.spec, operations.qualified(name));
    let found = spec.audiences.iter().find(|audience| audience.name.as_str() == wanted);
    found.map(|audience| audience.name.clone()).ok_or_else(|| {
        OperationError::not_found(format!("no audience `{name}` in the applied spec"))
            .help("`throng audience list` shows the names")
    })
}

/// When an audience is refreshed, in two lines; `None` if only people refresh it.
pub fn schedule(audience: &Audience) -> Option<(String, String)> {
    let looks = audience.source_trigger.as_ref();
    let looks = looks.map(|trigger| format!("source, every {} s", trigger.poll_secs));
    match (&audience.schedule, looks) {
        (Some(Schedule { cron, time_zone }), None) => {
            Some((cron.clone(), time_zone.as_str().to_owned()))
        }
        (Some(Schedule { cron, time_zone }), Some(looks)) => {
            Some((cron.clone(), format!("{}; {looks}", time_zone.as_str())))
        }
        (None, Some(looks)) => Some(("on change".to_owned(), looks)),
        (None, None) => None,
    }
}

/// Queues a refresh; returns the one that is scheduled already, if there is one. If one is being processed, which may have
/// listed its files, the new one starts when that one has ended. `force`: it scans even if neither the model nor its
/// files have changed.
///
/// # Errors
/// [`OperationError`].
pub async fn refresh(
    operations: &Operations,
    name: &AudienceName,
    force: bool,
    actor: &str,
) -> Result<RefreshId> {
    let queued = operations.ledger.request_refresh(name, force, operations.clock.now()).await;
    let id = queued.map_err(|error| with_state_help(name, error))?;
    let why = format!("refresh {id}{}", if force { ", forced" } else { "" });
    record(operations, name, actor, HistoryEvent::RefreshRequested, why).await?;
    operations.observer.refresh_queued();
    operations.observer.audiences_changed();
    Ok(id)
}

/// Adds to a refusal because of a paused or pinned audience how to end that state.
fn with_state_help(name: &AudienceName, error: LedgerError) -> OperationError {
    let help = match &error {
        LedgerError::WrongState { what: "audience", state, .. } if state == "paused" => {
            format!("`throng audience resume {name}` resumes its refreshes")
        }
        LedgerError::WrongState { what: "audience", .. } => {
            format!("`throng audience release {name}` ends the pin of the rollback")
        }
        _ => return error.into(),
    };
    OperationError::wrong_state(error.to_string()).help(help)
}

async fn record(
    operations: &Operations,
    name: &AudienceName,
    actor: &str,
    what: HistoryEvent,
    why: String,
) -> Result<()> {
    let record =
        Record { subject_kind: SubjectKind::Audience, subject: name.as_str(), what, why, actor };
    record.write(operations).await
}

/// Pauses an audience: no refresh starts until it is resumed. An open refresh continues.
///
/// # Errors
/// [`OperationError`].
pub async fn pause(operations: &Operations, name: &AudienceName, actor: &str) -> Result<()> {
    if !operations.ledger.pause_audience(name, operations.clock.now()).await? {
        let error = OperationError::wrong_state(format!("audience `{name}` is already paused"));
        return Err(error.help(format!("`throng audience resume {name}` resumes its refreshes")));
    }
    let why = "no refresh starts until it is resumed";
    record(operations, name, actor, HistoryEvent::Paused, why.to_owned()).await?;
    operations.observer.audiences_changed();
    Ok(())
}

/// Resumes a paused audience. It is refreshed at once if it has no snapshot of its current model.
///
/// # Errors
/// [`OperationError`].
pub async fn resume(operations: &Operations, name: &AudienceName, actor: &str) -> Result<()> {
    if !operations.ledger.resume_audience(name).await? {
        return Err(OperationError::wrong_state(format!("audience `{name}` is not paused")));
    }
    record(operations, name, actor, HistoryEvent::Resumed, "it is refreshed again".to_owned())
        .await?;
    catch_up(operations, name).await
}

/// Ends the pin that a rollback has set: new snapshots are served again.
///
/// # Errors
/// [`OperationError`].
pub async fn release(operations: &Operations, name: &AudienceName, actor: &str) -> Result<()> {
    if !operations.ledger.unpin_audience(name).await? {
        return Err(OperationError::wrong_state(format!("audience `{name}` is not pinned")));
    }
    record(operations, name, actor, HistoryEvent::Released, "it is refreshed again".to_owned())
        .await?;
    catch_up(operations, name).await
}

/// Brings an audience up to date that is no longer paused or pinned.
async fn catch_up(operations: &Operations, name: &AudienceName) -> Result<()> {
    match refresh_if_stale(&operations.refresh, name).await {
        Ok(_) => {}
        // It was paused again in the meantime.
        Err(error) if error.is_wrong_state() => {}
        Err(error) => return Err(error.into()),
    }
    operations.observer.audiences_changed();
    Ok(())
}

/// Cancels the open refresh, or only `id`: another one than the one that a person has seen continues.
///
/// # Errors
/// [`OperationError`]; `WrongState` if no refresh is open, or another one than `id`.
pub async fn cancel(
    operations: &Operations,
    name: &AudienceName,
    id: Option<RefreshId>,
    actor: &str,
) -> Result<AudienceRefresh> {
    let cancelled = throng_refresh::cancel(&operations.refresh, name, id, actor).await?;
    cancelled.map(mapping::refresh).ok_or_else(|| {
        OperationError::wrong_state(match id {
            Some(id) => {
                format!("refresh {id} of audience `{name}` is not open; nothing was cancelled")
            }
            None => format!("audience `{name}` has no open refresh"),
        })
        .help("`throng audience list` shows the states")
    })
}

/// Refuses a version whose file is damaged or missing. Otherwise it would become the current version, and no
/// node could serve it.
async fn check_can_be_served(
    operations: &Operations,
    name: &AudienceName,
    version: u64,
) -> Result<()> {
    let row = match operations.ledger.snapshot(name, version).await {
        Ok(row) => row,
        // The write that follows fails with the right error.
        Err(LedgerError::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match open_snapshot(&operations.objects, &row).await {
        Ok(_) => Ok(()),
        Err(error) if error.retry() == Retry::Never => {
            let why = with_causes(&error);
            let message = format!("version {version} of `{name}` cannot be served: {why}");
            Err(OperationError::wrong_state(message)
                .help(format!("`throng audience refresh {name}` builds another version")))
        }
        Err(error) => Err(OperationError::Unavailable { message: with_causes(&error) }),
    }
}

/// Refuses a held version of another query than the spec has now, such as one that was applied and taken back: its members
/// would be served, and sent to platforms, though no spec asks for them. A rollback to such a version is a choice.
async fn check_has_query_of_spec(
    operations: &Operations,
    name: &AudienceName,
    version: u64,
) -> Result<()> {
    let declared = operations.spec.audiences.iter().find(|audience| audience.name == *name);
    let Some(audience) = declared else { return Ok(()) };
    match operations.ledger.snapshot(name, version).await {
        Ok(row) => other_query(audience, &row).map_or(Ok(()), Err),
        // The write that follows fails with the right error.
        Err(LedgerError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The refusal of a held version that was built from another query than that of `audience`. A version in another state
/// is refused because of its state.
fn other_query(audience: &Audience, row: &Snapshot) -> Option<OperationError> {
    if row.state != SnapshotState::Held
        || row.model_fingerprint == Model::of(audience).fingerprint()
    {
        return None;
    }
    let (name, version) = (&row.audience, row.version);
    let message =
        format!("version {version} of `{name}` was built from another query than the spec has now");
    Some(OperationError::wrong_state(message).help(format!(
        "`throng audience refresh {name}` refreshes the audience; `throng audience reject {name} \
         --version {version}` rejects the version"
    )))
}

/// Publishes a held snapshot. One of another query than that of the applied spec is refused.
///
/// # Errors
/// [`OperationError`].
pub async fn approve(
    operations: &Operations,
    name: &AudienceName,
    version: u64,
    actor: &str,
) -> Result<AudienceSnapshot> {
    let snapshot = publish_held(operations, name, version, actor).await?;
    serve_current(operations).await?;
    Ok(mapping::snapshot(snapshot))
}

/// As [`approve`], but lookups still serve the version before: [`serve_current`] has to follow.
pub(crate) async fn publish_held(
    operations: &Operations,
    name: &AudienceName,
    version: u64,
    actor: &str,
) -> Result<Snapshot> {
    check_has_query_of_spec(operations, name, version).await?;
    check_can_be_served(operations, name, version).await?;
    let approved = operations.ledger.approve(name, version, operations.clock.now()).await;
    let snapshot = approved.map_err(|error| with_state_help(name, error))?;
    resolve_held(operations, name).await?;
    record_snapshot(
        operations,
        &snapshot,
        actor,
        HistoryEvent::Approved,
        "the held snapshot was approved",
    )
    .await?;
    Ok(snapshot)
}

/// Rejects a held snapshot.
///
/// # Errors
/// [`OperationError`].
pub async fn reject(
    operations: &Operations,
    name: &AudienceName,
    version: u64,
    actor: &str,
) -> Result<AudienceSnapshot> {
    let (reason, now) = (format!("rejected by {actor}"), operations.clock.now());
    let snapshot = operations.ledger.reject(name, version, &reason, now).await?;
    resolve_held(operations, name).await?;
    record_snapshot(
        operations,
        &snapshot,
        actor,
        HistoryEvent::Rejected,
        "the held snapshot was rejected",
    )
    .await?;
    operations.observer.audiences_changed();
    Ok(mapping::snapshot(snapshot))
}

/// Rolls back to an older snapshot and pins it: no other snapshot is served until it is released. An open
/// refresh is cancelled.
///
/// # Errors
/// [`OperationError`].
pub async fn rollback(
    operations: &Operations,
    name: &AudienceName,
    version: u64,
    actor: &str,
) -> Result<AudienceSnapshot> {
    check_can_be_served(operations, name, version).await?;
    let snapshot = operations.ledger.rollback(name, version, operations.clock.now()).await?;
    throng_refresh::cancel(&operations.refresh, name, None, actor).await?;
    let why = "this version is current again and pinned: no refresh starts until it is released";
    record_snapshot(operations, &snapshot, actor, HistoryEvent::RolledBack, why).await?;
    serve_current(operations).await?;
    Ok(mapping::snapshot(snapshot))
}

/// Resolves the alert that a snapshot is held.
async fn resolve_held(operations: &Operations, name: &AudienceName) -> Result<()> {
    let now = operations.clock.now();
    Ok(operations.ledger.resolve_alert(AlertKind::SnapshotHeld, name.as_str(), now).await?)
}

async fn record_snapshot(
    operations: &Operations,
    snapshot: &Snapshot,
    actor: &str,
    what: HistoryEvent,
    why: &str,
) -> Result<()> {
    let why = format!("version {} with {} members: {why}", snapshot.version, snapshot.members);
    record(operations, &snapshot.audience, actor, what, why).await
}

/// After another snapshot became current: serves it, and lets activation deliver it.
pub(crate) async fn serve_current(operations: &Operations) -> Result<()> {
    throng_refresh::reload_membership(&operations.refresh)
        .await
        .map_err(|error| OperationError::Component(error.into()))?;
    operations.observer.wake_activation();
    operations.observer.audiences_changed();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use throng_model::Timestamp;
    use throng_spec::{SpecFile, SpecFiles, SpecOrigin};

    use super::*;

    fn audience(sql: &str) -> Audience {
        let text = format!(
            "version: 1\nsources: [{{ name: shop, path: . }}]\naudiences: [{{ name: buyers, sql: {sql} }}]\n"
        );
        let base = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let files = vec![SpecFile { path: base.join("throng.yaml"), text }];
        let spec = throng_spec::check(SpecFiles { base, files }, SpecOrigin::Operator).unwrap();
        spec.audiences[0].clone()
    }

    fn version_3(of: &Audience, state: SnapshotState) -> Snapshot {
        Snapshot {
            audience: of.name.clone(),
            version: 3,
            state,
            path: "snapshots/buyers/3".to_owned(),
            members: 1,
            rows_read: 1,
            null_keys: 0,
            bytes: 1,
            checksum: None,
            tables: None,
            inputs: None,
            model_fingerprint: Model::of(of).fingerprint(),
            refresh: RefreshId(3),
            created_at: Timestamp(0),
        }
    }

    #[test]
    fn a_held_version_of_another_query_is_not_approved() {
        let applied = audience("SELECT id FROM shop.orders");
        let taken_back = audience("SELECT id FROM shop.orders WHERE amount > 9");
        let held = version_3(&taken_back, SnapshotState::Held);
        let Some(OperationError::WrongState { message, help }) = other_query(&applied, &held)
        else {
            panic!("it is refused because of its query");
        };
        assert!(
            message.contains("version 3 of `buyers` was built from another query"),
            "{message}"
        );
        assert!(help.unwrap().contains("throng audience reject buyers --version 3"));
        assert!(other_query(&taken_back, &held).is_none(), "it is the applied query");
        let published = version_3(&taken_back, SnapshotState::Published);
        assert!(other_query(&applied, &published).is_none(), "the ledger refuses its state");
    }
}
