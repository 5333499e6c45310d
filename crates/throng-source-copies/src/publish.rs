//! Puts what was downloaded in its place, and removes what is gone from the bucket.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use throng_model::Timestamp;

use crate::CopyError;
use crate::folder::{CopyFolder, create};
use crate::index::{Index, Indexed};
use crate::local::{LocalTree, Prepared, Step, remove, staged_name, times};
use crate::plan::{Content, PlannedFile, is_manifest};

/// The mode of copied objects: nothing writes to them.
const MODE: u32 = 0o400;

/// What a copy has after an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    /// Its files.
    pub(crate) files: u64,
    /// Those that were removed.
    pub(crate) removed: u64,
}

/// Makes the copy equal to the plan; every download is complete. `markers` are planned files that turned out to be
/// markers of folders.
///
/// Each file is replaced atomically. New files are put in place before old ones are removed, and manifests of batches
/// and success files after the files that they are about. After an error, or a crash, the next update continues: what is in place and not in
/// the index is downloaded again.
pub(crate) fn publish(
    folder: &CopyFolder,
    prepared: Prepared,
    markers: &HashSet<usize>,
) -> Result<Published, CopyError> {
    let Prepared { plan, mut steps, tree, index, downloads: _ } = prepared;
    for marker in markers {
        if let Some(step) = steps.get_mut(*marker) {
            *step = Step::Marker;
        }
    }
    // A link could lead out of the copy.
    for other in &tree.others {
        remove(other, false)?;
    }
    for path in &plan.folders {
        create_folder(&folder.files(), path)?;
    }
    for (file, step) in in_order(&plan.files, &steps) {
        put_in_place(folder, file, step)?;
    }
    let present = plan.files.iter().zip(&steps).filter(|(_, step)| **step != Step::Marker);
    let present: HashSet<&str> = present.map(|(file, _)| file.path.as_str()).collect();
    let removed = remove_others(&folder.files(), &tree, &present, &plan.folders)?;
    let published = Published { files: present.len() as u64, removed };
    let objects = plan.files.into_iter().zip(steps);
    let objects = objects.filter(|(file, _)| file.content == Content::Object);
    let objects = objects.map(|(file, step)| {
        let indexed = Indexed::of(&file.object, step == Step::Marker);
        (file.path, indexed)
    });
    let updated = Index::of(objects.collect());
    if index.as_ref() != Some(&updated) {
        updated.write(&folder.index())?;
    }
    Ok(published)
}

/// The files with what is due for them: those that say what others are come after those.
fn in_order<'p>(files: &'p [PlannedFile], steps: &[Step]) -> Vec<(&'p PlannedFile, Step)> {
    let mut due: Vec<_> = files.iter().zip(steps.iter().copied()).collect();
    due.sort_by_key(|(file, _)| match file.content {
        Content::Object => u8::from(is_manifest(&file.path)),
        Content::Empty => 2,
    });
    due
}

/// Does what is due for a file.
fn put_in_place(folder: &CopyFolder, file: &PlannedFile, step: Step) -> Result<(), CopyError> {
    let (files, staging, modified) = (folder.files(), folder.staging(), file.object.modified);
    match step {
        Step::Keep | Step::Marker => Ok(()),
        Step::SetTime => {
            let path = files.join(&file.path);
            let set = File::open(&path).and_then(|file| file.set_times(times(modified)));
            set.map_err(CopyError::io("set the time of", &path))
        }
        Step::Create => {
            let empty = staging.join("empty.tmp");
            remove(&empty, false)?;
            let created = File::create(&empty).map_err(CopyError::io("create", &empty))?;
            // Takes nothing of the disk. A size that no file of this file system can have is not shown.
            if let Err(error) = created.set_len(file.object.bytes) {
                tracing::debug!(%error, path = file.path, "failed to set the size of a file without content");
            }
            place(&empty, modified, &files, &file.path)
        }
        Step::Download => {
            place(&staging.join(staged_name(&file.object)), modified, &files, &file.path)
        }
    }
}

