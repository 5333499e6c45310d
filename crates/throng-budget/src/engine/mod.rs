//! The state of one partition: every event changes one ad group's money, once.
//!
//! The state depends on the events and their times in the log alone, in the log's order; so loading
//! a checkpoint and applying what came after it gives the same micros as never having stopped.

mod account;
mod checkpoint;
mod dedupe;
mod ids;
mod memory;
mod pooled;
mod survival;
mod timeline;

use std::collections::HashMap;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use throng_gate::feed::{FLAG_CLOSED, FeedEntry, Frame, FrameKind};
use throng_model::{AdGroupIndex, AdGroupName, Micros, MoneyError, Timestamp};

use crate::{AdGroupConfig, EventKind, EventRef, Pricing};

pub use account::{Interval, Series, SpendPoint, WINDOW_SECS};
pub use checkpoint::CheckpointError;
pub use survival::Survival;

use account::Account;
use dedupe::{SeenIds, id_of};
use ids::Id;
use pooled::Pooled;
use survival::bucket_of;

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It counts.
    Counted,
    /// Its id was known; nothing changed.
    Duplicate,
    /// Its ad group is not (or no longer) configured; nothing changed.
    UnknownAdGroup,
}

/// What many events did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// They count.
    pub counted: u64,
    /// Their ids were known.
    pub duplicates: u64,
    /// Their ad groups are not configured, or their money would be too much for 64 bits.
    pub rejected: u64,
    /// Of those that count: their `inserted_at` is out of bounds
    /// ([`EventRef::plausible_inserted_at`]), so no delay was learned from them.
    pub inserted_at_ignored: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.counted += other.counted;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.inserted_at_ignored += other.inserted_at_ignored;
    }
}

/// How far in the log a state is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The first offset of the log that is not in the state.
    pub next_offset: u64,
    /// A checksum of the record before it, by which another log is told from the one that the state
    /// was made of. `None`: not known, as there is no such record or an older version wrote the state.
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
    /// What it may spend a day.
    pub budget: Micros,
    /// What it has spent today.
    pub actual: Micros,
    /// What the ads that are out will probably earn.
    pub in_flight: Micros,
    /// The sum of the two.
    pub projected: Micros,
    /// Whether it may be shown.
    pub open: bool,
    /// Why, in plain words with the figures.
    pub reason: String,
}

/// So many events are looked up before the first of them is applied: enough to keep the memory busy,
/// few enough for what comes to stay in the first cache.
const AHEAD: usize = 32;

/// Spend aggregation of one partition of the event log.
#[derive(Debug, Clone)]
pub struct Engine {
    partition: u32,
    epoch: u64,
    version: u64,
    catalog_version: u64,
    accounts: Vec<Account>,
    /// By name, as its bytes are in records.
    places: hashbrown::HashMap<Box<[u8]>, usize, FixedState>,
    seen: SeenIds,
    pooled_impressions: Pooled,
    pooled_clicks: Pooled,
    /// What the feed said last, by account.
    told: Vec<Told>,
    told_at: Timestamp,
    learned_at: Timestamp,
}

