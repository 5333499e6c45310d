//! What an ad group will probably spend, whether it is open, and at which share of requests it is shown.

use std::time::Duration;

use throng_feed::PassThroughRate;
use throng_model::{Micros, Pacing, Timestamp};
use throng_rates::{DayMoment, Outstanding, PacingInput, closing_deviations};

use crate::engine::spend::SLICE_MICROS;

use super::{Account, WINDOW_MICROS, age_of};

/// What an insertion earns is the mean of these windows: five minutes.
const NEWEST_WINDOWS: usize = 30;

/// The figures of an ad group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Spent today.
    pub(crate) actual: Micros,
    /// What inserted ads will probably still earn.
    pub(crate) in_flight: Micros,
    /// What is left free for chance, with prediction.
    pub(crate) margin: Option<Micros>,
    /// Whether it may be shown.
    pub(crate) open: bool,
    /// At which share of requests.
    pub(crate) pass_through_rate: PassThroughRate,
}

impl Default for Figures {
    /// Those of an ad group without events.
    fn default() -> Self {
        let (actual, in_flight, pass_through_rate) = (Micros(0), Micros(0), PassThroughRate::ALL);
        Self { actual, in_flight, margin: None, open: true, pass_through_rate }
    }
}

impl Account {
    /// Expected spend that is still to come. Windows in the future (clocks differ) count in full.
    pub(in crate::engine) fn in_flight(&self, now: Timestamp) -> Micros {
        Micros(self.outstanding(now).mean.round() as i64)
    }

    /// The same with its variance, in micros.
    fn outstanding(&self, now: Timestamp) -> Outstanding {
        // Of insertions that are not known to have an outcome, a larger share will have one than of all
        // insertions of that age: those that are known to have one, named × rate × (1 − later), are left out.
        let named = self.links.share();
        let price = self.config.price.0 as f64;
        let mut out = Outstanding::default();
        for (number, window) in self.windows.iter().rev() {
            let age = age_of(number, now).saturating_sub(WINDOW_MICROS / 2);
            let later = self.survival.at(age);
            let is_other = self.is_of_other_event(number);
            let factor = if is_other { 1.0 } else { self.factor_of(window) };
            let declared = window.rate();
            let rate = (declared * factor).min(1.0);
            // Of low prices and rates what is weighted rounds to zero; the learned rate counts all the same.
            let scale = if declared * factor > 1.0 { 1.0 / declared } else { factor };
            let still = if named <= 0.0 || later <= 0.0 {
                later
            } else {
                let open = 1.0 - named * rate * (1.0 - later);
                (later / open.max(f64::MIN_POSITIVE)).min(1.0)
            };
            let mean = window.expected as f64 * scale * still;
            out.add(mean, rate * still, window.price().unwrap_or(price));
        }
        out
    }

    /// Learns from the traffic since the last call, and computes the pass-through rate. Call it about once a second.
    pub(in crate::engine) fn pace(&mut self, now: Timestamp) {
        self.update_factors();
        let (moment, figures) = (self.moment(now), self.figures(now));
        let since = self.learned.pace.tick(now, moment, self.config.pacing);
        if !figures.open {
            return self.learned.pace.close();
        }
        // With a plan spend in flight counts also without prediction: the plan would be exceeded before it is known.
        let is_counted = self.config.prediction || self.config.pacing == Pacing::Even;
        let in_flight = if is_counted { figures.in_flight.0 } else { 0 };
        let situation = PacingInput {
            budget: self.config.daily_budget.0 as f64,
            committed: figures.actual.0 as f64 + in_flight as f64,
            margin: figures.margin.map_or(0.0, |margin| margin.0 as f64),
            per_sec: None,
        };
        let earns = self.mean_expected();
        self.learned.pace.decide(now, since, moment, situation, earns);
    }

    /// What one of the newest insertions is expected to earn, in micros.
    fn mean_expected(&self) -> f64 {
        let newest = self.windows.iter().rev().take(NEWEST_WINDOWS);
        let (expected, insertions) =
            newest.fold((0.0, 0.0), |(expected, insertions), (_, window)| {
                let declared = window.declared as f64;
                let expected = expected + declared * self.factor_of(window);
                (expected, insertions + window.trials.insertions as f64)
            });
        if insertions > 0.0 {
            expected / insertions
        } else {
            self.expected as f64 * self.rates.factor()
        }
    }

    fn moment(&self, now: Timestamp) -> DayMoment {
        let (day, start, end) = self.day_at(now);
        let (start, end) = (start.saturating_mul(SLICE_MICROS), end.saturating_mul(SLICE_MICROS));
        let length = end.saturating_sub(start).max(1);
        let part = now.0.saturating_sub(start) as f64 / length as f64;
        DayMoment { day: day.0, part, length: Duration::from_micros(length.unsigned_abs()) }
    }

    /// What the ad group has spent and will spend, and whether it is open.
    pub(in crate::engine) fn figures(&self, now: Timestamp) -> Figures {
        let (actual, out) = (self.actual_at(now), self.outstanding(now));
        let in_flight = Micros(out.mean.round() as i64);
        let margin = self.config.prediction.then(|| {
            let dispersion = self.learned.dispersion.factor(now);
            let deviation =
                out.deviation(self.rates.outcomes.as_ref().map(|rate| &rate.rate), dispersion);
            Micros((closing_deviations(self.moment(now).left()) * deviation) as i64)
        });
        let coming = margin.map_or(0, |margin| in_flight.0.saturating_add(margin.0));
        let open = actual.0.saturating_add(coming) < self.config.daily_budget.0;
        let pass_through_rate = if open { self.learned.pace.rate() } else { PassThroughRate::ALL };
        Figures { actual, in_flight, margin, open, pass_through_rate }
    }
}
