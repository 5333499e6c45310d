//! The clock of budgets. The system's clock can be set wrong and right again, by hand or by NTP: windows
//! that were closed in between would be lost, and a day's budget spent twice. So a step forward is accepted
//! only when it lasts, or when events confirm it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use throng_model::{Clock, Timestamp};

/// A smaller difference is not a step: clocks are corrected by so much at a time, and timers of a busy
/// machine are late.
const TOLERANCE: Duration = Duration::from_secs(30);
/// A step is accepted without events when it has lasted for so long.
const ACCEPT_STEP_AFTER: Duration = Duration::from_secs(600);
/// And after this time if events confirm it.
const ACCEPT_CONFIRMED_STEP_AFTER: Duration = Duration::from_secs(60);

/// Filters steps out of the system's clock. Pure.
///
/// It follows the system's clock as long as that advances like the monotonic timer. A step back is followed at once:
/// nothing is closed by it. After a step forward it advances with the timer, until the clock is back, or the step has
/// lasted for ten minutes, or for one minute in which events came that are valid by the clock's time and not by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ClockFilter {
    at: Timestamp,
    elapsed: Duration,
    /// Since when the clock is ahead, by the monotonic timer.
    ahead_since: Option<Duration>,
    /// Events confirm the clock.
    confirmed: bool,
}

impl ClockFilter {
    fn new(wall: Timestamp, elapsed: Duration) -> Self {
        Self { at: wall, elapsed, ahead_since: None, confirmed: false }
    }

    fn advance(&mut self, wall: Timestamp, elapsed: Duration) -> Timestamp {
        let paced = self.at.plus(elapsed.saturating_sub(self.elapsed));
        self.elapsed = elapsed;
        // A step back is followed too: an earlier time closes no windows. It also ends a pending
        // step forward: the clock was wrong.
        if wall <= paced.plus(TOLERANCE) {
            (self.ahead_since, self.confirmed, self.at) = (None, false, wall);
            return wall;
        }
        // Measured by the timer: the clock that has stepped does not know for how long.
        let since = *self.ahead_since.get_or_insert(elapsed);
        let needed = if self.confirmed { ACCEPT_CONFIRMED_STEP_AFTER } else { ACCEPT_STEP_AFTER };
        let accepted = elapsed.saturating_sub(since) >= needed;
        if accepted {
            (self.ahead_since, self.confirmed) = (None, false);
        }
        self.at = if accepted { wall } else { paced };
        self.at
    }
}

/// The system's clock without its steps: see [`ClockFilter`].
#[derive(Debug)]
pub(super) struct SteadyClock {
    clock: Arc<dyn Clock>,
    filter: Mutex<ClockFilter>,
}

