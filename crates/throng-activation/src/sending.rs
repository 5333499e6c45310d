//! Sends one batch: bisects refused requests and counts the outcome of every row.

use std::collections::BTreeMap;
use std::time::Duration;

use throng_model::{Clock, SyncRunId, TaskId};
use throng_store::{Batch, BatchOutcome, Operation, ReasonCounts, Receipt};

use crate::{
    BatchPart, Destination, PreparedRow, Quotas, Schema, SendClass, SendError, SendRequest,
    SendResponse, SessionStep,
};

/// A worker waits this long for the account's quota of calls. For a longer wait the task returns to the queue.
const MAX_QUOTA_WAIT: Duration = Duration::from_secs(30);
/// The same for a part of a batch, whose other parts would be sent again: a minute is how long a full account waits for
/// its next look at the meter.
const MAX_QUOTA_WAIT_WITHIN_BATCH: Duration = Duration::from_secs(120);
/// Marks the receipt of a request whose upload session was lost; the next try has another session id.
pub(crate) const LOST_SESSION: &str = "session lost";
/// After this many single rows are refused, and none accepted, the cause is not the rows.
const MAX_CONSECUTIVE_REFUSED: u32 = 8;
/// How often the additions of a batch are halved to find the rows that the platform refuses without naming them.
/// If that is not enough, the rows of the batch stay uncertain, and the next run sends them again.
const MAX_SEARCHES: u32 = 64;
/// Requests of an addition with more refused rows without a name are not halved: `MAX_SEARCHES` would not find all
/// of them in a batch of ten thousand rows (about thirteen halvings each), and would spend the account's quota. The
/// next run sends the batch again.
const MAX_SEARCHED_ROWS: u64 = 4;
/// The reason of rows that were sent and whose receipt is not confirmed: the platform reports fewer received rows than
/// the request had. They may be on its list, also because of an earlier request of the same batch.
pub(crate) const NOT_CONFIRMED: &str = "not_confirmed";
/// The same for removals: the row may still be on the list.
pub(crate) const REMOVAL_NOT_CONFIRMED: &str = "removal_not_confirmed";
/// Distinct reasons that are counted for each batch; all others count as `other`: a platform that puts a
/// row's number into its message must not fill the ledger.
const MAX_REASONS: usize = 20;

/// Why a batch was not completed.
pub(crate) enum SendInterruption {
    /// The destination returned an error.
    Destination(SendError),
    /// The ledger returned an error.
    Ledger(throng_store::LedgerError),
    /// The sync was paused: the remaining batches wait.
    Paused,
}

impl From<throng_store::LedgerError> for SendInterruption {
    fn from(error: throng_store::LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<SendError> for SendInterruption {
    fn from(error: SendError) -> Self {
        Self::Destination(error)
    }
}

/// The upload session of a replace run.
#[derive(Debug, Clone)]
pub(crate) struct UploadSession {
    pub(crate) id: i64,
    pub(crate) opened: bool,
    pub(crate) closed: bool,
    pub(crate) sent: u64,
    /// A row that the session already has, to close it with.
    pub(crate) closing_row: Vec<PreparedRow>,
    pub(crate) estimated_total: u64,
}

/// The parts that all requests of a task share.
pub(crate) struct SendContext<'a> {
    pub(crate) destination: &'a dyn Destination,
    pub(crate) ledger: &'a dyn throng_store::Ledger,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) quotas: &'a Quotas,
    pub(crate) name: &'a throng_model::DestinationName,
    pub(crate) run: SyncRunId,
    pub(crate) task: TaskId,
    pub(crate) platform_id: &'a str,
    pub(crate) schema: &'a Schema,
    /// The meaning of the cells of removals: the columns may have changed since those rows were added.
    pub(crate) remove_schema: &'a Schema,
}

/// The position of a request in its batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestPosition {
    /// The index of the request's first row among the batch's rows.
    pub(crate) first: u64,
    /// The request closes the session.
    pub(crate) last: bool,
    /// The session has the rows already.
    pub(crate) repeated: bool,
    /// The request is a part of its batch, which was sent whole before.
    pub(crate) part: bool,
}

