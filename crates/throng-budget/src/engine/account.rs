//! One ad group: actual spend by day, windows of expected spend, and learned delays.

use std::collections::VecDeque;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use throng_model::{BudgetDay, Micros, MoneyError, Timestamp};

use crate::AdGroupConfig;

use super::prices::Prices;
use super::spend::{Amount, Spend, slice_of};
use super::survival::{Delays, MIN_CURVE_MICROS, Survival, bucket_of};
use super::timeline::Timeline;

/// The width of a tumbling window.
pub const WINDOW_SECS: i64 = 10;
pub(super) const WINDOW_MICROS: i64 = WINDOW_SECS * 1_000_000;
pub(super) const INTERVAL_MICROS: i64 = 180_000_000;
/// A window's outcomes are learned from at this age: earlier, those with short delays would be
/// overrepresented.
const MATURE_MICROS: i64 = 15 * 60 * 1_000_000;
/// Days whose spend is reported.
const REPORTED_DAYS: i32 = 8;
const KEPT_INTERVALS: usize = 480;
const KEPT_POINTS: usize = 720;

/// How long ago a window began. Saturates instead of overflowing.
pub(super) fn age_of(number: i64, now: Timestamp) -> i64 {
    now.0.saturating_sub(number.saturating_mul(WINDOW_MICROS))
}

/// Expected spend of the ads inserted in ten seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Window {
    pub(super) expected: i64,
    /// The part of it whose insertions have an `insertion_id`.
    pub(super) linked: i64,
    /// The part of that whose outcomes have come.
    pub(super) settled: i64,
    /// Outcomes so far as (delay bucket, count).
    pub(super) outcomes: Vec<(u32, u32)>,
}

/// What is known of the outcome of an insertion when it is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InsertionLink {
    /// It has no `insertion_id`, so no outcome can name it.
    None,
    /// Its outcome may name it.
    Linked,
    /// Its outcome has come before it.
    Settled,
}

/// Something that is paid for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// When it happened.
    pub(super) at: Timestamp,
    /// When its insertion was made, if the event has a plausible time for it.
    pub(super) inserted_at: Option<Timestamp>,
    /// The time of its record in the log.
    pub(super) logged_at: Timestamp,
    /// What is paid for it.
    pub(super) price: Amount,
    /// It has an `insertion_id`.
    pub(super) named: bool,
    /// The insertion that it names is known, and this is its first outcome.
    pub(super) settles: bool,
}

/// What ads that were inserted within three minutes were expected to earn, and what they have earned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// When it begins.
    pub start: Timestamp,
    /// Expected at the insertions.
    pub predicted: Micros,
    /// Earned so far by the same insertions.
    pub actual: Micros,
}

/// Spend at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendPoint {
    /// The moment.
    pub at: Timestamp,
    /// Actual spend of the day.
    pub actual: Micros,
    /// In-flight spend.
    pub in_flight: Micros,
}

/// The recent past of an ad group, for charts; oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// About every ten seconds, for two hours.
    pub points: Vec<SpendPoint>,
    /// Every three minutes, for a day.
    pub intervals: Vec<Interval>,
}

#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) config: AdGroupConfig,
    expected: i64,
    zone: TimeZone,
    /// The budget day of the newest event, with its slices: computing a day costs more than all the rest.
    day: Option<(BudgetDay, i64, i64)>,
    pub(super) spend: Spend,
    pub(super) prices: Prices,
    /// Whether outcomes name their insertions: then in-flight spend is that of insertions without an
    /// outcome.
    pub(super) settles: bool,
    pub(super) windows: Timeline<Window>,
    pub(super) delays: Delays,
    pub(super) intervals: Timeline<(i64, i64)>,
    pub(super) points: VecDeque<SpendPoint>,
    survival: Survival,
}

