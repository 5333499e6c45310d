//! Faults of files, without values of the data.

use std::path::{Path, PathBuf};

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::LakeError;

/// Why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileFault {
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
    pub(crate) fn new(path: &Path, line: Option<u64>, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into(), help: "correct the file" }
    }

    /// Sets the hint.
    pub(crate) fn with_help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    /// An error of the system, or of the decompression.
    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let text = match error.kind() {
            ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
            ErrorKind::InvalidInput | ErrorKind::InvalidData => "it is damaged".to_owned(),
            kind => format!("it cannot be read: {kind}"),
        };
        Self::new(path, None, text).with_help("write the file again")
    }

    /// An error of the engine's readers: only its kind and its line are kept, as its text may have
    /// values.
    pub(crate) fn of_reader(path: &Path, error: &ArrowError) -> Self {
        if let ArrowError::IoError(_, error) = error {
            return Self::io(path, error);
        }
        let text = error.to_string();
        let line = text.split_once("line ").and_then(|(_, rest)| {
            rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
        });
        let text = if text.contains("number of fields") {
            "a row has another number of fields than the header"
        } else if text.contains("UTF-8") || text.contains("utf8") {
            "it is not UTF-8"
        } else {
            "a value is not of the type that its column has in the other rows"
        };
        Self::new(path, line, text)
    }
}

impl From<FileFault> for LakeError {
    fn from(fault: FileFault) -> Self {
        Self::Table { message: fault.to_string(), help: fault.help.to_owned() }
    }
}

impl From<FileFault> for DataFusionError {
    fn from(fault: FileFault) -> Self {
        Self::External(Box::new(fault))
    }
}
