//! Which ids have been seen: recent ones in memory, older ones in sorted runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use throng_events::LogTime;
use throng_model::Timestamp;
use xxhash_rust::const_xxh3::xxh3_64_with_seed;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128, xxh3_128_with_seed};

use super::ids::{Id, IdSet};
use super::runs::{IdFile, IdRun};
use super::timed_run::{TimedRun, to_merge};

/// How long an id is remembered unless something else is set.
pub const DEFAULT_DEDUPE_WINDOW: Duration = Duration::from_secs(24 * 3600);
/// Ids that are kept in memory, in 14 bytes each; if there are more, they are written to a run.
const RECENT_IDS: usize = 1_000_000;
/// A run is also made when its ids would be further apart than this part of the window. A run is forgotten
/// as a whole, so its ids are remembered for at most that much longer than the window.
const SPANS_PER_WINDOW: i64 = 24;
/// The shortest span of a run, in microseconds: with short windows there would be many small runs.
const MIN_SPAN: i64 = 15 * 60 * 1_000_000;
/// Steps of the clock within the window that do not shorten it.
const STEPS: u32 = 6;

/// What an id identifies.
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

/// The seed of a class of ids. In each class the numbers of [`EventKind`](crate::EventKind) are the usual ones.
const fn seed_of(class: u8, number: i64) -> u64 {
    xxh3_64_with_seed(&[class], number.cast_unsigned())
}

const fn usual_seeds(class: u8) -> [u64; 4] {
    [seed_of(class, 0), seed_of(class, 1), seed_of(class, 2), seed_of(class, 3)]
}

impl IdKind {
    #[inline]
    fn seed(self) -> u64 {
        const EVENTS: [u64; 4] = usual_seeds(1);
        const OUTCOMES: [u64; 4] = usual_seeds(3);
        const FIRST_PRICE: u64 = seed_of(2, i64::MIN);
        let usual = |seeds: &[u64; 4], class: u8, number: i32| {
            let seed = usize::try_from(number).ok().and_then(|place| seeds.get(place).copied());
            seed.unwrap_or_else(|| seed_of(class, number.into()))
        };
        match self {
            Self::Event(kind) => usual(&EVENTS, 1, kind),
            Self::Insertion { price_since: i64::MIN } => FIRST_PRICE,
            Self::Insertion { price_since } => seed_of(2, price_since),
            Self::Outcome(kind) => usual(&OUTCOMES, 3, kind),
        }
    }
}

/// The 80-bit hash of an id. Ids of events are unique per kind and ad group. `ad_group`: [`ad_group_seed`].
#[inline]
pub(super) fn id_of(ad_group: u64, kind: IdKind, id: &[u8]) -> Id {
    Id::of_hash(xxh3_128_with_seed(id, ad_group ^ kind.seed()))
}

/// The seed of an ad group for hashes of ids.
pub(super) fn ad_group_seed(name: &[u8]) -> u64 {
    xxh3_64(name)
}

/// The 80-bit hash of an event's id in checkpoints of formats in which ids were unique across kinds and ad
/// groups. The probability that a new event has the hash of one of 4 million that are remembered is
/// 1 in 3·10¹⁷: once in 200,000 years at 50,000 events a second.
#[inline]
pub(super) fn legacy_id_of(id: &[u8]) -> Id {
    Id::of_hash(xxh3_128(id))
}

#[derive(Debug)]
pub(super) struct SeenIds {
    recent: IdSet,
    /// Stamps of the recent ids: the oldest and the newest.
    span: Option<(i64, i64)>,
    /// From the oldest to the newest.
    runs: Vec<TimedRun>,
    log_time: LogTime,
    dedupe_window: i64,
    /// Until this log time there may be ids of [`legacy_id_of`].
    legacy_until: i64,
    /// Ids of events from before this time were forgotten under a shorter window.
    forgotten_before: i64,
    /// Names of forgotten or merged runs, whose files are no longer needed.
    dropped: Vec<String>,
    /// A run's file could not be read, so that some answer is wrong.
    failed: AtomicBool,
}

