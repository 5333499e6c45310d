//! What is published, mapped for lookups.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use throng_membership::{
    MembershipError, MembershipIndex, ShardDictionary, SnapshotFile, manifest_files, seed_check,
};
use throng_model::{AudienceName, HashSeed, Retry, SHARD_COUNT};
use throng_objects::Objects;
use throng_spec::Spec;
use throng_store::{DictionaryShard, Ledger, Snapshot, SnapshotState};

use super::error::BuildError;
use super::snapshots::open_snapshot;
use super::{damage, dictionaries};
use crate::NodeContext;

/// Objects fetched and opened at the same time.
const FETCHES: usize = 16;

/// One reload at a time: else one that read the ledger earlier could store its index later.
pub(super) static RELOAD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How long a node that could start from its local copies waits for what is new.
const WARM_PATIENCE: Duration = Duration::from_secs(10);
/// What was mapped last, below the folder of the local copies' own.
const LAST: &str = "membership.json";

/// The audiences of the spec: others are not served.
pub(crate) fn declared(spec: &Spec) -> HashSet<&AudienceName> {
    spec.audiences.iter().map(|audience| &audience.name).collect()
}

/// What is published.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Published {
    dictionary: Vec<DictionaryShard>,
    served: Vec<Snapshot>,
}

impl Published {
    /// As the ledger has it now. An audience that the spec does not declare is not served.
    async fn read(ledger: &dyn Ledger, spec: &Spec) -> Result<Self, BuildError> {
        // In this order no snapshot is ahead of the dictionaries.
        let audiences = ledger.audiences().await?;
        let dictionary = ledger.dictionary().await?;
        let declared = declared(spec);
        let served = audiences.into_iter().filter(|row| declared.contains(&row.name));
        Ok(Self { dictionary, served: served.filter_map(|row| row.current).collect() })
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

/// What is not served as it was published.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// A dictionary cannot be used as the ledger has it.
    Dictionary {
        /// Its user shard.
        shard: u8,
        /// Why, and what is done about it.
        detail: String,
    },
    /// A snapshot cannot be used.
    Snapshot {
        /// What is published.
        published: Box<Snapshot>,
        /// Its file is damaged, not only out of reach.
        damaged: bool,
        /// Why, and what is done about it.
        detail: String,
    },
}

/// What is open, and what could not be opened.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// For lookups.
    pub(crate) index: MembershipIndex,
    /// What is not served as it was published.
    pub(crate) faults: Vec<Fault>,
    /// Something could not be fetched that may come in a moment.
    more: bool,
}

/// Opens all dictionaries and the served snapshot of every audience of the spec; fetches what is not here yet.
/// Reads every byte once. A file that cannot be had, is damaged or is not the one that the ledger
/// names is left out, an older version takes its place if there is one, and [`Loaded::faults`] says
/// so: one bad file must not stop the node. If the object storage does not answer, what this node
/// served last is opened again, from its local copies.
///
/// # Errors
/// [`BuildError`] if the ledger fails, or the object storage where nothing was served before.
pub(crate) async fn load_membership(
    objects: &Arc<dyn Objects>,
    ledger: &dyn Ledger,
    seed: HashSeed,
    spec: &Spec,
) -> Result<Loaded, BuildError> {
    let before = MembershipIndex::empty(seed);
    let published = Published::read(ledger, spec).await?;
    let loading = load(objects, ledger, published, &before);
    let Some(last) = Published::last(&**objects) else { return loading.await };
    let why = match tokio::time::timeout(WARM_PATIENCE, loading).await {
        Ok(Ok(loaded)) => return Ok(loaded),
        Ok(Err(error)) if error.retry() == Retry::Never => return Err(error),
        Ok(Err(error)) => error.in_words(),
        Err(_) => format!("it does not answer within {WARM_PATIENCE:?}"),
    };
    tracing::warn!(why, "the object storage cannot be used; serving what this node served last");
    let mut loaded = open_all(objects, ledger, &last, &before).await?;
    loaded.more = true;
    Ok(loaded)
}

