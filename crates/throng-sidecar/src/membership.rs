//! Keeps dictionaries and snapshots as the node serves them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use throng_api::{PublishedDictionary, PublishedMembership, PublishedSnapshot};
use throng_membership::{
    MembershipError, MembershipIndex, ShardDictionary, SnapshotFile, SnapshotIdentity,
    manifest_files,
};
use throng_model::{AudienceName, Backoff, HashSeed, SHARD_COUNT};
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, SNAPSHOT_FOLDER};
use crate::client::{NodeClient, connection};
use crate::error::SyncError;

/// Files that are downloaded at the same time.
const DOWNLOADS: usize = 4;
/// How often one file is read before the whole attempt fails: an interrupted transfer continues, a damaged one
/// begins again.
const TRIES: usize = 3;
/// How often the list is read again at once because a file of it is no longer served.
const LISTS: usize = 3;
/// The delays after a failed attempt.
const RETRY: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(30) };

/// What is reported while membership is followed.
pub trait MembershipObserver: Send + Sync {
    /// Another index is complete.
    fn loaded(&self, index: &Arc<MembershipIndex>);
    /// The node was asked, and the index is what it serves.
    fn current(&self);
    /// An attempt failed; the next one is made after a delay. The index stays as it is.
    fn failed(&self, error: &SyncError);
}

/// The dictionaries and snapshots of a node, in a cache.
#[derive(Debug)]
pub struct MembershipSync {
    client: NodeClient,
    cache: Arc<Cache>,
    /// What is open, and what the node said of it.
    open: Option<(PublishedMembership, Arc<MembershipIndex>)>,
    /// Transfers that the next attempt continues, by the name of their file.
    interrupted: Interrupted,
}

type Interrupted = Mutex<HashMap<String, Progress>>;

/// How far the transfer of a file is.
#[derive(Debug, Default)]
struct Progress {
    written: u64,
    /// Of the file that the bytes are of; without it they cannot be continued.
    etag: Option<String>,
}

/// A transfer, which is recorded as interrupted when it is dropped: also if another file's error ends the attempt.
struct Transfer<'a> {
    interrupted: &'a Interrupted,
    name: &'a str,
    progress: Progress,
}

impl Transfer<'_> {
    /// Forgets what was read, because it is complete or cannot be used.
    fn forget(&mut self) {
        self.progress = Progress::default();
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        let progress = std::mem::take(&mut self.progress);
        if progress.written > 0 && progress.etag.is_some() {
            self.interrupted.lock().insert(self.name.to_owned(), progress);
        }
    }
}

impl MembershipSync {
    /// Nothing is open yet.
    pub fn new(client: NodeClient, cache: Arc<Cache>) -> Self {
        Self { client, cache, open: None, interrupted: Mutex::new(HashMap::new()) }
    }

    /// The index that is open.
    pub fn index(&self) -> Option<&Arc<MembershipIndex>> {
        self.open.as_ref().map(|(_, index)| index)
    }

    /// Opens what was served last from the cache alone, for a start without the node. `None` if there is nothing, or
    /// if a file is missing or damaged: then [`poll`](Self::poll) reads it from the node.
    pub async fn open_cached(&mut self) -> Option<Arc<MembershipIndex>> {
        let cache = Arc::clone(&self.cache);
        let last = blocking(move || Ok(cache.last())).await.ok()??;
        let empty = MembershipIndex::empty(seed_of(&last).ok()?);
        match self.open_all(&last, &empty).await {
            Ok(index) => {
                let index = Arc::new(index);
                self.open = Some((last, Arc::clone(&index)));
                Some(index)
            }
            Err(error) => {
                tracing::info!(
                    error = &error as &dyn std::error::Error,
                    "the cache is not complete, reading from the node"
                );
                None
            }
        }
    }

    /// Asks the node what it serves, and reads no file: for errors that no retry can remove. Returns the hash seed,
    /// unless the node serves what is open.
    ///
    /// # Errors
    /// [`SyncError`].
    pub async fn check(&self) -> Result<Option<HashSeed>, SyncError> {
        let known = self.open.as_ref().map(|(published, _)| published.version.as_str());
        match self.client.membership(known).await? {
            Some(published) => self.checked_seed(&published).await.map(Some),
            None => Ok(None),
        }
    }

