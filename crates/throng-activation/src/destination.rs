//! The interface of a platform. The contract is `docs/specs/destination.md`.

use std::time::Duration;

use async_trait::async_trait;
use throng_delivered::{PreparedRow, Skip};
use throng_model::{Personal, SyncName, SyncRunId};
use throng_store::{Operation, ReasonCounts};

/// The columns of a sync, by the platform's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The platform's keys (`EMAIL`, `PHONE`, …) in the order of a row's cells.
    pub keys: Vec<String>,
    /// Two capital letters; applies to phone numbers without a calling code and rows without a country.
    pub default_country: Option<String>,
}

/// The limits of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestinationLimits {
    /// Rows in one request.
    pub max_batch_rows: u32,
    /// Tasks of one account that run at the same time.
    pub max_tasks: u32,
    /// Sizes are numbers of matched people that follow deliveries, so that a series of them is evaluated. `None`:
    /// they are something else.
    pub sizes: Option<SizeLimits>,
}

/// What a platform documents about the sizes of its audiences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimits {
    /// The smallest size that is shown as a number. Of a smaller audience the platform shows no size, or this as the
    /// upper bound.
    pub min_shown: u64,
    /// The longest time until a size shows a change.
    pub lag: Duration,
}

/// The position of a request in an upload session that replaces the whole audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStep {
    /// Positive, unique in the account, the same for all requests of the session.
    pub id: i64,
    /// 1 for the request that opens the session, otherwise larger and unique.
    pub seq: u64,
    /// The request closes the session.
    pub last: bool,
    /// The session has these rows already: the request only closes it, because the last planned rows were
    /// all skipped or refused.
    pub repeated: bool,
    /// Rows that this session has already sent, for platforms that count over the session.
    pub sent_before: u64,
    /// The expected number of rows of the session.
    pub estimated_total: u64,
}

/// The rows of a request. A request that is sent again has the same part and the same rows, also from
/// another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPart {
    /// The run.
    pub run: SyncRunId,
    /// The number of the batch in the run. Batches of a run are sent in the order of their numbers.
    pub batch: u32,
    /// The index of the first row in the batch; 0 unless the batch was bisected.
    pub first: u64,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct SendRequest<'a> {
    /// The platform's id of the audience.
    pub platform_id: &'a str,
    /// The position of the rows in their run.
    pub part: BatchPart,
    /// The operation.
    pub operation: Operation,
    /// The meaning of the cells.
    pub schema: &'a Schema,
    /// The rows: at least one, at most [`DestinationLimits::max_batch_rows`].
    pub rows: &'a [PreparedRow],
    /// Set if and only if the operation is `Replace`.
    pub session: Option<SessionStep>,
}

/// The used quota of an account, as reported with the platform's last response.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// The highest of the account's meters, in percent. May exceed 100. `None`: the response has none.
    pub percent: Option<f64>,
    /// The highest meter that the account shares with other accounts of the same app.
    pub app_percent: Option<f64>,
    /// How long calls are refused from now on, if they are.
    pub regain: Option<Duration>,
}

/// The platform's response to an accepted request. It is not yet a success: the counts decide.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SendResponse {
    /// HTTP status; 0 if the destination does not use HTTP.
    pub http_status: u16,
    /// Rows of this request that the platform reports as received.
    pub received: u64,
    /// Rows of this request that the platform reports as invalid.
    pub invalid: u64,
    /// The invalid rows that the platform names: index in the request and reason.
    pub invalid_rows: Vec<(usize, String)>,
    /// Reasons of samples that match no row of the request.
    pub unmatched_reasons: ReasonCounts,
    /// The platform's id of the request or session.
    pub platform_ref: Option<String>,
    /// Quota.
    pub usage: Option<Usage>,
}

