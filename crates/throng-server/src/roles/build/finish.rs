//! The end of a refresh: the snapshot's file, the guard, one ledger update; and what follows.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use throng_membership::{SnapshotMeta, SnapshotSummary, seed_check, write_snapshot};
use throng_model::{AudienceName, Entropy as _, SystemEntropy};
use throng_spec::Audience;
use throng_store::{
    AlertKind, HistoryEntry, LedgerError, NewAlert, Refresh, RunState, Snapshot, SnapshotState,
};
use throng_telemetry::metrics;

use super::error::BuildError;
use super::guard::{Verdict, judge};
use super::pool::blocking;
use super::work::{PartFile, Worked};
use super::{bits, membership, retention, sweep};
use crate::{Change, NodeContext};

/// Runs of a sync that may still need a snapshot besides the delivered one.
const RUNS_LOOKED_AT: u32 = 100;

/// A snapshot that is in the ledger now.
pub(super) struct Made {
    pub(super) snapshot: Snapshot,
    /// Why it is held, if it is.
    pub(super) held: Option<String>,
    before: Option<Snapshot>,
}

/// The object of a snapshot. `unique` tells tries apart: a builder that lost its lease must not
/// put its file in the place of another one's.
fn snapshot_object(audience: &AudienceName, version: u64, unique: u64) -> String {
    format!("snapshots/{audience}/{version}-{unique:016x}.throng")
}

/// Writes the snapshot and publishes or holds it. Until the ledger's update nobody can see it; a
/// crash before that leaves a file that the next try replaces.
pub(super) async fn publish(
    ctx: &NodeContext,
    audience: &Audience,
    refresh: &Refresh,
    holder: &str,
    worked: Worked,
) -> Result<Made, BuildError> {
    let name = &audience.name;
    let version = ctx.ledger.next_version(name).await?;
    let model_fingerprint = worked.model.fingerprint();
    let created_at = ctx.clock.now();
    let path = snapshot_object(name, version, SystemEntropy.next_u64());
    let meta = SnapshotMeta {
        audience: name.clone(),
        version,
        model_fingerprint: model_fingerprint.clone(),
        rows_read: worked.rows_read,
        null_keys: worked.null_keys,
        created_at,
        seed_check: seed_check(ctx.seed),
        dictionary_len: Vec::new(),
    };
    let SnapshotSummary { bytes, members, checksum } = {
        let (root, path) = (ctx.objects.root().to_owned(), path.clone());
        blocking(move || write(&root, &path, meta, &worked.bits)).await?
    };
    ctx.objects.keep(&path).await?;
    let snapshot = Snapshot {
        audience: name.clone(),
        version,
        state: SnapshotState::Published,
        path,
        members,
        rows_read: worked.rows_read,
        null_keys: worked.null_keys,
        bytes,
        checksum: Some(checksum),
        tables: worked.tables.as_ref().map(serde_json::to_string).transpose()?,
        model_fingerprint,
        refresh: refresh.id,
        created_at,
    };
    let before = ctx.ledger.audience(name).await?.and_then(|row| row.current);
    let now = ctx.clock.now();
    match judge(&audience.guard, before.as_ref().map(|b| b.members), members) {
        Verdict::Publish => {
            ctx.ledger.publish(&snapshot, holder, now).await?;
            Ok(Made { snapshot, held: None, before })
        }
        Verdict::Hold(reason) => {
            ctx.ledger.hold(&snapshot, holder, &reason, now).await?;
            Ok(Made { snapshot, held: Some(reason), before })
        }
    }
}

fn write(
    root: &Path,
    path: &str,
    mut meta: SnapshotMeta,
    files: &[PartFile],
) -> Result<SnapshotSummary, BuildError> {
    let mut shards = Vec::new();
    for file in files {
        for (dictionary_len, bitmap) in bits::read(&file.path, file.checksum)? {
            meta.dictionary_len.push(dictionary_len);
            shards.push(Some(bitmap));
        }
    }
    Ok(write_snapshot(root, Path::new(path), &meta, shards)?)
}

/// What follows once a snapshot is in the ledger. Nothing of this is needed for it to count: what a
/// crash leaves undone is done by the next refresh or at the next start.
pub(super) async fn follow(
    ctx: &Arc<NodeContext>,
    audience: &Audience,
    refresh: &Refresh,
    made: &Made,
) {
    let name = &audience.name;
    if made.held.is_none()
        && ctx.serves_membership
        && let Err(error) = membership::reload_membership(ctx).await
    {
        tracing::error!(audience = %name, error = error.as_ref() as &dyn std::error::Error, "a published snapshot is not served yet");
    }
    ctx.wake_activate.notify_waiters();
    ctx.changed(Change::Audiences);
    let told = match &made.held {
        None => tell_published(ctx, name, made).await,
        Some(reason) => tell_held(ctx, name, made, reason).await,
    };
    let forgotten = forget(ctx, name, audience.keep_snapshots).await;
    if let Err(error) = told.and(forgotten) {
        tracing::error!(audience = %name, error = &error as &dyn std::error::Error, "tidying up after a refresh failed");
    }
    sweep::drop_parts(ctx, refresh.id).await;
    ctx.changed(Change::Audiences);
}

fn entry(ctx: &NodeContext, name: &AudienceName, what: &str, why: String) -> HistoryEntry {
    HistoryEntry {
        subject_kind: "audience".to_owned(),
        subject: name.to_string(),
        what: what.to_owned(),
        why,
        at: ctx.clock.now(),
        actor: None,
    }
}