impl Clone for SeenIds {
    fn clone(&self) -> Self {
        Self {
            recent: self.recent.clone(),
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
            recent: empty(),
            span: None,
            runs: Vec::new(),
            log_time: LogTime::default(),
            dedupe_window: micros(DEFAULT_DEDUPE_WINDOW),
            legacy_until: 0,
            forgotten_before: i64::MIN,
            dropped: Vec::new(),
            failed: AtomicBool::new(false),
        }
    }
}

fn empty() -> IdSet {
    IdSet::with_expected(RECENT_IDS)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl SeenIds {
    /// Sets how long ids are remembered from `now` on. If it is longer than before, events that are older than
    /// the earlier window cannot be distinguished from duplicates: [`is_forgotten`](Self::is_forgotten).
    pub(super) fn set_dedupe_window(&mut self, dedupe_window: Duration, now: Timestamp) {
        let dedupe_window = micros(dedupe_window);
        if dedupe_window > self.dedupe_window && self.log_time.newest != Timestamp(0) {
            // A newest record in the future was written under a wrong clock.
            let newest = self.log_time.newest.min(now);
            self.forgotten_before =
                self.forgotten_before.max(newest.0.saturating_sub(self.dedupe_window));
        }
        self.dedupe_window = dedupe_window;
    }

    /// The record time from which on all ids are remembered: see [`LogTime`].
    pub(super) fn remembers_from(&self, now: Timestamp) -> Timestamp {
        // A newest record in the future was written under a wrong clock.
        Timestamp(self.log_time.newest.min(now).0.saturating_sub(self.dedupe_window))
    }

    /// Whether an id was seen within the window before an event's time.
    #[inline]
    pub(super) fn contains(&self, id: Id, at: Timestamp) -> bool {
        let counts = |newest: i64| at.0 < newest.saturating_add(self.dedupe_window);
        if self.span.is_some_and(|(_, newest)| counts(newest)) && self.recent.contains(id) {
            return true;
        }
        let mut runs = self.runs.iter().rev().filter(|timed| counts(timed.newest));
        runs.any(|timed| match timed.run.contains(id) {
            Ok(found) => found,
            Err(_) => {
                // The caller drops the state, and reads the runs again.
                self.failed.store(true, Ordering::Relaxed);
                true
            }
        })
    }

    /// Whether a file could not be read, so that an answer may be wrong.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Remembers an id of an event; `false` if it was seen. Depends on the ids and the times alone, so that every
    /// replica makes the same runs.
    #[inline]
    pub(super) fn insert(&mut self, id: Id, at: Timestamp, logged_at: Timestamp) -> bool {
        let is_new = !self.contains(id, at);
        if is_new {
            self.insert_new(id, at, logged_at);
        }
        is_new
    }

    /// As [`insert`](Self::insert), of an id that is not there: the caller has just looked.
    #[inline]
    pub(super) fn insert_new(&mut self, id: Id, at: Timestamp, logged_at: Timestamp) {
        self.log_time.advance(logged_at);
        let stamp = LogTime::stamp(at, logged_at);
        let (mut oldest, mut newest) = self.span.unwrap_or((stamp, stamp));
        (oldest, newest) = (oldest.min(stamp), newest.max(stamp));
        if self.recent.len() >= RECENT_IDS || newest.saturating_sub(oldest) > self.longest_span() {
            self.seal(stamp);
            (oldest, newest) = (stamp, stamp);
        }
        self.span = Some((oldest, newest));
        self.recent.insert(id);
    }

    /// The longest span of the stamps of a run.
    fn longest_span(&self) -> i64 {
        (self.dedupe_window / SPANS_PER_WINDOW).max(MIN_SPAN)
    }

    /// Makes a run of the recent ids, and forgets runs that are past the window. `stamp`: of the next id.
    #[cold]
    fn seal(&mut self, stamp: i64) {
        if let Some((oldest, newest)) = self.span.take() {
            let mut ids = Vec::with_capacity(self.recent.len());
            ids.extend(self.recent.iter());
            let run = IdRun::new(ids);
            match self.recent.len() == RECENT_IDS {
                // The next ids will probably be as many. The larger memory of earlier versions is released.
                true => self.recent.clear(),
                false => self.recent = empty(),
            }
            self.runs.push(TimedRun { run, oldest, newest, sealed: self.log_time.micros });
        }
        let kept = self.dedupe_window.saturating_add(micros(STEPS * LogTime::MAX_STEP));
        let now = self.log_time.micros;
        let dropped = &mut self.dropped;
        self.runs.retain(|timed| {
            let keep = now.saturating_sub(timed.sealed) <= kept;
            if !keep {
                drop_run(&timed.run, dropped);
            }
            keep
        });
        self.merge(stamp);
    }

    /// Merges runs until there are few of them. Reads their files.
    fn merge(&mut self, stamp: i64) {
        let (span, over) = (self.longest_span(), stamp.saturating_sub(self.dedupe_window));
        while let Some(place) = to_merge(&self.runs, span, over) {
            let Ok(merged) = self.runs[place].merged(&self.runs[place + 1]) else {
                // As for an id that could not be looked up: the caller drops the state.
                return self.failed.store(true, Ordering::Relaxed);
            };
            let parts = self.runs.splice(place..place + 2, [merged]);
            parts.for_each(|part| drop_run(&part.run, &mut self.dropped));
        }
    }

    /// Whether ids of a time were forgotten under a shorter window, so that it is unknown whether an event of
    /// that time is a duplicate.
    #[inline]
    pub(super) fn is_forgotten(&self, at: Timestamp) -> bool {
        at.0 < self.forgotten_before
    }

    /// How long ids are remembered, in microseconds, and the time before which they were forgotten.
    pub(super) fn dedupe_window(&self) -> (i64, i64) {
        (self.dedupe_window, self.forgotten_before)
    }

    /// Restores what [`dedupe_window`](Self::dedupe_window) returned.
    pub(super) fn with_dedupe_window(self, (dedupe_window, forgotten_before): (i64, i64)) -> Self {
        Self { dedupe_window, forgotten_before, ..self }
    }

    /// Loads the table entries of an id into the processor's caches, for a later [`SeenIds::insert`]: the tables
    /// are far larger than the caches.
    #[inline]
    pub(super) fn prefetch(&self, id: Id) {
        self.recent.prefetch(id);
        self.runs.iter().for_each(|timed| timed.run.prefetch(id));
    }

    /// Whether there may be ids of [`legacy_id_of`].
    #[inline]
    pub(super) fn has_legacy(&self) -> bool {
        self.legacy_until > self.log_time.micros
    }

    /// The log time until which there may be ids of [`legacy_id_of`].
    pub(super) fn legacy_until(&self) -> i64 {
        self.legacy_until
    }

    pub(super) fn log_time(&self) -> LogTime {
        self.log_time
    }

    pub(super) fn span(&self) -> Option<(i64, i64)> {
        self.span
    }

    pub(super) fn runs(&self) -> &[TimedRun] {
        &self.runs
    }

    /// Runs that are not written yet.
    pub(super) fn unsaved(&self) -> Vec<IdRun> {
        let runs = self.runs.iter().map(|timed| &timed.run);
        runs.filter(|run| run.unsaved().is_some()).cloned().collect()
    }

    /// A run is written. `false` if it is no longer needed.
    pub(super) fn saved(&mut self, name: &str, file: &Arc<dyn IdFile>) -> bool {
        let mut needed = false;
        for timed in self.runs.iter_mut().filter(|timed| timed.run.name() == name) {
            timed.run.saved(Arc::clone(file));
            needed = true;
        }
        needed
    }

    /// Takes the names of runs that are no longer needed.
    pub(super) fn take_dropped(&mut self) -> Vec<String> {
        std::mem::take(&mut self.dropped)
    }

    /// The recent ids.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.recent.len() * Id::WIDTH);
        self.recent.iter().for_each(|id| bytes.extend_from_slice(&id.to_bytes()));
        bytes
    }

    /// Restores what a checkpoint has. `None` if the bytes are not ids.
    pub(super) fn load(
        recent: &[u8],
        span: Option<(i64, i64)>,
        runs: Vec<TimedRun>,
        log_time: LogTime,
        legacy_until: i64,
    ) -> Option<Self> {
        let ids = ids_of(recent)?;
        let mut seen = Self { runs, log_time, legacy_until, ..Self::default() };
        // Without a span the ids get the time of the newest record, so that none is forgotten too early.
        seen.span =
            (!ids.is_empty()).then(|| span.unwrap_or((log_time.newest.0, log_time.newest.0)));
        seen.recent.reserve(ids.len());
        for id in ids {
            seen.recent.insert(id);
        }
        Some(seen)
    }
}

