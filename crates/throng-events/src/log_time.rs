//! The time of a log by the times of its records. Pure.

use std::time::Duration;

use throng_model::Timestamp;

use crate::event::MAX_AHEAD;

/// How much time has passed in the log: the sum of the steps from one newest record time to the next, each
/// of them at most [`LogTime::MAX_STEP`]. Ids of events are forgotten by it.
///
/// So a clock that steps forward by days counts as ten minutes, and one that steps back does not advance
/// until it is where it was: a wrong clock cannot make ids be forgotten too early. It is computed from the
/// log's times alone, so that a replay has the same result. Where records are further apart than the
/// longest step, ids are remembered longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogTime {
    /// The newest time of any record; zero: there is none yet.
    pub newest: Timestamp,
    /// Microseconds.
    pub micros: i64,
}

impl LogTime {
    /// The most time that passes in the log from one record to the next newer one.
    pub const MAX_STEP: Duration = Duration::from_secs(600);

    /// The time from which an id is remembered, in microseconds: the event's own, or, if it came late, that of its
    /// record. By the event's own time the window is right for senders with a right clock, whatever the node's clock
    /// does.
    #[inline]
    pub fn stamp(at: Timestamp, logged_at: Timestamp) -> i64 {
        const LATE: i64 = MAX_AHEAD.as_micros() as i64;
        if logged_at.0.saturating_sub(at.0) > LATE { logged_at.0 } else { at.0 }
    }

    /// Adds a record.
    #[inline]
    pub fn advance(&mut self, logged_at: Timestamp) {
        if self.newest == Timestamp(0) {
            self.newest = logged_at;
        }
        const LONGEST: i64 = LogTime::MAX_STEP.as_micros() as i64;
        let step = logged_at.0.saturating_sub(self.newest.0).clamp(0, LONGEST);
        self.micros = self.micros.saturating_add(step);
        self.newest = self.newest.max(logged_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_event_is_remembered_from_its_record_on() {
        let minute = 60_000_000;
        for (minutes, wanted) in [(-9, 0), (0, 0), (5, 0), (6, 6)] {
            let stamp = LogTime::stamp(Timestamp(0), Timestamp(minutes * minute));
            assert_eq!(stamp, wanted * minute, "{minutes}");
        }
    }

    #[test]
    fn a_wrong_clock_advances_it_by_one_step_at_most() {
        let (second, mut time) = (1_000_000, LogTime::default());
        for (logged_at, passed) in [(50, 0), (51, 1), (40, 1), (51, 1), (53, 3), (1_000_000, 603)] {
            time.advance(Timestamp(logged_at * second));
            assert_eq!(time.micros, passed * second, "{logged_at}");
        }
        assert_eq!(time.newest, Timestamp(1_000_000 * second));
    }
}
