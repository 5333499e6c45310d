//! The sizes and times of change of files, which say whether a file may have other rows than before.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::FileError;

/// The size and time of change of a file. If either differs, the file may have other rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileStamp {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Time of change in nanoseconds since 1970; 0 if the file system has none.
    pub modified: u64,
}

impl FileStamp {
    /// Reads the stamp of a file.
    ///
    /// # Errors
    /// [`FileError::Source`] if it cannot be read.
    pub fn of(path: &Path) -> Result<Self, FileError> {
        let fail = |source| FileError::Source { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(fail)?;
        let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = since.and_then(|time| u64::try_from(time.as_nanos()).ok()).unwrap_or(0);
        Ok(Self { path: path.to_owned(), bytes: metadata.len(), modified })
    }

    /// Refuses a file that has changed.
    ///
    /// # Errors
    /// [`FileError::Changed`]; [`FileError::Source`] if it is missing.
    pub fn compare(&self) -> Result<(), FileError> {
        if Self::of(&self.path)? == *self {
            Ok(())
        } else {
            Err(FileError::Changed { path: self.path.clone() })
        }
    }
}

/// The files of a scan when it starts, with the times at which their inodes changed. A file that is written again may
/// get its size and its time of change back, as `cp -p` and `rsync -t` do. The times are not in [`FileStamp`], because
/// a link or other permissions change them too: between planning and scanning that must not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScannedFiles(Vec<(FileStamp, (i64, i64))>);

impl ScannedFiles {
    /// Reads the times of files.
    ///
    /// # Errors
    /// [`FileError::Source`] if one is missing.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a FileStamp>) -> Result<Self, FileError> {
        let file =
            |stamp: &FileStamp| Ok::<_, FileError>((stamp.clone(), inode_changed(&stamp.path)?));
        files.into_iter().map(file).collect::<Result<_, _>>().map(Self)
    }

    /// Refuses a file that has changed since then.
    ///
    /// # Errors
    /// [`FileError::Changed`]; [`FileError::Source`] if one is missing.
    pub fn compare(&self) -> Result<(), FileError> {
        for (stamp, changed) in &self.0 {
            stamp.compare()?;
            if inode_changed(&stamp.path)? != *changed {
                return Err(FileError::Changed { path: stamp.path.clone() });
            }
        }
        Ok(())
    }
}

/// In seconds since 1970, and nanoseconds.
fn inode_changed(path: &Path) -> Result<(i64, i64), FileError> {
    let metadata = std::fs::metadata(path);
    let metadata =
        metadata.map_err(|source| FileError::Source { path: path.to_owned(), source })?;
    Ok((metadata.ctime(), metadata.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_another_time_of_its_inode_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.csv");
        std::fs::write(&path, "id\n1\n").unwrap();
        let stamp = FileStamp::of(&path).unwrap();
        let scanned = ScannedFiles::of([&stamp]).unwrap();
        scanned.compare().unwrap();
        // The scan started before the file was written with the same size and time.
        let (seconds, nanos) = scanned.0[0].1;
        let before = ScannedFiles(vec![(stamp.clone(), (seconds - 1, nanos))]);
        stamp.compare().unwrap();
        assert!(
            matches!(before.compare(), Err(FileError::Changed { path: found }) if found == path)
        );
        std::fs::write(&path, "id\n1\n2\n").unwrap();
        assert!(matches!(scanned.compare(), Err(FileError::Changed { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(scanned.compare(), Err(FileError::Source { .. })));
    }
}
