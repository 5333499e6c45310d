//! The end of a refresh: writes the snapshot, evaluates the guard, publishes or holds the snapshot
//! with one ledger update, and does what follows.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use throng_lake::TableFacts;
use throng_membership::{SnapshotMeta, SnapshotSummary, seed_check, write_snapshot};
use throng_model::{AudienceName, Entropy as _, SystemEntropy};
use throng_spec::Audience;
use throng_store::{
    AlertKind, HistoryEvent, LedgerError, NewAlert, Refresh, RunState, Snapshot, SnapshotState,
};
use throng_telemetry::metrics;

use super::error::RefreshError;
use super::execute::{BuildOutput, Built};
use super::guard::{self, GuardDecision};
use super::pool::blocking;
use super::{alerts, bits, cleanup, declared, freshness, history, membership, retention};
use crate::RefreshContext;

/// Newest runs of a sync that are read for the snapshots that they still need.
const MAX_RUNS_READ: u32 = 100;

/// A snapshot that is recorded in the ledger, published or held.
pub(super) struct PublishOutcome {
    pub(super) snapshot: Snapshot,
    /// Why it is held, if it is.
    pub(super) held: Option<String>,
    /// The version that was current before.
    previous: Option<Snapshot>,
    /// Rows whose key has white space around it.
    padded_keys: u64,
}

/// The object of a snapshot. `unique` differs for each try: a builder that lost its lease must not
/// overwrite the file of the builder that holds it now.
fn snapshot_object(audience: &AudienceName, version: u64, unique: u64) -> String {
    format!("snapshots/{audience}/{version}-{unique:016x}.throng")
}

/// Writes the snapshot, then publishes or holds it with one ledger update that checks the lease.
///
/// The order matters. The file is durable before the ledger names it, so no node can serve a file
/// that a crash has truncated; a crash before the update leaves only a file that nothing names, and
/// the next try writes another one.
pub(super) async fn publish(
    ctx: &RefreshContext,
    audience: &Audience,
    refresh: &Refresh,
    holder: &str,
    output: BuildOutput,
) -> Result<PublishOutcome, RefreshError> {
    let name = &audience.name;
    let version = ctx.ledger.next_version(name).await?;
    let model_fingerprint = output.model.fingerprint();
    let created_at = ctx.clock.now();
    let path = snapshot_object(name, version, SystemEntropy.next_u64());
    let meta = SnapshotMeta {
        audience: name.clone(),
        version,
        model_fingerprint: model_fingerprint.clone(),
        rows_read: output.rows_read,
        null_keys: output.null_keys,
        created_at,
        seed_check: seed_check(ctx.seed),
        dictionary_len: Vec::new(),
    };
    let SnapshotSummary { bytes, members, checksum } = {
        let (root, path) = (ctx.objects.root().to_owned(), path.clone());
        blocking(move || write(&root, &path, meta, &output.bits)).await?
    };
    ctx.objects.upload(&path).await?;
    let snapshot = Snapshot {
        audience: name.clone(),
        version,
        state: SnapshotState::Published,
        path,
        members,
        rows_read: output.rows_read,
        null_keys: output.null_keys,
        bytes,
        checksum: Some(checksum),
        tables: output.tables.as_ref().map(serde_json::to_string).transpose()?,
        inputs: output.inputs.as_ref().map(serde_json::to_string).transpose()?,
        model_fingerprint,
        refresh: refresh.id,
        created_at,
    };
    // Read after the build: the guard has to compare with what is served now, which an approval or
    // a rollback may have changed.
    let previous = ctx.ledger.audience(name).await?.and_then(|row| row.current);
    let (now, padded_keys) = (ctx.clock.now(), output.padded_keys);
    match guard::evaluate(&audience.guard, previous.as_ref().map(|p| p.members), members) {
        GuardDecision::Publish => {
            ctx.ledger.publish(&snapshot, holder, now).await?;
            Ok(PublishOutcome { snapshot, held: None, previous, padded_keys })
        }
        GuardDecision::Hold(reason) => {
            ctx.ledger.hold(&snapshot, holder, &reason, now).await?;
            Ok(PublishOutcome { snapshot, held: Some(reason), previous, padded_keys })
        }
    }
}

