//! Writes the backup of a data directory, in rounds: see the crate's documentation for the order.

use std::path::Path;

use throng_model::Timestamp;
use throng_store::StoreStamp;

use crate::archive::{self, BackupWriter};
use crate::error::BackupError;
use crate::files::{LEDGER, Progress, blocking};
use crate::manifest::Manifest;
use crate::source::{self, CapturedFiles, CopiedFiles};
use crate::stores::{LedgerFile, Stores};
use crate::target::check_backup;

/// Rounds before a backup fails. Another round is only needed if a snapshot was removed, or a spec
/// applied, during the previous one.
const MAX_ROUNDS: usize = 20;

/// Copies a data directory to `to`: a folder, or a single file if the name ends in `.tar` or
/// `.tar.zst`. It gets its name when it is complete and synced to the disk. The node of the
/// directory may run and write during the backup. Reads every byte once; secrets and keys are not
/// copied.
///
/// # Errors
/// [`BackupError`]; nothing is at `to` then.
pub async fn backup(
    stores: &dyn Stores,
    data_dir: &Path,
    to: &Path,
    now: Timestamp,
    progress: Progress,
) -> Result<Manifest, BackupError> {
    let path = data_dir.join(LEDGER);
    if !path.is_file() {
        return Err(BackupError::NoLedger { path });
    }
    check_backup(data_dir, to)?;
    let ledger = stores.attach_ledger(&path).await?;
    let written = write_backup(stores, &*ledger, data_dir, to, now, progress).await;
    // Closed without changes: the checksum file of a ledger that no node has open stays valid.
    let closed = ledger.rows().close().await;
    let manifest = written?;
    closed?;
    Ok(manifest)
}

async fn write_backup(
    stores: &dyn Stores,
    ledger: &dyn LedgerFile,
    data_dir: &Path,
    to: &Path,
    now: Timestamp,
    progress: Progress,
) -> Result<Manifest, BackupError> {
    source::refuse_shared(ledger.rows().applied_spec().await?)?;
    let (target, staging) = (to.to_owned(), archive::staging_path(to));
    let mut writer = blocking(move || BackupWriter::create(&target)).await?;
    let result = async move {
        let mut copied = CopiedFiles::new(data_dir, progress);
        for _ in 0..MAX_ROUNDS {
            let copy = staging.join(LEDGER);
            source::remove(&copy)?;
            ledger.copy_to(&copy).await?;
            let named = read_copy(stores, &copy).await?;
            let (returned, complete) = {
                let names = named.names.clone();
                blocking(move || {
                    let complete = copied.objects(&mut writer, &names)?;
                    Ok(((copied, writer), complete))
                })
                .await?
            };
            (copied, writer) = returned;
            if !complete {
                continue;
            }
            let dir = data_dir.to_owned();
            let Some(captured) = blocking(move || CapturedFiles::open(&dir)).await? else {
                continue;
            };
            if ledger.rows().applied_version().await? != named.spec_version {
                continue;
            }
            let ranges = captured.ranges.clone();
            let manifest = Manifest::new(now, named.stamp, named.spec_version, ranges);
            return blocking(move || {
                copied.rest(&mut writer, &copy, captured)?;
                writer.finish(manifest, copied.entries)
            })
            .await;
        }
        Err(BackupError::Changing { rounds: MAX_ROUNDS })
    }
    .await;
    // Also after an error: an incomplete backup must not be mistaken for a complete one.
    archive::remove_temporary_files(to);
    result
}

/// The references of a copy of the ledger.
struct LedgerCopy {
    names: Vec<String>,
    spec_version: Option<u64>,
    stamp: Option<StoreStamp>,
}

async fn read_copy(stores: &dyn Stores, path: &Path) -> Result<LedgerCopy, BackupError> {
    let copy = stores.attach_ledger(path).await?;
    let rows = copy.rows();
    let read = async {
        let named = rows.referenced_objects().await?;
        let mut names: Vec<String> = named.objects.into_iter().map(|object| object.name).collect();
        for manifest in &named.manifests {
            let files = throng_membership::manifest_files(manifest);
            names.extend(files.map_err(|error| BackupError::Dictionary { source: error.into() })?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(LedgerCopy {
            names,
            spec_version: rows.applied_version().await?,
            stamp: rows.stamp().await?,
        })
    }
    .await;
    rows.close().await?;
    read
}
