//! The state of one partition: every event changes one ad group's money, once.
//!
//! The state depends on the events and their times in the log alone, in the log's order; so loading
//! a checkpoint and applying what came after it gives the same micros as never having stopped.

mod account;
mod apply;
mod causes;
mod checkpoint;
mod dedupe;
mod ids;
mod memory;
mod open;
mod prices;
mod rates;
mod runs;
mod slices;
mod spend;
mod timed_run;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use throng_feed::{FLAG_CLOSED, FLAG_REMOVED, FeedEntry, Frame, FrameKind, PassThroughRate};
use throng_model::series::{DayPrediction, DaySpend, Series};
use throng_model::{
    AdGroupIndex, AdGroupName, BudgetDay, Currency, Micros, OverdeliveryCauses, Timestamp,
};
use throng_rates::{Placements, Pooled};

use crate::{AdGroupConfig, BilledEvent, NameKey};

pub use account::{AdGroupRates, PlacementFigures, RateFigures};
pub use checkpoint::{CheckpointFiles, InvalidCheckpoint, NamedFiles};
pub use dedupe::DEFAULT_DEDUPE_WINDOW;
pub use runs::{IdFile, IdRun};
pub use slices::SliceFile;
pub use spend::SLICE_SECS;
pub use throng_rates::WINDOW_SECS;
pub use throng_rates::survival::Survival;

use account::{Account, Figures};
use checkpoint::RemovedAdGroup;
use dedupe::{SeenIds, ad_group_seed};
use open::OpenInsertions;
use slices::SliceFiles;
use spend::NO_FILE;

/// The effect of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventEffect {
    /// It counts.
    Counted,
    /// Its id was counted before; nothing changed.
    Duplicate,
    /// Its insertion already has such an outcome, under another id; nothing changed.
    Repeated,
    /// Its ad group is not (or no longer) configured; nothing changed.
    UnknownAdGroup,
    /// Ids of its time were forgotten before the deduplication window was extended: it may be a duplicate.
    /// Nothing changed.
    TooOld,
}

/// The effects of many events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// They count.
    pub counted: u64,
    /// Their ids were counted before.
    pub duplicates: u64,
    /// Their insertions already have such an outcome, under another id.
    pub repeated: u64,
    /// Their ad groups are not configured, they are too old, or a sum would not fit in 64 bits.
    pub rejected: u64,
    /// Of those that count: their `inserted_at` is out of bounds (`EventRef::plausible_inserted_at`): no delay is learned.
    pub inserted_at_ignored: u64,
    /// Of those that count: billed events that name an insertion which counted and is no longer open. Unless
    /// they carry a price, they are billed at the ad group's.
    pub not_joined: u64,
    /// Of those that count: most insertions of their time had come late, or none in time before, so nothing is learned.
    pub not_learned: u64,
    /// Insertions that are no longer open because there were too many. What they were expected to earn stays
    /// in flight by the survival curve.
    pub evicted: u64,
}

impl std::ops::AddAssign for EventCounts {
    fn add_assign(&mut self, other: Self) {
        self.counted += other.counted;
        self.duplicates += other.duplicates;
        self.repeated += other.repeated;
        self.rejected += other.rejected;
        self.inserted_at_ignored += other.inserted_at_ignored;
        self.not_joined += other.not_joined;
        self.not_learned += other.not_learned;
        self.evicted += other.evicted;
    }
}

/// The position of a state in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The first offset of the log that is not in the state.
    pub next_offset: u64,
    /// A checksum of the record before it, by which another log is distinguished from the one from which the
    /// state was made. `None`: there is no such record, or an older version wrote the state.
    pub last_record: Option<u64>,
}

impl From<u64> for LogPosition {
    fn from(next_offset: u64) -> Self {
        Self { next_offset, last_record: None }
    }
}

/// An ad group's figures at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdGroupState {
    /// The name.
    pub name: AdGroupName,
    /// The number in the feed.
    pub index: AdGroupIndex,
    /// The currency of the amounts.
    pub currency: Currency,
    /// What it may spend a day.
    pub budget: Micros,
    /// What it has spent today.
    pub actual: Micros,
    /// What inserted ads will probably still earn.
    pub in_flight: Micros,
    /// The sum of the two.
    pub projected: Micros,
    /// Whether it may be shown.
    pub open: bool,
    /// Why, with the figures.
    pub reason: String,
    /// Whether the figures are known.
    pub is_known: bool,
}

