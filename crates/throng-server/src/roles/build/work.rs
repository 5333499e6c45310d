//! The parts of a refresh: scans, then groups of user shards. Whoever holds the refresh leads: he
//! plans the parts, does what nobody else has in hand, and publishes when all are done. Builders
//! with nothing else to do help. A part that is done is not done again; one that was in hand at a
//! crash is.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use roaring::RoaringBitmap;
use serde::de::DeserializeOwned;
use throng_lake::{KeyBatch, LakeError, Model, Rule, TableFacts};
use throng_membership::manifest_files;
use throng_model::{Entropy as _, RefreshId, SystemEntropy, UserHash};
use throng_spec::Audience;
use throng_store::{LedgerError, Part, PartKind, PartState, Refresh};

use super::bits::{self, ShardBits};
use super::error::BuildError;
use super::files::{KeyFile, KeyFileWriter, make_folder};
use super::members::members;
use super::parts::{self, ScanCovers, ScanOutput, ShardsCovers, ShardsOutput};
use super::pool::blocking;
use super::{LEASE, TELL_EVERY, declared, dictionaries, model_of};
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

    fn start_over(&self) {
        self.rows_read.store(0, Ordering::Relaxed);
        self.null_keys.store(0, Ordering::Relaxed);
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
    /// The tables of the model, if they are known.
    pub(super) tables: Option<Vec<TableFacts>>,
    /// The outputs of the shards parts, in the order of their shards.
    pub(super) bits: Vec<PartFile>,
}

/// The output of a part on the local disk.
pub(super) struct PartFile {
    pub(super) path: PathBuf,
    /// Its checksum as the ledger has it; `None` from a version that recorded none.
    pub(super) checksum: Option<u64>,
}

fn read<T: DeserializeOwned>(value: Option<&serde_json::Value>) -> Result<T, BuildError> {
    Ok(T::deserialize(value.unwrap_or(&serde_json::Value::Null))?)
}

/// How often to look whether others have done the parts that they have in hand.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Does every part that is not done and that nobody else has in hand, until all are done. Safe to
/// drop at any moment.
pub(super) async fn work(
    ctx: &Arc<NodeContext>,
    audience: &Audience,
    refresh: &Refresh,
    holder: &str,
    progress: &Progress,
) -> Result<Worked, BuildError> {
    let recorded = ctx.ledger.parts(refresh.id).await?;
    if recorded.is_empty() {
        let planned = plan(ctx, audience, refresh, progress, None).await?;
        return work_on(ctx, audience, refresh, holder, progress, planned).await;
    }
    let next = recorded.iter().map(|part| part.number + 1).max().unwrap_or(0);
    match work_on(ctx, audience, refresh, holder, progress, recorded).await {
        // An exporter has put new files in place since an earlier try made the plan.
        Err(BuildError::Lake(error @ (LakeError::Changed { .. } | LakeError::Source { .. }))) => {
            tracing::info!(
                refresh = %refresh.id,
                error = &error as &dyn std::error::Error,
                "source files changed since the refresh was planned: it is planned anew"
            );
            progress.start_over();
            let planned = plan(ctx, audience, refresh, progress, Some((holder, next))).await?;
            work_on(ctx, audience, refresh, holder, progress, planned).await
        }
        other => other,
    }
}

/// Records the parts of a refresh. `replacing`: its holder, who plans it anew, and the number of the first
/// part then.
async fn plan(
    ctx: &NodeContext,
    audience: &Audience,
    refresh: &Refresh,
    progress: &Progress,
    replacing: Option<(&str, u32)>,
) -> Result<Vec<Part>, BuildError> {
    let model = model_of(audience);
    let served = served_tables(ctx, audience).await?;
    let (info, scans) = ctx.lake.load_full().plan_scan_after(&model, &served).await?;
    progress.rows_expected.store(info.estimated_rows.unwrap_or(0), Ordering::Relaxed);
    let (holder, first) = replacing.map_or((None, 0), |(holder, first)| (Some(holder), first));
    let planned = parts::plan(&model, scans, &info, first)?;
    ctx.ledger.add_parts(refresh.id, &planned, holder).await?;
    Ok(ctx.ledger.parts(refresh.id).await?)
}