impl SteadyClock {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let filter = Mutex::new(ClockFilter::new(clock.now(), clock.elapsed()));
        Self { clock, filter }
    }

    /// The time against which events are checked: this clock's, unless they are valid by the system's clock
    /// alone. `is_valid`: whether all events are valid at a time.
    pub(super) fn time_for(&self, mut is_valid: impl FnMut(Timestamp) -> bool) -> Timestamp {
        let (steady, wall) = (self.now(), self.clock.now());
        // Only events that are valid by the system's clock alone are evidence for it. Events that
        // are valid by both, or by neither, say nothing about a step.
        let is_evidence = wall.since(steady) > TOLERANCE && !is_valid(steady) && is_valid(wall);
        if is_evidence { wall } else { steady }
    }

    /// Events were accepted that were checked against this [time](Self::time_for). If that is the system's clock's, two
    /// clocks agree: this machine's and the sender's.
    pub(super) fn confirm(&self, checked: Timestamp) {
        let mut filter = self.filter.lock();
        filter.confirmed |= filter.ahead_since.is_some() && checked.since(filter.at) > TOLERANCE;
    }

    /// Whether the system's clock has stepped forward and the step is not accepted yet.
    pub(super) fn has_pending_step(&self) -> bool {
        // Advances the filter: a step since the last call is not known to it before.
        self.now();
        self.filter.lock().ahead_since.is_some()
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.filter.lock().advance(self.clock.now(), self.clock.elapsed())
    }

    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    fn wall_duration(&self, duration: Duration) -> Duration {
        self.clock.wall_duration(duration)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use throng_model::ManualClock;

    use super::*;

    const START: Timestamp = Timestamp(1_767_225_600_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn clocks() -> (Arc<ManualClock>, SteadyClock) {
        let manual = Arc::new(ManualClock::new(START));
        let steady = SteadyClock::new(Arc::clone(&manual) as Arc<dyn Clock>);
        (manual, steady)
    }

    #[test]
    fn a_step_forward_and_back_is_not_followed() {
        let (manual, steady) = clocks();
        for jump in [HOUR, 24 * HOUR, 48 * HOUR] {
            let before = steady.now();
            manual.step(manual.now().plus(jump));
            manual.advance(secs(5));
            assert_eq!(steady.now(), before.plus(secs(5)));
            assert!(steady.has_pending_step());
            manual.step(manual.now().minus(jump));
            assert_eq!(steady.now(), before.plus(secs(5)));
            assert!(!steady.has_pending_step());
        }
    }

    #[test]
    fn a_step_that_lasts_is_accepted() {
        let (manual, steady) = clocks();
        manual.step(START.plus(HOUR));
        assert_eq!(steady.now(), START);
        manual.advance(secs(599));
        assert_eq!(steady.now(), START.plus(secs(599)));
        manual.advance(secs(1));
        assert_eq!(steady.now(), manual.now());
    }

    #[test]
    fn a_step_that_events_confirm_is_accepted_sooner() {
        let (manual, steady) = clocks();
        manual.step(START.plus(HOUR));
        let by_the_clock = |now: Timestamp| now >= START.plus(HOUR);
        assert_eq!(steady.time_for(|_| true), START, "events that are valid anyway prove nothing");
        assert_eq!(steady.time_for(|_| false), START, "neither do events that are never valid");
        steady.confirm(START);
        assert!(!steady.filter.lock().confirmed);
        assert_eq!(steady.time_for(by_the_clock), START.plus(HOUR));
        steady.confirm(START.plus(HOUR));
        manual.advance(secs(59));
        assert_eq!(steady.now(), START.plus(secs(59)));
        manual.advance(secs(1));
        assert_eq!(steady.now(), manual.now());
    }

    #[test]
    fn a_step_that_is_over_is_not_confirmed() {
        let (manual, steady) = clocks();
        manual.step(START.plus(HOUR));
        let checked = steady.time_for(|now| now >= START.plus(HOUR));
        manual.step(START);
        assert_eq!((checked, steady.now()), (START.plus(HOUR), START));
        steady.confirm(checked);
        // Another step is not confirmed by events of the one before.
        manual.step(START.plus(HOUR));
        assert_eq!(steady.now(), START);
        manual.advance(secs(60));
        assert_eq!(steady.now(), START.plus(secs(60)));
    }

    #[test]
    fn a_step_back_is_followed_at_once() {
        let (manual, steady) = clocks();
        manual.step(START.minus(HOUR));
        assert_eq!(steady.now(), START.minus(HOUR));
    }

    proptest! {
        /// As long as the clock is wrong for less than ten minutes at a time, budgets are never further
        /// ahead of real time than the tolerance.
        #[test]
        fn short_errors_never_move_it_ahead(
            errors in prop::collection::vec((1u64..5_000, 1i64..200_000, 1u64..540), 1..20),
        ) {
            let (manual, steady) = clocks();
            let mut real = START;
            for (right, error, wrong) in errors {
                let error = Duration::from_secs(error.unsigned_abs());
                for second in 0..right {
                    manual.advance(secs(1));
                    real = real.plus(secs(1));
                    if second % 7 == 0 {
                        prop_assert_eq!(steady.now(), real);
                    }
                }
                manual.step(manual.now().plus(error));
                for _ in 0..wrong {
                    manual.advance(secs(1));
                    real = real.plus(secs(1));
                    prop_assert!(steady.now() <= real.plus(TOLERANCE + secs(7)));
                }
                manual.step(real);
                prop_assert_eq!(steady.now(), real);
            }
        }
    }
}
