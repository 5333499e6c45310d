//! What became of events in the log, for callers of this process that wait until theirs are applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_budget::EventEffect;
use throng_model::MoneyError;

/// Records with outcomes that are kept while somebody waits. A caller fetches its own at once, so more only
/// accumulate if callers go away, or if events of other processes are applied here.
const MAX_RECORDS: usize = 10_000;
/// Rejected events of all kept records. A record may have thousands of them.
const MAX_REJECTED: usize = 100_000;

/// Why an event of the log does not count, besides repetitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Its ad group was removed from the spec after it was appended.
    UnknownAdGroup,
    /// Ids of its time were forgotten: it may have been counted.
    TooOld,
    /// The sum would be too large.
    Overflow(MoneyError),
}

/// The events of one record that do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RecordOutcome {
    /// How many were counted before.
    pub(super) duplicates: u64,
    /// How many have an insertion that has had such an outcome.
    pub(super) repeated: u64,
    /// The others, by their index in the record.
    pub(super) rejected: Vec<(usize, Rejection)>,
}

/// Outcomes by the offset of the record. A record of which every event counts is left out.
pub(super) type RecordOutcomes = BTreeMap<u64, RecordOutcome>;

/// Adds the effect of an event, by its offset and its index in the record.
pub(super) fn add_effect(
    outcomes: &mut RecordOutcomes,
    (offset, index): (u64, usize),
    effect: &Result<EventEffect, MoneyError>,
) {
    let rejection = match effect {
        Ok(EventEffect::Counted) => return,
        Ok(EventEffect::Duplicate) => return outcomes.entry(offset).or_default().duplicates += 1,
        Ok(EventEffect::Repeated) => return outcomes.entry(offset).or_default().repeated += 1,
        Ok(EventEffect::UnknownAdGroup) => Rejection::UnknownAdGroup,
        Ok(EventEffect::TooOld) => Rejection::TooOld,
        Err(error) => Rejection::Overflow(error.clone()),
    };
    outcomes.entry(offset).or_default().rejected.push((index, rejection));
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outcomes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Callers that wait. Nothing is kept while there are none.
    waiting: usize,
    kept: RecordOutcomes,
    /// The rejected events in `kept`.
    rejected: usize,
    /// The outcomes of records before this offset may have been dropped.
    complete_from: u64,
}

/// A caller that waits, or will as soon as its records are appended.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Outcomes>);

impl Outcomes {
    /// To be called before the append: records that are applied from now on are known to the caller.
    pub(super) fn wait(self: &Arc<Self>) -> Waiting {
        self.0.lock().waiting += 1;
        Waiting(Arc::clone(self))
    }

    /// Whether somebody waits.
    pub(super) fn is_wanted(&self) -> bool {
        self.0.lock().waiting > 0
    }

    /// Adds what became of records. To be called before they are reported as applied.
    pub(super) fn add(&self, outcomes: RecordOutcomes) {
        if outcomes.is_empty() {
            return;
        }
        let mut state = self.0.lock();
        // Everybody may have left since the caller asked.
        if state.waiting == 0 {
            return;
        }
        state.rejected += outcomes.values().map(|outcome| outcome.rejected.len()).sum::<usize>();
        state.kept.extend(outcomes);
        while (state.kept.len() > MAX_RECORDS || state.rejected > MAX_REJECTED)
            && let Some((dropped, outcome)) = state.kept.pop_first()
        {
            // So that `take` answers that it does not know: a list without the dropped rejections
            // would have these events as accepted.
            state.rejected -= outcome.rejected.len();
            state.complete_from = dropped + 1;
        }
    }
}