async fn work_on(
    ctx: &Arc<NodeContext>,
    audience: &Audience,
    refresh: &Refresh,
    holder: &str,
    progress: &Progress,
    mut recorded: Vec<Part>,
) -> Result<Worked, BuildError> {
    let mut hand = Hand::new(ctx, audience, refresh.id, &recorded)?;
    let mut counted = HashSet::new();
    loop {
        for (number, output) in scanned(&recorded)? {
            if counted.insert(number) {
                progress.add(output.rows_read, output.null_keys);
            }
        }
        let now = ctx.clock.now();
        let (until, claim) = (now.plus(LEASE), claim_of(holder));
        if let Some((_, part)) = ctx.ledger.claim_part(Some(refresh.id), &claim, now, until).await?
        {
            tokio::select! {
                done = hand.do_part(&part, progress) => done?,
                never = keep_part(ctx, &claim) => match never {},
            }
            // The scan counted its rows as they came.
            counted.insert(part.number);
            continue;
        }
        recorded = ctx.ledger.parts(refresh.id).await?;
        if recorded.is_empty() {
            // Published or given up by somebody else.
            let (what, name) = ("refresh", refresh.id.to_string());
            return Err(LedgerError::LeaseLost { what, name }.into());
        }
        if recorded.iter().all(|part| part.state == PartState::Done) {
            break;
        }
        tokio::time::sleep(ctx.pause(LOOK_EVERY)).await;
    }
    let outputs = scanned(&recorded)?;
    let mut bits = Vec::new();
    for part in recorded.iter().filter(|part| part.kind == PartKind::Shards) {
        let output: ShardsOutput = read(part.output.as_ref())?;
        bits.push(PartFile {
            path: ctx.objects.download(&output.object).await?,
            checksum: output.checksum,
        });
    }
    Ok(Worked {
        model: hand.model,
        tables: hand.tables,
        rows_read: outputs.iter().map(|(_, o)| o.rows_read).sum(),
        null_keys: outputs.iter().map(|(_, o)| o.null_keys).sum(),
        bits,
    })
}

/// The tables that the served version was made of, if it was made of the same model.
async fn served_tables(
    ctx: &NodeContext,
    audience: &Audience,
) -> Result<Vec<TableFacts>, BuildError> {
    let row = ctx.ledger.audience(&audience.name).await?;
    let fingerprint = model_of(audience).fingerprint();
    let current = row.and_then(|row| row.current);
    let current = current.filter(|snapshot| snapshot.model_fingerprint == fingerprint);
    match current.and_then(|snapshot| snapshot.tables) {
        Some(tables) => Ok(serde_json::from_str(&tables)?),
        None => Ok(Vec::new()),
    }
}

/// The name under which a part is claimed: another one each time, so that keeping one part does not
/// keep another that this process let go of without a word.
pub(super) fn claim_of(holder: &str) -> String {
    format!("{holder}#{:08x}", SystemEntropy.next_u64() >> 32)
}

/// Keeps the lease of the part that was claimed under this name, for ever.
pub(super) async fn keep_part(ctx: &NodeContext, claim: &str) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(ctx.pause(TELL_EVERY)).await;
        if let Err(error) = ctx.ledger.keep_parts(claim, ctx.clock.now().plus(LEASE)).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the lease of a part is not kept"
            );
        }
    }
}

/// Does a part of a refresh that somebody else leads.
pub(super) async fn help(
    ctx: &Arc<NodeContext>,
    refresh: RefreshId,
    part: &Part,
) -> Result<(), BuildError> {
    let name = ctx.ledger.refresh(refresh).await?.audience;
    let audience = declared(&ctx.spec.load(), &name).cloned();
    let audience = audience.ok_or(BuildError::Gone(name))?;
    let recorded = ctx.ledger.parts(refresh).await?;
    let mut hand = Hand::new(ctx, &audience, refresh, &recorded)?;
    hand.do_part(part, &Progress::default()).await
}

/// The scans that are done: their numbers and what came out.
fn scanned(recorded: &[Part]) -> Result<Vec<(u32, ScanOutput)>, BuildError> {
    let done =
        recorded.iter().filter(|part| part.kind == PartKind::Scan && part.state == PartState::Done);
    done.map(|part| Ok((part.number, read(part.output.as_ref())?))).collect()
}

/// Somebody who does parts of one refresh.
struct Hand<'a> {
    ctx: &'a Arc<NodeContext>,
    refresh: RefreshId,
    model: Model,
    /// The tables of the model, if they are known.
    tables: Option<Vec<TableFacts>>,
    /// The outputs of all scans, once they are needed.
    keys: Option<Arc<Vec<KeyFile>>>,
}