/// How long the spend of an ad group is kept after it was removed.
pub const REMOVED_RETENTION: Duration = Duration::from_secs(8 * 24 * 3600);
/// An ad group that is configured.
#[derive(Debug, Clone, Copy)]
struct AccountKey {
    /// Index in `Engine::accounts`.
    account: usize,
    /// Its part of the hashes of ids.
    seed: u64,
}

/// Spend aggregation of one partition of the event log.
#[derive(Debug, Clone)]
pub struct Engine {
    partition: u32,
    epoch: u64,
    version: u64,
    catalog_version: u64,
    accounts: Vec<Account>,
    /// By the bytes of the name, as they are in records.
    account_keys: hashbrown::HashMap<NameKey, AccountKey, FixedState>,
    /// Ad groups that were removed recently: they get their spend back if they are added again.
    removed: BTreeMap<AdGroupName, RemovedAdGroup>,
    /// Those that were added again in another currency, for the time when they get the earlier one again. No slice file
    /// has their spend: files have one ad group of a name.
    set_aside: Vec<RemovedAdGroup>,
    slice_files: SliceFiles,
    seen: SeenIds,
    /// Insertions that an outcome may still name.
    open: OpenInsertions,
    placements: Placements,
    pooled_impressions: Pooled,
    pooled_clicks: Pooled,
    /// The figures of the newest version, by account.
    published: Vec<PublishedFigures>,
    published_at: Timestamp,
    /// The log position of the newest version.
    published_position: Option<u64>,
    learned_at: Timestamp,
    /// Since the start of the process, as the same fields of [`EventCounts`].
    not_joined: u64,
    not_learned: u64,
}

impl Engine {
    /// An engine without spend. `epoch` must be higher than that of every earlier leader of the
    /// partition: the time in microseconds is.
    pub fn new(
        partition: u32,
        epoch: u64,
        catalog_version: u64,
        ad_groups: Vec<AdGroupConfig>,
    ) -> Self {
        let mut engine = Self {
            partition,
            epoch,
            version: 0,
            catalog_version,
            accounts: Vec::new(),
            account_keys: hashbrown::HashMap::with_hasher(FixedState::default()),
            removed: BTreeMap::new(),
            set_aside: Vec::new(),
            slice_files: SliceFiles::default(),
            seen: SeenIds::default(),
            open: OpenInsertions::default(),
            placements: Placements::default(),
            pooled_impressions: Pooled::default(),
            pooled_clicks: Pooled::default(),
            published: Vec::new(),
            published_at: Timestamp(0),
            published_position: None,
            learned_at: Timestamp(i64::MIN),
            not_joined: 0,
            not_learned: 0,
        };
        engine.configure(catalog_version, ad_groups, Timestamp(i64::MIN));
        engine
    }

    /// Replaces the ad groups by those of another spec, from a moment on: what happened before it keeps its
    /// price. Ad groups that stay keep their spend. That of removed ones is kept for
    /// [`REMOVED_RETENTION`], and they get it back if they are added again in the same currency. If they get that
    /// currency after they were added in another one, they get what they had spent in it on the current day.
    pub fn configure(
        &mut self,
        catalog_version: u64,
        ad_groups: Vec<AdGroupConfig>,
        at: Timestamp,
    ) {
        self.catalog_version = catalog_version;
        let mut before: HashMap<AdGroupName, Account> = std::mem::take(&mut self.accounts)
            .into_iter()
            .map(|account| (account.config.name.clone(), account))
            .collect();
        self.accounts = ad_groups
            .into_iter()
            .map(|config| match before.remove(&config.name) {
                Some(mut account) => {
                    let aside = self.take_aside(&config);
                    account.configure(config, at);
                    if let Some(aside) = aside {
                        account.merge_aside(&aside.spend, at);
                    }
                    account
                }
                None => self.added(config, at),
            })
            .collect();
        for (name, account) in before {
            self.removed.insert(name, RemovedAdGroup::new(&account, at));
        }
        self.account_keys = self
            .accounts
            .iter()
            .enumerate()
            .map(|(index, account)| {
                let name = account.config.name.as_str().as_bytes();
                (name.into(), AccountKey { account: index, seed: ad_group_seed(name) })
            })
            .collect();
        self.number_campaigns();
        self.cover_horizons();
        self.published = vec![PublishedFigures::default(); self.accounts.len()];
        // The next call of `close` computes the curves.
        self.learned_at = Timestamp(i64::MIN);
    }

