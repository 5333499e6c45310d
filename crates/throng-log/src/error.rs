//! What can go wrong with a log.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use throng_model::{Fault, Retry, StorageProblem};

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
    /// The log has another number of partitions, or the requested number is 0 or too large.
    #[error(
        "the event log in {} has {found} partitions, not {wanted}: set node.log_partitions to {found}, or start with another data directory",
        dir.display()
    )]
    Partitions {
        /// The log's folder.
        dir: PathBuf,
        /// The number that the log has.
        found: u32,
        /// The number that was requested.
        wanted: u32,
    },
    /// Another process writes this log.
    #[error("another process writes the event log in {}: stop it, or open the log read-only", dir.display())]
    Locked {
        /// The log's folder.
        dir: PathBuf,
    },
    /// The records at the offset were deleted.
    #[error(
        "offset {wanted} of partition {partition} of the event log is out of range: the first offset is {first}"
    )]
    OffsetOutOfRange {
        /// The partition.
        partition: u32,
        /// The requested offset.
        wanted: u64,
        /// The offset of the oldest record.
        first: u64,
    },
    /// A record exceeds the limit.
    #[error("a record of {bytes} bytes is too large for the event log: the limit is {limit} bytes")]
    RecordTooLarge {
        /// Its length.
        bytes: usize,
        /// The largest length.
        limit: usize,
    },
    /// The log was opened for reading only; a queue, for putting only.
    #[error("the event log was opened read-only")]
    ReadOnly,
    /// An acknowledged record cannot be read: the disk lost or changed it.
    #[error(
        "the event log is damaged in {} at byte {position}: {why}. Restore the log from a backup, or \
         remove the damaged records: `throng log repair --dir DATA_DIRECTORY`",
        path.display()
    )]
    Damaged {
        /// The segment file.
        path: PathBuf,
        /// The position of the damage, in bytes.
        position: u64,
        /// What is wrong there.
        why: &'static str,
    },
    /// A newer version of this program wrote the log.
    #[error(
        "{} has the format {found}, which this version does not support: a newer version of throng wrote \
         it. Use that version, or restore a backup from before the upgrade",
        path.display()
    )]
    UnsupportedFormat {
        /// The segment file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The disk did not confirm that it stored the records. They are not read, except after a restart
    /// before the next successful append. The next append verifies the file first.
    #[error("the disk did not confirm a write to {}: check the disk; sending again is safe", path.display())]
    UnconfirmedWrite {
        /// The segment file.
        path: PathBuf,
    },
    /// The free space of the disk is below the limit; nothing was appended.
    #[error(
        "only {available} bytes are free on the disk of {}; at least {min_free} are required: free disk \
         space, or lower node.min_free_disk_bytes",
        path.display()
    )]
    DiskLow {
        /// The partition's folder.
        path: PathBuf,
        /// Free bytes.
        available: u64,
        /// Required free bytes.
        min_free: u64,
    },
    /// A system call failed; nothing was appended.
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
    /// A request to Kafka failed, or no broker answered.
    #[error("cannot {doing} {topic} in Kafka: {hint}")]
    Kafka {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The topic, or the prefix of topics.
        topic: String,
        /// What to check or change.
        hint: &'static str,
        /// The client's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A topic that exists has settings with which events or budgets would be wrong.
    #[error("the Kafka topic {topic} cannot be used: {}. To correct it, {help}", found.join("; "))]
    TopicSettings {
        /// The topic.
        topic: String,
        /// Each setting, with what was found and what is needed.
        found: Vec<String>,
        /// What to do, with a command.
        help: String,
    },
    /// The brokers did not confirm that they stored the records: they may be in the topic or not.
    #[error("the brokers did not confirm an append to {topic}: append again what must not be lost")]
    Unconfirmed {
        /// The topic.
        topic: String,
    },
    /// No broker answers; nothing was appended. The client keeps asking them.
    #[error(
        "no broker of Kafka answers, nothing was appended to {topic}: check that the brokers of node.kafka.brokers \
         run and can be reached from here"
    )]
    Unreachable {
        /// The topic.
        topic: String,
    },
    /// The log did not confirm in time that it stored the records: they may be in it, now or later.
    #[error(
        "the event log did not confirm an append within {limit:.1?}: append again what must not be lost"
    )]
    AppendTimeout {
        /// The time that the caller waited.
        limit: Duration,
    },
    /// The brokers did not answer in time.
    #[error("the brokers did not answer in time for {topic}: check that they can be reached")]
    BrokerTimeout {
        /// The topic.
        topic: String,
    },
    /// The log is closed, or one of its threads ended.
    #[error("the event log is closed")]
    Closed,
}

