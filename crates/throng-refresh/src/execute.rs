//! Runs the parts of a refresh: scans, then groups of user shards. The builder that holds the
//! refresh leads: it plans the parts, runs those that no other builder has claimed, and publishes
//! when all are done. Idle builders of other processes run parts as well. A part that is done is
//! not run again; one that was running at a crash is.

mod page;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use throng_lake::{FileError, Inputs, KeyBatch, LakeError, Model, Rule, ScanStats, TableFacts};
use throng_membership::{SharedBits, manifest_files};
use throng_model::{AudienceName, Entropy as _, RefreshId, SystemEntropy, UserHash};
use throng_part_files::bits::{self, ShardBits, bitmap};
use throng_part_files::{KeyFile, KeyFileWriter, create_folder};
use throng_spec::{Audience, WarehouseSource};
use throng_store::{LedgerError, Part, PartKind, PartState, Refresh};

use super::error::RefreshError;
use super::parts::{self, ScanCovers, ScanOutput, ShardsCovers, ShardsOutput, read, scan_outputs};
use super::pool::blocking;
use super::warehouse::{Session, WarehouseError};
use super::{HEARTBEAT_INTERVAL, LEASE, declared, dictionaries, key_types, model_of, pages};
use crate::RefreshContext;

/// The progress of a refresh; the heartbeat writes it to the ledger.
#[derive(Debug, Default)]
pub(super) struct Progress {
    rows_read: AtomicU64,
    null_keys: AtomicU64,
    /// 0 if it is unknown.
    rows_expected: AtomicU64,
}

impl Progress {
    pub(super) fn add(&self, rows: u64, null_keys: u64) {
        self.rows_read.fetch_add(rows, Ordering::Relaxed);
        self.null_keys.fetch_add(null_keys, Ordering::Relaxed);
    }

    /// Sets how many rows there will probably be.
    pub(super) fn expect(&self, rows: Option<u64>) {
        self.rows_expected.store(rows.unwrap_or(0), Ordering::Relaxed);
    }

