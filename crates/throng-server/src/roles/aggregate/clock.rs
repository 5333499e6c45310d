//! The time that budgets go by. The system's clock can be set wrong and right again, by hand or by NTP:
//! windows that were closed meanwhile would be lost, and a day's budget be given out twice. So a step
//! forward is believed only when something else agrees with it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use throng_model::{Clock, Timestamp};

/// A difference that is no step: clocks are corrected by so much at a time, and timers of a busy machine
/// are late.
const TOLERANCE: Duration = Duration::from_secs(30);
/// A step is believed without any event when it has lasted for so long.
const BELIEVED_AFTER: Duration = Duration::from_secs(600);
/// And so soon if events agree with it.
const CONFIRMED_AFTER: Duration = Duration::from_secs(60);

/// How far the time of budgets has come. Pure.
///
/// It follows the system's clock as long as that goes at the pace of a timer that nobody sets. A step back
/// is followed at once: nothing is closed by it. After a step forward it goes on at the timer's pace, until
/// the clock is back, or the step has lasted for ten minutes, or for one minute in which events came that
/// are of the clock's time and not of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Horizon {
    at: Timestamp,
    elapsed: Duration,
    /// Since when the clock is ahead, by the timer.
    ahead_since: Option<Duration>,
    /// Events agree with the clock.
    confirmed: bool,
}

impl Horizon {
    fn new(wall: Timestamp, elapsed: Duration) -> Self {
        Self { at: wall, elapsed, ahead_since: None, confirmed: false }
    }

    fn advance(&mut self, wall: Timestamp, elapsed: Duration) -> Timestamp {
        let paced = self.at.plus(elapsed.saturating_sub(self.elapsed));
        self.elapsed = elapsed;
        if wall <= paced.plus(TOLERANCE) {
            (self.ahead_since, self.confirmed, self.at) = (None, false, wall);
            return wall;
        }
        let since = *self.ahead_since.get_or_insert(elapsed);
        let needed = if self.confirmed { CONFIRMED_AFTER } else { BELIEVED_AFTER };
        let believed = elapsed.saturating_sub(since) >= needed;
        if believed {
            (self.ahead_since, self.confirmed) = (None, false);
        }
        self.at = if believed { wall } else { paced };
        self.at
    }
}

/// The system's clock without its steps: see [`Horizon`].
#[derive(Debug)]
pub(super) struct SteadyClock {
    clock: Arc<dyn Clock>,
    horizon: Mutex<Horizon>,
}

impl SteadyClock {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let horizon = Mutex::new(Horizon::new(clock.now(), clock.elapsed()));
        Self { clock, horizon }
    }

    /// The time that events are checked by: this clock's, unless there are events that can be right only
    /// by the system's.
    pub(super) fn time_for(&self, mut fits: impl FnMut(Timestamp) -> bool) -> Timestamp {
        let (steady, wall) = (self.now(), self.clock.now());
        if wall.since(steady) <= TOLERANCE || fits(steady) || !fits(wall) {
            return steady;
        }
        // Two clocks agree, this machine's and the sender's.
        self.horizon.lock().confirmed = true;
        wall
    }

    /// Whether the system's clock has stepped forward and is not believed yet.
    pub(super) fn is_ahead(&self) -> bool {
        self.now();
        self.horizon.lock().ahead_since.is_some()
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.horizon.lock().advance(self.clock.now(), self.clock.elapsed())
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
            assert!(steady.is_ahead());
            manual.step(manual.now().minus(jump));
            assert_eq!(steady.now(), before.plus(secs(5)));
            assert!(!steady.is_ahead());
        }
    }

    #[test]
    fn a_step_that_lasts_is_believed() {
        let (manual, steady) = clocks();
        manual.step(START.plus(HOUR));
        assert_eq!(steady.now(), START);
        manual.advance(secs(599));
        assert_eq!(steady.now(), START.plus(secs(599)));
        manual.advance(secs(1));
        assert_eq!(steady.now(), manual.now());
    }

    #[test]
    fn a_step_that_events_agree_with_is_believed_sooner() {
        let (manual, steady) = clocks();
        manual.step(START.plus(HOUR));
        let of_the_clock = |now: Timestamp| now >= START.plus(HOUR);
        assert_eq!(steady.time_for(|_| true), START, "events that fit prove nothing");
        assert_eq!(steady.time_for(|_| false), START, "nor do events that never do");
        assert_eq!(steady.time_for(of_the_clock), START.plus(HOUR));
        manual.advance(secs(59));
        assert_eq!(steady.now(), START.plus(secs(59)));
        manual.advance(secs(1));
        assert_eq!(steady.now(), manual.now());
    }

    #[test]
    fn a_step_back_is_followed_at_once() {
        let (manual, steady) = clocks();
        manual.step(START.minus(HOUR));
        assert_eq!(steady.now(), START.minus(HOUR));
    }

    proptest! {
        /// Against real time: as long as the clock is wrong for less than ten minutes at a time, budgets
        /// are never further ahead of real time than the tolerance allows.
        #[test]
        fn short_errors_never_take_it_ahead(
            spells in prop::collection::vec((1u64..5_000, 1i64..200_000, 1u64..540), 1..20),
        ) {
            let (manual, steady) = clocks();
            let mut real = START;
            for (right, error, wrong) in spells {
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
