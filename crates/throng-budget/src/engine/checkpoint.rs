//! State and log offset in one object: magic, protobuf, checksum. Older ids and closed slices of spend are in
//! files that it names.

mod causes;
mod days;
pub(super) mod format;
mod open;
mod rates;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use prost::Message;
use throng_events::LogTime;
use throng_model::{
    AdGroupIndex, Amount, BudgetDay, Micros, Timestamp, append_checksum, verify_checksum,
};
use throng_rates::{ApartRates, Learned, Links, Trials, Window};

use crate::{AdGroupConfig, BilledEvent, SpendPoint, wire};

use super::account::{Account, price_of};
use super::causes::Causes;
use super::dedupe::{DEFAULT_DEDUPE_WINDOW, SeenIds, ids_of};
use super::ids::Id;
use super::prices::{Price, Prices};
use super::runs::IdRun;
use super::slices::{Packed, ReadSlices, SliceFile, SliceFiles, unpack};
use super::spend::{NO_FILE, Spend};
use super::timed_run::TimedRun;
use super::{Engine, LogPosition};
use throng_rates::survival::Delays;

use days::{days_as_slices, load_days, save_currencies};
pub use format::InvalidCheckpoint;
use format::{FORMAT, INLINE_SLICES, LEGACY_IDS, LONG_IDS, ONE_RATE, SETTLED_PARTS};
use rates::{load_breakdown, load_placements, save_breakdown, save_placements, without_placements};
use rates::{load_pooled, save_pooled};

const MAGIC: &[u8; 8] = b"THRCKPT1";
/// How long legacy ids are looked up: as long as they may be sent again, with room for longer windows.
const LEGACY_RETENTION: Duration = Duration::from_secs(8 * DEFAULT_DEDUPE_WINDOW.as_secs());

/// The names of the files that a checkpoint refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedFiles {
    /// Runs of ids.
    pub runs: Vec<String>,
    /// Files of closed slices.
    pub slices: Vec<String>,
}

/// The files that a checkpoint refers to, by name.
#[derive(Debug, Clone, Default)]
pub struct CheckpointFiles {
    /// Runs of ids.
    pub runs: HashMap<String, IdRun>,
    /// Files of closed slices.
    pub slices: HashMap<String, SliceFile>,
}

impl Engine {
    /// The state and its log position as bytes.
    pub fn checkpoint(&self, position: impl Into<LogPosition>) -> Vec<u8> {
        let position = position.into();
        let (log_time, span) = (self.seen.log_time(), self.seen.span());
        let (dedupe_window, forgotten_before) = self.seen.dedupe_window();
        let (placements, placements_block) = save_placements(&self.placements);
        let message = wire::Checkpoint {
            format: FORMAT,
            partition: self.partition,
            next_offset: position.next_offset,
            ad_groups: self
                .accounts
                .iter()
                .map(save)
                // Earlier versions keep the last one of a name.
                .chain(self.set_aside.iter().chain(self.removed.values()).map(RemovedAdGroup::save))
                .collect(),
            recent_ids: self.seen.to_bytes(),
            old_ids: Vec::new(),
            generation_began: 0,
            impressions: Some(save_pooled(&self.pooled_impressions)),
            clicks: Some(save_pooled(&self.pooled_clicks)),
            generation_micros: Some(log_time.micros),
            newest_record: Some(log_time.newest.0),
            last_record: position.last_record,
            legacy_until: self.seen.legacy_until(),
            recent_oldest: span.map(|span| span.0),
            recent_newest: span.map(|span| span.1),
            runs: self.seen.runs().iter().map(save_run).collect(),
            dedupe_window: Some(dedupe_window),
            forgotten_before: Some(forgotten_before),
            slice_files: self.slice_files.save(),
            next_slice_file: self.slice_files.next(),
            open: open::save(&self.open),
            open_block: Some(self.open.block()),
            placements,
            placements_block: Some(placements_block),
        };
        // At once: it is some megabytes for a million ids, and each copy would be as many that the system clears.
        let mut bytes = Vec::with_capacity(MAGIC.len() + message.encoded_len() + size_of::<u64>());
        bytes.extend_from_slice(MAGIC);
        message.encode_raw(&mut bytes);
        append_checksum(&mut bytes);
        bytes
    }

