//! Loads the published snapshots and dictionaries for lookups.

use std::collections::{HashMap, HashSet};
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

use super::error::RefreshError;
use super::faults::ServingFault;
use super::snapshots::open_snapshot;
use super::{damage, dictionaries};
use crate::RefreshContext;

/// Objects that are downloaded and opened at the same time.
const FETCHES: usize = 16;

/// How long a node that has local copies waits at its start for the object storage.
const WARM_START_TIMEOUT: Duration = Duration::from_secs(10);
/// The file that names what was served last, beside the folder of the local copies.
const LAST_SERVED_FILE: &str = "membership.json";

/// The names of the spec's audiences; others are not served.
pub fn declared_audiences(spec: &Spec) -> HashSet<&AudienceName> {
    spec.audiences.iter().map(|audience| &audience.name).collect()
}

/// What is published, as the ledger has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Published {
    dictionary: Vec<DictionaryShard>,
    served: Vec<Snapshot>,
}

impl Published {
    /// Reads it from the ledger, for the audiences of the spec. `known`: what an earlier call returned, empty at first;
    /// only the rows of versions that are new since then are read.
    async fn read(
        ledger: &dyn Ledger,
        spec: &Spec,
        known: &[Snapshot],
    ) -> Result<Self, RefreshError> {
        let declared = declared_audiences(spec);
        // A version number is never used twice, and what the row of a version says of its file does not change.
        let known: HashMap<(&AudienceName, u64), &Snapshot> =
            known.iter().map(|row| ((&row.audience, row.version), row)).collect();
        let (mut served, mut unknown) = (Vec::new(), Vec::new());
        // Snapshots first: a dictionary only grows, so the one that is read later has every user of
        // the snapshot. In the other order a snapshot could have users that the dictionary lacks.
        for (name, version) in ledger.served_versions().await? {
            match known.get(&(&name, version)) {
                _ if !declared.contains(&name) => {}
                Some(row) => served.push((*row).clone()),
                None => unknown.push(name),
            }
        }
        let bases = ledger.snapshot_bases(&unknown).await?;
        served.extend(bases.into_iter().filter_map(|base| base.current));
        served.sort_unstable_by(|a, b| a.audience.cmp(&b.audience));
        let dictionary = ledger.dictionary().await?;
        Ok(Self { dictionary, served })
    }

