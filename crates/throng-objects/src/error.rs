//! Errors of object stores.

use std::io;
use std::path::{Path, PathBuf};

use throng_model::{Fault, Retry};

/// The result of a call to a store.
pub type Result<T> = std::result::Result<T, ObjectsError>;

/// Why a call to a store failed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// There is no such object.
    #[error("there is no object `{name}`: it was removed, or never uploaded")]
    Missing {
        /// Its name.
        name: String,
    },
    /// The name is invalid.
    #[error(
        "`{name}` is not a name of an object: names are relative paths of letters, digits, - _ . = :"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The key of an object that others have written is not a path.
    #[error("the object `{}` cannot be copied: {why}", key.escape_debug())]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// An object that others write to is not the listed one.
    #[error("the object `{name}` was replaced while it was downloaded")]
    Replaced {
        /// Its key.
        name: String,
    },
    /// The settings are invalid.
    #[error("the object storage cannot be used with these settings: {why}")]
    Settings {
        /// What is wrong with them, with a hint.
        why: String,
    },
    /// A system call failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A request to the store failed, or the store cannot be reached.
    #[error("cannot {doing} `{name}` in the object storage")]
    Store {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The object.
        name: String,
        /// The error of the store or of the network.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A download ended before the length that the store reported.
    #[error("the download of `{name}` ended after {got} of {expected} bytes")]
    IncompleteDownload {
        /// The object.
        name: String,
        /// Its length in the store.
        expected: u64,
        /// The received bytes.
        got: u64,
    },
}

impl ObjectsError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Settings { .. } | Self::Key { .. } => Fault::User,
            Self::Io { .. }
            | Self::Store { .. }
            | Self::IncompleteDownload { .. }
            | Self::Replaced { .. } => Fault::External,
            Self::Missing { .. } | Self::Name { .. } => Fault::Internal,
        }
    }

    /// Whether the same call can succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Io { .. }
            | Self::Store { .. }
            | Self::IncompleteDownload { .. }
            | Self::Replaced { .. } => Retry::Backoff,
            Self::Missing { .. } | Self::Name { .. } | Self::Settings { .. } | Self::Key { .. } => {
                Retry::Never
            }
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
