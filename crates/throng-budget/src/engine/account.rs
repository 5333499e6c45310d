//! One ad group's money: actual spend by day, windows of expected spend, and what is learned.

use std::collections::{BTreeMap, VecDeque};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use throng_model::{BudgetDay, Micros, MoneyError, Timestamp};

use crate::AdGroupConfig;

use super::survival::{BUCKET_SECS, BUCKETS, Delays, Survival, bucket_of};
use super::timeline::Timeline;

/// The width of a tumbling window.
pub const WINDOW_SECS: i64 = 10;
pub(super) const WINDOW_MICROS: i64 = WINDOW_SECS * 1_000_000;
pub(super) const INTERVAL_MICROS: i64 = 180_000_000;
/// Outcomes of a window are learned from when it is this old: earlier, the quick ones would be
/// overrepresented.
const MATURE_MICROS: i64 = 15 * 60 * 1_000_000;
/// Days of actual spend that are kept.
const KEPT_DAYS: usize = 8;
const KEPT_INTERVALS: usize = 480;
const KEPT_POINTS: usize = 720;

/// How long ago a window began. No time and no number makes it overflow.
pub(super) fn age_of(number: i64, now: Timestamp) -> i64 {
    now.0.saturating_sub(number.saturating_mul(WINDOW_MICROS))
}

/// Expected spend of the ads inserted in ten seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Window {
    pub(super) expected: i64,
    /// Outcomes so far as (delay bucket, count).
    pub(super) outcomes: Vec<(u32, u32)>,
}

/// What the ads inserted within three minutes were expected to earn, and what they have earned.
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
    /// The day of the newest event, with its bounds: finding a day costs more than all the rest.
    day: Option<(BudgetDay, Timestamp, Timestamp)>,
    pub(super) actual: BTreeMap<BudgetDay, i64>,
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
            config,
            day: None,
            actual: BTreeMap::new(),
            windows: Timeline::default(),
            delays: Delays::default(),
            intervals: Timeline::default(),
            points: VecDeque::new(),
        }
    }

    /// Takes a changed configuration and keeps the money.
    pub(super) fn configure(&mut self, config: AdGroupConfig) {
        if config.zone != self.config.zone {
            self.zone = config.zone.rules();
            self.day = None;
        }
        self.expected = config.expected().0;
        self.config = config;
    }

    fn day_of(&mut self, at: Timestamp) -> BudgetDay {
        if let Some((day, start, end)) = self.day
            && (start..end).contains(&at)
        {
            return day;
        }
        let day = BudgetDay::of(at, &self.zone);
        self.day = Some((day, day.start(&self.zone), day.end(&self.zone)));
        day
    }

    /// An insertion: one window changes.
    pub(super) fn insertion(&mut self, at: Timestamp) -> Result<(), MoneyError> {
        let expected = self.expected;
        let window = self.windows.entry(at.0.div_euclid(WINDOW_MICROS));
        window.expected = window.expected.checked_add(expected).ok_or(MoneyError::Overflow)?;
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
    pub(super) fn outcome(
        &mut self,
        at: Timestamp,
        inserted_at: Option<Timestamp>,
        logged_at: Timestamp,
    ) -> Result<(), MoneyError> {
        let price = self.config.price.0;
        let day = self.day_of(at);
        let actual = self.actual.entry(day).or_default();
        *actual = actual.checked_add(price).ok_or(MoneyError::Overflow)?;
        while self.actual.len() > KEPT_DAYS {
            self.actual.pop_first();
        }
        let interval = self.interval(inserted_at.unwrap_or(at));
        interval.1 = interval.1.saturating_add(price);
        if let Some(inserted_at) = inserted_at {
            // What counts is when the spend is known, so the delay ends with the log.
            let bucket = bucket_of(logged_at.0.saturating_sub(inserted_at.0));
            let number = inserted_at.0.div_euclid(WINDOW_MICROS);
            match self.windows.get_mut(number) {
                Some(window) => count(&mut window.outcomes, bucket as u32),
                // The window is gone: it was learned from without this one.
                None => self.delays.add(bucket, 1.0),
            }
        }
        Ok(())
    }

    pub(super) fn actual_at(&self, now: Timestamp) -> Micros {
        let day = match self.day {
            Some((day, start, end)) if (start..end).contains(&now) => day,
            _ => BudgetDay::of(now, &self.zone),
        };
        Micros(self.actual.get(&day).copied().unwrap_or(0))
    }

    /// Expected spend that is still to come. Windows in the future (clocks differ) count in full.
    pub(super) fn in_flight(&self, now: Timestamp) -> Micros {
        let sum: f64 = self
            .windows
            .iter()
            .rev()
            .map(|(number, window)| {
                let age = age_of(number, now).saturating_sub(WINDOW_MICROS / 2);
                window.expected as f64 * self.survival.at(age)
            })
            .sum();
        Micros(sum.round() as i64)
    }

    /// Lets go of windows that can have nothing more to come, and learns from their outcomes.
    pub(super) fn close(&mut self, now: Timestamp) {
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
            // A silent ad group keeps one long flat line, not two hours of equal points.
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

fn count(outcomes: &mut Vec<(u32, u32)>, bucket: u32) {
    const { assert!(BUCKETS as i64 * BUCKET_SECS >= 1_800) };
    // Outcomes of one window come with rising delays: the bucket is among the last ones.
    match outcomes.iter_mut().rev().find(|(b, _)| *b == bucket) {
        Some((_, times)) => *times = times.saturating_add(1),
        None => outcomes.push((bucket, 1)),
    }
}
