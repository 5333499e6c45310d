//! Targets that are refused before anything is copied: writing there would damage what is copied, or fail at the end.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::BackupError;

/// Whether a path, which may not exist yet, is a folder or in it. Symbolic links are followed.
fn is_within(path: &Path, folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let existing = path.ancestors().find_map(|part| part.canonicalize().ok());
    existing.is_some_and(|existing| existing.starts_with(&folder))
}

fn refused(path: &Path, why: &'static str) -> BackupError {
    BackupError::Target { path: path.to_owned(), why }
}

/// Refuses to write a backup to the directory that it is of: a node that starts there would find files that are not
/// its own, and the directory and its backup would be lost together.
///
/// # Errors
/// [`BackupError::Target`].
pub(crate) fn check_backup(data_dir: &Path, to: &Path) -> Result<(), BackupError> {
    match is_within(to, data_dir) {
        true => Err(refused(to, "it is in the data directory: name a target outside of it")),
        false => Ok(()),
    }
}

/// Refuses to restore to a directory that cannot be replaced by the complete one, and to one in the backup.
///
/// # Errors
/// [`BackupError::Target`].
pub(crate) fn check_restore(from: &Path, dir: &Path) -> Result<(), BackupError> {
    if from.is_dir() && is_within(dir, from) {
        return Err(refused(dir, "it is in the backup: name a directory outside of it"));
    }
    if dir.file_name().is_none() {
        return Err(refused(dir, "the path does not end in the name of a directory"));
    }
    let Ok(facts) = fs::symlink_metadata(dir) else { return Ok(()) };
    if facts.is_symlink() {
        return Err(refused(dir, "it is a symbolic link: name the directory that it leads to"));
    }
    // Of a mount point the device is another one than that of the folder above it.
    let above = fs::metadata(dir.join("..")).map_or(facts.dev(), |above| above.dev());
    if facts.is_dir() && above != facts.dev() {
        let why = "it is a mount point, which cannot be replaced: name a new directory in it";
        return Err(refused(dir, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_folder_is_found_also_before_it_exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for inside in ["", "new", "new/newer", "../src/new"] {
            assert!(is_within(&source.join(inside), &source), "{inside}");
        }
        for outside in ["..", "../new", "../src-of-another/new"] {
            assert!(!is_within(&source.join(outside), &source), "{outside}");
        }
        assert!(!is_within(&source, &source.join("new")), "the folder does not exist");
    }

    #[test]
    fn a_mount_point_and_a_path_without_a_name_are_refused() {
        let why = |dir: &str| check_restore(Path::new("backup.tar"), Path::new(dir));
        for dir in ["/proc", "/", "..", "new/.."] {
            assert!(matches!(why(dir), Err(BackupError::Target { .. })), "{dir}");
        }
        for dir in ["new", "new/newer", "/proc/new"] {
            assert!(why(dir).is_ok(), "{dir}");
        }
    }
}
