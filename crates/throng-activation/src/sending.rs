//! Sending one batch: bisecting what is refused, counting what became of every row.

use std::collections::BTreeMap;

use throng_model::{Clock, SyncRunId, TaskId};
use throng_store::{BatchOutcome, Operation, ReasonCounts, Receipt};

use crate::{
    Answer, BatchPart, Destination, PreparedRow, Quotas, Schema, SendClass, SendError, SendRequest,
    SessionStep,
};

/// Rows refused one by one, with none accepted before, after which it is not the rows' fault.
const REFUSED_IN_A_ROW: u32 = 8;
/// Reasons counted apart for each batch; more than these are one: a platform that puts a row's
/// number into its message must not fill the ledger.
const REASONS_KEPT: usize = 20;

/// Why a batch did not get to its end.
pub(crate) enum SendFailure {
    /// The destination failed.
    Destination(SendError),
    /// The ledger failed.
    Ledger(throng_store::LedgerError),
    /// A person has paused the sync: the batches that are left wait.
    Paused,
}

impl From<throng_store::LedgerError> for SendFailure {
    fn from(error: throng_store::LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<SendError> for SendFailure {
    fn from(error: SendError) -> Self {
        Self::Destination(error)
    }
}

/// The upload session of a replace run.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) id: i64,
    pub(crate) opened: bool,
    pub(crate) closed: bool,
    pub(crate) sent: u64,
    /// A row that the session has taken, to close it with.
    pub(crate) spare: Vec<PreparedRow>,
    pub(crate) estimated_total: u64,
}

/// Everything that stays the same from request to request of a task.
pub(crate) struct Line<'a> {
    pub(crate) destination: &'a dyn Destination,
    pub(crate) ledger: &'a dyn throng_store::Ledger,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) quotas: &'a Quotas,
    pub(crate) name: &'a throng_model::DestinationName,
    pub(crate) run: SyncRunId,
    pub(crate) task: TaskId,
    pub(crate) platform_id: &'a str,
    pub(crate) schema: &'a Schema,
    /// What the cells of removals mean: the columns may have changed since those rows were put in.
    pub(crate) remove_schema: &'a Schema,
}

/// The rows of a batch that are worth sending.
pub(crate) struct Load<'a> {
    pub(crate) number: u32,
    pub(crate) operation: Operation,
    /// Rank of the batch's first user: makes the numbers of a session's requests unique.
    pub(crate) first_rank: u64,
    pub(crate) rows: &'a [PreparedRow],
    /// No batch of the task comes after this one.
    pub(crate) last: bool,
    /// The session has taken the rows before.
    pub(crate) repeated: bool,
}

/// What became of a batch's rows so far.
#[derive(Default)]
struct Tally {
    outcome: BatchOutcome,
    /// Places among the rows that were sent, of those that were refused, as far as that is known.
    refused: Vec<usize>,
    refused_in_a_row: u32,
    accepted_any: bool,
}

impl Tally {
    fn reject(&mut self, reason: &str, rows: u64) {
        if rows == 0 {
            return;
        }
        let kept = &mut self.outcome.rejected;
        let known = kept.contains_key(reason) || kept.len() < REASONS_KEPT;
        *kept.entry(if known { reason } else { "other" }.to_owned()).or_default() += rows;
    }
}

/// Sends the rows of a batch until each has an end. On an error nothing is known of the batch as a
/// whole; it is sent again later, which is harmless.
pub(crate) async fn send_batch(
    line: &Line<'_>,
    load: &Load<'_>,
    session: &mut Option<Session>,
) -> Result<(BatchOutcome, Vec<usize>), SendFailure> {
    let mut tally = Tally::default();
    let mut ranges = Vec::new();
    if !load.rows.is_empty() {
        ranges.push((0, load.rows.len()));
    }
    while let Some((from, to)) = ranges.pop() {
        let rows = &load.rows[from..to];
        let last = load.last && to == load.rows.len();
        match send_once(line, load, rows, session, from as u64, last).await {
            Ok(answer) if answer.received < rows.len() as u64 => {
                // Which rows arrived is not known: halves tell.
                if rows.len() == 1 {
                    tally.reject("not_received", 1);
                    tally.refused.push(from);
                } else {
                    halve(&mut ranges, from, to);
                }
            }
            // A removal that was refused stays due, so it must be known which it was.
            Ok(answer)
                if load.operation == Operation::Remove
                    && rows.len() > 1
                    && answer.invalid > named_in(&answer, rows.len()) =>
            {
                halve(&mut ranges, from, to);
            }
            Ok(answer) => count(&mut tally, &answer, from, rows.len() as u64),
            Err(SendFailure::Destination(error)) if error.class == SendClass::Fix => {
                if rows.len() > 1 {
                    halve(&mut ranges, from, to);
                    continue;
                }
                tally.refused_in_a_row += 1;
                if !tally.accepted_any && tally.refused_in_a_row >= REFUSED_IN_A_ROW {
                    return Err(SendError { class: SendClass::Stop, ..error }.into());
                }
                tally.reject(&error.message, 1);
                tally.refused.push(from);
            }
            Err(other) => return Err(other),
        }
    }
    Ok((tally.outcome, tally.refused))
}