    fn reset(&self) {
        self.rows_read.store(0, Ordering::Relaxed);
        self.null_keys.store(0, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> RowCounts {
        let expected = self.rows_expected.load(Ordering::Relaxed);
        RowCounts {
            read: self.rows_read.load(Ordering::Relaxed),
            null_keys: self.null_keys.load(Ordering::Relaxed),
            expected: (expected > 0).then_some(expected),
        }
    }
}

/// The rows of a refresh so far.
pub(super) struct RowCounts {
    pub(super) read: u64,
    /// Rows without a key.
    pub(super) null_keys: u64,
    /// How many rows there will be, if it is known.
    pub(super) expected: Option<u64>,
}

/// The outputs of all parts of a refresh.
pub(super) struct BuildOutput {
    /// The model that was run.
    pub(super) model: Model,
    pub(super) rows_read: u64,
    pub(super) null_keys: u64,
    /// Rows whose key has white space around it.
    pub(super) padded_keys: u64,
    /// The tables of the model, if they are known.
    pub(super) tables: Option<Vec<TableFacts>>,
    /// The files of the model, if they are known.
    pub(super) inputs: Option<Inputs>,
    /// The members.
    pub(super) bits: Built,
}

/// Where the bitmaps of a refresh are.
#[derive(Clone)]
pub(super) enum Built {
    /// The outputs of the shards parts, in the order of their shards.
    Parts(Vec<PartFile>),
    /// In those of several refreshes; the number of this one.
    Shared(Arc<SharedBits>, usize),
}

/// The output of a part on the local disk.
#[derive(Clone)]
pub(super) struct PartFile {
    pub(super) path: PathBuf,
    /// Its checksum as the ledger has it; `None` if an older version recorded none.
    pub(super) checksum: Option<u64>,
}

/// How often the leader checks whether other builders have finished the parts that they claimed.
const PARTS_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Runs every part that is not done and not claimed by another builder, until all are done. Safe to
/// drop at any moment: a part that is not done is claimed again later.
pub(super) async fn run(
    ctx: &Arc<RefreshContext>,
    audience: &Audience,
    refresh: &Refresh,
    holder: &str,
    progress: &Progress,
) -> Result<BuildOutput, RefreshError> {
    if audience.source.is_some() {
        return run_job(ctx, audience, refresh, holder, progress).await;
    }
    let recorded = ctx.ledger.parts(refresh.id).await?;
    // An earlier try may have planned the parts. They stay, so that what it has finished is not run
    // again.
    if recorded.is_empty() {
        let planned = plan(ctx, audience, refresh, progress, None).await?;
        return run_parts(ctx, audience, refresh, holder, progress, planned).await;
    }
    // Numbers that no earlier part has: a builder that still runs one of them could finish a part
    // of the new plan with an output of the old one.
    let next = recorded.iter().map(|part| part.number + 1).max().unwrap_or(0);
    match run_parts(ctx, audience, refresh, holder, progress, recorded).await {
        // The source files were replaced after an earlier try had planned the parts. Without a new
        // plan every try would fail in the same way.
        Err(RefreshError::Lake(
            error @ LakeError::File(FileError::Changed { .. } | FileError::Source { .. }),
        )) => {
            tracing::info!(
                refresh = %refresh.id,
                error = &error as &dyn std::error::Error,
                "source files have changed since the refresh was planned, planning it again"
            );
            // The new plan reads again what scans of the first one have counted.
            progress.reset();
            let planned = plan(ctx, audience, refresh, progress, Some((holder, next))).await?;
            run_parts(ctx, audience, refresh, holder, progress, planned).await
        }
        other => other,
    }
}

/// As [`run`], for SQL that a warehouse runs. A job whose result is lost is replaced by another one,
/// and its pages are not used: the tables may have changed in between.
async fn run_job(
    ctx: &Arc<RefreshContext>,
    audience: &Audience,
    refresh: &Refresh,
    holder: &str,
    progress: &Progress,
) -> Result<BuildOutput, RefreshError> {
    let model = model_of(audience);
    let mut recorded = ctx.ledger.parts(refresh.id).await?;
    if recorded.is_empty() {
        // Before the job exists: whoever continues the refresh finds it by its number.
        ctx.ledger.add_parts(refresh.id, &[pages::first(&model, 0, 0)?], None).await?;
        recorded = ctx.ledger.parts(refresh.id).await?;
    }
    loop {
        let job = parts::newest_job(&recorded)?.unwrap_or(0);
        let lost = match run_parts(ctx, audience, refresh, holder, progress, recorded).await {
            Err(RefreshError::Warehouse(error @ WarehouseError::JobLost { .. }))
                if job + 1 < pages::MAX_JOBS =>
            {
                error
            }
            other => return other,
        };
        tracing::warn!(
            refresh = %refresh.id,
            error = &lost as &dyn std::error::Error,
            "the job of a refresh is lost, starting another one"
        );
        progress.reset();
        // As with another plan of scans, the numbers are higher than those of all earlier parts. One
        // is left out, which a builder that has lost its lease may still add.
        let recorded_now = ctx.ledger.parts(refresh.id).await?;
        let number = recorded_now.iter().map(|part| part.number + 2).max().unwrap_or(0);
        let first = pages::first(&model, job + 1, number)?;
        ctx.ledger.add_parts(refresh.id, &[first], Some(holder)).await?;
        recorded = ctx.ledger.parts(refresh.id).await?;
    }
}

/// Plans the parts of a refresh and records them. `replacing` is for a second plan: the holder,
/// whose lease is checked, and the number of the first part.
async fn plan(
    ctx: &RefreshContext,
    audience: &Audience,
    refresh: &Refresh,
    progress: &Progress,
    replacing: Option<(&str, u32)>,
) -> Result<Vec<Part>, RefreshError> {
    let model = model_of(audience);
    let served = served_tables(ctx, &audience.name, &model).await?;
    let (info, scans) = ctx.lake_of(&audience.name).plan_scan(&model, &served).await?;
    progress.expect(info.estimated_rows);
    let (holder, first) = replacing.map_or((None, 0), |(holder, first)| (Some(holder), first));
    let planned = parts::plan(&model, scans, &info, first)?;
    ctx.ledger.add_parts(refresh.id, &planned, holder).await?;
    // Read back: parts that are recorded already stay, so the ledger may have those of another
    // process and not these.
    Ok(ctx.ledger.parts(refresh.id).await?)
}

async fn run_parts(
    ctx: &Arc<RefreshContext>,
    audience: &Audience,
    refresh: &Refresh,
    holder: &str,
    progress: &Progress,
    mut recorded: Vec<Part>,
) -> Result<BuildOutput, RefreshError> {
    let mut worker = PartWorker::new(ctx, audience, refresh.id, &recorded)?;
    let mut counted = HashSet::new();
    loop {
        for (number, output) in scan_outputs(&recorded)? {
            if counted.insert(number) {
                progress.add(output.rows_read, output.null_keys);
            }
        }
        let now = ctx.clock.now();
        let (until, claim) = (now.plus(LEASE), new_claim(holder));
        // By a claim, although this builder leads: other builders run parts too, and each part
        // should run once.
        if let Some(part) = ctx.ledger.claim_part(refresh.id, &claim, now, until).await? {
            tokio::select! {
                done = worker.run(&part, progress) => done?,
                never = renew_part_lease(ctx, &claim) => match never {},
            }
            // The scan has counted its rows already.
            counted.insert(part.number);
            continue;
        }
        recorded = ctx.ledger.parts(refresh.id).await?;
        if recorded.is_empty() {
            // Another builder has published the refresh, or it has failed: both delete its parts.
            let (what, name) = ("refresh", refresh.id.to_string());
            return Err(LedgerError::LeaseLost { what, name }.into());
        }
        if recorded.iter().all(|part| part.state == PartState::Done) {
            let added = pages::next(&recorded)?;
            if added.is_empty() {
                break;
            }
            ctx.ledger.add_parts(refresh.id, &added, None).await?;
            continue;
        }
        // Other builders run the rest, and another process sends no notification.
        tokio::time::sleep(ctx.poll_delay(PARTS_POLL_INTERVAL)).await;
    }
    // The counts are those of the recorded outputs: `progress` lacks the scans that other builders
    // have finished since the last claim.
    let outputs = scan_outputs(&recorded)?;
    let mut bits = Vec::new();
    for part in recorded.iter().filter(|part| part.kind == PartKind::Shards) {
        let output: ShardsOutput = read(part.output.as_ref())?;
        bits.push(PartFile {
            path: ctx.objects.download(&output.object).await?,
            checksum: output.checksum,
        });
    }
    let tables = match &worker.model.source {
        Some(source) => Some(key_types::tables(source, &outputs)),
        None => worker.tables,
    };
    Ok(BuildOutput {
        model: worker.model,
        tables,
        inputs: worker.inputs,
        rows_read: outputs.iter().map(|(_, o)| o.rows_read).sum(),
        null_keys: outputs.iter().map(|(_, o)| o.null_keys).sum(),
        padded_keys: outputs.iter().map(|(_, o)| o.padded_keys).sum(),
        bits: Built::Parts(bits),
    })
}

/// The tables that the served version was made from, if it was made by the same model.
async fn served_tables(
    ctx: &RefreshContext,
    audience: &AudienceName,
    model: &Model,
) -> Result<Vec<TableFacts>, RefreshError> {
    let row = ctx.ledger.audience(audience).await?;
    let fingerprint = model.fingerprint();
    let current = row.and_then(|row| row.current);
    let current = current.filter(|snapshot| snapshot.model_fingerprint == fingerprint);
    match current.and_then(|snapshot| snapshot.tables) {
        Some(tables) => Ok(serde_json::from_str(&tables)?),
        None => Ok(Vec::new()),
    }
}

/// A new name to claim a part with. It differs each time: leases are renewed by name, so with one
/// name for all parts a heartbeat would also renew a part that this process dropped without
/// releasing it, and no other builder could ever claim that part.
pub(super) fn new_claim(holder: &str) -> String {
    format!("{holder}#{:08x}", SystemEntropy.next_u64() >> 32)
}

/// Renews the lease of the part that was claimed with this name. Never returns.
pub(super) async fn renew_part_lease(
    ctx: &RefreshContext,
    claim: &str,
) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(ctx.poll_delay(HEARTBEAT_INTERVAL)).await;
        // Not the end of the part: the lease lasts longer than one renewal, and a part that another
        // builder runs as well is safe to repeat.
        if let Err(error) = ctx.ledger.renew_part_leases(claim, ctx.clock.now().plus(LEASE)).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to renew the lease of a part"
            );
        }
    }
}

