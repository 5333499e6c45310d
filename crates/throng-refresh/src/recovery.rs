//! Recovery after a crash, before the builders start. Only for a node with its own data directory:
//! one process at a time uses it, so no other builder can be running. Where nodes share a ledger,
//! expired leases do the same; recovery there would take refreshes from builders that are alive.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use throng_membership::unreferenced_segments;
use throng_model::AudienceName;
use throng_store::{AlertKind, AudienceRow, LedgerError, NewAlert, RefreshState};

use super::cleanup::log_failure;
use super::error::RefreshError;
use super::pool::blocking;
use super::{alerts, cancel};
use crate::RefreshContext;

/// Releases the refreshes of the process that died, so that they resume at once and not when their
/// lease expires; reconciles alerts; removes files that nothing references.
///
/// # Errors
/// [`RefreshError`]; the node can run without it.
pub async fn recover(ctx: &Arc<RefreshContext>) -> Result<(), RefreshError> {
    let audiences = ctx.ledger.audiences().await?;
    let mut open = HashSet::new();
    for row in &audiences {
        let Some(refresh) = &row.refresh else { continue };
        let waits = matches!(refresh.state, RefreshState::Scheduled | RefreshState::Halted);
        if let (RefreshState::Processing, Some(holder)) = (refresh.state, &refresh.holder) {
            // Counts as a crash, unlike a halt: a refresh that ends its process each time must fail
            // at some point.
            ctx.ledger.recover_refresh(refresh.id, holder, ctx.clock.now()).await?;
            tracing::info!(audience = %row.name, refresh = %refresh.id, "resuming an interrupted refresh");
            open.insert(refresh.id.to_string());
        } else if waits {
            open.insert(refresh.id.to_string());
        }
        reconcile_alerts(ctx, row).await?;
    }
    let mut referenced = HashSet::new();
    let snapshots = ctx.objects.root().join("snapshots");
    // By folder and not by the spec: audiences that were removed from it have snapshots in the
    // ledger, whose files would be deleted.
    for audience in names(&snapshots) {
        let Ok(name) = AudienceName::new(audience) else { continue };
        let kept = ctx.ledger.snapshots(&name).await?;
        referenced.extend(kept.into_iter().map(|s| ctx.objects.root().join(s.path)));
    }
    let manifests: Vec<String> =
        ctx.ledger.dictionary().await?.into_iter().map(|row| row.manifest).collect();
    let root = ctx.objects.root().to_owned();
    blocking(move || {
        let refreshes = root.join("refreshes");
        for id in names(&refreshes).into_iter().filter(|id| !open.contains(id)) {
            log_failure(&refreshes.join(&id), std::fs::remove_dir_all(refreshes.join(id)));
        }
        for audience in names(&snapshots) {
            let folder = snapshots.join(audience);
            let files = names(&folder).into_iter().map(|file| folder.join(file));
            remove_files(files.filter(|path| !referenced.contains(path)));
        }
        let segments = unreferenced_segments(&root, manifests.iter().map(String::as_str))?;
        remove_files(segments.into_iter());
        Ok(())
    })
    .await?;
    ctx.observer.audiences_changed();
    Ok(())
}

/// Removes the folders of builds of several audiences that this process left when it died, whose names are not numbers of
/// refreshes. For a node that shares its ledger, for which there is no [`recover`], before its builders start.
pub fn remove_left_builds(ctx: &RefreshContext) {
    let refreshes = ctx.objects.root().join("refreshes");
    for name in names(&refreshes).into_iter().filter(|name| name.parse::<i64>().is_err()) {
        log_failure(&refreshes.join(&name), std::fs::remove_dir_all(refreshes.join(name)));
    }
}

fn remove_files(paths: impl Iterator<Item = PathBuf>) {
    for path in paths {
        log_failure(&path, std::fs::remove_file(&path));
    }
}

/// The names in a folder; none if it cannot be listed.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// What has to happen to the alerts of an audience.
#[derive(Debug, PartialEq, Eq)]
enum AlertAction {
    /// The newest refresh was published: none stays open.
    Resolve,
    /// This one must be open.
    Raise(NewAlert),
    /// They stay as they are.
    Keep,
}

/// Decides by the newest refresh of the audience.
fn alert_action(row: &AudienceRow) -> AlertAction {
    let Some(refresh) = &row.refresh else { return AlertAction::Keep };
    let reason = refresh.reason.as_deref().unwrap_or("no reason was recorded");
    match (refresh.state, refresh.snapshot_version) {
        (RefreshState::Completed, _) => AlertAction::Resolve,
        (RefreshState::Held, Some(version)) => {
            AlertAction::Raise(alerts::held_alert(&row.name, version, reason))
        }
        (RefreshState::Failed, None) if !cancel::is_cancelled(refresh) => {
            AlertAction::Raise(alerts::failed_alert(&row.name, reason))
        }
        // A person rejected the snapshot, or cancelled the refresh, and knows about it.
        _ => AlertAction::Keep,
    }
}

/// Makes the open alerts those that the newest refresh asks for: a crash between the end of a
/// refresh and its alert leaves one too few, or one too many.
async fn reconcile_alerts(ctx: &RefreshContext, row: &AudienceRow) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    match alert_action(row) {
        AlertAction::Resolve => {
            for kind in [AlertKind::RefreshFailed, AlertKind::SnapshotHeld] {
                ctx.ledger.resolve_alert(kind, row.name.as_str(), now).await?;
            }
            Ok(())
        }
        AlertAction::Raise(alert)
            if ctx.spec.load().audiences.iter().any(|a| a.name == row.name) =>
        {
            // One that is open is about this failure already; raising it again would count it at
            // every start.
            match ctx.ledger.open_alert(alert.kind, &alert.subject).await? {
                Some(_) => Ok(()),
                None => ctx.ledger.raise_alert(&alert, now).await.map(|_| ()),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Rig, audience_row as row};

    #[tokio::test]
    async fn folders_of_unfinished_builds_are_removed_and_those_of_refreshes_stay() {
        let rig = Rig::new(&["a"]).await;
        let refreshes = rig.ctx.objects.root().join("refreshes");
        for name in ["7", "shared-00000000000000ff"] {
            std::fs::create_dir_all(refreshes.join(name)).unwrap();
            // A file of keys that was being written.
            std::fs::write(refreshes.join(name).join("0.keys.1-0.tmp"), "keys").unwrap();
        }
        remove_left_builds(&rig.ctx);
        assert_eq!(names(&refreshes), ["7"]);
    }

    #[test]
    fn alerts_follow_the_newest_refresh() {
        let raised = |row| match alert_action(&row) {
            AlertAction::Raise(alert) => Some(alert.kind),
            _ => None,
        };
        assert_eq!(alert_action(&row(RefreshState::Completed, Some(1))), AlertAction::Resolve);
        assert_eq!(raised(row(RefreshState::Held, Some(1))), Some(AlertKind::SnapshotHeld));
        assert_eq!(raised(row(RefreshState::Failed, None)), Some(AlertKind::RefreshFailed));
        // Rejecting a snapshot makes its refresh a failed one, but needs no alert.
        assert_eq!(alert_action(&row(RefreshState::Failed, Some(1))), AlertAction::Keep);
        assert_eq!(alert_action(&row(RefreshState::Halted, None)), AlertAction::Keep);
    }
}