/// The outcome of a batch's rows so far.
#[derive(Default)]
struct BatchProgress {
    outcome: BatchOutcome,
    /// Indices of refused rows among those that were sent, as far as they are known. Not those that may have been
    /// added nevertheless.
    refused: Vec<usize>,
    /// For each row, whether a request with it arrived in part. Empty if none did.
    may_have_arrived: Vec<bool>,
    consecutive_refused: u32,
    accepted_any: bool,
    /// Requests that were halved because of refused rows without a name.
    searches: u32,
}

impl BatchProgress {
    fn reject(&mut self, reason: &str, rows: u64) {
        if rows == 0 {
            return;
        }
        let kept = &mut self.outcome.rejected;
        let known = kept.contains_key(reason)
            || kept.len() < MAX_REASONS
            || matches!(reason, NOT_CONFIRMED | REMOVAL_NOT_CONFIRMED);
        *kept.entry(if known { reason } else { "other" }.to_owned()).or_default() += rows;
    }

    /// Records that a row is rejected and known. A row of an addition that may have arrived with another request is
    /// none of those that are not on the list: no outcome names it, so that it counts as perhaps delivered.
    fn refuse(&mut self, operation: Operation, at: usize) {
        let may_have_arrived = self.may_have_arrived.get(at).copied().unwrap_or_default();
        if operation == Operation::Remove || !may_have_arrived {
            self.refused.push(at);
        }
    }

    /// Records that a request with these of all rows arrived in part.
    fn mark_short(&mut self, rows: std::ops::Range<usize>, all: usize) {
        self.may_have_arrived.resize(all, false);
        self.may_have_arrived[rows].fill(true);
    }
}

/// Sends the rows of a batch until each row has an outcome. On an error the batch has no outcome; it is sent
/// again later, which is harmless. `last`: this is the last batch of the task.
///
/// A response with fewer received rows than were sent does not say which rows arrived, and a refused request, or
/// one with refused rows that have no name, does not say which row is invalid. So such a request is bisected until
/// single rows remain: the valid rows are delivered, and every other row is counted with its own reason. A single row
/// that the platform does not report as received is not confirmed: it, or a request before with the same row, may have
/// arrived.
pub(crate) async fn send_batch(
    context: &SendContext<'_>,
    batch: &Batch,
    rows: &[PreparedRow],
    last: bool,
    session: &mut Option<UploadSession>,
) -> Result<(BatchOutcome, Vec<usize>), SendInterruption> {
    let mut progress = BatchProgress::default();
    let mut ranges = Vec::new();
    if !rows.is_empty() {
        ranges.push((0, rows.len()));
    }
    let (operation, all) = (batch.operation, rows.len());
    while let Some((from, to)) = ranges.pop() {
        let last = last && to == all;
        let rows = &rows[from..to];
        let part = rows.len() < all;
        let position = RequestPosition { first: from as u64, last, repeated: false, part };
        match send_once(context, batch, rows, position, session).await {
            Ok(response) if response.received < rows.len() as u64 => {
                // Which rows arrived is not known: the halves show it.
                progress.mark_short(from..to, all);
                if rows.len() == 1 {
                    progress.reject(not_confirmed(operation), 1);
                    progress.refuse(operation, from);
                } else {
                    halve(&mut ranges, from, to);
                }
            }
            Ok(response) if must_search(operation, &response, rows.len(), progress.searches) => {
                progress.searches += 1;
                halve(&mut ranges, from, to);
            }
            Ok(response) => count(&mut progress, operation, &response, from, rows.len()),
            Err(SendInterruption::Destination(error)) if error.class == SendClass::InvalidRows => {
                if rows.len() > 1 {
                    halve(&mut ranges, from, to);
                    continue;
                }
                progress.consecutive_refused += 1;
                if !progress.accepted_any && progress.consecutive_refused >= MAX_CONSECUTIVE_REFUSED
                {
                    return Err(SendError { class: SendClass::Stop, ..error }.into());
                }
                progress.reject(&error.message, 1);
                progress.refuse(operation, from);
            }
            Err(other) => return Err(other),
        }
    }
    Ok((progress.outcome, progress.refused))
}

