//! From the log's records to a partition's state. One task for each replica follows the log, whichever
//! process appends to it, so that events are applied in the order of the log, and the state is at every moment
//! the one of the log up to an offset.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use throng_budget::{Engine, EventCounts, EventRef, RecordError, read_record};
use throng_log::{EventLog, LogError, Record, Tail};
use throng_model::{Clock, Timestamp};
use throng_telemetry::metrics;
use tokio::sync::watch;

use super::BudgetsError;
use super::catalog_check::{CatalogCheck, Freshness};
use super::outcomes::{Outcomes, RecordOutcomes, add_effect};
use super::quarantine::Quarantine;
use super::state::PartitionState;

/// Events that are decoded before they are applied: few enough to stay in the processor's caches.
const EVENTS_PER_BATCH: usize = 512;
/// Before a follower reads the log again after an error.
const TAIL_REOPEN_DELAY: Duration = Duration::from_secs(1);

/// Records of a replay that may fail before the partition does: if there are more, the program or the log is
/// at fault and not a record.
const MAX_FAILING_RECORDS: usize = 100;

/// How records are applied.
struct Applying<'a> {
    number: u32,
    quarantine: &'a Quarantine,
    now: Timestamp,
    /// Every event was checked before it was appended.
    is_checked: bool,
    /// How old events may be.
    dedupe_window: Duration,
    /// Records are applied one by one, so that the one that fails is known.
    one_by_one: bool,
}

/// Events that are decoded and not applied yet.
struct DecodedEvents<'a> {
    events: Vec<(EventRef<'a>, Timestamp)>,
    /// The offset of the first record that they may be from.
    first: u64,
    /// The offset of the record of each event, and its index in it; only for callers that wait.
    places: Vec<(u64, usize)>,
}

impl DecodedEvents<'_> {
    fn truncate(&mut self, length: usize) {
        self.events.truncate(length);
        self.places.truncate(length);
    }
}

/// What a replay has done.
pub(super) struct Replayed {
    pub(super) counts: EventCounts,
    /// Continues after what is applied.
    pub(super) tail: Box<dyn Tail>,
    /// The end of the log, if the replay has ended before it; otherwise 0.
    pub(super) unapplied_end: u64,
}

/// Applies what was appended since the checkpoint, up to a record that may have an ad group of a spec to which this
/// process has not switched yet.
async fn replay(
    applying: &Applying<'_>,
    state: &mut PartitionState,
    log: &dyn EventLog,
    check: &mut CatalogCheck,
) -> Result<Replayed, BudgetsError> {
    let number = applying.number;
    let (mut counts, mut unapplied_end) = (EventCounts::default(), 0);
    let begin = state.offset;
    let mut tail = log.tail(number, begin).await?;
    // Until nothing is left: events are appended while a long replay lasts.
    'replay: loop {
        let end = log.end(number).await?;
        if state.offset >= end {
            break;
        }
        while state.offset < end {
            let records = tail.next().await?;
            let mut rest = records.as_slice();
            loop {
                let settled = check.settled();
                // By the tail and not by the last record: the last offsets of a topic may have no
                // record, and the loop would wait for one.
                let (more, applied) =
                    applying.advance(state, rest, tail.position(), settled, None)?;
                counts += more;
                rest = &rest[applied..];
                let Some(next) = rest.first() else { break };
                let version = state.engine.catalog_version();
                if check.check_in_replay(version, next.offset).await != Freshness::Newest {
                    // The follower waits for the spec: only a partition that is open gets it.
                    tail = log.tail(number, state.offset).await?;
                    unapplied_end = log.end(number).await?;
                    break 'replay;
                }
            }
        }
    }
    if state.offset > begin {
        tracing::info!(partition = number, records = state.offset - begin, "replayed the log");
    }
    Ok(Replayed { counts, tail, unapplied_end })
}

