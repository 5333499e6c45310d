//! One build for several audiences of a template: one scan, whose keys are divided by user shard and group; then the
//! members of each audience in each shard, with one assignment of ordinals for all of them.
//!
//! Its outputs are local files in a folder of its own, and no parts of the ledger: after a crash the scan is repeated,
//! for the refreshes that are not published. So they are not synced, which would wait until all keys are on the disk.
//! The folder is none of a refresh, because a refresh may end before the build does, by a cancellation for example, and
//! its folder with it.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use throng_lake::{
    Inputs, Lake, MemberBuffers, MemberLayout, Model, ScanPart, SharedBatch, SharedPlan,
    SharedStats, TableFacts,
};
use throng_membership::{ShardBitmaps, SharedBits, write_bitmaps};
use throng_model::{AudienceName, Entropy as _, SHARD_COUNT, SystemEntropy};
use throng_part_files::{KeyFile, KeyFileWriter, KeyThread, create_folder};
use throng_store::AudienceRow;

use super::cleanup::log_failure;
use super::error::RefreshError;
use super::execute::{BuildOutput, Built, Progress, assign_ordinals};
use super::pool::blocking;
use super::siblings::Member;
use crate::RefreshContext;

/// Keys of a build whose audiences overlap, at most: a user may be one of every audience. They take 16 or 24 bytes each
/// on the disk, and those of a shard, a 256th of them, take up to 3.5 times as much memory for each core.
const MAX_OVERLAPPING_KEYS: u64 = 1 << 30;

/// Bytes of a key: its hash, its value if the rules are sums, and its group.
const MAX_KEY_BYTES: u64 = 24;
/// Bytes of the keys of one user shard, up to which twice as many shards as there are cores are built at the same time:
/// half of them wait for the disk, where their dictionaries grow. A shard takes up to 3.5 times as much memory.
const SMALL_SHARD_BYTES: u64 = 6 << 20;

/// The build of several audiences.
pub(super) struct SharedBuild {
    tables: Vec<TableFacts>,
    /// Those of all members, which read the same tables.
    inputs: Inputs,
    /// The group of each member.
    groups: Vec<u32>,
    stats: SharedStats,
    bits: Arc<SharedBits>,
}

impl SharedBuild {
    /// Rows of all groups.
    pub(super) fn rows_read(&self) -> u64 {
        self.stats.rows_read.iter().sum()
    }

    /// Bytes of the bitmaps of a member.
    pub(super) fn bytes(&self, at: usize) -> u64 {
        self.bits.bytes(at)
    }

    /// What a refresh of this audience alone would have built; `at` is the member's number.
    pub(super) fn output(&self, at: usize, member: &Member) -> BuildOutput {
        let group = self.groups.get(at).map_or(usize::MAX, |group| *group as usize);
        let count = |counts: &[u64]| counts.get(group).copied().unwrap_or(0);
        BuildOutput {
            model: Model::of(&member.audience),
            rows_read: count(&self.stats.rows_read),
            null_keys: count(&self.stats.null_keys),
            padded_keys: count(&self.stats.padded_keys),
            tables: Some(self.tables.clone()),
            inputs: Some(self.inputs.clone()),
            bits: Built::Shared(Arc::clone(&self.bits), at),
        }
    }
}

/// Builds all members; `None` if their models cannot be one scan, or have too many keys for one. Safe to drop at any
/// moment.
pub(super) async fn build(
    ctx: &Arc<RefreshContext>,
    group: &[Member],
    progress: &Progress,
) -> Result<Option<SharedBuild>, RefreshError> {
    let Some(first) = group.first() else { return Ok(None) };
    let sets = group.iter().map(|member| member.audience.parameters()).collect();
    let served = served_tables(ctx, group).await?;
    // All members are of one template, and so of one workspace.
    let lake = ctx.lake_of(&first.audience.name);
    let plan = lake.plan_shared(&Model::of(&first.audience), sets, served).await?;
    let Some(plan) = plan else { return Ok(None) };
    progress.expect(plan.info.estimated_rows);
    let folder = Folder::create(ctx.objects.root(), SystemEntropy.next_u64())?;
    let mut stats = SharedStats::of(plan.scan.groups());
    let mut files = Vec::with_capacity(plan.parts.len());
    let mut keys = 0;
    for (number, part) in plan.parts.iter().enumerate() {
        let path = folder.0.join(format!("{number}.keys"));
        let scanned = scan(ctx, &lake, &plan, part, path, &mut keys, progress).await?;
        let Some((found, file)) = scanned else {
            tracing::warn!(
                keys = MAX_OVERLAPPING_KEYS,
                "audiences of a template have too many keys for one scan, building each alone"
            );
            return Ok(None);
        };
        add(&mut stats.rows_read, &found.rows_read);
        add(&mut stats.null_keys, &found.null_keys);
        add(&mut stats.padded_keys, &found.padded_keys);
        files.push(file);
    }
    let files = Arc::new(files);
    let layout = MemberLayout::new(plan.scan.groups(), &plan.groups, plan.rules.clone());
    let layout = Arc::new(layout);
    let unused = Mutex::default();
    let shards: Vec<ShardBitmaps> = futures::stream::iter(0..=u8::MAX)
        .map(|shard| {
            let path = folder.0.join(format!("{shard}.bits"));
            build_shard(ctx, Arc::clone(&files), shard, Arc::clone(&layout), path, &unused)
        })
        .buffered(shards_at_once(keys))
        .try_collect()
        .await?;
    // The files of the bitmaps are open, and are read without their names.
    drop(folder);
    let SharedPlan { info, groups, .. } = plan;
    let bits = Arc::new(SharedBits::new(shards));
    Ok(Some(SharedBuild { tables: info.tables, inputs: info.inputs, groups, stats, bits }))
}

