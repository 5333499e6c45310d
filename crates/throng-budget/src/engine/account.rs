//! One ad group: actual spend by day, windows of expected spend, and learned delays.

mod forecast;
mod over;
mod past;
mod rates;

use std::collections::{BTreeMap, VecDeque};

use jiff::tz::TimeZone;
use throng_events::{expected_micros, rate_in_billionths};
use throng_model::series::{DaySpend, SpendPoint};
use throng_model::{Amount, BudgetDay, FirstDay, FormerCurrencies, Micros, MoneyError, Timestamp};
use throng_rates::{
    ApartRates, Learned, LearnedRates, Links, NO_PLACEMENT, Terms, Timeline, Trials, Window,
    times_rate,
};

pub(super) use forecast::Figures;
use past::{add_sums, interval_start};
pub use rates::{AdGroupRates, PlacementFigures, RateFigures};

use crate::{AdGroupConfig, BilledEvent, EventMoney, MAX_PRICE_NANOS};

use super::causes::Causes;
use super::memory::prefetch_value;
use super::prices::Prices;
use super::spend::{Spend, slice_of};
use throng_rates::survival::{Delays, Survival, covered_micros};
use throng_rates::{Pooled, WINDOW_MICROS, age_of};

pub(super) const INTERVAL_MICROS: i64 = 180_000_000;
/// A window's outcomes are learned from at this age: earlier, those with short delays would be overrepresented.
const MATURE_MICROS: i64 = 15 * 60 * 1_000_000;
/// Days whose spend is reported.
const REPORTED_DAYS: i32 = 8;
const KEPT_INTERVALS: usize = 480;
const KEPT_POINTS: usize = 720;

/// An insertion that counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Insertion {
    pub(super) at: Timestamp,
    pub(super) terms: Terms,
    /// What it is expected to earn in billionths: many cheap ones are predicted exactly.
    pub(super) nanos: f64,
    /// Its outcome has come before it.
    pub(super) is_settled: bool,
    pub(super) placement: u16,
    /// The impression rate that it carries, in billionths.
    pub(super) impression_rate: Option<u32>,
}

/// What an outcome says of its insertion.
#[derive(Debug, Clone, Copy)]
pub(super) enum OutcomeLink {
    /// It names no insertion.
    None,
    /// It names one that is not known, or that has had an outcome.
    Unknown,
    /// It is the first of an open insertion, which is in this window.
    Open { window: i64, terms: Terms },
    /// It is the first of an insertion that counted, at this price, and is not open: it was open for too long,
    /// or was counted by an earlier version.
    Closed(Amount),
}

/// Something that is paid for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// When it happened.
    pub(super) at: Timestamp,
    /// When its insertion was made, if that is known and plausible.
    pub(super) inserted_at: Option<Timestamp>,
    /// The time of its record in the log.
    pub(super) logged_at: Timestamp,
    /// What it is.
    pub(super) billed: BilledEvent,
    /// What is paid for it.
    pub(super) price: Amount,
    /// The price of its insertion, if that is known.
    pub(super) insertion_price: Option<Amount>,
    pub(super) link: OutcomeLink,
    /// That of its insertion, if it is known.
    pub(super) placement: u16,
    /// [`Pooled::is_observed`] of its insertion.
    pub(super) is_observed: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) config: AdGroupConfig,
    /// What an insertion at the ad group's terms is expected to earn, and that times the probability of an outcome.
    expected: i64,
    weighted: i64,
    /// The declared probability of an outcome, in billionths.
    chance: u64,
    /// The declared probability of an impression, in billionths.
    impression_chance: u64,
    /// A number that ad groups of the same campaign have.
    pub(super) campaign: u32,
    zone: TimeZone,
    /// If the zone was changed.
    pub(super) first_day: Option<FirstDay>,
    pub(super) currencies: FormerCurrencies,
    /// The budget day of the newest event, with its slices: computing a day costs more than all the rest.
    day: Option<(BudgetDay, i64, i64)>,
    /// That of the last outcome of another day.
    outcome_day: Option<(BudgetDay, i64, i64)>,
    /// Why more was spent than the budget.
    pub(super) causes: Causes,
    pub(super) spend: Spend,
    pub(super) prices: Prices,
    /// Whether outcomes settle their own insertions.
    pub(super) links: Links,
    pub(super) windows: Timeline<Window>,
    pub(super) delays: Delays,
    /// Predicted and earned, in billionths.
    pub(super) intervals: Timeline<(i64, i64)>,
    /// The sums of intervals that were dropped, by the day on which they began.
    pub(super) predicted_days: BTreeMap<BudgetDay, (i128, i128)>,
    pub(super) points: VecDeque<SpendPoint>,
    pub(super) learned: Learned,
    pub(super) apart: ApartRates,
    survival: Survival,
    /// The rates as they were when the curve was computed.
    rates: LearnedRates,
}

