//! The end of refreshes: writes their snapshots, evaluates the guard, and publishes or holds the snapshots with one
//! ledger update. Of refreshes that were built together many are published at a time.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use throng_membership::{
    ShardBitmap, SnapshotMeta, SnapshotSummary, UnwrittenSnapshot, seed_check, write_snapshots,
};
use throng_model::{AudienceName, Entropy as _, RefreshId, SystemEntropy};
use throng_part_files::bits;
use throng_spec::Audience;
use throng_store::{LedgerError, NewSnapshot, Refresh, Snapshot, SnapshotBase, SnapshotState};
use tokio_util::sync::CancellationToken;

use super::error::RefreshError;
use super::execute::{BuildOutput, Built};
use super::pool::blocking;
use crate::RefreshContext;

/// Publications of one snapshot each at the same time.
const PUBLICATIONS_AT_ONCE: usize = 8;

/// A refresh whose members are known.
pub(super) struct Publication<'a> {
    /// As it is declared now.
    pub(super) audience: &'a Audience,
    pub(super) refresh: &'a Refresh,
    pub(super) output: BuildOutput,
}

/// A snapshot that is recorded in the ledger, published or held.
pub(super) struct PublishOutcome {
    pub(super) snapshot: Snapshot,
    /// Why it is held, if it is.
    pub(super) held: Option<String>,
    /// The version that was current before.
    pub(super) previous: Option<Snapshot>,
    /// Rows whose key has white space around it.
    pub(super) padded_keys: u64,
    /// Whether the refresh had parts, of this try or an earlier one.
    pub(super) had_parts: bool,
}

impl PublishOutcome {
    /// How the refresh has ended, for metrics.
    pub(super) fn name(&self) -> &'static str {
        if self.held.is_some() { "held" } else { "published" }
    }
}

/// The object of a snapshot. `unique` differs for each try: a builder that lost its lease must not
/// overwrite the file of the builder that holds it now.
fn snapshot_object(audience: &AudienceName, version: u64, unique: u64) -> String {
    format!("snapshots/{audience}/{version}-{unique:016x}.throng")
}

/// Publishes or holds the snapshot of one refresh.
///
/// The order matters. The file is durable before the ledger names it, so no node can serve a file that a crash has
/// truncated; a crash before the ledger's update leaves only a file that nothing names, and the next try writes another
/// one.
pub(super) async fn publish(
    ctx: &RefreshContext,
    new: &Publication<'_>,
    holder: &str,
) -> Result<PublishOutcome, RefreshError> {
    let prepared = prepare(ctx, std::slice::from_ref(new)).await?.pop();
    record_one(ctx, prepared.ok_or(RefreshError::Panicked)?, holder).await
}

