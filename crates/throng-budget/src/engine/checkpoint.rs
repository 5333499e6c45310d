//! State and log offset in one object: magic, protobuf, checksum.

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
use super::spend::{Amount, Spend};
use super::survival::Delays;
use super::{Engine, LogPosition};

const MAGIC: &[u8; 8] = b"THRCKPT1";
const FORMAT: u32 = 3;
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
    /// Of another partition.
    #[error("the checkpoint belongs to partition {found}, not {wanted}")]
    OtherPartition {
        /// Whose it is.
        found: u32,
        /// Whose it should be.
        wanted: u32,
    },
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
        runs: &HashMap<String, IdRun>,
    ) -> Result<(Self, LogPosition), CheckpointError> {
        let owned = (partition, epoch, catalog_version);
        Self::restore_with(bytes, owned, ad_groups, at, Some(runs))
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
    ) -> Result<(Self, LogPosition), CheckpointError> {
        Self::restore_with(bytes, (partition, 0, 0), ad_groups, at, None)
    }

    /// The names of the runs of ids that a checkpoint needs besides itself.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn id_run_names(bytes: &[u8]) -> Result<Vec<String>, CheckpointError> {
        let runs = decode(bytes)?.runs.into_iter();
        Ok(runs.filter(|run| run.content.is_empty()).map(|run| run.name).collect())
    }

    fn restore_with(
        bytes: &[u8],
        (partition, epoch, catalog_version): (u32, u64, u64),
        ad_groups: Vec<AdGroupConfig>,
        at: Timestamp,
        runs: Option<&HashMap<String, IdRun>>,
    ) -> Result<(Self, LogPosition), CheckpointError> {
        let damaged = CheckpointError::Damaged;
        let message = decode(bytes)?;
        if message.partition != partition {
            return Err(CheckpointError::OtherPartition {
                found: message.partition,
                wanted: partition,
            });
        }
        let mut engine = Self::new(partition, epoch, catalog_version, ad_groups);
        engine.seen = match runs {
            Some(runs) => load_ids(&message, runs)?,
            None => SeenIds::default(),
        };
        let pooled = |saved: Option<wire::Pooled>| {
            saved.and_then(load_pooled).ok_or(damaged("its delays make no sense"))
        };
        engine.pooled_impressions = pooled(message.impressions)?;
        engine.pooled_clicks = pooled(message.clicks)?;
        engine.set_reach();
        let nonsense = damaged("an ad group makes no sense");
        for saved in message.ad_groups {
            match engine.places.get(saved.name.as_bytes()).copied() {
                Some(place) => {
                    let account = &mut engine.accounts[place.account];
                    load(account, saved, at).ok_or(nonsense.clone())?;
                }
                // Formats without an index do not say which ad group of the feed it is.
                None if message.format == FORMAT => {
                    let name = saved.name.parse().map_err(|_| nonsense.clone())?;
                    engine.absent.insert(name, Absent::load(saved, at));
                }
                None => {}
            }
        }
        // So that the next call of `close` lets go of no window that has something to come.
        engine.learn(at);
        let position =
            LogPosition { next_offset: message.next_offset, last_record: message.last_record };
        Ok((engine, position))
    }
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
    if ![FORMAT, PLAIN_IDS, LONG_IDS].contains(&format) {
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
    let loaded = if message.format == FORMAT {
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
    saved: wire::AdGroup,
}

impl Absent {
    pub(super) fn new(account: &Account, since: Timestamp) -> Self {
        Self { index: account.config.index, since, saved: save(account) }
    }

    /// The account of an ad group that is configured again.
    pub(super) fn returned(self, config: AdGroupConfig, at: Timestamp) -> Account {
        let mut account = Account::new(config.clone());
        match load(&mut account, self.saved, at) {
            Some(()) => account,
            None => Account::new(config),
        }
    }

    pub(super) fn save(&self) -> wire::AdGroup {
        wire::AdGroup { absent_since: Some(self.since.0), ..self.saved.clone() }
    }

    fn load(saved: wire::AdGroup, at: Timestamp) -> Self {
        let since = saved.absent_since.map_or(at, Timestamp);
        Self { index: AdGroupIndex(saved.index), since, saved }
    }
}

fn save(account: &Account) -> wire::AdGroup {
    let mut last = 0;
    let (slice_steps, slice_spend) = account
        .spend
        .slices()
        .map(|(number, amount)| {
            let step = number.wrapping_sub(last);
            last = number;
            (step, amount.micros)
        })
        .unzip();
    let nanos = account.spend.slices().map(|(_, amount)| u32::from(amount.nanos));
    let (slice_nanos, folded) = (nanos.collect::<Vec<_>>(), account.spend.folded());
    let prices = account.prices.all().iter();
    wire::AdGroup {
        name: account.config.name.to_string(),
        days: Vec::new(),
        actual: Vec::new(),
        slice_steps,
        slice_spend,
        // Nearly always there are none.
        slice_nanos: if slice_nanos.iter().all(|n| *n == 0) { Vec::new() } else { slice_nanos },
        folded: folded.micros,
        folded_nanos: folded.nanos.into(),
        prices: prices
            .map(|p| wire::Price {
                since: p.since,
                micros: p.amount.micros,
                nanos: p.amount.nanos.into(),
            })
            .collect(),
        settles: account.settles,
        absent_since: None,
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
    }
}

fn amount(micros: i64, nanos: u32) -> Amount {
    Amount { micros, nanos: nanos.min(999) as u16 }
}

/// Spend as the checkpoint has it. Formats that had days have each day's in its first slice.
fn load_spend(account: &Account, saved: &wire::AdGroup) -> Option<Spend> {
    let days_match = saved.days.len() == saved.actual.len();
    if !days_match || saved.slice_steps.len() != saved.slice_spend.len() {
        return None;
    }
    let days = saved.days.iter().zip(&saved.actual);
    let days = days.map(|(day, micros)| {
        (account.first_slice(BudgetDay(*day)), Amount { micros: *micros, nanos: 0 })
    });
    let mut number = 0i64;
    let nanos = saved.slice_nanos.iter().copied().chain(std::iter::repeat(0));
    let slices = saved.slice_steps.iter().zip(&saved.slice_spend).zip(nanos);
    let slices = slices.map(|((step, micros), nanos)| {
        number = number.wrapping_add(*step);
        (number, amount(*micros, nanos))
    });
    Spend::load(days.chain(slices), amount(saved.folded, saved.folded_nanos))
}

fn load_prices(account: &mut Account, saved: &[wire::Price], at: Timestamp) -> Option<()> {
    if saved.is_empty() {
        return Some(());
    }
    let prices = saved.iter().map(|p| Price { since: p.since, amount: amount(p.micros, p.nanos) });
    let prices = prices.collect();
    account.prices = Prices::load(prices)?;
    account.prices.change(price_of(&account.config), at);
    Some(())
}

fn load(account: &mut Account, saved: wire::AdGroup, at: Timestamp) -> Option<()> {
    account.spend = load_spend(account, &saved)?;
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
        let newer = CheckpointError::Newer(4);
        assert_eq!(Engine::id_run_names(&bytes), Err(newer.clone()));
        let restored = Engine::restore_figures(&bytes, 3, Vec::new(), Timestamp(1));
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
            Engine::restore(&bytes, 3, 1, 1, Vec::new(), Timestamp(1), &HashMap::new()).unwrap();
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
            &HashMap::new(),
        )
        .unwrap();
        assert!(["a", "c", "d"].iter().all(|id| !insert(&mut engine, id)));
    }
}
