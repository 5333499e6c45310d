//! The state of the files of tables, without reading them: whether they have changed, and whether they are
//! complete.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use crate::discover::{DataFile, FileStamp};
use crate::error::FileError;
use crate::options::ReadOptions;

/// Part of every fingerprint. A new number if the same files mean other rows or other keys than
/// before: snapshots of earlier versions are then made again.
const FORMAT: u32 = 1;

/// Builds a fingerprint of files, table by table: 32 hexadecimal digits.
pub struct Fingerprint(Xxh3);

impl Default for Fingerprint {
    fn default() -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&FORMAT.to_le_bytes());
        Self(hasher)
    }
}

impl Fingerprint {
    fn text(&mut self, text: &[u8]) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    /// Adds a table with its files. The time of change of the inode is part of it: a file that
    /// replaces another one may have its size and its modification time.
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
        let ReadOptions { declared, trim, header } = options;
        self.text(format!("{declared:?} {trim} {header:?}").as_bytes());
        let mut files: Vec<&FileStamp> = files.collect();
        files.sort_unstable();
        self.0.update(&(files.len() as u64).to_le_bytes());
        for stamp in files {
            let fail = |source| FileError::Source { path: stamp.path.clone(), source };
            let metadata = std::fs::metadata(&stamp.path).map_err(fail)?;
            self.text(stamp.path.as_os_str().as_encoded_bytes());
            self.0.update(&stamp.bytes.to_le_bytes());
            self.0.update(&stamp.modified.to_le_bytes());
            self.0.update(&metadata.ctime().to_le_bytes());
            self.0.update(&metadata.ctime_nsec().to_le_bytes());
        }
        Ok(())
    }

    /// The digits.
    pub fn finish(self) -> String {
        format!("{:032x}", self.0.digest128())
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
