//! Why a file of a part cannot be written or read.

use std::path::{Path, PathBuf};

/// Why a file of a part cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PartFileError {
    /// An error of the file system.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what was written.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl PartFileError {
    pub(crate) fn io<'a>(
        doing: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<'a> {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}
