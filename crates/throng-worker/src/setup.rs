//! The first message to a worker, and its reply.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The first message to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup<T> {
    /// What it may use.
    pub confinement: Confinement,
    /// What its requests are about.
    pub task: T,
}

/// What a worker may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The parent process. The worker exits with it.
    pub parent: u32,
    /// The only folders that it may read.
    pub read: Vec<PathBuf>,
    /// Memory, in bytes, of what it accounts itself: the operators of a query.
    pub memory_bytes: u64,
    /// The only folder that it may write; `None`: it does not spill.
    pub spill_dir: Option<PathBuf>,
    /// The only port of other processes that it may connect to by TCP; `None`: it may not.
    #[serde(default)]
    pub connect_port: Option<u16>,
    /// Threads of its runtime.
    pub threads: usize,
}

/// The reply to [`Setup`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SetupReply {
    /// It is set up, except for these folders.
    Ready { unopened: Vec<UnopenedFolder> },
    /// It is not set up, and exits.
    Refused(Refusal),
}

/// Why a worker does not set itself up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// What it cannot do, with the folder's path.
    pub(crate) what: String,
    pub(crate) error: SystemError,
}

impl Refusal {
    pub(crate) fn new(what: impl Into<String>, error: &io::Error) -> Self {
        Self { what: what.into(), error: SystemError::of(error) }
    }
}

/// A folder that could not be opened: the worker has no right to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnopenedFolder {
    /// The folder.
    pub path: PathBuf,
    /// Why it could not be opened.
    pub error: SystemError,
}

impl UnopenedFolder {
    /// A folder that could not be opened because of this error.
    pub fn new(path: &Path, error: &io::Error) -> Self {
        Self { path: path.to_owned(), error: SystemError::of(error) }
    }
}

/// An error of the system as it is sent over a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemError {
    /// Its number, if it has one.
    code: Option<i32>,
    text: String,
}

impl SystemError {
    /// An error to send.
    pub fn of(error: &io::Error) -> Self {
        Self { code: error.raw_os_error(), text: error.to_string() }
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<SystemError> for io::Error {
    fn from(error: SystemError) -> Self {
        match error.code {
            Some(code) => Self::from_raw_os_error(code),
            None => Self::other(error.text),
        }
    }
}