impl Account {
    pub(super) fn new(config: AdGroupConfig) -> Self {
        Self {
            expected: config.expected().0,
            weighted: times_rate(config.expected().0, rate_of(&config)),
            chance: Trials::billionths(rate_of(&config)),
            impression_chance: Trials::billionths(config.impression_rate),
            campaign: 0,
            zone: config.zone.rules(),
            survival: Survival::step(config.horizon),
            prices: Prices::new(price_of(&config), config.billed),
            config,
            first_day: None,
            currencies: FormerCurrencies::default(),
            day: None,
            outcome_day: None,
            causes: Causes::default(),
            spend: Spend::default(),
            links: Links::default(),
            windows: Timeline::default(),
            delays: Delays::default(),
            intervals: Timeline::default(),
            predicted_days: BTreeMap::new(),
            points: VecDeque::new(),
            learned: Learned::default(),
            apart: ApartRates::default(),
            rates: LearnedRates::default(),
        }
    }

    /// Replaces the configuration and keeps the spend: what was inserted before `at` keeps its price, and the event
    /// that is billed.
    pub(super) fn configure(&mut self, config: AdGroupConfig, at: Timestamp) {
        if config.zone != self.config.zone {
            self.zone = config.zone.rules();
            self.leave_zone(&self.config.zone.rules(), at);
            (self.day, self.outcome_day) = (None, None);
            self.causes.clear();
        }
        if config.currency != self.config.currency {
            self.currencies.record_change(self.config.currency, BudgetDay::of(at, &self.zone));
        }
        self.prices.change(price_of(&config), config.billed, at);
        self.expected = config.expected().0;
        self.weighted = times_rate(self.expected, rate_of(&config));
        let chance = Trials::billionths(rate_of(&config));
        let impression_chance = Trials::billionths(config.impression_rate);
        let declared = (self.chance, self.impression_chance);
        if (chance, impression_chance) != declared || config.billed != self.config.billed {
            self.forget_rates();
        }
        if config.billed != self.config.billed {
            self.forget_delays();
        }
        (self.chance, self.impression_chance) = (chance, impression_chance);
        self.config = config;
    }

    /// Adds spend that was set aside in the currency that the ad group has now. Earlier days are reported in another
    /// one: theirs is in the ledger already, and would be there in both.
    pub(super) fn merge_aside(&mut self, aside: &Spend, now: Timestamp) {
        let from = self.first_slice(BudgetDay::of(now, &self.zone));
        self.spend.merge(aside, from);
    }

    /// Days were counted by this zone, which is not the current one, until a moment.
    pub(super) fn leave_zone(&mut self, zone: &TimeZone, at: Timestamp) {
        let today = BudgetDay::of(at, zone);
        let oldest = BudgetDay(today.0.saturating_sub(REPORTED_DAYS - 1));
        self.first_day = Some(FirstDay::after_change(self.first_day, oldest, zone));
        self.currencies.change_zone(BudgetDay::of(at, &self.zone));
    }

