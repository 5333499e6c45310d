//! Faults of files, without values of the data.

use std::path::{Path, PathBuf};

/// Why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    path: PathBuf,
    /// From 1.
    line: Option<u64>,
    text: String,
    help: &'static str,
    /// The number of the system's error, if it is one of the system and not of what the file contains.
    system: Option<i32>,
}

impl std::fmt::Display for FileFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.text)
    }
}

impl std::error::Error for FileFault {}

impl FileFault {
    /// A fault of a file; `text` must not contain a value of the data.
    pub fn new(path: &Path, line: Option<u64>, text: impl Into<String>) -> Self {
        let (path, text) = (path.to_owned(), text.into());
        Self { path, line, text, help: "correct the file", system: None }
    }

    /// Sets the hint.
    pub fn with_help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    /// An error of the system, or of the decompression.
    pub fn io(path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let (text, system) = match error.kind() {
            ErrorKind::UnexpectedEof if path.extension().is_some_and(|ending| ending == "gz") => {
                ("it ends too early, or other bytes follow its compressed content".to_owned(), None)
            }
            ErrorKind::UnexpectedEof => ("it ends too early".to_owned(), None),
            ErrorKind::InvalidInput | ErrorKind::InvalidData => ("it is damaged".to_owned(), None),
            kind => (format!("it cannot be read: {kind}"), error.raw_os_error()),
        };
        Self { system, ..Self::new(path, None, text).with_help("write the file again") }
    }

    /// The error of the system, if it is one.
    pub(crate) fn system(&self) -> Option<(PathBuf, std::io::Error)> {
        let source = std::io::Error::from_raw_os_error(self.system?);
        Some((self.path.clone(), source))
    }

    /// How to fix it.
    pub fn help(&self) -> &'static str {
        self.help
    }
}

#[cfg(test)]
mod tests {
    use throng_model::{Fault, Retry};

    use super::*;
    use crate::FileError;

    #[test]
    fn an_error_of_the_system_is_tried_again_and_a_damaged_file_is_not() {
        let of = |error: std::io::Error| {
            let error = FileError::from(FileFault::io(Path::new("/lake/a.csv.gz"), &error));
            (error.fault(), error.retry())
        };
        // EIO and ESTALE.
        for code in [5, 116] {
            let error = std::io::Error::from_raw_os_error(code);
            assert_eq!(of(error), (Fault::External, Retry::Backoff), "{code}");
        }
        let damaged = std::io::ErrorKind::InvalidData.into();
        assert_eq!(of(damaged), (Fault::User, Retry::Never));
    }

    #[test]
    fn a_compressed_file_that_ends_early_may_have_other_bytes_behind_its_content() {
        let end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let text = |path: &str| FileError::from(FileFault::io(Path::new(path), &end)).to_string();
        assert!(text("/lake/a.csv.gz").contains("other bytes follow"));
        assert!(!text("/lake/a.parquet").contains("other bytes follow"));
        assert!(text("/lake/a.parquet").contains("it ends too early"));
    }
}
