//! From the log's records to a partition's state: the task of a partition that this process alone
//! appends to, and that of one that others append to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use throng_budget::{
    Applied, Engine, Event, EventProblem, EventRef, Tally, events_to_record, read_record,
};
use throng_log::{EventLog, LogError, Record, Tail};
use throng_model::{Clock, Timestamp};
use throng_telemetry::metrics;
use tokio::sync::{mpsc, oneshot, watch};

use super::partition::State;
use super::position::checksum;
use super::quarantine::Quarantine;
use super::{Accepted, BudgetsError, Intake};

/// One append takes in no more waiting batches once it has this many events.
const APPEND_EVENTS: usize = 50_000;
/// Events of one record: it stays far below the longest that a log takes.
const RECORD_EVENTS: usize = 10_000;
/// Events that are read before they are applied: they stay in the processor's caches.
const TOGETHER: usize = 512;
/// After a log failed a follower.
const AFTER_TROUBLE: Duration = Duration::from_secs(1);

/// Events that wait to be appended, with their places in the caller's batch.
pub(super) struct Batch {
    pub(super) events: Vec<(usize, Event)>,
    /// The time that they were checked by.
    pub(super) now: Timestamp,
    pub(super) done: oneshot::Sender<Result<Accepted, Arc<LogError>>>,
}

/// How records are applied.
pub(super) struct Applying<'a> {
    pub(super) number: u32,
    pub(super) intake: Intake,
    pub(super) quarantine: &'a Quarantine,
    pub(super) now: Timestamp,
    /// How old events may be.
    pub(super) promise: Duration,
    /// Records are applied one by one, so that it is known which of them fails.
    pub(super) one_by_one: bool,
}

/// Applies what was appended since the checkpoint, and follows on from there.
pub(super) async fn replay(
    applying: &Applying<'_>,
    state: &mut State,
    log: &dyn EventLog,
) -> Result<(Tally, Box<dyn Tail>), BudgetsError> {
    let number = applying.number;
    let mut tally = Tally::default();
    let begin = state.offset;
    let mut tail = log.tail(number, begin).await?;
    // More comes while a long replay lasts.
    loop {
        let end = log.end(number).await?;
        if state.offset >= end {
            break;
        }
        while state.offset < end {
            let records = tail.next().await?;
            tally += applying.apply(state, &records)?;
            state.advance(tail.position(), &records);
        }
    }
    if state.offset > begin {
        tracing::info!(partition = number, records = state.offset - begin, "events replayed");
    }
    Ok((tally, tail))
}

