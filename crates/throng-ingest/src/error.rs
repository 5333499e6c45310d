//! Why a batch is not ingested.

use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use throng_files::FileError;
use throng_model::Retry;
use throng_objects::ObjectsError;
use tokio::task::JoinError;

/// Why a batch is not ingested. No error has a value of the data.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The content as a whole cannot be used, or the request is wrong.
    #[error("{message}")]
    Refused {
        /// What is wrong, with the line if there is one.
        message: String,
        /// How to fix it.
        help: String,
    },
    /// A batch of the same id had other content.
    #[error("the batch `{batch}` of the schema `{schema}` was ingested with other content")]
    Conflict {
        /// The schema.
        schema: String,
        /// The id.
        batch: String,
    },
    /// The body of the request was cut off. Nothing of it is stored.
    #[error("the content ended early: its sender was cut off")]
    CutOff,
    /// Another process ingests to the same folder.
    #[error("another process ingests to {}", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder of the node.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A Parquet file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// The reason.
        #[source]
        source: ParquetError,
    },
    /// The bucket of ingested rows. Whether a batch was committed is known when it is sent again.
    #[error("cannot use the bucket of ingested rows")]
    Bucket(#[from] ObjectsError),
    /// The process ends.
    #[error("the work on ingested rows was stopped")]
    Stopped,
    /// A bug.
    #[error("a thread that works on ingested rows panicked")]
    Panicked,
    /// The files of the table cannot be read.
    #[error("the table of the schema cannot be read")]
    Table(#[from] FileError),
}

impl IngestError {
    pub(crate) fn refused(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), help: help.into() }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// Why a task has no result. Without the text of a panic, which may have values.
    pub fn of_task(error: &JoinError) -> Self {
        if error.is_panic() { Self::Panicked } else { Self::Stopped }
    }

    /// Whether no batch can be ingested until the operator of the node has changed something.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Locked { .. } => true,
            Self::Bucket(error) => error.retry() == Retry::Never,
            _ => false,
        }
    }

    /// Whether the bucket does not answer: other requests to it take long, and fail too.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Bucket(ObjectsError::Store { .. }) | Self::Stopped)
    }

    /// How to fix it, if a person can.
    pub fn help(&self) -> Option<&str> {
        Some(match self {
            Self::Refused { help, .. } => help.as_str(),
            Self::Conflict { .. } => "send the other content with another batch id",
            Self::CutOff | Self::Stopped => {
                "send the batch again: with the same id nothing is stored twice"
            }
            Self::Locked { .. } => "let one node ingest, or give each its own `node.lake`",
            Self::Table(error) => error.help(),
            Self::Bucket(_) if self.needs_operator() => {
                "the operator of the node has to correct `node.lake`, or to create the bucket"
            }
            Self::Bucket(_) | Self::Io { .. } | Self::Write { .. } | Self::Panicked => return None,
        })
    }
}
