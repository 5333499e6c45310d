//! The rates of an ad group: what is counted for them, and what was learned.

use std::time::Duration;

use throng_model::Timestamp;
use throng_rates::{
    ApartRates, Calibration, Dispersion, LearnedRate, LearnedRates, NO_PLACEMENT, Observed, Pooled,
    Rate, Trials, Window, action_rate,
};

use crate::BilledEvent;
use throng_rates::survival::{Delays, Survival, bucket_of};

use super::{Account, Outcome, WINDOW_MICROS, age_of, rate_of};

/// A rate of an ad group.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RateFigures {
    /// As the spec declares it.
    pub declared: f64,
    /// As it is learned; `None`: the declared one counts.
    pub learned: Option<Rate>,
    /// The trials of the ad group itself that it is learned from; older ones count less.
    pub trials: f64,
}

/// The rates of an ad group in a placement.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacementFigures {
    /// The placement.
    pub placement: String,
    /// The share of insertions that are seen.
    pub impression: RateFigures,
    /// The share of impressions that are clicked, where clicks are billed.
    pub action: Option<RateFigures>,
}

/// The rates of an ad group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AdGroupRates {
    /// The share of insertions that are seen.
    pub impression: RateFigures,
    /// The share of impressions that are clicked, where clicks are billed.
    pub action: Option<RateFigures>,
    /// The same by placement, as far as insertions have one.
    pub placements: Vec<PlacementFigures>,
}

impl Account {
    /// Whether clicks are billed, so that impressions are counted apart.
    pub(in crate::engine) fn is_by_click(&self) -> bool {
        self.config.billed == BilledEvent::Click
    }

    /// What the earlier rate was wrong by says nothing of another one: a rate that is corrected to the learned
    /// one would be corrected twice, and too little would be in flight.
    pub(in crate::engine) fn forget_rates(&mut self) {
        self.learned.calibration = Calibration::default();
        self.learned.dispersion = Dispersion::default();
        self.apart = ApartRates::default();
        self.rates = LearnedRates::default();
        for window in self.windows.values_mut() {
            window.trials = Trials::default();
            window.declared = 0;
            window.breakdown = None;
            window.factor = None;
        }
    }

    /// The delays of impressions say nothing of those of clicks.
    pub(in crate::engine) fn forget_delays(&mut self) {
        self.delays = Delays::default();
        self.windows.values_mut().for_each(|window| window.outcomes.clear());
    }

    /// Whether the insertions of a window are billed by another event than those of now, so that the learned rates
    /// are not theirs: the declared ones count. The window in which the event was changed is such a window.
    pub(super) fn is_of_other_event(&self, number: i64) -> bool {
        let begin = Timestamp(number.saturating_mul(WINDOW_MICROS));
        self.prices.only().is_none() && self.prices.at(begin).billed != self.config.billed
    }

    /// Learns from an outcome: of an insertion of a moment, with the bucket of its delay if that is known.
    pub(super) fn count_outcome(&mut self, outcome: &Outcome, delay: Option<i64>) {
        let made = outcome.inserted_at.unwrap_or(outcome.at.min(outcome.logged_at));
        let bucket = delay.map(bucket_of);
        if let Some(window) = self.windows.get_mut(made.0.div_euclid(WINDOW_MICROS)) {
            window.trials.outcomes = window.trials.outcomes.saturating_add(1);
            if outcome.placement != NO_PLACEMENT {
                window.breakdown.get_or_insert_with(Box::default).outcome(outcome.placement);
            }
            if let Some(bucket) = bucket {
                window.add_delay(bucket as u32);
            }
            return;
        }
        // The window was closed, and learned from without this outcome.
        let late = Trials { outcomes: 1, ..Trials::default() };
        self.learned.calibration.add(made, late);
        self.apart.late_outcome(made, outcome.placement);
        if let Some(bucket) = bucket {
            self.delays.add(bucket, 1.0);
        }
    }

    /// Learns from an impression that is not billed, of an insertion of a moment.
    pub(in crate::engine) fn impression(&mut self, made: Timestamp, placement: u16) {
        let number = made.0.div_euclid(WINDOW_MICROS);
        self.apart.reported(Timestamp(number.saturating_mul(WINDOW_MICROS)));
        match self.windows.get_mut(number) {
            Some(window) => {
                window.breakdown.get_or_insert_with(Box::default).impression(placement);
            }
            None => self.apart.late_impression(made, placement),
        }
    }

    /// Learns from a window that has all its outcomes.
    pub(super) fn learn_window(&mut self, number: i64, window: &Window) {
        let at = Timestamp(number.saturating_mul(WINDOW_MICROS));
        self.learned.add(at, window.trials);
        if let Some(breakdown) = window.breakdown.as_deref() {
            self.apart.add(at, window.trials, breakdown);
        }
    }

    /// Takes the newest curve.
    pub(in crate::engine) fn learn_delays(&mut self, pooled: Option<&[f64]>) {
        self.survival = Survival::learned(self.config.horizon, &self.delays, pooled);
    }

