//! Why a backup was not written or not restored.

use std::path::PathBuf;

use throng_log::LogError;
use throng_store::LedgerError;

/// Why a backup was not written or not restored. No incomplete files are left then.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no ledger to copy.
    #[error(
        "there is no ledger at {}: name the data directory of a node with `ledger: sqlite`; for \
         PostgreSQL, Kafka and buckets see docs/operate/backup.md",
        path.display()
    )]
    NoLedger {
        /// Where it should be.
        path: PathBuf,
    },
    /// A part of the node's state is not in the data directory.
    #[error(
        "the node keeps its {what} outside the data directory: back up ledger, bucket and Kafka as \
         docs/operate/backup.md says"
    )]
    Shared {
        /// `event log` or `objects`.
        what: &'static str,
    },
    /// The target exists.
    #[error("{} exists: name another target, or remove it first", path.display())]
    Exists {
        /// The target, or the temporary files of an interrupted backup.
        path: PathBuf,
    },
    /// Nothing is written there.
    #[error("cannot write to {}: {why}", path.display())]
    Target {
        /// The target of the backup, or the directory to restore to.
        path: PathBuf,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// The directory to restore to is in use.
    #[error("{} is not empty: a backup is restored to a new or empty directory", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// An object that the ledger names does not exist.
    #[error(
        "the ledger names the object {name}, which is not in {}: the data directory is damaged; see \
         `throng check` and the node's log",
        dir.display()
    )]
    Missing {
        /// The object.
        name: String,
        /// The folder of objects.
        dir: PathBuf,
    },
    /// Specs or snapshots changed faster than they could be copied.
    #[error(
        "the data directory changed during each of {rounds} rounds: try again when fewer snapshots and \
         specs change"
    )]
    Changing {
        /// How many rounds were tried.
        rounds: usize,
    },
    /// A manifest of the dictionary cannot be read.
    #[error("cannot read the ledger's dictionary")]
    Dictionary {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A checkpoint and the log do not belong together.
    #[error(
        "the checkpoint of partition {partition} is at {checkpoint}, and the event log has \
         offsets {start} to {end}: they do not belong together"
    )]
    Checkpoint {
        /// The partition.
        partition: u32,
        /// The checkpoint's next offset.
        checkpoint: u64,
        /// The log's first offset.
        start: u64,
        /// The log's next offset.
        end: u64,
    },
    /// A checkpoint cannot be read.
    #[error("the checkpoint of partition {partition} is damaged: {why}")]
    DamagedCheckpoint {
        /// The partition.
        partition: u32,
        /// What is wrong with it.
        why: String,
    },
    /// A file changed its length while it was read.
    #[error("{} became shorter while it was copied (is the disk full?): try again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
    },
    /// The source of a restore is not a backup, or is incomplete.
    #[error("{} is not a complete backup: {why}", path.display())]
    NotABackup {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file of a backup is damaged.
    #[error("{file} in the backup is damaged: {why}. Use another backup")]
    Damaged {
        /// The file, by its name in the backup.
        file: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A newer version wrote the backup.
    #[error(
        "a newer version of throng wrote this backup ({version}): restore it with that version"
    )]
    Newer {
        /// The version.
        version: String,
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
        source: std::io::Error,
    },
    /// The ledger.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// The event log.
    #[error("cannot read the event log")]
    Log(#[from] LogError),
    /// The process is shutting down.
    #[error("the backup was interrupted")]
    Cancelled,
}
