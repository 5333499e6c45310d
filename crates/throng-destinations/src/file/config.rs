//! What a folder needs to be a destination.

use std::path::{Component, PathBuf};

use super::folder::Place;
use crate::RegistryError;

/// A folder that batches are written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAccount {
    /// The folder, absolute.
    pub folder: PathBuf,
    /// The folder itself, or one that it lies in: beneath it no symbolic link is followed.
    pub root: PathBuf,
    /// How rows are written.
    pub format: FileFormat,
    /// Whether files are compressed with gzip.
    pub gzip: bool,
}

/// How the rows of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// CSV with a line of column names.
    Csv,
    /// A JSON object a line.
    Jsonl,
}

/// Checked settings.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) place: Place,
    pub(super) format: FileFormat,
    pub(super) gzip: bool,
}

pub(super) fn check(account: &FileAccount) -> Result<Config, RegistryError> {
    let refuse = |why: &str| RegistryError::Account {
        account: account.folder.display().to_string(),
        why: why.to_owned(),
    };
    if !account.folder.is_absolute() {
        return Err(refuse("its folder must be an absolute path"));
    }
    let Ok(below) = account.folder.strip_prefix(&account.root) else {
        return Err(refuse("its folder does not lie in the folder that it may not leave"));
    };
    if !below.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(refuse("its folder must be written without `.` and `..`"));
    }
    let place = Place { root: account.root.clone(), below: below.to_owned() };
    Ok(Config { place, format: account.format, gzip: account.gzip })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_checked() {
        let account = |folder: &str, root: &str| FileAccount {
            folder: folder.into(),
            root: root.into(),
            format: FileFormat::Csv,
            gzip: false,
        };
        let good = check(&account("/data/out/x", "/data")).unwrap();
        assert_eq!((good.place.root, good.place.below), ("/data".into(), "out/x".into()));
        assert_eq!(check(&account("/data", "/data")).unwrap().place.below, PathBuf::new());
        for (folder, root) in [("data", "data"), ("/data", "/other"), ("/data/../etc", "/data")] {
            assert!(check(&account(folder, root)).is_err(), "{folder} in {root}");
        }
    }
}
