//! What follows once snapshots are in the ledger: reload, alerts, history, retention. They are valid without any of it;
//! what a crash leaves undone, the next refresh or the next start does.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use throng_lake::TableFacts;
use throng_model::{AudienceName, SyncName, count, counted};
use throng_spec::{Audience, Spec};
use throng_store::{
    AlertKind, HistoryEvent, LedgerError, NewAlert, Refresh, RunState, Snapshot, SnapshotState,
    expired_versions,
};
use throng_telemetry::metrics;

use super::publish::PublishOutcome;
use super::{alerts, cleanup, freshness, history, membership};
use crate::RefreshContext;

/// Newest runs of a sync that are read for the snapshots that they still need.
const MAX_RUNS_READ: u32 = 100;
/// Reads of the ledger, or removals of objects, at the same time.
const AT_ONCE: usize = 8;

/// A refresh whose snapshot is recorded.
pub(super) struct Recorded<'a> {
    pub(super) audience: &'a Audience,
    pub(super) refresh: &'a Refresh,
    pub(super) outcome: &'a PublishOutcome,
}

/// What follows for refreshes that were recorded together. `reloads`: whether lookups get the snapshots now; else the
/// caller does it for more of them.
pub(super) async fn follow_up(ctx: &Arc<RefreshContext>, all: &[Recorded<'_>], reloads: bool) {
    let Some(first) = all.first() else { return };
    let (audience, refreshes) = (&first.audience.name, all.len());
    if reloads
        && ctx.serves_membership
        && all.iter().any(|recorded| recorded.outcome.held.is_none())
        && let Err(error) = membership::reload_membership(ctx).await
    {
        tracing::error!(%audience, refreshes, error = &error as &dyn std::error::Error, "failed to load a published snapshot");
    }
    ctx.observer.snapshot_recorded();
    ctx.observer.audiences_changed();
    let reported = report(ctx, all).await;
    // Also if the report has failed: old snapshots would fill the disk otherwise.
    let retained = apply_retention(ctx, all).await;
    if let Err(error) = reported.and(retained) {
        tracing::error!(%audience, refreshes, error = &error as &dyn std::error::Error, "failed to finish the follow-up of a refresh");
    }
    // Those that had none have no files: a listing of each would take long where objects are in a bucket.
    for Recorded { refresh, .. } in all.iter().filter(|recorded| recorded.outcome.had_parts) {
        cleanup::remove_parts(ctx, refresh.id).await;
    }
    ctx.observer.audiences_changed();
}

fn counts(outcome: &PublishOutcome) -> String {
    let new = &outcome.snapshot;
    let change = match &outcome.previous {
        Some(previous) => {
            format!("after {} in version {}", count(previous.members), previous.version)
        }
        None => "the first".to_owned(),
    };
    let mut text = format!(
        "version {} has {}, {change}; {} read, {} without a key",
        new.version,
        counted(new.members, "member"),
        counted(new.rows_read, "row"),
        count(new.null_keys)
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

/// Resolves and raises the alerts of refreshes, and adds to the history of their audiences.
async fn report(ctx: &RefreshContext, all: &[Recorded<'_>]) -> Result<(), LedgerError> {
    let now = ctx.clock.now();
    let (mut resolved, mut raised, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for Recorded { audience, outcome, .. } in all {
        let name = &audience.name;
        // The refresh itself succeeded, also if its snapshot is held.
        resolved.push((AlertKind::RefreshFailed, name.as_str()));
        if let Some(reason) = &outcome.held {
            let version = outcome.snapshot.version;
            raised.push(alerts::held_alert(name, version, reason));
            tracing::warn!(audience = %name, version, reason, "holding a snapshot");
            let why = format!("{}; {reason}", counts(outcome));
            entries.push(history::entry(name, HistoryEvent::Held, why, now));
            continue;
        }
        // It is about an earlier version: this one is served, and nobody has to act on the other.
        resolved.push((AlertKind::SnapshotHeld, name.as_str()));
        let members = outcome.snapshot.members as f64;
        metrics::gauge!(metrics::AUDIENCE_MEMBERS, "audience" => name.to_string()).set(members);
        freshness::record_success(name, now);
        match null_keys_alert(audience, outcome) {
            Some(alert) => raised.push(alert),
            None => resolved.push((AlertKind::NullKeys, name.as_str())),
        }
        entries.push(history::entry(name, HistoryEvent::Published, counts(outcome), now));
    }
    let mut reported = ctx.ledger.resolve_alerts(&resolved, now).await;
    reported = reported.and(ctx.ledger.raise_alerts(&raised, now).await);
    reported.and(ctx.ledger.record_history(&entries).await)
}

/// The alert about keys of a snapshot that are doubtful.
fn null_keys_alert(audience: &Audience, outcome: &PublishOutcome) -> Option<NewAlert> {
    let snapshot = &outcome.snapshot;
    let mut doubts = doubts(snapshot.tables.as_deref());
    // Only files are trimmed by their source.
    let is_of_files = audience.source.is_none();
    let (rows, null_keys) = (snapshot.rows_read, snapshot.null_keys);
    doubts.extend(doubts_of_keys(rows, null_keys, outcome.padded_keys, is_of_files));
    let (subject, message) = (audience.name.to_string(), doubts.join("; "));
    (!doubts.is_empty()).then_some(NewAlert { kind: AlertKind::NullKeys, subject, message })
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

/// Deletes snapshots by the retention rule: first from the ledger, then their files. A crash in
/// between leaves files that the next start removes; the other order would leave rows whose file is
/// missing.
async fn apply_retention(ctx: &RefreshContext, all: &[Recorded<'_>]) -> Result<(), LedgerError> {
    let names: Vec<AudienceName> = all.iter().map(|it| it.audience.name.clone()).collect();
    let mut kept: HashMap<AudienceName, Vec<Snapshot>> = HashMap::new();
    for snapshot in ctx.ledger.snapshots_of(&names).await? {
        kept.entry(snapshot.audience.clone()).or_default().push(snapshot);
    }
    let mut candidates = Vec::new();
    for Recorded { audience, .. } in all {
        let Some(kept) = kept.remove(&audience.name) else { continue };
        let is_published = |snapshot: &Snapshot| snapshot.state == SnapshotState::Published;
        if kept.len() > audience.keep_snapshots as usize || !kept.iter().all(is_published) {
            candidates.push((*audience, kept));
        }
    }
    if candidates.is_empty() {
        return Ok(());
    }
    let spec = ctx.spec.load_full();
    let mut syncs: HashMap<&AudienceName, Vec<&SyncName>> = HashMap::new();
    for sync in &spec.syncs {
        syncs.entry(&sync.audience).or_default().push(&sync.name);
    }
    let reads: Vec<_> = candidates
        .iter()
        .map(|(audience, _)| {
            let syncs = syncs.get(&audience.name).map(Vec::as_slice).unwrap_or_default();
            pinned(ctx, &spec, &audience.name, syncs)
        })
        .collect();
    let pinned: Vec<Result<BTreeSet<u64>, LedgerError>> =
        futures::stream::iter(reads).buffered(AT_ONCE).collect().await;
    let names: Vec<AudienceName> = candidates.iter().map(|(it, _)| it.name.clone()).collect();
    let bases = ctx.ledger.snapshot_bases(&names).await?;
    let served: HashMap<AudienceName, u64> =
        bases.into_iter().filter_map(|base| Some((base.audience, base.current?.version))).collect();
    let mut expired = Vec::new();
    for ((audience, kept), pinned) in candidates.into_iter().zip(pinned) {
        let pinned = match pinned {
            Ok(pinned) => pinned,
            // The others need not keep their old versions for it.
            Err(error) => {
                tracing::error!(audience = %audience.name, error = &error as &dyn std::error::Error, "failed to find the snapshots to keep, deleting none");
                continue;
            }
        };
        let served = served.get(&audience.name).copied();
        let versions = expired_versions(&kept, served, audience.keep_snapshots, &pinned);
        expired.extend(kept.into_iter().filter(|old| versions.contains(&old.version)));
    }
    delete(ctx, &expired).await
}

/// Deletes snapshots, but none to which a person has just rolled back.
async fn delete(ctx: &RefreshContext, expired: &[Snapshot]) -> Result<(), LedgerError> {
    let version_of = |old: &Snapshot| (old.audience.clone(), old.version);
    let versions: Vec<(AudienceName, u64)> = expired.iter().map(version_of).collect();
    let deleted = ctx.ledger.delete_snapshots(&versions).await?;
    let deleted: HashSet<(AudienceName, u64)> = deleted.into_iter().collect();
    let unnamed = expired.iter().filter(|old| deleted.contains(&version_of(old)));
    let removals: Vec<_> = unnamed
        .map(|old| async move { (&old.path, ctx.objects.remove(&old.path).await) })
        .collect();
    let removed: Vec<_> = futures::stream::iter(removals).buffer_unordered(AT_ONCE).collect().await;
    for (object, removed) in removed {
        // Not an error of the refresh: nothing names the file, and the other versions can still be
        // deleted.
        if let Err(error) = removed {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                object,
                "failed to remove an old snapshot"
            );
        }
    }
    Ok(())
}

/// Versions that syncs of this audience have delivered, or that their runs use, and those that
/// serving stores have or get. They must stay: what has to be removed is found by comparing with
/// them. Reads of this audience alone: a template may publish thousands of them together.
async fn pinned(
    ctx: &RefreshContext,
    spec: &Spec,
    name: &AudienceName,
    syncs: &[&SyncName],
) -> Result<BTreeSet<u64>, LedgerError> {
    let mut pinned = BTreeSet::new();
    for sync in syncs.iter().copied() {
        let platform = ctx.ledger.platform_audience(sync).await?;
        pinned.extend(platform.and_then(|platform| platform.delivered_version));
        // Runs since the last completed one have left the platform between two versions.
        let runs = ctx.ledger.runs(Some(sync), MAX_RUNS_READ).await?;
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