impl<'a> Hand<'a> {
    /// `Superseded` if the refresh began with another model than the audience has here and now.
    fn new(
        ctx: &'a Arc<NodeContext>,
        audience: &Audience,
        refresh: RefreshId,
        recorded: &[Part],
    ) -> Result<Self, BuildError> {
        let first = recorded.iter().find(|part| part.kind == PartKind::Scan);
        let (model, tables) = match first {
            Some(first) => {
                let covers = read::<ScanCovers>(Some(&first.covers))?;
                (covers.model, covers.tables)
            }
            None => (None, None),
        };
        let model = model.filter(|begun| *begun == model_of(audience));
        let model = model.ok_or(BuildError::Superseded)?;
        make_folder(&ctx.objects.root().join(parts::folder(refresh)))?;
        Ok(Self { ctx, refresh, model, tables, keys: None })
    }

    async fn do_part(&mut self, part: &Part, progress: &Progress) -> Result<(), BuildError> {
        let output = match part.kind {
            PartKind::Scan => serde_json::to_value(self.scan(part, progress).await?)?,
            PartKind::Shards => serde_json::to_value(self.shards(part).await?)?,
        };
        self.ctx.ledger.finish_part(self.refresh, part.number, &output).await?;
        self.ctx.changed(Change::Audiences);
        Ok(())
    }

    async fn scan(&self, part: &Part, progress: &Progress) -> Result<ScanOutput, BuildError> {
        let ctx = self.ctx;
        let covers: ScanCovers = read(Some(&part.covers))?;
        let file = parts::scan_file(part.number, SystemEntropy.next_u64());
        let object = format!("{}/{file}", parts::folder(self.refresh));
        let mut writer = KeyFileWriter::create(&ctx.objects.root().join(&object))?;
        let mut sink = |batch: KeyBatch| {
            progress.add(batch.rows, batch.null_keys);
            writer.push(&batch.hashes, batch.values.as_deref()).map_err(Into::into)
        };
        let lake = ctx.lake.load_full();
        let stats = lake.scan(&self.model, &covers.part, ctx.seed, &mut sink).await?;
        let checksum = Some(blocking(move || writer.finish()).await?);
        ctx.objects.upload(&object).await?;
        let (rows_read, null_keys) = (stats.rows_read, stats.null_keys);
        Ok(ScanOutput { object, rows_read, null_keys, checksum })
    }

    /// The outputs of all scans, opened once.
    async fn keys(&mut self) -> Result<Arc<Vec<KeyFile>>, BuildError> {
        if let Some(keys) = &self.keys {
            return Ok(Arc::clone(keys));
        }
        let mut files = Vec::new();
        for (_, output) in scanned(&self.ctx.ledger.parts(self.refresh).await?)? {
            let path = self.ctx.objects.download(&output.object).await?;
            files.push(PartFile { path, checksum: output.checksum });
        }
        let open = |file: &PartFile| KeyFile::open(&file.path, file.checksum);
        let keys = blocking(move || files.iter().map(open).collect()).await?;
        Ok(Arc::clone(self.keys.insert(Arc::new(keys))))
    }

    async fn shards(&mut self, part: &Part) -> Result<ShardsOutput, BuildError> {
        let ctx = self.ctx;
        let keys = self.keys().await?;
        let covers: ShardsCovers = read(Some(&part.covers))?;
        let built: Vec<ShardBits> = futures::stream::iter(covers.first..=covers.last)
            .map(|shard| build_shard(ctx, Arc::clone(&keys), shard, covers.rule))
            .buffered(std::thread::available_parallelism().map_or(2, usize::from))
            .try_collect()
            .await?;
        let file = parts::shards_file(part.number, SystemEntropy.next_u64());
        let object = format!("{}/{file}", parts::folder(self.refresh));
        let members = built.iter().map(|b| b.members).sum();
        let path = ctx.objects.root().join(&object);
        let checksum = Some(blocking(move || bits::write(&path, &built)).await?);
        ctx.objects.upload(&object).await?;
        Ok(ShardsOutput { object, members, checksum })
    }
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
        let before = match ctx.serves_membership {
            true => ctx.membership.load().dictionary(shard).cloned().unwrap_or_default(),
            false => ctx.dictionaries.last(shard),
        };
        let dictionary = dictionaries::open(&ctx.objects, before, &known.manifest).await?;
        if !ctx.serves_membership {
            ctx.dictionaries.remember(shard, &dictionary);
        }
        let (objects, hashes) = (ctx.objects.root().to_owned(), Arc::clone(&hashes));
        let (built, manifest) = blocking(move || {
            let assigned = dictionary.assign(&objects, &hashes)?;
            let dictionary_len = dictionary.len() + assigned.added;
            Ok((bitmap(assigned.ordinals, dictionary_len), assigned.manifest))
        })
        .await?;
        if let Some(file) = manifest.as_deref().map(newest_file).transpose()?.flatten() {
            ctx.objects.upload(&file).await?;
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
