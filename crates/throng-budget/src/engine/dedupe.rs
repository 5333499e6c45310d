//! Which event ids have been seen: in two generations, so that memory is bounded.

use std::time::Duration;

use throng_model::Timestamp;
use xxhash_rust::xxh3::xxh3_128;

use super::ids::{Id, IdSet};

/// A generation ends after so much time in the log ([`Elapsed`]), or with [`GENERATION_IDS`] ids: an id
/// is remembered for at least a day, also if the clock steps forward [`STEPS`] times within it.
/// Events older than a day are refused when they are accepted.
const GENERATION: Duration = Duration::from_secs(24 * 3600 + STEPS * LONGEST_STEP.as_secs());
const STEPS: u64 = 6;
/// So much time passes at most between a record and the next one that has a newer time.
const LONGEST_STEP: Duration = Duration::from_secs(600);
/// Ids of one generation at most: 14 bytes of room each, so 57 MB for two generations of a partition.
const GENERATION_IDS: usize = 2_000_000;

/// The 80 bits that stand for an event's id. Whether a new event has those of one of the 4 million
/// that are remembered is a matter of 1 in 3·10¹⁷: once in 200,000 years at 50,000 events a second.
#[inline]
pub(super) fn id_of(id: &[u8]) -> Id {
    Id::of_hash(xxh3_128(id))
}

/// How much time has passed in the log since a generation began: the sum of the steps from one newest
/// record time to the next, each of them at most [`LONGEST_STEP`].
///
/// A clock that steps forward by days so passes for ten minutes, and one that steps back stands still
/// until it is where it was. It is made of the log's times alone, so that a replay comes to the same.
/// Where records are further apart than the longest step, a generation lasts longer and has few ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Elapsed {
    /// The time of the generation's first record; zero: there is none yet.
    pub(super) began: Timestamp,
    /// The newest time of any record.
    pub(super) newest: Timestamp,
    /// Microseconds.
    pub(super) micros: i64,
}

impl Elapsed {
    fn advance(&mut self, logged_at: Timestamp) {
        if self.began == Timestamp(0) {
            *self = Self { began: logged_at, newest: logged_at, micros: 0 };
        }
        let step = logged_at.since(self.newest).min(LONGEST_STEP);
        self.micros = self.micros.saturating_add(step.as_micros() as i64);
        self.newest = self.newest.max(logged_at);
    }

    fn is_over(&self) -> bool {
        self.micros > GENERATION.as_micros() as i64
    }

    fn next_generation(&mut self, logged_at: Timestamp) {
        *self = Self { began: logged_at, micros: 0, ..*self };
    }
}

#[derive(Debug, Clone)]
pub(super) struct SeenIds {
    ids: IdSet,
    elapsed: Elapsed,
}

impl Default for SeenIds {
    fn default() -> Self {
        // One more than a generation has: it ends with the first that is too many.
        Self { ids: IdSet::of_generations(GENERATION_IDS + 1), elapsed: Elapsed::default() }
    }
}