fn write(
    root: &Path,
    path: &str,
    mut meta: SnapshotMeta,
    built: &Built,
) -> Result<SnapshotSummary, RefreshError> {
    let read = match built {
        Built::Parts(files) => {
            let mut all = Vec::new();
            for file in files {
                all.extend(bits::read(&file.path, file.checksum)?);
            }
            all
        }
        Built::Shared(bits, number) => bits.read(*number)?,
    };
    let mut shards = Vec::with_capacity(read.len());
    for (dictionary_len, bitmap) in read {
        meta.dictionary_len.push(dictionary_len);
        shards.push(Some(bitmap));
    }
    Ok(write_snapshot(root, Path::new(path), &meta, shards)?)
}

/// What follows once a snapshot is in the ledger: reload unless the caller does it for several, alerts, history,
/// retention. The snapshot is valid without any of it; what a crash leaves undone, the next refresh or the next
/// start does.
pub(super) async fn follow_up(
    ctx: &Arc<RefreshContext>,
    audience: &Audience,
    refresh: &Refresh,
    outcome: &PublishOutcome,
    reloads: bool,
) {
    let name = &audience.name;
    if outcome.held.is_none()
        && reloads
        && ctx.serves_membership
        && let Err(error) = membership::reload_membership(ctx).await
    {
        tracing::error!(audience = %name, error = &error as &dyn std::error::Error, "failed to load a published snapshot");
    }
    ctx.observer.snapshot_recorded();
    ctx.observer.audiences_changed();
    let reported = match &outcome.held {
        None => report_published(ctx, name, outcome).await,
        Some(reason) => report_held(ctx, name, outcome, reason).await,
    };
    // Also if the report has failed: old snapshots would fill the disk otherwise.
    let retained = apply_retention(ctx, name, audience.keep_snapshots).await;
    if let Err(error) = reported.and(retained) {
        tracing::error!(audience = %name, error = &error as &dyn std::error::Error, "failed to finish the follow-up of a refresh");
    }
    cleanup::remove_parts(ctx, refresh.id).await;
    ctx.observer.audiences_changed();
}

fn counts(outcome: &PublishOutcome) -> String {
    let new = &outcome.snapshot;
    let change = match &outcome.previous {
        Some(previous) => format!("after {} in version {}", previous.members, previous.version),
        None => "the first".to_owned(),
    };
    let mut text = format!(
        "version {} has {} members, {change}; {} rows read, {} without a key",
        new.version, new.members, new.rows_read, new.null_keys
    );
    for table in tables(new.tables.as_deref()) {
        if let Some(unread) = table.unread {
            text.push_str(&format!("; {}: {unread}", table.name));
        }
    }
    text
}

/// The tables that a snapshot was made from; none if they are not known.
fn tables(recorded: Option<&str>) -> Vec<TableFacts> {
    recorded.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

async fn report_published(
    ctx: &RefreshContext,
    name: &AudienceName,
    outcome: &PublishOutcome,
) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    // Both are about earlier versions: this one is served, and nobody has to act on them.
    for kind in [AlertKind::RefreshFailed, AlertKind::SnapshotHeld] {
        ctx.ledger.resolve_alert(kind, name.as_str(), now).await?;
    }
    let members = outcome.snapshot.members as f64;
    metrics::gauge!(metrics::AUDIENCE_MEMBERS, "audience" => name.to_string()).set(members);
    freshness::record_success(name, now);
    let mut doubts = doubts(outcome.snapshot.tables.as_deref());
    let (rows, null_keys) = (outcome.snapshot.rows_read, outcome.snapshot.null_keys);
    // Only files are trimmed by their source.
    let is_of_files =
        declared(&ctx.spec.load(), name).is_none_or(|audience| audience.source.is_none());
    doubts.extend(doubts_of_keys(rows, null_keys, outcome.padded_keys, is_of_files));
    if !doubts.is_empty() {
        let message = doubts.join("; ");
        let alert = NewAlert { kind: AlertKind::NullKeys, subject: name.to_string(), message };
        ctx.ledger.raise_alert(&alert, now).await?;
    } else {
        ctx.ledger.resolve_alert(AlertKind::NullKeys, name.as_str(), now).await?;
    }
    history::record(ctx, name, HistoryEvent::Published, counts(outcome)).await
}