/// How many of the invalid rows the platform names.
fn named_in(answer: &Answer, rows: usize) -> u64 {
    let mut named: Vec<usize> =
        answer.invalid_rows.iter().map(|(at, _)| *at).filter(|at| *at < rows).collect();
    named.sort_unstable();
    named.dedup();
    named.len() as u64
}

fn halve(ranges: &mut Vec<(usize, usize)>, from: usize, to: usize) {
    let middle = from + (to - from) / 2;
    // The first half is done first: a session's opening request must come first.
    ranges.push((middle, to));
    ranges.push((from, middle));
}

fn count(tally: &mut Tally, answer: &Answer, from: usize, rows: u64) {
    let mut reasons: BTreeMap<usize, &str> = BTreeMap::new();
    for (index, reason) in &answer.invalid_rows {
        if (*index as u64) < rows {
            reasons.entry(*index).or_insert(reason);
        }
    }
    let named = reasons.len() as u64;
    let invalid = answer.invalid.max(named).min(rows);
    for (at, reason) in &reasons {
        tally.reject(reason, 1);
        tally.refused.push(from + at);
    }
    if rows == 1 && invalid == 1 && named == 0 {
        tally.refused.push(from);
    }
    let mut unnamed = invalid - named;
    for (reason, rows) in &answer.unmatched_reasons {
        let rows = unnamed.min(*rows);
        tally.reject(reason, rows);
        unnamed -= rows;
    }
    tally.reject("invalid_unspecified", unnamed);
    tally.outcome.sent += rows - invalid;
    tally.accepted_any |= invalid < rows;
    tally.refused_in_a_row = 0;
}

/// One request: waits for the account's turn, sends, stores the receipt. `from` is the place of the
/// first row among the batch's.
pub(crate) async fn send_once(
    line: &Line<'_>,
    load: &Load<'_>,
    rows: &[PreparedRow],
    session: &mut Option<Session>,
    from: u64,
    last: bool,
) -> Result<Answer, SendFailure> {
    let seq = load.first_rank + from + 1;
    let wait = line.quotas.wait(line.name, line.clock.now());
    if !wait.is_zero() {
        tokio::time::sleep(line.clock.wall_duration(wait)).await;
    }
    let step =
        session.as_ref().filter(|_| load.operation == Operation::Replace).map(|s| SessionStep {
            id: s.id,
            seq: if s.opened { seq.max(2) } else { 1 },
            last,
            repeated: load.repeated,
            sent_before: s.sent,
            estimated_total: s.estimated_total,
        });
    let request = SendRequest {
        platform_id: line.platform_id,
        part: BatchPart { run: line.run, batch: load.number, first: from },
        operation: load.operation,
        schema: if load.operation == Operation::Remove { line.remove_schema } else { line.schema },
        rows,
        session: step,
    };
    let result = line.destination.send(&request).await;
    let now = line.clock.now();
    let usage = match &result {
        Ok(answer) => answer.usage,
        Err(error) => error.usage,
    };
    if let Some(usage) = usage {
        line.quotas.observe(line.name, usage, now);
    }
    line.ledger.add_receipt(&receipt(line, load, &request, &result)).await?;
    let answer = result?;
    if let (Some(session), Some(step)) = (session.as_mut(), step) {
        session.opened = true;
        session.closed |= step.last;
        session.sent += answer.received;
        session.spare = rows.last().cloned().into_iter().collect();
    }
    Ok(answer)
}

fn receipt(
    line: &Line<'_>,
    load: &Load<'_>,
    request: &SendRequest<'_>,
    result: &Result<Answer, SendError>,
) -> Receipt {
    let session = request.session.map(|s| s.id.to_string());
    let mut receipt = Receipt {
        task: line.task,
        batch: load.number,
        operation: load.operation,
        rows: request.rows.len() as u64,
        received: 0,
        invalid: 0,
        invalid_reasons: ReasonCounts::new(),
        http_status: 0,
        error_code: None,
        platform_ref: session,
        at: line.clock.now(),
    };
    match result {
        Ok(answer) => {
            receipt.received = answer.received;
            receipt.invalid = answer.invalid;
            receipt.http_status = answer.http_status;
            receipt.invalid_reasons = answer.unmatched_reasons.clone();
            for (_, reason) in &answer.invalid_rows {
                *receipt.invalid_reasons.entry(reason.clone()).or_default() += 1;
            }
            if receipt.platform_ref.is_none() {
                receipt.platform_ref = answer.platform_ref.clone();
            }
        }
        Err(error) => {
            receipt.http_status = error.http_status;
            receipt.error_code = error.code;
            if error.class == SendClass::Restart {
                receipt.platform_ref = Some(crate::worker::LOST_SESSION.to_owned());
            }
        }
    }
    receipt
}
