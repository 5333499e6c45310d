//! Events are checked and appended to the log, and the caller is answered when they are durable and applied.
//!
//! The append is what is acknowledged. If this process leads the partition, the answer also says what became
//! of each event; the wait for that is bounded, and its end is never an error: the events are in the log, and
//! are counted when they are applied.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use throng_budget::{
    EVENTS_PER_RECORD, Event, EventKind, EventProblem, EventRecords, EventRef, MAX_AHEAD,
    MAX_PROBLEMS, RecordEvents, UnknownAdGroups, look_up_each,
};
use throng_log::LogError;
use throng_model::{AdGroupName, Clock as _, Timestamp};
use throng_telemetry::metrics;
use tokio::time::Instant;

use super::applied_catalog::AppliedCatalog;
use super::outcomes::{RecordOutcomes, Rejection};
use super::replica::PartitionReplica;
use super::{Budgets, BudgetsError, ProblemKind, partition_of};

/// The result of a batch of events. They are in the log, except those that are rejected.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accepted {
    /// Events that count; and, if they are not applied yet or another process applies them, all that were
    /// appended.
    pub accepted: u64,
    /// Events whose id was counted before.
    pub duplicates: u64,
    /// Impressions and clicks whose insertion already has one, under another id: they do not count.
    pub repeated: u64,
    /// Events that do not count, by their number in the batch: the first 1,000 of them.
    pub rejected: Vec<(usize, EventProblem)>,
    /// By partition, the first offset of the log after the events: a frame with this log position, or a
    /// higher one, includes them.
    pub positions: Vec<(u32, u64)>,
    /// How many do not count. With `accepted`, `duplicates` and `repeated` it adds up to the batch.
    pub rejected_count: u64,
}

impl Accepted {
    /// The answer for events in the log whose effect is not known.
    fn appended(events: usize, position: (u32, u64)) -> Self {
        Self { accepted: events as u64, positions: vec![position], ..Self::default() }
    }

    /// The answer for events that are applied. `numbers`: those of the events; `offsets`: those of their records.
    fn applied(
        numbers: &[usize],
        records: &[Bytes],
        offsets: &[u64],
        position: (u32, u64),
        outcomes: RecordOutcomes,
    ) -> Self {
        let mut answer = Self { positions: vec![position], ..Self::default() };
        for (offset, outcome) in outcomes {
            answer.duplicates += outcome.duplicates;
            answer.repeated += outcome.repeated;
            let mut written = offsets.iter().zip(records).zip(numbers.chunks(EVENTS_PER_RECORD));
            let own = written.find(|((own, _), _)| **own == offset && !outcome.rejected.is_empty());
            let Some(((_, record), numbers)) = own else { continue };
            // Nothing else is kept of the events: few are rejected here.
            let events: Vec<_> = RecordEvents::new(record).map_while(Result::ok).collect();
            for (index, rejection) in outcome.rejected {
                // The index in the record is not the number in the batch, which has events of other partitions in
                // between. Without this the answer would name events that are not rejected.
                if let (Some(number), Some(event)) = (numbers.get(index), events.get(index)) {
                    answer.reject(*number, || problem(&rejection, event));
                }
            }
        }
        let others = answer.duplicates + answer.repeated + answer.rejected_count;
        answer.accepted = (numbers.len() as u64).saturating_sub(others);
        answer
    }

    fn reject(&mut self, number: usize, problem: impl FnOnce() -> EventProblem) {
        // All are counted and only the first ones listed: a batch of invalid events must not make
        // an answer of the same size.
        self.rejected_count += 1;
        if self.rejected.len() < MAX_PROBLEMS {
            self.rejected.push((number, problem()));
        }
    }

    fn add(&mut self, part: Self) {
        self.accepted += part.accepted;
        self.duplicates += part.duplicates;
        self.repeated += part.repeated;
        self.rejected_count += part.rejected_count;
        self.rejected.extend(part.rejected);
        self.positions.extend(part.positions);
    }
}

