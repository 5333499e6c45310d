//! What a platform must be able to do. The written contract is `docs/specs/destination.md`.

use std::time::Duration;

use async_trait::async_trait;
use throng_model::{HashedIdentifier, Personal, SyncName, SyncRunId};
use throng_store::{Operation, ReasonCounts};

/// The columns of a sync, as the platform names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The platform's keys (`EMAIL`, `PHONE`, …) in the order of a row's cells.
    pub keys: Vec<String>,
    /// Two capital letters; for phone numbers without a calling code and rows without a country.
    pub default_country: Option<String>,
}

/// One identifier, ready for the wire.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// Hashed.
    Hashed(HashedIdentifier),
    /// A value that the platform wants as it is: an advertising id, an external id.
    Plain(Box<str>),
    /// Nothing usable.
    Empty,
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hashed(_) => "Hashed(…)",
            Self::Plain(_) => "Plain(…)",
            Self::Empty => "Empty",
        })
    }
}

/// A user's identifiers, normalised and hashed. One cell for each key of the [`Schema`].
pub type PreparedRow = Box<[Cell]>;

/// Why a row is not worth sending. The text is the reason in the run's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skip(pub &'static str);

/// What a destination allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows in one request.
    pub max_batch_rows: u32,
    /// Tasks of one account at work at the same time.
    pub max_tasks: u32,
}

/// Where a request stands in an upload session that replaces the whole audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStep {
    /// Positive, unique in the account, the same for all requests of the session.
    pub id: i64,
    /// 1 for the request that opens the session, otherwise larger and unique.
    pub seq: u64,
    /// The request closes the session.
    pub last: bool,
    /// The session has taken these rows before: the request is sent only to close it, because the last
    /// rows that were planned had nothing worth sending.
    pub repeated: bool,
    /// Rows that this session has sent before, for platforms that count over the session.
    pub sent_before: u64,
    /// Rows that the session may have in all.
    pub estimated_total: u64,
}

/// Which rows a request carries. A request that is sent again has the same part and the same rows, in
/// another process too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPart {
    /// The run.
    pub run: SyncRunId,
    /// The number of the batch in the run. Batches of a run are sent in the order of their numbers.
    pub batch: u32,
    /// The place of the first row among the batch's rows; 0 unless the batch was halved.
    pub first: u64,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct SendRequest<'a> {
    /// The platform's id of the audience.
    pub platform_id: &'a str,
    /// Which rows these are.
    pub part: BatchPart,
    /// What to do.
    pub operation: Operation,
    /// What the cells mean.
    pub schema: &'a Schema,
    /// The rows, at least one and at most [`Limits::max_batch_rows`].
    pub rows: &'a [PreparedRow],
    /// Set if and only if the operation is `Replace`.
    pub session: Option<SessionStep>,
}

/// How much of the account's quota is used, as the platform said with its last answer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// The fullest of the platform's meters, in percent. May pass 100.
    pub percent: f64,
    /// How long calls would be refused from now on.
    pub regain: Option<Duration>,
}

/// What the platform said about a request that it took. Not yet success: the counts tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// HTTP status; 0 if the destination does not use HTTP.
    pub http_status: u16,
    /// Rows of this request that the platform says it received.
    pub received: u64,
    /// Rows of this request that the platform says are invalid.
    pub invalid: u64,
    /// Which rows those are, as far as the platform says: index in the request and reason.
    pub invalid_rows: Vec<(usize, String)>,
    /// Reasons of samples that could not be matched with a row of the request.
    pub unmatched_reasons: ReasonCounts,
    /// The platform's id of the request or session.
    pub platform_ref: Option<String>,
    /// Quota.
    pub usage: Option<Usage>,
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendClass {
    /// Nobody is to blame; the same request can succeed soon.
    Retry,
    /// The account is throttled: calls before this has passed make it worse.
    Wait(Duration),
    /// The audience is busy with something that may take hours: try this task again after this.
    Later(Duration),
    /// The upload session is lost: send all of it again under a new id.
    Restart,
    /// This task cannot go on until a person acts.
    Stop,
    /// No task of this account can go on until a person acts: token, permission, terms.
    StopAccount,
    /// The content of the request is refused: some row in it, or all of it.
    Fix,
}

