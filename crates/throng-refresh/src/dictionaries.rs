//! Opening dictionaries from local copies of their segments, which are downloaded first where they
//! are missing, and again where a copy is damaged.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use parking_lot::{Mutex, MutexGuard};
use throng_membership::{MembershipError, ShardDictionary, manifest_files};
use throng_model::SHARD_COUNT;
use throng_objects::Objects;

use super::error::RefreshError;
use super::pool::blocking;

/// Segments of one dictionary that are downloaded at the same time.
const FETCHES: usize = 4;

/// The dictionaries that a process without lookups opened last, so that the next refresh reads only
/// new segments. A process with lookups takes them from its index.
#[derive(Debug)]
pub(crate) struct Dictionaries(Vec<Mutex<ShardDictionary>>);

impl Default for Dictionaries {
    fn default() -> Self {
        Self((0..SHARD_COUNT).map(|_| Mutex::default()).collect())
    }
}

impl Dictionaries {
    fn shard(&self, shard: u8) -> MutexGuard<'_, ShardDictionary> {
        // A dictionary is replaced as a whole, so a panic of another thread cannot leave half of
        // one.
        self.0[usize::from(shard)].lock()
    }

    /// The dictionary that was opened last; the empty one at first.
    pub(super) fn last(&self, shard: u8) -> ShardDictionary {
        self.shard(shard).clone()
    }

    /// Stores the dictionary that was opened.
    pub(super) fn store(&self, shard: u8, dictionary: &ShardDictionary) {
        *self.shard(shard) = dictionary.clone();
    }
}

/// Opens the dictionary of `manifest`, reusing the segments that `previous` has open. Downloads and
/// reads the new ones only.
///
/// # Errors
/// [`RefreshError::Objects`] if a segment cannot be downloaded, [`RefreshError::Membership`] if one
/// is not what the manifest says, also after a second download.
pub async fn open(
    objects: &Arc<dyn Objects>,
    previous: ShardDictionary,
    manifest: &str,
) -> Result<ShardDictionary, RefreshError> {
    let open: HashSet<&str> = previous.files().collect();
    let names = manifest_files(manifest)?;
    // A segment's name contains its checksum: the same names are the same contents.
    if names.iter().map(String::as_str).eq(previous.files()) {
        return Ok(previous);
    }
    let new: Vec<String> = names.into_iter().filter(|name| !open.contains(name.as_str())).collect();
    let fetches =
        futures::stream::iter(new).map(|name| async move { objects.download(&name).await });
    let _fetched: Vec<_> = fetches.buffer_unordered(FETCHES).try_collect().await?;
    let mut fetched_again = HashSet::new();
    loop {
        let (root, previous, manifest) =
            (objects.root().to_owned(), previous.clone(), manifest.to_owned());
        let error = match blocking(move || Ok(previous.reopen(&root, &manifest)?)).await {
            Ok(open) => return Ok(open),
            Err(error) => error,
        };
        match damaged_object(objects.root(), &error) {
            // Each once: a segment that is damaged in the object storage would be downloaded forever.
            Some(name) if objects.has_copies() && fetched_again.insert(name.to_owned()) => {
                tracing::warn!(object = name, "local copy is damaged, downloading it again");
                objects.download_again(name).await?;
            }
            _ => return Err(error),
        }
    }
}

/// The name of the object whose file is damaged, if that is what the error is about.
pub(super) fn damaged_object<'a>(root: &Path, error: &'a RefreshError) -> Option<&'a str> {
    match error {
        RefreshError::Membership(MembershipError::Damaged { path, .. }) => {
            path.strip_prefix(root).ok().and_then(Path::to_str)
        }
        _ => None,
    }
}