fn problem(rejection: &Rejection, event: &EventRef<'_>) -> EventProblem {
    let (field, message, help) = match rejection {
        Rejection::UnknownAdGroup => {
            let name = event.ad_group.as_str();
            return EventProblem::unknown_ad_group(name, std::iter::empty());
        }
        Rejection::TooOld => (
            "at",
            format!("{} is before the time from which ids are remembered", event.at),
            "node.dedupe_hours was raised: events from before the earlier window could count twice",
        ),
        Rejection::Overflow(error) => {
            ("event", error.to_string(), "check the price of the event, or of its ad group")
        }
    };
    EventProblem { line: 0, field: field.to_owned(), message, help: help.to_owned() }
}

/// Events that [`Budgets::check`] has checked: those that can count, as records of the log, and why others cannot.
#[derive(Debug)]
pub struct CheckedEvents {
    partitions: Vec<EventRecords>,
    /// What is rejected so far.
    answer: Accepted,
    /// Ad groups that the applied catalog does not have.
    unknown: HashSet<AdGroupName>,
    /// The catalog against which they were checked.
    applied: Arc<AppliedCatalog>,
    /// Some of the events confirm the clock.
    confirms_clock: bool,
    /// The time against which they were checked.
    now: Timestamp,
}

impl Budgets {
    /// The time by which this process counts: without a step of the system's clock that may be an error. Decisions of
    /// this process, and the insertions that they record, have it too. By the system's clock they would confirm
    /// the step, as events of other machines do.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Appends events to the log. When it returns, those accepted are durable. Those of partitions that this
    /// process leads are applied too, unless that fails or takes longer than the timeout: then they count
    /// when they are applied, and the answer has them as accepted. An event that cannot count is rejected
    /// alone. Waits for one sync of the disk, shared by all calls at the same time, or for the brokers.
    ///
    /// # Errors
    /// [`BudgetsError::Append`] if the log failed, or did not confirm the events within
    /// [`append_timeout`](crate::BudgetsDeps::append_timeout): events of other partitions may be counted. The caller
    /// sends all of them again; those that were counted count once. [`BudgetsError::CatalogBehind`] and
    /// [`BudgetsError::Closed`]: none of them is in the log. Never for a partition whose events are in the log.
    pub async fn accept(&self, events: Vec<Event>) -> Result<Accepted, BudgetsError> {
        let checked = self.check(events.len(), &mut events.iter().map(EventRef::from).enumerate());
        drop(events);
        self.accept_checked(checked, |_, _| std::future::ready(false)).await
    }