impl Account {
    pub(super) fn new(config: AdGroupConfig) -> Self {
        Self {
            expected: config.expected().0,
            zone: config.zone.rules(),
            survival: Survival::step(config.horizon),
            prices: Prices::new(price_of(&config)),
            config,
            day: None,
            spend: Spend::default(),
            settles: false,
            windows: Timeline::default(),
            delays: Delays::default(),
            intervals: Timeline::default(),
            points: VecDeque::new(),
        }
    }

    /// Replaces the configuration and keeps the spend: what happened before `at` keeps its price.
    pub(super) fn configure(&mut self, config: AdGroupConfig, at: Timestamp) {
        if config.zone != self.config.zone {
            self.zone = config.zone.rules();
            self.day = None;
        }
        self.prices.change(price_of(&config), at);
        self.expected = config.expected().0;
        self.config = config;
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

    /// Whether an insertion of a moment can be added.
    pub(super) fn insertion_fits(&mut self, at: Timestamp) -> bool {
        let expected = self.expected_at(self.prices.at(at).amount);
        let window = self.windows.get_mut(at.0.div_euclid(WINDOW_MICROS));
        window.is_none_or(|window| window.expected.checked_add(expected).is_some())
    }

    /// An insertion: one window changes.
    pub(super) fn insertion(
        &mut self,
        at: Timestamp,
        link: InsertionLink,
    ) -> Result<(), MoneyError> {
        let expected = self.expected_at(self.prices.at(at).amount);
        let window = self.windows.entry(at.0.div_euclid(WINDOW_MICROS));
        window.expected = window.expected.checked_add(expected).ok_or(MoneyError::Overflow)?;
        if link != InsertionLink::None {
            window.linked += expected;
        }
        if link == InsertionLink::Settled {
            window.settled += expected;
            self.settles = true;
        }
        let interval = self.interval(at);
        interval.0 = interval.0.saturating_add(expected);
        Ok(())
    }

    fn interval(&mut self, at: Timestamp) -> &mut (i64, i64) {
        while self.intervals.len() > KEPT_INTERVALS {
            self.intervals.pop_oldest();
        }
        self.intervals.entry(at.0.div_euclid(INTERVAL_MICROS))
    }

    /// Something that is paid for: actual spend grows by the price.
    pub(super) fn outcome(&mut self, outcome: &Outcome) -> Result<(), MoneyError> {
        let Outcome { at, inserted_at, logged_at, price, .. } = *outcome;
        self.spend.add(at, price)?;
        let interval = self.interval(inserted_at.unwrap_or(at));
        interval.1 = interval.1.saturating_add(price.rounded());
        if !outcome.named || inserted_at.is_none() {
            // It is not known which insertion has its outcome now.
            self.settles = false;
        }
        if let Some(inserted_at) = inserted_at {
            // What matters is when the spend is known, so the delay ends with the record in the log.
            let delay = logged_at.0.saturating_sub(inserted_at.0);
            let (bucket, is_learned_from) = (bucket_of(delay), self.is_learned_from(delay));
            let number = inserted_at.0.div_euclid(WINDOW_MICROS);
            let expected = self.expected_at(price);
            match self.windows.get_mut(number) {
                Some(window) => {
                    if is_learned_from {
                        count(&mut window.outcomes, bucket as u32);
                    }
                    if outcome.settles {
                        window.settled = window.settled.saturating_add(expected).min(window.linked);
                        self.settles = true;
                    }
                }
                // The window was closed, and learned from without this outcome.
                None if is_learned_from => self.delays.add(bucket, 1.0),
                None => {}
            }
        }
        Ok(())
    }

    /// Whether a delay is learned from. One beyond the horizon, and beyond half an hour, does not help to
    /// predict what is in flight. A sender with a wrong time zone in its `inserted_at` has such delays.
    pub(super) fn is_learned_from(&self, delay_micros: i64) -> bool {
        let horizon = i64::try_from(self.config.horizon.as_micros()).unwrap_or(i64::MAX);
        delay_micros <= horizon.max(MIN_CURVE_MICROS)
    }

    /// Actual spend of the budget day of a moment.
    pub(super) fn actual_at(&self, now: Timestamp) -> Micros {
        let (_, start, end) = self.day_at(now);
        Micros(self.spend.known_day(start, end))
    }

    /// Actual spend of the last days and of the next one, by the current zone, oldest first. Also of days
    /// without spend: they may have had some by another zone. Empty if there is no spend at all.
    pub(super) fn days(&self, now: Timestamp) -> Vec<(BudgetDay, Micros)> {
        if self.spend.slices().next().is_none() {
            return Vec::new();
        }
        let (today, ..) = self.day_at(now);
        let oldest = today.0.saturating_sub(REPORTED_DAYS - 1);
        (oldest..=today.0.saturating_add(1))
            .map(BudgetDay)
            .map(|day| {
                let (start, end) = (day.start(&self.zone), day.end(&self.zone));
                (day, Micros(self.spend.between(slice_of(start), slice_of(end))))
            })
            .collect()
    }

    /// Expected spend that is still to come. Windows in the future (clocks differ) count in full.
    pub(super) fn in_flight(&self, now: Timestamp) -> Micros {
        let rate = (self.config.impression_rate * self.config.action_rate).clamp(0.0, 1.0);
        let sum: f64 = self
            .windows
            .iter()
            .rev()
            .map(|(number, window)| {
                let age = age_of(number, now).saturating_sub(WINDOW_MICROS / 2);
                let later = self.survival.at(age);
                if !self.settles || later <= 0.0 {
                    return window.expected as f64 * later;
                }
                // Of insertions that have no outcome yet, a larger share will have one than of all
                // insertions of that age: the ones with an outcome, rate × (1 − later), are left out of
                // the total.
                let still = later / (1.0 - rate * (1.0 - later)).max(f64::MIN_POSITIVE);
                let open = window.linked.saturating_sub(window.settled);
                let other = window.expected.saturating_sub(window.linked);
                other as f64 * later + open as f64 * still.min(1.0)
            })
            .sum();
        Micros(sum.round() as i64)
    }

    /// Removes windows that can have no more outcomes, and learns from those that came.
    pub(super) fn close(&mut self, now: Timestamp) {
        let day = self.day_at(now);
        self.day = Some(day);
        self.spend.of_day(day.1, day.2);
        let longest = self.survival.longest_micros().max(MATURE_MICROS);
        while let Some(number) = self.windows.oldest() {
            if age_of(number, now) < longest {
                break;
            }
            if let Some((_, window)) = self.windows.pop_oldest() {
                for (bucket, times) in window.outcomes {
                    self.delays.add(bucket as usize, f64::from(times));
                }
            }
        }
    }

    /// Takes the newest curve.
    pub(super) fn learn(&mut self, pooled: Option<&[f64]>) {
        self.survival = Survival::learned(self.config.horizon, &self.delays, pooled);
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

    pub(super) fn series(&self) -> Series {
        Series {
            points: self.points.iter().copied().collect(),
            intervals: self
                .intervals
                .iter()
                .map(|(number, (predicted, actual))| Interval {
                    start: Timestamp(number.saturating_mul(INTERVAL_MICROS)),
                    predicted: Micros(*predicted),
                    actual: Micros(*actual),
                })
                .collect(),
        }
    }
}

/// The price of one.
pub(super) fn price_of(config: &AdGroupConfig) -> Amount {
    Amount { micros: config.price.0, nanos: config.price_nanos.min(999) }
}

fn count(outcomes: &mut Vec<(u32, u32)>, bucket: u32) {
    // Outcomes of one window come with increasing delays: the bucket is among the last ones.
    match outcomes.iter_mut().rev().find(|(b, _)| *b == bucket) {
        Some((_, times)) => *times = times.saturating_add(1),
        None => outcomes.push((bucket, 1)),
    }
}
