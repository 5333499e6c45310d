//! What is published, mapped for lookups.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use throng_ledger::{DictionaryShard, Ledger, Snapshot};
use throng_membership::{
    MembershipError, MembershipIndex, ShardDictionary, SnapshotFile, manifest_files,
};
use throng_model::{HashSeed, Retry, SHARD_COUNT};
use throng_objects::{Objects, ObjectsError};

use super::error::{BuildError, blocking};
use crate::NodeContext;

/// Objects fetched at the same time.
const FETCHES: usize = 16;

/// One reload at a time: else one that read the ledger earlier could store its index later.
static RELOAD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How long a node that could start from its local copies waits for what is new.
const WARM_PATIENCE: Duration = Duration::from_secs(10);
/// What was mapped last, below the folder of the local copies' own.
const LAST: &str = "membership.json";

/// What is published.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Published {
    dictionary: Vec<DictionaryShard>,
    served: Vec<Snapshot>,
}

impl Published {
    /// As the ledger has it now.
    async fn read(ledger: &dyn Ledger) -> Result<Self, BuildError> {
        // In this order no snapshot is ahead of the dictionaries.
        let audiences = ledger.audiences().await?;
        let dictionary = ledger.dictionary().await?;
        Ok(Self { dictionary, served: audiences.into_iter().filter_map(|a| a.current).collect() })
    }

    /// As this node mapped it last, if its objects are local copies.
    fn last(objects: &dyn Objects) -> Option<Self> {
        let text = std::fs::read(last_file(objects)?).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn note(&self, objects: &dyn Objects) -> std::io::Result<()> {
        let Some(file) = last_file(objects) else { return Ok(()) };
        let aside = file.with_extension("tmp");
        std::fs::write(&aside, serde_json::to_vec(self)?)?;
        std::fs::rename(aside, file)
    }

    fn manifests(&self) -> Result<Vec<String>, BuildError> {
        let mut names = Vec::new();
        for row in &self.dictionary {
            names.extend(manifest_files(&row.manifest)?);
        }
        Ok(names)
    }
}

fn last_file(objects: &dyn Objects) -> Option<PathBuf> {
    objects.has_copies().then(|| objects.root().with_file_name(LAST))
}

/// Maps all dictionaries and the served snapshot of every audience; fetches what is not here yet.
/// Reads every byte once. A snapshot that cannot be had or is damaged is left out and told in the
/// log: one bad file must not stop the node. If the object storage does not answer, what this node
/// mapped last is mapped again, from its local copies.
///
/// # Errors
/// [`BuildError`] if the ledger fails or a dictionary cannot be used.
pub async fn load_membership(
    objects: &Arc<dyn Objects>,
    ledger: &dyn Ledger,
    seed: HashSeed,
) -> Result<MembershipIndex, BuildError> {
    let before = Arc::new(MembershipIndex::empty(seed));
    let published = Published::read(ledger).await?;
    let loading = load(objects, published, Arc::clone(&before));
    let Some(last) = Published::last(&**objects) else { return Ok(loading.await?.index) };
    let why = match tokio::time::timeout(WARM_PATIENCE, loading).await {
        Ok(Ok(loaded)) => return Ok(loaded.index),
        Ok(Err(error)) if error.retry() == Retry::Never => return Err(error),
        Ok(Err(error)) => error.in_words(),
        Err(_) => format!("it does not answer within {WARM_PATIENCE:?}"),
    };
    tracing::warn!(why, "the object storage cannot be used; serving what this node served last");
    Ok(map(objects, last, before, Arc::default()).await?.0)
}

/// Maps what is published now and swaps it in, for lookups and for the node's own gate. Costs what
/// is new since the last time. Local copies that are of no more use give their room back. Whether
/// trying again may bring more: some of it could not be fetched, and what was there before stays.
///
/// # Errors
/// [`BuildError`], boxed; what was mapped before stays.
pub async fn reload_membership(
    ctx: &Arc<NodeContext>,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let _turn = RELOAD.lock().await;
    let before = ctx.membership.load_full();
    let published = Published::read(&*ctx.ledger).await?;
    let Loaded { index, more } = load(&ctx.objects, published, before).await?;
    let index = Arc::new(index);
    ctx.membership.store(Arc::clone(&index));
    ctx.gate.set_membership(index);
    Ok(more)
}

struct Loaded {
    index: MembershipIndex,
    /// Something could not be fetched that may come later.
    more: bool,
}

async fn load(
    objects: &Arc<dyn Objects>,
    published: Published,
    before: Arc<MembershipIndex>,
) -> Result<Loaded, BuildError> {
    for fetched in fetch_all(objects, published.manifests()?).await {
        fetched?;
    }
    let snapshots: Vec<String> = published.served.iter().map(|s| s.path.clone()).collect();
    let mut missing = HashMap::new();
    for (name, fetched) in snapshots.iter().zip(fetch_all(objects, snapshots.clone()).await) {
        if let Err(error) = fetched {
            missing.insert(name.clone(), error);
        }
    }
    let more = missing.values().any(|error| error.retry() != Retry::Never);
    let needed = published.manifests()?.into_iter().chain(snapshots).collect();
    let missing = Arc::new(missing);
    let mut mended = HashSet::new();
    let (index, damaged) = loop {
        let (published, before) = (published.clone(), Arc::clone(&before));
        let error = match map(objects, published, before, Arc::clone(&missing)).await {
            Ok(mapped) => break mapped,
            Err(error) => error,
        };
        // Part of a dictionary: nothing can be served without it.
        let damaged = match &error {
            BuildError::Membership(MembershipError::Damaged { path, .. }) => {
                path.strip_prefix(objects.root()).ok().and_then(Path::to_str)
            }
            _ => None,
        };
        match damaged {
            Some(name) if objects.has_copies() && mended.insert(name.to_owned()) => {
                fetch_again(objects, name).await;
            }
            _ => return Err(error),
        }
    };
    for name in &damaged {
        fetch_again(objects, name).await;
    }
    if !more
        && damaged.is_empty()
        && let Err(error) = published.note(&**objects)
    {
        tracing::warn!(%error, "what is served was not noted; a warm start may know less");
    }
    if let Err(error) = objects.trim(&needed).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "old copies were not removed");
    }
    Ok(Loaded { index, more: more || (!damaged.is_empty() && objects.has_copies()) })
}

