//! Removes the copies of buckets that are no longer a source.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;

use crate::folder::{CopyFolder, is_copy};
use crate::{SourceCopies, SourceOptions};

impl SourceCopies {
    /// Removes the copies that are of none of `kept`. One that is being updated stays until the next call; failures are
    /// logged. Blocks while files are removed.
    pub fn retain(&self, kept: &[SourceOptions]) {
        let kept: HashSet<_> =
            kept.iter().map(|source| CopyFolder::of(&self.folder, &source.bucket)).collect();
        for copy in self.existing().iter().filter(|copy| !kept.contains(*copy)) {
            self.remove(copy);
        }
    }

    /// The copies in the folder.
    pub(crate) fn existing(&self) -> Vec<CopyFolder> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|found| found.is_dir()));
        let copies = folders.filter(|entry| is_copy(&entry.file_name().to_string_lossy()));
        copies.map(|entry| CopyFolder::at(entry.path())).collect()
    }

    /// Removes a copy, unless it is being updated.
    pub(crate) fn remove(&self, copy: &CopyFolder) {
        let in_process = self.updates.lock().get(&copy.files()).cloned();
        let _in_process = match in_process.map(|lock| lock.try_lock_owned()) {
            Some(Err(_)) => return,
            Some(Ok(held)) => Some(held),
            None => None,
        };
        let Some(_file) = lock_file(&copy.lock()) else { return };
        let folder = copy.root();
        match fs::remove_dir_all(folder) {
            Ok(()) => tracing::info!(
                folder = %folder.display(),
                "removed the copy of a bucket"
            ),
            Err(error) => tracing::warn!(
                %error,
                folder = %folder.display(),
                "failed to remove the copy of a bucket"
            ),
        }
    }
}

/// A lock file, locked; `None` if somebody else has locked it, or its folder does not exist.
pub(crate) fn lock_file(path: &Path) -> Option<File> {
    let file = throng_fs::open_lock(path).ok()?;
    file.try_lock().is_ok().then_some(file)
}

#[cfg(test)]
mod tests {
    use throng_objects::{BucketOptions, Service};

    use super::*;

    fn source(bucket: &str) -> SourceOptions {
        let bucket = BucketOptions {
            service: Service::Gcs { service_account: None },
            bucket: bucket.to_owned(),
            prefix: String::new(),
            cache_bytes: 0,
        };
        SourceOptions { bucket, max_bytes: 1 }
    }

    #[tokio::test]
    async fn copies_of_no_source_are_removed_unless_they_are_being_updated() {
        let dir = tempfile::tempdir().unwrap();
        let copies = SourceCopies::new(dir.path().to_owned());
        let folder = |name: &str| CopyFolder::of(dir.path(), &source(name).bucket);
        let exists = |name: &str| folder(name).files().exists();
        for name in ["kept", "gone", "updated", "locked"] {
            folder(name).create().unwrap();
        }
        fs::create_dir(dir.path().join("notes")).unwrap();
        let updating = copies.start(&folder("updated")).await.unwrap();
        // By another process.
        let locked = lock_file(&folder("locked").lock()).unwrap();
        copies.retain(&[source("kept")]);
        assert!(exists("kept") && exists("updated") && exists("locked") && !exists("gone"));
        drop((updating, locked));
        copies.retain(&[source("kept")]);
        assert!(exists("kept") && !exists("updated") && !exists("locked"));
        assert!(dir.path().join("notes").exists());
    }
}
