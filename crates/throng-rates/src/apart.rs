//! Rates of an ad group apart: of impressions where clicks are billed, and of its placements. Besides the rate of
//! billed outcomes of all its insertions, which is a [`Calibration`].
//!
//! Impressions come soon, and the delay of those that are not billed is not learned: a window's insertions count as
//! trials from [`SEEN_AFTER`] on. Those from before the first impression do not count, because then impressions
//! were not reported.

use std::collections::BTreeMap;
use std::time::Duration;

use throng_model::Timestamp;

use crate::breakdown::{Breakdown, MAX_PLACEMENTS_OF_ONE};
use crate::calibration::{Calibration, Evidence, Trials};
use crate::fading::StoredCounts;
use crate::levels::InPlacement;
use crate::placements::{NO_PLACEMENT, OTHER_PLACEMENT};

/// Insertions of this age have all their impressions.
const SEEN_AFTER: Duration = Duration::from_secs(15 * 60);

/// What is known of a placement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct InOne {
    outcomes: Calibration,
    impressions: Calibration,
}

impl InOne {
    fn merge(&mut self, other: &Self) {
        self.outcomes.merge(&other.outcomes);
        self.impressions.merge(&other.impressions);
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApartRates {
    impressions: Calibration,
    /// When the first insertion of which an impression was reported was made.
    seen_since: Option<Timestamp>,
    placements: BTreeMap<u16, InOne>,
}

/// Numbers of the stored form: of impressions, and of a placement.
const CALIBRATION: usize = 9;
const NUMBERS: usize = 2 + CALIBRATION;
const PLACEMENT_NUMBERS: usize = 1 + 2 * CALIBRATION;

impl ApartRates {
    /// An impression of an insertion that was made at a moment is reported.
    pub fn reported(&mut self, made: Timestamp) {
        self.seen_since.get_or_insert(made);
    }

    /// Adds insertions of a moment that have all their outcomes.
    pub fn add(&mut self, at: Timestamp, trials: Trials, breakdown: &Breakdown) {
        let is_seen = counts_impressions(self.seen_since, at, breakdown);
        if is_seen && trials.insertions > 0 {
            self.impressions.add(at, breakdown.impressions.of(trials.insertions));
        }
        for of in breakdown.of_insertions() {
            let known = self.placements.entry(of.placement).or_default();
            known.outcomes.add(at, of.trials);
            if is_seen {
                known.impressions.add(at, of.impressions.of(of.trials.insertions));
            }
        }
        if self.placements.len() > MAX_PLACEMENTS_OF_ONE {
            let trials = |known: &InOne| known.outcomes.evidence(at).trials();
            let gone = smallest(self.placements.iter().map(|(of, known)| (*of, trials(known))));
            self.merge_placements(&gone);
        }
    }

    /// Adds an outcome of an insertion whose window was added without it.
    pub fn late_outcome(&mut self, made: Timestamp, placement: u16) {
        if let Some(known) = self.placements.get_mut(&placement) {
            known.outcomes.add(made, Trials { outcomes: 1, ..Trials::default() });
        }
    }

    /// Adds an impression of an insertion whose window was added without it.
    pub fn late_impression(&mut self, made: Timestamp, placement: u16) {
        let impression = Trials { outcomes: 1, ..Trials::default() };
        if self.seen_since.is_some_and(|since| since <= made) {
            self.impressions.add(made, impression);
            if let Some(known) = self.placements.get_mut(&placement) {
                known.impressions.add(made, impression);
            }
        }
    }

    /// Counts placements, which are ascending, as `other`.
    pub fn merge_placements(&mut self, gone: &[u16]) {
        for placement in gone {
            if let Some(known) = self.placements.remove(placement) {
                self.placements.entry(OTHER_PLACEMENT).or_default().merge(&known);
            }
        }
    }

    /// Nothing is known of placements, whose numbers are no longer valid.
    pub fn without_placements(&self) -> Self {
        Self { placements: BTreeMap::new(), ..*self }
    }

    /// What is known at a moment, to add open windows to.
    pub fn at(&self, now: Timestamp) -> ApartEvidence {
        let placements = self.placements.iter().map(|(placement, known)| InPlacement {
            placement: *placement,
            outcomes: known.outcomes.evidence(now),
            impressions: known.impressions.evidence(now),
        });
        ApartEvidence {
            seen_since: self.seen_since,
            impressions: self.impressions.evidence(now),
            placements: placements.collect(),
        }
    }

    /// The form to store: numbers, none if nothing is known.
    pub fn stored(&self) -> Vec<i64> {
        if *self == Self::default() {
            return Vec::new();
        }
        let since = self.seen_since;
        let mut numbers = vec![i64::from(since.is_some()), since.map_or(0, |since| since.0)];
        let mut add = |calibration: &Calibration| {
            for StoredCounts { step, trials, successes } in calibration.stored() {
                numbers.extend([step, trials.cast_signed(), successes.cast_signed()]);
            }
        };
        add(&self.impressions);
        for known in self.placements.values() {
            add(&known.outcomes);
            add(&known.impressions);
        }
        // After the others, so that all numbers of a kind are together.
        numbers.extend(self.placements.keys().map(|placement| i64::from(*placement)));
        numbers
    }

    /// What was stored; `None` if the numbers are not that.
    pub fn of_stored(numbers: &[i64]) -> Option<Self> {
        if numbers.is_empty() {
            return Some(Self::default());
        }
        let count = numbers.len().checked_sub(NUMBERS)?;
        if !count.is_multiple_of(PLACEMENT_NUMBERS) {
            return None;
        }
        let (counts, names) =
            numbers.split_at_checked(numbers.len() - count / PLACEMENT_NUMBERS)?;
        let ([is_seen, since], counts) = counts.split_first_chunk::<2>()?;
        let (counts, []) = counts.as_chunks::<CALIBRATION>() else { return None };
        let (impressions, rest) = counts.split_first()?;
        let (pairs, []) = rest.as_chunks::<2>() else { return None };
        let placements: Option<BTreeMap<u16, InOne>> = names
            .iter()
            .zip(pairs)
            .map(|(placement, [outcomes, impressions])| {
                let placement = u16::try_from(*placement).ok().filter(|it| *it != NO_PLACEMENT)?;
                let (outcomes, impressions) = (calibration(outcomes), calibration(impressions));
                Some((placement, InOne { outcomes, impressions }))
            })
            .collect();
        let placements = placements?;
        let is_valid = names.is_sorted_by(|a, b| a < b)
            && names.len() == pairs.len()
            && names.len() <= MAX_PLACEMENTS_OF_ONE;
        is_valid.then(|| Self {
            impressions: calibration(impressions),
            seen_since: (*is_seen != 0).then_some(Timestamp(*since)),
            placements,
        })
    }

    /// The numbers of its placements.
    pub fn placements(&self) -> impl Iterator<Item = u16> {
        self.placements.keys().copied()
    }
}

/// Whether a window's insertions are trials of impressions: not if an earlier version, which does not count
/// impressions, has counted the insertions.
fn counts_impressions(since: Option<Timestamp>, at: Timestamp, breakdown: &Breakdown) -> bool {
    since.is_some_and(|since| since <= at) && breakdown.impressions.declared > 0
}

fn calibration(numbers: &[i64; CALIBRATION]) -> Calibration {
    let counts = |place: usize| StoredCounts {
        step: numbers[place],
        trials: numbers[place + 1].cast_unsigned(),
        successes: numbers[place + 2].cast_unsigned(),
    };
    Calibration::of_stored([counts(0), counts(3), counts(6)])
}

/// What is known at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ApartEvidence {
    seen_since: Option<Timestamp>,
    impressions: Evidence,
    placements: Vec<InPlacement>,
}

impl ApartEvidence {
    /// Adds insertions that are open: when they were made, how old they are, and the share of billed outcomes
    /// that come later.
    pub fn add_open(
        &mut self,
        at: Timestamp,
        age: Duration,
        trials: Trials,
        breakdown: &Breakdown,
        later: f64,
    ) {
        let is_seen = counts_impressions(self.seen_since, at, breakdown) && age >= SEEN_AFTER;
        if is_seen {
            self.impressions.add_open(breakdown.impressions.of(trials.insertions), 0.0);
        }
        for of in breakdown.of_insertions() {
            let place = self.placements.binary_search_by_key(&of.placement, |it| it.placement);
            let place = place.unwrap_or_else(|place| {
                let new = InPlacement { placement: of.placement, ..InPlacement::default() };
                self.placements.insert(place, new);
                place
            });
            let known = &mut self.placements[place];
            known.outcomes.add_open(of.trials, later);
            if is_seen {
                known.impressions.add_open(of.impressions.of(of.trials.insertions), 0.0);
            }
        }
    }

