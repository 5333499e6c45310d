//! The checkpoint of a partition: one file, replaced at once.
//!
//! ```text
//!  0  8  "THRNGCKP"
//!  8  4  format, 1
//! 12  4  partition
//! 16  8  epoch of the feed
//! 24  8  length of the state
//! 32     the state with the log's offset, as throng-budget writes it
//! end-8  XXH3 of everything before
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"THRNGCKP";
const FORMAT: u32 = 1;
const HEAD: usize = 32;

/// The state of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) partition: u32,
    pub(super) epoch: u64,
    pub(super) state: Vec<u8>,
}

/// Why a file is not a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("cannot {doing} the checkpoint {}", path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// It was changed, or a newer version wrote it.
    #[error("{} is no checkpoint of this partition and version: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
}

fn path(folder: &Path, partition: u32) -> PathBuf {
    folder.join(partition.to_string())
}

impl Checkpoint {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.state.len() + 8);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.partition.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&(self.state.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&self.state);
        let sum = xxh3_64(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], partition: u32) -> Result<Self, &'static str> {
        let Some((body, sum)) = bytes.split_last_chunk::<8>().filter(|(b, _)| b.len() >= HEAD)
        else {
            return Err("it is cut short");
        };
        if xxh3_64(body) != u64::from_le_bytes(*sum) {
            return Err("its checksum does not fit");
        }
        let four = |at: usize| body[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or(0);
        let eight = |at: usize| body[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or(0);
        if &body[..8] != MAGIC || four(8) != FORMAT {
            return Err("it has another format");
        }
        if four(12) != partition {
            return Err("it belongs to another partition");
        }
        if eight(24) != (body.len() - HEAD) as u64 {
            return Err("its length does not fit");
        }
        let state = body[HEAD..].to_vec();
        Ok(Self { partition, epoch: eight(16), state })
    }

    /// Puts this in place of the checkpoint before; durable when it returns. Blocks.
    pub(super) fn write(&self, folder: &Path) -> Result<(), CheckpointError> {
        let path = path(folder, self.partition);
        let aside = path.with_extension("tmp");
        let write = || -> io::Result<()> {
            let mut file = File::create(&aside)?;
            file.write_all(&self.encode())?;
            file.sync_all()?;
            std::fs::rename(&aside, &path)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|source| CheckpointError::Io { doing: "write", path: path.clone(), source })
    }

    /// The checkpoint of a partition; `None` if there is none yet. Blocks.
    pub(super) fn read(folder: &Path, partition: u32) -> Result<Option<Self>, CheckpointError> {
        let path = path(folder, partition);
        match std::fs::read(&path) {
            Ok(bytes) => Self::decode(&bytes, partition)
                .map(Some)
                .map_err(|why| CheckpointError::Unreadable { path, why }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CheckpointError::Io { doing: "read", path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_come_back_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Checkpoint::read(folder.path(), 3).unwrap(), None);
        let written = Checkpoint { partition: 3, epoch: 7, state: b"state".to_vec() };
        written.write(folder.path()).unwrap();
        assert_eq!(Checkpoint::read(folder.path(), 3).unwrap(), Some(written.clone()));
        let whole = written.encode();
        for at in 0..whole.len() {
            assert!(Checkpoint::decode(&whole[..at], 3).is_err(), "cut at {at}");
            let mut bad = whole.clone();
            bad[at] ^= 4;
            assert!(Checkpoint::decode(&bad, 3).is_err(), "changed at {at}");
        }
        assert!(Checkpoint::decode(&whole, 4).is_err());
    }
}
