//! Backup and restore of a data directory: ledger, objects, checkpoints and event log of one node
//! with local storage, also while it runs.
//!
//! **Order.** The ledger is copied first, as one consistent state; then the objects that this copy
//! names; then the checkpoints are opened, then the log. So
//! * no object is missing that the copied ledger names: if retention removes one in between,
//!   another round starts with a newer copy of the ledger;
//! * no checkpoint is ahead of the copied log: the events of a checkpoint were in the log before
//!   the checkpoint was written, and the log is read after it;
//! * the log begins at or before every checkpoint: this is checked, and another round starts if
//!   retention has removed events since the checkpoint was opened;
//! * events were accepted under the spec in the copied ledger: the applied version is compared
//!   after the log was opened, and another round starts if another spec was applied.
//!
//! Files that were opened are read through their handles: a checkpoint that is replaced or a
//! segment that is deleted in the meantime stays readable. The log's last segment is copied up to
//! its length when it was opened; a record that was being written then is a torn write, which was
//! not acknowledged, and is cut off at the next start.

mod archive;
mod error;
mod manifest;
mod restore;
mod source;

use std::path::Path;
use std::sync::Arc;

use throng_ledger::SqliteLedger;
use throng_model::Timestamp;
use throng_store::{MaintenanceLedger as _, SpecLedger as _};

use archive::BackupWriter;
pub use error::BackupError;
pub use manifest::{FileEntry, Manifest, PartitionRange};
pub use restore::restore;
use source::{CapturedFiles, CopiedFiles};

/// Rounds before a backup fails. Another round is only needed if a snapshot was removed, or a spec
/// applied, during the previous one.
const MAX_ROUNDS: usize = 20;

/// Reports the progress of a backup or a restore, in bytes: done and, as far as known, in total.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// The names in a backup.
const LEDGER: &str = "ledger.db";
const OBJECTS: &str = "objects";
const LOG: &str = "log";

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { doing, path, source }
}

/// Runs file I/O on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| BackupError::Cancelled)?
}

/// Copies a data directory to `to`: a folder, or a single file if the name ends in `.tar` or
/// `.tar.zst`. It gets its name when it is complete and synced to the disk. The node of the
/// directory may run and write during the backup. Reads every byte once; secrets and keys are not
/// copied.
///
/// # Errors
/// [`BackupError`]; nothing is at `to` then.
pub async fn backup(
    data_dir: &Path,
    to: &Path,
    now: Timestamp,
    progress: Progress,
) -> Result<Manifest, BackupError> {
    let path = data_dir.join(LEDGER);
    if !path.is_file() {
        return Err(BackupError::NoLedger { path });
    }
    let ledger = SqliteLedger::attach(&path).await?;
    let written = write_backup(data_dir, to, now, progress, &ledger).await;
    // Closed without changes: the checksum file of a ledger that no node has open stays valid.
    let closed = ledger.close().await;
    let manifest = written?;
    closed?;
    Ok(manifest)
}

async fn write_backup(
    data_dir: &Path,
    to: &Path,
    now: Timestamp,
    progress: Progress,
    ledger: &SqliteLedger,
) -> Result<Manifest, BackupError> {
    source::refuse_shared(ledger.applied_spec().await?)?;
    let (target, staging) = (to.to_owned(), archive::staging_path(to));
    let mut writer = blocking(move || BackupWriter::create(&target)).await?;
    let result = async move {
        let mut copied = CopiedFiles::new(data_dir, progress);
        for _ in 0..MAX_ROUNDS {
            let copy = staging.join(LEDGER);
            source::remove(&copy)?;
            ledger.copy_to(&copy).await?;
            let named = read_copy(&copy).await?;
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
            if ledger.applied_version().await? != named.spec_version {
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
    stamp: Option<throng_store::StoreStamp>,
}

async fn read_copy(path: &Path) -> Result<LedgerCopy, BackupError> {
    let copy = SqliteLedger::attach(path).await?;
    let read = async {
        let named = copy.referenced_objects().await?;
        let mut names: Vec<String> = named.objects.into_iter().map(|object| object.name).collect();
        for manifest in &named.manifests {
            let files = throng_membership::manifest_files(manifest);
            names.extend(files.map_err(|error| BackupError::Dictionary { source: error.into() })?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(LedgerCopy {
            names,
            spec_version: copy.applied_version().await?,
            stamp: copy.stamp().await?,
        })
    }
    .await;
    copy.close().await?;
    read
}
