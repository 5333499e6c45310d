//! What is written beside the batches: whose an audience is, what a session has written so far, and the
//! manifest of a complete set. The forms are pure.

use serde::{Deserialize, Serialize};

/// The version of these forms.
const FORMAT: u32 = 1;

/// Whose an audience's folder is: `audience.json`.
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

    /// `None` if the bytes are something else.
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
    /// The run that sent it. Files of later runs change it.
    pub(super) run: i64,
    pub(super) columns: Vec<String>,
    /// Of all files.
    pub(super) rows: u64,
    pub(super) files: Vec<NamedFile>,
}

impl Manifest {
    pub(super) fn new(run: i64, columns: Vec<String>, files: Vec<NamedFile>) -> Self {
        let rows = files.iter().map(|file| file.rows).sum();
        Self { format: FORMAT, run, columns, rows, files }
    }

    /// `None` if the bytes are something else.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|manifest: &Self| manifest.format == FORMAT)
    }
}

/// The first line of a session's file; a [`NamedFile`] in each line after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionStart {
    pub(super) session: i64,
    pub(super) run: i64,
}

impl SessionStart {
    /// How many bytes its line has at most.
    pub(super) const LONGEST: u64 = 128;

    /// Whether a session's file, or the beginning of one, begins with this.
    pub(super) fn begins(self, bytes: &[u8]) -> bool {
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        serde_json::from_slice(first).is_ok_and(|found: Self| found == self)
    }
}

/// Appends a value as a line.
pub(super) fn line(value: &impl Serialize) -> Result<Vec<u8>, std::io::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// The files of a session's file, the last line of each name. `None` if a line is cut off or something
/// else.
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
    fn a_session_is_known_by_its_start_and_lists_its_files_in_order() {
        let start = SessionStart { session: i64::MAX, run: i64::MAX };
        let mut bytes = line(&start).unwrap();
        assert!((bytes.len() as u64) < SessionStart::LONGEST);
        assert_eq!(files_of(&bytes), Some(Vec::new()));
        for named in [file("b", 1), file("a", 2), file("b", 3)] {
            bytes.extend(line(&named).unwrap());
        }
        assert!(start.begins(&bytes) && start.begins(&bytes[..100]));
        assert!(!SessionStart { run: 7, ..start }.begins(&bytes) && !start.begins(b""));
        assert_eq!(files_of(&bytes), Some(vec![file("a", 2), file("b", 3)]));
        assert_eq!(files_of(&bytes[..bytes.len() - 1]), None, "its last line is cut off");
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
