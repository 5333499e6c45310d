//! The checkpoint of a partition: one object, replaced at once, by its owner alone.
//!
//! ```text
//!  0  8  "THRNGCKP"
//!  8  4  format, 2
//! 12  4  partition
//! 16  8  epoch of the feed
//! 24  8  the owner's number: no two owners have the same
//! 32  8  length of the state
//! 40     the state with the log's offset, as throng-budget writes it
//! end-8  XXH3 of everything before
//! ```
//!
//! State and offset are one object, so there is no moment at which they disagree. Whoever takes a
//! partition over writes the checkpoint anew with a higher epoch; from then on the store refuses
//! what an owner before writes, as that one names a version of the object that is gone.

use std::sync::Arc;

use throng_budget::Engine;
use throng_objects::{Objects, ObjectsError};
use xxhash_rust::xxh3::xxh3_64;

use super::{BudgetsError, ids, slices};

const MAGIC: &[u8; 8] = b"THRNGCKP";
const FORMAT: u32 = 2;
const HEAD: usize = 40;

/// The state of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) partition: u32,
    pub(super) epoch: u64,
    pub(super) owner: u64,
    pub(super) state: Vec<u8>,
}

/// Why a checkpoint was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The store refused.
    #[error("the checkpoint of partition {partition} cannot be kept or had")]
    Store {
        /// The partition.
        partition: u32,
        /// What the store says.
        #[source]
        source: ObjectsError,
    },
    /// It was changed, or a newer version wrote it.
    #[error("the object {name} is no checkpoint of this partition and version: {why}")]
    Unreadable {
        /// The object.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Another process has the partition now.
    #[error("another process has taken partition {partition} over")]
    Fenced {
        /// The partition.
        partition: u32,
    },
}

fn name(partition: u32) -> String {
    format!("checkpoints/{partition}")
}

/// The place of a partition's checkpoint, and the version of it that this process wrote or read.
#[derive(Debug)]
pub(super) struct Slot {
    objects: Arc<dyn Objects>,
    partition: u32,
    version: Option<String>,
}

impl Slot {
    /// The place, and the checkpoint that lies there.
    pub(super) async fn open(
        objects: Arc<dyn Objects>,
        partition: u32,
    ) -> Result<(Self, Option<Checkpoint>), CheckpointError> {
        let mut slot = Self { objects, partition, version: None };
        let found = slot.look().await?;
        Ok((slot, found))
    }

    /// Reads the checkpoint again, so that the next [`put`](Self::put) replaces the one that lies there.
    pub(super) async fn look(&mut self) -> Result<Option<Checkpoint>, CheckpointError> {
        let found = self.objects.load(&name(self.partition)).await.map_err(self.failed())?;
        let Some(found) = found else {
            self.version = None;
            return Ok(None);
        };
        self.version = Some(found.version);
        let decoded = Checkpoint::decode(&found.bytes, self.partition);
        let name = name(self.partition);
        decoded.map(Some).map_err(|why| CheckpointError::Unreadable { name, why })
    }

    fn failed(&self) -> impl FnOnce(ObjectsError) -> CheckpointError + use<> {
        let partition = self.partition;
        move |source| CheckpointError::Store { partition, source }
    }

    /// Puts a checkpoint in place of the one that this process knows; durable when it returns.
    /// [`CheckpointError::Fenced`] if somebody else's lies there.
    pub(super) async fn put(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let (name, bytes) = (name(self.partition), checkpoint.encode());
        for _ in 0..2 {
            let put = self.objects.compare_and_swap(&name, bytes.clone(), self.version.as_deref()).await;
            if let Some(version) = put.map_err(self.failed())? {
                self.version = Some(version);
                return Ok(());
            }
            // An earlier put of ours, of which the answer got lost?
            let known = self.version.clone();
            let there = self.look().await?;
            if there.is_none_or(|c| c.owner != checkpoint.owner) {
                // What somebody else wrote must not be replaced by a next try either.
                self.version = known;
                break;
            }
        }
        Err(CheckpointError::Fenced { partition: self.partition })
    }
}

