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
        Self { path: path.to_owned(), line, text: text.into(), help: "correct the file" }
    }

    /// Sets the hint.
    pub fn with_help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    /// An error of the system, or of the decompression.
    pub fn io(path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let text = match error.kind() {
            ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
            ErrorKind::InvalidInput | ErrorKind::InvalidData => "it is damaged".to_owned(),
            kind => format!("it cannot be read: {kind}"),
        };
        Self::new(path, None, text).with_help("write the file again")
    }

    /// How to fix it.
    pub fn help(&self) -> &'static str {
        self.help
    }
}
