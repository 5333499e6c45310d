//! Which ids have been seen: the newest in memory, those of before in sorted runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use throng_model::Timestamp;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128, xxh3_128_with_seed};

use crate::event::MAX_AHEAD;

use super::aged::{Aged, to_merge};
use super::ids::{Id, IdSet};
use super::runs::{IdFile, IdRun};

/// How long an id is known unless something else is set.
pub const DEFAULT_PROMISE: Duration = Duration::from_secs(24 * 3600);
/// So many ids at most are in memory, 14 bytes of room each; of more, a run is made.
const YOUNG_IDS: usize = 1_000_000;
/// And of ids that are further apart than this part of the promise: a run is forgotten as a whole, so that
/// its ids are known for so much longer than the promise at most.
const SPANS_OF_PROMISE: i64 = 24;
/// A span is never shorter, in microseconds: runs of short promises would be many and small.
const SHORTEST_SPAN: i64 = 15 * 60 * 1_000_000;
/// So much time passes at most between a record and the next one that has a newer time.
const LONGEST_STEP: Duration = Duration::from_secs(600);
/// Steps of the clock within the promise that take nothing of it.
const STEPS: u32 = 6;

/// What an id is an id of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdKind {
    /// An event of this kind, as a number.
    Event(i32),
    /// An insertion that counts, as its outcomes name it, made while this price counted.
    Insertion {
        /// [`Price::since`](super::prices::Price).
        price_since: i64,
    },
    /// An insertion that has had an outcome of this kind.
    Outcome(i32),
}

impl IdKind {
    fn seed(self) -> u64 {
        let (class, number) = match self {
            Self::Event(kind) => (1u8, i64::from(kind)),
            Self::Insertion { price_since } => (2, price_since),
            Self::Outcome(kind) => (3, i64::from(kind)),
        };
        xxh3_64_with_seed(&[class], number.cast_unsigned())
    }
}

/// The 80 bits that stand for an id: of an event, unique among those of its kind and ad group. `ad_group`:
/// [`ad_group_seed`].
#[inline]
pub(super) fn id_of(ad_group: u64, kind: IdKind, id: &[u8]) -> Id {
    Id::of_hash(xxh3_128_with_seed(id, ad_group ^ kind.seed()))
}

/// What stands for an ad group in ids.
pub(super) fn ad_group_seed(name: &[u8]) -> u64 {
    xxh3_64(name)
}

/// The 80 bits that stood for an event's id in checkpoints of before ids were of a kind and an ad group.
/// Whether a new event has those of one of the 4 million
/// that are remembered is a matter of 1 in 3·10¹⁷: once in 200,000 years at 50,000 events a second.
#[inline]
pub(super) fn plain_id_of(id: &[u8]) -> Id {
    Id::of_hash(xxh3_128(id))
}

/// How much time has passed in the log: the sum of the steps from one newest record time to the next, each
/// of them at most [`LONGEST_STEP`]. Runs are let go of by it.
///
/// A clock that steps forward by days so passes for ten minutes, and one that steps back stands still
/// until it is where it was. It is made of the log's times alone, so that a replay comes to the same.
/// Where records are further apart than the longest step, runs are kept longer, and are small.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Elapsed {
    /// The newest time of any record; zero: there is none yet.
    pub(super) newest: Timestamp,
    /// Microseconds.
    pub(super) micros: i64,
}

impl Elapsed {
    fn advance(&mut self, logged_at: Timestamp) {
        if self.newest == Timestamp(0) {
            self.newest = logged_at;
        }
        let step = logged_at.since(self.newest).min(LONGEST_STEP);
        self.micros = self.micros.saturating_add(step.as_micros() as i64);
        self.newest = self.newest.max(logged_at);
    }
}

/// When an id was seen: the event's own time, or, if it came late, that of its record. From then on the
/// promise counts. Senders with a right clock so keep it, whatever the node's clock does.
fn stamp(at: Timestamp, logged_at: Timestamp) -> i64 {
    if logged_at.since(at) > MAX_AHEAD { logged_at.0 } else { at.0 }
}