/// Removes the files that are not in the plan, and folders without a file. Returns the number of files.
fn remove_others(
    files: &Path,
    tree: &LocalTree,
    present: &HashSet<&str>,
    folders: &BTreeSet<String>,
) -> Result<u64, CopyError> {
    let mut needed: HashSet<&str> = folders.iter().map(String::as_str).collect();
    for path in present.iter().copied().chain(folders.iter().map(String::as_str)) {
        needed.extend(path.match_indices('/').map(move |(end, _)| &path[..end]));
    }
    let mut removed = 0;
    for path in tree.files.keys().filter(|path| !present.contains(path.as_str())) {
        let file = files.join(path);
        // A folder may be in its place by now.
        if !file.is_dir() {
            remove(&file, false)?;
        }
        removed += 1;
    }
    // Those in other folders first.
    for path in tree.folders.iter().rev() {
        // A file may be in its place by now.
        if !needed.contains(path.as_str()) && !present.contains(path.as_str()) {
            remove(&files.join(path), true)?;
        }
    }
    Ok(removed)
}

/// Creates a folder of the copy. A file in its place, or in that of a folder above it, is gone from the bucket: it is
/// removed.
fn create_folder(files: &Path, path: &str) -> Result<(), CopyError> {
    let folder = files.join(path);
    if folder.is_dir() {
        return Ok(());
    }
    for end in path.match_indices('/').map(|(end, _)| end).chain([path.len()]) {
        let above = files.join(&path[..end]);
        if fs::symlink_metadata(&above).is_ok_and(|found| !found.is_dir()) {
            remove(&above, false)?;
        }
    }
    create(&folder)
}