/// Runs a part of a refresh that another process leads. `false` if it is a key range: only the leader's session reads
/// the next one at the same moment.
pub(super) async fn help(
    ctx: &Arc<RefreshContext>,
    refresh: RefreshId,
    part: &Part,
) -> Result<bool, RefreshError> {
    let name = ctx.ledger.refresh(refresh).await?.audience;
    let spec = ctx.spec.load_full();
    let audience = declared(&spec, &name).cloned();
    let audience = audience.ok_or(RefreshError::NotDeclared(name))?;
    let source = audience.source.as_ref().and_then(|name| spec.warehouse(name.as_str()));
    if part.kind == PartKind::Scan && source.is_some_and(WarehouseSource::is_read_in_key_ranges) {
        return Ok(false);
    }
    let recorded = ctx.ledger.parts(refresh).await?;
    // This process may have another spec than the leader: the worker refuses another model, and the
    // part is released.
    let mut worker = PartWorker::new(ctx, &audience, refresh, &recorded)?;
    worker.run(part, &Progress::default()).await.map(|()| true)
}

/// Runs parts of one refresh.
struct PartWorker<'a> {
    ctx: &'a Arc<RefreshContext>,
    audience: AudienceName,
    refresh: RefreshId,
    model: Model,
    /// The tables of the model, if they are known.
    tables: Option<Vec<TableFacts>>,
    /// The files of the model, if they are known.
    inputs: Option<Inputs>,
    /// The outputs of all scans, once they are needed.
    keys: Option<Arc<Vec<KeyFile>>>,
    /// That of the last page of a warehouse's result.
    session: Session,
}

