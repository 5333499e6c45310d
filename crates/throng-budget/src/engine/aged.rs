//! Runs of ids with the times of their ids, and which of them become one.

use std::io;

use super::runs::IdRun;

/// Runs are merged up to so many ids.
const MERGED_IDS: usize = 8_000_000;
/// If there are more runs than this, those whose promise is over are merged too.
const MOST_RUNS: usize = 32;

/// A run, and since when its ids are known.
#[derive(Debug, Clone)]
pub(super) struct Aged {
    pub(super) run: IdRun,
    /// The oldest stamp of its ids.
    pub(super) oldest: i64,
    /// The newest one.
    pub(super) newest: i64,
    /// `Elapsed::micros` when it was made; of a merged one: when the later part was made.
    pub(super) sealed: i64,
}

impl Aged {
    /// As one run. The ids of both are known for as long as the later ones.
    pub(super) fn merged(&self, other: &Self) -> io::Result<Self> {
        Ok(Self {
            run: self.run.merged(&other.run)?,
            oldest: self.oldest.min(other.oldest),
            newest: self.newest.max(other.newest),
            sealed: self.sealed.max(other.sealed),
        })
    }
}

/// Which run is to be merged with the next one. Depends on the log alone, so that a replay makes the same
/// runs.
///
/// Only neighbours that are no further apart than `span` are merged, or both before `over`, when every
/// promise was over already. A large run waits for the next one to become half as large: so an id is written
/// a few times. If nothing can join the next one any longer, it waits no more.
pub(super) fn to_merge(runs: &[Aged], span: i64, over: i64) -> Option<usize> {
    let fits = |a: &Aged, b: &Aged| {
        let (oldest, newest) = (a.oldest.min(b.oldest), a.newest.max(b.newest));
        let is_over = runs.len() > MOST_RUNS && newest <= over;
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

    fn aged(oldest: i64, newest: i64, ids: u64) -> Aged {
        let run = IdRun::new((0..ids).map(|n| id(n ^ ((newest as u64) << 32))).collect());
        Aged { run, oldest, newest, sealed: newest }
    }

    #[test]
    fn neighbours_of_one_span_are_merged_until_few_are_left() {
        let merge = |mut runs: Vec<Aged>, over| {
            while let Some(place) = to_merge(&runs, 100, over) {
                let merged = runs[place].merged(&runs[place + 1]).unwrap();
                drop(runs.splice(place..place + 2, [merged]));
            }
            runs.iter().map(|run| (run.oldest, run.newest, run.run.len())).collect::<Vec<_>>()
        };
        // A large one waits for the others, until they cannot come any longer.
        let three = || vec![aged(0, 30, 50), aged(31, 60, 10), aged(61, 90, 10)];
        assert_eq!(merge(three(), 0), [(0, 30, 50), (31, 90, 20)]);
        let four = [three(), vec![aged(135, 140, 1)]].concat();
        assert_eq!(merge(four, 0), [(0, 90, 70), (135, 140, 1)]);
        // Stamps are not in order where events come late.
        assert_eq!(merge(vec![aged(10, 60, 1), aged(0, 50, 1)], 0), [(0, 60, 2)]);
        // Far apart: only what nobody asks for, and only if there are many.
        let sparse = |runs: i64| (0..runs).map(|n| aged(n * 500, n * 500, 1)).collect::<Vec<_>>();
        assert_eq!(merge(sparse(MOST_RUNS as i64), 10_000).len(), MOST_RUNS);
        let merged = merge(sparse(50), 10_000);
        assert_eq!(merged.len(), MOST_RUNS);
        assert_eq!(merged.iter().map(|run| run.2).sum::<usize>(), 50);
    }
}