impl Applying<'_> {
    /// Applies records' events, each for itself. Where anybody may append, events are checked here,
    /// against the record's time, so that a replay decides the same. A record that is none goes to the
    /// quarantine.
    ///
    /// # Errors
    /// [`BudgetsError::Panicked`]: the state is of no more use.
    fn apply(&self, state: &mut State, records: &[Record]) -> Result<Tally, BudgetsError> {
        let mut events: Vec<(EventRef<'_>, Timestamp)> = Vec::with_capacity(TOGETHER);
        let (mut tally, mut refused) = (Tally::default(), 0);
        let mut first = records.first().map_or(0, |record| record.offset);
        for record in records {
            if events.is_empty() {
                // Also past records that give none.
                first = record.offset;
            }
            if self.quarantine.holds(record.offset) {
                refused += 1;
                continue;
            }
            let before = events.len();
            let read = read_record(&record.value, |event| {
                if self.intake == Intake::Here || event.is_sound(record.at, self.promise) {
                    events.push((event, record.at));
                } else {
                    refused += 1;
                }
            });
            if let Err(problem) = read {
                events.truncate(before);
                refused += 1;
                let reason = format!("it is no throng.events.v1.Events message: {problem}");
                self.quarantine.note(record.offset, &reason, self.now);
            }
            if events.len() >= TOGETHER || self.one_by_one {
                tally += self.apply_events(state, &events, first)?;
                events.clear();
            }
        }
        tally += self.apply_events(state, &events, first)?;
        tally.rejected += refused;
        if tally.rejected > 0 {
            let (from, to) = (records.first().map(|r| r.offset), records.last().map(|r| r.offset));
            tracing::debug!(
                partition = self.number,
                from,
                to,
                rejected = tally.rejected,
                "events of these records do not count: no such ad group, too old, or not as the schema has them"
            );
        }
        Ok(tally)
    }

    /// `offset`: that of the first record that these events may be of.
    fn apply_events(
        &self,
        state: &mut State,
        events: &[(EventRef<'_>, Timestamp)],
        offset: u64,
    ) -> Result<Tally, BudgetsError> {
        // A panic leaves the engine half changed: the caller gives the state up.
        let tally = catch_unwind(AssertUnwindSafe(|| apply_all(&mut state.engine, events)))
            .map_err(|_| BudgetsError::Panicked { partition: self.number, offset })?;
        match state.engine.has_failed() {
            false => Ok(tally),
            true => Err(BudgetsError::Unavailable { partition: self.number }),
        }
    }
}

fn apply_all(engine: &mut Engine, events: &[(EventRef<'_>, Timestamp)]) -> Tally {
    #[cfg(test)]
    events.iter().for_each(|(event, _)| super::tests::panic_at(event.id.as_str()));
    engine.apply_all(events)
}

pub(super) fn count(tally: Tally) {
    metrics::counter!(metrics::EVENTS_APPLIED_TOTAL).increment(tally.counted);
    metrics::counter!(metrics::EVENTS_APPLIED_DUPLICATE_TOTAL).increment(tally.duplicates);
    metrics::counter!(metrics::EVENTS_APPLIED_REPEATED_TOTAL).increment(tally.repeated);
    metrics::counter!(metrics::EVENTS_APPLIED_REJECTED_TOTAL).increment(tally.rejected);
    metrics::counter!(metrics::EVENTS_APPLIED_INSERTED_AT_IGNORED_TOTAL)
        .increment(tally.inserted_at_ignored);
}

/// The task of a partition that others append to: applies what comes.
pub(super) struct Follower {
    pub(super) number: u32,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) progress: watch::Sender<u64>,
    pub(super) owns: Arc<AtomicBool>,
    pub(super) quarantine: Arc<Quarantine>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) promise: Duration,
    pub(super) failed: Arc<AtomicBool>,
}

impl Follower {
    pub(super) async fn run(self, mut tail: Box<dyn Tail>) {
        loop {
            match tail.next().await {
                Ok(records) => {
                    let applying = Applying {
                        number: self.number,
                        intake: Intake::Log,
                        quarantine: &self.quarantine,
                        now: self.clock.now(),
                        promise: self.promise,
                        one_by_one: false,
                    };
                    let mut state = self.state.lock();
                    let Ok(tally) = applying.apply(&mut state, &records) else {
                        // The partition is opened anew from its checkpoint.
                        return self.failed.store(true, Ordering::Relaxed);
                    };
                    // Also past what holds no records.
                    state.advance(tail.position(), &records);
                    if self.owns.load(Ordering::Relaxed) {
                        count(tally);
                    }
                    self.progress.send_replace(state.offset);
                }
                Err(error) => {
                    tracing::error!(
                        partition = self.number,
                        error = &error as &dyn std::error::Error,
                        "the event log failed an aggregator"
                    );
                    match self.again().await {
                        Some(again) => tail = again,
                        None => return self.failed.store(true, Ordering::Relaxed),
                    }
                }
            }
        }
    }

    /// Follows on from where it stopped, as soon as that works. `None` if the log is not the one that it
    /// was.
    async fn again(&self) -> Option<Box<dyn Tail>> {
        loop {
            tokio::time::sleep(AFTER_TROUBLE).await;
            let from = self.state.lock().offset;
            let (start, end) = (self.log.start(self.number).await, self.log.end(self.number).await);
            if let (Ok(start), Ok(end)) = (start, end)
                && !(start..=end).contains(&from)
            {
                return None;
            }
            match self.log.tail(self.number, from).await {
                Ok(tail) => return Some(tail),
                Err(error) => tracing::error!(
                    partition = self.number,
                    error = &error as &dyn std::error::Error,
                    "the event log cannot be followed"
                ),
            }
        }
    }
}

/// The task of a partition that only this process appends to: appends what waits, then applies it
/// in the log's order, so that the state is at every moment the log's up to an offset.
pub(super) struct Writer {
    pub(super) number: u32,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) failed: Arc<AtomicBool>,
}

impl Writer {
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Batch>) {
        while let Some(first) = queue.recv().await {
            let mut count = first.events.len();
            let mut batches = vec![first];
            while count < APPEND_EVENTS
                && let Ok(next) = queue.try_recv()
            {
                count += next.events.len();
                batches.push(next);
            }
            self.append_and_apply(batches).await;
            if self.failed.load(Ordering::Relaxed) {
                // The partition is opened anew from its checkpoint.
                return;
            }
        }
    }

    async fn append_and_apply(&self, batches: Vec<Batch>) {
        let records: Vec<Bytes> = batches
            .iter()
            .flat_map(|batch| records(batch.events.iter().map(|(_, event)| event)))
            .collect();
        let now = batches.last().map_or(Timestamp(0), |batch| batch.now);
        let (count, last) = (records.len() as u64, records.last().cloned());
        match self.log.append(self.number, now, records).await {
            Ok(first) => {
                let (waiting, batches): (Vec<_>, Vec<_>) =
                    batches.into_iter().map(|batch| (batch.done, batch.events)).unzip();
                let applied = catch_unwind(AssertUnwindSafe(|| {
                    let mut state = self.state.lock();
                    let apply = |events| apply(&mut state, events, now);
                    let mut answers: Vec<Accepted> = batches.into_iter().map(apply).collect();
                    state.offset = first + count;
                    let position = (self.number, state.offset);
                    answers.iter_mut().for_each(|answer| answer.positions.push(position));
                    state.last_record = last.map(|value| checksum(now, &value));
                    answers
                }));
                let applied = applied.ok().filter(|_| !self.state.lock().engine.has_failed());
                let Some(answers) = applied else {
                    // Before those who wait hear of it.
                    return self.failed.store(true, Ordering::Relaxed);
                };
                for (done, answer) in waiting.into_iter().zip(answers) {
                    // A caller that went away: counted all the same.
                    let _ = done.send(Ok(answer));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for batch in batches {
                    let _ = batch.done.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}

/// Events as records of the log.
pub(super) fn records<'a>(events: impl Iterator<Item = &'a Event>) -> Vec<Bytes> {
    let events: Vec<&Event> = events.collect();
    events.chunks(RECORD_EVENTS).map(|c| events_to_record(c.iter().copied()).into()).collect()
}

fn apply(state: &mut State, events: Vec<(usize, Event)>, logged_at: Timestamp) -> Accepted {
    let mut answer = Accepted::default();
    for (place, event) in events {
        #[cfg(test)]
        super::tests::panic_at(&event.id);
        match state.engine.apply(&event, logged_at) {
            Ok(Applied::Counted) => answer.accepted += 1,
            Ok(Applied::Duplicate) => answer.duplicates += 1,
            Ok(Applied::Repeated) => answer.repeated += 1,
            // Its ad group went away after the check.
            Ok(Applied::UnknownAdGroup) => {
                let problem = EventProblem::unknown_ad_group(&event.ad_group, None);
                answer.reject(place, problem);
            }
            Ok(Applied::TooOld) => answer.reject(place, too_old(&event)),
            Err(error) => answer.reject(place, overflow(&error.to_string())),
        }
    }
    answer
}

fn too_old(event: &Event) -> EventProblem {
    EventProblem {
        line: 0,
        field: "at".to_owned(),
        message: format!("{} was before ids were known for as long as now", event.at),
        help:
            "node.dedupe_hours was raised: events of before what was known then could count twice"
                .to_owned(),
    }
}

fn overflow(message: &str) -> EventProblem {
    EventProblem {
        line: 0,
        field: "event".to_owned(),
        message: message.to_owned(),
        help: "look at the ad group's price".to_owned(),
    }
}
