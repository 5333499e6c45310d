//! Problems of a disk or a server that stores state, in the classes that an operator acts on.

use std::io::{self, ErrorKind};

use serde::Serialize;

/// Why state cannot be read or written now. An error outside these classes is caused by the call or
/// the program, not by the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageProblem {
    /// The disk, the quota or the file size limit is used up.
    DiskFull,
    /// The file system or the database accepts no writes.
    ReadOnly,
    /// The device or the file system reports an I/O error.
    Io,
    /// Another process holds a lock for too long.
    Busy,
    /// The server does not respond, or closed the connection.
    ConnectionLost,
    /// The server accepts no more connections.
    TooManyConnections,
    /// The stored data is damaged. A retry does not help: restore a backup.
    Damaged,
}

impl StorageProblem {
    /// The class of an error of the operating system; `None` if it is not about storage.
    ///
    /// ```
    /// use std::io::{Error, ErrorKind};
    ///
    /// use throng_model::StorageProblem;
    ///
    /// let full = StorageProblem::of_io(&Error::from(ErrorKind::StorageFull));
    /// assert_eq!(full, Some(StorageProblem::DiskFull));
    /// assert_eq!(StorageProblem::of_io(&Error::from(ErrorKind::NotFound)), None);
    /// ```
    pub fn of_io(error: &io::Error) -> Option<Self> {
        /// `EIO` on every Unix.
        const EIO: i32 = 5;
        Some(match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::DiskFull
            }
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            ErrorKind::ResourceBusy => Self::Busy,
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::BrokenPipe
            | ErrorKind::TimedOut
            | ErrorKind::UnexpectedEof
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown => Self::ConnectionLost,
            _ if error.raw_os_error() == Some(EIO) => Self::Io,
            _ => return None,
        })
    }

    /// The class of the first error of the operating system among an error and its causes.
    pub fn in_causes(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(problem) = error.downcast_ref::<io::Error>().and_then(Self::of_io) {
                return Some(problem);
            }
            next = error.source();
        }
        None
    }

    /// Whether the same call can succeed later without a restart, once the cause is removed.
    pub fn is_retryable(self) -> bool {
        self != Self::Damaged
    }

    /// The class in words, for messages and alerts.
    pub fn words(self) -> &'static str {
        match self {
            Self::DiskFull => "disk full",
            Self::ReadOnly => "read-only",
            Self::Io => "I/O error",
            Self::Busy => "busy",
            Self::ConnectionLost => "connection lost",
            Self::TooManyConnections => "too many connections",
            Self::Damaged => "damaged",
        }
    }

    /// How an operator can fix it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::DiskFull => "free some space; the node continues by itself",
            Self::ReadOnly => "make it writable again; the node continues by itself",
            Self::Io => {
                "check the disk and the kernel log; the node continues by itself once writes succeed"
            }
            Self::Busy => "find the process that holds the lock; the node retries",
            Self::ConnectionLost => {
                "check the server and the network; the node reconnects by itself"
            }
            Self::TooManyConnections => {
                "raise the server's connection limit or lower node.ledger_connections; the node retries"
            }
            Self::Damaged => "stop the node and restore a backup with `throng restore`",
        }
    }
}

impl std::fmt::Display for StorageProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_class_is_found_among_the_causes() {
        for (code, expected) in [
            (28, Some(StorageProblem::DiskFull)),
            (122, Some(StorageProblem::DiskFull)),
            (27, Some(StorageProblem::DiskFull)),
            (30, Some(StorageProblem::ReadOnly)),
            (5, Some(StorageProblem::Io)),
            (111, Some(StorageProblem::ConnectionLost)),
            (2, None),
        ] {
            let error = Outer(io::Error::from_raw_os_error(code));
            assert_eq!(StorageProblem::in_causes(&error), expected, "errno {code}");
        }
    }
}
