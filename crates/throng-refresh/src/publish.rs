//! The end of refreshes: writes their snapshots, evaluates the guard, and publishes or holds the snapshots with one
//! ledger update. Of refreshes that were built together many are published at a time.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use throng_membership::{
    ShardBitmap, SnapshotMeta, SnapshotSummary, UnwrittenSnapshot, seed_check, write_snapshots,
};
use throng_model::{AudienceName, Entropy as _, RefreshId, SystemEntropy};
use throng_spec::Audience;
use throng_store::{NewSnapshot, Refresh, Snapshot, SnapshotBase, SnapshotState};

use super::bits;
use super::error::RefreshError;
use super::execute::{BuildOutput, Built};
use super::guard::{self, GuardDecision};
use super::pool::blocking;
use crate::RefreshContext;

/// Uploads of snapshots at the same time.
const UPLOADS: usize = 8;

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

/// Publishes or holds the snapshot of one refresh: see [`together`].
pub(super) async fn publish(
    ctx: &RefreshContext,
    new: Publication<'_>,
    holder: &str,
) -> Result<PublishOutcome, RefreshError> {
    let results = together(ctx, std::slice::from_ref(&new), holder).await?;
    results.into_iter().next().unwrap_or(Err(RefreshError::Panicked))
}

/// Publishes or holds the snapshots of refreshes that were built together, with the result of each in their order.
pub(super) async fn publish_all(
    ctx: &RefreshContext,
    all: Vec<Publication<'_>>,
    holder: &str,
) -> Vec<Result<PublishOutcome, RefreshError>> {
    let error = match together(ctx, &all, holder).await {
        Ok(results) => return results,
        Err(error) => error,
    };
    // It may be the error of one of them, which must not fail the others.
    tracing::warn!(
        refreshes = all.len(),
        error = &error as &dyn std::error::Error,
        "failed to publish the audiences of a template together, publishing each alone"
    );
    let mut results = Vec::with_capacity(all.len());
    for new in all {
        results.push(publish(ctx, new, holder).await);
    }
    results
}

/// Writes the snapshots, then publishes or holds each with one ledger update, which checks the lease of each.
///
/// The order matters. The files are durable before the ledger names them, so no node can serve a file
/// that a crash has truncated; a crash before the update leaves only files that nothing names, and
/// the next try writes other ones.
async fn together(
    ctx: &RefreshContext,
    all: &[Publication<'_>],
    holder: &str,
) -> Result<Vec<Result<PublishOutcome, RefreshError>>, RefreshError> {
    let names: Vec<AudienceName> = all.iter().map(|new| new.audience.name.clone()).collect();
    let ids: Vec<RefreshId> = all.iter().map(|new| new.refresh.id).collect();
    let last = bases(ctx, &names).await?;
    let mut snapshots = Vec::with_capacity(all.len());
    for new in all {
        let last = last.get(&new.audience.name).map_or(0, |base| base.last_version);
        snapshots.push(unwritten(ctx, new, last + 1)?);
    }
    write(ctx, all, &mut snapshots).await?;
    let uploads: Vec<_> =
        snapshots.iter().map(|snapshot| ctx.objects.upload(&snapshot.path)).collect();
    futures::stream::iter(uploads).buffer_unordered(UPLOADS).try_collect::<Vec<()>>().await?;
    let with_parts: HashSet<RefreshId> =
        ctx.ledger.refreshes_with_parts(&ids).await?.into_iter().collect();
    // Read after the build: the guard has to compare with what is served now, which an approval or
    // a rollback may have changed.
    let mut served = bases(ctx, &names).await?;
    let (mut records, mut outcomes) = (Vec::new(), Vec::new());
    for (new, snapshot) in all.iter().zip(snapshots) {
        let previous = served.remove(&new.audience.name).and_then(|base| base.current);
        let members = previous.as_ref().map(|previous| previous.members);
        let held = match guard::evaluate(&new.audience.guard, members, snapshot.members) {
            GuardDecision::Publish => None,
            GuardDecision::Hold(reason) => Some(reason),
        };
        records.push(NewSnapshot { snapshot: snapshot.clone(), held: held.clone() });
        let had_parts = with_parts.contains(&new.refresh.id);
        let padded_keys = new.output.padded_keys;
        outcomes.push(PublishOutcome { snapshot, held, previous, padded_keys, had_parts });
    }
    let results = ctx.ledger.record_snapshots(&records, holder, ctx.clock.now()).await?;
    let recorded = results.into_iter().zip(outcomes);
    Ok(recorded.map(|(result, outcome)| result.map(|()| outcome).map_err(Into::into)).collect())
}

/// What the next versions of audiences follow.
async fn bases(
    ctx: &RefreshContext,
    names: &[AudienceName],
) -> Result<HashMap<AudienceName, SnapshotBase>, RefreshError> {
    let bases = ctx.ledger.snapshot_bases(names).await?;
    Ok(bases.into_iter().map(|base| (base.audience.clone(), base)).collect())
}

/// The snapshot of a refresh, without what is known once its file is written.
fn unwritten(
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
