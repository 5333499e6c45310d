//! Runs of ids with the times of their ids, and which of them are merged.

use std::io;

use super::runs::IdRun;

/// Runs are merged up to so many ids.
const MERGED_IDS: usize = 8_000_000;
/// If there are more runs than this, those whose ids are past the deduplication window are merged too.
const MAX_RUNS: usize = 32;

/// A run with the times of its ids.
#[derive(Debug, Clone)]
pub(super) struct TimedRun {
    pub(super) run: IdRun,
    /// The oldest stamp of its ids.
    pub(super) oldest: i64,
    /// The newest one.
    pub(super) newest: i64,
    /// `LogTime::micros` when it was made; of a merged one: when the later part was made.
    pub(super) sealed: i64,
}

impl TimedRun {
    /// Merges two runs. The ids of both are remembered for as long as the later ones.
    pub(super) fn merged(&self, other: &Self) -> io::Result<Self> {
        Ok(Self {
            run: self.run.merged(&other.run)?,
            oldest: self.oldest.min(other.oldest),
            newest: self.newest.max(other.newest),
            sealed: self.sealed.max(other.sealed),
        })
    }
}

/// Which run to merge with the next one. Depends on the log alone, so that every replica and every replay
/// makes the same runs, under the same names.
///
/// Only neighbors whose times are within `span` are merged, or both before `over`, the start of the
/// deduplication window. A large run is merged once the next one is half as large, so that an id is
/// rewritten only a few times; or when nothing more can be merged into the next one.
pub(super) fn to_merge(runs: &[TimedRun], span: i64, over: i64) -> Option<usize> {
    let fits = |a: &TimedRun, b: &TimedRun| {
        let (oldest, newest) = (a.oldest.min(b.oldest), a.newest.max(b.newest));
        let is_over = runs.len() > MAX_RUNS && newest <= over;
        let is_near = newest.saturating_sub(oldest) <= span;
        (is_near || is_over) && a.run.len().saturating_add(b.run.len()) <= MERGED_IDS
    };
    (0..runs.len().saturating_sub(1)).rev().find(|place| {
        let (run, next) = (&runs[*place], &runs[*place + 1]);
        let may_grow = || runs.get(place + 2).is_none_or(|later| fits(next, later));
        fits(run, next) && (run.run.len() <= 2 * next.run.len() || !may_grow())
    })
}

#[cfg(test)]
mod tests {
    use super::super::ids::Id;
    use super::*;

    fn id(number: u64) -> Id {
        Id::of_hash(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    fn timed(oldest: i64, newest: i64, ids: u64) -> TimedRun {
        let run = IdRun::new((0..ids).map(|n| id(n ^ ((newest as u64) << 32))).collect());
        TimedRun { run, oldest, newest, sealed: newest }
    }

    #[test]
    fn neighbors_of_one_span_are_merged_until_few_are_left() {
        let merge = |mut runs: Vec<TimedRun>, over| {
            while let Some(place) = to_merge(&runs, 100, over) {
                let merged = runs[place].merged(&runs[place + 1]).unwrap();
                drop(runs.splice(place..place + 2, [merged]));
            }
            runs.iter().map(|run| (run.oldest, run.newest, run.run.len())).collect::<Vec<_>>()
        };
        // A large one waits for the others, until they can no longer come.
        let three = || vec![timed(0, 30, 50), timed(31, 60, 10), timed(61, 90, 10)];
        assert_eq!(merge(three(), 0), [(0, 30, 50), (31, 90, 20)]);
        let four = [three(), vec![timed(135, 140, 1)]].concat();
        assert_eq!(merge(four, 0), [(0, 90, 70), (135, 140, 1)]);
        // Stamps are not in order where events come late.
        assert_eq!(merge(vec![timed(10, 60, 1), timed(0, 50, 1)], 0), [(0, 60, 2)]);
        // Far apart: only those past the window, and only if there are many.
        let sparse = |runs: i64| (0..runs).map(|n| timed(n * 500, n * 500, 1)).collect::<Vec<_>>();
        assert_eq!(merge(sparse(MAX_RUNS as i64), 10_000).len(), MAX_RUNS);
        let merged = merge(sparse(50), 10_000);
        assert_eq!(merged.len(), MAX_RUNS);
        assert_eq!(merged.iter().map(|run| run.2).sum::<usize>(), 50);
    }
}
