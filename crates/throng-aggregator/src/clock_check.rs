//! Whether the clock of this process can be right when it opens a partition: steps of a clock are detected while a
//! process runs, and one that is wrong at the start is all that a process knows.
//!
//! A clock that is behind the newest record of the log is wrong, or the one was by which the record was written. One
//! that is ahead looks like one of a process that was stopped for long.

use throng_budget::MAX_AHEAD;
use throng_model::Clock as _;

use super::replica::PartitionReplica;
use super::{Budgets, ProblemKind};

/// There is one clock.
const PROBLEM_KEY: &str = "";

impl Budgets {
    /// Reports a clock that is so far behind the newest record of a partition that is opened that events which are made
    /// now would be refused, as ones of the future.
    pub(super) fn check_clock(&self, partition: &PartitionReplica) {
        let (newest, now) = (partition.newest_record(), self.clock.now());
        if newest.since(now) <= MAX_AHEAD {
            return;
        }
        let detail = format!(
            "the newest record of partition {} of the event log is of {newest}, and by the clock of this machine it is \
             {now}: budgets are those of that time, and events that are made now may be refused; set the clock. If it is \
             right, the record was written under a wrong one, and this ends with the next impression or click",
            partition.number()
        );
        tracing::warn!(
            partition = partition.number(),
            newest_record = %newest,
            now = %now,
            "the clock is behind the event log"
        );
        let mut newer = self.newer_record.lock();
        *newer = Some(newer.map_or(newest, |before| before.max(newest)));
        self.health.report_problem(ProblemKind::Clock, PROBLEM_KEY, detail);
    }

    /// Clears what [`check_clock`](Self::check_clock) reported, once the clock is not behind that record any longer.
    pub(super) fn recheck_clock(&self) {
        let newer = *self.newer_record.lock();
        let Some(newer) = newer else { return };
        if newer.since(self.clock.now()) <= MAX_AHEAD || self.led.load().is_empty() {
            self.confirm_clock();
        }
    }

    /// Events of another machine have the time of this one.
    pub(super) fn confirm_clock(&self) {
        if self.newer_record.lock().take().is_some() {
            self.health.clear_problem(ProblemKind::Clock, PROBLEM_KEY);
        }
    }
}
