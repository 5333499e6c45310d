//! What a crash left behind, put in order before the builders start. For a node that is alone: the
//! data directory has one process at a time, so nobody else is at work on it. Where nodes share a
//! ledger, leases that run out do the same.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use throng_membership::garbage;
use throng_model::AudienceName;
use throng_objects::ObjectsError;
use throng_store::{AlertKind, AudienceRow, LedgerError, NewAlert, RefreshState};

use super::error::BuildError;
use super::pool::blocking;
use super::{finish, parts};
use crate::{Change, NodeContext};

/// Gives back refreshes of a dead process, so that they go on at once and not when their lease runs
/// out; mends alerts; removes files that nothing names.
///
/// # Errors
/// [`BuildError`]; the node can work all the same.
pub async fn take_over(ctx: &Arc<NodeContext>) -> Result<(), BuildError> {
    let audiences = ctx.ledger.audiences().await?;
    let mut open = HashSet::new();
    for row in &audiences {
        let Some(refresh) = &row.refresh else { continue };
        let waits = matches!(refresh.state, RefreshState::Scheduled | RefreshState::Halted);
        if let (RefreshState::Processing, Some(holder)) = (refresh.state, &refresh.holder) {
            ctx.ledger.recover_refresh(refresh.id, holder, ctx.clock.now()).await?;
            tracing::info!(audience = %row.name, refresh = %refresh.id, "a refresh that was cut off goes on");
            open.insert(refresh.id.to_string());
        } else if waits {
            open.insert(refresh.id.to_string());
        }
        mend_alerts(ctx, row).await?;
    }
    let mut named = HashSet::new();
    let snapshots = ctx.objects.root().join("snapshots");
    for audience in names(&snapshots) {
        let Ok(name) = AudienceName::new(audience) else { continue };
        let kept = ctx.ledger.snapshots(&name).await?;
        named.extend(kept.into_iter().map(|s| ctx.objects.root().join(s.path)));
    }
    let manifests: Vec<String> =
        ctx.ledger.dictionary().await?.into_iter().map(|row| row.manifest).collect();
    let root = ctx.objects.root().to_owned();
    blocking(move || {
        let refreshes = root.join("refreshes");
        for id in names(&refreshes).into_iter().filter(|id| !open.contains(id)) {
            gone(&refreshes.join(&id), std::fs::remove_dir_all(refreshes.join(id)));
        }
        for audience in names(&snapshots) {
            let folder = snapshots.join(audience);
            let files = names(&folder).into_iter().map(|file| folder.join(file));
            remove_files(files.filter(|path| !named.contains(path)));
        }
        let unnamed = garbage(&root, manifests.iter().map(String::as_str))?;
        remove_files(unnamed.into_iter());
        Ok(())
    })
    .await?;
    ctx.changed(Change::Audiences);
    Ok(())
}

fn remove_files(paths: impl Iterator<Item = PathBuf>) {
    for path in paths {
        gone(&path, std::fs::remove_file(&path));
    }
}

fn gone(path: &Path, removed: std::io::Result<()>) {
    if let Err(error) = removed {
        tracing::warn!(%error, path = %path.display(), "a leftover was not removed");
    }
}

/// The names in a folder; none if it cannot be listed.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// What alerts an audience must have, judged by its newest refresh.
#[derive(Debug, PartialEq, Eq)]
enum Alarm {
    /// None: the newest refresh was published.
    Silence,
    /// This one.
    Raise(NewAlert),
    /// As they are.
    Leave,
}

fn alarm(row: &AudienceRow) -> Alarm {
    let Some(refresh) = &row.refresh else { return Alarm::Leave };
    let reason = refresh.reason.as_deref().unwrap_or("no reason was recorded");
    match (refresh.state, refresh.snapshot_version) {
        (RefreshState::Completed, _) => Alarm::Silence,
        (RefreshState::Held, Some(version)) => {
            Alarm::Raise(finish::held_alert(&row.name, version, reason))
        }
        (RefreshState::Failed, None) if !super::cancel::is_cancelled(refresh) => {
            Alarm::Raise(failed_alert(&row.name, reason))
        }
        // A person refused the snapshot, or cancelled the refresh, and knows about it.
        _ => Alarm::Leave,
    }
}

