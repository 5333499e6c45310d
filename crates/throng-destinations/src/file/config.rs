//! The settings of a folder as a destination.

use std::path::{Component, PathBuf};

use throng_model::FileFormat;

use super::folder::Location;
use crate::RegistryError;

/// A folder that batches are written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAccount {
    /// The folder, absolute.
    pub folder: PathBuf,
    /// The folder itself, or one of its parents: below it no symbolic link is followed.
    pub root: PathBuf,
    /// The format of the files.
    pub format: FileFormat,
    /// Whether files are compressed with gzip.
    pub gzip: bool,
}

/// Checked settings.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) location: Location,
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
        return Err(refuse("its folder is outside of its root folder"));
    };
    if !below.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(refuse("its folder must not contain `.` or `..`"));
    }
    let location = Location { root: account.root.clone(), below: below.to_owned() };
    Ok(Config { location, format: account.format, gzip: account.gzip })
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
        assert_eq!((good.location.root, good.location.below), ("/data".into(), "out/x".into()));
        assert_eq!(check(&account("/data", "/data")).unwrap().location.below, PathBuf::new());
        for (folder, root) in [("data", "data"), ("/data", "/other"), ("/data/../etc", "/data")] {
            assert!(check(&account(folder, root)).is_err(), "{folder} in {root}");
        }
    }
}