    /// Impressions, and what is known by placement, of at most 64 placements. An ad group with fewer impressions than
    /// clicks does not report them: then nothing is known of impressions.
    pub fn finish(mut self, clicks: &Evidence) -> (Evidence, Vec<InPlacement>) {
        if self.impressions.successes() < clicks.successes().max(1.0) {
            self.impressions = Evidence::default();
            self.placements.iter_mut().for_each(|place| place.impressions = Evidence::default());
        }
        merge_smallest(&mut self.placements);
        (self.impressions, self.placements)
    }
}

/// Of placements with their trials, of which there are too many, those with the fewest, ascending: so many that the
/// rest and `other` are as many as are kept.
fn smallest(placements: impl Iterator<Item = (u16, f64)>) -> Vec<u16> {
    let named = placements.filter(|(placement, _)| *placement != OTHER_PLACEMENT);
    let mut named: Vec<(u16, f64)> = named.collect();
    named.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let gone = named.iter().skip(MAX_PLACEMENTS_OF_ONE - 1);
    let mut gone: Vec<u16> = gone.map(|(placement, _)| *placement).collect();
    gone.sort_unstable();
    gone
}

/// Counts the placements with the fewest insertions as `other` if there are too many, as with those of open windows:
/// each window has some of its own.
fn merge_smallest(placements: &mut Vec<InPlacement>) {
    if placements.len() <= MAX_PLACEMENTS_OF_ONE {
        return;
    }
    let gone = smallest(placements.iter().map(|of| (of.placement, of.outcomes.trials())));
    let mut other = InPlacement { placement: OTHER_PLACEMENT, ..InPlacement::default() };
    placements.retain(|of| {
        let is_kept = of.placement != OTHER_PLACEMENT && gone.binary_search(&of.placement).is_err();
        if !is_kept {
            other.outcomes.merge(&of.outcomes);
            other.impressions.merge(&of.impressions);
        }
        is_kept
    });
    // Its number is the lowest.
    placements.insert(0, other);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breakdown(placements: std::ops::Range<u16>) -> (Trials, Breakdown) {
        let mut breakdown = Breakdown::default();
        let mut trials = Trials::default();
        for placement in placements {
            trials.insertions += 1;
            breakdown.insertion(placement, 100_000_000, 500_000_000);
            breakdown.impression(placement);
            if placement % 2 == 0 {
                trials.outcomes += 1;
                breakdown.outcome(placement);
            }
        }
        (trials, breakdown)
    }

    #[test]
    fn what_is_stored_is_restored_and_nothing_else() {
        let mut rates = ApartRates::default();
        assert!(rates.stored().is_empty());
        rates.reported(Timestamp(5));
        for window in 0..9i64 {
            let (trials, breakdown) = breakdown(2..5);
            rates.add(Timestamp(window * 10_000_000), trials, &breakdown);
        }
        let numbers = rates.stored();
        assert_eq!(numbers.len(), NUMBERS + 3 * PLACEMENT_NUMBERS);
        assert_eq!(ApartRates::of_stored(&numbers).as_ref(), Some(&rates));
        for cut in 1..numbers.len() {
            assert_eq!(ApartRates::of_stored(&numbers[..cut]).filter(|it| *it == rates), None);
        }
        let mut twice = numbers.clone();
        let last = numbers.len() - 1;
        twice[last] = twice[last - 1];
        assert_eq!(ApartRates::of_stored(&twice), None);
        assert_eq!(rates.without_placements().placements().count(), 0);
    }

    #[test]
    fn few_placements_are_kept_and_none_is_lost() {
        let mut rates = ApartRates::default();
        for first in (2u16..400).step_by(20) {
            let (trials, breakdown) = breakdown(first..first + 20);
            rates.add(Timestamp(i64::from(first) * 10_000_000), trials, &breakdown);
        }
        assert_eq!(rates.placements.len(), MAX_PLACEMENTS_OF_ONE);
        let known = rates.at(Timestamp(4_000_000_000)).placements;
        let sum: f64 = known.iter().map(|place| place.outcomes.trials()).sum();
        assert!((360.0..=400.0).contains(&sum), "{sum} of 400, faded for an hour");
        rates.merge_placements(&[390, 391]);
        let merged = rates.at(Timestamp(4_000_000_000)).placements;
        assert_eq!(merged.len(), MAX_PLACEMENTS_OF_ONE - 2);
        let again: f64 = merged.iter().map(|place| place.outcomes.trials()).sum();
        assert!((again - sum).abs() < 0.01, "{again} and {sum}");
    }

    #[test]
    fn open_windows_have_no_more_placements_than_are_kept() {
        let mut open = ApartRates::default().at(Timestamp(0));
        for placements in [2..42, 42..82, 82..122, 82..122] {
            let (trials, breakdown) = breakdown(placements);
            open.add_open(Timestamp(0), Duration::ZERO, trials, &breakdown, 0.0);
        }
        let (_, placements) = open.finish(&Evidence::default());
        assert_eq!(placements.len(), MAX_PLACEMENTS_OF_ONE);
        assert!(placements.is_sorted_by(|a, b| a.placement < b.placement));
        let of = |number: u16| {
            let found = placements.iter().find(|of| of.placement == number);
            found.map(|of| of.outcomes.trials())
        };
        assert!((82..122).all(|number| of(number) == Some(2.0)), "those used most");
        assert_eq!([24, 25].map(of), [Some(1.0), None]);
        assert_eq!(of(OTHER_PLACEMENT), Some(80.0 - 23.0));
    }

    #[test]
    fn outcomes_without_insertions_say_nothing_of_a_placement() {
        let mut rates = ApartRates::default();
        // Another rate was declared between the insertions and their outcomes.
        let mut breakdown = Breakdown::default();
        (0..9).for_each(|_| breakdown.outcome(3));
        breakdown.insertion(2, 100_000_000, 0);
        let trials = Trials { insertions: 1, outcomes: 9, declared: 100_000_000 };
        rates.add(Timestamp(0), trials, &breakdown);
        assert_eq!(rates.placements().collect::<Vec<_>>(), [2]);
        let mut open = ApartRates::default().at(Timestamp(0));
        open.add_open(Timestamp(0), Duration::ZERO, trials, &breakdown, 0.0);
        let placements = open.finish(&Evidence::default()).1;
        assert_eq!(placements.iter().map(|of| of.placement).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn insertions_from_before_impressions_were_reported_do_not_count() {
        let mut rates = ApartRates::default();
        let (trials, breakdown) = breakdown(2..102);
        let clicks = Calibration::default().evidence(Timestamp(0));
        rates.add(Timestamp(0), trials, &Breakdown::default());
        rates.reported(Timestamp(10));
        rates.add(Timestamp(9), trials, &Breakdown::default());
        assert_eq!(rates.at(Timestamp(20)).finish(&clicks).0, Evidence::default());
        rates.add(Timestamp(10), trials, &breakdown);
        let (seen, _) = rates.at(Timestamp(20)).finish(&clicks);
        assert_eq!((seen.trials(), seen.successes()), (100.0, 100.0));
        // Open ones count once they are old enough.
        for (age, insertions) in [(0, 100.0), (899, 100.0), (900, 200.0)] {
            let mut open = rates.at(Timestamp(20));
            let age = Duration::from_secs(age);
            open.add_open(Timestamp(20), age, trials, &breakdown, 0.5);
            assert_eq!(open.finish(&clicks).0.trials(), insertions);
        }
        // Fewer impressions than clicks.
        let mut more = Evidence::default();
        more.add_open(Trials { insertions: 300, outcomes: 101, declared: 1 }, 0.0);
        assert_eq!(rates.at(Timestamp(20)).finish(&more).0, Evidence::default());
    }
}