    /// What this node served last, if its objects are local copies.
    fn read_last(objects: &dyn Objects) -> Option<Self> {
        // A file that is missing or damaged counts as none: then the node waits for the object
        // storage.
        let text = throng_fs::read(&last_served_file(objects)?).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write_last(&self, objects: &dyn Objects) -> std::io::Result<()> {
        let Some(file) = last_served_file(objects) else { return Ok(()) };
        // Renamed when it is complete: a crash during the write leaves the last list.
        let temporary = file.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(temporary, file)
    }

    /// The names of all segments of the dictionaries.
    fn segment_files(&self) -> Result<Vec<String>, RefreshError> {
        let mut names = Vec::new();
        for row in &self.dictionary {
            names.extend(manifest_files(&row.manifest)?);
        }
        Ok(names)
    }
}

fn last_served_file(objects: &dyn Objects) -> Option<PathBuf> {
    objects.has_copies().then(|| objects.root().with_file_name(LAST_SERVED_FILE))
}

/// The index for lookups, and what could not be opened.
#[derive(Debug)]
pub struct Loaded {
    /// The index.
    pub index: MembershipIndex,
    /// What is not served as it was published.
    pub faults: Vec<ServingFault>,
    /// Whether another try soon may succeed for some of it: the object storage did not answer.
    retryable: bool,
}

/// Opens all dictionaries and the published snapshot of every audience of the spec, and downloads
/// what is missing. Reads every byte once. A file that cannot be read, is damaged or is not the one
/// that the ledger names is left out, an older version replaces it if there is one, and
/// [`Loaded::faults`] has it: one bad file must not stop the node. If the object storage does not
/// answer, the node opens what it served last, from its local copies.
///
/// # Errors
/// [`RefreshError`] of the ledger, or of the object storage if this node has not served anything
/// before.
pub async fn load_membership(
    objects: &Arc<dyn Objects>,
    ledger: &dyn Ledger,
    seed: HashSeed,
    spec: &Spec,
) -> Result<Loaded, RefreshError> {
    let empty = MembershipIndex::empty(seed);
    let published = Published::read(ledger, spec, &[]).await?;
    let loading = load(objects, ledger, published, &empty);
    let Some(last) = Published::read_last(&**objects) else { return loading.await };
    let why = match tokio::time::timeout(WARM_START_TIMEOUT, loading).await {
        Ok(Ok(loaded)) => return Ok(loaded),
        // Waiting does not help against it, and older copies would hide it.
        Ok(Err(error)) if error.retry() == Retry::Never => return Err(error),
        Ok(Err(error)) => error.describe(),
        Err(_) => format!("it does not answer within {WARM_START_TIMEOUT:?}"),
    };
    tracing::warn!(reason = why, "object storage is not available, serving local copies");
    let mut loaded = open_all(objects, ledger, &last, &empty).await?;
    loaded.retryable = true;
    Ok(loaded)
}

/// Opens what is published now, swaps the index and gives it to the observer;
/// reports what cannot be served, and evicts local copies that are no longer used. Reads only what
/// is new since the last load. Returns the delay after which another try may load more, if
/// something could not be downloaded or is damaged; the version that was served before stays until
/// then.
///
/// # Errors
/// [`RefreshError`]; the index stays as it was.
pub async fn reload_membership(
    ctx: &Arc<RefreshContext>,
) -> Result<Option<Duration>, RefreshError> {
    let mut known = ctx.served_rows.lock().await;
    let previous = ctx.membership.load_full();
    let published = Published::read(&*ctx.ledger, &ctx.spec.load_full(), &known).await?;
    known.clone_from(&published.served);
    let Loaded { index, faults, retryable } =
        load(&ctx.objects, &*ctx.ledger, published, &previous).await?;
    let index = Arc::new(index);
    ctx.membership.store(Arc::clone(&index));
    ctx.observer.membership_loaded(&index);
    let retry_delay = match (retryable, faults.is_empty()) {
        (true, _) => Some(damage::UNREACHABLE_RETRY_DELAY),
        (false, false) => Some(damage::DAMAGED_RETRY_DELAY),
        (false, true) => None,
    };
    damage::report_faults(ctx, &faults).await;
    Ok(retry_delay)
}

async fn load(
    objects: &Arc<dyn Objects>,
    ledger: &dyn Ledger,
    published: Published,
    previous: &MembershipIndex,
) -> Result<Loaded, RefreshError> {
    let loaded = open_all(objects, ledger, &published, previous).await?;
    // Only what could be opened completely: a start without the object storage opens these files
    // and no others.
    if loaded.faults.is_empty()
        && let Err(error) = published.write_last(&**objects)
    {
        tracing::warn!(%error, "failed to record what is served");
    }
    let mut needed: HashSet<String> =
        published.segment_files().unwrap_or_default().into_iter().collect();
    needed.extend(published.served.into_iter().map(|snapshot| snapshot.path));
    if let Err(error) = objects.evict(&needed).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "failed to evict local copies");
    }
    Ok(loaded)
}

/// Opens everything that is published. An audience whose newest snapshot cannot be opened keeps the
/// one that is open in `previous`, or gets the newest older one that can be opened.
async fn open_all(
    objects: &Arc<dyn Objects>,
    ledger: &dyn Ledger,
    published: &Published,
    previous: &MembershipIndex,
) -> Result<Loaded, RefreshError> {
    let mut faults = Vec::new();
    let shards = open_dictionaries(objects, published, previous, &mut faults).await?;
    let dictionaries = &shards;
    let opening = futures::stream::iter(published.served.clone()).map(|served| async move {
        let opened = open_published(objects, dictionaries, &served, previous).await;
        (served, opened)
    });
    let opened: Vec<_> = opening.buffered(FETCHES).collect().await;
    let mut files = Vec::with_capacity(opened.len());
    let (mut not_served, mut retryable) = (Vec::new(), false);
    for (served, opened) in opened {
        let name = &served.audience;
        let error = match opened {
            Ok(file) => {
                files.push((name.clone(), file));
                continue;
            }
            Err(error) => error,
        };
        retryable |= error.retry() != Retry::Never;
        let fallback = match previous.snapshot(name) {
            // It may be the version that is damaged on the disk now: its mapped bytes are still
            // whole.
            Some(open) if matches(open, previous.seed(), &shards) => Some(Arc::clone(open)),
            _ => newest_usable(objects, ledger, &shards, &served, previous).await,
        };
        let served_version = fallback.as_ref().map(|file| file.meta().version);
        match fallback {
            Some(file) => files.push((name.clone(), file)),
            None => not_served.push(name.clone()),
        }
        faults.push(fault_of(&served, &error, served_version));
    }
    let index = MembershipIndex::new(previous.seed(), shards, files)?.with_missing(not_served);
    Ok(Loaded { index, faults, retryable })
}

