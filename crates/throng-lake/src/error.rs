//! What can go wrong in the lake, and how to mend it.

use std::path::PathBuf;

use datafusion::error::DataFusionError;
use throng_model::{Fault, Retry};

use crate::position::Position;

/// Why the lake cannot do it.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The SQL is wrong.
    #[error("{message}")]
    Sql {
        /// What is wrong.
        message: String,
        /// Where in the SQL.
        position: Option<Position>,
        /// How to mend it.
        help: Option<String>,
    },
    /// The model's result cannot be used as user keys.
    #[error("{message}")]
    Key {
        /// What is wrong.
        message: String,
        /// How to mend it.
        help: String,
    },
    /// A folder or file of a source cannot be read.
    #[error("cannot read {}", path.display())]
    Source {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A symbolic link of a source leads to what the source may not read.
    #[error("{} leads out of {}", path.display(), root.display())]
    LeadsOut {
        /// The link.
        path: PathBuf,
        /// What it must not lead out of.
        root: PathBuf,
    },
    /// The query needs more memory than it may use.
    #[error("the query needs more memory than memory_limit_bytes allows")]
    OutOfMemory {
        /// The engine's error.
        #[source]
        source: Box<DataFusionError>,
    },
    /// The engine failed.
    #[error("the query failed while {doing}")]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// The engine's error.
        #[source]
        source: Box<DataFusionError>,
    },
    /// The caller of a scan could not take its keys.
    #[error("the scanned keys could not be taken")]
    Sink(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl LakeError {
    /// Sorts an error of a running query.
    pub(crate) fn engine(doing: &'static str, error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self::OutOfMemory { source: Box::new(error) },
            _ => Self::Engine { doing, source: Box::new(error) },
        }
    }

    /// Line and column in the SQL, both from 1, if they are known.
    pub fn position(&self) -> Option<(u32, u32)> {
        match self {
            Self::Sql { position, .. } => position.map(|p| (p.line, p.column)),
            _ => None,
        }
    }

    /// How to mend it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Sql { help, .. } => help.clone(),
            Self::Key { help, .. } => Some(help.clone()),
            Self::OutOfMemory { .. } => Some(
                "raise node.memory_limit_bytes, or let the model aggregate before it joins".into(),
            ),
            Self::LeadsOut { .. } => Some(
                "put the data itself there; or, if the link is meant, start the node with \
                 `--allow-source` of a folder that holds both"
                    .into(),
            ),
            Self::Source { .. } => Some("look at the path and its permissions".into()),
            Self::Engine { .. } | Self::Sink(_) => None,
        }
    }

    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Sql { .. }
            | Self::Key { .. }
            | Self::OutOfMemory { .. }
            | Self::LeadsOut { .. } => Fault::User,
            Self::Source { .. } | Self::Engine { .. } | Self::Sink(_) => Fault::External,
        }
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Sql { .. } | Self::Key { .. } => Retry::Never,
            _ => Retry::Backoff,
        }
    }
}