/// Applies what was appended since the checkpoint. If that panics, it restores the state and applies the
/// records one by one: the one that panics is then known and goes to the quarantine. Without the quarantine
/// one such record would stop its partition forever, in every process that takes it over.
pub(super) async fn replay_and_quarantine(
    quarantine: &Quarantine,
    state: &mut PartitionState,
    restore: impl Fn() -> Result<PartitionState, BudgetsError>,
    log: &dyn EventLog,
    check: &mut CatalogCheck,
    (now, dedupe_window): (Timestamp, Duration),
) -> Result<Replayed, BudgetsError> {
    let number = state.engine.partition();
    let is_checked = log.is_exclusive();
    let mut applying =
        Applying { number, quarantine, now, is_checked, dedupe_window, one_by_one: false };
    let mut failing = 0;
    loop {
        match replay(&applying, state, log, check).await {
            Err(BudgetsError::Panicked { offset, .. }) if failing < MAX_FAILING_RECORDS => {
                // Only in the second pass is the offset that of the record: before, it is the first
                // offset of a batch, and a valid record would be skipped.
                if applying.one_by_one {
                    failing += 1;
                    quarantine.add(offset, "applying it panics", now);
                    // Now and not with the next checkpoint: if this process ends before that one,
                    // the next process would have to find the record again by failing at it.
                    let flushed = quarantine.flush().await;
                    flushed
                        .map_err(|source| BudgetsError::Quarantine { partition: number, source })?;
                }
                applying.one_by_one = true;
                // The panic has left the figures half changed: with them, a part of an event could
                // count twice or be missing.
                *state = restore()?;
            }
            other => return other,
        }
    }
}

impl Applying<'_> {
    /// [Applies](Self::apply) records, and moves the state behind those that are applied: to `position`, if all are.
    /// Returns their number too.
    fn advance(
        &self,
        state: &mut PartitionState,
        records: &[Record],
        position: u64,
        settled: u64,
        outcomes: Option<&mut RecordOutcomes>,
    ) -> Result<(EventCounts, usize), BudgetsError> {
        let (counts, applied) = self.apply(state, records, settled, outcomes)?;
        let position = records.get(applied).map_or(position, |next| next.offset);
        // Also over offsets without records.
        state.advance(position, &records[..applied]);
        Ok((counts, applied))
    }

    /// Applies the events of records, up to the first one from offset `settled` on that has an unknown ad group.
    /// Returns the number of records before it. Where any process may append, events are checked here, against the
    /// record's time and not the clock, so that every replica and every replay decides the same. A record
    /// that cannot be decoded goes to the quarantine. `outcomes`: for callers that wait for these events.
    ///
    /// # Errors
    /// [`BudgetsError::Panicked`]: the state is half changed and must be dropped.
    fn apply(
        &self,
        state: &mut PartitionState,
        records: &[Record],
        settled: u64,
        mut outcomes: Option<&mut RecordOutcomes>,
    ) -> Result<(EventCounts, usize), BudgetsError> {
        let bytes = records.iter().map(|record| record.value.len()).sum();
        let events = state.buffer.take(bytes);
        let places = Vec::with_capacity(outcomes.as_ref().map_or(0, |_| events.capacity()));
        let mut decoded = DecodedEvents { events, first: 0, places };
        let (mut counts, mut refused, mut applied) = (EventCounts::default(), 0, 0);
        for record in records {
            if decoded.events.is_empty() {
                // Also after records that have no events.
                decoded.first = record.offset;
            }
            // Also if this version could apply it: a replica that has skipped it before would have
            // other figures.
            if self.quarantine.contains(record.offset) {
                (refused, applied) = (refused + 1, applied + 1);
                continue;
            }
            let before = decoded.events.len();
            match self.decode(record, outcomes.is_some(), &mut decoded) {
                Ok(unsound) => {
                    let own = &decoded.events[before..];
                    if record.offset >= settled && has_unknown(&state.engine, own) {
                        decoded.truncate(before);
                        break;
                    }
                    refused += unsound;
                }
                Err(problem) => {
                    // None of its events: otherwise it would depend on the position of the error which
                    // of them count.
                    decoded.truncate(before);
                    refused += 1;
                    let reason = format!("it is not a throng.events.v1.Events message: {problem}");
                    self.quarantine.add(record.offset, &reason, self.now);
                }
            }
            applied += 1;
            // After each record in the second pass: the offset of a panic is then that of one
            // record.
            if decoded.events.len() >= EVENTS_PER_BATCH || self.one_by_one {
                counts += self.apply_events(state, &decoded, outcomes.as_deref_mut())?;
                decoded.truncate(0);
            }
        }
        counts += self.apply_events(state, &decoded, outcomes)?;
        state.buffer.put(decoded.events);
        counts.rejected += refused;
        if counts.rejected > 0 {
            let (partition, rejected) = (self.number, counts.rejected);
            let from = records.first().map(|record| record.offset);
            tracing::debug!(partition, from, records = applied, rejected, "events are rejected");
        }
        Ok((counts, applied))
    }

    /// Adds the events of a record that can be counted. Returns how many cannot.
    fn decode<'a>(
        &self,
        record: &'a Record,
        is_wanted: bool,
        decoded: &mut DecodedEvents<'a>,
    ) -> Result<u64, RecordError> {
        let (mut index, mut unsound) = (0, 0);
        read_record(&record.value, |event| {
            if self.is_checked || event.is_valid(record.at, self.dedupe_window) {
                decoded.events.push((event, record.at));
                if is_wanted {
                    decoded.places.push((record.offset, index));
                }
            } else {
                // Not one that a caller here waits for: it was checked against the same time.
                unsound += 1;
            }
            index += 1;
        })?;
        Ok(unsound)
    }

    fn apply_events(
        &self,
        state: &mut PartitionState,
        decoded: &DecodedEvents<'_>,
        outcomes: Option<&mut RecordOutcomes>,
    ) -> Result<EventCounts, BudgetsError> {
        // A panic leaves the engine half changed: the caller drops the state.
        let apply = || apply_decoded(&mut state.engine, decoded, outcomes);
        let counts = catch_unwind(AssertUnwindSafe(apply)).map_err(|_| BudgetsError::Panicked {
            partition: self.number,
            offset: decoded.first,
        })?;
        if counts.rejected > 0 {
            let (partition, quarantine) = (self.number, self.quarantine);
            let names = decoded.events.iter().map(|(event, _)| event.ad_group.as_str());
            if let Some((ad_group, wanted)) = quarantine.misplaced.find(names, self.now) {
                tracing::warn!(partition, %ad_group, wanted, "events are in a wrong partition");
            }
        }
        // An id whose run cannot be read counts as seen, so events would be left out as duplicates.
        // The state is dropped, and the runs are read again.
        match state.engine.has_failed() {
            false => Ok(counts),
            true => Err(BudgetsError::Unavailable { partition: self.number }),
        }
    }
}