/// The reason of a row that the platform does not report as received.
fn not_confirmed(operation: Operation) -> &'static str {
    match operation {
        Operation::Remove => REMOVAL_NOT_CONFIRMED,
        Operation::Add | Operation::Replace => NOT_CONFIRMED,
    }
}

/// Whether the rows of a request are sent again in halves, because the platform has refused some without naming them.
fn must_search(
    operation: Operation,
    response: &SendResponse,
    rows: usize,
    searches_before: u32,
) -> bool {
    let unnamed = response.invalid.saturating_sub(named_in(response, rows));
    if rows < 2 || unnamed == 0 {
        return false;
    }
    match operation {
        // A refused removal stays due, so it must be known which row it was. Also if all are refused: a platform that
        // refuses to make an audience too small accepts fewer removals.
        Operation::Remove => true,
        // If all are refused, all are known.
        Operation::Add => {
            let has_valid = response.invalid < rows as u64;
            has_valid && unnamed <= MAX_SEARCHED_ROWS && searches_before < MAX_SEARCHES
        }
        // The session would have the others twice. The next difference finds the rows.
        Operation::Replace => false,
    }
}

/// How many invalid rows the platform names.
fn named_in(response: &SendResponse, rows: usize) -> u64 {
    let mut named: Vec<usize> =
        response.invalid_rows.iter().map(|(at, _)| *at).filter(|at| *at < rows).collect();
    named.sort_unstable();
    named.dedup();
    named.len() as u64
}

fn halve(ranges: &mut Vec<(usize, usize)>, from: usize, to: usize) {
    let middle = from + (to - from) / 2;
    // The first half is sent first: a session's opening request must come first.
    ranges.push((middle, to));
    ranges.push((from, middle));
}

fn count(
    progress: &mut BatchProgress,
    operation: Operation,
    response: &SendResponse,
    from: usize,
    rows: usize,
) {
    let places = from..from + rows;
    let rows = rows as u64;
    let mut reasons: BTreeMap<usize, &str> = BTreeMap::new();
    for (index, reason) in &response.invalid_rows {
        if (*index as u64) < rows {
            reasons.entry(*index).or_insert(reason);
        }
    }
    let named = reasons.len() as u64;
    let invalid = response.invalid.max(named).min(rows);
    for (at, reason) in &reasons {
        progress.reject(reason, 1);
        progress.refuse(operation, from + at);
    }
    // The numbers of a session may be those of all of its requests.
    if invalid == rows && (rows == 1 || operation != Operation::Replace) {
        for at in places.filter(|at| !reasons.contains_key(&(at - from))) {
            progress.refuse(operation, at);
        }
    }
    let mut unnamed = invalid - named;
    for (reason, rows) in &response.unmatched_reasons {
        let rows = unnamed.min(*rows);
        progress.reject(reason, rows);
        unnamed -= rows;
    }
    progress.reject("invalid_unspecified", unnamed);
    progress.outcome.sent += rows - invalid;
    progress.accepted_any |= invalid < rows;
    progress.consecutive_refused = 0;
}