#[derive(Debug)]
pub(super) struct SeenIds {
    young: IdSet,
    /// Stamps of the young ids: the oldest and the newest.
    span: Option<(i64, i64)>,
    /// From the oldest to the newest.
    runs: Vec<Aged>,
    elapsed: Elapsed,
    promise: i64,
    /// There may be ids of [`plain_id_of`] until so much time has passed.
    plain_until: i64,
    /// Ids of events of before this time were let go of under a shorter promise.
    known_after: i64,
    /// Runs that were let go of, whose files nobody needs.
    dropped: Vec<String>,
    /// A run's file could not be read, so that some answer is wrong.
    failed: AtomicBool,
}

impl Clone for SeenIds {
    fn clone(&self) -> Self {
        Self {
            young: self.young.clone(),
            runs: self.runs.clone(),
            dropped: self.dropped.clone(),
            failed: AtomicBool::new(self.has_failed()),
            ..*self
        }
    }
}

impl Default for SeenIds {
    fn default() -> Self {
        Self {
            young: empty(),
            span: None,
            runs: Vec::new(),
            elapsed: Elapsed::default(),
            promise: micros(DEFAULT_PROMISE),
            plain_until: 0,
            known_after: i64::MIN,
            dropped: Vec::new(),
            failed: AtomicBool::new(false),
        }
    }
}

