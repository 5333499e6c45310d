//! What a copy has on the disk, and what differs from the listing.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, FileTimes, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use throng_model::{Timestamp, to_hex};
use throng_objects::SourceObject;

use crate::CopyError;
use crate::index::{Index, Indexed};
use crate::plan::{Content, Plan, PlannedFile};

/// A file of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalFile {
    bytes: u64,
    /// What it takes of the disk, in blocks of 512 bytes.
    blocks: u64,
    modified: SystemTime,
}

impl LocalFile {
    fn of(metadata: &Metadata, modified: SystemTime) -> Self {
        Self { bytes: metadata.len(), blocks: metadata.blocks(), modified }
    }
}

/// What is in the folder of the copied objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LocalTree {
    /// By their paths in the folder.
    pub(crate) files: BTreeMap<String, LocalFile>,
    /// Paths of folders, each after the one that it is in.
    pub(crate) folders: Vec<String>,
    /// What no copy has: links, pipes and names that are not UTF-8.
    pub(crate) others: Vec<PathBuf>,
}

impl LocalTree {
    /// Reads the folder.
    pub(crate) fn read(root: &Path) -> Result<Self, CopyError> {
        let mut tree = Self::default();
        tree.add(root, "")?;
        Ok(tree)
    }

    /// What the files take of the disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let bytes = self.files.values().map(|file| file.blocks.saturating_mul(512));
        bytes.fold(0, u64::saturating_add)
    }

    fn add(&mut self, folder: &Path, path: &str) -> Result<(), CopyError> {
        for entry in fs::read_dir(folder).map_err(CopyError::io("list", folder))? {
            let entry = entry.map_err(CopyError::io("list", folder))?;
            let at = entry.path();
            // Of a link it is that of the link itself.
            let metadata = entry.metadata().map_err(CopyError::io("inspect", &at))?;
            let Ok(name) = entry.file_name().into_string() else {
                self.others.push(at);
                continue;
            };
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            if metadata.is_dir() {
                self.folders.push(path.clone());
                self.add(&at, &path)?;
            } else if metadata.is_file() {
                let modified = metadata.modified().map_err(CopyError::io("inspect", &at))?;
                self.files.insert(path, LocalFile::of(&metadata, modified));
            } else {
                self.others.push(at);
            }
        }
        Ok(())
    }
}

/// The time of an object as that of a file.
pub(crate) fn system_time(time: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(time.0).unwrap_or(0))
}

/// Times for a file that is a copy of an object of this time.
pub(crate) fn times(modified: Timestamp) -> FileTimes {
    FileTimes::new().set_modified(system_time(modified))
}

/// What is due for a planned file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Keep,
    /// The object was written again with the same content: its file gets the new time.
    SetTime,
    /// A file of the size of its object, without its content.
    Create,
    /// The object is downloaded.
    Download,
    /// Nothing: it is the marker of a folder without objects.
    Marker,
}

/// What is due for one file. A file is not downloaded again if it is as the last update left it, and the object has the
/// content that was copied.
fn step(file: &PlannedFile, local: Option<&LocalFile>, indexed: Option<&Indexed>) -> Step {
    let object = &file.object;
    let is_at = |local: &&LocalFile, time| local.modified == system_time(time);
    match file.content {
        Content::Empty => {
            let is_same =
                |local: &&LocalFile| local.bytes == object.bytes && is_at(local, object.modified);
            let found = local.filter(is_same);
            if found.is_some() { Step::Keep } else { Step::Create }
        }
        Content::Object => {
            let Some(indexed) = indexed.filter(|indexed| indexed.has_content_of(object)) else {
                return Step::Download;
            };
            if indexed.is_folder {
                return Step::Marker;
            }
            let left = local
                .filter(|local| local.bytes == object.bytes && is_at(local, indexed.modified()));
            match left {
                None => Step::Download,
                Some(local) if is_at(&local, object.modified) => Step::Keep,
                Some(_) => Step::SetTime,
            }
        }
    }
}

/// An object that is downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Download {
    /// Which of the planned files.
    pub(crate) at: usize,
    pub(crate) object: SourceObject,
    /// The file that it is downloaded to.
    pub(crate) to: PathBuf,
}

/// What an update does.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) plan: Plan,
    /// One for each planned file.
    pub(crate) steps: Vec<Step>,
    pub(crate) tree: LocalTree,
    /// The index of the last update; `None` if there was none.
    pub(crate) index: Option<Index>,
    /// Without those that an earlier update has downloaded and could not put in place.
    pub(crate) downloads: Vec<Download>,
}

impl Prepared {
    /// Compares a plan with the copy.
    pub(crate) fn new(
        plan: Plan,
        tree: LocalTree,
        index: Option<Index>,
        staging: &Path,
    ) -> Result<Self, CopyError> {
        let known = index.as_ref().map(|index| &index.objects);
        let steps = plan.files.iter().map(|file| {
            let indexed = known.and_then(|known| known.get(&file.path));
            step(file, tree.files.get(&file.path), indexed)
        });
        let steps: Vec<Step> = steps.collect();
        let due = plan.files.iter().zip(&steps).enumerate();
        let due = due.filter(|(_, (_, step))| **step == Step::Download);
        let mut downloads: Vec<Download> = due
            .map(|(at, (file, _))| Download {
                at,
                object: file.object.clone(),
                to: staging.join(staged_name(&file.object)),
            })
            .collect();
        let staged = keep_staged(staging, &downloads)?;
        downloads.retain(|download| !staged.contains(&download.to));
        Ok(Self { plan, steps, tree, index, downloads })
    }