    /// The account of an ad group that is added: with its spend if it was removed recently.
    fn added(&mut self, config: AdGroupConfig, at: Timestamp) -> Account {
        if let Some(mut removed) = self.removed.remove(&config.name) {
            if removed.saved.is_continued_in(config.currency) {
                return removed.into_account(config, at);
            }
            removed.spend.leave_files(NO_FILE);
            self.set_aside.push(removed);
        }
        let mut account = match self.take_aside(&config) {
            Some(aside) => aside.into_account(config, at),
            None => Account::new(config),
        };
        account.spend.leave_files(self.slice_files.next());
        account
    }

    /// What an ad group has spent in its new currency, if that was set aside.
    fn take_aside(&mut self, config: &AdGroupConfig) -> Option<RemovedAdGroup> {
        let place = self.set_aside.iter().position(|aside| {
            aside.saved.name == config.name.as_str() && aside.saved.is_continued_in(config.currency)
        })?;
        Some(self.set_aside.remove(place))
    }

    /// Has delays learned up to the longest horizon.
    fn cover_horizons(&mut self) {
        let horizon = |billed: BilledEvent| {
            let accounts = self.accounts.iter().filter(|account| account.config.billed == billed);
            accounts.map(|account| account.config.horizon).max().unwrap_or_default()
        };
        let (impressions, clicks) = (horizon(BilledEvent::Impression), horizon(BilledEvent::Click));
        self.pooled_impressions.cover_horizon(impressions);
        self.pooled_clicks.cover_horizon(clicks);
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Whether it has an ad group, by the bytes of its name.
    pub fn has_ad_group(&self, name: &[u8]) -> bool {
        self.account_keys.contains_key(name)
    }

    /// The version of the spec that its ad groups are from.
    pub fn catalog_version(&self) -> u64 {
        self.catalog_version
    }

    /// Sets how long ids are remembered from `now` on; a day unless it is set. Events that are older than that
    /// must not be applied: they could count twice. If it is longer than before, events from before the
    /// earlier window are [`EventEffect::TooOld`].
    pub fn set_dedupe_window(&mut self, dedupe_window: Duration, now: Timestamp) {
        self.seen.set_dedupe_window(dedupe_window, now);
    }

    /// The ids of all counted events in records from this time on are remembered.
    pub fn remembers_from(&self, now: Timestamp) -> Timestamp {
        self.seen.remembers_from(now)
    }

    /// The newest time of any record that was applied; zero if none was.
    pub fn newest_record(&self) -> Timestamp {
        self.seen.log_time().newest
    }

    /// Whether a run of ids could not be read. The state is wrong since then: drop it and continue from the
    /// checkpoint.
    pub fn has_failed(&self) -> bool {
        self.seen.has_failed()
    }

    /// Runs of ids that are not written yet. A checkpoint has their contents until
    /// [`id_run_saved`](Self::id_run_saved), and their names from then on.
    pub fn unsaved_id_runs(&self) -> Vec<IdRun> {
        self.seen.unsaved()
    }

    /// A run of ids is written, and read from `file` from now on. `false` if no later checkpoint needs it.
    pub fn id_run_saved(&mut self, name: &str, file: &std::sync::Arc<dyn IdFile>) -> bool {
        self.seen.saved(name, file)
    }

    /// The names of written runs that no later checkpoint needs. Each is returned once.
    pub fn take_dropped_id_runs(&mut self) -> Vec<String> {
        self.seen.take_dropped()
    }

    /// How many insertions are open: an outcome that names one settles it. At most a million, each in 43 to 85
    /// bytes.
    pub fn open_insertions(&self) -> usize {
        self.open.len()
    }

    /// Sets the epoch of frames from now on. The next one should be a keyframe.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
        // Gates may have ignored those of the earlier one.
        self.forget_frames();
    }

    /// The frames so far were not published: nothing is attributed by them.
    pub fn forget_frames(&mut self) {
        self.accounts.iter_mut().for_each(|account| account.causes.forget_frames());
    }

