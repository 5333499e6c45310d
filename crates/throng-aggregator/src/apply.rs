//! From the log's records to a partition's state: the task of a partition to which this process alone
//! appends, and that of one to which any process appends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use throng_budget::{
    Engine, Event, EventCounts, EventEffect, EventProblem, EventRef, MAX_PROBLEMS,
    events_to_record, read_record,
};
use throng_log::{EventLog, LogError, Record, Tail};
use throng_model::{Clock, Timestamp};
use throng_telemetry::metrics;
use tokio::sync::{mpsc, oneshot, watch};

use super::quarantine::Quarantine;
use super::state::{PartitionState, checksum};
use super::{AppendMode, BudgetsError};

/// Waiting batches are joined to one append until it has this many events.
const APPEND_EVENTS: usize = 50_000;
/// Events of one record: it stays far below the largest record that a log accepts.
const RECORD_EVENTS: usize = 10_000;
/// Events that are decoded before they are applied: few enough to stay in the processor's caches.
const EVENTS_PER_BATCH: usize = 512;
/// Before a follower reads the log again after an error.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Records of a replay that may fail before the partition does: if there are more, the program or the log is
/// at fault and not a record.
const MAX_FAILING_RECORDS: usize = 100;

/// The result of a batch of events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accepted {
    /// Events that count.
    pub accepted: u64,
    /// Events whose id was counted before.
    pub duplicates: u64,
    /// Impressions and clicks whose insertion already has one, under another id: they do not count.
    pub repeated: u64,
    /// Events that do not count, by their index in the batch: the first 1,000 of them.
    pub rejected: Vec<(usize, EventProblem)>,
    /// By partition, the first offset of the log after the events: a frame with this log position, or a
    /// higher one, includes them.
    pub positions: Vec<(u32, u64)>,
    /// How many do not count. With `accepted`, `duplicates` and `repeated` it adds up to the batch.
    pub rejected_count: u64,
}

impl Accepted {
    /// Events that are in the log, as far as is known before they are applied.
    pub(super) fn appended(events: &[(usize, Event)], position: (u32, u64)) -> Self {
        Self { accepted: events.len() as u64, positions: vec![position], ..Self::default() }
    }

    pub(super) fn reject(&mut self, index: usize, problem: EventProblem) {
        self.rejected_count += 1;
        if self.rejected.len() < MAX_PROBLEMS {
            self.rejected.push((index, problem));
        }
    }
}

/// Events that wait to be appended, with their indexes in the caller's batch.
pub(super) struct Batch {
    pub(super) events: Vec<(usize, Event)>,
    /// The time against which they were checked.
    pub(super) now: Timestamp,
    pub(super) done: oneshot::Sender<Result<Accepted, Arc<LogError>>>,
}

/// How records are applied.
struct Applying<'a> {
    number: u32,
    append_mode: AppendMode,
    quarantine: &'a Quarantine,
    now: Timestamp,
    /// How old events may be.
    dedupe_window: Duration,
    /// Records are applied one by one, so that the one that fails is known.
    one_by_one: bool,
}

/// Applies what was appended since the checkpoint. The returned tail continues from there.
async fn replay(
    applying: &Applying<'_>,
    state: &mut PartitionState,
    log: &dyn EventLog,
) -> Result<(EventCounts, Box<dyn Tail>), BudgetsError> {
    let number = applying.number;
    let mut counts = EventCounts::default();
    let begin = state.offset;
    let mut tail = log.tail(number, begin).await?;
    // Until nothing is left: events are appended while a long replay lasts.
    loop {
        let end = log.end(number).await?;
        if state.offset >= end {
            break;
        }
        while state.offset < end {
            let records = tail.next().await?;
            counts += applying.apply(state, &records)?;
            state.advance(tail.position(), &records);
        }
    }
    if state.offset > begin {
        tracing::info!(partition = number, records = state.offset - begin, "replayed the log");
    }
    Ok((counts, tail))
}

/// Applies what was appended since the checkpoint. If that panics, it restores the state and applies the
/// records one by one: the one that panics is then known and goes to the quarantine. Without the quarantine
/// one such record would stop its partition for ever, in every process that takes it over.
pub(super) async fn replay_and_quarantine(
    append_mode: AppendMode,
    quarantine: &Quarantine,
    state: &mut PartitionState,
    restore: impl Fn() -> Result<PartitionState, BudgetsError>,
    log: &dyn EventLog,
    (now, dedupe_window): (Timestamp, Duration),
) -> Result<(EventCounts, Box<dyn Tail>), BudgetsError> {
    let number = state.engine.partition();
    let mut applying =
        Applying { number, append_mode, quarantine, now, dedupe_window, one_by_one: false };
    let mut failing = 0;
    loop {
        match replay(&applying, state, log).await {
            Err(BudgetsError::Panicked { offset, .. }) if failing < MAX_FAILING_RECORDS => {
                if applying.one_by_one {
                    failing += 1;
                    quarantine.add(offset, "applying it panics", now);
                    let flushed = quarantine.flush().await;
                    flushed
                        .map_err(|source| BudgetsError::Quarantine { partition: number, source })?;
                }
                applying.one_by_one = true;
                *state = restore()?;
            }
            other => return other,
        }
    }
}