impl SeenIds {
    /// Remembers an id; `false` if it was known. Depends on the ids and the log's times alone.
    #[inline]
    pub(super) fn insert(&mut self, id: Id, logged_at: Timestamp) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.elapsed.advance(logged_at);
        if self.ids.young() > GENERATION_IDS || self.elapsed.is_over() {
            self.ids.next_generation();
            self.elapsed.next_generation(logged_at);
        }
        true
    }

    /// Has what is known of an id brought into the caches, for a later [`SeenIds::insert`]. The tables
    /// are far larger than those.
    #[inline]
    pub(super) fn prefetch(&self, id: Id) {
        self.ids.prefetch(id);
    }

    /// How old the young generation is.
    pub(super) fn elapsed(&self) -> Elapsed {
        self.elapsed
    }

    /// The young ids and the old ones.
    pub(super) fn to_bytes(&self) -> (Vec<u8>, Vec<u8>) {
        let mut young = Vec::with_capacity(self.ids.young() * Id::WIDTH);
        let mut old = Vec::new();
        for (id, is_young) in self.ids.iter() {
            let bytes = if is_young { &mut young } else { &mut old };
            bytes.extend_from_slice(&id.to_bytes());
        }
        (young, old)
    }

    pub(super) fn from_bytes(young: &[u8], old: &[u8], elapsed: Elapsed) -> Option<Self> {
        let (young, rest_of_young) = young.as_chunks::<{ Id::WIDTH }>();
        let (old, rest_of_old) = old.as_chunks::<{ Id::WIDTH }>();
        if !rest_of_young.is_empty() || !rest_of_old.is_empty() {
            return None;
        }
        let mut seen = Self { elapsed, ..Self::default() };
        seen.ids.reserve(young.len() + old.len());
        for id in old {
            seen.ids.insert_old(Id::from_bytes(id));
        }
        for id in young {
            seen.ids.insert(Id::from_bytes(id));
        }
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn again(seen: &SeenIds) -> SeenIds {
        let (young, old) = seen.to_bytes();
        SeenIds::from_bytes(&young, &old, seen.elapsed()).unwrap()
    }

    #[test]
    fn ids_outlive_one_generation_and_not_three() {
        let mut seen = SeenIds::default();
        let mut now = Timestamp(1);
        assert!(seen.insert(id_of(b"a"), now));
        let mut step = 0u32;
        let mut wait = |seen: &mut SeenIds, long: Duration| {
            let until = now.plus(long);
            while now < until {
                now = now.plus(LONGEST_STEP);
                step += 1;
                assert!(seen.insert(id_of(&step.to_le_bytes()), now));
            }
            now
        };
        let now = wait(&mut seen, GENERATION + LONGEST_STEP);
        assert_eq!(seen.elapsed().began, now, "the second generation begins");
        assert!(!seen.clone().insert(id_of(b"a"), now), "the old generation still knows it");
        assert!(!again(&seen).insert(id_of(b"a"), now));
        let now = wait(&mut seen, GENERATION + 2 * LONGEST_STEP);
        assert!(seen.insert(id_of(b"a"), now), "memory does not grow for ever");
    }

    #[test]
    fn two_steps_of_the_clock_over_a_day_forget_nothing() {
        let mut seen = SeenIds::default();
        let start = Timestamp(1_767_225_600_000_000);
        assert!(seen.insert(id_of(b"a"), start));
        for days in 1..=2 {
            let id = id_of(&[days as u8]);
            assert!(seen.insert(id, start.plus(days * DAY + Duration::from_secs(1))));
            seen = again(&seen);
        }
        // The clock is set right again.
        assert!(!seen.insert(id_of(b"a"), start.plus(Duration::from_secs(5))));
    }

    proptest! {
        /// Whatever the clock does a few times a day: an id that is a day old in real time is known.
        #[test]
        fn an_id_is_known_for_a_day_whatever_the_clock_does(
            waits in prop::collection::vec(1u64..7_200, 1..60),
            steps in prop::collection::vec((0usize..60, -200_000_000i64..200_000_000), 0..STEPS as usize),
        ) {
            let mut seen = SeenIds::default();
            // The model: real time, the clock's error, and when each id came.
            let (mut real, mut error) = (Duration::ZERO, 0i64);
            let mut came: Vec<(u32, Duration)> = Vec::new();
            for (number, wait) in waits.iter().enumerate() {
                real += Duration::from_secs(*wait);
                error += steps.iter().filter(|s| s.0 == number).map(|s| s.1 * 1_000_000).sum::<i64>();
                let shown = Timestamp(1_767_225_600_000_000 + real.as_micros() as i64 + error);
                for (id, since) in &came {
                    if real - *since <= DAY {
                        prop_assert!(!seen.insert(id_of(&id.to_le_bytes()), shown), "id {id}");
                    }
                }
                let id = number as u32;
                prop_assert!(seen.insert(id_of(&id.to_le_bytes()), shown));
                came.push((id, real));
                seen = again(&seen);
            }
        }
    }
}
