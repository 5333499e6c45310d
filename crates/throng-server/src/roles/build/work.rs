//! The parts of a refresh: scans, then groups of user shards. A part that is done is not done
//! again; one that was in hand at a crash is.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};
use roaring::RoaringBitmap;
use serde::de::DeserializeOwned;
use throng_lake::{KeyBatch, Model, Rule};
use throng_ledger::{Part, PartKind, PartState, Refresh};
use throng_membership::{ShardDictionary, manifest_files};
use throng_model::{Entropy as _, SystemEntropy, UserHash};
use throng_spec::Audience;

use super::bits::{self, ShardBits};
use super::error::{BuildError, blocking};
use super::files::{KeyFile, KeyFileWriter, make_folder};
use super::members::members;
use super::model_of;
use super::parts::{self, ScanCovers, ScanOutput, ShardsCovers, ShardsOutput};
use crate::{Change, NodeContext};

/// How far a refresh is; the lease keeper writes it to the ledger.
#[derive(Debug, Default)]
pub(super) struct Progress {
    rows_read: AtomicU64,
    null_keys: AtomicU64,
    /// 0 if it is not known.
    rows_expected: AtomicU64,
}

impl Progress {
    fn add(&self, rows: u64, null_keys: u64) {
        self.rows_read.fetch_add(rows, Ordering::Relaxed);
        self.null_keys.fetch_add(null_keys, Ordering::Relaxed);
    }

    /// Rows, NULL keys, expected rows.
    pub(super) fn figures(&self) -> (u64, u64, Option<u64>) {
        let expected = self.rows_expected.load(Ordering::Relaxed);
        let (rows, null_keys) =
            (self.rows_read.load(Ordering::Relaxed), self.null_keys.load(Ordering::Relaxed));
        (rows, null_keys, (expected > 0).then_some(expected))
    }
}

/// What all parts of a refresh came to.
pub(super) struct Worked {
    /// The model that was run.
    pub(super) model: Model,
    pub(super) rows_read: u64,
    pub(super) null_keys: u64,
    /// The outputs of the shards parts, in the order of their shards.
    pub(super) bits: Vec<PathBuf>,
}

fn read<T: DeserializeOwned>(value: Option<&serde_json::Value>) -> Result<T, BuildError> {
    Ok(T::deserialize(value.unwrap_or(&serde_json::Value::Null))?)
}

/// Does every part that is not done. Safe to drop at any moment.
pub(super) async fn work(
    ctx: &Arc<NodeContext>,
    audience: &Audience,
    refresh: &Refresh,
    progress: &Progress,
) -> Result<Worked, BuildError> {
    make_folder(&ctx.objects.root().join(parts::folder(refresh.id)))?;
    let mut recorded = ctx.ledger.parts(refresh.id).await?;
    if recorded.is_empty() {
        let model = model_of(audience);
        let info = ctx.lake.load_full().check_model(&model.sql, model.key.as_deref()).await?;
        progress.rows_expected.store(info.estimated_rows.unwrap_or(0), Ordering::Relaxed);
        let scans = ctx.lake.load_full().scan_parts(&model).await?;
        ctx.ledger.add_parts(refresh.id, &parts::plan(&model, scans, info.rule)?).await?;
        recorded = ctx.ledger.parts(refresh.id).await?;
    }
    let (scans, shards): (Vec<&Part>, Vec<&Part>) =
        recorded.iter().partition(|part| part.kind == PartKind::Scan);
    let model = match scans.first() {
        Some(first) => read::<ScanCovers>(Some(&first.covers))?.model,
        None => None,
    };
    let Some(model) = model.filter(|begun| *begun == model_of(audience)) else {
        return Err(BuildError::Superseded);
    };
    let outputs = scan_all(ctx, refresh, &model, &scans, progress).await?;
    let keys: Vec<&str> = outputs.iter().map(|output| output.object.as_str()).collect();
    let bits = shards_all(ctx, refresh, &keys, &shards).await?;
    Ok(Worked {
        model,
        rows_read: outputs.iter().map(|o| o.rows_read).sum(),
        null_keys: outputs.iter().map(|o| o.null_keys).sum(),
        bits,
    })
}

async fn scan_all(
    ctx: &Arc<NodeContext>,
    refresh: &Refresh,
    model: &Model,
    scans: &[&Part],
    progress: &Progress,
) -> Result<Vec<ScanOutput>, BuildError> {
    let mut outputs = Vec::with_capacity(scans.len());
    for part in scans.iter().filter(|part| part.state == PartState::Done) {
        let output: ScanOutput = read(part.output.as_ref())?;
        progress.add(output.rows_read, output.null_keys);
        outputs.push(output);
    }
    for part in scans.iter().filter(|part| part.state == PartState::Pending) {
        let covers: ScanCovers = read(Some(&part.covers))?;
        let file = parts::scan_file(part.number, SystemEntropy.next_u64());
        let object = format!("{}/{file}", parts::folder(refresh.id));
        let mut writer = KeyFileWriter::create(&ctx.objects.root().join(&object))?;
        let mut sink = |batch: KeyBatch| {
            progress.add(batch.rows, batch.null_keys);
            writer.push(&batch.hashes, batch.values.as_deref()).map_err(Into::into)
        };
        let lake = ctx.lake.load_full();
        let stats = lake.scan(model, &covers.part, ctx.seed, &mut sink).await?;
        blocking(move || writer.finish()).await?;
        ctx.objects.keep(&object).await?;
        let output = ScanOutput { object, rows_read: stats.rows_read, null_keys: stats.null_keys };
        let value = serde_json::to_value(&output)?;
        ctx.ledger.finish_part(refresh.id, part.number, &value).await?;
        ctx.changed(Change::Audiences);
        outputs.push(output);
    }
    Ok(outputs)
}

