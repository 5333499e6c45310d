//! Errors of the lake, each with a hint.

use datafusion::error::DataFusionError;
use throng_files::FileError;
use throng_model::{Fault, Retry};
use throng_query::copies::CopyFailure;
use throng_query::position::{self, Position};
use throng_tables::{Misread, Refusal};
use throng_worker::{WorkerError, WorkerExit};

use crate::engine_failure::{EngineFailure, file_fault};

/// The hint for a value that cannot be converted, if its column is not known.
const CONVERT: &str = "the query compares text with numbers or dates, or converts it by CAST: if the values are keys, declare \
     the columns that are compared as text in the source, such as `columns: { user_id: text }`; else use TRY_CAST; a \
     TIMESTAMP has the years 1678 to 2261: compare dates after them with DATE '9999-12-31'";
/// The hint for a text that cannot be read as a date, a time or a number.
pub(crate) const PARSE: &str = "dates are written as 2026-11-25 and times as 2026-11-25T20:54:00; TRY_CAST is NULL for other texts, and \
     to_date and to_timestamp read those of a format, such as to_date(day, '%d.%m.%Y')";
/// The hint for a function that cannot be computed for a value.
const COMPUTE: &str = "compute it only for values that it accepts, such as CASE WHEN m BETWEEN 1 AND 12 THEN \
     make_date(y, m, 1) END, which is NULL for others, or leave their rows out in WHERE if the function is not there";

/// The hint for a division by zero.
const DIVIDE: &str = "write a / nullif(b, 0), which is NULL where b is 0; the engine may compute a quotient also for rows that \
     another condition of WHERE leaves out";

/// The hint for a date that a timestamp does not have.
const RANGE: &str = "compare dates with dates, as in CAST(now() AS DATE) and DATE '9999-12-31', or write \
     CAST(… AS TIMESTAMP(6)), which has all years";

/// The hint for a full disk.
const FULL_DISK: &str = "free space on that disk: of the node's data directory, or of the work folder of the executors of a \
     cluster, which `--work-dir` names";
/// The hint for rows that cannot be written to the disk.
const SPILL: &str = "free space on that disk, set node.spill_dir to a folder on a larger one, raise \
     node.memory_limit_bytes, or let the model read less";

/// Why a query, or another call of the lake, failed.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The SQL is wrong.
    #[error("{message}")]
    Sql {
        /// What is wrong.
        message: String,
        /// Where in the SQL.
        position: Option<Position>,
        /// How to fix it.
        help: Option<String>,
    },
    /// The model's result cannot be used as user keys.
    #[error("{message}")]
    Key {
        /// What is wrong.
        message: String,
        /// How to fix it.
        help: String,
    },
    /// Files of a source cannot be read, or not as tables.
    #[error(transparent)]
    File(#[from] FileError),
    /// The objects of a source in a bucket cannot be copied.
    #[error(transparent)]
    Copy(#[from] CopyFailure),
    /// The query needs more memory than it may use.
    #[error("the query needs more memory than memory_limit_bytes allows")]
    OutOfMemory {
        /// The engine's error, without values of the data.
        #[source]
        source: EngineFailure,
    },
    /// A value of the data cannot be converted or computed as the query requires. Another run over the same files fails
    /// in the same way.
    #[error("the query failed while {doing}")]
    Data {
        /// What was being done.
        doing: String,
        /// The engine's error, without values of the data.
        #[source]
        source: EngineFailure,
        /// How to fix it, if more is known than the error says.
        help: Option<String>,
    },
    /// The engine failed.
    #[error("the query failed while {doing}")]
    Engine {
        /// What was being done.
        doing: String,
        /// The engine's error, without values of the data.
        #[source]
        source: EngineFailure,
    },
    /// The sink of a scan returned an error.
    #[error("the scanned keys could not be stored")]
    Sink(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The query worker did not answer: it has exited, was killed because of a limit, or cannot be
    /// started.
    #[error(transparent)]
    Worker(WorkerError),
}

impl From<WorkerError> for LakeError {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Output(error) => Self::Sink(error),
            error => Self::Worker(error),
        }
    }
}