/// Opens what is published now and swaps it in, for lookups and for the node's own gate; reports
/// what cannot be served. Costs what is new since the last time. Local copies that are of no more
/// use give their room back. After how long trying again may bring more, if it may: some of it could
/// not be fetched or is damaged, and what was there before stays.
///
/// # Errors
/// [`BuildError`], boxed; what was served before stays.
pub async fn reload_membership(
    ctx: &Arc<NodeContext>,
) -> Result<Option<Duration>, Box<dyn std::error::Error + Send + Sync>> {
    let _turn = RELOAD.lock().await;
    let before = ctx.membership.load_full();
    let published = Published::read(&*ctx.ledger, &ctx.spec.load_full()).await?;
    let Loaded { index, faults, more } =
        load(&ctx.objects, &*ctx.ledger, published, &before).await?;
    let index = Arc::new(index);
    ctx.membership.store(Arc::clone(&index));
    ctx.gate.set_membership(index);
    let again = match (more, faults.is_empty()) {
        (true, _) => Some(damage::UNREACHABLE_RETRY_DELAY),
        (false, false) => Some(damage::DAMAGED_RETRY_DELAY),
        (false, true) => None,
    };
    damage::report(ctx, &faults).await;
    Ok(again)
}

async fn load(
    objects: &Arc<dyn Objects>,
    ledger: &dyn Ledger,
    published: Published,
    before: &MembershipIndex,
) -> Result<Loaded, BuildError> {
    let loaded = open_all(objects, ledger, &published, before).await?;
    if loaded.faults.is_empty()
        && let Err(error) = published.note(&**objects)
    {
        tracing::warn!(%error, "what is served was not noted; a warm start may know less");
    }
    let mut needed: HashSet<String> =
        published.manifests().unwrap_or_default().into_iter().collect();
    needed.extend(published.served.into_iter().map(|snapshot| snapshot.path));
    if let Err(error) = objects.evict(&needed).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "old copies were not removed");
    }
    Ok(loaded)
}

/// An audience whose newest snapshot cannot be had keeps the one that was open before, or gets the
/// newest older one that can be.
async fn open_all(
    objects: &Arc<dyn Objects>,
    ledger: &dyn Ledger,
    published: &Published,
    before: &MembershipIndex,
) -> Result<Loaded, BuildError> {
    let mut faults = Vec::new();
    let shards = open_dictionaries(objects, published, before, &mut faults).await?;
    let known = &shards;
    let opening = futures::stream::iter(published.served.clone()).map(|served| async move {
        let opened = open_served(objects, known, &served, before).await;
        (served, opened)
    });
    let opened: Vec<_> = opening.buffered(FETCHES).collect().await;
    let mut files = Vec::with_capacity(opened.len());
    let (mut not_served, mut more) = (Vec::new(), false);
    for (served, opened) in opened {
        let name = &served.audience;
        let error = match opened {
            Ok(file) => {
                files.push((name.clone(), file));
                continue;
            }
            Err(error) => error,
        };
        more |= error.retry() != Retry::Never;
        let kept = match before.snapshot(name) {
            // The one that is called damaged here and now may be the one that is in use.
            Some(open) if fits(open, before.seed(), &shards) => Some(Arc::clone(open)),
            _ => last_good(objects, ledger, &shards, &served, before).await,
        };
        let instead = kept.as_ref().map(|file| file.meta().version);
        match kept {
            Some(file) => files.push((name.clone(), file)),
            None => not_served.push(name.clone()),
        }
        faults.push(fault_of(&served, &error, instead));
    }
    let index = MembershipIndex::new(before.seed(), shards, files)?.with_missing(not_served);
    Ok(Loaded { index, faults, more })
}

fn fault_of(served: &Snapshot, error: &BuildError, instead: Option<u64>) -> Fault {
    let (version, why) = (served.version, error.in_words());
    let consequence = match instead {
        Some(instead) if instead == version => "it is still served from memory".to_owned(),
        Some(instead) => format!("version {instead} is served in its place"),
        None => "nobody is told to be in the audience until another version is built".to_owned(),
    };
    let detail = format!("version {version} cannot be used: {why}; {consequence}");
    let (published, damaged) = (Box::new(served.clone()), is_damage(error));
    Fault::Snapshot { published, damaged, detail }
}