    /// Loads the ad group into the processor's caches, for an event that is applied soon.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch_value(self);
    }

    /// As [`prefetch`](Self::prefetch), for what it points to; reads itself.
    #[inline]
    pub(super) fn prefetch_newest(&self) {
        self.prefetch_prices();
        self.windows.newest().into_iter().for_each(prefetch_value);
        self.intervals.newest().into_iter().for_each(prefetch_value);
        self.spend.prefetch_newest();
    }

    /// As [`prefetch`](Self::prefetch), for its prices; reads itself.
    #[inline]
    pub(super) fn prefetch_prices(&self) {
        self.prices.all().first().into_iter().for_each(prefetch_value);
    }

    /// As [`prefetch`](Self::prefetch), for the window of an insertion and its outcomes; reads the newest window.
    #[inline]
    pub(super) fn prefetch_window(&self, inserted_at: Timestamp) {
        let window = self.windows.get(inserted_at.0.div_euclid(WINDOW_MICROS));
        window.into_iter().for_each(prefetch_value);
        window.and_then(|it| it.outcomes.last()).into_iter().for_each(prefetch_value);
    }

    /// The declared rate of outcomes, in billionths.
    pub(super) fn declared_rate(&self) -> u64 {
        self.chance
    }

    /// The declared impression rate, in billionths.
    pub(super) fn declared_impressions(&self) -> u64 {
        self.impression_chance
    }

    /// The first slice of a budget day.
    pub(super) fn first_slice(&self, day: BudgetDay) -> i64 {
        slice_of(day.start(&self.zone))
    }

    /// The budget day of a moment, with its slices.
    fn day_at(&self, at: Timestamp) -> (BudgetDay, i64, i64) {
        let number = slice_of(at);
        if let Some(day) = self.day
            && (day.1..day.2).contains(&number)
        {
            return day;
        }
        let day = BudgetDay::of(at, &self.zone);
        (day, slice_of(day.start(&self.zone)), slice_of(day.end(&self.zone)))
    }

    /// What an insertion at this price is expected to earn.
    fn expected_at(&self, price: Amount) -> i64 {
        match self.prices.only() {
            Some(_) => self.expected,
            None => self.config.expected_of(Micros(price.micros), price.nanos).0,
        }
    }

    /// What an insertion is expected to earn: by the price and the rates that it carries, and those of the ad
    /// group for what it does not carry. Also in billionths.
    pub(super) fn terms(&self, at: Timestamp, money: EventMoney) -> (Terms, f64) {
        let (price, config) = (self.prices.at(at).amount, &self.config);
        let of_ad_group = || {
            let nanos = price.micros as f64 * 1_000.0 + f64::from(price.nanos);
            let terms = Terms { expected: self.expected_at(price), price_nanos: None };
            (terms, nanos * rate_of(config))
        };
        if money.is_none() {
            return of_ad_group();
        }
        let impression_rate = money.impression_rate();
        // Where impressions are billed, no action is needed to earn the price.
        let action_rate = money.action_rate().filter(|_| config.billed == BilledEvent::Click);
        let own = money.price_nanos().map(|nanos| nanos.clamp(0, MAX_PRICE_NANOS));
        let is_own = own.is_some() || impression_rate.is_some() || action_rate.is_some();
        // A price of the ad group that does not fit is far above that of any event.
        let Some(price_nanos) = own.or_else(|| price.in_nanos()).filter(|_| is_own) else {
            return of_ad_group();
        };
        let impression_rate =
            impression_rate.unwrap_or_else(|| rate_in_billionths(config.impression_rate));
        let action_rate = action_rate.unwrap_or_else(|| rate_in_billionths(config.action_rate));
        let expected = expected_micros(price_nanos, impression_rate, action_rate);
        let [seen, acted] = [impression_rate, action_rate].map(|rate| f64::from(rate) / 1e9);
        let nanos = price_nanos as f64 * seen.min(1.0) * acted.min(1.0);
        (Terms { expected, price_nanos: Some(price_nanos) }, nanos)
    }

    /// What insertions of the ad group's own terms are expected to earn, times the probability that they have an
    /// outcome.
    pub(super) fn weighted_by_rate(&self, expected: i64) -> i64 {
        if expected == self.expected {
            return self.weighted;
        }
        times_rate(expected, rate_of(&self.config))
    }

    /// The declared probability that an insertion has an outcome, in billionths.
    fn chance(&self, terms: Terms) -> u64 {
        terms.own_rate().map_or(self.chance, Trials::billionths)
    }

    /// What an insertion is expected to earn, times the probability that it has an outcome.
    fn weighted(&self, terms: Terms) -> i64 {
        match terms.own_rate() {
            Some(rate) => times_rate(terms.expected, rate),
            None => self.weighted_by_rate(terms.expected),
        }
    }

    /// Whether an insertion of a moment can be added.
    pub(super) fn insertion_fits(&mut self, at: Timestamp, terms: Terms) -> bool {
        let window = self.windows.get_mut(at.0.div_euclid(WINDOW_MICROS));
        window.is_none_or(|window| window.expected.checked_add(terms.expected).is_some())
    }

    /// An insertion: one window changes.
    pub(super) fn insertion(&mut self, insertion: Insertion) -> Result<(), MoneyError> {
        let Insertion { at, terms, nanos, is_settled, placement, impression_rate } = insertion;
        let Terms { expected, .. } = terms;
        let (weighted, chance) = (self.weighted(terms), self.chance(terms));
        let (is_by_click, impression_chance) = (self.is_by_click(), self.impression_chance);
        let window = self.windows.entry(at.0.div_euclid(WINDOW_MICROS));
        window.factor = None;
        if is_settled {
            self.links.add(true);
        } else {
            window.expected = window.expected.checked_add(expected).ok_or(MoneyError::Overflow)?;
            window.weighted = window.weighted.saturating_add(weighted);
        }
        window.trials.insertions = window.trials.insertions.saturating_add(1);
        window.trials.declared = window.trials.declared.saturating_add(chance);
        window.declared = window.declared.saturating_add(expected);
        if is_by_click || placement != NO_PLACEMENT {
            let breakdown = window.breakdown.get_or_insert_with(Box::default);
            let impression = impression_rate.map_or(impression_chance, u64::from);
            breakdown.insertion(placement, chance, if is_by_click { impression } else { 0 });
            if is_settled {
                breakdown.outcome(placement);
            }
        }
        self.learned.pace.insertion();
        let factor = match placement {
            NO_PLACEMENT => self.rates.factor(),
            placement => self.rates.factor_in(placement),
        };
        let predicted = (nanos * factor).round() as i64;
        let interval = self.interval(at);
        interval.0 = interval.0.saturating_add(predicted);
        Ok(())
    }

    fn interval(&mut self, at: Timestamp) -> &mut (i64, i64) {
        while self.intervals.len() > KEPT_INTERVALS {
            let Some((number, sums)) = self.intervals.pop_oldest() else { break };
            let day = BudgetDay::of(interval_start(number), &self.zone);
            add_sums(self.predicted_days.entry(day).or_default(), sums);
            while self.predicted_days.len() > REPORTED_DAYS as usize {
                self.predicted_days.pop_first();
            }
        }
        self.intervals.entry(at.0.div_euclid(INTERVAL_MICROS))
    }

    /// Something that is paid for: actual spend grows by the price.
    pub(super) fn outcome(&mut self, outcome: &Outcome) -> Result<(), MoneyError> {
        let Outcome { at, inserted_at, logged_at, price, .. } = *outcome;
        self.add_spend(outcome)?;
        let interval = self.interval(inserted_at.unwrap_or(at));
        interval.1 = interval.1.saturating_add(price.in_nanos().unwrap_or(i64::MAX));
        self.settle(outcome);
        // What matters is when the spend is known, so the delay ends with the record in the log.
        let delay = inserted_at.map(|inserted_at| logged_at.0.saturating_sub(inserted_at.0));
        // What earlier insertions are billed by says nothing of the rate and the delays of those to come.
        let is_current = outcome.billed == self.config.billed && outcome.is_observed;
        if is_current && delay.is_none_or(|delay| self.is_learned_from(delay)) {
            self.count_outcome(outcome, delay);
        }
        Ok(())
    }

    /// Takes the insertion of an outcome out of its window, if it is known which one that is.
    fn settle(&mut self, outcome: &Outcome) {
        let price = match outcome.link {
            OutcomeLink::Unknown => return,
            OutcomeLink::Open { window, terms } => {
                let is_other = terms.own_rate().is_none() && self.is_of_other_event(window);
                let weighted = self.weighted(terms);
                if let Some(window) = self.windows.get_mut(window) {
                    let of_window = || times_rate(terms.expected, window.rate());
                    let weighted = if is_other { of_window() } else { weighted };
                    window.settle(terms.expected, weighted);
                    self.links.add(true);
                }
                return;
            }
            OutcomeLink::Closed(price) => Some(price),
            OutcomeLink::None => None,
        };
        let earlier = price.map_or(0, |price| self.expected_at(price));
        let weighted = self.weighted_by_rate(earlier);
        let Some(inserted_at) = outcome.inserted_at else { return self.links.add(false) };
        // If its window is closed, nothing of it is in flight.
        let Some(window) = self.windows.get_mut(inserted_at.0.div_euclid(WINDOW_MICROS)) else {
            return;
        };
        let expected = earlier.min(window.earlier);
        if expected > 0 {
            window.settle(expected, weighted.min(expected));
            window.earlier -= expected;
        }
        self.links.add(expected > 0);
    }

    /// Whether a delay is learned from. One beyond the horizon, and beyond half an hour, does not help to
    /// predict what is in flight. A sender with a wrong time zone in its `inserted_at` has such delays.
    pub(super) fn is_learned_from(&self, delay_micros: i64) -> bool {
        delay_micros <= covered_micros(self.config.horizon)
    }

    /// Actual spend of the budget day of a moment.
    pub(super) fn actual_at(&self, now: Timestamp) -> Micros {
        let (_, start, end) = self.day_at(now);
        Micros(self.spend.known_day(start, end))
    }

    /// The first day of which figures are reported.
    fn oldest_day(&self, now: Timestamp) -> BudgetDay {
        FirstDay::oldest(self.first_day, self.day_at(now).0, REPORTED_DAYS)
    }

    /// Actual spend of the last days and of the next two, by the current zone, oldest first. Also of days
    /// without spend: they may have had some by another zone, which may be two dates ahead. Empty if there is no
    /// spend at all. Without a day of which only a part is known.
    pub(super) fn days(&self, now: Timestamp) -> Vec<(BudgetDay, Micros)> {
        if self.spend.slices().next().is_none() {
            return Vec::new();
        }
        let days = self.oldest_day(now).0..=self.day_at(now).0.0.saturating_add(2);
        let of_day = |day| {
            let (start, end) = self.slices_of(day)?;
            Some((day, Micros(self.spend.between(start, end))))
        };
        days.map(BudgetDay).filter_map(of_day).collect()
    }

    /// [`days`](Self::days) with their currencies, and without spend those in which a day no longer counts.
    pub(super) fn days_in_currencies(&self, now: Timestamp) -> Vec<DaySpend> {
        let (days, today) = (self.days(now), self.day_at(now).0);
        self.currencies.of_days(&days, today, self.config.currency)
    }

    /// The slices of a day, if all of them are kept.
    fn slices_of(&self, day: BudgetDay) -> Option<(i64, i64)> {
        let (start, end) = FirstDay::range(self.first_day, day, &self.zone);
        let (start, end) = (slice_of(start), slice_of(end));
        self.spend.has_all_from(start).then_some((start, end))
    }

    /// Removes windows that can have no more outcomes, and learns from those that came.
    pub(super) fn close(&mut self, now: Timestamp, pooled: &Pooled) {
        let day = self.day_at(now);
        self.day = Some(day);
        self.spend.of_day(day.1, day.2);
        let longest = self.survival.longest_micros().max(MATURE_MICROS);
        while let Some(number) = self.windows.oldest() {
            if age_of(number, now) < longest {
                break;
            }
            let window = self.windows.pop_oldest();
            if let Some((_, window)) = window.filter(|_| pooled.is_observed(number)) {
                self.learn_window(number, &window);
                for (bucket, times) in window.outcomes {
                    self.delays.add(bucket as usize, f64::from(times));
                }
            }
        }
    }

    pub(super) fn survival(&self) -> &Survival {
        &self.survival
    }

    pub(super) fn sample(&mut self, now: Timestamp) {
        let due =
            self.points.back().is_none_or(|last| now.0.saturating_sub(last.at.0) >= WINDOW_MICROS);
        if !due {
            return;
        }
        let point =
            SpendPoint { at: now, actual: self.actual_at(now), in_flight: self.in_flight(now) };
        let same = |p: &SpendPoint| (p.actual, p.in_flight) == (point.actual, point.in_flight);
        let last_two: Vec<_> = self.points.iter().rev().take(2).collect();
        if last_two.len() == 2 && last_two.iter().all(|p| same(p)) {
            // An ad group without events keeps two points for a flat line, not two hours of equal points.
            if let Some(last) = self.points.back_mut() {
                last.at = now;
            }
            return;
        }
        self.points.push_back(point);
        if self.points.len() > KEPT_POINTS {
            self.points.pop_front();
        }
    }
}

/// The probability that an insertion of an ad group has an outcome.
fn rate_of(config: &AdGroupConfig) -> f64 {
    (config.impression_rate * config.action_rate).clamp(0.0, 1.0)
}

/// The price of one.
pub(super) fn price_of(config: &AdGroupConfig) -> Amount {
    Amount { micros: config.price.0, nanos: config.price_nanos.min(999) }
}
