//! A cache of single objects, for a process that reads the objects that others name. An object is one content of a key: the
//! one that has an ETag, and no other is ever downloaded in its place.
//!
//! A download is written to `staging` and renamed into `objects` when it is complete and durable. What a crash leaves in
//! `staging` is removed at the next start.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use throng_model::{Timestamp, to_hex};
use throng_objects::{BucketOptions, SourceBucket, SourceObject};

use crate::CopyError;
use crate::folder::{create, url};

/// Downloads of one caller at a time.
const CONCURRENT: usize = 4;
/// The mode of cached objects: nothing writes to them.
const MODE: u32 = 0o400;
/// Bytes of the hash in the name of a file.
const HASH_BYTES: usize = 20;
/// The longest end of a key in the name of a file, in bytes. The format of a file follows from the end of its name.
const MAX_END_BYTES: usize = 80;

static TEMPORARY_FILES: AtomicU64 = AtomicU64::new(0);

/// One content of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CachedObject {
    /// The URL of its bucket, without a prefix: `s3://…` or `gs://…`.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// The store's identifier of the content.
    pub etag: String,
    /// Its size.
    pub bytes: u64,
    /// The time that its file gets, in nanoseconds since 1970.
    pub modified: u64,
}

/// Objects of some buckets on the local disk, each downloaded once.
#[derive(Debug)]
pub struct ObjectCache {
    folder: PathBuf,
    max_bytes: u64,
    buckets: Vec<Bucket>,
    state: Mutex<State>,
    /// The folder is that of this process alone.
    _lock: File,
}

/// A prefix whose objects may be read.
#[derive(Debug)]
struct Bucket {
    /// The URL of the bucket, without the prefix.
    bucket: String,
    prefix: String,
    /// With the prefix, for messages.
    name: String,
    client: SourceBucket,
}

impl Bucket {
    fn open(options: &BucketOptions) -> Result<Self, CopyError> {
        let name = url(options);
        let client = SourceBucket::open(options).map_err(CopyError::of_bucket(&name))?;
        let bucket = url(&BucketOptions { prefix: String::new(), ..options.clone() });
        Ok(Self { bucket, prefix: options.prefix.clone(), name, client })
    }

    fn has(&self, object: &CachedObject) -> bool {
        let below = object.key.strip_prefix(&self.prefix);
        self.bucket == object.bucket
            && below.is_some_and(|rest| self.prefix.is_empty() || rest.starts_with('/'))
    }
}

/// What is in the folder.
#[derive(Debug, Default)]
struct State {
    /// By their paths.
    files: HashMap<PathBuf, CachedFile>,
    /// The size of the complete files and of those that are being downloaded.
    bytes: u64,
    /// Increases with every use.
    uses: u64,
}

/// A file that is in the folder, or that somebody waits for.
#[derive(Debug, Default)]
struct CachedFile {
    /// Its size; `None`: it is not there.
    bytes: Option<u64>,
    /// Callers that read it.
    holders: usize,
    /// When it was used last.
    used: u64,
    /// Locked while it is downloaded.
    downloading: Arc<tokio::sync::Mutex<()>>,
}

impl State {
    /// Removes files that nobody holds, the least recently used first, until the others and `needed` bytes have at most
    /// `max_bytes`. Returns whether they have. If it removes some, it removes a sixteenth more, so that a full cache is not
    /// searched for each object.
    fn make_room(&mut self, needed: u64, max_bytes: u64) -> bool {
        if self.bytes.saturating_add(needed) <= max_bytes {
            return true;
        }
        let wanted = max_bytes - max_bytes / 16;
        let unused = self.files.iter().filter(|(_, f)| f.holders == 0 && f.bytes.is_some());
        let mut unused: Vec<(u64, PathBuf)> =
            unused.map(|(path, file)| (file.used, path.clone())).collect();
        unused.sort_unstable();
        for (_, path) in unused {
            if self.bytes.saturating_add(needed) <= wanted {
                break;
            }
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "failed to remove a cached object");
            }
            let bytes = self.files.remove(&path).and_then(|file| file.bytes).unwrap_or(0);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        self.bytes.saturating_add(needed) <= max_bytes
    }
}