    /// Reads a checkpoint. Ad groups that are not configured count as removed, and a price that differs from
    /// the checkpoint's counts from `at` on. Returns the engine and the position to continue from.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`]; never panics, whatever the bytes.
    pub fn restore(
        bytes: &[u8],
        partition: u32,
        epoch: u64,
        catalog_version: u64,
        ad_groups: Vec<AdGroupConfig>,
        at: Timestamp,
        files: &CheckpointFiles,
    ) -> Result<(Self, LogPosition), InvalidCheckpoint> {
        let owned = (partition, epoch, catalog_version);
        Self::restore_with(bytes, owned, ad_groups, at, (Some(&files.runs), &files.slices))
    }

    /// As [`restore`](Self::restore), for figures alone: the engine has no ids, so events must not be applied to it.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`].
    pub fn restore_figures(
        bytes: &[u8],
        partition: u32,
        ad_groups: Vec<AdGroupConfig>,
        at: Timestamp,
        slices: &HashMap<String, SliceFile>,
    ) -> Result<(Self, LogPosition), InvalidCheckpoint> {
        Self::restore_with(bytes, (partition, 0, 0), ad_groups, at, (None, slices))
    }

    /// The names of the files that a checkpoint refers to.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`].
    pub fn named_files(bytes: &[u8]) -> Result<NamedFiles, InvalidCheckpoint> {
        let message = decode(bytes)?;
        let runs = message.runs.into_iter().filter(|run| run.content.is_empty());
        let slices = message.slice_files.into_iter().filter(|file| file.content.is_empty());
        Ok(NamedFiles {
            runs: runs.map(|run| run.name).collect(),
            slices: slices.map(|file| file.name).collect(),
        })
    }

    /// The log position of a checkpoint of a partition.
    ///
    /// # Errors
    /// [`InvalidCheckpoint`].
    pub fn checkpoint_position(
        bytes: &[u8],
        partition: u32,
    ) -> Result<LogPosition, InvalidCheckpoint> {
        Ok(position(&decode_of(bytes, partition)?))
    }

    fn restore_with(
        bytes: &[u8],
        (partition, epoch, catalog_version): (u32, u64, u64),
        ad_groups: Vec<AdGroupConfig>,
        at: Timestamp,
        (runs, slices): (Option<&HashMap<String, IdRun>>, &HashMap<String, SliceFile>),
    ) -> Result<(Self, LogPosition), InvalidCheckpoint> {
        let damaged = InvalidCheckpoint::Damaged;
        let message = decode_of(bytes, partition)?;
        let position = position(&message);
        let mut engine = Self::new(partition, epoch, catalog_version, ad_groups);
        engine.seen = match runs {
            Some(runs) => load_ids(&message, runs)?,
            None => SeenIds::default(),
        };
        engine.placements =
            load_placements(&message).ok_or(damaged("its placements are invalid"))?;
        if runs.is_some() {
            let block = message.open_block.unwrap_or(i64::MIN);
            let known = (message.format > ONE_RATE).then_some(&engine.placements);
            let open = open::load(&message.open, block, known);
            engine.open = open.ok_or(damaged("its open insertions are invalid"))?;
        }
        let (slice_files, in_files) = SliceFiles::load(&message, slices)?;
        engine.slice_files = slice_files;
        let pooled = |saved: Option<wire::Pooled>| {
            saved.and_then(load_pooled).ok_or(damaged("its delays are invalid"))
        };
        engine.pooled_impressions = pooled(message.impressions)?;
        engine.pooled_clicks = pooled(message.clicks)?;
        engine.cover_horizons();
        engine.load_ad_groups(message.ad_groups, &in_files, message.format, at)?;
        // Without the learned curve the next call of `close` would remove windows that still have outcomes to come.
        engine.learn(at);
        Ok((engine, position))
    }

