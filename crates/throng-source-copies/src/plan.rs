//! Which objects are copied, and under which names. Pure.

use std::collections::{BTreeSet, HashSet};

use sha2::{Digest, Sha256};
use throng_files::{
    BATCHES_FOLDER, FileKind, ICEBERG_FOLDER, MANIFEST_ENDING, file_kind, is_iceberg_metadata,
    passed_over_by_name,
};
use throng_model::Timestamp;
use throng_objects::SourceObject;

/// A second in microseconds.
const SECOND: i64 = 1_000_000;
/// The longest name of a file on the file systems of Linux, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// What a copy has of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// All of it.
    Object,
    /// Nothing: only its name, its size and its time count. It is listed as passed over, refused by its name, or it is a
    /// success file.
    Empty,
}

/// A file of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedFile {
    /// Relative to the folder of the copied objects.
    pub(crate) path: String,
    pub(crate) content: Content,
    pub(crate) object: SourceObject,
}

/// What a copy has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In the order of their paths.
    pub(crate) files: Vec<PlannedFile>,
    /// Folders whose objects are not copied, and which count as folders: they are listed as passed over, or say that
    /// a folder is a table of a format that is not read.
    pub(crate) folders: BTreeSet<String>,
    /// The size of the copied content.
    pub(crate) bytes: u64,
}

/// An object that cannot be a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RefusedKey {
    pub(crate) key: String,
    pub(crate) why: &'static str,
}

/// Plans the copy of the objects below a prefix. They are in the order of their keys; keys of folder markers are
/// without the `/` at their end.
pub(crate) fn plan(prefix: &str, objects: Vec<SourceObject>) -> Result<Plan, RefusedKey> {
    let are_folders = are_folders(prefix, &objects);
    let mut plan = Plan::default();
    for (mut object, is_folder) in objects.into_iter().zip(are_folders) {
        let path = below(prefix, &object.key);
        // The marker of the prefix, of a folder with objects, or an empty object of the same name: no rows are lost.
        if is_folder && object.bytes == 0 {
            continue;
        }
        let refused = if is_folder {
            Some("there are other objects below it, and a file cannot also be a folder")
        } else {
            unusable_name(path)
        };
        if let Some(why) = refused {
            return Err(RefusedKey { key: object.key, why });
        }
        let path = path.to_owned();
        let content = match placement(&path, object.bytes) {
            Placement::File(content) => content,
            Placement::Below(folder) => {
                plan.folders.insert(folder.to_owned());
                continue;
            }
        };
        object.modified = file_time(&object, content);
        add(&mut plan.files, PlannedFile { path, content, object })?;
    }
    let copied = plan.files.iter().filter(|file| file.content == Content::Object);
    plan.bytes = copied.map(|file| file.object.bytes).fold(0, u64::saturating_add);
    Ok(plan)
}

/// The time of a file: the second of its object, and within it the hash of the ETag. Buckets have times of whole seconds,
/// in which an object can be replaced by one of its size; that is seen in the time of the file, on all nodes alike. Files
/// without content are the last of their second: a success file is as new as the objects of the same second.
fn file_time(object: &SourceObject, content: Content) -> Timestamp {
    let second = object.modified.0.div_euclid(SECOND).saturating_mul(SECOND);
    let within = match (content, &object.etag) {
        (Content::Object, Some(etag)) if object.bytes > 0 => {
            let digest: [u8; 32] = Sha256::digest(etag.as_bytes()).into();
            let start = digest.first_chunk().map_or(0, |start| u32::from_le_bytes(*start));
            1 + i64::from(start) % (SECOND - 2)
        }
        // Without an ETag the time is all that is known.
        (Content::Object, None) if object.bytes > 0 => return object.modified,
        _ => SECOND - 1,
    };
    Timestamp(second.saturating_add(within))
}

/// Adds a file. An object and the marker of an empty folder may have one name: the object counts.
fn add(files: &mut Vec<PlannedFile>, file: PlannedFile) -> Result<(), RefusedKey> {
    match files.last_mut().filter(|last| last.path == file.path) {
        None => files.push(file),
        Some(_) if file.object.bytes == 0 => {}
        Some(last) if last.object.bytes == 0 => *last = file,
        Some(_) => {
            let why = "there are two objects of this name, one with a `/` at an end of its key";
            return Err(RefusedKey { key: file.object.key, why });
        }
    }
    Ok(())
}

/// The part of a key below the prefix.
fn below<'a>(prefix: &str, key: &'a str) -> &'a str {
    let rest = key.strip_prefix(prefix).unwrap_or(key);
    rest.strip_prefix('/').unwrap_or(rest)
}

