//! Events on their way into the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use throng_budget::{Event, EventProblem, MAX_PROBLEMS};
use throng_model::{AdGroupName, Clock as _, TimeZoneName, Timestamp};
use throng_telemetry::metrics;

use super::{Budgets, BudgetsError, Intake, apply, catalog, partition_of};
use crate::ProblemClass;

/// What became of a batch of events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accepted {
    /// Events that count.
    pub accepted: u64,
    /// Events that had been counted before, by their id.
    pub duplicates: u64,
    /// Impressions and clicks whose insertion had had one under another id: they do not count.
    pub repeated: u64,
    /// Events that do not count, by their place in the batch: the first 1,000 of them.
    pub rejected: Vec<(usize, EventProblem)>,
    /// By partition, the first offset of the log behind the events: a frame of the feed that includes it
    /// includes them.
    pub positions: Vec<(u32, u64)>,
    /// How many do not count. With `accepted`, `duplicates` and `repeated` it adds up to the batch.
    pub rejected_count: u64,
}

impl Accepted {
    pub(super) fn reject(&mut self, place: usize, problem: EventProblem) {
        self.rejected_count += 1;
        if self.rejected.len() < MAX_PROBLEMS {
            self.rejected.push((place, problem));
        }
    }
}

/// Whether an event can count.
fn check(
    event: &Event,
    names: &HashMap<AdGroupName, TimeZoneName>,
    now: Timestamp,
    promise: Duration,
) -> Result<(), EventProblem> {
    if !names.contains_key(&event.ad_group) {
        let meant = catalog::nearest(&event.ad_group, names.keys());
        return Err(EventProblem::unknown_ad_group(&event.ad_group, meant));
    }
    event.check_time(now, promise)
}

impl Budgets {
    /// Takes events in. When it returns, those accepted are durable; where this process alone
    /// appends, they are counted too. An event that cannot count is rejected alone. Waits for one
    /// sync of the disk, shared with whoever else calls at the time, or for the brokers.
    ///
    /// # Errors
    /// [`BudgetsError::Append`] if the log failed: some of the events may be counted, and sending
    /// all of them again is right, as those count once. [`BudgetsError::Closed`],
    /// [`BudgetsError::Unavailable`].
    pub async fn accept(&self, events: Vec<Event>) -> Result<Accepted, BudgetsError> {
        let mut by_partition: Vec<Vec<(usize, Event)>> = vec![Vec::new(); self.count];
        let mut answer = Accepted::default();
        let known = self.known.load();
        let now = self
            .clock
            .time_for(|now| events.iter().all(|e| e.check_time(now, self.promise).is_ok()));
        for (place, event) in events.into_iter().enumerate() {
            let partition = partition_of(&event.ad_group, self.count);
            match check(&event, &known.zones, now, self.promise) {
                Ok(()) => by_partition[partition].push((place, event)),
                Err(problem) => answer.reject(place, problem),
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
        answer.rejected.sort_by_key(|(place, _)| *place);
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
        let appended = match self.intake {
            Intake::Here => {
                let own = self.own.load_full();
                match own.iter().find(|p| p.number() == number) {
                    Some(owner) => owner.append(events, now).await,
                    None => Err(BudgetsError::Unavailable { partition: number }),
                }
            }
            Intake::Log => {
                let accepted = events.len() as u64;
                let records: Vec<bytes::Bytes> =
                    apply::records(events.iter().map(|(_, event)| event));
                let count = records.len() as u64;
                let appended = self.log.append(number, now, records).await;
                appended
                    .map(|first| {
                        let positions = vec![(number, first.saturating_add(count))];
                        Accepted { accepted, positions, ..Accepted::default() }
                    })
                    .map_err(|error| BudgetsError::Append(Arc::new(error)))
            }
        };
        self.note_append(number, appended.as_ref().err());
        appended
    }

    /// Tells the health of the node whether the log takes events.
    fn note_append(&self, partition: u32, error: Option<&BudgetsError>) {
        let key = log_key(partition);
        match error {
            Some(BudgetsError::Append(error)) => {
                let class = if error.is_of_disk() { ProblemClass::Disk } else { ProblemClass::Log };
                self.refusing.lock().insert(partition);
                self.health.report(class, &key, throng_model::with_causes(&**error));
            }
            Some(_) => {}
            None if self.refusing.lock().remove(&partition) => {
                self.health.clear(ProblemClass::Disk, &key);
                self.health.clear(ProblemClass::Log, &key);
            }
            None => {}
        }
    }

    /// Looks whether partitions whose log refused events take them again: while the node is not ready,
    /// nobody sends any.
    pub(super) async fn probe_refusing(&self) {
        let refusing: Vec<u32> = self.refusing.lock().iter().copied().collect();
        for partition in refusing {
            let probed = self.log.append(partition, self.clock.now(), Vec::new()).await;
            let error = probed.err().map(|error| BudgetsError::Append(Arc::new(error)));
            self.note_append(partition, error.as_ref());
        }
    }
}

/// The key of a problem of a partition's log.
fn log_key(partition: u32) -> String {
    format!("log/{partition}")
}
