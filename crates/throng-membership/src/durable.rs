//! Writing a file so that it is there whole or not at all: aside, synced, renamed, folder synced.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::{MembershipError, contents};

/// Names of half-written files end with this. Nothing ever reads them.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Writes `bytes` to `path`, making its folder. A file that is there already is replaced as a
/// whole; who has it mapped keeps the old bytes.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), MembershipError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(folder)?;
    let (aside, mut file) = create_aside(folder, path, bytes)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.set_permissions(Permissions::from_mode(contents::MODE)))
        .and_then(|()| file.sync_all());
    if let Err(source) = written {
        // A leftover is only garbage; the first error is the one to tell.
        let _ = fs::remove_file(&aside);
        return Err(MembershipError::Io { doing: "write", path: aside, source });
    }
    fs::rename(&aside, path).map_err(|source| MembershipError::Io {
        doing: "rename to",
        path: path.to_owned(),
        source,
    })?;
    sync_folder(folder)
}

fn create_aside(
    folder: &Path,
    path: &Path,
    bytes: &[u8],
) -> Result<(PathBuf, File), MembershipError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let content = xxh3_64(bytes);
    loop {
        // Two writers of the same content must not share a file: one could cut what the other has
        // already renamed.
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let aside =
            folder.join(format!(".{name}.{content:016x}.{process}.{number}{TEMPORARY_SUFFIX}"));
        match OpenOptions::new().write(true).create_new(true).open(&aside) {
            Ok(file) => return Ok((aside, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(MembershipError::Io { doing: "create", path: aside, source });
            }
        }
    }
}

fn make_folder(folder: &Path) -> Result<(), MembershipError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_folder(parent)?;
    }
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(parent.unwrap_or(Path::new("."))),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(source) => {
            Err(MembershipError::Io { doing: "make the folder", path: folder.to_owned(), source })
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
