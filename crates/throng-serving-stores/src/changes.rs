//! The users of a write, in a fixed order: by user shard, in each the added ones before the removed ones, by
//! ordinal. The order depends on the write only, so that another process finds the place to continue.

use std::collections::VecDeque;
use std::sync::Arc;

use roaring::RoaringBitmap;
use throng_membership::{MembershipError, ShardDictionary, SnapshotFile, seed_check};
use throng_model::{AudienceName, SHARD_COUNT, UserHash};
use throng_refresh::{RefreshError, open_dictionary, open_snapshot};
use throng_store::NewStoreWrite;

use crate::error::WriteError;
use crate::{Change, StoresDeps};

/// Runs work that reads files on a thread for such work.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WriteError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| RefreshError::Panicked.into())
}

/// Opens a version of an audience.
pub(crate) async fn open_version(
    deps: &StoresDeps,
    audience: &AudienceName,
    version: u64,
) -> Result<Arc<SnapshotFile>, WriteError> {
    let rows = deps.ledger.snapshots(audience).await?;
    let row = rows.into_iter().find(|row| row.version == version);
    let row = row.ok_or(WriteError::NoSnapshot(version))?;
    let file = open_snapshot(&deps.objects, &row).await?;
    if file.meta().seed_check != seed_check(deps.seed) {
        return Err(MembershipError::OtherSeed { audience: audience.clone() }.into());
    }
    Ok(Arc::new(file))
}

/// The dictionaries of all shards as they are now, opened one by one.
pub(crate) struct Dictionaries {
    manifests: Vec<String>,
}

impl Dictionaries {
    /// Reads which segments there are.
    pub(crate) async fn read(deps: &StoresDeps) -> Result<Self, WriteError> {
        let mut manifests = vec![String::new(); SHARD_COUNT];
        for row in deps.ledger.dictionary().await? {
            manifests[usize::from(row.shard)] = row.manifest;
        }
        Ok(Self { manifests })
    }

    /// Opens the dictionary of a shard, reusing what the process has open. Downloads and reads the rest.
    pub(crate) async fn open(
        &self,
        deps: &StoresDeps,
        shard: u8,
    ) -> Result<ShardDictionary, WriteError> {
        let open = deps.membership.load().dictionary(shard).cloned().unwrap_or_default();
        Ok(open_dictionary(&deps.objects, open, &self.manifests[usize::from(shard)]).await?)
    }
}

/// The users of one shard.
struct Shard {
    dictionary: ShardDictionary,
    added: RoaringBitmap,
    removed: RoaringBitmap,
}

impl Shard {
    fn len(&self) -> u64 {
        self.added.len() + self.removed.len()
    }

    /// The users; `None` if the dictionary lacks one.
    fn changes(&self) -> Option<Vec<Change>> {
        let hashes: Vec<UserHash> = self.dictionary.hashes();
        let of = |ordinals: &RoaringBitmap, added: bool, changes: &mut Vec<Change>| {
            for ordinal in ordinals {
                changes.push(Change { user: *hashes.get(ordinal as usize)?, added });
            }
            Some(())
        };
        let mut changes = Vec::with_capacity(self.len() as usize);
        of(&self.added, true, &mut changes)?;
        of(&self.removed, false, &mut changes)?;
        Some(changes)
    }
}

/// The users of a write that are not written yet.
pub(crate) struct Changes {
    shards: VecDeque<Shard>,
    users: u64,
    /// Users of the first shard to leave out when it is loaded.
    skipped: usize,
    loaded: Vec<Change>,
    /// The first user of `loaded` that was not returned.
    at: usize,
}

/// The members of a shard; nobody without a snapshot.
fn members(file: Option<&SnapshotFile>, shard: u8) -> RoaringBitmap {
    file.map_or_else(RoaringBitmap::new, |file| file.shard_bitmap(shard))
}

impl Changes {
    /// Opens the snapshots of a write and compares them. Memory: the bitmaps of the difference.
    pub(crate) async fn of(deps: &StoresDeps, write: &NewStoreWrite) -> Result<Self, WriteError> {
        let mut files = Vec::with_capacity(2);
        for version in [write.from_version, write.to_version] {
            files.push(match version {
                Some(version) => Some(open_version(deps, &write.audience, version).await?),
                None => None,
            });
        }
        let to = files.pop().flatten();
        let from = files.pop().flatten();
        // After the snapshots: their users are in it.
        let dictionaries = Dictionaries::read(deps).await?;
        let mut shards = VecDeque::new();
        for shard in 0..=u8::MAX {
            let (from, to) = (from.clone(), to.clone());
            let bitmaps = move || (members(from.as_deref(), shard), members(to.as_deref(), shard));
            let (from, to) = blocking(bitmaps).await?;
            if write.rewrite {
                let dictionary = dictionaries.open(deps, shard).await?;
                let mut known = RoaringBitmap::new();
                known.insert_range(0..dictionary.len());
                let removed = &known - &to;
                shards.push_back(Shard { dictionary, added: to, removed });
            } else if from != to {
                let dictionary = dictionaries.open(deps, shard).await?;
                shards.push_back(Shard { dictionary, added: &to - &from, removed: &from - &to });
            }
        }
        let users = shards.iter().map(Shard::len).sum();
        Ok(Self { shards, users, skipped: 0, loaded: Vec::new(), at: 0 })
    }

    /// How many users the write has in total.
    pub(crate) fn users(&self) -> u64 {
        self.users
    }

    /// Leaves out the first users.
    pub(crate) fn skip(&mut self, mut users: u64) {
        while let Some(shard) = self.shards.front() {
            if users < shard.len() {
                break;
            }
            users -= shard.len();
            self.shards.pop_front();
        }
        self.skipped = users as usize;
    }

    /// The next users, at most so many; none at the end.
    pub(crate) async fn next(&mut self, most: usize) -> Result<Vec<Change>, WriteError> {
        let mut batch = Vec::new();
        while batch.len() < most {
            if self.at >= self.loaded.len() {
                let Some(shard) = self.shards.pop_front() else { break };
                self.loaded = blocking(move || shard.changes()).await?.ok_or_else(damaged)?;
                self.at = std::mem::take(&mut self.skipped);
                continue;
            }
            let end = self.loaded.len().min(self.at + most - batch.len());
            batch.extend_from_slice(&self.loaded[self.at..end]);
            self.at = end;
        }
        Ok(batch)
    }
}

fn damaged() -> WriteError {
    MembershipError::Manifest { problem: "it lacks users of a snapshot".to_owned() }.into()
}