fn fault_of(served: &Snapshot, error: &RefreshError, served_version: Option<u64>) -> ServingFault {
    let (version, why) = (served.version, error.describe());
    let consequence = match served_version {
        Some(served) if served == version => "it is still served from memory".to_owned(),
        Some(served) => format!("version {served} is served in its place"),
        None => "lookups report the audience as unknown until another version is built".to_owned(),
    };
    let detail = format!("version {version} cannot be used: {why}; {consequence}");
    let (published, damaged) = (Box::new(served.clone()), is_damage(error));
    ServingFault::Snapshot { published, damaged, detail }
}

/// The dictionaries by shard. One that cannot be opened stays as it was before. That is safe: its
/// ordinals never change, and a snapshot that needs later ones is refused because the dictionary is
/// too short.
async fn open_dictionaries(
    objects: &Arc<dyn Objects>,
    published: &Published,
    previous: &MembershipIndex,
    faults: &mut Vec<ServingFault>,
) -> Result<Vec<Option<ShardDictionary>>, RefreshError> {
    let opening = futures::stream::iter(published.dictionary.clone()).map(|row| async move {
        let open = previous.dictionary(row.shard).cloned().unwrap_or_default();
        match dictionaries::open(objects, open, &row.manifest).await {
            Ok(open) => Ok((row.shard, Ok(open))),
            Err(error) if is_damage(&error) => Ok((row.shard, Err(error))),
            // It may go away: with an older dictionary snapshots would be refused although nothing
            // is damaged.
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
                    error.describe()
                );
                faults.push(ServingFault::Dictionary { shard, detail });
                previous.dictionary(shard).cloned()
            }
        };
    }
    Ok(shards)
}

/// Opens the snapshot that the ledger names, or takes it from `previous`.
async fn open_published(
    objects: &Arc<dyn Objects>,
    shards: &[Option<ShardDictionary>],
    served: &Snapshot,
    previous: &MembershipIndex,
) -> Result<Arc<SnapshotFile>, RefreshError> {
    // A version number is never used twice, so the same version is the same file.
    let open = previous.snapshot(&served.audience);
    let file = match open.filter(|open| open.meta().version == served.version) {
        Some(open) => Arc::clone(open),
        None => Arc::new(open_snapshot(objects, served).await?),
    };
    check_matches(&file, previous.seed(), shards)?;
    Ok(file)
}

/// The newest published version before `served` that can be opened.
async fn newest_usable(
    objects: &Arc<dyn Objects>,
    ledger: &dyn Ledger,
    shards: &[Option<ShardDictionary>],
    served: &Snapshot,
    previous: &MembershipIndex,
) -> Option<Arc<SnapshotFile>> {
    let mut kept = ledger.snapshots(&served.audience).await.ok()?;
    // Never a held one, which nobody has approved, and never a newer one, which a rollback has
    // replaced.
    kept.retain(|s| s.state == SnapshotState::Published && s.version < served.version);
    kept.sort_unstable_by_key(|snapshot| std::cmp::Reverse(snapshot.version));
    for snapshot in kept {
        let opened = open_snapshot(objects, &snapshot).await;
        if let Ok(file) = opened.map(Arc::new)
            && matches(&file, previous.seed(), shards)
        {
            return Some(file);
        }
    }
    None
}

fn matches(file: &SnapshotFile, seed: HashSeed, shards: &[Option<ShardDictionary>]) -> bool {
    check_matches(file, seed, shards).is_ok()
}

/// Refuses a snapshot of another deployment, and one with users that the dictionaries lack: their
/// ordinals would be given to other users later.
fn check_matches(
    file: &SnapshotFile,
    seed: HashSeed,
    shards: &[Option<ShardDictionary>],
) -> Result<(), MembershipError> {
    let audience = || -> AudienceName { file.meta().audience.clone() };
    // Of another deployment: its ordinals are those of another dictionary, so lookups would find
    // other users.
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

/// Whether a file is not what was written, or is missing: another try alone does not help.
fn is_damage(error: &RefreshError) -> bool {
    match error {
        RefreshError::Membership(error) => matches!(
            error,
            MembershipError::Damaged { .. }
                | MembershipError::Manifest { .. }
                | MembershipError::OtherSeed { .. }
        ),
        RefreshError::Objects(error) => error.retry() == Retry::Never,
        _ => false,
    }
}