impl<'a> PartWorker<'a> {
    /// [`RefreshError::Superseded`] if the refresh started with another model than the audience has
    /// now: its parts would make a snapshot of two models.
    fn new(
        ctx: &'a Arc<RefreshContext>,
        audience: &Audience,
        refresh: RefreshId,
        recorded: &[Part],
    ) -> Result<Self, RefreshError> {
        let (mut model, mut tables, mut inputs) = (None, None, None);
        for part in recorded.iter().filter(|part| part.kind == PartKind::Scan) {
            let covers = read::<ScanCovers>(Some(&part.covers))?;
            if covers.model.is_some() {
                (model, tables, inputs) = (covers.model, covers.tables, covers.inputs);
                break;
            }
        }
        let model = model.filter(|started| *started == model_of(audience));
        let model = model.ok_or(RefreshError::Superseded)?;
        create_folder(&ctx.objects.root().join(parts::folder(refresh)))?;
        Ok(Self {
            ctx,
            audience: audience.name.clone(),
            refresh,
            model,
            tables,
            inputs,
            keys: None,
            session: Session::default(),
        })
    }

    /// Runs a part and records its output.
    async fn run(&mut self, part: &Part, progress: &Progress) -> Result<(), RefreshError> {
        let output = match part.kind {
            PartKind::Scan => serde_json::to_value(self.scan(part, progress).await?)?,
            PartKind::Shards => serde_json::to_value(self.shards(part).await?)?,
        };
        // After the upload: from here on other builders read the output, and nobody runs the part
        // again.
        self.ctx.ledger.finish_part(self.refresh, part.number, &output).await?;
        self.ctx.observer.audiences_changed();
        Ok(())
    }

    async fn scan(&mut self, part: &Part, progress: &Progress) -> Result<ScanOutput, RefreshError> {
        let ctx = self.ctx;
        let covers: ScanCovers = read(Some(&part.covers))?;
        if let Some(page) = covers.page {
            return self.page(part, &page, progress).await;
        }
        let object = self.scan_object(part);
        let mut writer = KeyFileWriter::create(&ctx.objects.root().join(&object))?;
        let mut sink = |batch: KeyBatch| {
            progress.add(batch.rows, batch.null_keys);
            let pushed = writer.push(&batch.hashes, batch.values.as_deref());
            pushed.map_err(|error| RefreshError::from(error).into())
        };
        let lake = ctx.lake_of(&self.audience);
        let stats = lake.scan(&self.model, &covers.part, ctx.seed, &mut sink).await?;
        let checksum = Some(blocking(move || Ok(writer.finish()?)).await?);
        ctx.objects.upload(&object).await?;
        let ScanStats { rows_read, null_keys, padded_keys } = stats;
        Ok(ScanOutput { object, rows_read, null_keys, padded_keys, checksum, page: None })
    }

    /// A new name for the output of a scan.
    fn scan_object(&self, part: &Part) -> String {
        let file = parts::scan_file(part.number, SystemEntropy.next_u64());
        format!("{}/{file}", parts::folder(self.refresh))
    }

    /// The outputs of all scans, opened once.
    async fn keys(&mut self) -> Result<Arc<Vec<KeyFile>>, RefreshError> {
        if let Some(keys) = &self.keys {
            return Ok(Arc::clone(keys));
        }
        let mut files = Vec::new();
        // From the ledger and not from what this builder has run: with the scans of other builders
        // missing, users would be missing.
        for (_, output) in scan_outputs(&self.ctx.ledger.parts(self.refresh).await?)? {
            let path = self.ctx.objects.download(&output.object).await?;
            files.push(PartFile { path, checksum: output.checksum });
        }
        let open = |file: &PartFile| Ok(KeyFile::open(&file.path, file.checksum)?);
        let keys = blocking(move || files.iter().map(open).collect()).await?;
        Ok(Arc::clone(self.keys.insert(Arc::new(keys))))
    }

