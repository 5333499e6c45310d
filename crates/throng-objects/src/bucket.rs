//! Objects in a bucket, with a cache on the local disk.

use std::collections::HashSet;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{
    Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion,
    WriteMultipart,
};
use parking_lot::{Mutex, MutexGuard};
use throng_model::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{BucketOptions, LIST, READ, REPLACE, UPLOAD, failed, store_of};
use crate::name;
use crate::{ObjectMeta, Objects, ObjectsError, Result, VersionedObject, remove_local};

/// A file up to this size is uploaded in one request, a larger one in parts of this size.
const PART_BYTES: usize = 8 << 20;
/// Parts of one file that are uploaded concurrently: at most 32 MiB in memory.
const CONCURRENT_PARTS: usize = 4;

/// The mode of local copies.
const COPY_MODE: u32 = 0o400;

static TEMPORARY_FILES: AtomicU64 = AtomicU64::new(0);

/// Objects in a bucket on S3 or GCS. Large files are uploaded in parts; copies are downloaded once and
/// kept on the local disk, so that a node can start while the bucket cannot be reached.
#[derive(Debug)]
pub struct BucketObjects {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    root: PathBuf,
    cache_bytes: u64,
    /// Names that are being downloaded: concurrent calls for one name share one download.
    downloading: Mutex<HashSet<String>>,
    /// Notified at the end of each download.
    downloaded: tokio::sync::Notify,
}

/// The version of an object in one text: e-tag and version id.
fn version(e_tag: Option<String>, version: Option<String>) -> String {
    format!("{}\n{}", e_tag.unwrap_or_default(), version.unwrap_or_default())
}

/// The reverse of [`version`].
fn update_version(version: &str) -> UpdateVersion {
    let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (e_tag, version) = version.split_once('\n').unwrap_or((version, ""));
    UpdateVersion { e_tag: part(e_tag), version: part(version) }
}

impl BucketObjects {
    /// Opens a bucket, with local copies below `root`. Sends no request: see [`check`](Self::check).
    ///
    /// # Errors
    /// [`ObjectsError::Settings`], [`ObjectsError::Io`].
    pub fn open(root: PathBuf, options: &BucketOptions) -> Result<Self> {
        std::fs::create_dir_all(&root).map_err(ObjectsError::io("create the folder", &root))?;
        let store =
            store_of(options).map_err(|error| ObjectsError::Settings { why: error.to_string() })?;
        let (prefix, cache_bytes) = (options.prefix.clone(), options.cache_bytes);
        let (downloading, downloaded) = Default::default();
        Ok(Self { store, prefix, root, cache_bytes, downloading, downloaded })
    }

    /// Checks that this node can write, compare and swap, read, list and remove in the bucket, with a
    /// small object of its own.
    ///
    /// # Errors
    /// [`ObjectsError`] of the first operation that fails; [`ObjectsError::Settings`] if the store does
    /// not support conditional writes.
    pub async fn check(&self, unique: &str) -> Result<()> {
        let name = format!("checks/{unique}");
        let created = self.compare_and_swap(&name, b"1".to_vec(), None).await?;
        let second = self.compare_and_swap(&name, b"2".to_vec(), None).await?;
        let replaced = match &created {
            Some(version) => self.compare_and_swap(&name, b"3".to_vec(), Some(version)).await?,
            None => None,
        };
        let listed = self.list("checks").await?;
        self.remove(&name).await?;
        if created.is_none() || second.is_some() || replaced.is_none() {
            let why = "the store does not support conditional writes (If-None-Match, If-Match); \
                       use one that does";
            return Err(ObjectsError::Settings { why: why.to_owned() });
        }
        if listed.iter().all(|object| object.name != name) {
            let why = "a new object does not appear in listings".to_owned();
            return Err(ObjectsError::Settings { why });
        }
        Ok(())
    }

    fn key(&self, name: &str) -> Key {
        if self.prefix.is_empty() {
            Key::from(name)
        } else {
            Key::from(format!("{}/{name}", self.prefix))
        }
    }

    async fn upload_file(&self, name: &str, path: &Path) -> Result<()> {
        let io = |source| ObjectsError::Io { doing: "read", path: path.to_owned(), source };
        let mut file = tokio::fs::File::open(path).await.map_err(io)?;
        let length = file.metadata().await.map_err(io)?.len();
        if length <= PART_BYTES as u64 {
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            file.read_to_end(&mut bytes).await.map_err(io)?;
            let options = PutOptions::from(PutMode::Create);
            let put = self.store.put_opts(&self.key(name), PutPayload::from(bytes), options).await;
            return match put {
                // An earlier upload, or this one: the client retries when it gets no answer.
                Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(()),
                Err(error) => Err(failed(UPLOAD, name)(error)),
            };
        }
        let upload =
            self.store.put_multipart(&self.key(name)).await.map_err(failed(UPLOAD, name))?;
        let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut buffer = vec![0; PART_BYTES];
        loop {
            let read = match file.read(&mut buffer).await {
                Ok(read) => read,
                Err(source) => {
                    // Parts of an upload that is not aborted stay in the bucket and cost money.
                    let _ = parts.abort().await;
                    return Err(io(source));
                }
            };
            if read == 0 {
                break;
            }
            parts.wait_for_capacity(CONCURRENT_PARTS).await.map_err(failed(UPLOAD, name))?;
            parts.write(&buffer[..read]);
        }
        parts.finish().await.map_err(failed(UPLOAD, name))?;
        Ok(())
    }