/// Adds the file of a run that is no longer needed to `dropped`, if it has one.
fn drop_run(run: &IdRun, dropped: &mut Vec<String>) {
    if run.unsaved().is_none() {
        dropped.push(run.name().to_owned());
    }
}

/// Decodes ids that [`Id::to_bytes`] has encoded, one after the other.
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
        legacy_id_of(&number.to_le_bytes())
    }

    fn reloaded(seen: &SeenIds) -> SeenIds {
        let recent = seen.to_bytes();
        let loaded =
            SeenIds::load(&recent, seen.span(), seen.runs().to_vec(), seen.log_time(), 0).unwrap();
        assert_eq!(loaded.to_bytes().len(), recent.len());
        loaded
    }

    /// Whether an id is new; the event and its record have the same time.
    fn insert(seen: &mut SeenIds, number: u64, at: Timestamp) -> bool {
        seen.insert(id(number), at, at)
    }

    #[test]
    fn seeds_are_those_of_checkpoints_of_earlier_versions() {
        let seed = |class: u8, number: i64| {
            xxhash_rust::xxh3::xxh3_64_with_seed(&[class], number.cast_unsigned())
        };
        for number in [i32::MIN, -1, 0, 1, 2, 3, 4, 5, i32::MAX] {
            assert_eq!(IdKind::Event(number).seed(), seed(1, number.into()));
            assert_eq!(IdKind::Outcome(number).seed(), seed(3, number.into()));
        }
        for price_since in [i64::MIN, i64::MIN + 1, 0, START.0, i64::MAX] {
            assert_eq!(IdKind::Insertion { price_since }.seed(), seed(2, price_since));
        }
    }

    #[test]
    fn an_id_counts_again_after_the_window() {
        let mut seen = SeenIds::default();
        let mut counted = Vec::new();
        for hours in [0, 12, 25, 36, 49, 73, 97] {
            let now = START.plus(hours * HOUR);
            counted.push(insert(&mut seen, 7, now));
            insert(&mut seen, 1_000 + u64::from(hours), now);
            seen = reloaded(&seen);
        }
        assert_eq!(counted, [true, false, true, false, true, true, true]);
    }

    #[test]
    fn ids_are_remembered_from_a_window_before_the_newest_record() {
        let mut seen = SeenIds::default();
        insert(&mut seen, 1, START.plus(HOUR));
        let from = seen.remembers_from(START.plus(9 * HOUR));
        assert_eq!(from, START.plus(HOUR).minus(DEFAULT_DEDUPE_WINDOW));
        // A record in the future.
        assert_eq!(seen.remembers_from(START), START.minus(DEFAULT_DEDUPE_WINDOW));
    }

    #[test]
    fn a_long_window_is_kept_whatever_the_traffic() {
        let mut seen = SeenIds::default();
        seen.set_dedupe_window(48 * HOUR, START);
        let mut now = START;
        for number in 0..2 * RECENT_IDS as u64 + 9 {
            now = now.plus(Duration::from_micros(100));
            assert!(insert(&mut seen, number, now));
        }
        assert_eq!(seen.runs().iter().map(|timed| timed.run.len()).sum::<usize>(), 2 * RECENT_IDS);
        let later = now.plus(40 * HOUR);
        assert!((0..2 * RECENT_IDS as u64 + 9).step_by(997).all(|n| !insert(&mut seen, n, later)));
    }

    #[test]
    fn memory_is_released() {
        let mut seen = SeenIds::default();
        for step in 0..40 * 6 {
            assert!(insert(&mut seen, step, START.plus(Duration::from_secs(600 * step))));
        }
        assert!(seen.runs().len() <= 28, "{}", seen.runs().len());
        // Runs that were never written need no removal.
        assert_eq!(seen.take_dropped(), Vec::<String>::new());
    }

    #[test]
    fn parts_of_a_merged_run_are_dropped_and_it_is_written() {
        let mut seen = SeenIds::default();
        let mut now = START;
        let mut fill = |seen: &mut SeenIds, from: u64| {
            for number in from..from + RECENT_IDS as u64 {
                now = now.plus(Duration::from_micros(10));
                assert!(insert(seen, number, now));
            }
        };
        fill(&mut seen, 0);
        fill(&mut seen, RECENT_IDS as u64);
        let first = seen.unsaved();
        let [run] = &first[..] else { panic!("{} runs", first.len()) };
        let file: Arc<dyn IdFile> = Arc::new(run.unsaved().unwrap().to_vec());
        assert!(seen.saved(run.name(), &file));
        fill(&mut seen, 2 * RECENT_IDS as u64);
        assert_eq!(seen.take_dropped(), [run.name()]);
        let merged = seen.unsaved();
        assert_eq!(merged.iter().map(IdRun::len).collect::<Vec<_>>(), [2 * RECENT_IDS]);
        assert!(!seen.saved(run.name(), &file), "it is no longer needed");
        assert!((0..3 * RECENT_IDS as u64).step_by(991).all(|n| !insert(&mut seen, n, now)));
    }

    #[test]
    fn a_longer_window_does_not_cover_what_was_forgotten_before() {
        let mut seen = SeenIds::default();
        // Nothing was forgotten yet.
        seen.set_dedupe_window(48 * HOUR, START);
        assert!(!seen.is_forgotten(START.minus(100 * HOUR)));
        insert(&mut seen, 1, START);
        seen.set_dedupe_window(24 * HOUR, START);
        assert!(!seen.is_forgotten(START.minus(100 * HOUR)));
        seen.set_dedupe_window(168 * HOUR, START.plus(HOUR));
        let is_forgotten =
            |seen: &SeenIds| [25, 24, 23].map(|hours| seen.is_forgotten(START.minus(hours * HOUR)));
        assert_eq!(is_forgotten(&seen), [true, false, false]);
        let again = reloaded(&seen).with_dedupe_window(seen.dedupe_window());
        assert_eq!(
            (is_forgotten(&again), again.dedupe_window),
            (is_forgotten(&seen), micros(168 * HOUR))
        );
        // A record in the future.
        insert(&mut seen, 2, START.plus(9_000 * HOUR));
        seen.set_dedupe_window(200 * HOUR, START.plus(HOUR));
        assert!(!seen.is_forgotten(START.plus(HOUR)));
    }

    #[test]
    fn a_late_event_is_remembered_for_the_window_from_its_record_on() {
        let mut seen = SeenIds::default();
        let now = START.plus(DAY);
        assert!(seen.insert(id(1), now.minus(23 * HOUR), now));
        // A retry with a new time.
        let later = now.plus(20 * HOUR);
        assert!(!seen.insert(id(1), later, later));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_reported() {
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
        /// Whatever the node's clock does a few times a day: an id is remembered for a day of real time. The
        /// senders' clocks are right.
        #[test]
        fn an_id_is_remembered_for_a_day_whatever_the_clock_does(
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
                seen = reloaded(&seen);
            }
        }
    }
}
