//! Errors of files and folders of sources, each with a hint.

use std::path::PathBuf;

use throng_model::{Fault, Retry};

use crate::fault::FileFault;

/// Why a file or folder of a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A folder or file of a source cannot be read.
    #[error("cannot read {}", path.display())]
    Source {
        /// Which one.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// Files of a table cannot be read as one table.
    #[error("{message}")]
    Table {
        /// What is wrong, with the names of the files; no value of the data.
        message: String,
        /// How to fix it.
        help: String,
    },
    /// A file has changed since the scan was planned.
    #[error("{} has changed while it was scanned", path.display())]
    Changed {
        /// Which one.
        path: PathBuf,
    },
    /// A symbolic link of a source leads to what the source may not read.
    #[error("{} leads out of {}", path.display(), root.display())]
    LeadsOut {
        /// The link.
        path: PathBuf,
        /// The folder that it must stay in.
        root: PathBuf,
    },
}

impl From<FileFault> for FileError {
    fn from(fault: FileFault) -> Self {
        match fault.system() {
            Some((path, source)) => Self::Source { path, source },
            None => Self::Table { message: fault.to_string(), help: fault.help().to_owned() },
        }
    }
}

impl FileError {
    /// How to fix it.
    pub fn help(&self) -> &str {
        match self {
            Self::Table { help, .. } => help,
            Self::Source { .. } => "check the path and its permissions",
            Self::Changed { .. } => {
                "write new files beside the old ones under other names, or put them in place with a \
                 rename"
            }
            Self::LeadsOut { .. } => {
                "put the data itself there; or, if the link is intended and the source is in no workspace, \
                 start the node with `--allow-source` of a folder that contains both"
            }
        }
    }

    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Table { .. } | Self::LeadsOut { .. } => Fault::User,
            Self::Source { .. } | Self::Changed { .. } => Fault::External,
        }
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Table { .. } => Retry::Never,
            Self::Source { .. } | Self::Changed { .. } | Self::LeadsOut { .. } => Retry::Backoff,
        }
    }
}
