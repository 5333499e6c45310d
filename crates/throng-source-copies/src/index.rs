//! What is known of the copied objects: a file beside the copy.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use throng_model::Timestamp;
use throng_objects::SourceObject;

use crate::CopyError;

/// The version of the file. A file of another one counts as damaged.
const VERSION: u32 = 1;

/// A file of a copy with the content of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedFile {
    /// The path in the folder of the copy: the key below the prefix.
    pub path: String,
    /// The store's identifier of its content; `None` if the store has none.
    pub etag: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// The time of the file.
    pub modified: Timestamp,
}

/// The object that a file is a copy of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Indexed {
    etag: Option<String>,
    bytes: u64,
    /// In microseconds since 1970.
    modified: i64,
    /// Whether it is the marker of a folder, which has no file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_folder: bool,
}

impl Indexed {
    pub(crate) fn of(object: &SourceObject, is_folder: bool) -> Self {
        let SourceObject { key: _, bytes, etag, modified } = object;
        Self { etag: etag.clone(), bytes: *bytes, modified: modified.0, is_folder }
    }

    /// Whether the object has the content that was copied.
    pub(crate) fn has_content_of(&self, object: &SourceObject) -> bool {
        let is_same = match (&self.etag, &object.etag) {
            (Some(copied), Some(listed)) => copied == listed,
            // Without an ETag the time is all that is known.
            (None, None) => self.modified == object.modified.0,
            _ => false,
        };
        is_same && self.bytes == object.bytes
    }

    /// The time of the object that was copied.
    pub(crate) fn modified(&self) -> Timestamp {
        Timestamp(self.modified)
    }
}

/// The copied objects by their paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    pub(crate) objects: BTreeMap<String, Indexed>,
}

impl Index {
    pub(crate) fn of(objects: BTreeMap<String, Indexed>) -> Self {
        Self { version: VERSION, objects }
    }

    /// The files, without markers of folders.
    pub(crate) fn into_files(self) -> Vec<CopiedFile> {
        let files = self.objects.into_iter().filter(|(_, indexed)| !indexed.is_folder);
        let file = |(path, indexed): (String, Indexed)| {
            let modified = indexed.modified();
            CopiedFile { path, etag: indexed.etag, bytes: indexed.bytes, modified }
        };
        files.map(file).collect()
    }

    /// Reads the file; `None` if there is none: nothing was ever copied. A damaged file is an empty index: everything
    /// is downloaded again.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, CopyError> {
        let file = match throng_fs::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CopyError::io("read", path)(error)),
        };
        let index: Result<Self, _> = serde_json::from_reader(BufReader::new(file));
        match index {
            Ok(index) if index.version == VERSION => Ok(Some(index)),
            Err(error) if error.is_io() => Err(CopyError::io("read", path)(error.into())),
            Ok(_) | Err(_) => {
                tracing::warn!(path = %path.display(), "the index of copied objects is damaged");
                Ok(Some(Self::of(BTreeMap::new())))
            }
        }
    }

    /// Replaces the file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), CopyError> {
        let temporary = path.with_added_extension("tmp");
        let write = || -> io::Result<()> {
            let mut writer = BufWriter::new(File::create(&temporary)?);
            serde_json::to_writer(&mut writer, self)?;
            writer.flush()?;
            writer.get_ref().sync_all()?;
            std::fs::rename(&temporary, path)
        };
        write().map_err(CopyError::io("write", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(etag: Option<&str>, bytes: u64, modified: i64) -> SourceObject {
        SourceObject {
            key: "e/a.csv".to_owned(),
            bytes,
            etag: etag.map(str::to_owned),
            modified: Timestamp(modified),
        }
    }

    #[test]
    fn an_object_has_changed_if_its_etag_or_its_size_has() {
        let indexed = Indexed::of(&object(Some("1"), 5, 7), false);
        assert!(indexed.has_content_of(&object(Some("1"), 5, 7)));
        assert!(indexed.has_content_of(&object(Some("1"), 5, 8)), "written again");
        assert!(!indexed.has_content_of(&object(Some("2"), 5, 7)));
        assert!(!indexed.has_content_of(&object(Some("1"), 6, 7)));
        assert!(!indexed.has_content_of(&object(None, 5, 7)));
        let without = Indexed::of(&object(None, 5, 7), false);
        assert!(without.has_content_of(&object(None, 5, 7)));
        assert!(!without.has_content_of(&object(None, 5, 8)));
    }

    #[test]
    fn a_damaged_index_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.json");
        assert_eq!(Index::read(&path).unwrap(), None);
        let mut index = Index::of(BTreeMap::new());
        index.objects.insert("a.csv".to_owned(), Indexed::of(&object(Some("1"), 5, 7), false));
        index.objects.insert("day=1".to_owned(), Indexed::of(&object(Some("2"), 0, 7), true));
        index.write(&path).unwrap();
        assert_eq!(Index::read(&path).unwrap(), Some(index.clone()));
        let (path_of_file, modified) = ("a.csv".to_owned(), Timestamp(7));
        let file =
            CopiedFile { path: path_of_file, etag: Some("1".to_owned()), bytes: 5, modified };
        assert_eq!(index.clone().into_files(), [file]);
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in
            [&text[..text.len() - 1], text.replace("\"version\":1", "\"version\":2").as_str()]
        {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(Index::read(&path).unwrap(), Some(Index::of(BTreeMap::new())));
        }
    }
}