/// Renames a complete file to its place in the copy.
fn place(from: &Path, modified: Timestamp, files: &Path, path: &str) -> Result<(), CopyError> {
    if let Some((folder, _)) = path.rsplit_once('/') {
        create_folder(files, folder)?;
    }
    let to = files.join(path);
    let set = || -> io::Result<()> {
        let file = File::open(from)?;
        file.set_times(times(modified))?;
        file.set_permissions(Permissions::from_mode(MODE))
    };
    set().map_err(CopyError::io("set the time of", from))?;
    // A folder in its place is gone from the bucket.
    if to.is_dir() {
        remove(&to, true)?;
    }
    fs::rename(from, &to).map_err(CopyError::io("create", &to))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use throng_objects::SourceObject;

    use super::*;
    use crate::local::system_time;
    use crate::plan::{Plan, plan};

    const MODIFIED: Timestamp = Timestamp(1_795_600_800_000_000);

    fn object(key: &str, bytes: u64) -> SourceObject {
        let etag = Some(format!("{key} {bytes}"));
        SourceObject { key: key.to_owned(), bytes, etag, modified: MODIFIED }
    }

    /// A copy, without a bucket.
    struct TestCopy {
        folder: CopyFolder,
        _dir: tempfile::TempDir,
    }

    impl TestCopy {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = throng_objects::BucketOptions {
                service: throng_objects::Service::Gcs { service_account: None },
                bucket: "lake".to_owned(),
                prefix: String::new(),
                cache_bytes: 0,
            };
            let folder = CopyFolder::of(dir.path(), &options);
            folder.create().unwrap();
            Self { folder, _dir: dir }
        }

        fn prepare(&self, plan: Plan) -> Prepared {
            let tree = LocalTree::read(&self.folder.files()).unwrap();
            let index = Index::read(&self.folder.index()).unwrap();
            Prepared::new(plan, tree, index, &self.folder.staging()).unwrap()
        }

        /// Updates the copy to these objects, whose content is that many bytes. Returns how many are downloaded and
        /// removed.
        fn update(&self, listed: &[(&str, u64)]) -> (usize, u64) {
            let objects = listed.iter().map(|(key, bytes)| object(key, *bytes)).collect();
            let prepared = self.prepare(plan("", objects).unwrap());
            let downloads = prepared.downloads.clone();
            for due in &downloads {
                fs::write(&due.to, vec![b'x'; due.object.bytes as usize]).unwrap();
            }
            let published = publish(&self.folder, prepared, &HashSet::new()).unwrap();
            (downloads.len(), published.removed)
        }

        fn has(&self) -> Vec<String> {
            let tree = LocalTree::read(&self.folder.files()).unwrap();
            assert_eq!(tree.others.len(), 0);
            let folders = tree.folders.into_iter().map(|folder| format!("{folder}/"));
            let mut has: Vec<String> = folders.chain(tree.files.into_keys()).collect();
            has.sort();
            has
        }
    }

    #[test]
    fn a_copy_follows_its_objects() {
        let copy = TestCopy::new();
        let first = [("a/1.csv", 5), ("a/_SUCCESS", 9), ("b/_delta_log/0.json", 9)];
        assert_eq!(copy.update(&first), (1, 0));
        assert_eq!(copy.has(), ["a/", "a/1.csv", "a/_SUCCESS", "b/", "b/_delta_log/"]);
        assert_eq!(copy.update(&first), (0, 0));
        let files = copy.folder.files();
        let found = fs::metadata(files.join("a/1.csv")).unwrap();
        assert_eq!((found.len(), found.permissions().mode() & 0o777), (5, MODE));
        let success = fs::metadata(files.join("a/_SUCCESS")).unwrap();
        assert_eq!(success.len(), 9, "it is listed with the size of its object");
        assert_eq!(fs::read(files.join("a/_SUCCESS")).unwrap(), [0; 9]);
        // In the second of their objects, the success file at its end.
        let of_second = |micros| system_time(MODIFIED.plus(Duration::from_micros(micros)));
        assert!((of_second(1)..of_second(999_999)).contains(&found.modified().unwrap()));
        assert_eq!(success.modified().unwrap(), of_second(999_999));
        // An object becomes a folder, and a folder an object.
        assert_eq!(copy.update(&[("a", 4), ("b", 4)]), (0, 2));
        assert_eq!(copy.has(), ["a", "b"]);
        assert_eq!(copy.update(&[("a/1.csv", 6), ("b/x/1.csv", 6)]), (2, 2));
        assert_eq!(copy.has(), ["a/", "a/1.csv", "b/", "b/x/", "b/x/1.csv"]);
        assert_eq!(copy.update(&[]), (0, 2));
        assert_eq!(copy.has(), [""; 0]);
    }

    #[test]
    fn manifests_follow_the_rows_that_they_name() {
        let listed = ["t/_SUCCESS", "t/_batches/a.json", "t/day=1/a.parquet", "t/day=2/b.parquet"];
        let objects = listed.iter().map(|key| object(key, 5)).collect();
        let files = plan("", objects).unwrap().files;
        let due = in_order(&files, &[Step::Create, Step::Keep, Step::Download, Step::Download]);
        let steps: Vec<Step> = due.iter().map(|(_, step)| *step).collect();
        assert_eq!(steps, [Step::Download, Step::Download, Step::Keep, Step::Create]);
        let paths: Vec<&str> = due.iter().map(|(file, _)| file.path.as_str()).collect();
        assert_eq!(
            paths,
            ["t/day=1/a.parquet", "t/day=2/b.parquet", "t/_batches/a.json", "t/_SUCCESS"]
        );
    }

    #[test]
    fn what_does_not_belong_to_a_copy_is_removed() {
        let copy = TestCopy::new();
        copy.update(&[("a/1.csv", 5)]);
        let (files, outside) = (copy.folder.files(), tempfile::tempdir().unwrap());
        fs::create_dir(files.join("empty")).unwrap();
        fs::write(files.join("other.csv"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), files.join("b")).unwrap();
        assert_eq!(copy.update(&[("a/1.csv", 5), ("b/2.csv", 5)]), (1, 1));
        assert_eq!(copy.has(), ["a/", "a/1.csv", "b/", "b/2.csv"]);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn markers_of_folders_have_no_file_and_are_remembered() {
        let copy = TestCopy::new();
        let listed = || plan("", vec![object("a/1.csv", 5), object("day=1", 0)]).unwrap();
        let prepared = copy.prepare(listed());
        let [file, marker] = &prepared.downloads[..] else { panic!("{prepared:?}") };
        fs::write(&file.to, "12345").unwrap();
        let markers = HashSet::from([marker.at]);
        let published = publish(&copy.folder, prepared.clone(), &markers).unwrap();
        assert_eq!(published, Published { files: 1, removed: 0 });
        assert_eq!(copy.has(), ["a/", "a/1.csv"]);
        assert_eq!(copy.prepare(listed()).downloads, []);
    }
}
