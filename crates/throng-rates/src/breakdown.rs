//! The insertions of a window in more detail than [`Trials`]: impressions of ad groups that are paid by click, and
//! what is of each placement. Most windows need none of it.

use crate::calibration::Trials;
use crate::placements::{NO_PLACEMENT, OTHER_PLACEMENT};

/// The most placements of a window, and of an ad group; what is of others is counted as `other`.
pub(crate) const MAX_PLACEMENTS_OF_ONE: usize = 64;

/// How many insertions were seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Impressions {
    /// Impressions.
    pub seen: u64,
    /// The sum of the declared impression rates of the insertions, in billionths.
    pub declared: u64,
}

impl Impressions {
    /// As the trials of insertions.
    pub(crate) fn of(self, insertions: u64) -> Trials {
        Trials { insertions, outcomes: self.seen, declared: self.declared }
    }
}

/// The insertions of one placement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlacementTrials {
    /// The placement.
    pub placement: u16,
    /// Insertions and their billed outcomes, of those that name their insertion.
    pub trials: Trials,
    /// Of an ad group that is paid by click; those that name their insertion.
    pub impressions: Impressions,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breakdown {
    /// Of all insertions.
    pub impressions: Impressions,
    /// In the order in which they came; each once.
    pub placements: Vec<PlacementTrials>,
}

/// Numbers of the stored form, of impressions and of a placement.
const NUMBERS: usize = 2;
const PLACEMENT_NUMBERS: usize = 6;

impl Breakdown {
    /// Adds an insertion with the declared probabilities of a billed outcome and of an impression, in billionths.
    pub fn insertion(&mut self, placement: u16, chance: u64, impression: u64) {
        self.impressions.declared = self.impressions.declared.saturating_add(impression);
        let Some(of) = self.entry(placement) else { return };
        of.trials.insertions = of.trials.insertions.saturating_add(1);
        of.trials.declared = of.trials.declared.saturating_add(chance);
        of.impressions.declared = of.impressions.declared.saturating_add(impression);
    }

    /// Adds a billed outcome of an insertion in a placement.
    pub fn outcome(&mut self, placement: u16) {
        if let Some(of) = self.entry(placement) {
            of.trials.outcomes = of.trials.outcomes.saturating_add(1);
        }
    }

    /// Adds an impression of an insertion, of an ad group that is paid by click.
    pub fn impression(&mut self, placement: u16) {
        self.impressions.seen = self.impressions.seen.saturating_add(1);
        if let Some(of) = self.entry(placement) {
            of.impressions.seen = of.impressions.seen.saturating_add(1);
        }
    }

    /// The placements that have insertions. There are outcomes alone where the insertions are forgotten.
    pub(crate) fn of_insertions(&self) -> impl Iterator<Item = &PlacementTrials> {
        self.placements.iter().filter(|of| of.trials.insertions > 0)
    }

    /// What is of a placement; that of `other` if there are too many.
    fn entry(&mut self, placement: u16) -> Option<&mut PlacementTrials> {
        if placement == NO_PLACEMENT {
            return None;
        }
        let find = |placement: u16| self.placements.iter().position(|of| of.placement == placement);
        let (place, placement) = match find(placement) {
            Some(place) => (Some(place), placement),
            None if self.placements.len() + 1 < MAX_PLACEMENTS_OF_ONE => (None, placement),
            None => (find(OTHER_PLACEMENT), OTHER_PLACEMENT),
        };
        let place = place.unwrap_or_else(|| {
            self.placements.push(PlacementTrials { placement, ..PlacementTrials::default() });
            self.placements.len() - 1
        });
        self.placements.get_mut(place)
    }

    /// Counts placements, which are ascending, as `other`.
    pub fn merge_placements(&mut self, gone: &[u16]) {
        let is_gone = |of: &PlacementTrials| gone.binary_search(&of.placement).is_ok();
        if !self.placements.iter().any(is_gone) {
            return;
        }
        let (merged, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.placements).into_iter().partition(is_gone);
        self.placements = kept;
        for of in merged {
            let Some(other) = self.entry(OTHER_PLACEMENT) else { return };
            let sum = |to: &mut u64, from: u64| *to = to.saturating_add(from);
            sum(&mut other.trials.insertions, of.trials.insertions);
            sum(&mut other.trials.outcomes, of.trials.outcomes);
            sum(&mut other.trials.declared, of.trials.declared);
            sum(&mut other.impressions.seen, of.impressions.seen);
            sum(&mut other.impressions.declared, of.impressions.declared);
        }
    }