fn empty() -> IdSet {
    IdSet::of_most(YOUNG_IDS)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl SeenIds {
    /// How long ids are known from `now` on. Under a longer promise than before, events that are older than
    /// the one before cannot be distinguished from duplicates: [`forgot`](Self::forgot).
    pub(super) fn set_promise(&mut self, promise: Duration, now: Timestamp) {
        let promise = micros(promise);
        if promise > self.promise && self.elapsed.newest != Timestamp(0) {
            // A newest record of the future was made by a wrong clock.
            let newest = self.elapsed.newest.min(now);
            self.known_after = self.known_after.max(newest.0.saturating_sub(self.promise));
        }
        self.promise = promise;
    }

    /// Whether an id is known to an event of a moment: it was seen less than the promise before it.
    #[inline]
    pub(super) fn contains(&self, id: Id, at: Timestamp) -> bool {
        let counts = |newest: i64| at.0 < newest.saturating_add(self.promise);
        if self.span.is_some_and(|(_, newest)| counts(newest)) && self.young.contains(id) {
            return true;
        }
        let mut runs = self.runs.iter().rev().filter(|aged| counts(aged.newest));
        runs.any(|aged| match aged.run.contains(id) {
            Ok(found) => found,
            Err(_) => {
                // The caller gives the state up and reads the runs anew.
                self.failed.store(true, Ordering::Relaxed);
                true
            }
        })
    }

    /// Whether an answer was wrong because a file could not be read.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Remembers an id of an event; `false` if it was known. Depends on the ids and the times alone.
    #[inline]
    pub(super) fn insert(&mut self, id: Id, at: Timestamp, logged_at: Timestamp) -> bool {
        if self.contains(id, at) {
            return false;
        }
        self.elapsed.advance(logged_at);
        let stamp = stamp(at, logged_at);
        let (mut oldest, mut newest) = self.span.unwrap_or((stamp, stamp));
        (oldest, newest) = (oldest.min(stamp), newest.max(stamp));
        if self.young.len() >= YOUNG_IDS || newest.saturating_sub(oldest) > self.longest_span() {
            self.seal(stamp);
            (oldest, newest) = (stamp, stamp);
        }
        self.span = Some((oldest, newest));
        self.young.insert(id);
        true
    }

    /// How far apart the stamps of a run are at most.
    fn longest_span(&self) -> i64 {
        (self.promise / SPANS_OF_PROMISE).max(SHORTEST_SPAN)
    }

    /// Makes a run of the young ids, and lets go of runs whose promise is over. `stamp`: of the next id.
    #[cold]
    fn seal(&mut self, stamp: i64) {
        if let Some((oldest, newest)) = self.span.take() {
            let run = IdRun::new(self.young.iter().collect());
            self.young = empty();
            self.runs.push(Aged { run, oldest, newest, sealed: self.elapsed.micros });
        }
        let kept = self.promise.saturating_add(micros(STEPS * LONGEST_STEP));
        let now = self.elapsed.micros;
        let dropped = &mut self.dropped;
        self.runs.retain(|aged| {
            let keep = now.saturating_sub(aged.sealed) <= kept;
            if !keep {
                drop_run(&aged.run, dropped);
            }
            keep
        });
        self.merge(stamp);
    }

    /// Merges runs until there are few of them. Reads their files.
    fn merge(&mut self, stamp: i64) {
        let (span, over) = (self.longest_span(), stamp.saturating_sub(self.promise));
        while let Some(place) = to_merge(&self.runs, span, over) {
            let Ok(merged) = self.runs[place].merged(&self.runs[place + 1]) else {
                // As with a question that could not be answered.
                return self.failed.store(true, Ordering::Relaxed);
            };
            let parts = self.runs.splice(place..place + 2, [merged]);
            parts.for_each(|part| drop_run(&part.run, &mut self.dropped));
        }
    }

    /// Whether ids of a moment were let go of under a shorter promise, so that nobody knows whether an event
    /// of that time is a duplicate.
    #[inline]
    pub(super) fn forgot(&self, at: Timestamp) -> bool {
        at.0 < self.known_after
    }

    /// How long ids are known, in microseconds, and the time up to which they were let go of.
    pub(super) fn promise(&self) -> (i64, i64) {
        (self.promise, self.known_after)
    }

    /// Goes on with what [`promise`](Self::promise) gave.
    pub(super) fn with_promise(self, (promise, known_after): (i64, i64)) -> Self {
        Self { promise, known_after, ..self }
    }

    /// Has what is known of an id brought into the caches, for a later [`SeenIds::insert`]. The tables
    /// are far larger than those.
    #[inline]
    pub(super) fn prefetch(&self, id: Id) {
        self.young.prefetch(id);
        self.runs.iter().for_each(|aged| aged.run.prefetch(id));
    }

    /// Whether there may be ids of [`plain_id_of`].
    #[inline]
    pub(super) fn has_plain(&self) -> bool {
        self.plain_until > self.elapsed.micros
    }

    /// Until how much time has passed there may be ids of [`plain_id_of`].
    pub(super) fn plain_until(&self) -> i64 {
        self.plain_until
    }

    pub(super) fn elapsed(&self) -> Elapsed {
        self.elapsed
    }

    pub(super) fn span(&self) -> Option<(i64, i64)> {
        self.span
    }

    pub(super) fn runs(&self) -> &[Aged] {
        &self.runs
    }

    /// Runs that have to be written, and what was written of them before.
    pub(super) fn unsaved(&self) -> Vec<IdRun> {
        let runs = self.runs.iter().map(|aged| &aged.run);
        runs.filter(|run| run.unsaved().is_some()).cloned().collect()
    }

    /// A run is written. `false` if it is not needed any longer.
    pub(super) fn saved(&mut self, name: &str, file: &Arc<dyn IdFile>) -> bool {
        let mut needed = false;
        for aged in self.runs.iter_mut().filter(|aged| aged.run.name() == name) {
            aged.run.saved(Arc::clone(file));
            needed = true;
        }
        needed
    }

    /// The names of runs that nobody needs, once.
    pub(super) fn take_dropped(&mut self) -> Vec<String> {
        std::mem::take(&mut self.dropped)
    }

    /// The young ids.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.young.iter().flat_map(Id::to_bytes).collect()
    }

    /// What a checkpoint has. `None` if the bytes are none of ids.
    pub(super) fn load(
        young: &[u8],
        span: Option<(i64, i64)>,
        runs: Vec<Aged>,
        elapsed: Elapsed,
        plain_until: i64,
    ) -> Option<Self> {
        let ids = ids_of(young)?;
        let mut seen = Self { runs, elapsed, plain_until, ..Self::default() };
        // Ids of checkpoints that have no span: as young as the newest record.
        seen.span = (!ids.is_empty()).then(|| span.unwrap_or((elapsed.newest.0, elapsed.newest.0)));
        seen.young.reserve(ids.len());
        for id in ids {
            seen.young.insert(id);
        }
        Some(seen)
    }
}