async fn shards_all(
    ctx: &Arc<NodeContext>,
    refresh: &Refresh,
    scans: &[&str],
    shards: &[&Part],
) -> Result<Vec<PathBuf>, BuildError> {
    let mut bits = Vec::with_capacity(shards.len());
    let mut open: Option<Arc<Vec<KeyFile>>> = None;
    for part in shards {
        if part.state == PartState::Done {
            let output: ShardsOutput = read(part.output.as_ref())?;
            bits.push(ctx.objects.fetch(&output.object).await?);
            continue;
        }
        let files = match &open {
            Some(files) => Arc::clone(files),
            None => {
                let mut paths = Vec::with_capacity(scans.len());
                for object in scans {
                    paths.push(ctx.objects.fetch(object).await?);
                }
                let files = blocking(move || paths.iter().map(|p| KeyFile::open(p)).collect());
                Arc::clone(open.insert(Arc::new(files.await?)))
            }
        };
        let covers: ShardsCovers = read(Some(&part.covers))?;
        let built: Vec<ShardBits> = futures::stream::iter(covers.first..=covers.last)
            .map(|shard| build_shard(ctx, Arc::clone(&files), shard, covers.rule))
            .buffered(std::thread::available_parallelism().map_or(2, usize::from))
            .try_collect()
            .await?;
        let file = parts::shards_file(part.number, SystemEntropy.next_u64());
        let object = format!("{}/{file}", parts::folder(refresh.id));
        let members = built.iter().map(|b| b.members).sum();
        let path = ctx.objects.root().join(&object);
        bits.push(path.clone());
        blocking(move || bits::write(&path, &built)).await?;
        ctx.objects.keep(&object).await?;
        let output = serde_json::to_value(ShardsOutput { object, members })?;
        ctx.ledger.finish_part(refresh.id, part.number, &output).await?;
    }
    Ok(bits)
}

/// Sorts one shard's hashes, gives members ordinals, and makes their bitmap.
async fn build_shard(
    ctx: &Arc<NodeContext>,
    files: Arc<Vec<KeyFile>>,
    shard: u8,
    rule: Rule,
) -> Result<ShardBits, BuildError> {
    let hashes: Vec<UserHash> = blocking(move || {
        let mut words = Vec::new();
        for file in files.iter() {
            file.read(shard, &mut words)?;
        }
        Ok(members(words, rule))
    })
    .await?;
    if hashes.is_empty() {
        return Ok(ShardBits::default());
    }
    let hashes = Arc::new(hashes);
    loop {
        let known = ctx.ledger.dictionary_shard(shard).await?;
        let expected = known.version;
        for file in manifest_files(&known.manifest)? {
            ctx.objects.fetch(&file).await?;
        }
        let open = ctx.membership.load().dictionary(shard).cloned();
        let (objects, hashes) = (ctx.objects.root().to_owned(), Arc::clone(&hashes));
        let (built, manifest) = blocking(move || {
            let dictionary = match open {
                Some(open) => open.reopen(&objects, &known.manifest)?,
                None => ShardDictionary::open(&objects, &known.manifest)?,
            };
            let assigned = dictionary.assign(&objects, &hashes)?;
            let dictionary_len = dictionary.len() + assigned.added;
            Ok((bitmap(assigned.ordinals, dictionary_len), assigned.manifest))
        })
        .await?;
        if let Some(file) = manifest.as_deref().map(newest_file).transpose()?.flatten() {
            ctx.objects.keep(&file).await?;
        }
        match manifest {
            // Another refresh gave ordinals to its users in the meantime: look again.
            Some(manifest) if !ctx.ledger.swap_dictionary(shard, expected, &manifest).await? => {}
            _ => return Ok(built),
        }
    }
}

/// The segment that was just written: the last of a manifest.
fn newest_file(manifest: &str) -> Result<Option<String>, BuildError> {
    Ok(manifest_files(manifest)?.pop())
}

fn bitmap(mut ordinals: Vec<u32>, dictionary_len: u32) -> ShardBits {
    ordinals.sort_unstable();
    let mut bitmap = RoaringBitmap::from_iter(ordinals);
    bitmap.optimize();
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    bitmap.serialize_into(&mut bytes).expect("a Vec takes every write");
    ShardBits { dictionary_len, members: bitmap.len(), bytes }
}