    /// Checks events against the applied spec and the clock, and writes those that can count as records of the log.
    /// Each has a number, by which it is named if it is rejected. `expected`: about how many there are. It does no I/O,
    /// and nothing of the events is kept but the records: to be called at once before
    /// [`accept_checked`](Self::accept_checked).
    pub fn check<'a>(
        &self,
        expected: usize,
        events: &mut (impl Iterator<Item = (usize, EventRef<'a>)> + Clone),
    ) -> CheckedEvents {
        // A quarter more than an even share, as no share is even.
        let share = expected / self.count.max(1) * 5 / 4;
        let mut partitions: Vec<EventRecords> =
            (0..self.count).map(|_| EventRecords::with_capacity(share)).collect();
        let (mut answer, mut problems) = (Accepted::default(), UnknownAdGroups::default());
        let mut unknown = HashSet::<AdGroupName>::new();
        // Not by insertions, which decisions of this process record by its own clock.
        let mut confirms_clock = false;
        let applied = self.applied.load_full();
        // One time for all events, which is also the time of their records: replicas check events
        // against it. With a later time an event could be accepted here and rejected there.
        let now = self.clock.time_for(|now| {
            events.clone().all(|(_, event)| event.is_in_time(now, self.dedupe_window))
        });
        let is_known = |name: &[u8]| applied.names.contains(name);
        look_up_each(events, is_known, |number, event, is_known| {
            // Before the append: a record cannot be taken back, and each replica and each replay
            // would have to decode and reject the event again.
            if !is_known {
                let name = event.ad_group.as_str();
                if !unknown.contains(name) {
                    unknown.extend(AdGroupName::new(name));
                }
                return answer.reject(number, || problems.problem(name, applied.zones.keys()));
            }
            match event.check_time(now, self.dedupe_window) {
                Ok(()) => {
                    confirms_clock |= event.kind() != Some(EventKind::Insertion)
                        && now.since(event.at) <= MAX_AHEAD;
                    partitions[partition_of(event.ad_group.as_bytes(), self.count)]
                        .push(number, event);
                }
                Err(problem) => answer.reject(number, || problem),
            }
        });
        CheckedEvents { partitions, answer, unknown, applied, confirms_clock, now }
    }

    /// As [`accept`](Self::accept), of events that are checked; for a process beside others that apply specs. If some
    /// events are of ad groups that the applied catalog does not have, `is_declared_later` is asked, with the
    /// catalog's version and those ad groups, whether a later spec has one of them: then the rejection would be wrong
    /// in a moment.
    ///
    /// # Errors
    /// As [`accept`](Self::accept), and [`BudgetsError::SpecBehind`]: none of the events is in the log.
    pub async fn accept_checked<A>(
        &self,
        mut checked: CheckedEvents,
        is_declared_later: impl FnOnce(u64, HashSet<AdGroupName>) -> A,
    ) -> Result<Accepted, BudgetsError>
    where
        A: Future<Output = bool>,
    {
        // The partitions of this process are stopped: the events would count only when they are led again.
        if self.closed.load(Ordering::Relaxed) {
            return Err(BudgetsError::Closed);
        }
        let unknown = std::mem::take(&mut checked.unknown);
        let version = checked.applied.catalog.version;
        if !unknown.is_empty() && is_declared_later(version, unknown).await {
            return Err(BudgetsError::SpecBehind);
        }
        // After the wait for the ledger, in which a partition may have got another leader.
        self.check_leaders(&checked)?;
        let CheckedEvents { partitions, mut answer, .. } = checked;
        let is_empty = partitions.iter().all(|events| events.is_empty());
        let appends = (0..).zip(partitions).filter(|(_, events)| !events.is_empty());
        // Concurrently: otherwise a batch over many partitions would wait for one sync after the other.
        let appends =
            appends.map(|(partition, events)| self.append(partition, events, checked.now));
        for part in futures::future::try_join_all(appends).await? {
            answer.add(part);
        }
        if checked.confirms_clock {
            self.confirm_clock();
        }
        // Events that are all rejected do not prove a step of the clock.
        if !is_empty {
            self.clock.confirm(checked.now);
        }
        // Each part is in the order of its partition and has the limit for itself: together they
        // can have more than the limit, and an order that depends on the number of partitions.
        answer.rejected.sort_by_key(|(number, _)| *number);
        answer.rejected.truncate(MAX_PROBLEMS);
        metrics::counter!(metrics::EVENTS_ACCEPTED_TOTAL).increment(answer.accepted);
        metrics::counter!(metrics::EVENTS_DUPLICATE_TOTAL).increment(answer.duplicates);
        metrics::counter!(metrics::EVENTS_REPEATED_TOTAL).increment(answer.repeated);
        metrics::counter!(metrics::EVENTS_REJECTED_TOTAL).increment(answer.rejected_count);
        Ok(answer)
    }

    /// Refuses events that the leader of their partition would drop because it has not switched to the spec that has
    /// their ad group. The leader cannot prevent that: before it switches, it applies all that is in the log under its
    /// own spec. Of partitions that this process leads, the answer says what became of the events.
    fn check_leaders(&self, checked: &CheckedEvents) -> Result<(), BudgetsError> {
        let CheckedEvents { partitions, applied, .. } = checked;
        let (led, now) = (self.led.load(), Instant::now());
        let leads = |number: u32| led.iter().any(|p| p.number() == number && !p.is_fenced());
        for ((partition, events), configs) in (0..).zip(partitions).zip(&applied.configs) {
            // A leader that is silent for long has ended. The next one has the newest spec by then, and
            // meanwhile the log accepts events.
            if events.is_empty() || leads(partition) || !self.liveness.is_recent(partition, now) {
                continue;
            }
            let missing = self.feed_state.missing(partition, applied.catalog.version, configs);
            let is_missing = |event: EventRef<'_>| missing.contains(event.ad_group.as_str());
            if !missing.is_empty() && events.events().any(is_missing) {
                return Err(BudgetsError::CatalogBehind { partition });
            }
        }
        Ok(())
    }

    /// Appends, then waits until the events are applied, if this process does that.
    async fn append(
        &self,
        partition: u32,
        events: EventRecords,
        now: Timestamp,
    ) -> Result<Accepted, BudgetsError> {
        // Begins before the append. A slow append leaves less time to wait: both are within the time limit
        // of the request.
        let limit = tokio::time::sleep(self.apply_timeout * 3 / 2);
        tokio::pin!(limit);
        let (numbers, records) = events.finish();
        let records: Vec<Bytes> = records.into_iter().map(Bytes::from).collect();
        let leader: Option<Arc<PartitionReplica>> =
            self.led.load().iter().find(|led| led.number() == partition).map(Arc::clone);
        // Before the append: the events may be applied before it returns.
        let waiting = leader.as_ref().map(|leader| leader.wait_for_outcomes());
        let appended = self.append_in_time(partition, records.clone(), now).await;
        self.report_append(partition, appended.as_ref().err());
        let offsets = appended.map_err(|error| BudgetsError::Append(Arc::new(error)))?;
        let end = offsets.iter().max().map_or(0, |last| last.saturating_add(1));
        let position = (partition, end);
        let outcomes = match leader.zip(waiting) {
            Some((leader, waiting)) => {
                let applied = tokio::select! {
                    // Events that are applied already are reported, however long the append took.
                    biased;
                    applied = leader.wait_until_applied(end, self.apply_timeout) => applied,
                    () = &mut limit => false,
                };
                applied.then(|| waiting.take(&offsets)).flatten()
            }
            None => None,
        };
        // An unknown outcome is not an error: the events are in the log, and the caller would send
        // all of them again without effect.
        Ok(match outcomes {
            Some(outcomes) => Accepted::applied(&numbers, &records, &offsets, position, outcomes),
            None => Accepted::appended(numbers.len(), position),
        })
    }

    /// As [`append_records`](Self::append_records), for a caller who does not wait for long: where brokers are gone, the
    /// client keeps the records for half a minute.
    async fn append_in_time(
        &self,
        partition: u32,
        records: Vec<Bytes>,
        now: Timestamp,
    ) -> Result<Vec<u64>, LogError> {
        let appending = self.append_records(partition, records, now);
        let appended = tokio::time::timeout(self.append_timeout, appending).await;
        appended.unwrap_or(Err(LogError::AppendTimeout { limit: self.append_timeout }))
    }

    /// Appends records and returns the offset of each.
    async fn append_records(
        &self,
        partition: u32,
        records: Vec<Bytes>,
        now: Timestamp,
    ) -> Result<Vec<u64>, LogError> {
        if self.log.is_exclusive() || records.len() == 1 {
            let count = records.len() as u64;
            let first = self.log.append(partition, now, records).await?;
            return Ok((first..first.saturating_add(count)).collect());
        }
        // One by one: in a log of many processes the records of others may get offsets between them.
        let appends =
            records.into_iter().map(|record| self.log.append(partition, now, vec![record]));
        futures::future::try_join_all(appends).await
    }

    /// Waits until what is in the log is applied by the partitions that this process leads, so that it is
    /// applied under the spec under which it was acknowledged. A partition that does not get there in time is
    /// logged, and does not keep a spec from being applied. One whose task has failed does: the
    /// [`checkpoint`](Self::checkpoint) before the new spec fails until the partition is reopened.
    pub async fn catch_up(&self) {
        let led: Vec<Arc<PartitionReplica>> = self.led.load().iter().map(Arc::clone).collect();
        let waits =
            led.iter().filter(|partition| !partition.is_fenced()).map(|partition| async move {
                match partition.catch_up(self.apply_timeout).await {
                    Ok(true) => {}
                    Ok(false) => tracing::warn!(
                        partition = partition.number(),
                        "events in the log are not applied yet: they will be under the next spec"
                    ),
                    Err(error) => tracing::warn!(
                        partition = partition.number(),
                        error = &error as &dyn std::error::Error,
                        "failed to read the end of the event log before a spec is applied"
                    ),
                }
            });
        futures::future::join_all(waits).await;
    }

    /// Reports to the node's health whether the log accepts events.
    fn report_append(&self, partition: u32, error: Option<&LogError>) {
        let key = log_problem_key(partition);
        match error {
            // Whoever follows the reachability of the log reports it, and its end at once.
            Some(LogError::Unreachable { .. }) => {}
            Some(error) => {
                let kind = if error.is_disk_error() { ProblemKind::Disk } else { ProblemKind::Log };
                self.refusing.lock().insert(partition);
                self.health.report_problem(kind, &key, throng_model::with_causes(error));
            }
            // Both kinds: the errors since the last success can be of both, and the other one would
            // stay open forever.
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
            self.report_append(partition, probed.as_ref().err());
        }
    }
}

/// The key of the health problem of a partition's log.
fn log_problem_key(partition: u32) -> String {
    format!("log/{partition}")
}

#[cfg(test)]
mod tests {
    use throng_budget::EventMoney;
    use throng_model::MoneyError;

