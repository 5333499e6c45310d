//! The checkpoint of a partition: one object, replaced as a whole, by the partition's leader alone.
//!
//! ```text
//!  0  8  "THRNGCKP"
//!  8  4  format, 2
//! 12  4  partition
//! 16  8  epoch of the feed
//! 24  8  number of the replica that wrote it: random, so no two are the same
//! 32  8  length of the state
//! 40     the state with the log's offset, as throng-budget writes it
//! end-8  XXH3 of all bytes before
//! ```
//!
//! State and offset are one object, so there is no moment at which they disagree.
//!
//! Fencing: a replica that becomes the leader rewrites the checkpoint with a higher epoch. Every write names
//! the version of the object that it replaces (compare and swap), and the previous leader names a version
//! that no longer exists: its write is refused. Without this, a leader that continues after a pause would
//! replace the checkpoint of its successor by an older state, and what that one has counted would be lost
//! at the next start.

use std::sync::Arc;

use throng_budget::Engine;
use throng_model::{ChecksumError, append_checksum, verify_checksum};
use throng_objects::{Objects, ObjectsError};

use super::{BudgetsError, CheckpointError, ids, slices};

const MAGIC: &[u8; 8] = b"THRNGCKP";
const FORMAT: u32 = 2;
const HEAD: usize = 40;

/// The state of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) partition: u32,
    pub(super) epoch: u64,
    /// The replica that wrote it.
    pub(super) replica: u64,
    pub(super) state: Vec<u8>,
}

fn name(partition: u32) -> String {
    format!("checkpoints/{partition}")
}

/// Reads and writes the checkpoint of a partition; has the version of the object that this process wrote or
/// read last.
#[derive(Debug)]
pub(super) struct CheckpointStore {
    objects: Arc<dyn Objects>,
    partition: u32,
    version: Option<String>,
}

impl CheckpointStore {
    /// The store, and the checkpoint that is there.
    pub(super) async fn open(
        objects: Arc<dyn Objects>,
        partition: u32,
    ) -> Result<(Self, Option<Checkpoint>), CheckpointError> {
        let mut store = Self { objects, partition, version: None };
        let found = store.read().await?;
        Ok((store, found))
    }

