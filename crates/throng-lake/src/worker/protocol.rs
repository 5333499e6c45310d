//! The messages between a node and a query worker, and the data frames of their answers. Pure except
//! for writing.
//!
//! ```text
//! kind 1, control: JSON ([`Request`], [`Reply`])                (numbers are little-endian)
//! kind 2, keys:    see throng_query::keys
//! kind 3, rows:    one after another: user's hash u64 | length u32 | the hasher's output
//! kind 4, shared:  see throng_query::keys
//! ```

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use throng_files::FileError;
use throng_model::{HashSeed, UserHash};
use throng_query::position::Position;
use throng_spec::{ParameterValue, TemplateRows};
use throng_worker::SystemError;
use throng_worker::frame::{frame, invalid};

use crate::engine_failure::EngineFailure;
use crate::{
    HashedRow, IdentifierQuery, InputQuery, InputState, LakeError, Model, ModelInfo, ScanPart,
    ScanStats, SharedPlan, SharedScan, SharedStats, SourceListing, TableFacts,
};

/// The kind of frames with rows of identifiers.
pub(super) const ROWS: u8 = 3;

/// A request to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Plan a model and run it over the first rows of each file; answered by [`Reply::Plan`].
    Check { model: Model },
    /// Plan a model; answered by [`Reply::Plan`].
    Plan { model: Model, served: Vec<TableFacts> },
    /// Run a part of a scan; answered by keys and [`Reply::Scanned`].
    Scan { model: Model, part: ScanPart, seed: HashSeed },
    /// Run an identifier query; answered by rows and [`Reply::Checked`].
    Identifiers { query: IdentifierQuery, seed: HashSeed },
    /// Plan the models of some sets of parameters as one scan; answered by [`Reply::SharedPlan`].
    PlanShared {
        model: Model,
        sets: Vec<Vec<(String, ParameterValue)>>,
        served: Vec<Vec<TableFacts>>,
    },
    /// Run a part of a scan for several models; answered by shared keys and [`Reply::SharedScanned`].
    ScanShared { scan: SharedScan, part: ScanPart, seed: HashSeed },
    /// Run the query of a template; answered by [`Reply::TemplateRows`].
    TemplateRows { sql: String, max_rows: u32 },
    /// List the tables of all sources; answered by [`Reply::Listed`].
    List,
    /// Inspect the files of queries; answered by [`Reply::Inputs`].
    Inputs { queries: Vec<InputQuery> },
    /// Plan an identifier query; answered by [`Reply::Checked`].
    CheckIdentifiers { sql: String, key: String, columns: Vec<String> },
}

/// The reply of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// A model is planned.
    Plan { info: ModelInfo, parts: Vec<ScanPart> },
    /// All keys of a scan are sent.
    Scanned(ScanStats),
    /// Several models are planned; `None` if they cannot be one scan.
    SharedPlan(Option<Box<SharedPlan>>),
    /// All keys of a scan for several models are sent.
    SharedScanned(SharedStats),
    /// The rows of a template.
    TemplateRows(TemplateRows),
    /// The tables of all sources.
    Listed(Vec<SourceListing>),
    /// The states of the files, in the order of the queries.
    Inputs(Vec<InputState>),
    /// A query can be run, or was run.
    Checked,
    /// The request failed.
    Failed(Failure),
}

/// [`LakeError`] as it goes over a pipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Failure {
    Sql { message: String, position: Option<(u32, u32)>, help: Option<String> },
    Key { message: String, help: String },
    File(FileFailure),
    OutOfMemory(EngineFailure),
    Engine { doing: String, source: EngineFailure },
    Other(String),
}

/// [`FileError`] as it goes over a pipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum FileFailure {
    Source { path: PathBuf, error: SystemError },
    Table { message: String, help: String },
    Changed { path: PathBuf },
    LeadsOut { path: PathBuf, root: PathBuf },
}

impl From<FileError> for FileFailure {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Source { path, source } => {
                Self::Source { path, error: SystemError::of(&source) }
            }
            FileError::Table { message, help } => Self::Table { message, help },
            FileError::Changed { path } => Self::Changed { path },
            FileError::LeadsOut { path, root } => Self::LeadsOut { path, root },
        }
    }
}

impl From<FileFailure> for FileError {
    fn from(failure: FileFailure) -> Self {
        match failure {
            FileFailure::Source { path, error } => Self::Source { path, source: error.into() },
            FileFailure::Table { message, help } => Self::Table { message, help },
            FileFailure::Changed { path } => Self::Changed { path },
            FileFailure::LeadsOut { path, root } => Self::LeadsOut { path, root },
        }
    }
}

impl From<LakeError> for Failure {
    fn from(error: LakeError) -> Self {
        match error {
            LakeError::Sql { message, position, help } => {
                Self::Sql { message, position: position.map(|p| (p.line, p.column)), help }
            }
            LakeError::Key { message, help } => Self::Key { message, help },
            LakeError::File(error) => Self::File(error.into()),
            LakeError::OutOfMemory { source } => Self::OutOfMemory(source),
            LakeError::Engine { doing, source } => Self::Engine { doing, source },
            other => Self::Other(throng_model::with_causes(&other)),
        }
    }
}

impl From<Failure> for LakeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sql { message, position, help } => {
                let position = position.map(|(line, column)| Position { line, column });
                Self::Sql { message, position, help }
            }
            Failure::Key { message, help } => Self::Key { message, help },
            Failure::File(failure) => Self::File(failure.into()),
            Failure::OutOfMemory(source) => Self::OutOfMemory { source },
            Failure::Engine { doing, source } => Self::Engine { doing, source },
            Failure::Other(text) => Self::Sink(text.into()),
        }
    }
}

/// Rows of identifiers as a frame.
pub(super) fn rows(rows: &[HashedRow]) -> io::Result<Vec<u8>> {
    frame(ROWS, |bytes| {
        for (user, hashed) in rows {
            bytes.extend_from_slice(&user.0.to_le_bytes());
            bytes.extend_from_slice(&(hashed.len() as u32).to_le_bytes());
            bytes.extend_from_slice(hashed);
        }
    })
}

/// The rows of a frame.
pub(super) fn read_rows(mut payload: &[u8]) -> io::Result<Vec<HashedRow>> {
    let truncated = || invalid("a frame of rows is truncated");
    let mut rows = Vec::new();
    while !payload.is_empty() {
        let (user, rest) = payload.split_first_chunk::<8>().ok_or_else(truncated)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (hashed, rest) = rest.split_at_checked(length).ok_or_else(truncated)?;
        rows.push((UserHash(u64::from_le_bytes(*user)), hashed.into()));
        payload = rest;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use throng_worker::frame::{HEAD, head};

    use super::*;

    fn payload(frame: &[u8]) -> (u8, &[u8]) {
        let (length, kind) = head(frame[..HEAD].try_into().unwrap()).unwrap();
        (kind, &frame[HEAD..HEAD + length])
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let written: Vec<HashedRow> =
            vec![(UserHash(7), [1, 2, 3].into()), (UserHash(u64::MAX), [].into())];
        let frame = rows(&written).unwrap();
        let (kind, bytes) = payload(&frame);
        assert_eq!(kind, ROWS);
        assert_eq!(read_rows(bytes).unwrap(), written);
        assert!(read_rows(&bytes[..bytes.len() - 1]).is_err());
        assert!(read_rows(&[]).unwrap().is_empty());
    }
}
