//! Objects: files that are written once under a name and read by any node (parts of refreshes,
//! dictionary segments, snapshots), and small ones that are replaced by compare-and-swap
//! (checkpoints). [`DirectoryObjects`] stores them in a folder, [`BucketObjects`] on S3 or GCS with
//! a cache on the local disk; `conformance` (a feature) is the test suite that both pass.
//! [`SourceBucket`] reads a bucket that others write to.
//!
//! A name is a relative path with `/` between its parts: letters, digits, `-`, `_`, `.` and `=`.
//! The writer of an object makes its name unique, with a random part if the content may differ.

mod bucket;
mod cache;
mod client;
#[cfg(feature = "conformance")]
pub mod conformance;
mod directory;
mod error;
mod name;
mod source_bucket;

pub use bucket::BucketObjects;
pub use client::{BucketOptions, Service};
pub use directory::DirectoryObjects;
pub use error::{ObjectsError, Result};
pub use source_bucket::{SourceBucket, SourceObject};

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use throng_model::Timestamp;

/// Objects that are uploaded or removed by one call at the same time.
const AT_ONCE: usize = 8;

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its name.
    pub name: String,
    /// The time of the last write, by the clock of the store.
    pub modified: Timestamp,
}

/// A small object with its current version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionedObject {
    /// Its content.
    pub bytes: Vec<u8>,
    /// The store's identifier of the version; other content has another one.
    pub version: String,
}

/// A store of objects, the same one for all nodes of a deployment.
#[async_trait]
pub trait Objects: Send + Sync + std::fmt::Debug {
    /// The folder of this node with the local copies, under the names of the objects. A writer creates a
    /// complete, durable file there and then calls [`upload`](Self::upload).
    fn root(&self) -> &Path;

    /// Stores the local file of this name as an object that every node can download. When it returns,
    /// the object survives the loss of this node (of its disk, unless the local file is the object). An
    /// existing object of the same name is not replaced.
    async fn upload(&self, name: &str) -> Result<()>;

    /// Downloads an object unless there is a local copy, and returns the path of the copy, which is
    /// always complete. [`ObjectsError::Missing`] if there is no such object.
    async fn download(&self, name: &str) -> Result<PathBuf>;

    /// Whether local files are copies. If not, the local file is the object.
    fn has_copies(&self) -> bool;

    /// Like [`download`](Self::download), but replaces a local copy, because it is damaged. Does nothing
    /// where the local file is the object.
    async fn download_again(&self, name: &str) -> Result<PathBuf>;

    /// Removes an object and its local copy. Succeeds if there is none.
    async fn remove(&self, name: &str) -> Result<()>;

    /// [`upload`](Self::upload) for several files, some at a time. After an error some are stored, and no upload is
    /// in progress.
    async fn upload_all(&self, names: &[&str]) -> Result<()> {
        let has_failed = &AtomicBool::new(false);
        let uploads = names.iter().copied().map(|name| async move {
            if has_failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let uploaded = self.upload(name).await;
            has_failed.fetch_or(uploaded.is_err(), Ordering::Relaxed);
            uploaded
        });
        let uploads: Vec<_> = uploads.collect();
        // Those that run are not dropped for the error of another: the caller may remove what is stored.
        let results: Vec<Result<()>> =
            futures::stream::iter(uploads).buffer_unordered(AT_ONCE).collect().await;
        results.into_iter().collect()
    }

    /// [`remove`](Self::remove) for several objects, some at a time. The local copies of all of them go first, also if
    /// the store does not answer. All are tried; the error is the first one.
    async fn remove_all(&self, names: &[&str]) -> Result<()> {
        let mut local = Ok(());
        for name in names {
            local = local.and(remove_local(self.root(), name).await);
        }
        if self.has_copies() {
            let removals: Vec<_> = names.iter().map(|name| self.remove(name)).collect();
            let removals = futures::stream::iter(removals).buffer_unordered(AT_ONCE);
            // All are tried: one that fails does not keep the others.
            let removed: Vec<Result<()>> = removals.collect().await;
            removed.into_iter().collect::<Result<()>>()?;
        }
        local
    }

    /// The objects whose names begin with `prefix` and a `/`. Slow: for cleanups.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>>;

    /// Reads a small object from the store; `None` if there is none.
    async fn load(&self, name: &str) -> Result<Option<VersionedObject>>;

    /// Replaces a small object if it has the version `expected` (`None`: if there is none), and returns
    /// the new version; `None` if the version is another one. Durable when it returns. After an error
    /// the object may or may not be replaced: load it to find out.
    async fn compare_and_swap(
        &self,
        name: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
    ) -> Result<Option<String>>;

    /// Evicts local copies that are not in `needed`, the least recently used first, until the others
    /// fit the cache. Does nothing where the local file is the object.
    async fn evict(&self, needed: &HashSet<String>) -> Result<()>;
}

/// Removes the local file of an object. Succeeds if there is none.
async fn remove_local(root: &Path, name: &str) -> Result<()> {
    let path = name::file(root, name)?;
    match tokio::fs::remove_file(&path).await {
        // Also where a file has the name of its folder.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(())
        }
        removed => removed.map_err(ObjectsError::io("remove", &path)),
    }
}