impl Engine {
    /// An engine without any money. `epoch` must be higher than that of every earlier owner of the
    /// partition: the time in microseconds does.
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
            places: hashbrown::HashMap::with_hasher(FixedState::default()),
            seen: SeenIds::default(),
            pooled_impressions: Pooled::default(),
            pooled_clicks: Pooled::default(),
            told: Vec::new(),
            told_at: Timestamp(0),
            learned_at: Timestamp(i64::MIN),
        };
        engine.configure(catalog_version, ad_groups);
        engine
    }

    /// Takes the ad groups of another spec. Money of those that stay is kept; those that are gone
    /// are forgotten.
    pub fn configure(&mut self, catalog_version: u64, ad_groups: Vec<AdGroupConfig>) {
        self.catalog_version = catalog_version;
        let mut before: HashMap<AdGroupName, Account> = std::mem::take(&mut self.accounts)
            .into_iter()
            .map(|account| (account.config.name.clone(), account))
            .collect();
        self.accounts = ad_groups
            .into_iter()
            .map(|config| match before.remove(&config.name) {
                Some(mut account) => {
                    account.configure(config);
                    account
                }
                None => Account::new(config),
            })
            .collect();
        self.places = self
            .accounts
            .iter()
            .enumerate()
            .map(|(place, account)| (account.config.name.as_str().as_bytes().into(), place))
            .collect();
        self.told = vec![Told::default(); self.accounts.len()];
        // The next call of `close` makes the curves.
        self.learned_at = Timestamp(i64::MIN);
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The version of the spec that its ad groups are of.
    pub fn catalog_version(&self) -> u64 {
        self.catalog_version
    }

    /// Tells frames under another epoch from now on. The next one should say everything.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// Applies one event. `logged_at` is the record's time in the log.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`]; the ad group's money is as before.
    pub fn apply<'a>(
        &mut self,
        event: impl Into<EventRef<'a>>,
        logged_at: Timestamp,
    ) -> Result<Applied, MoneyError> {
        let event = event.into();
        let place = self.places.get(event.ad_group.as_bytes()).copied();
        self.apply_at(place, id_of(event.id.as_bytes()), &event, logged_at)
    }

    /// Applies events in their order, each with its record's time in the log; the same as
    /// [`Engine::apply`] one by one, and some times faster: while one is applied, what is known of the
    /// ids of those some places behind it is on its way from memory.
    pub fn apply_all(&mut self, events: &[(EventRef<'_>, Timestamp)]) -> Tally {
        let mut tally = Tally::default();
        let mut ahead = [(None, Id::default()); AHEAD];
        // Events of a message are often of one ad group. None has an empty name.
        let (mut name, mut place): (&[u8], _) = (&[], None);
        // In step `n` event `n` is looked up, and the one `AHEAD` places before it is applied.
        for step in 0..events.len() + AHEAD {
            let looked_up = &mut ahead[step % AHEAD];
            let due = *looked_up;
            if let Some((event, _)) = events.get(step) {
                if event.ad_group.as_bytes() != name {
                    name = event.ad_group.as_bytes();
                    place = self.places.get(name).copied();
                }
                *looked_up = (place, id_of(event.id.as_bytes()));
                self.seen.prefetch(looked_up.1);
            }
            let Some((event, logged_at)) = step.checked_sub(AHEAD).and_then(|n| events.get(n))
            else {
                continue;
            };
            match self.apply_at(due.0, due.1, event, *logged_at) {
                Ok(Applied::Counted) => {
                    tally.counted += 1;
                    let ignored =
                        event.inserted_at.is_some() && event.plausible_inserted_at().is_none();
                    tally.inserted_at_ignored += u64::from(ignored);
                }
                Ok(Applied::Duplicate) => tally.duplicates += 1,
                Ok(Applied::UnknownAdGroup) | Err(_) => tally.rejected += 1,
            }
        }
        tally
    }

    fn apply_at(
        &mut self,
        place: Option<usize>,
        id: Id,
        event: &EventRef<'_>,
        logged_at: Timestamp,
    ) -> Result<Applied, MoneyError> {
        let Some(place) = place else {
            return Ok(Applied::UnknownAdGroup);
        };
        if !self.seen.insert(id, logged_at) {
            return Ok(Applied::Duplicate);
        }
        let account = &mut self.accounts[place];
        let pooled = match account.config.pricing {
            Pricing::PerImpression => &mut self.pooled_impressions,
            Pricing::PerClick => &mut self.pooled_clicks,
        };
        match (event.kind(), account.config.pricing) {
            (Some(EventKind::Insertion), _) => {
                account.insertion(event.at)?;
                pooled.insertion(event.at);
            }
            (Some(EventKind::Impression), Pricing::PerImpression)
            | (Some(EventKind::Click), Pricing::PerClick) => {
                // Anybody can write any time there; one that cannot be true must not be learned from.
                let inserted_at = event.plausible_inserted_at();
                account.outcome(event.at, inserted_at, logged_at)?;
                if let Some(inserted_at) = inserted_at {
                    let bucket = bucket_of(logged_at.0.saturating_sub(inserted_at.0));
                    pooled.outcome(inserted_at, bucket, logged_at);
                }
            }
            // Impressions of ad groups paid by click earn nothing, and the other way round.
            (Some(EventKind::Impression | EventKind::Click) | None, _) => {}
        }
        Ok(Applied::Counted)
    }

    /// Closes what the clock has closed, of silent ad groups too, and takes a sample for the charts.
    /// Call it about once a second of the clock.
    pub fn close(&mut self, now: Timestamp) {
        self.pooled_impressions.close(now);
        self.pooled_clicks.close(now);
        self.accounts.iter_mut().for_each(|account| account.close(now));
        // Curves move slowly; making them anew for each call would be most of its cost.
        let since = now.0.saturating_sub(self.learned_at.0);
        if since >= account::WINDOW_MICROS || now < self.learned_at {
            self.learned_at = now;
            self.learn(now);
        }
        self.accounts.iter_mut().for_each(|account| account.sample(now));
    }

    fn learn(&mut self, now: Timestamp) {
        let impressions = self.pooled_impressions.curve(now);
        let clicks = self.pooled_clicks.curve(now);
        for account in &mut self.accounts {
            account.learn(match account.config.pricing {
                Pricing::PerImpression => impressions.as_deref(),
                Pricing::PerClick => clicks.as_deref(),
            });
        }
    }

    /// The figures of every ad group, in the order of the configuration.
    pub fn states(&self, now: Timestamp) -> Vec<AdGroupState> {
        self.accounts.iter().map(|account| state(account, now)).collect()
    }

    fn place(&self, ad_group: &AdGroupName) -> Option<&usize> {
        self.places.get(ad_group.as_str().as_bytes())
    }

    /// The recent past of an ad group.
    pub fn series(&self, ad_group: &AdGroupName) -> Option<Series> {
        self.place(ad_group).map(|place| self.accounts[*place].series())
    }

    /// The curve that an ad group's in-flight spend is made with.
    pub fn survival(&self, ad_group: &AdGroupName) -> Option<&Survival> {
        self.place(ad_group).map(|place| self.accounts[*place].survival())
    }

    /// Goes on to the next version and tells what changed since the last one.
    pub fn delta(&mut self, now: Timestamp) -> Frame {
        let base_version = self.version;
        self.version += 1;
        self.told_at = now;
        let mut entries = Vec::new();
        for (account, told) in self.accounts.iter().zip(&mut self.told) {
            let figures = Told::of(account, now);
            if figures != *told {
                *told = figures;
                entries.push(entry(account, figures));
            }
        }
        entries.sort_by_key(|entry| entry.index);
        self.frame(FrameKind::Delta { base_version }, entries)
    }

    /// Tells all that the newest version says, for a gate that has nothing or missed something.
    pub fn keyframe(&self) -> Frame {
        let mut entries: Vec<FeedEntry> = self
            .accounts
            .iter()
            .zip(&self.told)
            .filter(|(_, told)| **told != Told::default())
            .map(|(account, told)| entry(account, *told))
            .collect();
        entries.sort_by_key(|entry| entry.index);
        self.frame(FrameKind::Keyframe, entries)
    }

    fn frame(&self, kind: FrameKind, entries: Vec<FeedEntry>) -> Frame {
        Frame {
            partition: self.partition,
            epoch: self.epoch,
            version: self.version,
            kind,
            at: self.told_at,
            catalog_version: self.catalog_version,
            entries,
        }
    }
}

/// What the feed says of an ad group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    actual: Micros,
    in_flight: Micros,
    closed: bool,
}