impl Waiting {
    /// What became of the records at these offsets, which are applied. `None` if it is no longer known.
    pub(super) fn take(&self, offsets: &[u64]) -> Option<RecordOutcomes> {
        let mut state = self.0.0.lock();
        if offsets.iter().any(|offset| *offset < state.complete_from) {
            return None;
        }
        let taken: RecordOutcomes =
            offsets.iter().filter_map(|offset| state.kept.remove_entry(offset)).collect();
        state.rejected -= taken.values().map(|outcome| outcome.rejected.len()).sum::<usize>();
        Some(taken)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.waiting -= 1;
        // What is left is of callers that went away, or of events of other processes: nobody takes
        // it, and it would stay in memory.
        if state.waiting == 0 {
            state.kept.clear();
            state.rejected = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    fn duplicates(offsets: Range<u64>) -> RecordOutcomes {
        let mut outcomes = RecordOutcomes::new();
        for offset in offsets {
            add_effect(&mut outcomes, (offset, 0), &Ok(EventEffect::Duplicate));
        }
        outcomes
    }

    #[test]
    fn a_caller_takes_the_outcomes_of_its_own_records() {
        let outcomes = Arc::new(Outcomes::default());
        assert!(!outcomes.is_wanted());
        let (one, two) = (outcomes.wait(), outcomes.wait());
        assert!(outcomes.is_wanted());
        let mut applied = RecordOutcomes::new();
        for (place, effect) in [
            ((7, 0), Ok(EventEffect::Counted)),
            ((8, 0), Ok(EventEffect::Duplicate)),
            ((8, 1), Ok(EventEffect::Repeated)),
            ((8, 2), Ok(EventEffect::Counted)),
            ((9, 5), Ok(EventEffect::TooOld)),
            ((9, 6), Err(MoneyError::Overflow)),
            ((10, 3), Ok(EventEffect::UnknownAdGroup)),
        ] {
            add_effect(&mut applied, place, &effect);
        }
        outcomes.add(applied);
        assert_eq!(one.take(&[6, 7]), Some(RecordOutcomes::new()), "all of them count");
        let taken = one.take(&[8, 9]).unwrap();
        assert_eq!(taken[&8], RecordOutcome { duplicates: 1, repeated: 1, rejected: Vec::new() });
        let overflow = Rejection::Overflow(MoneyError::Overflow);
        assert_eq!(taken[&9].rejected, [(5, Rejection::TooOld), (6, overflow)]);
        assert_eq!(taken.len(), 2);
        let taken = two.take(&[10]).unwrap();
        assert_eq!(taken[&10].rejected, [(3, Rejection::UnknownAdGroup)]);
    }

    #[test]
    fn what_nobody_takes_is_bounded_and_dropped() {
        let outcomes = Arc::new(Outcomes::default());
        let waiting = outcomes.wait();
        for first in (0..100).map(|n| n * 1_000) {
            outcomes.add(duplicates(first..first + 1_000));
            assert!(outcomes.0.lock().kept.len() <= MAX_RECORDS);
        }
        assert_eq!(waiting.take(&[89_999, 90_000]), None, "a part of it was dropped");
        assert_eq!(waiting.take(&[90_000, 90_001]).unwrap().len(), 2);
        drop(waiting);
        assert!(!outcomes.is_wanted());
        assert_eq!(outcomes.0.lock().kept.len(), 0);
    }

    #[test]
    fn rejected_events_that_nobody_takes_are_bounded() {
        let outcomes = Arc::new(Outcomes::default());
        let waiting = outcomes.wait();
        for offset in 0..50 {
            let mut applied = RecordOutcomes::new();
            for index in 0..10_000 {
                add_effect(&mut applied, (offset, index), &Ok(EventEffect::UnknownAdGroup));
            }
            outcomes.add(applied);
            assert!(outcomes.0.lock().rejected <= MAX_REJECTED);
        }
        assert_eq!(waiting.take(&[0]), None);
        assert_eq!(waiting.take(&[49]).unwrap()[&49].rejected.len(), 10_000);
        assert_eq!(outcomes.0.lock().rejected, 90_000);
        drop(waiting);
        outcomes.add(duplicates(50..60));
        assert_eq!(outcomes.0.lock().kept.len(), 0, "nobody waits");
    }
}