/// Which command lets work go on after a failure that does not end by itself, once its cause is fixed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Advice {
    /// The failed task goes back to the queue.
    #[default]
    Requeue,
    /// The sync needs another audience on the platform.
    Recreate,
    /// None that a person has to run: the message says what is to be done.
    None,
}

/// Why a call failed. Holds no value of a row and no secret.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// What to do about it.
    pub class: SendClass,
    /// The platform's error code, if it gave one.
    pub code: Option<i64>,
    /// What was being done, what the platform said, and how to fix it.
    pub message: String,
    /// The command that follows.
    pub advice: Advice,
    /// HTTP status; 0 if the connection was cut or never made, or if the destination does not use HTTP.
    pub http_status: u16,
    /// Quota.
    pub usage: Option<Usage>,
}

impl SendError {
    /// A failure on our side of the wire.
    pub fn local(class: SendClass, message: impl Into<String>) -> Self {
        let (message, advice) = (message.into(), Advice::default());
        Self { class, code: None, message, advice, http_status: 0, usage: None }
    }

    /// The same failure with other advice.
    #[must_use]
    pub fn advising(self, advice: Advice) -> Self {
        Self { advice, ..self }
    }

    /// The message, with the command that gives a sync another audience if that is the way to go on.
    pub fn message_for(&self, sync: &SyncName) -> String {
        match self.advice {
            Advice::Recreate => {
                format!("{}; `throng sync recreate {sync}` makes a new audience", self.message)
            }
            Advice::Requeue | Advice::None => self.message.clone(),
        }
    }
}

/// What a platform knows about the size of an audience.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlatformSize {
    /// At least this many people, if known.
    pub lower: Option<u64>,
    /// At most this many people, if known.
    pub upper: Option<u64>,
    /// The platform is still at work on the last upload.
    pub settling: bool,
    /// The platform says that the audience is unusable or suspicious, in its words.
    pub trouble: Option<String>,
}

/// An audience that is there for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensured {
    /// The platform's id.
    pub platform_id: String,
    /// This call made it.
    pub created: bool,
    /// It was made by this owner, now or before.
    pub own: bool,
}

/// An account on an ad platform. Every call is safe to repeat.
#[async_trait]
pub trait Destination: Send + Sync {
    /// What the platform allows. Constant.
    fn limits(&self) -> Limits;

    /// The audience of this name. Looks for the name before it creates, so that a crash between
    /// creating and recording does not leave two. `owner` is kept with the audience on the platform,
    /// and tells later whether it was made by the same one: 16 hexadecimal digits.
    async fn ensure_audience(&self, name: &str, owner: &str) -> Result<Ensured, SendError>;

    /// Normalises and hashes one row. `Err` if nothing in it is worth sending. Pure, no I/O;
    /// microseconds.
    fn prepare(&self, schema: &Schema, cells: &[Option<Personal>]) -> Result<PreparedRow, Skip>;

    /// Sends one request. `Ok` is not yet success: the answer's counts tell.
    async fn send(&self, request: &SendRequest<'_>) -> Result<Answer, SendError>;

    /// Reads the audience's size back.
    async fn size(&self, platform_id: &str) -> Result<PlatformSize, SendError>;

    /// Deletes an audience. `Ok` also if the account has none of this id: an earlier call whose answer
    /// was lost has deleted it.
    async fn delete_audience(&self, platform_id: &str) -> Result<(), SendError>;

    /// Whether token and account work, with the smallest call there is.
    async fn probe(&self) -> Result<(), SendError>;
}
