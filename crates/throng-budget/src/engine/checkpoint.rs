//! State and log offset in one object: magic, protobuf, checksum. Older ids and closed slices of spend are in
//! files that it names.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message;
use throng_model::{AdGroupIndex, BudgetDay, Micros, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use crate::wire;
use crate::{AdGroupConfig, SpendPoint};

use super::account::{Account, Window, price_of};
use super::aged::Aged;
use super::dedupe::{DEFAULT_PROMISE, Elapsed, SeenIds, ids_of};
use super::ids::Id;
use super::pooled::Pooled;
use super::prices::{Price, Prices};
use super::runs::IdRun;
use super::slices::{Packed, ReadSlices, SliceFile, SliceFiles, unpack};
use super::spend::{Amount, Spend};
use super::survival::Delays;
use super::{Engine, LogPosition};

const MAGIC: &[u8; 8] = b"THRCKPT1";
const FORMAT: u32 = 4;
/// It has all slices of spend, and names no file of them; the rest is as in the next format.
const INLINE_SLICES: u32 = 3;
/// Its ids are those of events alone ([`plain_id_of`](super::dedupe::plain_id_of)), and spend is that of
/// budget days.
const PLAIN_IDS: u32 = 2;
/// Its ids are 128 bits long; the rest is as in the next format.
const LONG_IDS: u32 = 1;

/// Ids of before are looked for as long as anybody may send them again, with room for longer promises.
const PLAIN_FOR: Duration = Duration::from_secs(8 * DEFAULT_PROMISE.as_secs());

/// Why bytes are no checkpoint of this partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Too short, another format, or changed on disk.
    #[error("the checkpoint is damaged ({0}); replay the log from its beginning instead")]
    Damaged(&'static str),
    /// Written by a newer version.
    #[error("the checkpoint has format {0}, this version reads {FORMAT}: use the newer version")]
    Newer(u32),
    /// Ids that it needs are not there.
    #[error("the run of ids {0}, which the checkpoint needs, is not there")]
    MissingIds(String),
    /// Closed slices that it needs are not there.
    #[error("the file of closed slices {0}, which the checkpoint needs, is not there")]
    MissingSlices(String),
    /// Of another partition.
    #[error("the checkpoint belongs to partition {found}, not {wanted}")]
    OtherPartition {
        /// Whose it is.
        found: u32,
        /// Whose it should be.
        wanted: u32,
    },
}

/// The names of the files that a checkpoint needs besides itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedFiles {
    /// Runs of ids.
    pub runs: Vec<String>,
    /// Files of closed slices.
    pub slices: Vec<String>,
}

/// The files that a checkpoint needs besides itself, by their names.
#[derive(Debug, Clone, Default)]
pub struct CheckpointFiles {
    /// Runs of ids.
    pub runs: HashMap<String, IdRun>,
    /// Files of closed slices.
    pub slices: HashMap<String, SliceFile>,
}

impl Engine {
    /// The state as bytes, with how far in the log it is.
    pub fn checkpoint(&self, position: impl Into<LogPosition>) -> Vec<u8> {
        let position = position.into();
        let (elapsed, span) = (self.seen.elapsed(), self.seen.span());
        let (promise, known_after) = self.seen.promise();
        let message = wire::Checkpoint {
            format: FORMAT,
            partition: self.partition,
            next_offset: position.next_offset,
            ad_groups: self
                .accounts
                .iter()
                .map(save)
                .chain(self.absent.values().map(Absent::save))
                .collect(),
            young_ids: self.seen.to_bytes(),
            old_ids: Vec::new(),
            generation_began: 0,
            impressions: Some(save_pooled(&self.pooled_impressions)),
            clicks: Some(save_pooled(&self.pooled_clicks)),
            generation_micros: Some(elapsed.micros),
            newest_record: Some(elapsed.newest.0),
            last_record: position.last_record,
            plain_until: self.seen.plain_until(),
            young_oldest: span.map(|span| span.0),
            young_newest: span.map(|span| span.1),
            runs: self.seen.runs().iter().map(save_run).collect(),
            promise: Some(promise),
            known_after: Some(known_after),
            slice_files: self.slice_files.save(),
            next_slice_file: self.slice_files.next(),
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&message.encode_to_vec());
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// Reads a checkpoint. Money of ad groups that are not configured is set aside, and a price that is
    /// not the one of the checkpoint counts from `at` on. Returns the engine and the position to go on
    /// from.
    ///
    /// # Errors
    /// [`CheckpointError`]; never panics, whatever the bytes.
    pub fn restore(
        bytes: &[u8],
        partition: u32,
        epoch: u64,
        catalog_version: u64,
        ad_groups: Vec<AdGroupConfig>,
        at: Timestamp,
        files: &CheckpointFiles,
    ) -> Result<(Self, LogPosition), CheckpointError> {
        let owned = (partition, epoch, catalog_version);
        Self::restore_with(bytes, owned, ad_groups, at, (Some(&files.runs), &files.slices))
    }

    /// As [`restore`](Self::restore), for figures alone: it knows no id, so that nothing can be applied
    /// to it.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn restore_figures(
        bytes: &[u8],
        partition: u32,
        ad_groups: Vec<AdGroupConfig>,
        at: Timestamp,
        slices: &HashMap<String, SliceFile>,
    ) -> Result<(Self, LogPosition), CheckpointError> {
        Self::restore_with(bytes, (partition, 0, 0), ad_groups, at, (None, slices))
    }