/// Notes the file of a run that is let go of, if it has one.
fn drop_run(run: &IdRun, dropped: &mut Vec<String>) {
    if run.unsaved().is_none() {
        dropped.push(run.name().to_owned());
    }
}

/// Ids as [`Id::to_bytes`] has them, one after the other.
pub(super) fn ids_of(bytes: &[u8]) -> Option<Vec<Id>> {
    let (ids, rest) = bytes.as_chunks::<{ Id::WIDTH }>();
    rest.is_empty().then(|| ids.iter().map(Id::from_bytes).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp(1_767_225_600_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn id(number: u64) -> Id {
        plain_id_of(&number.to_le_bytes())
    }

    fn again(seen: &SeenIds) -> SeenIds {
        let young = seen.to_bytes();
        let loaded =
            SeenIds::load(&young, seen.span(), seen.runs().to_vec(), seen.elapsed(), 0).unwrap();
        assert_eq!(loaded.to_bytes().len(), young.len());
        loaded
    }

    /// Whether it is new to an event that comes at once.
    fn insert(seen: &mut SeenIds, number: u64, at: Timestamp) -> bool {
        seen.insert(id(number), at, at)
    }

    #[test]
    fn an_id_counts_again_when_the_promise_is_over() {
        let mut seen = SeenIds::default();
        let mut counted = Vec::new();
        for hours in [0, 12, 25, 36, 49, 73, 97] {
            let now = START.plus(hours * HOUR);
            counted.push(insert(&mut seen, 7, now));
            insert(&mut seen, 1_000 + u64::from(hours), now);
            seen = again(&seen);
        }
        assert_eq!(counted, [true, false, true, false, true, true, true]);
    }

    #[test]
    fn a_long_promise_is_kept_whatever_the_traffic() {
        let mut seen = SeenIds::default();
        seen.set_promise(48 * HOUR, START);
        let mut now = START;
        for number in 0..2 * YOUNG_IDS as u64 + 9 {
            now = now.plus(Duration::from_micros(100));
            assert!(insert(&mut seen, number, now));
        }
        assert_eq!(seen.runs().iter().map(|aged| aged.run.len()).sum::<usize>(), 2 * YOUNG_IDS);
        let later = now.plus(40 * HOUR);
        assert!((0..2 * YOUNG_IDS as u64 + 9).step_by(997).all(|n| !insert(&mut seen, n, later)));
    }

    #[test]
    fn memory_is_given_back() {
        let mut seen = SeenIds::default();
        for step in 0..40 * 6 {
            assert!(insert(&mut seen, step, START.plus(Duration::from_secs(600 * step))));
        }
        assert!(seen.runs().len() <= 28, "{}", seen.runs().len());
        // What was never written needs no removal.
        assert_eq!(seen.take_dropped(), Vec::<String>::new());
    }

    #[test]
    fn parts_of_a_merged_run_are_dropped_and_it_is_written() {
        let mut seen = SeenIds::default();
        let mut now = START;
        let mut fill = |seen: &mut SeenIds, from: u64| {
            for number in from..from + YOUNG_IDS as u64 {
                now = now.plus(Duration::from_micros(10));
                assert!(insert(seen, number, now));
            }
        };
        fill(&mut seen, 0);
        fill(&mut seen, YOUNG_IDS as u64);
        let first = seen.unsaved();
        let [run] = &first[..] else { panic!("{} runs", first.len()) };
        let file: Arc<dyn IdFile> = Arc::new(run.unsaved().unwrap().to_vec());
        assert!(seen.saved(run.name(), &file));
        fill(&mut seen, 2 * YOUNG_IDS as u64);
        assert_eq!(seen.take_dropped(), [run.name()]);
        let merged = seen.unsaved();
        assert_eq!(merged.iter().map(IdRun::len).collect::<Vec<_>>(), [2 * YOUNG_IDS]);
        assert!(!seen.saved(run.name(), &file), "it is not needed any longer");
        assert!((0..3 * YOUNG_IDS as u64).step_by(991).all(|n| !insert(&mut seen, n, now)));
    }

    #[test]
    fn a_longer_promise_holds_for_what_was_known_when_it_was_given() {
        let mut seen = SeenIds::default();
        // Nothing was forgotten yet.
        seen.set_promise(48 * HOUR, START);
        assert!(!seen.forgot(START.minus(100 * HOUR)));
        insert(&mut seen, 1, START);
        seen.set_promise(24 * HOUR, START);
        assert!(!seen.forgot(START.minus(100 * HOUR)));
        seen.set_promise(168 * HOUR, START.plus(HOUR));
        let forgot =
            |seen: &SeenIds| [25, 24, 23].map(|hours| seen.forgot(START.minus(hours * HOUR)));
        assert_eq!(forgot(&seen), [true, false, false]);
        let again = again(&seen).with_promise(seen.promise());
        assert_eq!((forgot(&again), again.promise), (forgot(&seen), micros(168 * HOUR)));
        // A record of the future.
        insert(&mut seen, 2, START.plus(9_000 * HOUR));
        seen.set_promise(200 * HOUR, START.plus(HOUR));
        assert!(!seen.forgot(START.plus(HOUR)));
    }

    #[test]
    fn a_late_event_is_known_for_the_promise_from_its_record_on() {
        let mut seen = SeenIds::default();
        let now = START.plus(DAY);
        assert!(seen.insert(id(1), now.minus(23 * HOUR), now));
        // A retry with a new time.
        let later = now.plus(20 * HOUR);
        assert!(!seen.insert(id(1), later, later));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told() {
        let mut seen = SeenIds::default();
        insert(&mut seen, 1, START);
        insert(&mut seen, 2, START.plus(2 * HOUR));
        let run = seen.unsaved().remove(0);
        let nothing: Arc<dyn IdFile> = Arc::new(Vec::new());
        assert!(seen.saved(run.name(), &nothing) && !seen.saved("another", &nothing));
        assert!(seen.unsaved().is_empty() && !seen.has_failed());
        assert!(!insert(&mut seen, 1, START.plus(2 * HOUR)));
        assert!(seen.has_failed());
    }

    proptest! {
        /// Whatever the node's clock does a few times a day: an id that is a day old in real time is
        /// known. Senders know the time.
        #[test]
        fn an_id_is_known_for_a_day_whatever_the_clock_does(
            waits in prop::collection::vec(1u64..7_200, 1..60),
            steps in prop::collection::vec((0usize..60, -200_000_000i64..200_000_000), 0..STEPS as usize),
        ) {
            let mut seen = SeenIds::default();
            // The model: real time, the clock's error, and when each id came.
            let (mut real, mut error) = (Duration::ZERO, 0i64);
            let mut came: Vec<(u64, Duration)> = Vec::new();
            for (number, wait) in waits.iter().enumerate() {
                real += Duration::from_secs(*wait);
                error += steps.iter().filter(|s| s.0 == number).map(|s| s.1 * 1_000_000).sum::<i64>();
                let at = START.plus(real);
                let shown = Timestamp(at.0 + error);
                for (number, since) in &came {
                    if real - *since < DAY {
                        prop_assert!(!seen.insert(id(*number), at, shown), "id {number}");
                    }
                }
                let number = number as u64;
                prop_assert!(seen.insert(id(number), at, shown));
                came.push((number, real));
                seen = again(&seen);
            }
        }
    }
}