    /// The bytes that are downloaded.
    pub(crate) fn download_bytes(&self) -> u64 {
        let bytes = self.downloads.iter().map(|download| download.object.bytes);
        bytes.fold(0, u64::saturating_add)
    }
}

/// The name of a downloaded object: another one for each content, so that what was downloaded is used even if the
/// update failed later.
pub(crate) fn staged_name(object: &SourceObject) -> String {
    let SourceObject { key, bytes, etag, modified } = object;
    let mut hasher = Sha256::new();
    for part in [key.as_str(), etag.as_deref().unwrap_or_default()] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(bytes.to_le_bytes());
    hasher.update(modified.0.to_le_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    to_hex(&digest)
}

/// Removes what the folder of downloads has from earlier updates, except objects that are due and complete; returns
/// those.
fn keep_staged(staging: &Path, downloads: &[Download]) -> Result<HashSet<PathBuf>, CopyError> {
    let due: BTreeMap<&Path, u64> =
        downloads.iter().map(|due| (due.to.as_path(), due.object.bytes)).collect();
    let mut kept = HashSet::new();
    for entry in fs::read_dir(staging).map_err(CopyError::io("list", staging))? {
        let path = entry.map_err(CopyError::io("list", staging))?.path();
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            // The end of a write of an update that was dropped.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(CopyError::io("inspect", &path)(error)),
        };
        if found.is_file() && due.get(path.as_path()) == Some(&found.len()) {
            kept.insert(path);
        } else {
            remove(&path, found.is_dir())?;
        }
    }
    Ok(kept)
}

/// Removes a file, or a folder with everything in it. Succeeds if there is none.
pub(crate) fn remove(path: &Path, is_folder: bool) -> Result<(), CopyError> {
    let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        // Of the second kind is the error of a path below a file.
        Err(error)
            if ![io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) =>
        {
            Err(CopyError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: Content, bytes: u64, etag: &str, modified: i64) -> PlannedFile {
        let object = SourceObject {
            key: "e/a.csv".to_owned(),
            bytes,
            etag: Some(etag.to_owned()),
            modified: Timestamp(modified),
        };
        PlannedFile { path: "a.csv".to_owned(), content, object }
    }

    fn local(bytes: u64, modified: i64) -> LocalFile {
        LocalFile { bytes, blocks: 1, modified: system_time(Timestamp(modified)) }
    }

    #[test]
    fn an_object_is_downloaded_if_it_or_its_file_has_changed() {
        let listed = file(Content::Object, 5, "1", 7);
        let copied = Indexed::of(&listed.object, false);
        let due = |local: Option<LocalFile>, listed: &PlannedFile| {
            step(listed, local.as_ref(), Some(&copied))
        };
        assert_eq!(due(Some(local(5, 7)), &listed), Step::Keep);
        assert_eq!(due(Some(local(5, 8)), &listed), Step::Download, "written to");
        assert_eq!(due(Some(local(4, 7)), &listed), Step::Download, "cut");
        assert_eq!(due(None, &listed), Step::Download, "removed");
        let again = file(Content::Object, 5, "1", 9);
        assert_eq!(due(Some(local(5, 7)), &again), Step::SetTime);
        let changed = file(Content::Object, 5, "2", 9);
        assert_eq!(due(Some(local(5, 7)), &changed), Step::Download);
        // An update that failed has put the new object in place, and then the old one came back.
        assert_eq!(due(Some(local(5, 9)), &listed), Step::Download);
        assert_eq!(step(&listed, Some(&local(5, 7)), None), Step::Download, "no index");
        let marker = Indexed::of(&listed.object, true);
        assert_eq!(step(&listed, None, Some(&marker)), Step::Marker);
    }

    #[test]
    fn a_file_without_content_needs_the_time_and_the_size_of_its_object_only() {
        let listed = file(Content::Empty, 5, "1", 7);
        assert_eq!(step(&listed, Some(&local(5, 7)), None), Step::Keep);
        assert_eq!(step(&listed, Some(&local(5, 6)), None), Step::Create);
        assert_eq!(step(&listed, Some(&local(0, 7)), None), Step::Create);
        assert_eq!(step(&listed, None, None), Step::Create);
    }

    #[test]
    fn complete_downloads_of_a_failed_update_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let plan =
            |etag: &str| Plan { files: vec![file(Content::Object, 5, etag, 7)], ..Plan::default() };
        let downloads = |etag: &str| {
            let prepared = Prepared::new(plan(etag), LocalTree::default(), None, dir.path());
            prepared.unwrap().downloads
        };
        let first = downloads("1");
        assert_eq!(first.len(), 1);
        let staged = first[0].to.clone();
        fs::write(&staged, "1234").unwrap();
        assert_eq!(downloads("1"), first, "incomplete");
        assert!(!staged.exists());
        fs::write(&staged, "12345").unwrap();
        fs::write(dir.path().join("other.tmp"), "x").unwrap();
        assert_eq!(downloads("1"), []);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(downloads("2").len(), 1, "other content");
        assert!(!staged.exists());
    }

    #[test]
    fn a_tree_has_files_folders_and_what_does_not_belong_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/c.csv"), "12345").unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        let tree = LocalTree::read(dir.path()).unwrap();
        assert_eq!(tree.files.keys().collect::<Vec<_>>(), ["a/b/c.csv"]);
        assert_eq!(tree.files["a/b/c.csv"].bytes, 5);
        assert_eq!(tree.folders, ["a", "a/b"]);
        assert_eq!(tree.others, [dir.path().join("link")]);
    }
}