/// Maps local files. An audience whose newest snapshot cannot be had keeps the one that was mapped
/// before. The snapshots whose files are damaged.
async fn map(
    objects: &Arc<dyn Objects>,
    published: Published,
    before: Arc<MembershipIndex>,
    missing: Arc<HashMap<String, ObjectsError>>,
) -> Result<(MembershipIndex, Vec<String>), BuildError> {
    let root = objects.root().to_owned();
    blocking(move || {
        let mut shards = vec![None; SHARD_COUNT];
        for row in published.dictionary {
            let open = match before.dictionary(row.shard) {
                Some(open) => open.reopen(&root, &row.manifest)?,
                None => ShardDictionary::open(&root, &row.manifest)?,
            };
            shards[usize::from(row.shard)] = Some(open);
        }
        let mut files = Vec::with_capacity(published.served.len());
        let mut damaged = Vec::new();
        for served in published.served {
            let tell = |error: &(dyn std::error::Error + 'static)| {
                let (audience, version) = (&served.audience, served.version);
                tracing::error!(%audience, version, error, "a published snapshot cannot be served");
            };
            let opened = match missing.get(&served.path) {
                Some(error) => {
                    tell(error);
                    None
                }
                None => match open(&root.join(&served.path), &served, &before, &shards) {
                    Ok(file) => Some(file),
                    Err(error) => {
                        tell(&error);
                        if matches!(error, BuildError::Membership(MembershipError::Damaged { .. }))
                        {
                            damaged.push(served.path.clone());
                        }
                        None
                    }
                },
            };
            if let Some(file) = opened.or_else(|| before.snapshot(&served.audience).cloned()) {
                files.push((served.audience, file));
            }
        }
        Ok((MembershipIndex::new(before.seed(), shards, files)?, damaged))
    })
    .await
}

/// Replaces a damaged file if it is a copy only: the object itself may be whole. The next reload
/// opens it again.
async fn fetch_again(objects: &Arc<dyn Objects>, name: &str) {
    if let Err(error) = objects.fetch_again(name).await {
        tracing::warn!(name, error = &error as &dyn std::error::Error, "a copy stays damaged");
    }
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