/// For each object whether it has the name of a folder with objects, or of the prefix.
fn are_folders(prefix: &str, objects: &[SourceObject]) -> Vec<bool> {
    let mut folders = HashSet::from([""]);
    for object in objects {
        let mut path = below(prefix, &object.key);
        while let Some((folder, _)) = path.rsplit_once('/') {
            if !folders.insert(folder) {
                break;
            }
            path = folder;
        }
    }
    objects.iter().map(|object| folders.contains(below(prefix, &object.key))).collect()
}

/// Why a path cannot be one of a file.
fn unusable_name(path: &str) -> Option<&'static str> {
    path.split('/').find_map(|part| match part {
        "" => Some("a part of it is empty"),
        "." | ".." => Some("a part of it is `.` or `..`"),
        part if part.contains('\0') => Some("it has a NUL character"),
        part if part.len() > MAX_NAME_BYTES => Some("a part of it is longer than 255 bytes"),
        _ => None,
    })
}

/// Whether a path is that of a manifest, which says which files are rows of its table.
pub(crate) fn is_manifest(path: &str) -> bool {
    let mut parts = path.split('/');
    let folders = (parts.next(), parts.next());
    let name = match (folders, parts.next(), parts.next()) {
        ((Some(_), Some(BATCHES_FOLDER)), Some(name), None) => name,
        _ => return false,
    };
    !name.starts_with('.') && name.ends_with(MANIFEST_ENDING)
}

/// What becomes of an object.
enum Placement<'a> {
    /// A file.
    File(Content),
    /// No file: it is in this folder, which is passed over.
    Below(&'a str),
}