impl ObjectCache {
    /// Opens a cache in a folder, which is created with mode 0700, with at most `max_bytes` of the objects below the
    /// prefixes of `buckets`. Sends no request. Blocks.
    ///
    /// # Errors
    /// [`CopyError::Io`], also if another process uses the folder; [`CopyError::Bucket`] if the settings of a bucket are
    /// invalid.
    pub fn open(
        folder: PathBuf,
        max_bytes: u64,
        buckets: &[BucketOptions],
    ) -> Result<Self, CopyError> {
        let buckets = buckets.iter().map(Bucket::open).collect::<Result<_, _>>()?;
        let (objects, staging) = (objects_of(&folder), staging_of(&folder));
        create(&objects)?;
        create(&staging)?;
        let path = folder.join("lock");
        let opened = throng_fs::open_lock(&path);
        let lock = opened.map_err(CopyError::io("open", &path))?;
        lock.try_lock().map_err(|error| {
            let error = match error {
                TryLockError::WouldBlock => io::Error::other("another process uses it"),
                TryLockError::Error(error) => error,
            };
            CopyError::io("lock", &path)(error)
        })?;
        for (path, _) in files(&staging)? {
            fs::remove_file(&path).map_err(CopyError::io("remove", &path))?;
        }
        let mut found = files(&objects)?;
        found.sort_by_key(|(_, metadata)| (metadata.ctime(), metadata.ctime_nsec()));
        let mut state = State::default();
        for (path, metadata) in found {
            state.uses += 1;
            state.bytes = state.bytes.saturating_add(metadata.len());
            let (bytes, used) = (Some(metadata.len()), state.uses);
            state.files.insert(path, CachedFile { bytes, used, ..CachedFile::default() });
        }
        state.make_room(0, max_bytes);
        Ok(Self { folder, max_bytes, buckets, state: Mutex::new(state), _lock: lock })
    }

