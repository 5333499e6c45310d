//! [`FileError`] as it goes over the pipe of a query worker.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use throng_files::FileError;
use throng_worker::SystemError;

/// [`FileError`] as it goes over a pipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FileFailure {
    /// [`FileError::Source`].
    Source {
        /// Which file or folder.
        path: PathBuf,
        /// The system's error.
        error: SystemError,
    },
    /// [`FileError::Table`].
    Table {
        /// What is wrong.
        message: String,
        /// How to fix it.
        help: String,
    },
    /// [`FileError::Changed`].
    Changed {
        /// Which file.
        path: PathBuf,
    },
    /// [`FileError::LeadsOut`].
    LeadsOut {
        /// The link.
        path: PathBuf,
        /// The folder that it must stay in.
        root: PathBuf,
    },
}

impl From<FileError> for FileFailure {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Source { path, source } => {
                Self::Source { path, error: SystemError::of(&source) }
            }
            FileError::Table { message, help } => Self::Table { message, help },
            FileError::Changed { path } => Self::Changed { path },
            FileError::LeadsOut { path, root } => Self::LeadsOut { path, root },
        }
    }
}

impl From<FileFailure> for FileError {
    fn from(failure: FileFailure) -> Self {
        match failure {
            FileFailure::Source { path, error } => Self::Source { path, source: error.into() },
            FileFailure::Table { message, help } => Self::Table { message, help },
            FileFailure::Changed { path } => Self::Changed { path },
            FileFailure::LeadsOut { path, root } => Self::LeadsOut { path, root },
        }
    }
}
