//! The state of the files of tables, without reading them: whether they have changed, and whether they are
//! complete.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use throng_model::Timestamp;
use xxhash_rust::xxh3::Xxh3;

use crate::discover::DataFile;
use crate::error::FileError;
use crate::options::ReadOptions;
use crate::stamp::FileStamp;

/// Part of every fingerprint. A new number if the same files mean other rows or other keys than
/// before: snapshots of earlier versions are then made again. 2: times of the type INT96 after 2262.
/// 3: a file under several names counts once, and an empty key is none. 4: a key that stands for a missing value or
/// shows nothing is none, and `trim` removes invisible characters.
const FORMAT: u32 = 4;

/// For how long a file whose times are whole seconds may change again without another time: a second, and the
/// difference of the clocks of this machine and of its file server.
const UNSETTLED_NANOS: u64 = 60 * NANOS;
const NANOS: u64 = 1_000_000_000;

/// Builds a fingerprint of files, table by table: 32 hexadecimal digits.
pub struct Fingerprint {
    hasher: Xxh3,
    /// In nanoseconds since 1970.
    now: u64,
    is_unsettled: bool,
}

/// Whether a file may change again without another time. File systems of buckets and of other machines may have
/// whole seconds only.
fn is_unsettled(modified: u64, (changed, changed_nanos): (i64, i64), now: u64) -> bool {
    let is_coarse = modified.is_multiple_of(NANOS) && changed_nanos == 0;
    let changed = u64::try_from(changed).unwrap_or(0).saturating_mul(NANOS);
    // A time further in the future is a wrong one, and would never pass.
    is_coarse && modified.max(changed).abs_diff(now) < UNSETTLED_NANOS
}

impl Fingerprint {
    /// Of files as they are now.
    pub fn at(now: Timestamp) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&FORMAT.to_le_bytes());
        let now = u64::try_from(now.0).unwrap_or(0).saturating_mul(1_000);
        Self { hasher, now, is_unsettled: false }
    }

    fn text(&mut self, text: &[u8]) {
        self.hasher.update(&(text.len() as u64).to_le_bytes());
        self.hasher.update(text);
    }

    /// Adds a table with its files. The time of change of the inode is part of it: a file that
    /// replaces another one may have its size and its modification time. Not that of a copy, which differs between
    /// nodes: an object that replaces another one has a later time.
    ///
    /// # Errors
    /// [`FileError::Source`] if a file is missing by now.
    pub fn add<'a>(
        &mut self,
        table: &str,
        options: &ReadOptions,
        files: impl Iterator<Item = &'a FileStamp>,
    ) -> Result<(), FileError> {
        self.text(table.as_bytes());
        // A declared type decides which values are keys.
        let ReadOptions { declared, trim, header, copied } = options;
        self.text(format!("{declared:?} {trim} {header:?}").as_bytes());
        let mut files: Vec<&FileStamp> = files.collect();
        files.sort_unstable();
        self.hasher.update(&(files.len() as u64).to_le_bytes());
        for stamp in files {
            let fail = |source| FileError::Source { path: stamp.path.clone(), source };
            let metadata = std::fs::metadata(&stamp.path).map_err(fail)?;
            self.text(stamp.path.as_os_str().as_encoded_bytes());
            self.hasher.update(&stamp.bytes.to_le_bytes());
            self.hasher.update(&stamp.modified.to_le_bytes());
            let changed = match copied {
                true => (0, 0),
                false => (metadata.ctime(), metadata.ctime_nsec()),
            };
            self.hasher.update(&changed.0.to_le_bytes());
            self.hasher.update(&changed.1.to_le_bytes());
            self.is_unsettled |= is_unsettled(stamp.modified, changed, self.now);
        }
        Ok(())
    }

    /// The digits. With a file that may change again without another time they are those of no other fingerprint.
    pub fn finish(mut self) -> String {
        if self.is_unsettled {
            self.hasher.update(&self.now.to_le_bytes());
        }
        format!("{:032x}", self.hasher.digest128())
    }
}

/// The first file that has no success file of its own age or newer, in its folder or in one above it
/// within the source.
pub fn first_incomplete<'a>(
    source: &Path,
    files: &'a [DataFile],
    success_file: &str,
) -> Option<&'a Path> {
    // By folder: tables have many files in few folders.
    let mut newest: HashMap<&Path, Option<u64>> = HashMap::new();
    let mut written = |folder: &'a Path| {
        *newest.entry(folder).or_insert_with(|| {
            let within = folder.ancestors().take_while(|above| above.starts_with(source));
            let stamps = within.filter_map(|above| FileStamp::of(&above.join(success_file)).ok());
            stamps.map(|stamp| stamp.modified).max()
        })
    };
    let mut complete =
        |file: &'a DataFile| written(file.path().parent()?).filter(|at| *at >= file.stamp.modified);
    files.iter().find(|file| complete(file).is_none()).map(DataFile::path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_with_whole_seconds_is_not_settled() {
        let (second, now) = (1_795_600_800_i64, 1_795_600_800 * NANOS + 5);
        let modified = second.unsigned_abs() * NANOS;
        assert!(is_unsettled(modified, (second, 0), now));
        assert!(is_unsettled(modified + 2 * NANOS, (second, 0), now));
        assert!(!is_unsettled(modified + 7200 * NANOS, (second, 0), now));
        assert!(!is_unsettled(modified, (second, 0), now + 60 * NANOS));
        // A file system with finer times.
        assert!(!is_unsettled(modified + 1, (second, 0), now));
        assert!(!is_unsettled(modified, (second, 1), now));
    }

    #[test]
    fn a_fingerprint_with_a_file_that_is_not_settled_is_like_no_other() {
        let finish = |now: i64, is_unsettled| {
            let fingerprint = Fingerprint::at(Timestamp(now));
            Fingerprint { is_unsettled, ..fingerprint }.finish()
        };
        assert_eq!(finish(1, false), finish(2, false));
        assert_ne!(finish(1, true), finish(2, true));
        assert_ne!(finish(1, true), finish(1, false));
    }
    #[test]
    fn copies_of_one_object_on_two_nodes_have_one_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.csv");
        let modified = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(NANOS + 5);
        // Each writing is another inode's time of change; the time of the object stays.
        let fingerprint = |copied: bool| {
            std::fs::write(&path, "id\n1\n").unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(modified).unwrap();
            let before = FileStamp::of(&path).unwrap();
            let options = ReadOptions { copied, ..ReadOptions::default() };
            let mut fingerprint = Fingerprint::at(Timestamp(0));
            fingerprint.add("lake.t", &options, [&before].into_iter()).unwrap();
            (std::fs::metadata(&path).unwrap(), fingerprint.finish())
        };
        let (first, copied) = fingerprint(true);
        let mut last = fingerprint(true);
        let changed = |metadata: &std::fs::Metadata| (metadata.ctime(), metadata.ctime_nsec());
        while changed(&last.0) == changed(&first) {
            last = fingerprint(true);
        }
        assert_eq!(copied, last.1);
        assert_ne!(copied, fingerprint(false).1);
    }
}