/// The dictionaries by shard. One that cannot be used stays as it was before: what it knew then is
/// still right, and snapshots that need more of it are told apart by its length.
async fn open_dictionaries(
    objects: &Arc<dyn Objects>,
    published: &Published,
    before: &MembershipIndex,
    faults: &mut Vec<Fault>,
) -> Result<Vec<Option<ShardDictionary>>, BuildError> {
    let opening = futures::stream::iter(published.dictionary.clone()).map(|row| async move {
        let open = before.dictionary(row.shard).cloned().unwrap_or_default();
        match dictionaries::open(objects, open, &row.manifest).await {
            Ok(open) => Ok((row.shard, Ok(open))),
            Err(error) if is_damage(&error) => Ok((row.shard, Err(error))),
            Err(error) => Err(error),
        }
    });
    let opened: Vec<_> = opening.buffered(FETCHES).try_collect().await?;
    let mut shards = vec![None; SHARD_COUNT];
    for (shard, opened) in opened {
        shards[usize::from(shard)] = match opened {
            Ok(open) => Some(open),
            Err(error) => {
                let detail = format!(
                    "the dictionary of user shard {shard} cannot be used: {}; snapshots that need \
                     it are not served",
                    error.in_words()
                );
                faults.push(Fault::Dictionary { shard, detail });
                before.dictionary(shard).cloned()
            }
        };
    }
    Ok(shards)
}

/// The snapshot that the ledger names, and no other.
async fn open_served(
    objects: &Arc<dyn Objects>,
    shards: &[Option<ShardDictionary>],
    served: &Snapshot,
    before: &MembershipIndex,
) -> Result<Arc<SnapshotFile>, BuildError> {
    // Versions are never used twice, so the same version is the same file.
    let open = before.snapshot(&served.audience);
    let file = match open.filter(|open| open.meta().version == served.version) {
        Some(open) => Arc::clone(open),
        None => Arc::new(open_snapshot(objects, served).await?),
    };
    check_fits(&file, before.seed(), shards)?;
    Ok(file)
}

/// The newest published version below `served` that can be used.
async fn last_good(
    objects: &Arc<dyn Objects>,
    ledger: &dyn Ledger,
    shards: &[Option<ShardDictionary>],
    served: &Snapshot,
    before: &MembershipIndex,
) -> Option<Arc<SnapshotFile>> {
    let mut kept = ledger.snapshots(&served.audience).await.ok()?;
    kept.retain(|s| s.state == SnapshotState::Published && s.version < served.version);
    kept.sort_unstable_by_key(|snapshot| std::cmp::Reverse(snapshot.version));
    for snapshot in kept {
        let opened = open_snapshot(objects, &snapshot).await;
        if let Ok(file) = opened.map(Arc::new)
            && fits(&file, before.seed(), shards)
        {
            return Some(file);
        }
    }
    None
}

fn fits(file: &SnapshotFile, seed: HashSeed, shards: &[Option<ShardDictionary>]) -> bool {
    check_fits(file, seed, shards).is_ok()
}

/// Whether a snapshot is of this deployment and the dictionaries know every user in it.
fn check_fits(
    file: &SnapshotFile,
    seed: HashSeed,
    shards: &[Option<ShardDictionary>],
) -> Result<(), MembershipError> {
    let audience = || -> AudienceName { file.meta().audience.clone() };
    if file.meta().seed_check != seed_check(seed) {
        return Err(MembershipError::OtherSeed { audience: audience() });
    }
    for (shard, (dictionary, needs)) in shards.iter().zip(&file.meta().dictionary_len).enumerate() {
        let has = dictionary.as_ref().map_or(0, ShardDictionary::len);
        if has < *needs {
            let (audience, shard, needs) = (audience(), shard as u8, *needs);
            return Err(MembershipError::DictionaryTooOld { audience, shard, has, needs });
        }
    }
    Ok(())
}

/// Whether a file is not what was written, or is gone: trying again alone does not help.
fn is_damage(error: &BuildError) -> bool {
    match error {
        BuildError::Membership(error) => matches!(
            error,
            MembershipError::Damaged { .. }
                | MembershipError::Manifest { .. }
                | MembershipError::OtherSeed { .. }
        ),
        BuildError::Objects(error) => error.retry() == Retry::Never,
        _ => false,
    }
}