    use super::super::outcomes::RecordOutcome;
    use super::*;

    #[test]
    fn an_answer_names_events_by_their_number_in_the_batch() {
        let event = |number: usize| Event {
            id: number.to_string(),
            kind: EventKind::Impression,
            ad_group: AdGroupName::new("shoes").unwrap(),
            insertion_id: None,
            at: Timestamp(1),
            inserted_at: None,
            money: EventMoney::NONE,
            placement: None,
        };
        // Every other event of the batch is of another partition.
        let mut events = EventRecords::with_capacity(100);
        (0..25_000).for_each(|n| events.push(2 * n, &EventRef::from(&event(n))));
        let (numbers, records) = events.finish();
        let records: Vec<Bytes> = records.into_iter().map(Bytes::from).collect();
        let rejected = |rejected: &[(usize, Rejection)]| RecordOutcome {
            duplicates: 1,
            repeated: 2,
            rejected: rejected.to_vec(),
        };
        let overflow = Rejection::Overflow(MoneyError::Overflow);
        let outcomes = RecordOutcomes::from([
            (7, rejected(&[(3, Rejection::TooOld)])),
            (9, rejected(&[(4_998, Rejection::UnknownAdGroup), (4_999, overflow)])),
        ]);
        let answer = Accepted::applied(&numbers, &records, &[7, 8, 9], (4, 10), outcomes);
        assert_eq!((answer.duplicates, answer.repeated, answer.rejected_count), (2, 4, 3));
        assert_eq!(answer.accepted, 25_000 - 9);
        let named: Vec<usize> = answer.rejected.iter().map(|(number, _)| *number).collect();
        assert_eq!(named, [6, 49_996, 49_998]);
        let fields: Vec<&str> =
            answer.rejected.iter().map(|(_, problem)| problem.field.as_str()).collect();
        assert_eq!(fields, ["at", "ad_group", "event"]);
        assert_eq!(answer.positions, [(4, 10)]);
    }
}