/// Whether an event is of an ad group that the engine does not have.
fn has_unknown(engine: &Engine, events: &[(EventRef<'_>, Timestamp)]) -> bool {
    // Events of a message are often of one ad group. None has an empty name.
    let mut known: &[u8] = &[];
    events.iter().any(|(event, _)| {
        let name = event.ad_group.as_bytes();
        if name == known {
            return false;
        }
        known = name;
        !engine.has_ad_group(name)
    })
}

fn apply_decoded(
    engine: &mut Engine,
    decoded: &DecodedEvents<'_>,
    outcomes: Option<&mut RecordOutcomes>,
) -> EventCounts {
    let DecodedEvents { events, places, .. } = decoded;
    #[cfg(test)]
    events.iter().for_each(|(event, _)| super::tests::panic_at(event.id.as_str()));
    match outcomes {
        Some(outcomes) => {
            engine.apply_each(events, |index, effect| add_effect(outcomes, places[index], effect))
        }
        None => engine.apply_all(events),
    }
}

/// Adds to the metrics of applied events. Only the leader does: a standby replica applies the same events.
pub(super) fn count(counts: EventCounts) {
    metrics::counter!(metrics::EVENTS_APPLIED_TOTAL).increment(counts.counted);
    metrics::counter!(metrics::EVENTS_APPLIED_DUPLICATE_TOTAL).increment(counts.duplicates);
    metrics::counter!(metrics::EVENTS_APPLIED_REPEATED_TOTAL).increment(counts.repeated);
    metrics::counter!(metrics::EVENTS_APPLIED_REJECTED_TOTAL).increment(counts.rejected);
    metrics::counter!(metrics::EVENTS_APPLIED_INSERTED_AT_IGNORED_TOTAL)
        .increment(counts.inserted_at_ignored);
    metrics::counter!(metrics::EVENTS_APPLIED_NOT_JOINED_TOTAL).increment(counts.not_joined);
    metrics::counter!(metrics::EVENTS_APPLIED_NOT_LEARNED_TOTAL).increment(counts.not_learned);
    metrics::counter!(metrics::INSERTIONS_FOLDED_TOTAL).increment(counts.evicted);
}

/// After more errors in a row the partition fails, if its log is in files of this process. Brokers may be away
/// for long, which health reports on its own.
const MAX_READ_ERRORS: u32 = 5;

/// The task of a replica: applies what is appended, by this process or by others.
pub(super) struct Follower {
    pub(super) number: u32,
    pub(super) log: Arc<dyn EventLog>,
    pub(super) state: Arc<Mutex<PartitionState>>,
    pub(super) progress: watch::Sender<u64>,
    pub(super) outcomes: Arc<Outcomes>,
    pub(super) is_leader: Arc<AtomicBool>,
    pub(super) quarantine: Arc<Quarantine>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) dedupe_window: Duration,
    pub(super) failed: Arc<AtomicBool>,
    pub(super) check: CatalogCheck,
}

impl Follower {
    /// Runs until it is aborted, or marks the replica as failed: it is reopened from its checkpoint then.
    pub(super) async fn run(mut self, mut tail: Box<dyn Tail>) {
        let mut read_errors = 0_u32;
        loop {
            let error = match tail.next().await {
                Ok(records) => match self.apply_all(&records, tail.position()).await {
                    Ok(()) => {
                        read_errors = 0;
                        continue;
                    }
                    // The state may be half changed or lack events: reading on would publish wrong
                    // figures. It is restored from the checkpoint instead.
                    Err(error) => {
                        tracing::error!(
                            partition = self.number,
                            error = &error as &dyn std::error::Error,
                            "failed to apply events"
                        );
                        break;
                    }
                },
                Err(error) => error,
            };
            tracing::error!(
                partition = self.number,
                error = &error as &dyn std::error::Error,
                "failed to read the event log"
            );
            read_errors += 1;
            // Reading damage again does not help: it is reported when the partition cannot be reopened. The same
            // holds for a file that stays unreadable: without a report the partition would look healthy, and
            // publish figures that no longer change.
            let reopened = match error {
                LogError::Damaged { .. } => None,
                _ if self.log.is_exclusive() && read_errors > MAX_READ_ERRORS => None,
                _ => self.reopen_tail().await,
            };
            match reopened {
                Some(reopened) => tail = reopened,
                None => break,
            }
        }
        // Before `progress` is dropped, and with it the wait of callers ends.
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Applies records, up to an offset. Waits at one that may have an ad group of a spec to which this process has
    /// not switched yet.
    async fn apply_all(&mut self, records: &[Record], position: u64) -> Result<(), BudgetsError> {
        let mut rest = records;
        loop {
            let applied = self.apply(rest, position)?;
            rest = &rest[applied..];
            let Some(next) = rest.first() else { return Ok(()) };
            let state = Arc::clone(&self.state);
            let version = || state.lock().engine.catalog_version();
            self.check.wait(next.offset, version).await;
        }
    }

    /// Applies records, up to an offset, and returns the number of those that are applied.
    fn apply(&self, records: &[Record], position: u64) -> Result<usize, BudgetsError> {
        let applying = Applying {
            number: self.number,
            quarantine: &self.quarantine,
            now: self.clock.now(),
            is_checked: self.log.is_exclusive(),
            dedupe_window: self.dedupe_window,
            one_by_one: false,
        };
        let mut outcomes = self.outcomes.is_wanted().then(RecordOutcomes::new);
        let (counts, applied, position) = {
            // Figures and offset change under one lock: a checkpoint in between would have events
            // after its offset, and a replay would apply them again.
            let mut state = self.state.lock();
            // Under the lock: a checkpoint that waits for it must not write a state that has an event's id and
            // not its spend.
            let (counts, applied) = applying
                .advance(&mut state, records, position, self.check.settled(), outcomes.as_mut())
                .inspect_err(|_| self.failed.store(true, Ordering::Relaxed))?;
            (counts, applied, state.offset)
        };
        if self.is_leader.load(Ordering::Relaxed) {
            count(counts);
        }
        if let Some(outcomes) = outcomes {
            self.outcomes.add(outcomes);
        }
        // Last: who waits for this offset looks for the outcomes then.
        self.progress.send_replace(position);
        Ok(applied)
    }

    /// Opens the tail again where it stopped, as soon as that works. `None` if the log does not have that
    /// offset: it is not the log that the state was made of, and reading on would skip or repeat events.
    async fn reopen_tail(&self) -> Option<Box<dyn Tail>> {
        loop {
            // Before the first attempt too: with a tail that opens and then fails, this would be a
            // loop without a pause.
            tokio::time::sleep(TAIL_REOPEN_DELAY).await;
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