impl From<Refusal> for LakeError {
    fn from(refusal: Refusal) -> Self {
        Self::Key { message: refusal.message, help: refusal.help }
    }
}

impl LakeError {
    /// A form of SQL that the engine would run otherwise than standard SQL says.
    pub(crate) fn misread(sql: &str, found: Misread) -> Self {
        Self::Sql {
            message: found.message.to_owned(),
            position: position::of_only_word(sql, found.word),
            help: Some(found.help.to_owned()),
        }
    }

    /// Classifies an error of a query that runs in this process.
    pub(crate) fn engine(doing: &'static str, error: DataFusionError) -> Self {
        Self::classified(doing, &error, EngineFailure::of_execution(&error))
    }

    /// As [`LakeError::engine`], for an error that may be one of the way to another process.
    pub(crate) fn of_engine(doing: &'static str, error: &DataFusionError) -> Self {
        Self::classified(doing, error, EngineFailure::of(error))
    }

    fn classified(doing: &'static str, error: &DataFusionError, source: EngineFailure) -> Self {
        if let Some(fault) = file_fault(error) {
            return Self::File(fault.clone().into());
        }
        let doing = doing.to_owned();
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self::OutOfMemory { source },
            _ if source.is_of_data() => Self::Data { doing, source, help: None },
            _ => Self::Engine { doing, source },
        }
    }

    /// Line and column in the SQL, both from 1, if they are known.
    pub fn position(&self) -> Option<(u32, u32)> {
        match self {
            Self::Sql { position, .. } => position.map(|p| (p.line, p.column)),
            _ => None,
        }
    }

    /// How to fix it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Sql { help, .. } => help.clone(),
            Self::Key { help, .. } => Some(help.clone()),
            Self::File(error) => Some(error.help().to_owned()),
            Self::Copy(failure) => Some(failure.help.clone()),
            Self::OutOfMemory { .. } => Some(WorkerError::MORE_MEMORY.to_owned()),
            Self::Data { help: Some(help), .. } => Some(help.clone()),
            Self::Data { source, .. } if source.is_conversion() => Some(CONVERT.to_owned()),
            Self::Data { source, .. } if source.is_parsing() || source.is_formatted() => {
                Some(PARSE.to_owned())
            }
            Self::Data { source, .. } if source.is_computation() => Some(COMPUTE.to_owned()),
            Self::Data { source, .. } if source.is_division() => Some(DIVIDE.to_owned()),
            Self::Data { source, .. } if source.is_of_range() => Some(RANGE.to_owned()),
            Self::Engine { source, .. } if source.is_spill() => Some(SPILL.to_owned()),
            Self::Worker(error) => error.help().map(str::to_owned),
            Self::Engine { source, .. } if source.is_of_full_disk() => Some(FULL_DISK.to_owned()),
            Self::Data { .. } | Self::Engine { .. } | Self::Sink(_) => None,
        }
    }

    /// Whether no query worker can be started, independent of the query.
    pub fn is_worker_unavailable(&self) -> bool {
        matches!(self, Self::Worker(WorkerError::Confine { .. } | WorkerError::Start { .. }))
    }

    /// Whether what a file contains is the cause: another try reads something else if the file has changed since.
    pub(crate) fn is_of_content(&self) -> bool {
        matches!(self, Self::Data { .. } | Self::File(FileError::Table { .. }))
    }

    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Sql { .. } | Self::Key { .. } | Self::Data { .. } | Self::OutOfMemory { .. } => {
                Fault::User
            }
            Self::File(error) => error.fault(),
            Self::Copy(failure) => failure.fault,
            Self::Worker(WorkerError::Exited(
                WorkerExit::Memory { .. } | WorkerExit::Timeout { .. } | WorkerExit::Stack,
            )) => Fault::User,
            Self::Engine { .. } | Self::Sink(_) | Self::Worker(_) => Fault::External,
        }
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Sql { .. } | Self::Key { .. } | Self::Data { .. } => Retry::Never,
            Self::File(error) => error.retry(),
            Self::Copy(failure) => failure.retry,
            _ => Retry::Backoff,
        }
    }
}
