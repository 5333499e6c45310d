//! Errors of the engine's readers as faults of files, and back.

use std::path::Path;

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use throng_files::FileFault;

/// An error of the engine's readers: only its kind and its line are kept, as its text may have
/// values.
pub(super) fn of_reader(path: &Path, error: &ArrowError) -> FileFault {
    if let ArrowError::IoError(_, error) = error {
        return FileFault::io(path, error);
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
    FileFault::new(path, line, text)
}

/// A fault as an error of the engine.
pub(super) fn to_engine(fault: FileFault) -> DataFusionError {
    DataFusionError::External(Box::new(fault))
}
