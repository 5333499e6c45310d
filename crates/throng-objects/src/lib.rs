//! Objects: files that are written once under a name and read by any node (parts of refreshes,
//! dictionary segments, snapshots), and small ones that are replaced under a condition
//! (checkpoints). [`DirectoryObjects`] keeps them in a folder, [`BucketObjects`] on S3 or GCS with
//! a cache on the local disk; `conformance` (a feature) is the suite that both pass.
//!
//! A name is a relative path with `/` between its parts: letters, digits, `-`, `_`, `.` and `=`.
//! Whoever writes an object makes its name unique, with a random part if the content may differ.

mod bucket;
mod cache;
#[cfg(feature = "conformance")]
pub mod conformance;
mod directory;
mod error;
mod name;

pub use bucket::{BucketObjects, BucketSettings, Service};
pub use directory::DirectoryObjects;
pub use error::{ObjectsError, Result};

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use throng_model::Timestamp;

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

/// A small object with the version that it has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Its content.
    pub bytes: Vec<u8>,
    /// What the store calls this version; other bytes have another one.
    pub version: String,
}

/// A store of objects. All nodes of a deployment see the same one.
#[async_trait]
pub trait Objects: Send + Sync + std::fmt::Debug {
    /// The folder of this node in which local copies lie under their names. Writers make a file
    /// there, durable and whole, and then [`keep`](Self::keep) it.
    fn root(&self) -> &Path;

    /// Makes the local file of this name an object that every node can fetch. When it returns, the
    /// object survives the loss of this node (of its disk, where the store is elsewhere). An object
    /// of the same name that is there already stays as it is.
    async fn keep(&self, name: &str) -> Result<()>;

    /// The local copy of an object, brought here first if need be: whole, or not at all.
    /// [`ObjectsError::Missing`] if there is no such object.
    async fn fetch(&self, name: &str) -> Result<PathBuf>;

    /// Whether local files are copies of objects that lie elsewhere.
    fn has_copies(&self) -> bool;

    /// As [`fetch`](Self::fetch), after the local copy has turned out to be damaged: brings it here
    /// anew in its place. Where the local file is the object, it stays as it is.
    async fn fetch_again(&self, name: &str) -> Result<PathBuf>;

    /// Removes an object and its local copy. Right also when there is none.
    async fn remove(&self, name: &str) -> Result<()>;

    /// The objects whose names begin with `prefix` and a `/`. For tidying up, not for the hot path.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>>;

    /// A small object that is replaced now and then; `None` if there is none.
    async fn load(&self, name: &str) -> Result<Option<Versioned>>;

    /// Replaces a small object if it still has the version `expected` (`None`: if there is none
    /// yet), and returns its new version; `None` if somebody else was first. Durable then. After
    /// an error the object may have been replaced or not: load it to see.
    async fn swap(
        &self,
        name: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
    ) -> Result<Option<String>>;

    /// Gives back disk: removes local copies that are neither named in `needed` nor used lately,
    /// the longest unused first, until what is left fits the cache. Does nothing where the local
    /// file is the object.
    async fn trim(&self, needed: &HashSet<String>) -> Result<()>;
}