impl Checkpoint {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.state.len() + 8);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.partition.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.owner.to_le_bytes());
        bytes.extend_from_slice(&(self.state.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&self.state);
        let sum = xxh3_64(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], partition: u32) -> Result<Self, String> {
        let Some((body, sum)) = bytes.split_last_chunk::<8>().filter(|(b, _)| b.len() >= HEAD)
        else {
            return Err("it is cut short".to_owned());
        };
        if xxh3_64(body) != u64::from_le_bytes(*sum) {
            return Err("its checksum does not fit".to_owned());
        }
        let four = |at: usize| body[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or(0);
        let eight = |at: usize| body[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or(0);
        if &body[..8] != MAGIC {
            return Err("it does not begin as a checkpoint".to_owned());
        }
        let format = four(8);
        if format != FORMAT {
            let age = if format > FORMAT { "a newer" } else { "an older" };
            return Err(format!(
                "it has the format {format}, and this version reads {FORMAT}: {age} version of throng \
                 wrote it"
            ));
        }
        if four(12) != partition {
            return Err("it belongs to another partition".to_owned());
        }
        if eight(32) != (body.len() - HEAD) as u64 {
            return Err("its length does not fit".to_owned());
        }
        let state = body[HEAD..].to_vec();
        Ok(Self { partition, epoch: eight(16), owner: eight(24), state })
    }
}

fn decoded(bytes: &[u8], partition: u32) -> Result<Checkpoint, BudgetsError> {
    let decoded = Checkpoint::decode(bytes, partition);
    let unreadable = |why| CheckpointError::Unreadable { name: name(partition), why };
    Ok(decoded.map_err(unreadable)?)
}

/// The objects that the checkpoint of a partition, given as the object's bytes, needs besides itself.
pub(crate) fn checkpoint_objects(
    bytes: &[u8],
    partition: u32,
) -> Result<Vec<String>, BudgetsError> {
    let named = Engine::named_files(&decoded(bytes, partition)?.state);
    let named = named.map_err(|source| BudgetsError::State { partition, source })?;
    let runs = named.runs.iter().map(|run| ids::object(partition, run));
    Ok(runs.chain(named.slices.iter().map(|file| slices::object(partition, file))).collect())
}

/// The next offset by the checkpoint of a partition, given as the object's bytes.
pub(crate) fn checkpoint_offset(bytes: &[u8], partition: u32) -> Result<u64, BudgetsError> {
    let checkpoint = decoded(bytes, partition)?;
    let position = Engine::checkpoint_position(&checkpoint.state, partition);
    let position = position.map_err(|source| BudgetsError::State { partition, source })?;
    Ok(position.next_offset)
}

#[cfg(test)]
mod tests {
    use throng_objects::DirectoryObjects;

    use super::*;

    #[test]
    fn damage_is_told() {
        let written = Checkpoint { partition: 3, epoch: 7, owner: 9, state: b"state".to_vec() };
        let whole = written.encode();
        assert_eq!(Checkpoint::decode(&whole, 3), Ok(written));
        for at in 0..whole.len() {
            assert!(Checkpoint::decode(&whole[..at], 3).is_err(), "cut at {at}");
            let mut bad = whole.clone();
            bad[at] ^= 4;
            assert!(Checkpoint::decode(&bad, 3).is_err(), "changed at {at}");
        }
        assert!(Checkpoint::decode(&whole, 4).is_err());
    }

    /// The next format keeps magic, format number and checksum where they are.
    #[tokio::test]
    async fn a_checkpoint_of_a_newer_version_is_refused_by_its_format() {
        let written = Checkpoint { partition: 3, epoch: 7, owner: 9, state: b"state".to_vec() };
        let mut bytes = written.encode();
        bytes.truncate(bytes.len() - 8);
        bytes[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
        let sum = xxh3_64(&bytes).to_le_bytes();
        bytes.extend(sum);
        let dir = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> =
            Arc::new(DirectoryObjects::open(dir.path().to_owned()).unwrap());
        objects.compare_and_swap("checkpoints/3", bytes.clone(), None).await.unwrap();
        let refused = Slot::open(Arc::clone(&objects), 3).await.unwrap_err().to_string();
        assert!(refused.contains("format 3") && refused.contains("a newer version"), "{refused}");
        // It lies there as it was.
        let there = objects.load("checkpoints/3").await.unwrap().unwrap();
        assert_eq!(there.bytes, bytes);
    }

    #[tokio::test]
    async fn whoever_takes_over_fences_the_owner_before() {
        let dir = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> =
            Arc::new(DirectoryObjects::open(dir.path().to_owned()).unwrap());
        let checkpoint = |epoch, owner, state: &[u8]| Checkpoint {
            partition: 3,
            epoch,
            owner,
            state: state.to_vec(),
        };
        let (mut first, found) = Slot::open(Arc::clone(&objects), 3).await.unwrap();
        assert_eq!(found, None);
        first.put(&checkpoint(1, 11, b"a")).await.unwrap();
        first.put(&checkpoint(1, 11, b"b")).await.unwrap();
        // An answer that got lost: the version that the owner knows is not the newest of its own.
        let stale = first.version.clone();
        first.put(&checkpoint(1, 11, b"c")).await.unwrap();
        first.version = stale;
        first.put(&checkpoint(1, 11, b"d")).await.unwrap();
        let (mut second, found) = Slot::open(Arc::clone(&objects), 3).await.unwrap();
        assert_eq!(found, Some(checkpoint(1, 11, b"d")));
        second.put(&checkpoint(2, 12, b"d")).await.unwrap();
        for _ in 0..3 {
            let fenced = first.put(&checkpoint(1, 11, b"e")).await;
            assert!(matches!(fenced, Err(CheckpointError::Fenced { partition: 3 })), "{fenced:?}");
        }
        second.put(&checkpoint(2, 12, b"f")).await.unwrap();
        let (_, found) = Slot::open(objects, 3).await.unwrap();
        assert_eq!(found, Some(checkpoint(2, 12, b"f")));
    }
}
