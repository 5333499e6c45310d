//! Local copies of the objects of sources' buckets. A source in a bucket is copied to the local disk before it is read:
//! query workers have no network and no secrets, and read the copy as they read any folder.
//!
//! An update lists the bucket, downloads what is new or changed, puts it in place, and removes what is gone. Objects
//! that are not read are not downloaded: a file without content has their name and their size, so that they are listed as
//! passed over, or refused by name, as files are. The files of a copy have the times of their objects, the same ones on all nodes.
//!
//! [`ObjectCache`] has single objects that others name, for executors of a cluster: they have no copies.
//!
//! ```
//! use throng_objects::{BucketOptions, Service};
//! use throng_source_copies::SourceCopies;
//!
//! let copies = SourceCopies::new("/var/lib/throng/sources".into());
//! let bucket = BucketOptions {
//!     service: Service::Gcs { service_account: None },
//!     bucket: "lake".to_owned(),
//!     prefix: "exports/users".to_owned(),
//!     cache_bytes: 0,
//! };
//! let source = throng_source_copies::SourceOptions { bucket, max_bytes: 100 << 30 };
//! assert!(copies.folder_of(&source).starts_with("/var/lib/throng/sources"));
//! ```

mod cache;
mod download;
mod error;
mod folder;
mod index;
mod local;
mod lock;
mod object_cache;
mod plan;
mod publish;
mod retain;
mod service;

pub use cache::{CacheBounds, CacheUse};
pub use error::CopyError;
pub use index::CopiedFile;
pub use object_cache::{CachedObject, HeldObjects, ObjectCache};
pub use service::service_of;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use throng_objects::{BucketOptions, SourceBucket, SourceObject};

use crate::folder::{CopyFolder, url};
use crate::index::Index;
use crate::local::{LocalTree, Prepared};
use crate::lock::Updating;
use crate::plan::RefusedKey;

/// The most objects of a source: as many as files.
const MAX_OBJECTS: usize = 2_000_000;
/// What stays free on the disk.
const MIN_FREE_BYTES: u64 = 1 << 30;

/// A bucket whose objects are a source, with the secrets that reading it takes.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// The bucket and the prefix of the source. `cache_bytes` is not used.
    pub bucket: BucketOptions,
    /// The most bytes that are copied.
    pub max_bytes: u64,
}

/// What an update has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Files of the copy, with those that have only the name of their object.
    pub objects: u64,
    /// The size of the copied content.
    pub bytes: u64,
    /// Objects that this update has downloaded.
    pub downloaded: u64,
    /// Their size.
    pub downloaded_bytes: u64,
    /// Files whose objects are gone, which were removed.
    pub removed: u64,
}

/// Local copies of the objects of sources' buckets.
#[derive(Debug)]
pub struct SourceCopies {
    folder: PathBuf,
    /// For each copy: one update at a time.
    updates: Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

impl SourceCopies {
    /// Copies below `folder`, which is created with mode 0700 when it is first needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, updates: Mutex::default() }
    }

    /// The folder of a bucket's copy: the same for the same service, bucket and prefix, whatever the credentials. Pure.
    pub fn folder_of(&self, bucket: &SourceOptions) -> PathBuf {
        CopyFolder::of(&self.folder, &bucket.bucket).files()
    }

    /// Makes the copy equal to the bucket: lists it, downloads what is new or changed, removes what is gone. Updates of
    /// one copy are one after the other, also between processes. Until everything is downloaded the copy stays as it
    /// is; after an error the next update continues.
    ///
    /// # Errors
    /// [`CopyError`].
    pub async fn update(&self, bucket: &SourceOptions) -> Result<CopyReport, CopyError> {
        let (name, folder) = (url(&bucket.bucket), CopyFolder::of(&self.folder, &bucket.bucket));
        // Shared with the threads that work in the folder, which continue if this future is dropped.
        let updating = Arc::new(self.start(&folder).await?);
        let client = SourceBucket::open(&bucket.bucket).map_err(CopyError::of_bucket(&name))?;
        let objects = client.list(MAX_OBJECTS + 1).await.map_err(CopyError::of_bucket(&name))?;
        let (held, in_folder, options) = (Arc::clone(&updating), folder.clone(), bucket.clone());
        let mut prepared = blocking(&self.folder, move || {
            let _held = held;
            prepare(&in_folder, &options, objects)
        })
        .await?;
        let (bytes, downloads) = (prepared.plan.bytes, std::mem::take(&mut prepared.downloads));
        let downloaded = download::download(&Arc::new(client), &name, downloads).await?;
        let markers = downloaded.markers;
        let published = blocking(&self.folder, move || {
            let _held = updating;
            publish::publish(&folder, prepared, &markers)
        })
        .await?;
        let report = CopyReport {
            objects: published.files,
            bytes,
            downloaded: downloaded.objects,
            downloaded_bytes: downloaded.bytes,
            removed: published.removed,
        };
        if report.downloaded + report.removed > 0 {
            tracing::info!(
                bucket = name,
                objects = report.objects,
                bytes = report.bytes,
                downloaded = report.downloaded,
                downloaded_bytes = report.downloaded_bytes,
                removed = report.removed,
                "copied objects of a source"
            );
        }
        Ok(report)
    }

