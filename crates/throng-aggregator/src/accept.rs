//! Events are checked and appended to the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use throng_budget::{Event, EventProblem, MAX_PROBLEMS};
use throng_model::{AdGroupName, Clock as _, TimeZoneName, Timestamp};
use throng_telemetry::metrics;

use super::{
    Accepted, AppendMode, Budgets, BudgetsError, ProblemKind, apply, catalog, partition_of,
};

/// Whether an event can count.
fn check(
    event: &Event,
    zones: &HashMap<AdGroupName, TimeZoneName>,
    now: Timestamp,
    dedupe_window: Duration,
) -> Result<(), EventProblem> {
    if !zones.contains_key(&event.ad_group) {
        let nearest = catalog::nearest(&event.ad_group, zones.keys());
        return Err(EventProblem::unknown_ad_group(&event.ad_group, nearest));
    }
    event.check_time(now, dedupe_window)
}

impl Budgets {
    /// Appends events to the log. When it returns, those accepted are durable; where this process
    /// alone appends, they are applied too, unless that fails: then they are applied when the partition
    /// is reopened. An event that cannot count is rejected alone. Waits for one sync of the disk, shared by
    /// all calls at the same time, or for the brokers.
    ///
    /// # Errors
    /// [`BudgetsError::Append`] if the log failed: events of other partitions may be counted. The caller
    /// sends all of them again; those that were counted count once. [`BudgetsError::Closed`],
    /// [`BudgetsError::Unavailable`]. Never for a partition whose events are in the log.
    pub async fn accept(&self, events: Vec<Event>) -> Result<Accepted, BudgetsError> {
        let mut by_partition: Vec<Vec<(usize, Event)>> = vec![Vec::new(); self.count];
        let mut answer = Accepted::default();
        let applied = self.applied.load();
        let now = self
            .clock
            .time_for(|now| events.iter().all(|e| e.check_time(now, self.dedupe_window).is_ok()));
        for (index, event) in events.into_iter().enumerate() {
            let partition = partition_of(&event.ad_group, self.count);
            match check(&event, &applied.zones, now, self.dedupe_window) {
                Ok(()) => by_partition[partition].push((index, event)),
                Err(problem) => answer.reject(index, problem),
            }
        }
        let appends = by_partition.into_iter().enumerate().filter(|(_, e)| !e.is_empty());
        let appends = appends.map(|(partition, events)| self.append(partition, events, now));
        for part in futures::future::try_join_all(appends).await? {
            answer.accepted += part.accepted;
            answer.duplicates += part.duplicates;
            answer.repeated += part.repeated;
            answer.rejected_count += part.rejected_count;
            answer.rejected.extend(part.rejected);
            answer.positions.extend(part.positions);
        }
        answer.rejected.sort_by_key(|(index, _)| *index);
        answer.rejected.truncate(MAX_PROBLEMS);
        metrics::counter!(metrics::EVENTS_ACCEPTED_TOTAL).increment(answer.accepted);
        metrics::counter!(metrics::EVENTS_DUPLICATE_TOTAL).increment(answer.duplicates);
        metrics::counter!(metrics::EVENTS_REPEATED_TOTAL).increment(answer.repeated);
        metrics::counter!(metrics::EVENTS_REJECTED_TOTAL).increment(answer.rejected_count);
        Ok(answer)
    }

    async fn append(
        &self,
        partition: usize,
        events: Vec<(usize, Event)>,
        now: Timestamp,
    ) -> Result<Accepted, BudgetsError> {
        let number = partition as u32;
        let appended = match self.append_mode {
            AppendMode::Exclusive => {
                let led = self.led.load_full();
                match led.iter().find(|p| p.number() == number) {
                    Some(leader) => leader.append(events, now).await,
                    None => Err(BudgetsError::Unavailable { partition: number }),
                }
            }
            AppendMode::Shared => {
                let records: Vec<bytes::Bytes> =
                    apply::records(events.iter().map(|(_, event)| event));
                let count = records.len() as u64;
                let appended = self.log.append(number, now, records).await;
                appended
                    .map(|first| Accepted::appended(&events, (number, first.saturating_add(count))))
                    .map_err(|error| BudgetsError::Append(Arc::new(error)))
            }
        };
        self.report_append(number, appended.as_ref().err());
        appended
    }

    /// Reports to the node's health whether the log accepts events.
    fn report_append(&self, partition: u32, error: Option<&BudgetsError>) {
        let key = log_problem_key(partition);
        match error {
            Some(BudgetsError::Append(error)) => {
                let kind = if error.is_disk_error() { ProblemKind::Disk } else { ProblemKind::Log };
                self.refusing.lock().insert(partition);
                let detail = throng_model::with_causes(&**error);
                self.health.report_problem(kind, &key, detail);
            }
            Some(_) => {}
            None if self.refusing.lock().remove(&partition) => {
                self.health.clear_problem(ProblemKind::Disk, &key);
                self.health.clear_problem(ProblemKind::Log, &key);
            }
            None => {}
        }
    }

    /// Probes partitions whose log refused events, by an append of nothing: while the node is not ready,
    /// nobody sends events by which it would notice that the log accepts them again.
    pub(super) async fn probe_refusing(&self) {
        let refusing: Vec<u32> = self.refusing.lock().iter().copied().collect();
        for partition in refusing {
            let probed = self.log.append(partition, self.clock.now(), Vec::new()).await;
            let error = probed.err().map(|error| BudgetsError::Append(Arc::new(error)));
            self.report_append(partition, error.as_ref());
        }
    }
}

/// The key of the health problem of a partition's log.
fn log_problem_key(partition: u32) -> String {
    format!("log/{partition}")
}
