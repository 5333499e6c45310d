//! What can go wrong with objects.

use std::io;
use std::path::{Path, PathBuf};

use throng_model::{Fault, Retry};

/// The result of a call to a store.
pub type Result<T> = std::result::Result<T, ObjectsError>;

/// Why a call to a store failed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// There is no such object.
    #[error("there is no object `{name}`: it was removed, or never kept")]
    Missing {
        /// Its name.
        name: String,
    },
    /// No name of an object.
    #[error(
        "`{name}` is no name of an object: names are relative paths of letters, digits, - _ . ="
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// The settings make no sense.
    #[error("the object storage cannot be used with these settings: {why}")]
    Settings {
        /// What is wrong with them, and the mend.
        why: String,
    },
    /// The operating system refused something.
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
    /// The store refused something, or cannot be reached.
    #[error("the object storage did not {doing} `{name}`")]
    Store {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The object.
        name: String,
        /// What the store or the network says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A copy arrived with another length than the store tells.
    #[error("the copy of `{name}` has {got} bytes instead of {expected}: it is fetched again")]
    CutShort {
        /// The object.
        name: String,
        /// Its length in the store.
        expected: u64,
        /// The bytes that came.
        got: u64,
    },
}

impl ObjectsError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Settings { .. } => Fault::User,
            Self::Io { .. } | Self::Store { .. } | Self::CutShort { .. } => Fault::External,
            Self::Missing { .. } | Self::Name { .. } => Fault::Internal,
        }
    }

    /// Whether the same call can succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Io { .. } | Self::Store { .. } | Self::CutShort { .. } => Retry::Backoff,
            Self::Missing { .. } | Self::Name { .. } | Self::Settings { .. } => Retry::Never,
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