/// How to continue after a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendClass {
    /// A transient failure: the same request can succeed soon.
    Retry,
    /// The account is throttled for this long: earlier calls extend the throttle.
    Throttled(Duration),
    /// The account's quota of calls is used, so that no call was made. It can be tried again after this time.
    Paced(Duration),
    /// The audience is busy, possibly for hours: retry this task after this time.
    RetryLater(Duration),
    /// The upload session is lost: send all its rows again under a new id.
    Restart,
    /// This task cannot continue until a person acts.
    Stop,
    /// No task of this account can continue until a person acts: token, permission, terms.
    StopAccount,
    /// The content of the request is refused: one of its rows, or all of them.
    InvalidRows,
}

/// The command that continues the work after a permanent failure, once its cause is fixed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Advice {
    /// Put the failed task back in the queue.
    #[default]
    Requeue,
    /// The sync needs another audience on the platform.
    Recreate,
    /// No command: the message says what to do.
    None,
}

/// A failed call. Holds no value of a row and no secret.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// How to continue.
    pub class: SendClass,
    /// The platform's error code, if it gave one.
    pub code: Option<i64>,
    /// What was being done, what the platform reported, and a hint.
    pub message: String,
    /// The command that continues the work.
    pub advice: Advice,
    /// HTTP status; 0 if the connection was cut or never made, or if the destination does not use HTTP.
    pub http_status: u16,
    /// Quota.
    pub usage: Option<Usage>,
}

impl SendError {
    /// A failure without a response of the platform.
    pub fn local(class: SendClass, message: impl Into<String>) -> Self {
        let (message, advice) = (message.into(), Advice::default());
        Self { class, code: None, message, advice, http_status: 0, usage: None }
    }

    /// The same failure with other advice.
    #[must_use]
    pub fn with_advice(self, advice: Advice) -> Self {
        Self { advice, ..self }
    }

    /// The message, with the command that creates another audience for the sync if that is the advice.
    pub fn message_for(&self, sync: &SyncName) -> String {
        match self.advice {
            Advice::Recreate => {
                format!("{}; `throng sync recreate {sync}` creates a new audience", self.message)
            }
            Advice::Requeue | Advice::None => self.message.clone(),
        }
    }
}

/// The size of an audience as a platform reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlatformSize {
    /// At least this many people, if known.
    pub lower: Option<u64>,
    /// At most this many people, if known.
    pub upper: Option<u64>,
    /// The platform is still processing the last upload.
    pub settling: bool,
    /// The platform reports a problem with the audience, in its words.
    pub problem: Option<String>,
}

/// An audience that exists on the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnsuredAudience {
    /// The platform's id.
    pub platform_id: String,
    /// This call created it, or an earlier one of this owner to which nothing was ever sent. An earlier one may also
    /// count as found, with `own` set.
    pub created: bool,
    /// This owner created it, by this call or an earlier one.
    pub own: bool,
}

/// An account on an ad platform. Every call is safe to repeat.
#[async_trait]
pub trait Destination: Send + Sync {
    /// The limits of the platform. Constant.
    fn limits(&self) -> DestinationLimits;

    /// Finds the audience of this name, or creates it. The name is searched first, so that a crash between
    /// creating and recording does not leave two audiences. `owner` (16 hexadecimal digits) is stored with
    /// the audience on the platform: it shows later whether the same owner created it.
    async fn ensure_audience(&self, name: &str, owner: &str) -> Result<EnsuredAudience, SendError>;

    /// Normalises and hashes one row. `Err` if the row has nothing to send. Pure, no I/O; takes
    /// microseconds.
    fn prepare(&self, schema: &Schema, cells: &[Option<Personal>]) -> Result<PreparedRow, Skip>;

    /// Sends one request. `Ok` is not yet a success: the counts of the response decide.
    async fn send(&self, request: &SendRequest<'_>) -> Result<SendResponse, SendError>;

    /// Reads the audience's size.
    async fn size(&self, platform_id: &str) -> Result<PlatformSize, SendError>;

    /// Deletes an audience. `Ok` also if the account no longer has the audience: an earlier call whose response
    /// was lost has deleted it.
    async fn delete_audience(&self, platform_id: &str) -> Result<(), SendError>;

    /// Checks token and account with the cheapest call that the platform has.
    async fn probe(&self) -> Result<(), SendError>;
}