/// [`publish`] for refreshes that were built together. Returns the result of each in their order; `None` for those that
/// were not tried, because of `shutdown` or because the ledger fails.
pub(super) async fn publish_all(
    ctx: &RefreshContext,
    all: &[Publication<'_>],
    holder: &str,
    shutdown: &CancellationToken,
) -> Vec<Option<Result<PublishOutcome, RefreshError>>> {
    let (error, prepared) = match prepare(ctx, all).await {
        Ok(prepared) => match record(ctx, &prepared, holder).await {
            Ok(results) => {
                let recorded = prepared.into_iter().zip(results);
                let recorded = recorded.map(|(outcome, result)| result.map(|()| outcome));
                return recorded.map(|result| Some(result.map_err(Into::into))).collect();
            }
            // Their files stay: the ledger may have recorded them although its answer was lost.
            Err(error) => (RefreshError::from(error), prepared),
        },
        Err(error) => (error, Vec::new()),
    };
    // It may be the error of one of them, which must not fail the others.
    tracing::warn!(
        refreshes = all.len(),
        error = &error as &dyn std::error::Error,
        "failed to publish the audiences of a template together, publishing each alone"
    );
    let (mut prepared, is_failing) = (prepared.into_iter(), AtomicBool::new(false));
    let tries: Vec<_> = all
        .iter()
        .map(|new| try_one(ctx, new, prepared.next(), holder, shutdown, &is_failing))
        .collect();
    futures::stream::iter(tries).buffered(PUBLICATIONS_AT_ONCE).collect().await
}

/// Publishes one of several refreshes, with its file if that is written already. `None` if it is not tried: at shutdown,
/// or if the ledger is failing, where each call may last until its timeout.
async fn try_one(
    ctx: &RefreshContext,
    new: &Publication<'_>,
    prepared: Option<PublishOutcome>,
    holder: &str,
    shutdown: &CancellationToken,
    is_failing: &AtomicBool,
) -> Option<Result<PublishOutcome, RefreshError>> {
    if shutdown.is_cancelled() || is_failing.load(Ordering::Relaxed) {
        return None;
    }
    let published = match prepared {
        Some(prepared) => record_one(ctx, prepared, holder).await,
        None => publish(ctx, new, holder).await,
    };
    if let Err(RefreshError::Ledger(error)) = &published
        && !error.is_refusal()
    {
        is_failing.store(true, Ordering::Relaxed);
    }
    Some(published)
}

/// Writes the snapshots and evaluates the guard. The ledger has none of them yet. After an error no file is left.
async fn prepare(
    ctx: &RefreshContext,
    all: &[Publication<'_>],
) -> Result<Vec<PublishOutcome>, RefreshError> {
    let names: Vec<AudienceName> = all.iter().map(|new| new.audience.name.clone()).collect();
    let last = read_bases(ctx, &names).await?;
    let mut snapshots = Vec::with_capacity(all.len());
    for new in all {
        let last = last.get(&new.audience.name).map_or(0, |base| base.last_version);
        snapshots.push(unwritten_snapshot(ctx, new, last + 1)?);
    }
    let prepared = match write(ctx, all, &mut snapshots).await {
        Ok(()) => upload_and_evaluate(ctx, all, &names, &snapshots).await,
        Err(error) => Err(error),
    };
    if prepared.is_err() {
        let paths: Vec<&str> = snapshots.iter().map(|it| it.path.as_str()).collect();
        remove_files(ctx, &paths).await;
    }
    prepared
}

/// Uploads the files of snapshots, and evaluates the guard of each.
async fn upload_and_evaluate(
    ctx: &RefreshContext,
    all: &[Publication<'_>],
    names: &[AudienceName],
    snapshots: &[Snapshot],
) -> Result<Vec<PublishOutcome>, RefreshError> {
    let paths: Vec<&str> = snapshots.iter().map(|it| it.path.as_str()).collect();
    ctx.objects.upload_all(&paths).await?;
    let ids: Vec<RefreshId> = all.iter().map(|new| new.refresh.id).collect();
    let with_parts: HashSet<RefreshId> =
        ctx.ledger.refreshes_with_parts(&ids).await?.into_iter().collect();
    // Read after the build: the guard has to compare with what is served now, which an approval or
    // a rollback may have changed.
    let mut served = read_bases(ctx, names).await?;
    let outcome = |(new, snapshot): (&Publication<'_>, &Snapshot)| {
        let previous = served.remove(&new.audience.name).and_then(|base| base.current);
        let members = previous.as_ref().map(|previous| previous.members);
        let held = new.audience.guard.reason_to_hold(members, snapshot.members);
        let had_parts = with_parts.contains(&new.refresh.id);
        let padded_keys = new.output.padded_keys;
        PublishOutcome { snapshot: snapshot.clone(), held, previous, padded_keys, had_parts }
    };
    Ok(all.iter().zip(snapshots).map(outcome).collect())
}

/// Publishes or holds a snapshot whose file is durable.
async fn record_one(
    ctx: &RefreshContext,
    prepared: PublishOutcome,
    holder: &str,
) -> Result<PublishOutcome, RefreshError> {
    let mut results = record(ctx, std::slice::from_ref(&prepared), holder).await?;
    results.pop().ok_or(RefreshError::Panicked)??;
    Ok(prepared)
}

/// Publishes or holds snapshots whose files are durable with one ledger update, which checks the lease of each. Returns
/// the result of each, and removes the files of those that are refused. After an error of the whole call all files stay:
/// the ledger may have recorded the snapshots although its answer was lost.
async fn record(
    ctx: &RefreshContext,
    prepared: &[PublishOutcome],
    holder: &str,
) -> Result<Vec<Result<(), LedgerError>>, LedgerError> {
    let new = |outcome: &PublishOutcome| NewSnapshot {
        snapshot: outcome.snapshot.clone(),
        held: outcome.held.clone(),
    };
    let records: Vec<NewSnapshot> = prepared.iter().map(new).collect();
    let mut results = ctx.ledger.record_snapshots(&records, holder, ctx.clock.now()).await?;
    let refused = prepared.iter().zip(&results).filter(|(_, result)| result.is_err());
    let names: Vec<AudienceName> =
        refused.map(|(outcome, _)| outcome.snapshot.audience.clone()).collect();
    if names.is_empty() {
        return Ok(results);
    }
    let named = match ctx.ledger.snapshots_of(&names).await {
        Ok(named) => named,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to find the files of refused snapshots, keeping them"
            );
            return Ok(results);
        }
    };
    let named: HashSet<String> = named.into_iter().map(|snapshot| snapshot.path).collect();
    let mut unnamed = Vec::new();
    for (outcome, result) in prepared.iter().zip(&mut results) {
        let path = outcome.snapshot.path.as_str();
        if result.is_err() && named.contains(path) {
            // An earlier call has recorded it, although its answer was lost, and has so ended the lease.
            *result = Ok(());
        } else if result.is_err() {
            unnamed.push(path);
        }
    }
    remove_files(ctx, &unnamed).await;
    Ok(results)
}

/// Removes the files of snapshots that the ledger does not name.
async fn remove_files(ctx: &RefreshContext, paths: &[&str]) {
    if let Err(error) = ctx.objects.remove_all(paths).await {
        tracing::warn!(
            snapshots = paths.len(),
            error = &error as &dyn std::error::Error,
            "failed to remove the files of snapshots that are not published"
        );
    }
}

/// What the next versions of audiences follow.
async fn read_bases(
    ctx: &RefreshContext,
    names: &[AudienceName],
) -> Result<HashMap<AudienceName, SnapshotBase>, RefreshError> {
    let bases = ctx.ledger.snapshot_bases(names).await?;
    Ok(bases.into_iter().map(|base| (base.audience.clone(), base)).collect())
}

/// The snapshot of a refresh, without what is known once its file is written.
fn unwritten_snapshot(
    ctx: &RefreshContext,
    new: &Publication<'_>,
    version: u64,
) -> Result<Snapshot, RefreshError> {
    let (name, output) = (&new.audience.name, &new.output);
    Ok(Snapshot {
        audience: name.clone(),
        version,
        state: SnapshotState::Published,
        path: snapshot_object(name, version, SystemEntropy.next_u64()),
        members: 0,
        rows_read: output.rows_read,
        null_keys: output.null_keys,
        bytes: 0,
        checksum: None,
        tables: output.tables.as_ref().map(serde_json::to_string).transpose()?,
        inputs: output.inputs.as_ref().map(serde_json::to_string).transpose()?,
        model_fingerprint: output.model.fingerprint(),
        refresh: new.refresh.id,
        created_at: ctx.clock.now(),
    })
}

/// Writes the files of snapshots, and adds what is known then.
async fn write(
    ctx: &RefreshContext,
    all: &[Publication<'_>],
    snapshots: &mut [Snapshot],
) -> Result<(), RefreshError> {
    let seed_check = seed_check(ctx.seed);
    let unwritten = |snapshot: &Snapshot| UnwrittenSnapshot {
        file: PathBuf::from(&snapshot.path),
        meta: SnapshotMeta {
            audience: snapshot.audience.clone(),
            version: snapshot.version,
            model_fingerprint: snapshot.model_fingerprint.clone(),
            rows_read: snapshot.rows_read,
            null_keys: snapshot.null_keys,
            created_at: snapshot.created_at,
            seed_check,
            dictionary_len: Vec::new(),
        },
        shards: Vec::new(),
    };
    let mut unwritten: Vec<UnwrittenSnapshot> = snapshots.iter().map(unwritten).collect();
    let built: Vec<Built> = all.iter().map(|new| new.output.bits.clone()).collect();
    let root = ctx.objects.root().to_owned();
    let written = blocking(move || {
        for (unwritten, shards) in unwritten.iter_mut().zip(read(&built)?) {
            let (lengths, bitmaps): (Vec<u32>, Vec<Vec<u8>>) = shards.into_iter().unzip();
            (unwritten.meta.dictionary_len, unwritten.shards) = (lengths, bitmaps);
        }
        Ok(write_snapshots(&root, unwritten)?)
    });
    for (snapshot, summary) in snapshots.iter_mut().zip(written.await?) {
        let SnapshotSummary { bytes, members, checksum } = summary;
        (snapshot.bytes, snapshot.members, snapshot.checksum) = (bytes, members, Some(checksum));
    }
    Ok(())
}

/// The bitmaps of each refresh by shard.
fn read(built: &[Built]) -> Result<Vec<Vec<ShardBitmap>>, RefreshError> {
    let mut read = Vec::with_capacity(built.len());
    for of_one_build in built.chunk_by(is_one_build) {
        match of_one_build.first() {
            Some(Built::Shared(bits, _)) => {
                let number = |built: &Built| match built {
                    Built::Shared(_, number) => Some(*number),
                    Built::Parts(_) => None,
                };
                let numbers: Vec<usize> = of_one_build.iter().filter_map(number).collect();
                read.extend(bits.read(&numbers)?);
            }
            Some(Built::Parts(files)) => {
                let mut all = Vec::new();
                for file in files {
                    all.extend(bits::read(&file.path, file.checksum)?);
                }
                read.push(all);
            }
            None => {}
        }
    }
    Ok(read)
}

fn is_one_build(a: &Built, b: &Built) -> bool {
    matches!((a, b), (Built::Shared(a, _), Built::Shared(b, _)) if Arc::ptr_eq(a, b))
}

#[cfg(test)]
mod tests;
