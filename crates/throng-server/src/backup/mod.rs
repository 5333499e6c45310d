//! Backup and restore of a data directory: ledger, objects, checkpoints and event log of one node
//! with local storage, also while it runs.
//!
//! **Order.** The ledger is copied first, as one consistent state; then the objects that this copy
//! names; then the checkpoints are opened, then the log. So
//! * no object is missing that the copied ledger names: one that was removed in between (retention)
//!   starts the round again with a newer copy of the ledger;
//! * no checkpoint is ahead of the copied log: what a checkpoint counts was in the log before the
//!   checkpoint was written, and the log is read after it;
//! * the log begins at or before every checkpoint: this is compared, and the round begins again where
//!   retention was faster;
//! * events came under the spec that the copied ledger holds: the applied version is compared after
//!   the log was opened, and the round begins again if another one was applied.
//!
//! Files that were opened are read through their handles: a checkpoint that is replaced or a segment
//! that is deleted meanwhile stays readable. Of the log's last segment as much is copied as it had
//! when it was opened; a record that was being written then is the torn end of a log, which was not
//! acknowledged.

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

use archive::Sink;
pub use error::BackupError;
pub use manifest::{FileEntry, Manifest, PartitionRange};
pub use restore::restore;
use source::{Captured, Round};

/// Rounds that are begun before a backup gives up: each needs a snapshot to be removed, or a spec
/// to be applied, while the round before was copied.
const ROUNDS: usize = 20;

/// How far a backup or a restore is, in bytes: done and, as far as known, in total.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// The names in a backup.
const LEDGER: &str = "ledger.db";
const OBJECTS: &str = "objects";
const LOG: &str = "log";

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { doing, path, source }
}

/// Runs what reads and writes files on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| BackupError::Cancelled)?
}

/// Copies a data directory to `to`: a folder, or a single file if the name ends in `.tar` or
/// `.tar.zst`. It appears under its name when it is complete and on disk. The node of the directory
/// may run and write meanwhile. Reads every byte once; secrets and keys are not copied.
///
/// # Errors
/// [`BackupError`]; nothing lies at `to` then.
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
    let made = make(data_dir, to, now, progress, &ledger).await;
    // A checksum that lay beside a ledger that no node has open stays right.
    let closed = ledger.close().await;
    let manifest = made?;
    closed?;
    Ok(manifest)
}

async fn make(
    data_dir: &Path,
    to: &Path,
    now: Timestamp,
    progress: Progress,
    ledger: &SqliteLedger,
) -> Result<Manifest, BackupError> {
    source::refuse_shared(ledger.applied_spec().await?)?;
    let (target, stage) = (to.to_owned(), archive::staging(to));
    let mut sink = blocking(move || Sink::create(&target)).await?;
    let worked = async move {
        let mut copied = Round::new(data_dir, progress);
        for _ in 0..ROUNDS {
            let copy = stage.join(LEDGER);
            source::remove(&copy)?;
            ledger.copy_to(&copy).await?;
            let named = read_copy(&copy).await?;
            let (back, complete) = {
                let names = named.names.clone();
                blocking(move || {
                    let complete = copied.objects(&mut sink, &names)?;
                    Ok(((copied, sink), complete))
                })
                .await?
            };
            (copied, sink) = back;
            if !complete {
                continue;
            }
            let dir = data_dir.to_owned();
            let Some(captured) = blocking(move || Captured::open(&dir)).await? else { continue };
            if ledger.applied_version().await? != named.spec_version {
                continue;
            }
            let ranges = captured.ranges.clone();
            let manifest = Manifest::new(now, named.stamp, named.spec_version, ranges);
            return blocking(move || {
                copied.rest(&mut sink, &copy, captured)?;
                sink.finish(manifest, copied.entries)
            })
            .await;
        }
        Err(BackupError::Changing { rounds: ROUNDS })
    }
    .await;
    // Also after a failure: what is incomplete must not be taken for a backup.
    archive::clean_up(to);
    worked
}

/// What a copy of the ledger says.
struct Copied {
    names: Vec<String>,
    spec_version: Option<u64>,
    stamp: Option<throng_store::StoreStamp>,
}

async fn read_copy(path: &Path) -> Result<Copied, BackupError> {
    let copy = SqliteLedger::attach(path).await?;
    let read = async {
        let named = copy.named_objects().await?;
        let mut names: Vec<String> = named.objects.into_iter().map(|object| object.name).collect();
        for manifest in &named.manifests {
            let files = throng_membership::manifest_files(manifest);
            names.extend(files.map_err(|error| BackupError::Dictionary { source: error.into() })?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(Copied {
            names,
            spec_version: copy.applied_version().await?,
            stamp: copy.stamp().await?,
        })
    }
    .await;
    copy.close().await?;
    read
}