impl Told {
    fn of(account: &Account, now: Timestamp) -> Self {
        let (actual, in_flight) = (account.actual_at(now), account.in_flight(now));
        Self { actual, in_flight, closed: !account.config.is_open(actual, in_flight) }
    }
}

fn entry(account: &Account, told: Told) -> FeedEntry {
    FeedEntry {
        index: account.config.index,
        actual: told.actual,
        in_flight: told.in_flight,
        flags: if told.closed { FLAG_CLOSED } else { 0 },
    }
}

fn state(account: &Account, now: Timestamp) -> AdGroupState {
    AdGroupState::of(&account.config, account.actual_at(now), account.in_flight(now))
}

impl AdGroupState {
    /// The state that an ad group of this configuration has with these figures.
    pub fn of(config: &AdGroupConfig, actual: Micros, in_flight: Micros) -> Self {
        let open = config.is_open(actual, in_flight);
        let budget = config.daily_budget;
        let reason = match (open, config.prediction) {
            (true, true) => {
                format!("{actual} spent and {in_flight} in flight leave room in {budget}")
            }
            (true, false) => format!("{actual} spent leave room in {budget}"),
            (false, true) => format!(
                "{actual} spent and {in_flight} in flight, give or take {}, reach {budget}",
                config.caution(in_flight)
            ),
            (false, false) => format!("{actual} spent reach {budget}"),
        };
        Self {
            name: config.name.clone(),
            index: config.index,
            budget,
            actual,
            in_flight,
            projected: Micros(actual.0.saturating_add(in_flight.0)),
            open,
            reason,
        }
    }
}