/// The alert of a refresh that gave up.
pub(super) fn failed_alert(name: &AudienceName, reason: &str) -> NewAlert {
    let message = format!("the refresh failed: {reason}. Then `throng audience refresh {name}`");
    NewAlert { kind: AlertKind::RefreshFailed, subject: name.to_string(), message }
}

/// A crash between an end and its alert leaves too few alerts, or too many.
async fn mend_alerts(ctx: &NodeContext, row: &AudienceRow) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    match alarm(row) {
        Alarm::Silence => {
            for kind in [AlertKind::RefreshFailed, AlertKind::SnapshotHeld] {
                ctx.ledger.resolve_alert(kind, row.name.as_str(), now).await?;
            }
            Ok(())
        }
        Alarm::Raise(alert) if ctx.spec.load().audiences.iter().any(|a| a.name == row.name) => {
            // One that is open is of this failure: it does not count once more at every start.
            match ctx.ledger.open_alert(alert.kind, &alert.subject).await? {
                Some(_) => Ok(()),
                None => ctx.ledger.raise_alert(&alert, now).await.map(|_| ()),
            }
        }
        _ => Ok(()),
    }
}

/// Removes the parts of a refresh that gave up.
pub(super) async fn drop_parts(ctx: &NodeContext, refresh: throng_model::RefreshId) {
    let name = parts::folder(refresh);
    let removed = async {
        for object in ctx.objects.list(&name).await? {
            ctx.objects.remove(&object.name).await?;
        }
        Ok::<(), ObjectsError>(())
    };
    if let Err(error) = removed.await {
        tracing::warn!(error = &error as &dyn std::error::Error, %refresh, "the parts of a refresh were not removed");
    }
    // Copies, and what was not finished.
    let folder = ctx.objects.root().join(name);
    match tokio::fs::remove_dir_all(&folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => gone(&folder, Err(error)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use throng_model::{RefreshId, Timestamp};
    use throng_store::{Refresh, RefreshTrigger};

    use super::*;

    fn row(state: RefreshState, snapshot_version: Option<u64>) -> AudienceRow {
        let name: AudienceName = "a".parse().unwrap();
        let refresh = Refresh {
            id: RefreshId(1),
            audience: name.clone(),
            state,
            trigger: RefreshTrigger::Manual,
            scheduled_at: Timestamp(0),
            started_at: None,
            finished_at: None,
            not_before: Timestamp(0),
            failures: 0,
            crashes: 0,
            holder: None,
            lease_until: None,
            rows_read: 0,
            null_keys: 0,
            rows_expected: None,
            reason: Some("because".into()),
            snapshot_version,
        };
        let refresh = Some(refresh);
        let (current, last_fired, paused_at, pinned_at) = Default::default();
        AudienceRow { name, current, refresh, last_fired, paused_at, pinned_at }
    }

    #[test]
    fn alerts_follow_the_newest_refresh() {
        let raised = |row| match alarm(&row) {
            Alarm::Raise(alert) => Some(alert.kind),
            _ => None,
        };
        assert_eq!(alarm(&row(RefreshState::Completed, Some(1))), Alarm::Silence);
        assert_eq!(raised(row(RefreshState::Held, Some(1))), Some(AlertKind::SnapshotHeld));
        assert_eq!(raised(row(RefreshState::Failed, None)), Some(AlertKind::RefreshFailed));
        // A refused snapshot makes its refresh a failed one, but nobody has to be told.
        assert_eq!(alarm(&row(RefreshState::Failed, Some(1))), Alarm::Leave);
        assert_eq!(alarm(&row(RefreshState::Halted, None)), Alarm::Leave);
    }
}