impl Applying<'_> {
    /// Applies the events of records. Where any process may append, events are checked here, against the
    /// record's time and not the clock, so that every replica and every replay decides the same. A record
    /// that cannot be decoded goes to the quarantine.
    ///
    /// # Errors
    /// [`BudgetsError::Panicked`]: the state is half changed and must be dropped.
    fn apply(
        &self,
        state: &mut PartitionState,
        records: &[Record],
    ) -> Result<EventCounts, BudgetsError> {
        let mut events: Vec<(EventRef<'_>, Timestamp)> = Vec::with_capacity(EVENTS_PER_BATCH);
        let (mut counts, mut refused) = (EventCounts::default(), 0);
        let mut first = records.first().map_or(0, |record| record.offset);
        for record in records {
            if events.is_empty() {
                // Also after records that have no events.
                first = record.offset;
            }
            if self.quarantine.contains(record.offset) {
                refused += 1;
                continue;
            }
            let before = events.len();
            let read = read_record(&record.value, |event| {
                if self.append_mode == AppendMode::Exclusive
                    || event.is_sound(record.at, self.dedupe_window)
                {
                    events.push((event, record.at));
                } else {
                    refused += 1;
                }
            });
            if let Err(problem) = read {
                events.truncate(before);
                refused += 1;
                let reason = format!("it is not a throng.events.v1.Events message: {problem}");
                self.quarantine.add(record.offset, &reason, self.now);
            }
            if events.len() >= EVENTS_PER_BATCH || self.one_by_one {
                counts += self.apply_events(state, &events, first)?;
                events.clear();
            }
        }
        counts += self.apply_events(state, &events, first)?;
        counts.rejected += refused;
        if counts.rejected > 0 {
            let (from, to) = (records.first().map(|r| r.offset), records.last().map(|r| r.offset));
            tracing::debug!(
                partition = self.number,
                from,
                to,
                rejected = counts.rejected,
                "events rejected: unknown ad group, too old, or invalid"
            );
        }
        Ok(counts)
    }

    /// `offset`: of the first record that these events may be from.
    fn apply_events(
        &self,
        state: &mut PartitionState,
        events: &[(EventRef<'_>, Timestamp)],
        offset: u64,
    ) -> Result<EventCounts, BudgetsError> {
        // A panic leaves the engine half changed: the caller drops the state.
        let counts = catch_unwind(AssertUnwindSafe(|| apply_all(&mut state.engine, events)))
            .map_err(|_| BudgetsError::Panicked { partition: self.number, offset })?;
        match state.engine.has_failed() {
            false => Ok(counts),
            true => Err(BudgetsError::Unavailable { partition: self.number }),
        }
    }
}

fn apply_all(engine: &mut Engine, events: &[(EventRef<'_>, Timestamp)]) -> EventCounts {
    #[cfg(test)]
    events.iter().for_each(|(event, _)| super::tests::panic_at(event.id.as_str()));
    engine.apply_all(events)
}

/// Adds to the metrics of applied events. Only the leader does: a standby replica applies the same events.
pub(super) fn count(counts: EventCounts) {
    metrics::counter!(metrics::EVENTS_APPLIED_TOTAL).increment(counts.counted);
    metrics::counter!(metrics::EVENTS_APPLIED_DUPLICATE_TOTAL).increment(counts.duplicates);
    metrics::counter!(metrics::EVENTS_APPLIED_REPEATED_TOTAL).increment(counts.repeated);
    metrics::counter!(metrics::EVENTS_APPLIED_REJECTED_TOTAL).increment(counts.rejected);
    metrics::counter!(metrics::EVENTS_APPLIED_INSERTED_AT_IGNORED_TOTAL)
        .increment(counts.inserted_at_ignored);
}

/// The task of a partition to which any process appends: applies what comes.
pub(super) struct Follower {
    pub(super) number: u32,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) state: Arc<Mutex<PartitionState>>,
    pub(super) progress: watch::Sender<u64>,
    pub(super) is_leader: Arc<AtomicBool>,
    pub(super) quarantine: Arc<Quarantine>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) dedupe_window: Duration,
    pub(super) failed: Arc<AtomicBool>,
}

impl Follower {
    pub(super) async fn run(self, mut tail: Box<dyn Tail>) {
        loop {
            match tail.next().await {
                Ok(records) => {
                    let applying = Applying {
                        number: self.number,
                        append_mode: AppendMode::Shared,
                        quarantine: &self.quarantine,
                        now: self.clock.now(),
                        dedupe_window: self.dedupe_window,
                        one_by_one: false,
                    };
                    let mut state = self.state.lock();
                    let Ok(counts) = applying.apply(&mut state, &records) else {
                        // The partition is reopened from its checkpoint.
                        return self.failed.store(true, Ordering::Relaxed);
                    };
                    // Also over offsets without records.
                    state.advance(tail.position(), &records);
                    if self.is_leader.load(Ordering::Relaxed) {
                        count(counts);
                    }
                    self.progress.send_replace(state.offset);
                }
                Err(error) => {
                    tracing::error!(
                        partition = self.number,
                        error = &error as &dyn std::error::Error,
                        "failed to read the event log"
                    );
                    match self.reopen_tail().await {
                        Some(reopened) => tail = reopened,
                        None => return self.failed.store(true, Ordering::Relaxed),
                    }
                }
            }
        }
    }

    /// Opens the tail again where it stopped, as soon as that works. `None` if the log does not have that
    /// offset: it is not the log that the state was made of, and reading on would skip or repeat events.
    async fn reopen_tail(&self) -> Option<Box<dyn Tail>> {
        loop {
            tokio::time::sleep(RETRY_DELAY).await;
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
                    "failed to follow the event log"
                ),
            }
        }
    }
}