/// What is doubtful about the key columns of the tables that a snapshot was made from.
fn doubts(recorded: Option<&str>) -> Vec<String> {
    tables(recorded).into_iter().flat_map(|table| table.doubts).collect()
}

/// What is doubtful about the keys of the rows of a query.
fn doubts_of_keys(
    rows: u64,
    null_keys: u64,
    padded_keys: u64,
    is_of_files: bool,
) -> impl Iterator<Item = String> {
    let columns = match is_of_files {
        true => "check the columns of the source with `throng sources`",
        false => "check the column in the warehouse",
    };
    let trim = match is_of_files {
        true => {
            "declare `trim: true` in the source, or remove them in the SQL, as trim(…) does with spaces"
        }
        false => "remove them in the SQL, as trim(…) does with spaces",
    };
    let null = many_null_keys(rows, null_keys).then(|| {
        format!(
            "{null_keys} of {rows} rows of the query have no key (NULL, an empty or invisible text, or a text such as `NULL`, \
             `\\N` or `nan`, which exports write for a missing value): {columns}; \
             exclude rows that are meant to have none with WHERE"
        )
    });
    // One is enough: no lookup and no other table finds such a user.
    let padded = (padded_keys > 0).then(|| {
        format!(
            "{padded_keys} of {rows} rows of the query have a key with white space or invisible characters (such as U+200B \
             or NUL) around it, which is another key than the one without: {trim}, if they mean nothing"
        )
    });
    null.into_iter().chain(padded)
}

/// More rows without a key than this, in percent of all, raise an alert.
const MAX_NULL_KEYS_PERCENT: u64 = 10;

/// Whether so many rows have no key that a column of the source has probably changed.
fn many_null_keys(rows: u64, null_keys: u64) -> bool {
    null_keys.saturating_mul(100) > rows.saturating_mul(MAX_NULL_KEYS_PERCENT)
}

async fn report_held(
    ctx: &RefreshContext,
    name: &AudienceName,
    outcome: &PublishOutcome,
    reason: &str,
) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    ctx.ledger
        .raise_alert(&alerts::held_alert(name, outcome.snapshot.version, reason), now)
        .await?;
    // The refresh itself succeeded.
    ctx.ledger.resolve_alert(AlertKind::RefreshFailed, name.as_str(), now).await?;
    tracing::warn!(audience = %name, version = outcome.snapshot.version, reason, "holding a snapshot");
    history::record(ctx, name, HistoryEvent::Held, format!("{}; {reason}", counts(outcome))).await
}