    /// Compares with the node, and downloads and opens what is new. Returns the index if it is another one. On an
    /// error the open index stays.
    ///
    /// # Errors
    /// [`SyncError`].
    pub async fn poll(&mut self) -> Result<Option<Arc<MembershipIndex>>, SyncError> {
        let mut lists = 1;
        loop {
            let known = self.open.as_ref().map(|(published, _)| published.version.clone());
            let Some(published) = self.client.membership(known.as_deref()).await? else {
                return Ok(None);
            };
            match self.load(published).await {
                Ok(index) => return Ok(Some(index)),
                Err(SyncError::NotServed { .. }) if lists < LISTS => lists += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn load(
        &mut self,
        published: PublishedMembership,
    ) -> Result<Arc<MembershipIndex>, SyncError> {
        let seed = self.checked_seed(&published).await?;
        let previous = match self.index() {
            Some(index) => Arc::clone(index),
            None => Arc::new(MembershipIndex::empty(seed)),
        };
        let names = self.files_of(&published)?;
        self.download_missing(&names).await?;
        let mut tries: HashMap<String, usize> = HashMap::new();
        let index = loop {
            let error = match self.open_all(&published, &previous).await {
                Ok(index) => break index,
                Err(error) => error,
            };
            // Each file is checked when it is opened. One that is damaged is read again.
            match self.damaged_file(&error) {
                Some(name) => {
                    let tries = tries.entry(name.clone()).or_insert(1);
                    if *tries == TRIES {
                        return Err(error);
                    }
                    *tries += 1;
                    tracing::warn!(file = name, "a file is damaged, reading it again");
                    self.replace(&name).await?;
                }
                None => return Err(error),
            }
        };
        let index = Arc::new(index);
        self.remember(&published, names).await;
        self.open = Some((published, Arc::clone(&index)));
        Ok(index)
    }

    /// The hash seed. Files of another deployment have the same names and mean other users.
    async fn checked_seed(&self, published: &PublishedMembership) -> Result<HashSeed, SyncError> {
        let seed = seed_of(published)?;
        let known = match &self.open {
            Some((_, index)) => Some(index.seed()),
            None => {
                let cache = Arc::clone(&self.cache);
                let last = blocking(move || Ok(cache.last())).await?;
                last.and_then(|last| seed_of(&last).ok())
            }
        };
        if known.is_some_and(|known| known != seed) {
            let folder = self.cache.root().to_owned();
            return Err(SyncError::OtherDeployment { folder });
        }
        Ok(seed)
    }

    /// The names of all files, in the cache.
    fn files_of(&self, published: &PublishedMembership) -> Result<HashSet<String>, SyncError> {
        let mut names = HashSet::new();
        for PublishedDictionary { manifest, .. } in &published.dictionary {
            names.extend(manifest_files(manifest)?);
        }
        if let Some(name) = names.iter().find(|name| !is_segment_name(name)) {
            let problem = format!("`{name}` is not the name of a segment");
            return Err(SyncError::Response { url: "/v1/membership".to_owned(), problem });
        }
        names.extend(published.snapshots.iter().map(snapshot_name));
        Ok(names)
    }

    async fn download_missing(&self, names: &HashSet<String>) -> Result<(), SyncError> {
        let is_old = |name: &String, _: &mut Progress| !names.contains(name);
        let old: Vec<String> =
            self.interrupted.lock().extract_if(is_old).map(|(name, _)| name).collect();
        for name in old {
            self.remove_part(&name).await?;
        }
        let missing = names.iter().filter(|name| !self.cache.has(name)).cloned();
        let mut missing: Vec<String> = missing.collect();
        missing.sort_unstable();
        let downloads = futures::stream::iter(missing)
            .map(|name| async move { self.download(&name).await })
            .buffer_unordered(DOWNLOADS);
        downloads.try_collect().await
    }

    /// Reads a file, and continues where a transfer was interrupted, also by an earlier attempt.
    async fn download(&self, name: &str) -> Result<(), SyncError> {
        let progress = self.interrupted.lock().remove(name).unwrap_or_default();
        let (cache, owned, written) = (Arc::clone(&self.cache), name.to_owned(), progress.written);
        let mut transfer = Transfer { interrupted: &self.interrupted, name, progress };
        let opened = blocking(move || match cache.continue_part(&owned, written) {
            Some(part) if written > 0 => Ok((part, true)),
            _ => Ok((cache.create_part(&owned)?, false)),
        });
        let (part, is_continued) = opened.await?;
        if !is_continued {
            transfer.forget();
        }
        let downloaded = self.download_to(name, part, &mut transfer.progress).await;
        let (cache, owned) = (Arc::clone(&self.cache), name.to_owned());
        match downloaded {
            Ok(part) => {
                transfer.forget();
                blocking(move || cache.complete(&owned, &part)).await
            }
            Err(error @ (SyncError::Connection { .. } | SyncError::Response { .. })) => Err(error),
            Err(error) => {
                transfer.forget();
                // A part takes room that the next attempt needs.
                self.remove_part(name).await?;
                Err(error)
            }
        }
    }

    async fn remove_part(&self, name: &str) -> Result<(), SyncError> {
        let (cache, owned) = (Arc::clone(&self.cache), name.to_owned());
        blocking(move || {
            cache.remove_part(&owned);
            Ok(())
        })
        .await
    }

    async fn download_to(
        &self,
        name: &str,
        mut part: File,
        progress: &mut Progress,
    ) -> Result<File, SyncError> {
        let mut tries = 1;
        loop {
            let download =
                self.client.file(name, progress.written, progress.etag.as_deref()).await?;
            if !download.is_rest && progress.written > 0 {
                // It is another file now: from the start.
                let cache = Arc::clone(&self.cache);
                let owned = name.to_owned();
                part = blocking(move || cache.create_part(&owned)).await?;
                progress.written = 0;
            }
            progress.etag = download.etag;
            let expected = download.length.map(|length| progress.written + length);
            let mut response = download.response;
            let ended = loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => {
                        let length = chunk.len() as u64;
                        let path = self.cache.part_path(name);
                        part = blocking(move || {
                            let written = part.write_all(&chunk);
                            written.map_err(|source| SyncError::Cache {
                                doing: "write",
                                path,
                                source,
                            })?;
                            Ok(part)
                        })
                        .await?;
                        // After the write: on a full disk the part is removed.
                        progress.written += length;
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            match ended {
                Ok(()) if expected.is_none_or(|expected| expected == progress.written) => {
                    return Ok(part);
                }
                Ok(()) if tries == TRIES => {
                    let problem = format!("it ended after {} bytes", progress.written);
                    return Err(SyncError::Response { url: name.to_owned(), problem });
                }
                Err(error) if tries == TRIES => return Err(connection(name, error)),
                _ => tries += 1,
            }
        }
    }

    /// Reads a file again that is damaged.
    async fn replace(&self, name: &str) -> Result<(), SyncError> {
        let (cache, owned) = (Arc::clone(&self.cache), name.to_owned());
        blocking(move || {
            cache.remove(&owned);
            Ok(())
        })
        .await?;
        self.download(name).await
    }

    /// The name of the file that an error is about, if its bytes are the problem.
    fn damaged_file(&self, error: &SyncError) -> Option<String> {
        match error {
            SyncError::Membership(MembershipError::Damaged { path, .. }) => {
                path.strip_prefix(self.cache.root()).ok()?.to_str().map(str::to_owned)
            }
            _ => None,
        }
    }

    /// Opens everything from the cache. What is open in `previous` is not read again.
    async fn open_all(
        &self,
        published: &PublishedMembership,
        previous: &MembershipIndex,
    ) -> Result<MembershipIndex, SyncError> {
        let mut shards = vec![None; SHARD_COUNT];
        for PublishedDictionary { shard, manifest } in &published.dictionary {
            let open = previous.dictionary(*shard).cloned().unwrap_or_default();
            shards[usize::from(*shard)] = Some(self.open_dictionary(open, manifest).await?);
        }
        let mut snapshots = Vec::with_capacity(published.snapshots.len());
        for snapshot in &published.snapshots {
            let identity = identity_of(snapshot);
            let open = previous.snapshot(&snapshot.audience);
            let file = match open.filter(|open| open.identity() == identity) {
                Some(open) => Arc::clone(open),
                None => {
                    let path = self.cache.path(&snapshot_name(snapshot));
                    Arc::new(blocking(move || Ok(SnapshotFile::open_as(&path, &identity)?)).await?)
                }
            };
            snapshots.push((snapshot.audience.clone(), file));
        }
        let missing: Vec<AudienceName> = published.missing.clone();
        let index = MembershipIndex::new(previous.seed(), shards, snapshots)?;
        Ok(index.with_missing(missing))
    }

    async fn open_dictionary(
        &self,
        open: ShardDictionary,
        manifest: &str,
    ) -> Result<ShardDictionary, SyncError> {
        if manifest_files(manifest)?.iter().map(String::as_str).eq(open.files()) {
            return Ok(open);
        }
        let (root, manifest) = (self.cache.root().to_owned(), manifest.to_owned());
        blocking(move || Ok(open.reopen(&root, &manifest)?)).await
    }

    /// Remembers what is served, and removes other files. A failure costs a start without the node, or disk space.
    async fn remember(&self, published: &PublishedMembership, names: HashSet<String>) {
        let (cache, published) = (Arc::clone(&self.cache), published.clone());
        let remembered = blocking(move || {
            // First: on a full disk there is room for the list then.
            cache.evict(&names);
            cache.store_last(&published)
        });
        if let Err(error) = remembered.await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to record what is served"
            );
        }
    }

    /// Polls until `stop`: after `interval`, and after a delay that grows while attempts fail.
    pub async fn follow(
        mut self,
        interval: Duration,
        observer: &dyn MembershipObserver,
        stop: &CancellationToken,
    ) {
        let mut failures = 0;
        let jitter = u64::from(std::process::id());
        loop {
            let polled = tokio::select! {
                () = stop.cancelled() => return,
                polled = self.poll() => polled,
            };
            let wait = match polled {
                Ok(index) => {
                    if let Some(index) = index {
                        observer.loaded(&index);
                    }
                    observer.current();
                    failures = 0;
                    interval
                }
                Err(error) => {
                    failures += 1;
                    observer.failed(&error);
                    RETRY.delay(failures, jitter)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// Runs what reads or writes files where calls may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SyncError> + Send + 'static,
) -> Result<T, SyncError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only when the runtime ends.
        Err(error) => Err(SyncError::Cache {
            doing: "use",
            path: Path::new("the cache").to_owned(),
            source: std::io::Error::other(error),
        }),
    }
}

fn seed_of(published: &PublishedMembership) -> Result<HashSeed, SyncError> {
    let unusable =
        |problem: String| SyncError::Response { url: "/v1/membership".to_owned(), problem };
    if published.user_shards as usize != SHARD_COUNT {
        let problem = format!("it has {} user shards, not {SHARD_COUNT}", published.user_shards);
        return Err(unusable(problem));
    }
    let seed = u64::from_str_radix(&published.hash_seed, 16);
    seed.map(HashSeed).map_err(|_| unusable("its hash seed is not hexadecimal".to_owned()))
}

fn identity_of(snapshot: &PublishedSnapshot) -> SnapshotIdentity {
    SnapshotIdentity {
        audience: snapshot.audience.clone(),
        version: snapshot.version,
        model_fingerprint: snapshot.model_fingerprint.clone(),
        members: snapshot.members,
        bytes: snapshot.bytes,
        checksum: snapshot.checksum.clone(),
    }
}

/// The name of a snapshot in the cache, which is also its path below `/v1/membership/`.
fn snapshot_name(snapshot: &PublishedSnapshot) -> String {
    format!("{SNAPSHOT_FOLDER}/{}/{}", snapshot.audience, snapshot.version)
}

/// Whether a name of a manifest has the form `dictionary/07/….dict`. It becomes a part of a URL and a path.
fn is_segment_name(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let [folder, shard, file] = parts.as_slice() else { return false };
    let plain = |text: &str| {
        !text.starts_with('.')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    };
    *folder == throng_membership::DICTIONARY_FOLDER
        && shard.len() == 2
        && plain(shard)
        && file.ends_with(".dict")
        && plain(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments_are_checked() {
        for (name, expected) in [
            ("dictionary/07/00000000-00000005-1f2e3d4c5b6a7988.dict", true),
            ("dictionary/7/a.dict", false),
            ("dictionary/07/../a.dict", false),
            ("dictionary/../a.dict", false),
            ("dictionary/07/.dict", false),
            ("dictionary/07/a.dict?x=1.dict", false),
            ("dictionary/07/a.dict.part", false),
            ("snapshots/07/a.dict", false),
            ("/dictionary/07/a.dict", false),
        ] {
            assert_eq!(is_segment_name(name), expected, "{name}");
        }
    }
}