/// The task of a partition to which only this process appends: appends what waits, then applies it.
/// One task does both, so that events are applied in the order of the log, and the state is at every
/// moment the one of the log up to an offset.
pub(super) struct Writer {
    pub(super) number: u32,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) state: Arc<Mutex<PartitionState>>,
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
                // The partition is reopened from its checkpoint.
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
                let position = (self.number, first + count);
                let appended: Vec<Accepted> = batches
                    .iter()
                    .map(|batch| Accepted::appended(&batch.events, position))
                    .collect();
                let (waiting, batches): (Vec<_>, Vec<_>) =
                    batches.into_iter().map(|batch| (batch.done, batch.events)).unzip();
                let applied = catch_unwind(AssertUnwindSafe(|| {
                    let mut state = self.state.lock();
                    let apply = |events| apply(&mut state, events, now);
                    let mut answers: Vec<Accepted> = batches.into_iter().map(apply).collect();
                    state.offset = position.1;
                    answers.iter_mut().for_each(|answer| answer.positions.push(position));
                    state.last_record = last.map(|value| checksum(now, &value));
                    answers
                }));
                let applied = applied.ok().filter(|_| !self.state.lock().engine.has_failed());
                let answers = applied.unwrap_or_else(|| {
                    // Before the callers get their answers: an append that one of them makes then must not
                    // go to this replica.
                    self.failed.store(true, Ordering::Relaxed);
                    // The events are durable: they are counted, or go to the quarantine, when the partition
                    // is reopened. An error would say that they have to be sent again.
                    appended
                });
                for (done, answer) in waiting.into_iter().zip(answers) {
                    // A caller may have gone away; its events are counted.
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

fn apply(
    state: &mut PartitionState,
    events: Vec<(usize, Event)>,
    logged_at: Timestamp,
) -> Accepted {
    let mut answer = Accepted::default();
    for (index, event) in events {
        #[cfg(test)]
        super::tests::panic_at(&event.id);
        match state.engine.apply(&event, logged_at) {
            Ok(EventEffect::Counted) => answer.accepted += 1,
            Ok(EventEffect::Duplicate) => answer.duplicates += 1,
            Ok(EventEffect::Repeated) => answer.repeated += 1,
            // Its ad group was removed after the check.
            Ok(EventEffect::UnknownAdGroup) => {
                let problem = EventProblem::unknown_ad_group(&event.ad_group, None);
                answer.reject(index, problem);
            }
            Ok(EventEffect::TooOld) => answer.reject(index, too_old(&event)),
            Err(error) => answer.reject(index, overflow(&error.to_string())),
        }
    }
    answer
}

fn too_old(event: &Event) -> EventProblem {
    EventProblem {
        line: 0,
        field: "at".to_owned(),
        message: format!("{} is before the time from which ids are remembered", event.at),
        help:
            "node.dedupe_hours was raised: events from before the earlier window could count twice"
                .to_owned(),
    }
}

fn overflow(message: &str) -> EventProblem {
    EventProblem {
        line: 0,
        field: "event".to_owned(),
        message: message.to_owned(),
        help: "check the ad group's price".to_owned(),
    }
}
