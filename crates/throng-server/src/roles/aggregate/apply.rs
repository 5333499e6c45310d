//! From the log's records to a partition's state: the task of a partition that this process alone
//! appends to, and that of one that others append to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use throng_budget::{Applied, Event, EventProblem, EventRef, Tally, events_to_record, read_record};
use throng_log::{EventLog, LogError, Record, Tail};
use throng_model::{Clock, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

use super::partition::State;
use super::{Accepted, BudgetsError, Intake, locked};

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
    pub(super) done: oneshot::Sender<Result<Accepted, Arc<LogError>>>,
}

/// Applies what was appended since the checkpoint, and follows on from there.
pub(super) async fn replay(
    number: u32,
    state: &mut State,
    log: &dyn EventLog,
    intake: Intake,
) -> Result<(Tally, Box<dyn Tail>), BudgetsError> {
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
            tally += apply_records(number, state, &records, intake)?;
            state.offset = tail.position();
        }
    }
    if state.offset > begin {
        tracing::info!(partition = number, records = state.offset - begin, "events replayed");
    }
    Ok((tally, tail))
}

/// Applies records' events, each for itself. Where anybody may append, events are checked here,
/// against the record's time, so that a replay decides the same; a record that is none is passed
/// over and counted. Where only this program appends, such a record is damage.
fn apply_records(
    number: u32,
    state: &mut State,
    records: &[Record],
    intake: Intake,
) -> Result<Tally, BudgetsError> {
    let mut events: Vec<(EventRef<'_>, Timestamp)> = Vec::with_capacity(TOGETHER);
    let (mut tally, mut refused) = (Tally::default(), 0);
    for record in records {
        let before = events.len();
        let read = read_record(&record.value, |event| {
            if intake == Intake::Here || event.is_sound(record.at) {
                events.push((event, record.at));
            } else {
                refused += 1;
            }
        });
        match (read, intake) {
            (Ok(()), _) => {}
            (Err(problem), Intake::Log) => {
                events.truncate(before);
                refused += 1;
                tracing::debug!(partition = number, offset = record.offset, %problem, "a record of the log does not count");
            }
            (Err(source), Intake::Here) => {
                let (partition, offset) = (number, record.offset);
                return Err(BudgetsError::Record { partition, offset, source });
            }
        }
        if events.len() >= TOGETHER {
            tally += state.engine.apply_all(&events);
            events.clear();
        }
    }
    tally += state.engine.apply_all(&events);
    tally.rejected += refused;
    if tally.rejected > 0 {
        let (from, to) = (records.first().map(|r| r.offset), records.last().map(|r| r.offset));
        tracing::debug!(
            partition = number,
            from,
            to,
            rejected = tally.rejected,
            "events of these records do not count: no such ad group, too old, or not as the schema has them"
        );
    }
    Ok(tally)
}

pub(super) fn count(tally: Tally) {
    metrics::counter!("throng_events_applied_total").increment(tally.counted);
    metrics::counter!("throng_events_applied_duplicate_total").increment(tally.duplicates);
    metrics::counter!("throng_events_applied_rejected_total").increment(tally.rejected);
    metrics::counter!("throng_events_applied_inserted_at_ignored_total")
        .increment(tally.inserted_at_ignored);
}

/// The task of a partition that others append to: applies what comes.
pub(super) struct Follower {
    pub(super) number: u32,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) progress: watch::Sender<u64>,
    pub(super) owns: Arc<AtomicBool>,
}

impl Follower {
    pub(super) async fn run(self, mut tail: Box<dyn Tail>) {
        loop {
            match tail.next().await {
                Ok(records) => {
                    let mut state = locked(&self.state);
                    // With this intake no record is an error.
                    let applied = apply_records(self.number, &mut state, &records, Intake::Log);
                    // Also past what holds no records.
                    state.offset = tail.position();
                    if self.owns.load(Ordering::Relaxed) {
                        count(applied.unwrap_or_default());
                    }
                    self.progress.send_replace(state.offset);
                }
                Err(error) => {
                    tracing::error!(
                        partition = self.number,
                        error = &error as &dyn std::error::Error,
                        "the event log failed an aggregator"
                    );
                    tail = self.again().await;
                }
            }
        }
    }

    /// Follows on from where it stopped, as soon as that works.
    async fn again(&self) -> Box<dyn Tail> {
        loop {
            tokio::time::sleep(AFTER_TROUBLE).await;
            let from = locked(&self.state).offset;
            match self.log.tail(self.number, from).await {
                Ok(tail) => return tail,
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
    pub(super) clock: Arc<dyn Clock>,
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
        }
    }

    async fn append_and_apply(&self, batches: Vec<Batch>) {
        let records: Vec<Bytes> = batches
            .iter()
            .flat_map(|batch| records(batch.events.iter().map(|(_, event)| event)))
            .collect();
        let (now, count) = (self.clock.now(), records.len() as u64);
        match self.log.append(self.number, now, records).await {
            Ok(_) => {
                let mut answers = Vec::with_capacity(batches.len());
                {
                    let mut state = locked(&self.state);
                    for batch in batches {
                        answers.push((batch.done, apply(&mut state, batch.events, now)));
                    }
                    state.offset += count;
                }
                for (done, answer) in answers {
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
        match state.engine.apply(&event, logged_at) {
            Ok(Applied::Counted) => answer.accepted += 1,
            Ok(Applied::Duplicate) => answer.duplicates += 1,
            // Its ad group went away after the check.
            Ok(Applied::UnknownAdGroup) => {
                let problem = EventProblem::unknown_ad_group(&event.ad_group, None);
                answer.rejected.push((place, problem));
            }
            Err(error) => answer.rejected.push((place, overflow(&error.to_string()))),
        }
    }
    answer
}

fn overflow(message: &str) -> EventProblem {
    EventProblem {
        line: 0,
        field: "event".to_owned(),
        message: message.to_owned(),
        help: "look at the ad group's price".to_owned(),
    }
}