/// How many shards are built at the same time, if the scan has found so many keys.
fn shards_at_once(keys: u64) -> usize {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let bytes = keys.saturating_mul(MAX_KEY_BYTES) / SHARD_COUNT as u64;
    if bytes <= SMALL_SHARD_BYTES { 2 * cores } else { cores }
}

/// The folder of a build, which is removed with its files when it is dropped. After a crash, recovery removes it: its
/// name is not that of a refresh.
struct Folder(PathBuf);

impl Folder {
    fn create(root: &Path, unique: u64) -> Result<Self, RefreshError> {
        let path = root.join("refreshes").join(format!("shared-{unique:016x}"));
        create_folder(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        log_failure(&self.0, std::fs::remove_dir_all(&self.0));
    }
}

fn add(to: &mut [u64], counts: &[u64]) {
    to.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

/// The different tables that the served versions of the members were made from, by the same models.
async fn served_tables(
    ctx: &RefreshContext,
    group: &[Member],
) -> Result<Vec<Vec<TableFacts>>, RefreshError> {
    let rows = ctx.ledger.audiences().await?;
    let rows: BTreeMap<&AudienceName, &AudienceRow> =
        rows.iter().map(|row| (&row.name, row)).collect();
    let mut texts = HashSet::new();
    for member in group {
        let row = rows.get(&member.audience.name);
        let Some(current) = row.and_then(|row| row.current.as_ref()) else { continue };
        if current.model_fingerprint == Model::of(&member.audience).fingerprint() {
            texts.extend(current.tables.as_deref());
        }
    }
    texts.into_iter().map(|text| Ok(serde_json::from_str(text)?)).collect()
}

/// Scans a part, and adds the number of its keys to `keys`; `None` if there are too many.
async fn scan(
    ctx: &RefreshContext,
    lake: &Lake,
    plan: &SharedPlan,
    part: &ScanPart,
    path: PathBuf,
    keys: &mut u64,
    progress: &Progress,
) -> Result<Option<(SharedStats, KeyFile)>, RefreshError> {
    // Without overlaps there are not more keys than rows.
    let limit = if plan.scan.is_overlapping() { MAX_OVERLAPPING_KEYS } else { u64::MAX };
    let mut thread = KeyThread::start(KeyFileWriter::create(&path)?.scratch())?;
    let mut sink = |batch: &mut SharedBatch| {
        *keys += batch.hashes.len() as u64;
        if *keys > limit {
            return Err("there are too many keys for one build".into());
        }
        progress.add(batch.hashes.len() as u64, 0);
        if thread.push(batch) { Ok(()) } else { Err("the keys cannot be written".into()) }
    };
    let scanned = lake.scan_shared(&plan.scan, part, ctx.seed, &mut sink).await;
    if *keys > limit {
        return Ok(None);
    }
    // First the error of the thread, which is the cause of the other one.
    let file = blocking(move || {
        let checksum = thread.finish()?.finish()?;
        Ok(KeyFile::open(&path, Some(checksum))?)
    });
    let file = file.await?;
    Ok(Some((scanned?, file)))
}

async fn build_shard(
    ctx: &Arc<RefreshContext>,
    files: Arc<Vec<KeyFile>>,
    shard: u8,
    layout: Arc<MemberLayout>,
    path: PathBuf,
    unused: &Mutex<Vec<MemberBuffers>>,
) -> Result<ShardBitmaps, RefreshError> {
    let mut buffers = unused.lock().pop().unwrap_or_default();
    let (mut buffers, users) = blocking(move || {
        buffers.words.clear();
        for file in files.iter() {
            file.read(shard, &mut buffers.words)?;
        }
        layout.find(&mut buffers);
        let users = std::mem::take(&mut buffers.users);
        Ok((buffers, Arc::new(users)))
    })
    .await?;
    if users.is_empty() {
        unused.lock().push(buffers);
        return Ok(ShardBitmaps::default());
    }
    let (ordinals, dictionary_len) = assign_ordinals(ctx, shard, Arc::clone(&users)).await?;
    buffers.users = Arc::try_unwrap(users).unwrap_or_default();
    let (buffers, bitmaps) = blocking(move || {
        let mut bytes = std::mem::take(&mut buffers.bytes);
        let bitmaps =
            write_bitmaps(&path, &buffers.members(), &ordinals, dictionary_len, &mut bytes);
        buffers.bytes = bytes;
        Ok((buffers, bitmaps?))
    })
    .await?;
    unused.lock().push(buffers);
    Ok(bitmaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_build_is_that_of_no_refresh_and_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path(), 1).unwrap();
        let path = folder.0.clone();
        assert!(path.starts_with(dir.path().join("refreshes")) && path.is_dir());
        // The end of a refresh removes its folder; ids of refreshes are numbers.
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.parse::<i64>().is_err(), "{name}");
        std::fs::write(path.join("0.keys"), "keys").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
