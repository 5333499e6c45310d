//! Opening dictionaries from local copies of their segments, which are fetched first where they are
//! missing, and once more where a copy is damaged.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use parking_lot::{Mutex, MutexGuard};
use throng_membership::{MembershipError, ShardDictionary, manifest_files};
use throng_model::SHARD_COUNT;
use throng_objects::Objects;

use super::error::BuildError;
use super::pool::blocking;

/// Segments of one dictionary fetched at the same time.
const FETCHES: usize = 4;

/// The dictionaries that a process which serves no lookups opened last, so that the next refresh
/// reads only what is new.
#[derive(Debug)]
pub(crate) struct Dictionaries(Vec<Mutex<ShardDictionary>>);

impl Default for Dictionaries {
    fn default() -> Self {
        Self((0..SHARD_COUNT).map(|_| Mutex::default()).collect())
    }
}

impl Dictionaries {
    fn shard(&self, shard: u8) -> MutexGuard<'_, ShardDictionary> {
        // A whole dictionary takes the place of another one: it is right after every statement.
        self.0[usize::from(shard)].lock()
    }

    /// What was opened last; the empty dictionary at first.
    pub(super) fn last(&self, shard: u8) -> ShardDictionary {
        self.shard(shard).clone()
    }

    /// Remembers what was opened.
    pub(super) fn remember(&self, shard: u8, dictionary: &ShardDictionary) {
        *self.shard(shard) = dictionary.clone();
    }
}

/// Opens the dictionary of `manifest`; takes over what `before` has open already. Costs what is new.
///
/// # Errors
/// [`BuildError::Objects`] if a segment cannot be fetched, [`BuildError::Membership`] if one is not
/// what the manifest says, also after it was fetched once more.
pub(super) async fn open(
    objects: &Arc<dyn Objects>,
    before: ShardDictionary,
    manifest: &str,
) -> Result<ShardDictionary, BuildError> {
    let open: HashSet<&str> = before.files().collect();
    let names = manifest_files(manifest)?;
    // A name holds the checksum of what was written under it.
    if names.iter().map(String::as_str).eq(before.files()) {
        return Ok(before);
    }
    let new: Vec<String> = names.into_iter().filter(|name| !open.contains(name.as_str())).collect();
    let fetches = futures::stream::iter(new).map(|name| async move { objects.fetch(&name).await });
    let _fetched: Vec<_> = fetches.buffer_unordered(FETCHES).try_collect().await?;
    let mut fetched_again = HashSet::new();
    loop {
        let (root, before, manifest) =
            (objects.root().to_owned(), before.clone(), manifest.to_owned());
        let error = match blocking(move || Ok(before.reopen(&root, &manifest)?)).await {
            Ok(open) => return Ok(open),
            Err(error) => error,
        };
        match damaged_object(objects.root(), &error) {
            Some(name) if objects.has_copies() && fetched_again.insert(name.to_owned()) => {
                tracing::warn!(name, "a copy is damaged; it is fetched again");
                objects.fetch_again(name).await?;
            }
            _ => return Err(error),
        }
    }
}

/// The name of the object whose file an error calls damaged.
pub(super) fn damaged_object<'a>(root: &Path, error: &'a BuildError) -> Option<&'a str> {
    match error {
        BuildError::Membership(MembershipError::Damaged { path, .. }) => {
            path.strip_prefix(root).ok().and_then(Path::to_str)
        }
        _ => None,
    }
}