    /// The form to store.
    pub fn stored(&self) -> Vec<u64> {
        let mut numbers = vec![self.impressions.seen, self.impressions.declared];
        for PlacementTrials { placement, trials, impressions } in &self.placements {
            numbers.extend([
                (*placement).into(),
                trials.insertions,
                trials.outcomes,
                trials.declared,
                impressions.seen,
                impressions.declared,
            ]);
        }
        numbers
    }

    /// What was stored; `None` if the numbers are not that.
    pub fn of_stored(numbers: &[u64]) -> Option<Self> {
        let (first, rest) = numbers.split_first_chunk::<NUMBERS>()?;
        let (placements, rest) = rest.as_chunks::<PLACEMENT_NUMBERS>();
        if !rest.is_empty() || placements.len() > MAX_PLACEMENTS_OF_ONE {
            return None;
        }
        let mut breakdown = Self {
            impressions: Impressions { seen: first[0], declared: first[1] },
            placements: Vec::with_capacity(placements.len()),
        };
        for [placement, insertions, outcomes, expected, seen, declared] in
            placements.iter().copied()
        {
            let placement = u16::try_from(placement).ok().filter(|it| *it != NO_PLACEMENT)?;
            if breakdown.placements.iter().any(|of| of.placement == placement) {
                return None;
            }
            breakdown.placements.push(PlacementTrials {
                placement,
                trials: Trials { insertions, outcomes, declared: expected },
                impressions: Impressions { seen, declared },
            });
        }
        Some(breakdown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_too_many_placements_is_of_other() {
        let mut breakdown = Breakdown::default();
        for round in 0..3u64 {
            for placement in 2..200 {
                breakdown.insertion(placement, 1_000, 10_000);
                breakdown.impression(placement);
                (0..round).for_each(|_| breakdown.outcome(placement));
            }
        }
        breakdown.insertion(NO_PLACEMENT, 7, 9);
        assert_eq!(breakdown.placements.len(), MAX_PLACEMENTS_OF_ONE);
        assert_eq!(breakdown.impressions, Impressions { seen: 594, declared: 5_940_009 });
        let of = |breakdown: &Breakdown, placement| {
            *breakdown.placements.iter().find(|of| of.placement == placement).unwrap()
        };
        assert_eq!(
            of(&breakdown, 5).trials,
            Trials { insertions: 3, outcomes: 3, declared: 3_000 }
        );
        let others = 198 - 63;
        assert_eq!(of(&breakdown, OTHER_PLACEMENT).trials.insertions, 3 * others);
        assert_eq!(Breakdown::of_stored(&breakdown.stored()).as_ref(), Some(&breakdown));
        breakdown.merge_placements(&[3, 5, 9, 1_000]);
        assert_eq!(breakdown.placements.len(), MAX_PLACEMENTS_OF_ONE - 3);
        assert_eq!(of(&breakdown, OTHER_PLACEMENT).trials.insertions, 3 * (others + 3));
        assert_eq!(of(&breakdown, OTHER_PLACEMENT).impressions.seen, 3 * (others + 3));
    }

    #[test]
    fn what_was_not_stored_is_refused() {
        let one = [3, 1, 1, 1, 1, 1];
        let of = |numbers: &[&[u64]]| Breakdown::of_stored(&numbers.concat());
        assert!(of(&[&[5, 6], &one]).is_some() && of(&[&[5, 6]]).is_some());
        let none = [3, 1, 1, 1, 1];
        assert!(of(&[]).is_none() && of(&[&[5, 6], &none]).is_none());
        assert!(of(&[&[5, 6], &one, &one]).is_none(), "a placement twice");
        assert!(of(&[&[5, 6], &[0, 1, 1, 1, 1, 1]]).is_none(), "no placement");
        assert!(of(&[&[5, 6], &[70_000, 1, 1, 1, 1, 1]]).is_none());
    }
}