    fn load_ad_groups(
        &mut self,
        ad_groups: Vec<wire::AdGroup>,
        in_files: &ReadSlices,
        format: u32,
        at: Timestamp,
    ) -> Result<(), InvalidCheckpoint> {
        let invalid = InvalidCheckpoint::Damaged("an ad group is invalid");
        // For those that the checkpoint does not have.
        for account in &mut self.accounts {
            account.spend = Spend::since_file(self.slice_files.next());
        }
        let mut loaded = HashSet::new();
        for saved in ad_groups {
            let saved = if format <= SETTLED_PARTS { without_settled(saved) } else { saved };
            let is_aside = saved.first_slice_file == NO_FILE;
            let key = self.account_keys.get(saved.name.as_bytes()).copied();
            let account = key.map(|key| &mut self.accounts[key.account]);
            match account {
                Some(account)
                    if saved.removed_since.is_none()
                        || saved.is_continued_in(account.config.currency) =>
                {
                    let days = days_as_slices(account, &saved);
                    let spend = days.and_then(|days| load_spend(&saved, days, in_files));
                    let mut spend = spend.ok_or(invalid.clone())?;
                    if !loaded.insert(account.config.name.clone()) {
                        // Its currency became that of earlier spend while no process ran.
                        account.merge_aside(&spend, at);
                        continue;
                    }
                    if is_aside {
                        spend.leave_files(self.slice_files.next());
                    }
                    account.spend = spend;
                    load(account, saved, at)
                        .filter(|_| account.has_only_placements(|it| self.placements.is_known(it)))
                        .ok_or(invalid.clone())?;
                }
                // Earlier formats do not have the ad group's number in the feed.
                _ if format >= INLINE_SLICES => {
                    let name = saved.name.parse().map_err(|_| invalid.clone())?;
                    let spend = load_spend(&saved, Vec::new(), in_files);
                    let spend = spend.ok_or(invalid.clone())?;
                    let mut removed = RemovedAdGroup::load(saved, spend, at);
                    if is_aside || key.is_some() {
                        removed.spend.leave_files(NO_FILE);
                        self.set_aside.push(removed);
                    } else {
                        self.removed.insert(name, removed);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The message of a checkpoint of a partition, in a format that is known.
fn decode_of(bytes: &[u8], partition: u32) -> Result<wire::Checkpoint, InvalidCheckpoint> {
    let message = decode(bytes)?;
    let found = message.partition;
    if found != partition {
        return Err(InvalidCheckpoint::OtherPartition { found, wanted: partition });
    }
    Ok(message)
}

fn position(message: &wire::Checkpoint) -> LogPosition {
    LogPosition { next_offset: message.next_offset, last_record: message.last_record }
}

fn decode(bytes: &[u8]) -> Result<wire::Checkpoint, InvalidCheckpoint> {
    let damaged = InvalidCheckpoint::Damaged;
    let body = verify_checksum(bytes).map_err(|error| damaged(error.problem()))?;
    let body = body.strip_prefix(MAGIC).ok_or(damaged("it does not start like one"))?;
    let format = wire::CheckpointFormat::decode(body);
    let format = format.map_err(|_| damaged("its contents are invalid"))?.format;
    if ![FORMAT, ONE_RATE, SETTLED_PARTS, INLINE_SLICES, LEGACY_IDS, LONG_IDS].contains(&format) {
        return Err(InvalidCheckpoint::Newer(format));
    }
    wire::Checkpoint::decode(body).map_err(|_| damaged("its contents are invalid"))
}

fn save_run(timed: &TimedRun) -> wire::IdRun {
    wire::IdRun {
        oldest: timed.oldest,
        newest: timed.newest,
        sealed: timed.sealed,
        name: timed.run.name().to_owned(),
        content: timed.run.unsaved().map_or(Vec::new(), |content| content.to_vec()),
    }
}

fn load_run(
    saved: &wire::IdRun,
    runs: &HashMap<String, IdRun>,
) -> Result<TimedRun, InvalidCheckpoint> {
    let run = if saved.content.is_empty() {
        let run = runs.get(&saved.name).cloned();
        run.ok_or_else(|| InvalidCheckpoint::MissingIds(saved.name.clone()))?
    } else {
        IdRun::of_content(saved.content.clone()).map_err(InvalidCheckpoint::Damaged)?
    };
    let (oldest, newest) = (saved.oldest, saved.newest);
    Ok(TimedRun { run, oldest, newest, sealed: saved.sealed })
}

/// The ids of a checkpoint. Formats before runs had two generations of them.
fn load_ids(
    message: &wire::Checkpoint,
    runs: &HashMap<String, IdRun>,
) -> Result<SeenIds, InvalidCheckpoint> {
    let invalid = InvalidCheckpoint::Damaged("its ids are invalid");
    let newest = message.newest_record.unwrap_or(message.generation_began);
    let log_time =
        LogTime { newest: Timestamp(newest), micros: message.generation_micros.unwrap_or(0) };
    let span = message.recent_oldest.zip(message.recent_newest);
    let loaded = if message.format >= INLINE_SLICES {
        let timed = message.runs.iter().map(|saved| load_run(saved, runs));
        let timed = timed.collect::<Result<Vec<_>, _>>()?;
        SeenIds::load(&message.recent_ids, span, timed, log_time, message.legacy_until)
    } else {
        let ids = |ids: &[u8]| match message.format {
            LONG_IDS => shortened(ids),
            _ => Some(ids.to_vec()),
        };
        let all = ids(&message.recent_ids).zip(ids(&message.old_ids));
        let known = all.and_then(|(recent, old)| ids_of(&[recent, old].concat()));
        let known = known.ok_or(invalid.clone())?;
        // They get the time of the newest record, so that none is forgotten too early.
        let timed = (!known.is_empty()).then(|| TimedRun {
            run: IdRun::new(known),
            oldest: newest,
            newest,
            sealed: log_time.micros,
        });
        let legacy_until = log_time.micros.saturating_add(LEGACY_RETENTION.as_micros() as i64);
        SeenIds::load(&[], None, timed.into_iter().collect(), log_time, legacy_until)
    };
    let (dedupe_window, forgotten_before) = (message.dedupe_window, message.forgotten_before);
    let dedupe_window = dedupe_window.unwrap_or(DEFAULT_DEDUPE_WINDOW.as_micros() as i64);
    let dedupe_window = (dedupe_window, forgotten_before.unwrap_or(i64::MIN));
    loaded.map(|seen| seen.with_dedupe_window(dedupe_window)).ok_or(invalid)
}

/// Shortens ids of the first format, which have 16 bytes.
fn shortened(ids: &[u8]) -> Option<Vec<u8>> {
    let (ids, rest) = ids.as_chunks::<16>();
    let short = ids.iter().flat_map(|id| Id::of_hash(u128::from_le_bytes(*id)).to_bytes());
    rest.is_empty().then(|| short.collect())
}

/// The spend of an ad group that is not configured.
#[derive(Debug, Clone)]
pub(super) struct RemovedAdGroup {
    /// Its number in the feed.
    pub(super) index: AdGroupIndex,
    /// Since when it is not configured.
    pub(super) since: Timestamp,
    pub(super) spend: Spend,
    /// The rest.
    pub(super) saved: wire::AdGroup,
}

impl RemovedAdGroup {
    pub(super) fn new(account: &Account, since: Timestamp) -> Self {
        let (index, spend) = (account.config.index, account.spend.clone());
        Self { index, since, spend, saved: save_rest(account, false) }
    }

    /// The account of an ad group that is added again.
    pub(super) fn into_account(self, config: AdGroupConfig, at: Timestamp) -> Account {
        let mut account = Account::new(config.clone());
        if load(&mut account, self.saved, at).is_none() {
            account = Account::new(config);
        }
        account.spend = self.spend;
        account
    }

    pub(super) fn save(&self) -> wire::AdGroup {
        let saved = wire::AdGroup { removed_since: Some(self.since.0), ..self.saved.clone() };
        with_spend(saved, &self.spend)
    }

    fn load(saved: wire::AdGroup, spend: Spend, at: Timestamp) -> Self {
        let since = saved.removed_since.map_or(at, Timestamp);
        let saved = with_spend(without_placements(saved), &Spend::default());
        Self { index: AdGroupIndex(saved.index), since, spend, saved }
    }
}

fn save(account: &Account) -> wire::AdGroup {
    with_spend(save_rest(account, true), &account.spend)
}

/// Adds the spend that is not in files to what is saved of an ad group.
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

/// What is saved of an ad group, without its spend; placements only as long as it is configured.
fn save_rest(account: &Account, with_placements: bool) -> wire::AdGroup {
    let price = |price: &Price| wire::Price {
        since: price.since,
        micros: price.amount.micros,
        nanos: price.amount.nanos.into(),
        billed: price.billed.kind().number(),
    };
    let predicted = account.predicted_days.iter();
    let intervals = account.intervals.iter().map(|(number, (predicted, earned))| {
        wire::Interval::of(number, ((*predicted).into(), (*earned).into()))
    });
    let apart = match with_placements {
        true => account.apart.stored(),
        false => account.apart.without_placements().stored(),
    };
    wire::AdGroup {
        name: account.config.name.to_string(),
        prices: account.prices.all().iter().map(price).collect(),
        settled_outcomes: account.links.settled,
        other_outcomes: account.links.other,
        index: account.config.index.0,
        learned: account.learned.stored(),
        declared_rate: Some(account.declared_rate()),
        declared_impressions: Some(account.declared_impressions()),
        apart,
        windows: account
            .windows
            .iter()
            .map(|(number, window)| wire::Window {
                number,
                expected: window.expected,
                outcomes: window.outcomes.iter().flat_map(|(b, n)| [*b, *n]).collect(),
                linked: window.earlier,
                weighted: Some(window.weighted),
                insertions: window.trials.insertions,
                outcome_count: window.trials.outcomes,
                declared_rates: window.trials.declared,
                declared: window.declared,
                breakdown: save_breakdown(window, with_placements),
                ..wire::Window::default()
            })
            .collect(),
        delays: account.delays.counts().to_vec(),
        intervals: intervals.collect(),
        predicted_days: predicted
            .map(|(day, sums)| wire::Interval::of(day.0.into(), *sums))
            .collect(),
        over_days: account.causes.save(),
        currency: account.config.currency.to_string(),
        zone: account.config.zone.as_str().to_owned(),
        former_currencies: save_currencies(account),
        first_day: account.first_day.map(|first| first.day.0),
        first_day_start: account.first_day.map(|first| first.start.0),
        points: account
            .points
            .iter()
            .map(|p| wire::Point { at: p.at.0, actual: p.actual.0, in_flight: p.in_flight.0 })
            .collect(),
        ..wire::AdGroup::default()
    }
}

/// The spend in a checkpoint and its files.
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

/// An ad group of formats whose windows have the parts that have an outcome: without them. What outcomes may
/// still name stays known as a part of its window.
fn without_settled(mut saved: wire::AdGroup) -> wire::AdGroup {
    for window in &mut saved.windows {
        window.expected = window.expected.saturating_sub(window.settled);
        window.linked = window.linked.saturating_sub(window.settled).max(0);
        window.settled = 0;
    }
    if saved.settles {
        saved.settled_outcomes = Links::MAX / 2;
    }
    wire::AdGroup { settles: false, ..saved }
}

fn load_prices(account: &mut Account, saved: &[wire::Price], at: Timestamp) -> Option<()> {
    if saved.is_empty() {
        return Some(());
    }
    let current = account.config.billed;
    let prices = saved.iter().map(|p| Price {
        since: p.since,
        amount: Amount::of_saved(p.micros, p.nanos),
        billed: BilledEvent::of_number(p.billed).unwrap_or(current),
    });
    account.prices = Prices::load(prices.collect())?;
    account.prices.change(price_of(&account.config), current, at);
    Some(())
}

fn load(account: &mut Account, mut saved: wire::AdGroup, at: Timestamp) -> Option<()> {
    load_days(account, &mut saved, at);
    load_prices(account, &saved.prices, at)?;
    account.links = Links { settled: saved.settled_outcomes, other: saved.other_outcomes };
    for window in saved.windows {
        let (pairs, rest) = window.outcomes.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        let weighted = window.weighted.unwrap_or_else(|| account.weighted_by_rate(window.expected));
        *account.windows.entry(window.number) = Window {
            expected: window.expected,
            weighted,
            earlier: window.linked,
            outcomes: pairs.iter().map(|[b, n]| (*b, *n)).collect(),
            trials: Trials {
                insertions: window.insertions,
                outcomes: window.outcome_count,
                declared: window.declared_rates,
            },
            declared: window.declared,
            breakdown: load_breakdown(&window.breakdown)?,
            factor: None,
        };
    }
    account.learned = Learned::of_stored(&saved.learned)?;
    account.apart = ApartRates::of_stored(&saved.apart)?;
    account.delays = Delays::from_counts(saved.delays)?;
    for interval in saved.intervals {
        let (predicted, earned) = interval.nanos();
        *account.intervals.entry(interval.number) = (saturated(predicted), saturated(earned));
    }
    for sums in saved.predicted_days {
        let day = BudgetDay(i32::try_from(sums.number).ok()?);
        account.predicted_days.insert(day, sums.nanos());
    }
    account.causes = Causes::load(saved.over_days)?;
    let points = saved.points.into_iter().map(|p| SpendPoint {
        at: Timestamp(p.at),
        actual: Micros(p.actual),
        in_flight: Micros(p.in_flight),
    });
    account.points = points.collect();
    // Another rate or event was declared while no process ran, or the ad group was not configured.
    let is_other = |saved: Option<u64>, declared: u64| saved.is_some_and(|saved| saved != declared);
    let billed = saved.prices.last().and_then(|price| BilledEvent::of_number(price.billed));
    let is_of_other_event = billed.is_some_and(|billed| billed != account.config.billed);
    if is_of_other_event {
        account.forget_delays();
    }
    if is_of_other_event
        || is_other(saved.declared_rate, account.declared_rate())
        || is_other(saved.declared_impressions, account.declared_impressions())
    {
        account.forget_rates();
    }
    Some(())
}

fn saturated(nanos: i128) -> i64 {
    nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

#[cfg(test)]
mod tests;
