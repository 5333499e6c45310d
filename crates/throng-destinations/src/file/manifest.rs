//! Files beside the batches: the owner of an audience, what a session has written so far, and the manifest of
//! a complete set. Encoding and decoding are pure.

use serde::{Deserialize, Serialize};

/// The version of these formats.
const FORMAT: u32 = 1;

/// The audience and owner of a folder: `audience.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    format: u32,
    pub(super) name: String,
    pub(super) owner: String,
}

impl About {
    pub(super) fn new(name: &str, owner: &str) -> Self {
        Self { format: FORMAT, name: name.to_owned(), owner: owner.to_owned() }
    }

    /// `None` if the bytes are not such a file.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|about: &Self| about.format == FORMAT)
    }
}

/// A file of a complete set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedFile {
    pub(super) name: String,
    pub(super) rows: u64,
    /// Its length.
    pub(super) bytes: u64,
    /// In 64 lower-case hexadecimal digits.
    pub(super) sha256: String,
}

/// The complete set of an audience: `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    /// The run that sent the set. Files of later runs change it.
    pub(super) run: i64,
    pub(super) columns: Vec<String>,
    /// The rows of all files.
    pub(super) rows: u64,
    pub(super) files: Vec<NamedFile>,
}

impl Manifest {
    pub(super) fn new(run: i64, columns: Vec<String>, files: Vec<NamedFile>) -> Self {
        let rows = files.iter().map(|file| file.rows).sum();
        Self { format: FORMAT, run, columns, rows, files }
    }

    /// `None` if the bytes are not such a file.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|manifest: &Self| manifest.format == FORMAT)
    }
}

/// The first line of a session file; each later line is a [`NamedFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionStart {
    pub(super) session: i64,
    pub(super) run: i64,
}

impl SessionStart {
    /// The maximum length of its line.
    pub(super) const MAX_BYTES: u64 = 128;

    /// Whether a session file, or the beginning of one, starts with this line.
    pub(super) fn is_start_of(self, bytes: &[u8]) -> bool {
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        serde_json::from_slice(first).is_ok_and(|found: Self| found == self)
    }
}

/// Encodes a value as a line.
pub(super) fn line(value: &impl Serialize) -> Result<Vec<u8>, std::io::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// The files that a session file lists, by the last line of each name. `None` if a line is truncated or
/// invalid.
pub(super) fn files_of(session: &[u8]) -> Option<Vec<NamedFile>> {
    let text = std::str::from_utf8(session).ok()?.strip_suffix('\n')?;
    let mut files = std::collections::BTreeMap::new();
    for line in text.lines().skip(1) {
        let file: NamedFile = serde_json::from_str(line).ok()?;
        files.insert(file.name.clone(), file);
    }
    Some(files.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, rows: u64) -> NamedFile {
        NamedFile { name: name.to_owned(), rows, bytes: rows * 65, sha256: "ab".repeat(32) }
    }

    #[test]
    fn a_session_is_identified_by_its_start_and_lists_its_files_in_order() {
        let start = SessionStart { session: i64::MAX, run: i64::MAX };
        let mut bytes = line(&start).unwrap();
        assert!((bytes.len() as u64) < SessionStart::MAX_BYTES);
        assert_eq!(files_of(&bytes), Some(Vec::new()));
        for named in [file("b", 1), file("a", 2), file("b", 3)] {
            bytes.extend(line(&named).unwrap());
        }
        assert!(start.is_start_of(&bytes) && start.is_start_of(&bytes[..100]));
        assert!(!SessionStart { run: 7, ..start }.is_start_of(&bytes) && !start.is_start_of(b""));
        assert_eq!(files_of(&bytes), Some(vec![file("a", 2), file("b", 3)]));
        assert_eq!(files_of(&bytes[..bytes.len() - 1]), None, "its last line is truncated");
        assert_eq!(files_of(b"{}\nx\n"), None);
    }

    #[test]
    fn manifests_are_read_as_they_were_written() {
        let columns = vec!["EMAIL".to_owned()];
        let manifest = Manifest::new(12, columns, vec![file("a", 2), file("b", 3)]);
        assert_eq!(manifest.rows, 5);
        let text = serde_json::to_string(&manifest).unwrap();
        assert!(text.starts_with(
            r#"{"format":1,"run":12,"columns":["EMAIL"],"rows":5,"files":[{"name":"a","rows":2,"bytes":130,"sha256":""#
        ));
        assert_eq!(Manifest::read(text.as_bytes()), Some(manifest));
        for other in ["", "{}", &text.replace("\"format\":1", "\"format\":2")] {
            assert_eq!(Manifest::read(other.as_bytes()), None);
        }
        let about = About::new("throng: a", "0123456789abcdef");
        assert_eq!(About::read(&line(&about).unwrap()), Some(about));
    }
}