    async fn shards(&mut self, part: &Part) -> Result<ShardsOutput, RefreshError> {
        let ctx = self.ctx;
        let keys = self.keys().await?;
        let covers: ShardsCovers = read(Some(&part.covers))?;
        let built: Vec<ShardBits> = futures::stream::iter(covers.first..=covers.last)
            .map(|shard| build_shard(ctx, Arc::clone(&keys), shard, covers.rule))
            // In order: the file has no shard numbers, so a bitmap at another place would be that
            // of another shard.
            .buffered(std::thread::available_parallelism().map_or(2, usize::from))
            .try_collect()
            .await?;
        let file = parts::shards_file(part.number, SystemEntropy.next_u64());
        let object = format!("{}/{file}", parts::folder(self.refresh));
        let members = built.iter().map(|b| b.members).sum();
        let path = ctx.objects.root().join(&object);
        let checksum = Some(blocking(move || Ok(bits::write(&path, &built)?)).await?);
        ctx.objects.upload(&object).await?;
        Ok(ShardsOutput { object, members, checksum })
    }
}

/// Sorts one shard's hashes, assigns ordinals to its members, and makes their bitmap.
async fn build_shard(
    ctx: &Arc<RefreshContext>,
    files: Arc<Vec<KeyFile>>,
    shard: u8,
    rule: Rule,
) -> Result<ShardBits, RefreshError> {
    let hashes: Vec<UserHash> = blocking(move || {
        let mut words = Vec::new();
        for file in files.iter() {
            file.read(shard, &mut words)?;
        }
        Ok(throng_lake::members(words, rule))
    })
    .await?;
    // Without members the shard needs no dictionary: a length of 0 is never too long for the one
    // that is served.
    if hashes.is_empty() {
        return Ok(ShardBits::default());
    }
    let (ordinals, dictionary_len) = assign_ordinals(ctx, shard, Arc::new(hashes)).await?;
    blocking(move || Ok(bitmap(ordinals, dictionary_len))).await
}

/// Assigns ordinals to users of a shard, who are ascending. Returns them in this order, and how many users the
/// dictionary has.
///
/// The dictionary grows by compare-and-swap of its manifest: the segment is uploaded first, then
/// the manifest that names it replaces the one that was read. If another builder was faster the
/// swap fails, and the ordinals are assigned again from the new dictionary. Without that check two
/// users could get one ordinal, and lookups would take one for the other.
pub(super) async fn assign_ordinals(
    ctx: &Arc<RefreshContext>,
    shard: u8,
    hashes: Arc<Vec<UserHash>>,
) -> Result<(Vec<u32>, u32), RefreshError> {
    loop {
        let current = ctx.ledger.dictionary_shard(shard).await?;
        let expected = current.version;
        // Reuses the segments that are open: otherwise each refresh would read the whole
        // dictionary.
        let previous = match ctx.serves_membership {
            true => ctx.membership.load().dictionary(shard).cloned().unwrap_or_default(),
            false => ctx.dictionaries.last(shard),
        };
        let dictionary = dictionaries::open(&ctx.objects, previous, &current.manifest).await?;
        if !ctx.serves_membership {
            ctx.dictionaries.store(shard, &dictionary);
        }
        let (objects, hashes) = (ctx.objects.root().to_owned(), Arc::clone(&hashes));
        let (built, manifest) = blocking(move || {
            let assigned = dictionary.assign(&objects, &hashes)?;
            let dictionary_len = dictionary.len() + assigned.added;
            Ok(((assigned.ordinals, dictionary_len), assigned.manifest))
        })
        .await?;
        if let Some(file) = manifest.as_deref().map(newest_file).transpose()?.flatten() {
            ctx.objects.upload(&file).await?;
        }
        match manifest {
            // Another builder has assigned ordinals in the meantime: read the dictionary again.
            Some(manifest)
                if !ctx.ledger.compare_and_swap_dictionary(shard, expected, &manifest).await? => {}
            // Without a manifest all users had ordinals already: ordinals never change, so the
            // bitmap is right whatever another builder adds.
            _ => return Ok(built),
        }
    }
}

/// The segment that was just written: the last one of the manifest.
fn newest_file(manifest: &str) -> Result<Option<String>, RefreshError> {
    Ok(manifest_files(manifest)?.pop())
}
