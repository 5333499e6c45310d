//! Errors as they go over a pipe, or as the text of a task's error. Pure.

use serde::{Deserialize, Serialize};
use throng_query::file_failure::FileFailure;
use throng_query::position::Position;

use crate::engine_failure::EngineFailure;
use crate::error::LakeError;

/// [`LakeError`] as it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Failure {
    Sql { message: String, position: Option<(u32, u32)>, help: Option<String> },
    Key { message: String, help: String },
    File(FileFailure),
    OutOfMemory(EngineFailure),
    Data { doing: String, source: EngineFailure, help: Option<String> },
    Engine { doing: String, source: EngineFailure },
    Other(String),
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
            LakeError::Data { doing, source, help } => Self::Data { doing, source, help },
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
            Failure::Data { doing, source, help } => Self::Data { doing, source, help },
            Failure::Engine { doing, source } => Self::Engine { doing, source },
            Failure::Other(text) => Self::Sink(text.into()),
        }
    }
}