fn placement(path: &str, bytes: u64) -> Placement<'_> {
    let parts: Vec<&str> = path.split('/').collect();
    let Some((name, above)) = parts.split_last() else { return Placement::File(Content::Empty) };
    if is_manifest(path) {
        return Placement::File(Content::Object);
    }
    let mut end = 0;
    for folder in above {
        end += folder.len();
        if passed_over_by_name(folder).is_some() {
            return Placement::Below(&path[..end]);
        }
        end += 1;
    }
    if passed_over_by_name(name).is_some() {
        return Placement::File(Content::Empty);
    }
    if above.last() == Some(&ICEBERG_FOLDER) && is_iceberg_metadata(name) {
        return Placement::File(Content::Empty);
    }
    Placement::File(match file_kind(name) {
        FileKind::Data { .. } => Content::Object,
        // The listing does not say whether it is the marker of a folder without objects. Reading it does.
        _ if bytes == 0 => Content::Object,
        FileKind::Unreadable { .. } | FileKind::Other => Content::Empty,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(listed: &[(&str, u64)]) -> Vec<SourceObject> {
        let mut objects: Vec<SourceObject> = listed
            .iter()
            .map(|(key, bytes)| SourceObject {
                key: (*key).to_owned(),
                bytes: *bytes,
                etag: Some("e".to_owned()),
                modified: Timestamp(1),
            })
            .collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        objects
    }

    /// The planned files; `=` is before those without content.
    fn planned(prefix: &str, listed: &[(&str, u64)]) -> Vec<String> {
        let plan = plan(prefix, objects(listed)).unwrap();
        let shown = |file: &PlannedFile| match file.content {
            Content::Object => file.path.clone(),
            Content::Empty => format!("={}", file.path),
        };
        plan.files.iter().map(shown).collect()
    }

    #[test]
    fn objects_with_rows_are_copied_and_others_only_by_name() {
        let listed = [
            ("e/users/1.parquet", 10),
            ("e/users/day=2026%3A1/2.csv.gz", 20),
            ("e/users/_SUCCESS", 3),
            ("e/users/.1.parquet.crc", 4),
            ("e/users/notes.txt", 5),
            ("e/users/3.csv.zst", 6),
            ("e/READY", 7),
            ("e/~$a.csv", 8),
        ];
        assert_eq!(
            planned("e", &listed),
            [
                "=READY",
                "=users/.1.parquet.crc",
                "users/1.parquet",
                "=users/3.csv.zst",
                "=users/_SUCCESS",
                "users/day=2026%3A1/2.csv.gz",
                "=users/notes.txt",
                "=~$a.csv",
            ]
        );
        assert_eq!(plan("e", objects(&listed)).unwrap().bytes, 30);
        assert_eq!(planned("", &[("a.csv", 1), ("b/c.csv", 1)]), ["a.csv", "b/c.csv"]);
    }

    #[test]
    fn folders_of_table_formats_are_recognised_without_their_objects() {
        let listed = [
            ("e/d/1.parquet", 1),
            ("e/d/_delta_log/0.json", 100),
            ("e/h/.hoodie/x/hoodie.properties", 100),
            ("e/i/metadata/v1.metadata.json", 100),
            ("e/i/metadata/version-hint.text", 100),
            ("e/i/metadata/other.json", 2),
        ];
        let found = plan("e", objects(&listed)).unwrap();
        assert_eq!(found.folders.iter().collect::<Vec<_>>(), ["d/_delta_log", "h/.hoodie"]);
        assert_eq!(found.bytes, 3);
        assert_eq!(
            planned("e", &listed),
            [
                "d/1.parquet",
                "i/metadata/other.json",
                "=i/metadata/v1.metadata.json",
                "=i/metadata/version-hint.text",
            ]
        );
    }

    #[test]
    fn manifests_of_batches_are_copied() {
        let listed = [
            ("e/t/_batches/1.json", 1),
            ("e/t/_batches/.2.json", 1),
            ("e/t/.staging/x.parquet", 1),
            ("e/_batches/1.json", 1),
        ];
        let found = plan("e", objects(&listed)).unwrap();
        assert_eq!(planned("e", &listed), ["t/_batches/1.json"]);
        let folders: Vec<&String> = found.folders.iter().collect();
        assert_eq!(folders, ["_batches", "t/.staging", "t/_batches"]);
    }

    #[test]
    fn empty_folder_markers_are_not_files() {
        let listed = [("e", 0), ("e/day=1", 0), ("e/day=1/a.csv", 1), ("e/day=2", 0)];
        // Whether the last one is a marker is seen when it is read.
        assert_eq!(planned("e", &listed), ["day=1/a.csv", "day=2"]);
        // An object and the marker of a folder of the same name, in either order.
        for bytes in [[0, 5], [5, 0]] {
            let listed = bytes.map(|bytes| ("e/a.csv", bytes));
            let found = plan("e", objects(&listed)).unwrap();
            let sizes: Vec<u64> = found.files.iter().map(|file| file.object.bytes).collect();
            assert_eq!(sizes, [5]);
        }
    }

    #[test]
    fn a_file_has_the_second_of_its_object_and_another_time_for_another_content() {
        let time = |bytes, etag: Option<&str>, modified, content| {
            let (key, etag) = ("a.csv".to_owned(), etag.map(str::to_owned));
            let modified = Timestamp(modified);
            file_time(&SourceObject { key, bytes, etag, modified }, content).0
        };
        let at = 1_795_600_800 * SECOND;
        let first = time(5, Some("\"1\""), at, Content::Object);
        // The same second with the fractions that another listing may have.
        assert_eq!(first, time(5, Some("\"1\""), at + 999_000, Content::Object));
        assert_ne!(first, time(5, Some("\"2\""), at, Content::Object));
        let success = time(0, Some("\"3\""), at, Content::Empty);
        assert_eq!(success, time(0, None, at, Content::Object));
        assert!((at + 1..success).contains(&first), "{first}");
        assert_eq!(time(5, None, at + 7, Content::Object), at + 7);
        // A listing with a time that cannot be.
        time(5, Some("e"), i64::MIN, Content::Object);
        time(5, Some("e"), i64::MAX, Content::Object);
    }

    #[test]
    fn objects_that_cannot_be_files_are_refused_by_key() {
        let long = format!("e/{}.csv", "x".repeat(252));
        let folder = format!("e/{}/a.csv", "y".repeat(256));
        for (listed, key, why) in [
            (vec![("e/a", 1), ("e/a/b.csv", 1)], "e/a", "cannot also be a folder"),
            (vec![("e", 1), ("e/b.csv", 1)], "e", "cannot also be a folder"),
            (vec![("e/a.csv", 1), ("e/a.csv", 2)], "e/a.csv", "two objects"),
            (vec![("e/a//b.csv", 1)], "e/a//b.csv", "empty"),
            (vec![("e/../b.csv", 1)], "e/../b.csv", "`..`"),
            (vec![("e/./b.csv", 1)], "e/./b.csv", "`.`"),
            (vec![("e/\0.csv", 1)], "e/\0.csv", "NUL"),
            (vec![(long.as_str(), 1)], long.as_str(), "255 bytes"),
            (vec![(folder.as_str(), 1)], folder.as_str(), "255 bytes"),
        ] {
            let refused = plan("e", objects(&listed)).unwrap_err();
            assert_eq!(refused.key, key);
            assert!(refused.why.contains(why), "{key}: {}", refused.why);
        }
        let longest = format!("e/{}.csv", "x".repeat(251));
        assert!(plan("e", objects(&[(longest.as_str(), 1)])).is_ok());
    }
}
