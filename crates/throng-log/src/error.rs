//! What can go wrong with a log.

use std::io;
use std::path::PathBuf;

use throng_model::{Fault, Retry};

/// The result of a call to a log.
pub type Result<T> = std::result::Result<T, LogError>;

/// Why a call to a log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no such partition.
    #[error("the event log has partitions 0 to {}, not {partition}", partitions - 1)]
    NoSuchPartition {
        /// The partition asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// The log was made with another number of partitions, or with none or too many.
    #[error(
        "the event log in {} has {found} partitions, not {wanted}: set node.log_partitions to {found}, or start with another data directory",
        dir.display()
    )]
    Partitions {
        /// The log's folder.
        dir: PathBuf,
        /// How many the log has.
        found: u32,
        /// How many were asked for.
        wanted: u32,
    },
    /// Somebody else writes this log.
    #[error("another process writes the event log in {}: stop it, or open the log read-only", dir.display())]
    Locked {
        /// The log's folder.
        dir: PathBuf,
    },
    /// The records were let go.
    #[error("partition {partition} of the event log begins at offset {first}; {wanted} is gone")]
    Gone {
        /// The partition.
        partition: u32,
        /// The offset asked for.
        wanted: u64,
        /// The oldest offset that is kept.
        first: u64,
    },
    /// A record is too long.
    #[error("a record of {bytes} bytes is too long for the event log: {limit} are the limit")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// The log was opened for reading only.
    #[error("the event log was opened read-only")]
    ReadOnly,
    /// An acknowledged record cannot be read back: the disk lost or changed it.
    #[error(
        "the event log is damaged in {} at byte {position}: {why}. Restore the log from a backup, or set \
         what is damaged aside and go on without it: `throng log repair --dir DATA_DIRECTORY`",
        path.display()
    )]
    Damaged {
        /// The segment file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong there.
        why: &'static str,
    },
    /// A newer version of this program wrote the log.
    #[error(
        "{} has the format {found}, which this version does not know: a newer version of throng wrote it. \
         Use that version, or go back to a backup from before the upgrade",
        path.display()
    )]
    Newer {
        /// The segment file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The disk did not say whether it kept the records. They are not read, except after a restart
    /// before the next append succeeds. The next append looks at what is on the disk first.
    #[error("the disk did not confirm a write to {}: check the disk; sending again is safe", path.display())]
    Unknown {
        /// The segment file.
        path: PathBuf,
    },
    /// There is little room left on the disk; nothing was appended.
    #[error(
        "only {available} bytes are free on the disk of {}, and {floor} must be: make room, or lower \
         node.min_free_disk_bytes",
        path.display()
    )]
    DiskLow {
        /// The partition's folder.
        path: PathBuf,
        /// Bytes that are free.
        available: u64,
        /// Bytes that must be.
        floor: u64,
    },
    /// The operating system refused something; nothing was appended.
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
    /// Kafka refused something, or no broker answered.
    #[error("cannot {doing} {topic} in Kafka: {help}")]
    Kafka {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The topic, or the prefix of topics.
        topic: String,
        /// What to mend.
        help: &'static str,
        /// Kafka's words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The brokers did not say whether they kept the records: they may be there or not.
    #[error("the brokers did not confirm an append to {topic}: append again what must not be lost")]
    Unconfirmed {
        /// The topic.
        topic: String,
    },
    /// Records that are there did not come.
    #[error("the brokers give no records of {topic}: check that they can be reached")]
    Unanswered {
        /// The topic.
        topic: String,
    },
    /// The log is closed, or a thread of it ended.
    #[error("the event log is closed")]
    Closed,
}

impl LogError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Partitions { .. }
            | Self::Locked { .. }
            | Self::TooLong { .. }
            | Self::Newer { .. } => Fault::User,
            Self::Damaged { .. }
            | Self::Unknown { .. }
            | Self::DiskLow { .. }
            | Self::Io { .. }
            | Self::Kafka { .. }
            | Self::Unconfirmed { .. }
            | Self::Unanswered { .. } => Fault::External,
            Self::NoSuchPartition { .. } | Self::Gone { .. } | Self::ReadOnly | Self::Closed => {
                Fault::Internal
            }
        }
    }

    /// Whether the same call can succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Io { .. }
            | Self::Unknown { .. }
            | Self::DiskLow { .. }
            | Self::Kafka { .. }
            | Self::Unconfirmed { .. }
            | Self::Unanswered { .. } => Retry::Backoff,
            _ => Retry::Never,
        }
    }

    /// Whether the local disk is what fails: it is full, or refuses, or does not confirm writes.
    pub fn is_of_disk(&self) -> bool {
        matches!(self, Self::DiskLow { .. } | Self::Unknown { .. } | Self::Io { .. })
    }

    /// The same error for another caller whose records were to be written with these.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Io { doing, path, source } => Self::Io {
                doing,
                path: path.clone(),
                source: io::Error::new(source.kind(), source.to_string()),
            },
            Self::Damaged { path, position, why } => {
                Self::Damaged { path: path.clone(), position: *position, why }
            }
            Self::Newer { path, found } => Self::Newer { path: path.clone(), found: *found },
            Self::DiskLow { path, available, floor } => {
                Self::DiskLow { path: path.clone(), available: *available, floor: *floor }
            }
            Self::Unknown { path } => Self::Unknown { path: path.clone() },
            _ => Self::Closed,
        }
    }

    pub(crate) fn io(
        doing: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
