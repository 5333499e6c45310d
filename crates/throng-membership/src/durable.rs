//! Writing a file so that it is complete or absent: written to a temporary file, synced, renamed,
//! folder synced.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::{MembershipError, contents};

/// Suffix of temporary files, which nothing reads.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Numbers the temporary files of this process.
static NEXT_TEMP_FILE: AtomicU64 = AtomicU64::new(0);

/// Writes `bytes` to `path` and creates its folder. An existing file is replaced as a whole; a
/// reader that has it mapped keeps the old bytes.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), MembershipError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_folder(folder)?;
    let (temporary, mut file) = create_temporary(folder, path, bytes)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.set_permissions(Permissions::from_mode(contents::MODE)))
        .and_then(|()| file.sync_all());
    if let Err(source) = written {
        // The first error is the one to return; nothing reads the temporary file.
        let _ = fs::remove_file(&temporary);
        return Err(MembershipError::Io { doing: "write", path: temporary, source });
    }
    fs::rename(&temporary, path).map_err(|source| MembershipError::Io {
        doing: "rename to",
        path: path.to_owned(),
        source,
    })?;
    sync_folder(folder)
}

fn create_temporary(
    folder: &Path,
    path: &Path,
    bytes: &[u8],
) -> Result<(PathBuf, File), MembershipError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let content = xxh3_64(bytes);
    loop {
        // Two writers of the same content must not share a file: one could truncate it after the
        // other has renamed it.
        let number = NEXT_TEMP_FILE.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let temporary =
            folder.join(format!(".{name}.{content:016x}.{process}.{number}{TEMPORARY_SUFFIX}"));
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(MembershipError::Io { doing: "create", path: temporary, source });
            }
        }
    }
}

fn create_folder(folder: &Path) -> Result<(), MembershipError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_folder(parent)?;
    }
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(parent.unwrap_or(Path::new("."))),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(source) => {
            Err(MembershipError::Io { doing: "create the folder", path: folder.to_owned(), source })
        }
    }
}

fn sync_folder(folder: &Path) -> Result<(), MembershipError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|source| MembershipError::Io {
        doing: "sync the folder",
        path: folder.to_owned(),
        source,
    })
}
