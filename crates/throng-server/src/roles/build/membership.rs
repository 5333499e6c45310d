//! What is published, mapped for lookups.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use throng_ledger::{Ledger, Snapshot};
use throng_membership::{MembershipError, MembershipIndex, ShardDictionary, SnapshotFile};
use throng_model::{HashSeed, SHARD_COUNT};

use super::error::{BuildError, blocking};
use crate::NodeContext;

/// One reload at a time: else one that read the ledger earlier could store its index later.
static RELOAD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Maps all dictionaries and the served snapshot of every audience. `objects` is the folder of that
/// name in the data directory. Reads every byte once. A snapshot that is damaged is left out and
/// told in the log: one bad file must not stop the node.
///
/// # Errors
/// [`BuildError`] if the ledger fails or a dictionary cannot be used.
pub async fn load_membership(
    objects: &Path,
    ledger: &dyn Ledger,
    seed: HashSeed,
) -> Result<MembershipIndex, BuildError> {
    let data_dir = objects.parent().unwrap_or(objects).to_owned();
    load(data_dir, ledger, Arc::new(MembershipIndex::empty(seed))).await
}

/// Maps what is published now and swaps it in, for lookups and for the node's own gate. Costs what
/// is new since the last time.
///
/// # Errors
/// [`BuildError`], boxed; what was mapped before stays.
pub async fn reload_membership(
    ctx: &Arc<NodeContext>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let _turn = RELOAD.lock().await;
    let before = ctx.membership.load_full();
    let index = Arc::new(load(ctx.data_dir.clone(), &*ctx.ledger, before).await?);
    ctx.membership.store(Arc::clone(&index));
    ctx.gate.set_membership(index);
    Ok(())
}

async fn load(
    data_dir: PathBuf,
    ledger: &dyn Ledger,
    before: Arc<MembershipIndex>,
) -> Result<MembershipIndex, BuildError> {
    // In this order no snapshot is ahead of the dictionaries.
    let audiences = ledger.audiences().await?;
    let dictionary = ledger.dictionary().await?;
    blocking(move || {
        let objects = data_dir.join("objects");
        let mut shards = vec![None; SHARD_COUNT];
        for row in dictionary {
            let open = match before.dictionary(row.shard) {
                Some(open) => open.reopen(&objects, &row.manifest)?,
                None => ShardDictionary::open(&objects, &row.manifest)?,
            };
            shards[usize::from(row.shard)] = Some(open);
        }
        let mut files = Vec::with_capacity(audiences.len());
        for served in audiences.into_iter().filter_map(|row| row.current) {
            match open(&data_dir, &served, &before, &shards) {
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
    .await
}

fn open(
    data_dir: &Path,
    served: &Snapshot,
    before: &MembershipIndex,
    shards: &[Option<ShardDictionary>],
) -> Result<Arc<SnapshotFile>, MembershipError> {
    // Versions are never used twice, so the same version is the same file.
    if let Some(open) = before.snapshot(&served.audience)
        && open.meta().version == served.version
    {
        return Ok(Arc::clone(open));
    }
    let file = SnapshotFile::open(&data_dir.join(&served.path))?;
    for (shard, (dictionary, needs)) in shards.iter().zip(&file.meta().dictionary_len).enumerate() {
        let has = dictionary.as_ref().map_or(0, ShardDictionary::len);
        if has < *needs {
            let (audience, shard, needs) = (served.audience.clone(), shard as u8, *needs);
            return Err(MembershipError::DictionaryTooOld { audience, shard, has, needs });
        }
    }
    Ok(Arc::new(file))
}
