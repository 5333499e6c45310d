//! The manifest of a backup, `manifest.json`, with its checksum in `manifest.sha256`.

use serde::{Deserialize, Serialize};
use throng_model::Timestamp;
use throng_store::StoreStamp;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const MANIFEST_SUM: &str = "manifest.sha256";
/// The format that this version writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path in the backup and in the data directory.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its content in hexadecimal digits.
    pub sha256: String,
}

/// The offsets of a partition in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRange {
    /// The partition.
    pub partition: u32,
    /// The oldest offset.
    pub start: u64,
    /// The next offset of the log: the backup has at least the events before it.
    pub end: u64,
    /// The next offset of the checkpoint; `None` if there is none yet.
    pub checkpoint: Option<u64>,
}

/// The content of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub format: u32,
    /// The version of throng that wrote it.
    pub version: String,
    /// When the backup was started.
    pub made_at: Timestamp,
    /// The stamp of the ledger's copy: the identity and the sequence number of the data directory.
    /// `None` if only nodes without stamps, of earlier versions, have used it.
    pub stamp: Option<StoreStamp>,
    /// The version of the applied spec.
    pub spec_version: Option<u64>,
    /// The event log.
    pub partitions: Vec<PartitionRange>,
    /// Every file but the manifest.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    pub(crate) fn new(
        made_at: Timestamp,
        stamp: Option<StoreStamp>,
        spec_version: Option<u64>,
        partitions: Vec<PartitionRange>,
    ) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            format: FORMAT,
            version,
            made_at,
            stamp,
            spec_version,
            partitions,
            files: Vec::new(),
        }
    }

    /// The length of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}