impl LogError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Partitions { .. }
            | Self::Locked { .. }
            | Self::RecordTooLarge { .. }
            | Self::UnsupportedFormat { .. }
            | Self::TopicSettings { .. } => Fault::User,
            Self::Damaged { .. }
            | Self::UnconfirmedWrite { .. }
            | Self::DiskLow { .. }
            | Self::Io { .. }
            | Self::Kafka { .. }
            | Self::Unconfirmed { .. }
            | Self::Unreachable { .. }
            | Self::AppendTimeout { .. }
            | Self::BrokerTimeout { .. } => Fault::External,
            Self::NoSuchPartition { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::ReadOnly
            | Self::Closed => Fault::Internal,
        }
    }

    /// Whether the same call can succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Io { .. }
            | Self::UnconfirmedWrite { .. }
            | Self::DiskLow { .. }
            | Self::Kafka { .. }
            | Self::Unconfirmed { .. }
            | Self::Unreachable { .. }
            | Self::AppendTimeout { .. }
            | Self::BrokerTimeout { .. } => Retry::Backoff,
            _ => Retry::Never,
        }
    }

    /// The class of the problem, if the cause is a disk or a connection.
    pub fn problem(&self) -> Option<StorageProblem> {
        match self {
            Self::DiskLow { .. } => Some(StorageProblem::DiskFull),
            _ => StorageProblem::in_causes(self),
        }
    }

    /// Whether the local disk is the cause: it is full, fails, or does not confirm writes.
    pub fn is_disk_error(&self) -> bool {
        matches!(self, Self::DiskLow { .. } | Self::UnconfirmedWrite { .. } | Self::Io { .. })
    }

    /// Whether the records of an append that failed with it may be in the log, now or later: the next read or a
    /// restart can find them.
    pub fn may_be_appended(&self) -> bool {
        match self {
            // `Closed`: the thread of the log, or the client, ended before it had answered.
            Self::UnconfirmedWrite { .. }
            | Self::Unconfirmed { .. }
            | Self::AppendTimeout { .. }
            | Self::Closed => true,
            Self::NoSuchPartition { .. }
            | Self::Partitions { .. }
            | Self::Locked { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::RecordTooLarge { .. }
            | Self::ReadOnly
            | Self::Damaged { .. }
            | Self::UnsupportedFormat { .. }
            | Self::DiskLow { .. }
            | Self::Io { .. }
            | Self::Kafka { .. }
            | Self::TopicSettings { .. }
            | Self::Unreachable { .. }
            | Self::BrokerTimeout { .. } => false,
        }
    }

    /// A copy of the error for each caller whose records were in the same commit. The source of an I/O
    /// error cannot be cloned; its kind and text can.
    pub(crate) fn duplicate(&self) -> Self {
        match self {
            Self::Io { doing, path, source } => Self::Io {
                doing,
                path: path.clone(),
                source: io::Error::new(source.kind(), source.to_string()),
            },
            Self::Damaged { path, position, why } => {
                Self::Damaged { path: path.clone(), position: *position, why }
            }
            Self::UnsupportedFormat { path, found } => {
                Self::UnsupportedFormat { path: path.clone(), found: *found }
            }
            Self::DiskLow { path, available, min_free } => {
                Self::DiskLow { path: path.clone(), available: *available, min_free: *min_free }
            }
            Self::UnconfirmedWrite { path } => Self::UnconfirmedWrite { path: path.clone() },
            // No commit fails with one of these.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_free_space_is_a_full_disk() {
        let path = PathBuf::from("log/0");
        let low = LogError::DiskLow { path: path.clone(), available: 1, min_free: 2 };
        assert_eq!(low.problem(), Some(StorageProblem::DiskFull));
        let full = LogError::io("append to", &path)(io::ErrorKind::StorageFull.into());
        assert_eq!(full.problem(), Some(StorageProblem::DiskFull));
        assert_eq!(LogError::Closed.problem(), None);
    }

    #[test]
    fn an_append_that_was_not_confirmed_may_be_in_the_log() {
        let (path, topic) = (PathBuf::from("log/0"), "throng.events".to_owned());
        for uncertain in [
            LogError::UnconfirmedWrite { path: path.clone() },
            LogError::Unconfirmed { topic: topic.clone() },
            LogError::AppendTimeout { limit: Duration::from_secs(20) },
            LogError::Closed,
        ] {
            assert!(uncertain.may_be_appended(), "{uncertain}");
        }
        for refused in [
            LogError::DiskLow { path: path.clone(), available: 1, min_free: 2 },
            LogError::io("append to", &path)(io::Error::other("no")),
            LogError::RecordTooLarge { bytes: 2, limit: 1 },
            LogError::Unreachable { topic: topic.clone() },
            LogError::BrokerTimeout { topic },
            LogError::ReadOnly,
        ] {
            assert!(!refused.may_be_appended(), "{refused}");
        }
    }
}