    /// The files that a copy had when its last update ended, without those that have no content. None if there was no
    /// update. Blocks.
    ///
    /// # Errors
    /// [`CopyError::Io`].
    pub fn objects(&self, source: &SourceOptions) -> Result<Vec<CopiedFile>, CopyError> {
        let index = Index::read(&CopyFolder::of(&self.folder, &source.bucket).index())?;
        Ok(index.map(Index::into_files).unwrap_or_default())
    }

    /// Waits until no other update of the copy is running.
    async fn start(&self, folder: &CopyFolder) -> Result<Updating, CopyError> {
        let lock = Arc::clone(self.updates.lock().entry(folder.files()).or_default());
        let in_process = lock.lock_owned().await;
        let created = folder.clone();
        blocking(&self.folder, move || created.create()).await?;
        Updating::start(&folder.lock(), in_process).await
    }
}

/// Plans an update, and checks that it is possible.
fn prepare(
    folder: &CopyFolder,
    source: &SourceOptions,
    objects: Vec<SourceObject>,
) -> Result<Prepared, CopyError> {
    let bucket = || url(&source.bucket);
    if objects.len() > MAX_OBJECTS {
        return Err(CopyError::TooMany { bucket: bucket(), max: MAX_OBJECTS });
    }
    let index = Index::read(&folder.index())?;
    if objects.is_empty() && index.is_none() {
        return Err(CopyError::Empty { bucket: bucket() });
    }
    let plan = plan::plan(&source.bucket.prefix, objects);
    let plan = plan.map_err(|RefusedKey { key, why }| CopyError::Key {
        bucket: bucket(),
        key,
        why: why.to_owned(),
    })?;
    let (bytes, max_bytes) = (plan.bytes, source.max_bytes);
    if bytes > max_bytes {
        return Err(CopyError::TooLarge { bucket: bucket(), bytes, max_bytes });
    }
    let prepared =
        Prepared::new(plan, LocalTree::read(&folder.files())?, index, &folder.staging())?;
    let files = folder.files();
    let found = rustix::fs::statvfs(files.as_path())
        .map_err(|error| CopyError::io("inspect the free space of", &files)(error.into()))?;
    let available_bytes = found.f_bavail.saturating_mul(found.f_frsize);
    match missing_space(prepared.download_bytes(), available_bytes) {
        Some(needed_bytes) => {
            let (bucket, folder) = (bucket(), files);
            Err(CopyError::DiskFull { bucket, needed_bytes, available_bytes, folder })
        }
        None => Ok(prepared),
    }
}

/// The space that a download needs, if there is less.
fn missing_space(download_bytes: u64, available_bytes: u64) -> Option<u64> {
    let needed_bytes = download_bytes.saturating_add(MIN_FREE_BYTES);
    (download_bytes > 0 && needed_bytes > available_bytes).then_some(needed_bytes)
}

/// Runs work on the disk.
async fn blocking<T: Send + 'static>(
    folder: &Path,
    work: impl FnOnce() -> Result<T, CopyError> + Send + 'static,
) -> Result<T, CopyError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| CopyError::io("work in", folder)(io::Error::other(error)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gibibyte_stays_free() {
        let free = 10 << 30;
        assert_eq!(missing_space(9 << 30, free), None);
        assert_eq!(missing_space((9 << 30) + 1, free), Some((10 << 30) + 1));
        assert_eq!(missing_space(u64::MAX, free), Some(u64::MAX));
        assert_eq!(missing_space(0, 0), None, "nothing is downloaded");
    }
}