    /// The files that a checkpoint needs besides itself.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn named_files(bytes: &[u8]) -> Result<NamedFiles, CheckpointError> {
        let message = decode(bytes)?;
        let runs = message.runs.into_iter().filter(|run| run.content.is_empty());
        let slices = message.slice_files.into_iter().filter(|file| file.content.is_empty());
        Ok(NamedFiles {
            runs: runs.map(|run| run.name).collect(),
            slices: slices.map(|file| file.name).collect(),
        })
    }

    /// How far in the log a checkpoint of a partition is.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn checkpoint_position(
        bytes: &[u8],
        partition: u32,
    ) -> Result<LogPosition, CheckpointError> {
        Ok(position(&decode_of(bytes, partition)?))
    }

    fn restore_with(
        bytes: &[u8],
        (partition, epoch, catalog_version): (u32, u64, u64),
        ad_groups: Vec<AdGroupConfig>,
        at: Timestamp,
        (runs, slices): (Option<&HashMap<String, IdRun>>, &HashMap<String, SliceFile>),
    ) -> Result<(Self, LogPosition), CheckpointError> {
        let damaged = CheckpointError::Damaged;
        let message = decode_of(bytes, partition)?;
        let position = position(&message);
        let mut engine = Self::new(partition, epoch, catalog_version, ad_groups);
        engine.seen = match runs {
            Some(runs) => load_ids(&message, runs)?,
            None => SeenIds::default(),
        };
        let (slice_files, in_files) = SliceFiles::load(&message, slices)?;
        engine.slice_files = slice_files;
        let pooled = |saved: Option<wire::Pooled>| {
            saved.and_then(load_pooled).ok_or(damaged("its delays make no sense"))
        };
        engine.pooled_impressions = pooled(message.impressions)?;
        engine.pooled_clicks = pooled(message.clicks)?;
        engine.set_reach();
        engine.load_ad_groups(message.ad_groups, &in_files, message.format, at)?;
        // So that the next call of `close` lets go of no window that has something to come.
        engine.learn(at);
        Ok((engine, position))
    }

    fn load_ad_groups(
        &mut self,
        ad_groups: Vec<wire::AdGroup>,
        in_files: &ReadSlices,
        format: u32,
        at: Timestamp,
    ) -> Result<(), CheckpointError> {
        let nonsense = CheckpointError::Damaged("an ad group makes no sense");
        // Those that the checkpoint does not have.
        for account in &mut self.accounts {
            account.spend = Spend::since_file(self.slice_files.next());
        }
        for saved in ad_groups {
            match self.places.get(saved.name.as_bytes()).copied() {
                Some(place) => {
                    let account = &mut self.accounts[place.account];
                    let days = days_as_slices(account, &saved);
                    let spend = days.and_then(|days| load_spend(&saved, days, in_files));
                    account.spend = spend.ok_or(nonsense.clone())?;
                    load(account, saved, at).ok_or(nonsense.clone())?;
                }
                // Formats without an index do not say which ad group of the feed it is.
                None if format >= INLINE_SLICES => {
                    let name = saved.name.parse().map_err(|_| nonsense.clone())?;
                    let spend = load_spend(&saved, Vec::new(), in_files);
                    let spend = spend.ok_or(nonsense.clone())?;
                    self.absent.insert(name, Absent::load(saved, spend, at));
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// The message of a checkpoint of a partition, in a format that is known.
fn decode_of(bytes: &[u8], partition: u32) -> Result<wire::Checkpoint, CheckpointError> {
    let message = decode(bytes)?;
    let found = message.partition;
    if found != partition {
        return Err(CheckpointError::OtherPartition { found, wanted: partition });
    }
    Ok(message)
}

fn position(message: &wire::Checkpoint) -> LogPosition {
    LogPosition { next_offset: message.next_offset, last_record: message.last_record }
}

fn decode(bytes: &[u8]) -> Result<wire::Checkpoint, CheckpointError> {
    let damaged = CheckpointError::Damaged;
    let (body, sum) =
        bytes.split_last_chunk::<8>().ok_or(damaged("it is shorter than its checksum"))?;
    if xxh3_64(body) != u64::from_le_bytes(*sum) {
        return Err(damaged("its checksum does not match"));
    }
    let body = body.strip_prefix(MAGIC).ok_or(damaged("it does not begin as one"))?;
    let format = wire::CheckpointFormat::decode(body);
    let format = format.map_err(|_| damaged("its contents make no sense"))?.format;
    if ![FORMAT, INLINE_SLICES, PLAIN_IDS, LONG_IDS].contains(&format) {
        return Err(CheckpointError::Newer(format));
    }
    wire::Checkpoint::decode(body).map_err(|_| damaged("its contents make no sense"))
}

fn save_run(aged: &Aged) -> wire::IdRun {
    wire::IdRun {
        oldest: aged.oldest,
        newest: aged.newest,
        sealed: aged.sealed,
        name: aged.run.name().to_owned(),
        content: aged.run.unsaved().map_or(Vec::new(), |content| content.to_vec()),
    }
}

fn load_run(saved: &wire::IdRun, runs: &HashMap<String, IdRun>) -> Result<Aged, CheckpointError> {
    let run = if saved.content.is_empty() {
        let run = runs.get(&saved.name).cloned();
        run.ok_or_else(|| CheckpointError::MissingIds(saved.name.clone()))?
    } else {
        IdRun::of_content(saved.content.clone()).map_err(CheckpointError::Damaged)?
    };
    let (oldest, newest) = (saved.oldest, saved.newest);
    Ok(Aged { run, oldest, newest, sealed: saved.sealed })
}

/// The ids of a checkpoint. Formats before runs had two generations of them.
fn load_ids(
    message: &wire::Checkpoint,
    runs: &HashMap<String, IdRun>,
) -> Result<SeenIds, CheckpointError> {
    let nonsense = CheckpointError::Damaged("its ids make no sense");
    let newest = message.newest_record.unwrap_or(message.generation_began);
    let elapsed =
        Elapsed { newest: Timestamp(newest), micros: message.generation_micros.unwrap_or(0) };
    let span = message.young_oldest.zip(message.young_newest);
    let loaded = if message.format >= INLINE_SLICES {
        let aged = message.runs.iter().map(|saved| load_run(saved, runs));
        let aged = aged.collect::<Result<Vec<_>, _>>()?;
        SeenIds::load(&message.young_ids, span, aged, elapsed, message.plain_until)
    } else {
        let ids = |ids: &[u8]| match message.format {
            LONG_IDS => shortened(ids),
            _ => Some(ids.to_vec()),
        };
        let all = ids(&message.young_ids).zip(ids(&message.old_ids));
        let known = all.and_then(|(young, old)| ids_of(&[young, old].concat()));
        let known = known.ok_or(nonsense.clone())?;
        // As young as the newest record: they are known for longer than they were.
        let aged = (!known.is_empty()).then(|| Aged {
            run: IdRun::new(known),
            oldest: newest,
            newest,
            sealed: elapsed.micros,
        });
        let plain_until = elapsed.micros.saturating_add(PLAIN_FOR.as_micros() as i64);
        SeenIds::load(&[], None, aged.into_iter().collect(), elapsed, plain_until)
    };
    let (promise, known_after) = (message.promise, message.known_after);
    let promise = promise.unwrap_or(DEFAULT_PROMISE.as_micros() as i64);
    let promise = (promise, known_after.unwrap_or(i64::MIN));
    loaded.map(|seen| seen.with_promise(promise)).ok_or(nonsense)
}

/// Ids as the first format had them, 16 bytes each, as they are now.
fn shortened(ids: &[u8]) -> Option<Vec<u8>> {
    let (ids, rest) = ids.as_chunks::<16>();
    let short = ids.iter().flat_map(|id| Id::of_hash(u128::from_le_bytes(*id)).to_bytes());
    rest.is_empty().then(|| short.collect())
}

fn save_pooled(pooled: &Pooled) -> wire::Pooled {
    wire::Pooled {
        windows: pooled
            .recent
            .iter()
            .map(|(number, outcomes)| wire::Window {
                number,
                expected: 0,
                outcomes: outcomes.iter().flat_map(|(b, n)| [b as u32, n]).collect(),
                ..wire::Window::default()
            })
            .collect(),
        complete: pooled.complete.counts().to_vec(),
        first: pooled.first,
    }
}

fn load_pooled(saved: wire::Pooled) -> Option<Pooled> {
    let mut pooled = Pooled {
        complete: Delays::from_counts(saved.complete)?,
        first: saved.first,
        ..Pooled::default()
    };
    for window in saved.windows {
        let (pairs, rest) = window.outcomes.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        let counts = pooled.recent.entry(window.number);
        pairs.iter().for_each(|[bucket, times]| counts.add(*bucket as usize, *times));
    }
    Some(pooled)
}

/// The money of an ad group that is not configured.
#[derive(Debug, Clone)]
pub(super) struct Absent {
    /// Its number in the feed.
    pub(super) index: AdGroupIndex,
    /// Since when it is not configured.
    pub(super) since: Timestamp,
    pub(super) spend: Spend,
    /// The rest.
    saved: wire::AdGroup,
}

impl Absent {
    pub(super) fn new(account: &Account, since: Timestamp) -> Self {
        let (index, spend) = (account.config.index, account.spend.clone());
        Self { index, since, spend, saved: save_rest(account) }
    }

    /// The account of an ad group that is configured again.
    pub(super) fn returned(self, config: AdGroupConfig, at: Timestamp) -> Account {
        let mut account = Account::new(config.clone());
        if load(&mut account, self.saved, at).is_none() {
            account = Account::new(config);
        }
        account.spend = self.spend;
        account
    }

    pub(super) fn save(&self) -> wire::AdGroup {
        let saved = wire::AdGroup { absent_since: Some(self.since.0), ..self.saved.clone() };
        with_spend(saved, &self.spend)
    }

    fn load(saved: wire::AdGroup, spend: Spend, at: Timestamp) -> Self {
        let since = saved.absent_since.map_or(at, Timestamp);
        let saved = with_spend(saved, &Spend::default());
        Self { index: AdGroupIndex(saved.index), since, spend, saved }
    }
}

fn save(account: &Account) -> wire::AdGroup {
    with_spend(save_rest(account), &account.spend)
}

/// What is saved of an ad group, with this spend, as far as it is not in files.
fn with_spend(saved: wire::AdGroup, spend: &Spend) -> wire::AdGroup {
    let packed = Packed::new(spend.outside_files());
    let folded = spend.folded();
    wire::AdGroup {
        slice_steps: packed.steps,
        slice_spend: packed.spend,
        slice_nanos: packed.nanos,
        folded: folded.micros,
        folded_nanos: folded.nanos.into(),
        first_slice_file: spend.first_file(),
        kept_from: spend.kept_from(),
        ..saved
    }
}

/// All but the spend.
fn save_rest(account: &Account) -> wire::AdGroup {
    let prices = account.prices.all().iter();
    wire::AdGroup {
        name: account.config.name.to_string(),
        prices: prices
            .map(|p| wire::Price {
                since: p.since,
                micros: p.amount.micros,
                nanos: p.amount.nanos.into(),
            })
            .collect(),
        settles: account.settles,
        index: account.config.index.0,
        windows: account
            .windows
            .iter()
            .map(|(number, window)| wire::Window {
                number,
                expected: window.expected,
                outcomes: window.outcomes.iter().flat_map(|(b, n)| [*b, *n]).collect(),
                linked: window.linked,
                settled: window.settled,
            })
            .collect(),
        delays: account.delays.counts().to_vec(),
        intervals: account
            .intervals
            .iter()
            .map(|(number, (predicted, actual))| wire::Interval {
                number,
                predicted: *predicted,
                actual: *actual,
            })
            .collect(),
        points: account
            .points
            .iter()
            .map(|p| wire::Point { at: p.at.0, actual: p.actual.0, in_flight: p.in_flight.0 })
            .collect(),
        ..wire::AdGroup::default()
    }
}

/// Spend by budget day, as formats before slices had it, each in the first slice of its day.
fn days_as_slices(account: &Account, saved: &wire::AdGroup) -> Option<Vec<(i64, Amount)>> {
    let days = saved.days.iter().zip(&saved.actual);
    let first = |day: i32| account.first_slice(BudgetDay(day));
    let slices = days.map(|(day, micros)| (first(*day), Amount::of_saved(*micros, 0)));
    (saved.days.len() == saved.actual.len()).then(|| slices.collect())
}

/// Spend as the checkpoint and its files have it.
fn load_spend(
    saved: &wire::AdGroup,
    days: Vec<(i64, Amount)>,
    in_files: &ReadSlices,
) -> Option<Spend> {
    let (steps, spend) = (&saved.slice_steps, &saved.slice_spend);
    if steps.len() != spend.len() {
        return None;
    }
    let outside = days.into_iter().chain(unpack(steps, spend, &saved.slice_nanos));
    let folded = Amount::of_saved(saved.folded, saved.folded_nanos);
    Spend::load(in_files.of(saved), outside, folded, saved.first_slice_file)
}

fn load_prices(account: &mut Account, saved: &[wire::Price], at: Timestamp) -> Option<()> {
    if saved.is_empty() {
        return Some(());
    }
    let prices =
        saved.iter().map(|p| Price { since: p.since, amount: Amount::of_saved(p.micros, p.nanos) });
    let prices = prices.collect();
    account.prices = Prices::load(prices)?;
    account.prices.change(price_of(&account.config), at);
    Some(())
}

fn load(account: &mut Account, saved: wire::AdGroup, at: Timestamp) -> Option<()> {
    load_prices(account, &saved.prices, at)?;
    account.settles = saved.settles;
    for window in saved.windows {
        let (pairs, rest) = window.outcomes.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        *account.windows.entry(window.number) = Window {
            expected: window.expected,
            linked: window.linked,
            settled: window.settled,
            outcomes: pairs.iter().map(|[b, n]| (*b, *n)).collect(),
        };
    }
    account.delays = Delays::from_counts(saved.delays)?;
    for interval in saved.intervals {
        *account.intervals.entry(interval.number) = (interval.predicted, interval.actual);
    }
    account.points = saved
        .points
        .into_iter()
        .map(|p| SpendPoint {
            at: Timestamp(p.at),
            actual: Micros(p.actual),
            in_flight: Micros(p.in_flight),
        })
        .collect();
    Some(())
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_128;

    use super::super::dedupe::plain_id_of;
    use super::*;

    fn insert(engine: &mut Engine, id: &str) -> bool {
        engine.seen.insert(plain_id_of(id.as_bytes()), Timestamp(2), Timestamp(2))
    }

    /// The next format keeps magic, the number of its format and the checksum; everything else may
    /// be of another type.
    #[test]
    fn a_state_of_a_newer_version_is_refused_by_its_format() {
        #[derive(Clone, PartialEq, Message)]
        struct Next {
            #[prost(uint32, tag = "1")]
            format: u32,
            #[prost(string, tag = "2")]
            partition: String,
        }
        let next = Next { format: FORMAT + 1, partition: "three".to_owned() };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(next.encode_to_vec());
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        let newer = CheckpointError::Newer(FORMAT + 1);
        assert_eq!(Engine::named_files(&bytes).err(), Some(newer.clone()));
        let restored =
            Engine::restore_figures(&bytes, 3, Vec::new(), Timestamp(1), &HashMap::new());
        assert_eq!(restored.err(), Some(newer));
    }

    #[test]
    fn ids_of_the_first_format_are_still_known() {
        let ids = |names: &[&str]| -> Vec<u8> {
            names.iter().flat_map(|name| xxh3_128(name.as_bytes()).to_le_bytes()).collect()
        };
        let none = Some(save_pooled(&Pooled::default()));
        let message = wire::Checkpoint {
            format: LONG_IDS,
            partition: 3,
            next_offset: 9,
            young_ids: ids(&["a", "b"]),
            old_ids: ids(&["c"]),
            generation_began: 1,
            impressions: none.clone(),
            clicks: none,
            ..wire::Checkpoint::default()
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(message.encode_to_vec());
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        let (mut engine, offset) =
            Engine::restore(&bytes, 3, 1, 1, Vec::new(), Timestamp(1), &CheckpointFiles::default())
                .unwrap();
        assert_eq!(offset, LogPosition::from(9));
        let new = ["a", "b", "c", "d"].map(|id| insert(&mut engine, id));
        assert_eq!(new, [false, false, false, true]);
        // Written again, they are of the newest format.
        let (mut engine, _) = Engine::restore(
            &engine.checkpoint(10),
            3,
            1,
            1,
            Vec::new(),
            Timestamp(1),
            &CheckpointFiles::default(),
        )
        .unwrap();
        assert!(["a", "c", "d"].iter().all(|id| !insert(&mut engine, id)));
    }
}