    /// Closes windows by the clock, also of ad groups without events, and takes a sample for the charts.
    /// Call it about once a second of the clock.
    pub fn close(&mut self, now: Timestamp) {
        for account in &mut self.accounts {
            let pooled = match account.config.billed {
                BilledEvent::Impression => &self.pooled_impressions,
                BilledEvent::Click => &self.pooled_clicks,
            };
            account.close(now, pooled);
        }
        self.pooled_impressions.close(now);
        self.pooled_clicks.close(now);
        self.removed.retain(|_, removed| now.since(removed.since) <= REMOVED_RETENTION);
        self.set_aside.retain(|aside| now.since(aside.since) <= REMOVED_RETENTION);
        // Curves change slowly; computing them in each call would be most of its cost.
        let since = now.0.saturating_sub(self.learned_at.0);
        if since >= throng_rates::WINDOW_MICROS || now < self.learned_at {
            self.learned_at = now;
            self.learn(now);
        }
        for account in &mut self.accounts {
            account.pace(now);
            account.sample(now);
        }
    }

    /// The figures of every ad group, in the order of the configuration.
    pub fn states(&self, now: Timestamp) -> Vec<AdGroupState> {
        let of = |account: &Account| AdGroupState::of(&account.config, account.figures(now));
        self.accounts.iter().map(of).collect()
    }

    fn account(&self, ad_group: &AdGroupName) -> Option<&Account> {
        let key = self.account_keys.get(ad_group.as_str().as_bytes())?;
        self.accounts.get(key.account)
    }

    /// Actual spend of an ad group's last 8 budget days and of the next two, oldest first, by its current time
    /// zone, days without spend too. Empty if it has never spent anything.
    pub fn days(&self, ad_group: &AdGroupName, now: Timestamp) -> Option<Vec<(BudgetDay, Micros)>> {
        self.account(ad_group).map(|account| account.days(now))
    }

    /// [`days`](Self::days) of every ad group that has spent anything, with the currencies that they had. A day on which
    /// the currency was changed counts in the new one, and is there with zero in the other one.
    pub fn all_days(&self, now: Timestamp) -> Vec<(AdGroupName, Vec<DaySpend>)> {
        let days = |it: &Account| (it.config.name.clone(), it.days_in_currencies(now));
        self.accounts.iter().map(days).filter(|(_, days)| !days.is_empty()).collect()
    }

    /// What was predicted and earned on the last days, by the day of the insertions, oldest first; of every ad
    /// group that has had an insertion. Without insertions whose outcomes are not due yet.
    pub fn predictions(&self, now: Timestamp) -> Vec<(AdGroupName, Vec<DayPrediction>)> {
        let of = |account: &Account| (account.config.name.clone(), account.predictions(now));
        self.accounts.iter().map(of).filter(|(_, days)| !days.is_empty()).collect()
    }

    /// What was spent above the budgets of the last days, by cause, of every ad group of which a cause is known. What
    /// is missing to the overdelivery of a day has no known cause.
    pub fn overdelivery_causes(
        &self,
        now: Timestamp,
    ) -> Vec<(AdGroupName, Vec<(BudgetDay, OverdeliveryCauses)>)> {
        let of = |it: &Account| (it.config.name.clone(), it.overdelivery_causes(now));
        self.accounts.iter().map(of).filter(|(_, days)| !days.is_empty()).collect()
    }

    /// Actual spend of an ad group by slices of [`SLICE_SECS`], each with its start; those without spend are
    /// left out.
    pub fn slices(&self, ad_group: &AdGroupName) -> Option<Vec<(Timestamp, Micros)>> {
        let start = |number: i64| Timestamp(number.saturating_mul(spend::SLICE_MICROS));
        let account = self.account(ad_group)?;
        let slices = account.spend.slices();
        Some(slices.map(|(n, amount)| (start(n), Micros(amount.rounded()))).collect())
    }

    /// The recent past of an ad group.
    pub fn series(&self, ad_group: &AdGroupName) -> Option<Series> {
        self.account(ad_group).map(Account::series)
    }

    /// The curve by which an ad group's in-flight spend is computed.
    pub fn survival(&self, ad_group: &AdGroupName) -> Option<&Survival> {
        self.account(ad_group).map(Account::survival)
    }

    /// As [`delta`](Self::delta), with the log position of the figures: the first offset that is not in them.
    pub fn delta_at(&mut self, now: Timestamp, position: u64) -> Frame {
        self.published_position = Some(position);
        self.delta(now)
    }