    async fn download_to(&self, name: &str, path: &Path) -> Result<()> {
        let got = self.store.get(&self.key(name)).await.map_err(failed(READ, name))?;
        let expected = got.meta.size;
        let folder = path.parent().unwrap_or(Path::new("."));
        tokio::fs::create_dir_all(folder)
            .await
            .map_err(ObjectsError::io("create the folder", folder))?;
        let number = TEMPORARY_FILES.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_added_extension(format!("{}-{number}.tmp", std::process::id()));
        let copied = async {
            let io = |source| ObjectsError::Io { doing: "write", path: temporary.clone(), source };
            let mut file = tokio::fs::File::create(&temporary).await.map_err(io)?;
            let mut stream = got.into_stream();
            let mut length = 0;
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(failed(READ, name))?;
                length += chunk.len() as u64;
                file.write_all(&chunk).await.map_err(io)?;
            }
            if length != expected {
                return Err(ObjectsError::IncompleteDownload {
                    name: name.to_owned(),
                    expected,
                    got: length,
                });
            }
            // Objects are written once, so a copy is never written to.
            file.set_permissions(Permissions::from_mode(COPY_MODE)).await.map_err(io)?;
            file.sync_all().await.map_err(io)?;
            tokio::fs::rename(&temporary, path).await.map_err(io)
        };
        let copied = copied.await;
        if copied.is_err() {
            // A file that cannot be removed does no harm: the next download uses another name.
            let _ = tokio::fs::remove_file(&temporary).await;
        }
        copied
    }

    fn downloading(&self) -> MutexGuard<'_, HashSet<String>> {
        // The set is consistent after every statement, so a panic cannot have broken it.
        self.downloading.lock()
    }

    /// Starts a download of this name. If another one runs, waits until some download ends and returns
    /// `None`.
    async fn start_download<'a>(&'a self, name: &'a str) -> Option<Download<'a>> {
        let ended = self.downloaded.notified();
        tokio::pin!(ended);
        // Registered before the check: the end of a download between the check and the wait would be
        // missed otherwise.
        ended.as_mut().enable();
        if self.downloading().insert(name.to_owned()) {
            return Some(Download { objects: self, name });
        }
        ended.await;
        None
    }
}

/// Marks a name as being downloaded, until it is dropped; also if the caller's future is dropped.
struct Download<'a> {
    objects: &'a BucketObjects,
    name: &'a str,
}

impl Drop for Download<'_> {
    fn drop(&mut self) {
        self.objects.downloading().remove(self.name);
        self.objects.downloaded.notify_waiters();
    }
}

#[async_trait]
impl Objects for BucketObjects {
    fn root(&self) -> &Path {
        &self.root
    }

    async fn upload(&self, name: &str) -> Result<()> {
        let path = name::file(&self.root, name)?;
        self.upload_file(name, &path).await
    }

    async fn download(&self, name: &str) -> Result<PathBuf> {
        let path = name::file(&self.root, name)?;
        loop {
            if tokio::fs::try_exists(&path).await.unwrap_or(false) {
                return Ok(path);
            }
            if let Some(_download) = self.start_download(name).await {
                self.download_to(name, &path).await?;
                return Ok(path);
            }
        }
    }

    fn has_copies(&self) -> bool {
        true
    }

    async fn download_again(&self, name: &str) -> Result<PathBuf> {
        let path = name::file(&self.root, name)?;
        if let Some(_download) = self.start_download(name).await {
            self.download_to(name, &path).await?;
        }
        Ok(path)
    }

    async fn remove(&self, name: &str) -> Result<()> {
        // Before the request: it takes no space of the disk while the bucket does not answer.
        remove_local(&self.root, name).await?;
        match self.store.delete(&self.key(name)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("remove", name)(error)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        name::file(&self.root, prefix)?;
        let cut = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let mut found: Vec<ObjectMeta> = self
            .store
            .list(Some(&self.key(prefix)))
            .map_ok(|meta| ObjectMeta {
                name: meta.location.as_ref().get(cut..).unwrap_or_default().to_owned(),
                modified: Timestamp(meta.last_modified.timestamp_micros()),
            })
            .try_collect()
            .await
            .map_err(failed(LIST, prefix))?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn load(&self, name: &str) -> Result<Option<VersionedObject>> {
        name::file(&self.root, name)?;
        let got = match self.store.get(&self.key(name)).await {
            Ok(got) => got,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(READ, name)(error)),
        };
        let version = version(got.meta.e_tag.clone(), got.meta.version.clone());
        let bytes = got.bytes().await.map_err(failed(READ, name))?.to_vec();
        Ok(Some(VersionedObject { bytes, version }))
    }

    async fn compare_and_swap(
        &self,
        name: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
    ) -> Result<Option<String>> {
        name::file(&self.root, name)?;
        let mode = expected.map_or(PutMode::Create, |seen| PutMode::Update(update_version(seen)));
        let payload = PutPayload::from(bytes.clone());
        match self.store.put_opts(&self.key(name), payload, PutOptions::from(mode)).await {
            Ok(put) => Ok(Some(version(put.e_tag, put.version))),
            // `NotFound`: there is no object, so not the expected version either.
            Err(Error::NotFound { .. }) if expected.is_some() => Ok(None),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                // The client retries a write when it gets no answer. If the first attempt succeeded,
                // the retry fails because of the version that this call has written.
                let stored = self.load(name).await?;
                Ok(stored.filter(|stored| stored.bytes == bytes).map(|stored| stored.version))
            }
            Err(error) => Err(failed(REPLACE, name)(error)),
        }
    }

    async fn evict(&self, needed: &HashSet<String>) -> Result<()> {
        let (root, needed, max_bytes) = (self.root.clone(), needed.clone(), self.cache_bytes);
        let evicted =
            tokio::task::spawn_blocking(move || crate::cache::evict(&root, &needed, max_bytes));
        evicted.await.map_err(|error| ObjectsError::Io {
            doing: "evict copies in",
            path: self.root.clone(),
            source: io::Error::other(error),
        })?
    }
}