    /// Reads the checkpoint, so that the next [`write`](Self::write) replaces the one that was read.
    pub(super) async fn read(&mut self) -> Result<Option<Checkpoint>, CheckpointError> {
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

    /// Replaces the checkpoint that this process wrote or read last; durable when it returns.
    /// [`CheckpointError::Fenced`] if another replica has replaced it since.
    pub(super) async fn write(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let (name, bytes) = (name(self.partition), checkpoint.encode());
        // Twice: after a lost answer the second write names the version of this replica's own
        // object. If that one is refused too, there is another writer.
        for _ in 0..2 {
            let written =
                self.objects.compare_and_swap(&name, bytes.clone(), self.version.as_deref()).await;
            if let Some(version) = written.map_err(self.failed())? {
                self.version = Some(version);
                return Ok(());
            }
            // Refused: either another replica has written, or an earlier write of this one has succeeded
            // and its answer was lost. The replica number in the object says which.
            let known = self.version.clone();
            let current = self.read().await?;
            if current.is_none_or(|c| c.replica != checkpoint.replica) {
                // `read` has noted the version of the other replica's checkpoint. A later write would name
                // it and succeed: a fenced leader would replace what its successor wrote.
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
        bytes.extend_from_slice(&self.replica.to_le_bytes());
        bytes.extend_from_slice(&(self.state.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&self.state);
        append_checksum(&mut bytes);
        bytes
    }

    fn decode(bytes: &[u8], partition: u32) -> Result<Self, String> {
        // Before any field is read: a damaged field could look like another format or partition,
        // and the error would give the wrong advice.
        let body = verify_checksum(bytes).map_err(|error| error.to_string())?;
        if body.len() < HEAD {
            return Err(ChecksumError::Truncated.to_string());
        }
        let four = |at: usize| body[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or(0);
        let eight = |at: usize| body[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or(0);
        if &body[..8] != MAGIC {
            return Err("it does not start like a checkpoint".to_owned());
        }
        let format = four(8);
        if format != FORMAT {
            let age = if format > FORMAT { "a newer" } else { "an older" };
            return Err(format!(
                "it has format {format}, and this version reads {FORMAT}: {age} version of throng wrote it"
            ));
        }
        // An object that was copied to the name of another partition: its offset is one of another
        // log, and its ad groups are not of this one.
        if four(12) != partition {
            return Err("it belongs to another partition".to_owned());
        }
        if eight(32) != (body.len() - HEAD) as u64 {
            return Err("its length does not match".to_owned());
        }
        let state = body[HEAD..].to_vec();
        Ok(Self { partition, epoch: eight(16), replica: eight(24), state })
    }
}

fn decoded(bytes: &[u8], partition: u32) -> Result<Checkpoint, BudgetsError> {
    let decoded = Checkpoint::decode(bytes, partition);
    let unreadable = |why| CheckpointError::Unreadable { name: name(partition), why };
    Ok(decoded.map_err(unreadable)?)
}

/// The objects that the checkpoint of a partition names. `bytes`: those of the object.
///
/// # Errors
/// [`BudgetsError::Checkpoint`] or [`BudgetsError::State`] if it cannot be read.
pub fn checkpoint_objects(bytes: &[u8], partition: u32) -> Result<Vec<String>, BudgetsError> {
    let named = Engine::named_files(&decoded(bytes, partition)?.state);
    let named = named.map_err(|source| BudgetsError::State { partition, source })?;
    let runs = named.runs.iter().map(|run| ids::object(partition, run));
    Ok(runs.chain(named.slices.iter().map(|file| slices::object(partition, file))).collect())
}

/// The next offset to apply after the checkpoint of a partition. `bytes`: those of the object.
///
/// # Errors
/// As [`checkpoint_objects`].
pub fn checkpoint_offset(bytes: &[u8], partition: u32) -> Result<u64, BudgetsError> {
    let checkpoint = decoded(bytes, partition)?;
    let position = Engine::checkpoint_position(&checkpoint.state, partition);
    let position = position.map_err(|source| BudgetsError::State { partition, source })?;
    Ok(position.next_offset)
}

/// Rewrites the checkpoint with the replica's epoch, which fences the previous leader. `is_exclusive`: no
/// other process has the log.
pub(super) async fn write_first_checkpoint(
    store: &mut CheckpointStore,
    checkpoint: &Checkpoint,
    is_exclusive: bool,
) -> Result<(), BudgetsError> {
    match store.write(checkpoint).await {
        // No other process can lead the partition, so nobody has to be fenced: a full disk must not keep it
        // from being served.
        Err(error @ CheckpointError::Store { .. }) if is_exclusive => {
            tracing::error!(
                partition = checkpoint.partition,
                error = &error as &dyn std::error::Error,
                "failed to write the first checkpoint; the next one comes soon"
            );
            Ok(())
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use throng_objects::DirectoryObjects;

    use super::*;

    #[test]
    fn damage_is_detected() {
        let written = Checkpoint { partition: 3, epoch: 7, replica: 9, state: b"state".to_vec() };
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
        let written = Checkpoint { partition: 3, epoch: 7, replica: 9, state: b"state".to_vec() };
        let mut bytes = written.encode();
        bytes.truncate(bytes.len() - 8);
        bytes[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
        append_checksum(&mut bytes);
        let dir = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> =
            Arc::new(DirectoryObjects::open(dir.path().to_owned()).unwrap());
        objects.compare_and_swap("checkpoints/3", bytes.clone(), None).await.unwrap();
        let refused = CheckpointStore::open(Arc::clone(&objects), 3).await.unwrap_err().to_string();
        assert!(refused.contains("format 3") && refused.contains("a newer version"), "{refused}");
        // It was not changed.
        let current = objects.load("checkpoints/3").await.unwrap().unwrap();
        assert_eq!(current.bytes, bytes);
    }

    #[tokio::test]
    async fn a_takeover_fences_the_previous_leader() {
        let dir = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> =
            Arc::new(DirectoryObjects::open(dir.path().to_owned()).unwrap());
        let checkpoint = |epoch, replica, state: &[u8]| Checkpoint {
            partition: 3,
            epoch,
            replica,
            state: state.to_vec(),
        };
        let (mut first, found) = CheckpointStore::open(Arc::clone(&objects), 3).await.unwrap();
        assert_eq!(found, None);
        first.write(&checkpoint(1, 11, b"a")).await.unwrap();
        first.write(&checkpoint(1, 11, b"b")).await.unwrap();
        // An answer that was lost: the version that the leader knows is not the newest of its own.
        let stale = first.version.clone();
        first.write(&checkpoint(1, 11, b"c")).await.unwrap();
        first.version = stale;
        first.write(&checkpoint(1, 11, b"d")).await.unwrap();
        let (mut second, found) = CheckpointStore::open(Arc::clone(&objects), 3).await.unwrap();
        assert_eq!(found, Some(checkpoint(1, 11, b"d")));
        second.write(&checkpoint(2, 12, b"d")).await.unwrap();
        for _ in 0..3 {
            let fenced = first.write(&checkpoint(1, 11, b"e")).await;
            assert!(matches!(fenced, Err(CheckpointError::Fenced { partition: 3 })), "{fenced:?}");
        }
        second.write(&checkpoint(2, 12, b"f")).await.unwrap();
        let (_, found) = CheckpointStore::open(objects, 3).await.unwrap();
        assert_eq!(found, Some(checkpoint(2, 12, b"f")));
    }
}