    /// Makes the next version and returns what changed since the last one.
    pub fn delta(&mut self, now: Timestamp) -> Frame {
        let base_version = self.version;
        self.version += 1;
        self.published_at = now;
        let mut entries = Vec::new();
        for (account, published) in self.accounts.iter_mut().zip(&mut self.published) {
            let figures = PublishedFigures::of(account, now);
            account.causes.publish(now, !figures.closed);
            if figures != *published {
                *published = figures;
                entries.push(entry(account, figures));
            }
        }
        entries.sort_by_key(|entry| entry.index);
        self.frame(FrameKind::Delta { base_version }, entries)
    }

    /// All figures of the newest version, for a gate that has none or missed a frame. It names every ad group,
    /// and those that were removed recently as closed.
    pub fn keyframe(&self) -> Frame {
        let accounts = self.accounts.iter().zip(&self.published);
        let mut entries: Vec<_> = accounts.map(|(it, published)| entry(it, *published)).collect();
        entries.extend(self.removed.values().map(|removed| FeedEntry {
            index: removed.index,
            actual: Micros(0),
            in_flight: Micros(0),
            flags: FLAG_CLOSED | FLAG_REMOVED,
            pass_through_rate: PassThroughRate::ALL,
        }));
        entries.sort_by_key(|entry| entry.index);
        self.frame(FrameKind::Keyframe, entries)
    }

    fn frame(&self, kind: FrameKind, entries: Vec<FeedEntry>) -> Frame {
        Frame {
            partition: self.partition,
            epoch: self.epoch,
            version: self.version,
            kind,
            at: self.published_at,
            catalog_version: self.catalog_version,
            log_position: self.published_position,
            entries,
        }
    }
}

/// The figures of an ad group in a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct PublishedFigures {
    actual: Micros,
    in_flight: Micros,
    closed: bool,
    pass_through_rate: PassThroughRate,
}

impl PublishedFigures {
    fn of(account: &Account, now: Timestamp) -> Self {
        let Figures { actual, in_flight, open, pass_through_rate, .. } = account.figures(now);
        Self { actual, in_flight, closed: !open, pass_through_rate }
    }
}

fn entry(account: &Account, published: PublishedFigures) -> FeedEntry {
    FeedEntry {
        index: account.config.index,
        actual: published.actual,
        in_flight: published.in_flight,
        flags: if published.closed { FLAG_CLOSED } else { 0 },
        pass_through_rate: published.pass_through_rate,
    }
}

impl AdGroupState {
    /// The state of an ad group by its newest entry of the feed; `None`: the feed does not name it.
    pub fn of_entry(config: &AdGroupConfig, entry: Option<FeedEntry>) -> Self {
        let figures = entry.map_or(Figures::default(), |entry| Figures {
            actual: entry.actual,
            in_flight: entry.in_flight,
            margin: None,
            open: entry.flags & FLAG_CLOSED == 0,
            pass_through_rate: entry.pass_through_rate,
        });
        Self::of(config, figures)
    }

    fn of(config: &AdGroupConfig, figures: Figures) -> Self {
        let Figures { actual, in_flight, margin, open, pass_through_rate } = figures;
        let (budget, currency) = (config.daily_budget, config.currency);
        let mut reason = match (open, config.prediction) {
            (true, true) => {
                format!(
                    "{actual} spent and {in_flight} in flight leave room in {budget} {currency}"
                )
            }
            (true, false) => format!("{actual} spent leave room in {budget} {currency}"),
            (false, true) => match margin {
                Some(margin) => format!(
                    "{actual} spent and {in_flight} in flight, give or take {margin}, reach {budget} {currency}"
                ),
                None => format!(
                    "{actual} spent and {in_flight} in flight leave too little of {budget} {currency}"
                ),
            },
            (false, false) => format!("{actual} spent reach {budget} {currency}"),
        };
        if open && pass_through_rate != PassThroughRate::ALL {
            let percent = pass_through_rate.percent_text();
            reason.push_str(&format!("; shown at {percent} of requests"));
        }
        Self {
            name: config.name.clone(),
            index: config.index,
            currency,
            budget,
            actual,
            in_flight,
            projected: Micros(actual.0.saturating_add(in_flight.0)),
            open,
            reason,
            is_known: true,
        }
    }
}