    /// What is known of rates, by what is due by the curve.
    pub(in crate::engine) fn observed(&self, now: Timestamp, pooled: &Pooled) -> Observed {
        let mut outcomes = self.learned.calibration.evidence(now);
        let mut apart = self.apart.at(now);
        let known = self.windows.iter().filter(|(_, window)| window.trials.insertions > 0);
        for (number, window) in known.filter(|(number, _)| pooled.is_observed(*number)) {
            let age = age_of(number, now).saturating_sub(WINDOW_MICROS / 2);
            let later = self.survival.at(age);
            outcomes.add_open(window.trials, later);
            if let Some(breakdown) = window.breakdown.as_deref() {
                let at = Timestamp(number.saturating_mul(WINDOW_MICROS));
                let age = Duration::from_micros(age.max(0).unsigned_abs());
                apart.add_open(at, age, window.trials, breakdown, later);
            }
        }
        let (impressions, placements) = apart.finish(&outcomes);
        Observed {
            campaign: self.campaign,
            is_by_click: self.is_by_click(),
            declared: rate_of(&self.config),
            declared_impressions: self.config.impression_rate,
            outcomes,
            impressions,
            placements,
        }
    }

    /// Takes what was learned.
    pub(in crate::engine) fn set_rates(&mut self, rates: LearnedRates) {
        self.rates = if self.config.learns_rates { rates } else { LearnedRates::default() };
        self.windows.values_mut().for_each(|window| window.factor = None);
    }

    /// Computes the factors of windows that have changed. They are read several times a second of every window, and
    /// only the newest ones change.
    pub(super) fn update_factors(&mut self) {
        for window in self.windows.values_mut().filter(|window| window.factor.is_none()) {
            window.factor = Some(mean_factor(&self.rates, window));
        }
    }

    /// The learned rate of a window's insertions as a multiple of the declared one: the mean of their placements.
    pub(super) fn factor_of(&self, window: &Window) -> f64 {
        window.factor.unwrap_or_else(|| mean_factor(&self.rates, window))
    }

    /// Counts placements as `other`.
    pub(in crate::engine) fn merge_placements(&mut self, gone: &[u16]) {
        self.apart.merge_placements(gone);
        for window in self.windows.values_mut() {
            window.factor = None;
            if let Some(breakdown) = window.breakdown.as_deref_mut() {
                breakdown.merge_placements(gone);
            }
        }
        // Until the rates are learned the next time.
        self.rates.placements.retain(|rate| gone.binary_search(&rate.placement).is_err());
    }

    /// Whether all placements are among these.
    pub(in crate::engine) fn has_only_placements(&self, is_known: impl Fn(u16) -> bool) -> bool {
        let breakdowns = self.windows.iter().filter_map(|(_, it)| it.breakdown.as_deref());
        let in_windows = breakdowns.flat_map(|it| it.placements.iter().map(|of| of.placement));
        in_windows.chain(self.apart.placements()).all(is_known)
    }

    /// The rates for people, with the names of placements.
    pub(in crate::engine) fn rate_figures<'a>(
        &self,
        name: impl Fn(u16) -> Option<&'a str>,
    ) -> AdGroupRates {
        let (impression, action) = self.figures_of(self.rates.outcomes, self.rates.impressions);
        let placements = self.rates.placements.iter().filter_map(|rate| {
            let (impression, action) = self.figures_of(Some(rate.outcomes), rate.impressions);
            let placement = name(rate.placement)?.to_owned();
            Some(PlacementFigures { placement, impression, action })
        });
        let mut placements: Vec<PlacementFigures> = placements.collect();
        placements.sort_by(|a, b| a.placement.cmp(&b.placement));
        AdGroupRates { impression, action, placements }
    }

    fn figures_of(
        &self,
        outcomes: Option<LearnedRate>,
        impressions: Option<LearnedRate>,
    ) -> (RateFigures, Option<RateFigures>) {
        let figures = |declared, learned: Option<LearnedRate>| RateFigures {
            declared,
            learned: learned.map(|learned| learned.rate),
            trials: learned.map_or(0.0, |learned| learned.trials),
        };
        if !self.is_by_click() {
            return (figures(rate_of(&self.config), outcomes), None);
        }
        let declared = self.config.impression_rate;
        let seen = impressions.map_or(declared, |rate| rate.rate.mean());
        let action = RateFigures {
            declared: self.config.action_rate,
            learned: outcomes.map(|rate| action_rate(&rate, impressions.as_ref(), declared)),
            trials: outcomes.map_or(0.0, |rate| rate.trials * seen),
        };
        (figures(declared, impressions), Some(action))
    }
}

/// The learned rate of the insertions of a window as a multiple of the declared one: the mean of their placements.
fn mean_factor(rates: &LearnedRates, window: &Window) -> f64 {
    let all = rates.factor();
    if rates.placements.is_empty() {
        return all;
    }
    let Some(breakdown) = window.breakdown.as_deref() else { return all };
    let (placed, weighted) =
        breakdown.placements.iter().fold((0.0, 0.0), |(placed, weighted), of| {
            let expected = of.trials.expected();
            (placed + expected, weighted + expected * rates.factor_in(of.placement))
        });
    let expected = window.trials.expected().max(placed);
    if expected > 0.0 { (weighted + (expected - placed) * all) / expected } else { all }
}

#[cfg(test)]
mod tests;
