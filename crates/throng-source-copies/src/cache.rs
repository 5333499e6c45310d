//! A folder of copies that stays when the process ends, and is used by several, such as those of commands: it is kept
//! within bounds.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use throng_model::Timestamp;

use crate::folder::{CopyFolder, create};
use crate::local::{LocalTree, system_time};
use crate::retain::lock_file;
use crate::{CopyError, SourceCopies, SourceOptions};

/// The lock file of a folder of copies: whoever uses them shares the lock, and whoever removes some has it alone.
const LOCK: &str = "lock";

/// What stays in a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheBounds {
    /// The most bytes of all copies.
    pub max_bytes: u64,
    /// For how long a copy stays that is not used.
    pub max_unused: Duration,
}

/// The copies of a folder are in use: [`SourceCopies::trim`] of no process removes any. Ends when it is dropped, or with
/// the process, however that ends.
#[derive(Debug)]
pub struct CacheUse {
    _file: File,
}

impl SourceCopies {
    /// Begins to use the copies of the folder. Waits while another process removes some. Blocks.
    ///
    /// # Errors
    /// [`CopyError::Io`].
    pub fn begin_use(&self) -> Result<CacheUse, CopyError> {
        create(&self.folder)?;
        let path = self.folder.join(LOCK);
        let opened = throng_fs::open_lock(&path);
        let file = opened.map_err(CopyError::io("open", &path))?;
        file.lock_shared().map_err(CopyError::io("lock", &path))?;
        Ok(CacheUse { _file: file })
    }

    /// Notes that a copy is used at this time, and creates its folder.
    ///
    /// # Errors
    /// [`CopyError::Io`].
    pub fn mark_used(&self, source: &SourceOptions, now: Timestamp) -> Result<(), CopyError> {
        let copy = CopyFolder::of(&self.folder, &source.bucket);
        copy.create()?;
        let path = copy.used();
        let marked = File::create(&path).and_then(|file| file.set_modified(system_time(now)));
        marked.map_err(CopyError::io("write", &path))
    }

    /// Removes copies that were not used for long, and those that were used first, until the others are within the bounds.
    /// Does nothing while a process uses the folder, this one included. Failures are logged. Blocks.
    pub fn trim(&self, bounds: CacheBounds, now: Timestamp) {
        let Some(_alone) = lock_file(&self.folder.join(LOCK)) else { return };
        let copies = self.existing();
        let sizes = copies.iter().map(|copy| (last_use(copy), bytes_of(copy.root())));
        let surplus = surplus(&sizes.collect::<Vec<_>>(), bounds, system_time(now));
        for (_, copy) in copies.iter().enumerate().filter(|(at, _)| surplus.contains(at)) {
            self.remove(copy);
        }
    }
}

/// Which of these copies are removed, given the time of their last use and their bytes. Pure.
fn surplus(copies: &[(SystemTime, u64)], bounds: CacheBounds, now: SystemTime) -> BTreeSet<usize> {
    let oldest = now.checked_sub(bounds.max_unused).unwrap_or(UNIX_EPOCH);
    let mut last_first: Vec<_> = copies.iter().enumerate().collect();
    last_first.sort_by_key(|(_, (used, _))| Reverse(*used));
    let mut kept_bytes = 0_u64;
    let mut surplus = BTreeSet::new();
    for (at, (used, bytes)) in last_first {
        let bytes = kept_bytes.saturating_add(*bytes);
        if *used < oldest || bytes > bounds.max_bytes {
            surplus.insert(at);
        } else {
            kept_bytes = bytes;
        }
    }
    surplus
}

/// When a copy was used last; if that was not noted, when something in it was created.
fn last_use(copy: &CopyFolder) -> SystemTime {
    let modified = |path: &Path| fs::metadata(path).and_then(|found| found.modified());
    modified(&copy.used()).or_else(|_| modified(copy.root())).unwrap_or(UNIX_EPOCH)
}

/// The size of a copy with its downloads. One that cannot be read does not fit.
fn bytes_of(root: &Path) -> u64 {
    LocalTree::read(root).map_or(u64::MAX, |tree| tree.disk_bytes())
}

#[cfg(test)]
mod tests {
    use throng_objects::{BucketOptions, Service};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const NOW: Timestamp = Timestamp(1_795_600_800_000_000);
    const BOUNDS: CacheBounds = CacheBounds { max_bytes: 100_000, max_unused: HOUR };

    fn source(bucket: &str) -> SourceOptions {
        let bucket = BucketOptions {
            service: Service::Gcs { service_account: None },
            bucket: bucket.to_owned(),
            prefix: String::new(),
            cache_bytes: 0,
        };
        SourceOptions { bucket, max_bytes: 1 }
    }

    /// Copies that were used that many minutes ago.
    fn cache(dir: &Path, copies: &[(&str, u64)]) -> SourceCopies {
        let cache = SourceCopies::new(dir.join("sources"));
        for (name, minutes) in copies {
            let used = NOW.minus(Duration::from_secs(60 * minutes));
            cache.mark_used(&source(name), used).unwrap();
            fs::write(cache.folder_of(&source(name)).join("a.csv"), "x").unwrap();
        }
        cache
    }

    fn has(cache: &SourceCopies, name: &str) -> bool {
        cache.folder_of(&source(name)).exists()
    }

    #[test]
    fn copies_that_were_not_used_for_long_and_too_many_of_the_others_are_removed() {
        let now = system_time(NOW);
        let removed = |copies: &[(u64, u64)], max_bytes: u64| {
            let copies = copies.iter().map(|(minutes, bytes)| {
                (now.checked_sub(Duration::from_secs(60 * minutes)).unwrap(), *bytes)
            });
            let bounds = CacheBounds { max_bytes, ..BOUNDS };
            surplus(&copies.collect::<Vec<_>>(), bounds, now).into_iter().collect::<Vec<_>>()
        };
        let copies = [(50, 60_000), (61, 1), (1, 60_000), (60, 5_000)];
        assert_eq!(removed(&copies, u64::MAX), [1]);
        // The one that was used before does not fit, and a smaller one still does.
        assert_eq!(removed(&copies, 100_000), [0, 1]);
        assert_eq!(removed(&copies, 64_999), [0, 1, 3]);
        assert_eq!(removed(&copies, 120_000), [1, 3]);
        // One that is larger than all may be is removed, also if it was used just now.
        assert_eq!(removed(&copies, 59_999), [0, 1, 2]);
        assert_eq!(removed(&[(1, u64::MAX), (2, u64::MAX)], u64::MAX), [1; 0]);
    }

    #[test]
    fn the_copies_that_were_not_used_for_long_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), &[("old", 61), ("new", 59), ("other", 62)]);
        cache.trim(CacheBounds { max_bytes: u64::MAX, ..BOUNDS }, NOW);
        assert!(!has(&cache, "old") && has(&cache, "new") && !has(&cache, "other"));
    }

    #[test]
    fn nothing_is_removed_while_the_copies_are_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), &[("old", 61)]);
        // As another process has them.
        let (first, second) = (cache.begin_use().unwrap(), cache.begin_use().unwrap());
        cache.trim(BOUNDS, NOW);
        drop(first);
        cache.trim(BOUNDS, NOW);
        assert!(has(&cache, "old"));
        drop(second);
        cache.trim(BOUNDS, NOW);
        assert!(!has(&cache, "old"));
    }

    #[test]
    fn a_folder_that_does_not_exist_is_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let cache = SourceCopies::new(dir.path().join("sources"));
        cache.trim(BOUNDS, NOW);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