/// Records that something happened to an audience.
pub(super) async fn record(
    ctx: &NodeContext,
    name: &AudienceName,
    what: &str,
    why: String,
) -> Result<(), LedgerError> {
    ctx.ledger.record(&[entry(ctx, name, what, why)]).await
}

fn figures(made: &Made) -> String {
    let new = &made.snapshot;
    let change = match &made.before {
        Some(before) => format!("after {} in version {}", before.members, before.version),
        None => "the first".to_owned(),
    };
    format!(
        "version {} has {} members, {change}; {} rows read, {} without a key",
        new.version, new.members, new.rows_read, new.null_keys
    )
}

async fn tell_published(
    ctx: &NodeContext,
    name: &AudienceName,
    made: &Made,
) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    for kind in [AlertKind::RefreshFailed, AlertKind::SnapshotHeld] {
        ctx.ledger.resolve_alert(kind, name.as_str(), now).await?;
    }
    let members = made.snapshot.members as f64;
    metrics::gauge!(metrics::AUDIENCE_MEMBERS, "audience" => name.to_string()).set(members);
    let (rows, null_keys) = (made.snapshot.rows_read, made.snapshot.null_keys);
    if many_null_keys(rows, null_keys) {
        let message = format!(
            "{null_keys} of {rows} rows of the query have no key: look at the columns of the source with \
             `throng sources`; rows that are meant to have none belong behind WHERE … IS NOT NULL"
        );
        let alert = NewAlert { kind: AlertKind::NullKeys, subject: name.to_string(), message };
        ctx.ledger.raise_alert(&alert, now).await?;
    } else {
        ctx.ledger.resolve_alert(AlertKind::NullKeys, name.as_str(), now).await?;
    }
    record(ctx, name, "published", figures(made)).await
}

/// Rows without a key of which there is an alert, in percent of all.
const MAX_NULL_KEYS_PERCENT: u64 = 10;

/// Whether so many rows have no key that a column is probably not what it was.
fn many_null_keys(rows: u64, null_keys: u64) -> bool {
    null_keys.saturating_mul(100) > rows.saturating_mul(MAX_NULL_KEYS_PERCENT)
}

/// The alert of a held snapshot.
pub(super) fn held_alert(name: &AudienceName, version: u64, reason: &str) -> NewAlert {
    let message = format!(
        "version {version} is held: {reason}. Look at the source, then \
         `throng audience approve {name}`, or refresh it again"
    );
    NewAlert { kind: AlertKind::SnapshotHeld, subject: name.to_string(), message }
}

async fn tell_held(
    ctx: &NodeContext,
    name: &AudienceName,
    made: &Made,
    reason: &str,
) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    ctx.ledger.raise_alert(&held_alert(name, made.snapshot.version, reason), now).await?;
    // The refresh itself came to its end.
    ctx.ledger.resolve_alert(AlertKind::RefreshFailed, name.as_str(), now).await?;
    tracing::warn!(audience = %name, version = made.snapshot.version, reason, "a snapshot is held");
    record(ctx, name, "held", format!("{}; {reason}", figures(made))).await
}

/// Forgets snapshots by the retention rule, then removes their files: a crash in between leaves
/// files that the next start removes.
async fn forget(ctx: &NodeContext, name: &AudienceName, keep: u32) -> Result<(), LedgerError> {
    let kept = ctx.ledger.snapshots(name).await?;
    let pinned = pinned(ctx, name).await?;
    let served = ctx.ledger.audience(name).await?.and_then(|row| row.current).map(|s| s.version);
    for version in retention::to_forget(&kept, served, keep, &pinned) {
        match ctx.ledger.forget_snapshot(name, version).await {
            Ok(()) => {}
            // A person rolled back to it just now, or it is forgotten already.
            Err(LedgerError::WrongState { .. } | LedgerError::NotFound { .. }) => continue,
            Err(error) => return Err(error),
        }
        let Some(old) = kept.iter().find(|s| s.version == version) else { continue };
        if let Err(error) = ctx.objects.remove(&old.path).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                object = old.path,
                "an old snapshot was not removed"
            );
        }
    }
    Ok(())
}

/// Versions that syncs of this audience delivered or work with: what a mirror has to remove is
/// found by comparing with them.
async fn pinned(ctx: &NodeContext, name: &AudienceName) -> Result<BTreeSet<u64>, LedgerError> {
    let mut pinned = BTreeSet::new();
    let spec = ctx.spec.load_full();
    let delivered = ctx.ledger.delivered().await?;
    for sync in spec.syncs.iter().filter(|sync| sync.audience == *name) {
        let platform = delivered.iter().find(|(of, _)| *of == sync.name);
        pinned.extend(platform.and_then(|(_, p)| p.delivered_version));
        // Runs since the last completed one left the platform somewhere in between.
        let runs = ctx.ledger.runs(Some(&sync.name), RUNS_LOOKED_AT).await?;
        for run in runs.iter().take_while(|run| run.state != RunState::Completed) {
            pinned.insert(run.to_version);
            pinned.extend(run.from_version);
        }
    }
    Ok(pinned)
}

#[cfg(test)]
mod tests {
    use super::many_null_keys;

    #[test]
    fn a_few_rows_without_a_key_are_normal() {
        assert!(!many_null_keys(0, 0));
        assert!(!many_null_keys(100, 10));
        assert!(many_null_keys(100, 11));
        assert!(many_null_keys(1, 1));
    }
}