/// Deletes snapshots by the retention rule: first from the ledger, then their files. A crash in
/// between leaves files that the next start removes; the other order would leave rows whose file is
/// missing.
async fn apply_retention(
    ctx: &RefreshContext,
    name: &AudienceName,
    keep: u32,
) -> Result<(), LedgerError> {
    let kept = ctx.ledger.snapshots(name).await?;
    let is_published = |snapshot: &Snapshot| snapshot.state == SnapshotState::Published;
    if kept.len() <= keep as usize && kept.iter().all(is_published) {
        return Ok(());
    }
    let pinned = pinned(ctx, name).await?;
    let served = ctx.ledger.audience(name).await?.and_then(|row| row.current).map(|s| s.version);
    for version in retention::expired_versions(&kept, served, keep, &pinned) {
        match ctx.ledger.delete_snapshot(name, version).await {
            Ok(()) => {}
            // A person has just rolled back to it, or it is deleted already.
            Err(LedgerError::WrongState { .. } | LedgerError::NotFound { .. }) => continue,
            Err(error) => return Err(error),
        }
        let Some(old) = kept.iter().find(|s| s.version == version) else { continue };
        // Not an error of the refresh: nothing names the file, and the other versions can still be
        // deleted.
        if let Err(error) = ctx.objects.remove(&old.path).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                object = old.path,
                "failed to remove an old snapshot"
            );
        }
    }
    Ok(())
}

/// Versions that syncs of this audience have delivered, or that their runs use, and those that
/// serving stores have or get. They must stay: what has to be removed is found by comparing with
/// them.
async fn pinned(ctx: &RefreshContext, name: &AudienceName) -> Result<BTreeSet<u64>, LedgerError> {
    let mut pinned = BTreeSet::new();
    let spec = ctx.spec.load_full();
    // Reads of this audience alone: a template may publish thousands of them together.
    for sync in spec.syncs.iter().filter(|sync| sync.audience == *name) {
        let platform = ctx.ledger.platform_audience(&sync.name).await?;
        pinned.extend(platform.and_then(|platform| platform.delivered_version));
        // Runs since the last completed one have left the platform between two versions.
        let runs = ctx.ledger.runs(Some(&sync.name), MAX_RUNS_READ).await?;
        for run in runs.iter().take_while(|run| run.state != RunState::Completed) {
            pinned.insert(run.to_version);
            pinned.extend(run.from_version);
        }
    }
    // A store gets the difference from the version that it has.
    for store in &spec.serving_stores {
        if let Some(row) = ctx.ledger.newest_store_write(&store.name, name).await? {
            pinned.extend([row.write.from_version, row.write.to_version].into_iter().flatten());
        }
    }
    Ok(pinned)
}

#[cfg(test)]
mod tests {
    use super::{doubts, doubts_of_keys, many_null_keys};

    #[test]
    fn doubts_about_key_columns_are_those_of_the_snapshot() {
        assert_eq!(doubts(None), Vec::<String>::new());
        // As an earlier version has recorded it.
        let earlier = r#"[{"name":"s.t","has_rows":true,"columns":[]}]"#;
        assert_eq!(doubts(Some(earlier)), Vec::<String>::new());
        let now = r#"[{"name":"s.t","has_rows":true,"columns":[],"doubts":["uid"]}]"#;
        assert_eq!(doubts(Some(now)), ["uid"]);
    }

    #[test]
    fn a_padded_key_is_doubtful() {
        assert_eq!(doubts_of_keys(100, 10, 0, true).count(), 0);
        let doubts: Vec<String> = doubts_of_keys(100, 0, 1, true).collect();
        assert_eq!(doubts.len(), 1, "{doubts:?}");
        assert!(doubts[0].starts_with("1 of 100 rows ") && doubts[0].contains("trim: true"));
        assert!(doubts[0].contains("invisible characters"), "{doubts:?}");
        assert_eq!(doubts_of_keys(100, 11, 100, true).count(), 2);
        // A warehouse has neither `trim` nor a table that `throng sources` lists.
        for doubt in doubts_of_keys(100, 11, 100, false) {
            assert!(!doubt.contains("trim: true") && !doubt.contains("throng sources"), "{doubt}");
        }
    }

    #[test]
    fn a_few_rows_without_a_key_are_normal() {
        assert!(!many_null_keys(0, 0));
        assert!(!many_null_keys(100, 10));
        assert!(many_null_keys(100, 11));
        assert!(many_null_keys(1, 1));
    }
}