/// Waits until the account may be called, and sends a request. An account whose quota is used for longer is an error,
/// except within an open session, which would be started over. `part`: see [`RequestPosition`].
async fn send_when_allowed(
    context: &SendContext<'_>,
    request: &SendRequest<'_>,
    part: bool,
) -> Result<SendResponse, SendError> {
    let is_within_session = request.session.is_some_and(|step| step.seq > 1);
    let longest = if part { MAX_QUOTA_WAIT_WITHIN_BATCH } else { MAX_QUOTA_WAIT };
    loop {
        let pause = context.quotas.wait(context.name, context.clock.now());
        if !pause.is_zero() {
            tokio::time::sleep(context.clock.wall_duration(pause)).await;
        }
        let result = context.destination.send(request).await;
        let Err(SendError { class: SendClass::Paced(wait), .. }) = &result else { return result };
        if *wait > longest && !is_within_session {
            return result;
        }
        tokio::time::sleep(context.clock.wall_duration(*wait)).await;
    }
}

/// Sends one request: waits until the account may be called, sends, and stores the receipt. The receipt is
/// stored before the response is used: a response whose receipt is lost must count as no response.
pub(crate) async fn send_once(
    context: &SendContext<'_>,
    batch: &Batch,
    rows: &[PreparedRow],
    position: RequestPosition,
    session: &mut Option<UploadSession>,
) -> Result<SendResponse, SendInterruption> {
    let RequestPosition { first, last, repeated, part } = position;
    // The rank of the batch's first row makes the numbers of a session's requests unique.
    let seq = batch.first_rank + first + 1;
    let step =
        session.as_ref().filter(|_| batch.operation == Operation::Replace).map(|s| SessionStep {
            id: s.id,
            seq: if s.opened { seq.max(2) } else { 1 },
            last,
            repeated,
            sent_before: s.sent,
            estimated_total: s.estimated_total,
        });
    let request = SendRequest {
        platform_id: context.platform_id,
        part: BatchPart { run: context.run, batch: batch.number, first },
        operation: batch.operation,
        schema: if batch.operation == Operation::Remove {
            context.remove_schema
        } else {
            context.schema
        },
        rows,
        session: step,
    };
    let result = send_when_allowed(context, &request, part).await;
    if let Err(error @ SendError { class: SendClass::Paced(_), .. }) = &result {
        // No request was sent, so there is no receipt.
        return Err(error.clone().into());
    }
    let now = context.clock.now();
    let usage = match &result {
        Ok(response) => response.usage,
        Err(error) => error.usage,
    };
    if let Some(usage) = usage {
        context.quotas.observe(context.name, usage, now);
    }
    context.ledger.add_receipt(&receipt(context, &request, &result)).await?;
    let response = result?;
    if let (Some(session), Some(step)) = (session.as_mut(), step) {
        session.opened = true;
        session.closed |= step.last;
        session.sent += response.received;
        session.closing_row = rows.last().cloned().into_iter().collect();
    }
    Ok(response)
}

fn receipt(
    context: &SendContext<'_>,
    request: &SendRequest<'_>,
    result: &Result<SendResponse, SendError>,
) -> Receipt {
    let session = request.session.map(|s| s.id.to_string());
    let mut receipt = Receipt {
        task: context.task,
        batch: request.part.batch,
        operation: request.operation,
        rows: request.rows.len() as u64,
        received: 0,
        invalid: 0,
        invalid_reasons: ReasonCounts::new(),
        http_status: 0,
        error_code: None,
        platform_ref: session,
        at: context.clock.now(),
    };
    match result {
        Ok(response) => {
            receipt.received = response.received;
            receipt.invalid = response.invalid;
            receipt.http_status = response.http_status;
            receipt.invalid_reasons = response.unmatched_reasons.clone();
            for (_, reason) in &response.invalid_rows {
                *receipt.invalid_reasons.entry(reason.clone()).or_default() += 1;
            }
            if receipt.platform_ref.is_none() {
                receipt.platform_ref = response.platform_ref.clone();
            }
        }
        Err(error) => {
            receipt.http_status = error.http_status;
            receipt.error_code = error.code;
            if error.class == SendClass::Restart {
                receipt.platform_ref = Some(LOST_SESSION.to_owned());
            }
        }
    }
    receipt
}
