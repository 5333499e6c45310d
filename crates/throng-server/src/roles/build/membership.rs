//! What is published, mapped for lookups.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use throng_ledger::{Ledger, Snapshot};
use throng_membership::{
    MembershipError, MembershipIndex, ShardDictionary, SnapshotFile, manifest_files,
};
use throng_model::{HashSeed, SHARD_COUNT};
use throng_objects::{Objects, ObjectsError};

use super::error::{BuildError, blocking};
use crate::NodeContext;

/// Objects fetched at the same time.
const FETCHES: usize = 16;

/// One reload at a time: else one that read the ledger earlier could store its index later.
static RELOAD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Maps all dictionaries and the served snapshot of every audience; fetches what is not here yet.
/// Reads every byte once. A snapshot that is damaged is left out and told in the log: one bad file
/// must not stop the node.
///
/// # Errors
/// [`BuildError`] if the ledger fails or a dictionary cannot be used.
pub async fn load_membership(
    objects: &Arc<dyn Objects>,
    ledger: &dyn Ledger,
    seed: HashSeed,
) -> Result<MembershipIndex, BuildError> {
    load(objects, ledger, Arc::new(MembershipIndex::empty(seed))).await
}

/// Maps what is published now and swaps it in, for lookups and for the node's own gate. Costs what
/// is new since the last time. Local copies that are of no more use give their room back.
///
/// # Errors
/// [`BuildError`], boxed; what was mapped before stays.
pub async fn reload_membership(
    ctx: &Arc<NodeContext>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let _turn = RELOAD.lock().await;
    let before = ctx.membership.load_full();
    let index = Arc::new(load(&ctx.objects, &*ctx.ledger, before).await?);
    ctx.membership.store(Arc::clone(&index));
    ctx.gate.set_membership(index);
    Ok(())
}

async fn load(
    objects: &Arc<dyn Objects>,
    ledger: &dyn Ledger,
    before: Arc<MembershipIndex>,
) -> Result<MembershipIndex, BuildError> {
    // In this order no snapshot is ahead of the dictionaries.
    let audiences = ledger.audiences().await?;
    let dictionary = ledger.dictionary().await?;
    let mut names = Vec::new();
    for row in &dictionary {
        names.extend(manifest_files(&row.manifest)?);
    }
    for fetched in fetch_all(objects, names.clone()).await {
        fetched?;
    }
    let served: Vec<Snapshot> = audiences.into_iter().filter_map(|row| row.current).collect();
    let fetched = fetch_all(objects, served.iter().map(|s| s.path.clone()).collect()).await;
    let needed = names.into_iter().chain(served.iter().map(|s| s.path.clone())).collect();
    let root = objects.root().to_owned();
    let index = blocking(move || {
        let mut shards = vec![None; SHARD_COUNT];
        for row in dictionary {
            let open = match before.dictionary(row.shard) {
                Some(open) => open.reopen(&root, &row.manifest)?,
                None => ShardDictionary::open(&root, &row.manifest)?,
            };
            shards[usize::from(row.shard)] = Some(open);
        }
        let mut files = Vec::with_capacity(served.len());
        for (served, path) in served.into_iter().zip(fetched) {
            let opened =
                path.map_err(BuildError::from).and_then(|p| open(&p, &served, &before, &shards));
            match opened {
                Ok(file) => files.push((served.audience, file)),
                Err(error) => tracing::error!(
                    audience = %served.audience,
                    version = served.version,
                    error = &error as &dyn std::error::Error,
                    "a published snapshot cannot be served; refresh the audience"
                ),
            }
        }
        Ok(MembershipIndex::new(before.seed(), shards, files)?)
    })
    .await?;
    if let Err(error) = objects.trim(&needed).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "old copies were not removed");
    }
    Ok(index)
}

/// Local copies of objects, in their order.
async fn fetch_all(
    objects: &Arc<dyn Objects>,
    names: Vec<String>,
) -> Vec<Result<PathBuf, ObjectsError>> {
    let fetches = futures::stream::iter(names).map(|name| {
        let objects = Arc::clone(objects);
        async move { objects.fetch(&name).await }
    });
    fetches.buffered(FETCHES).collect().await
}

fn open(
    path: &Path,
    served: &Snapshot,
    before: &MembershipIndex,
    shards: &[Option<ShardDictionary>],
) -> Result<Arc<SnapshotFile>, BuildError> {
    // Versions are never used twice, so the same version is the same file.
    if let Some(open) = before.snapshot(&served.audience)
        && open.meta().version == served.version
    {
        return Ok(Arc::clone(open));
    }
    let file = SnapshotFile::open(path)?;
    for (shard, (dictionary, needs)) in shards.iter().zip(&file.meta().dictionary_len).enumerate() {
        let has = dictionary.as_ref().map_or(0, ShardDictionary::len);
        if has < *needs {
            let (audience, shard, needs) = (served.audience.clone(), shard as u8, *needs);
            return Err(MembershipError::DictionaryTooOld { audience, shard, has, needs }.into());
        }
    }
    Ok(Arc::new(file))
}
