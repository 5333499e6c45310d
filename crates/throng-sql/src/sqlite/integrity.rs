//! Detects changes to the file since a node closed it.
//!
//! SQLite has no checksums of its pages: `PRAGMA quick_check` detects a damaged structure, not a
//! changed value. So a node that shuts down cleanly writes the checksum of the whole file to a file
//! beside it (`ledger.sum`), and the next open compares and removes it: any change to the closed
//! file is detected. After a crash there is no checksum, and the structure is checked. Reading the
//! file costs about half a second per gigabyte from the page cache, otherwise the time of the disk.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use throng_model::StorageProblem;
use throng_store::{LedgerError, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::failure::{DbResult, Failure, storage_problem};

/// The structure of a larger file is not checked when a node starts, to keep the start short:
/// [`check_structure`] takes two to three seconds per gigabyte.
pub(super) const MAX_CHECKED_AT_OPEN_BYTES: u64 = 1 << 30;
/// How much is read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The content of `ledger.sum`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Checksum {
    bytes: u64,
    xxh3: String,
}

fn checksum_file(ledger: &Path) -> PathBuf {
    ledger.with_extension("sum")
}

/// SQLite's write-ahead log, which exists while a ledger is open, and after its process died.
fn wal_file(ledger: &Path) -> PathBuf {
    beside(ledger, "-wal")
}

fn beside(ledger: &Path, ending: &str) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// SQLite makes its files beside a ledger with the mode of the ledger. Those of a ledger that was read-only stay so, and
/// the ledger could not be opened after it was made writable again: they get its mode. What cannot be changed is left to
/// the error of opening.
pub(super) fn make_writable_as_ledger(ledger: &Path) {
    const OWNER_WRITES: u32 = 0o200;
    let Ok(facts) = fs::metadata(ledger) else { return };
    let wanted = facts.permissions();
    for path in [wal_file(ledger), beside(ledger, "-shm")] {
        let Ok(facts) = fs::symlink_metadata(&path) else { continue };
        let is_read_only = facts.is_file() && facts.permissions().mode() & OWNER_WRITES == 0;
        if is_read_only && wanted.mode() & OWNER_WRITES != 0 {
            let _ = fs::set_permissions(&path, wanted.clone());
        }
    }
}

fn checksum_of(ledger: &Path) -> io::Result<Checksum> {
    let mut file = throng_fs::open(ledger)?;
    let (mut hash, mut bytes, mut chunk) = (Xxh3::new(), 0, vec![0; CHUNK_BYTES]);
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        bytes += read as u64;
    }
    Ok(Checksum { bytes, xxh3: format!("{:032x}", hash.digest128()) })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn io_failure(doing: &'static str) -> impl FnOnce(io::Error) -> LedgerError {
    move |error| LedgerError::of_system(doing, error)
}

const DOING: &str = "comparing the ledger with its checksum";

/// As [`compare`], and removes the checksum, because the ledger is about to change.
pub(super) fn verify(ledger: &Path) -> Result<bool> {
    let compared = compare(ledger)?;
    if compared {
        remove(&checksum_file(ledger)).map_err(io_failure(DOING))?;
    }
    Ok(compared)
}

/// Compares the file with the checksum of the last clean shutdown. `false` if there is none.
///
/// # Errors
/// [`LedgerError::Damaged`] if they differ, or if there is a write-ahead log, which a clean
/// shutdown removes: SQLite would apply it to the file although it belongs to another state.
pub(super) fn compare(ledger: &Path) -> Result<bool> {
    let path = checksum_file(ledger);
    let text = match throng_fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_failure(DOING)(error)),
    };
    let damaged = |why: String| LedgerError::Damaged { path: ledger.to_owned(), why };
    let Ok(expected) = serde_json::from_slice::<Checksum>(&text) else {
        return Err(damaged(format!(
            "its checksum file {} cannot be decoded; remove that file only if you changed it yourself",
            path.display()
        )));
    };
    let found = checksum_of(ledger).map_err(io_failure(DOING))?;
    if found != expected {
        return Err(damaged(format!(
            "it has changed since the last node closed it ({} bytes, expected {}); if you changed it \
             on purpose, remove {}",
            found.bytes,
            expected.bytes,
            path.display()
        )));
    }
    if wal_file(ledger).try_exists().map_err(io_failure(DOING))? {
        return Err(damaged(format!(
            "{} is not its write-ahead log, which the last node removed; remove it",
            wal_file(ledger).display()
        )));
    }
    Ok(true)
}

/// Records the checksum of a ledger whose connections are closed. Does nothing while another
/// process has it open or the write-ahead log has changes of it.
pub(super) fn record(ledger: &Path) -> Result<()> {
    let write = || -> io::Result<()> {
        if wal_file(ledger).try_exists()? {
            return Ok(());
        }
        let path = checksum_file(ledger);
        let temporary = path.with_added_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&checksum_of(ledger)?)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().map_err(io_failure("recording the ledger's checksum"))
}

/// Checks the structure of an existing file: every page, and the size of every index against its
/// table's.
///
/// # Errors
/// [`LedgerError::Damaged`].
pub(super) async fn check_structure(ledger: &Path) -> Result<()> {
    let damaged = |why: String| LedgerError::Damaged { path: ledger.to_owned(), why };
    let checked: DbResult<Vec<String>> = async {
        let options = SqliteConnectOptions::new().filename(ledger).disable_statement_logging();
        let mut connection: SqliteConnection = options.connect().await?;
        // SQLite returns `ok`, or at most this many errors.
        let found = sqlx::query_scalar("PRAGMA quick_check(3)").fetch_all(&mut connection).await?;
        connection.close().await?;
        Ok(found)
    }
    .await;
    match checked {
        Ok(findings) if findings == ["ok"] => Ok(()),
        Ok(findings) => Err(damaged(findings.join("; "))),
        Err(Failure::Driver(error)) if storage_problem(&error) == Some(StorageProblem::Damaged) => {
            Err(damaged(error.to_string()))
        }
        Err(failure) => Err(failure.while_doing("checking the ledger's structure")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_a_ledger_that_was_read_only_get_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.db");
        let shared = beside(&ledger, "-shm");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let set = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for path in [&ledger, &shared] {
            File::create(path).unwrap();
            set(path, 0o400);
        }
        make_writable_as_ledger(&ledger);
        assert_eq!(mode(&shared), 0o400, "the ledger is read-only");
        set(&ledger, 0o600);
        make_writable_as_ledger(&ledger);
        assert_eq!((mode(&ledger), mode(&shared)), (0o600, 0o600));
        assert!(!wal_file(&ledger).exists(), "no file is made");
    }
}