    /// The path that the file of an object has while it is held. Pure.
    pub fn path_of(&self, object: &CachedObject) -> PathBuf {
        let CachedObject { bucket, key, etag, bytes, modified } = object;
        let mut hasher = Sha256::new();
        for part in [bucket, key, etag] {
            // With its length: `a` and `bc` are not `ab` and `c`.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(bytes.to_le_bytes());
        hasher.update(modified.to_le_bytes());
        let digest: [u8; 32] = hasher.finalize().into();
        let hash = to_hex(&digest[..HASH_BYTES]);
        objects_of(&self.folder).join(format!("{hash}-{}", end_of(key)))
    }

    /// Downloads objects that are not there, and keeps all of them until the result is dropped. Callers that need one
    /// object share its download. If the future is dropped, the downloads that it has begun end.
    ///
    /// # Errors
    /// [`CopyError::Changed`] if an object has another content or is gone; [`CopyError::NoAccess`];
    /// [`CopyError::CacheFull`]; [`CopyError::Bucket`]; [`CopyError::Io`].
    pub async fn hold(
        self: Arc<Self>,
        objects: Vec<CachedObject>,
    ) -> Result<HeldObjects, CopyError> {
        let held = self.begin(&objects);
        let cache = Arc::clone(&self);
        let fetched = objects.into_iter().map(move |object| Arc::clone(&cache).fetch(object));
        let mut fetched = stream::iter(fetched).buffer_unordered(CONCURRENT);
        while fetched.try_next().await?.is_some() {}
        Ok(held)
    }

    fn begin(self: &Arc<Self>, objects: &[CachedObject]) -> HeldObjects {
        let paths: Vec<PathBuf> = objects.iter().map(|object| self.path_of(object)).collect();
        let mut state = self.state.lock();
        for path in &paths {
            state.files.entry(path.clone()).or_default().holders += 1;
        }
        drop(state);
        HeldObjects { cache: Arc::clone(self), paths }
    }

    /// Downloads an object, unless it is there. It is held.
    async fn fetch(self: Arc<Self>, object: CachedObject) -> Result<(), CopyError> {
        let path = self.path_of(&object);
        let downloading = {
            let state = self.state.lock();
            state.files.get(&path).map(|file| Arc::clone(&file.downloading)).unwrap_or_default()
        };
        let _alone = downloading.lock_owned().await;
        if is_complete(&path, &object) {
            return Ok(());
        }
        let readable = self.buckets.iter().filter(|bucket| bucket.has(&object));
        let Some(bucket) = readable.max_by_key(|bucket| bucket.prefix.len()) else {
            return Err(CopyError::NoAccess {
                object: format!("{}/{}", object.bucket, object.key),
            });
        };
        let reserved = Arc::clone(&self).reserve(&path, object.bytes)?;
        let number = TEMPORARY_FILES.fetch_add(1, Ordering::Relaxed);
        let staged = Staged(staging_of(&self.folder).join(format!("{number}.tmp")));
        let CachedObject { key, etag, bytes, modified, .. } = object;
        let time = i64::try_from(modified / 1_000).unwrap_or(i64::MAX);
        let source = SourceObject { key, bytes, etag: Some(etag), modified: Timestamp(time) };
        let downloaded = bucket.client.download(&source, &staged.0).await;
        downloaded.map_err(CopyError::of_bucket(&bucket.name))?;
        place(&staged.0, modified, &path).map_err(CopyError::io("create", &path))?;
        reserved.keep();
        Ok(())
    }

    /// Makes room for a file.
    fn reserve(self: Arc<Self>, path: &Path, bytes: u64) -> Result<Reserved, CopyError> {
        let mut state = self.state.lock();
        // One that is damaged is replaced.
        let replaced = state.files.get_mut(path).and_then(|file| file.bytes.take()).unwrap_or(0);
        state.bytes = state.bytes.saturating_sub(replaced);
        if !state.make_room(bytes, self.max_bytes) {
            let needed_bytes = state.bytes.saturating_add(bytes);
            return Err(CopyError::CacheFull { needed_bytes, max_bytes: self.max_bytes });
        }
        state.bytes += bytes;
        drop(state);
        Ok(Reserved { path: path.to_owned(), bytes, is_kept: false, cache: self })
    }
}

/// Objects that are on the disk until this is dropped.
#[derive(Debug)]
#[must_use = "the objects may be removed when it is dropped"]
pub struct HeldObjects {
    cache: Arc<ObjectCache>,
    paths: Vec<PathBuf>,
}

impl Drop for HeldObjects {
    fn drop(&mut self) {
        let mut state = self.cache.state.lock();
        for path in &self.paths {
            state.uses += 1;
            let used = state.uses;
            let Some(file) = state.files.get_mut(path) else { continue };
            file.holders = file.holders.saturating_sub(1);
            file.used = used;
            if file.holders == 0 && file.bytes.is_none() {
                state.files.remove(path);
            }
        }
    }
}

/// Room for a file that is being downloaded.
struct Reserved {
    cache: Arc<ObjectCache>,
    path: PathBuf,
    bytes: u64,
    is_kept: bool,
}

impl Reserved {
    /// The file is complete.
    fn keep(mut self) {
        self.is_kept = true;
        if let Some(file) = self.cache.state.lock().files.get_mut(&self.path) {
            file.bytes = Some(self.bytes);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.is_kept {
            let mut state = self.cache.state.lock();
            state.bytes = state.bytes.saturating_sub(self.bytes);
        }
    }
}

/// A file that is being written. Removed when it is dropped, unless it was renamed.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

fn objects_of(folder: &Path) -> PathBuf {
    folder.join("objects")
}

fn staging_of(folder: &Path) -> PathBuf {
    folder.join("staging")
}

/// The regular files in a folder.
fn files(folder: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>, CopyError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(CopyError::io("list", folder))? {
        let entry = entry.map_err(CopyError::io("list", folder))?;
        let metadata = entry.metadata().map_err(CopyError::io("inspect", &entry.path()))?;
        if metadata.is_file() {
            found.push((entry.path(), metadata));
        }
    }
    Ok(found)
}

/// The end of a key.
fn end_of(key: &str) -> &str {
    let name = key.rsplit('/').next().unwrap_or_default();
    let mut starts = name.len().saturating_sub(MAX_END_BYTES)..=name.len();
    starts.find_map(|start| name.get(start..)).unwrap_or_default()
}

/// Whether a file is as it was put in place.
fn is_complete(path: &Path, object: &CachedObject) -> bool {
    let time = UNIX_EPOCH + Duration::from_nanos(object.modified);
    fs::metadata(path).is_ok_and(|found| {
        found.is_file()
            && found.len() == object.bytes
            && found.modified().is_ok_and(|at| at == time)
    })
}

/// Renames a complete file to its place.
fn place(staged: &Path, modified: u64, path: &Path) -> io::Result<()> {
    let file = File::open(staged)?;
    let time = UNIX_EPOCH + Duration::from_nanos(modified);
    file.set_times(FileTimes::new().set_modified(time))?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    fs::rename(staged, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_end_of_its_key() {
        assert_eq!(end_of("e/day=1/a.csv.gz"), "a.csv.gz");
        assert_eq!(end_of("a"), "a");
        let long = format!("e/{}.parquet", "ü".repeat(100));
        assert!(end_of(&long).ends_with("ü.parquet") && end_of(&long).len() <= MAX_END_BYTES);
    }
}
