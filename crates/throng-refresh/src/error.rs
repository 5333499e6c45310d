//! Why a refresh failed.

use std::path::PathBuf;

use throng_lake::{FileError, LakeError};
use throng_membership::MembershipError;
use throng_model::{AudienceName, Retry};
use throng_objects::ObjectsError;
use throng_part_files::PartFileError;
use throng_store::LedgerError;

use super::warehouse::WarehouseError;

/// Why a refresh, or the loading of what is published, failed.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The spec changed while the refresh waited.
    #[error("audience {0} is no longer in the applied spec; declare it again to refresh it")]
    NotDeclared(AudienceName),
    /// The audience's model has changed since the refresh started.
    #[error("the model has changed since the refresh started; another refresh runs the new one")]
    Superseded,
    /// Several processes in a row died while they processed the refresh.
    #[error(
        "{0} processes died while they processed it, and none finished a part: see their logs before \
         the next try"
    )]
    Crashed(u32),
    /// The refresh exceeded the time limit.
    #[error("killed: the refresh ran longer than query_timeout_secs ({0} s)")]
    Timeout(u64),
    /// The model cannot be run.
    #[error("the model cannot be run")]
    Lake(#[from] LakeError),
    /// The warehouse cannot run the model, or is not available.
    #[error("{}", what_failed(.0))]
    Warehouse(#[from] WarehouseError),
    /// The pages of a warehouse's result do not fit together.
    #[error("the warehouse's result is incomplete: {0}; refresh the audience again")]
    Pages(&'static str),
    /// An error of the ledger, or the lease was lost to another builder.
    #[error("the ledger returned an error")]
    Ledger(#[from] LedgerError),
    /// A dictionary or a snapshot cannot be read or written.
    #[error("dictionaries or snapshots cannot be read or written")]
    Membership(#[from] MembershipError),
    /// Objects cannot be uploaded or downloaded.
    #[error("the object storage returned an error")]
    Objects(#[from] ObjectsError),
    /// An error of the file system.
    #[error("could not {doing} {}; check the disk, its free space and the permissions", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The output of an earlier part is not what was written.
    #[error("{} is damaged: {problem}; refresh the audience again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A part of the refresh was recorded by another version of this program.
    #[error("a recorded part of the refresh cannot be read; refresh the audience again")]
    Part(#[from] serde_json::Error),
    /// A bug of Throng.
    #[error("the builder panicked; this is a bug of Throng, please report it")]
    Panicked,
}

impl From<PartFileError> for RefreshError {
    fn from(error: PartFileError) -> Self {
        match error {
            PartFileError::Io { doing, path, source } => Self::Io { doing, path, source },
            PartFileError::Damaged { path, problem } => Self::Damaged { path, problem },
        }
    }
}

/// How the reason of a refresh begins that failed because its warehouse is not available.
const OUTAGE: &str = "the warehouse is not available";

/// Whether a refresh that failed for this reason failed because its warehouse was not available: nothing in the spec is
/// wrong, and another refresh may succeed. By the text, because another process may have recorded it.
pub(super) fn is_outage(reason: &str) -> bool {
    reason.starts_with(OUTAGE)
}

fn what_failed(error: &WarehouseError) -> &'static str {
    match error {
        WarehouseError::Unavailable { .. } => OUTAGE,
        WarehouseError::Refused { .. } | WarehouseError::JobLost { .. } => {
            "the warehouse cannot run the model"
        }
    }
}

impl RefreshError {
    /// Whether the warehouse is not available, which says nothing about the SQL.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Warehouse(WarehouseError::Unavailable { .. }))
    }

    /// Whether another builder holds the refresh now, or it has ended.
    pub(super) fn lease_lost(&self) -> bool {
        matches!(self, Self::Ledger(LedgerError::LeaseLost { .. }))
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotDeclared(_)
            | Self::Superseded
            | Self::Part(_)
            | Self::Pages(_)
            | Self::Crashed(_) => Retry::Never,
            Self::Lake(error) => error.retry(),
            Self::Warehouse(error) => error.retry(),
            Self::Ledger(error) => error.retry(),
            Self::Membership(error) => error.retry(),
            Self::Objects(error) => error.retry(),
            // A full disk may have space by then, another try writes other files, and a source that
            // was slow may be fast again.
            Self::Io { .. } | Self::Damaged { .. } | Self::Panicked | Self::Timeout(_) => {
                Retry::Backoff
            }
        }
    }

    /// The class of the failure, in metrics.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Lake(LakeError::Sql { .. } | LakeError::Key { .. }) => "sql",
            Self::Lake(LakeError::OutOfMemory { .. }) => "memory",
            Self::Lake(LakeError::File(FileError::Source { .. }) | LakeError::Copy(_)) => "source",
            Self::Lake(_) => "engine",
            Self::Warehouse(_) | Self::Pages(_) => "source",
            Self::Ledger(_) => "ledger",
            Self::Objects(_) => "objects",
            Self::Membership(_) | Self::Io { .. } | Self::Damaged { .. } => "files",
            Self::Panicked | Self::Crashed(_) => "crash",
            Self::Timeout(_) => "engine",
            Self::NotDeclared(_) | Self::Superseded | Self::Part(_) => "other",
        }
    }

    /// One line: what failed, the causes, the place in the SQL, and the hint. Names columns and
    /// tables, never a value.
    pub(super) fn describe(&self) -> String {
        let mut text = throng_model::with_causes(self);
        if let Self::Warehouse(error) = self
            && let Some(help) = error.help()
        {
            text.push_str("; ");
            text.push_str(help);
        }
        if let Self::Lake(error) = self {
            // A running query often fails because of a value, and the engine's message has that
            // value.
            if matches!(error, LakeError::Engine { .. } | LakeError::Data { .. }) {
                text = throng_lake::without_values(&text);
            }
            if let Some((line, column)) = error.position() {
                text.push_str(&format!(" (line {line}, column {column} of the SQL)"));
            }
            if let Some(help) = error.help() {
                text.push_str("; ");
                text.push_str(&help);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_has_the_cause_and_the_hint() {
        let error = RefreshError::Lake(LakeError::Sql {
            message: "there is no column totl".into(),
            position: None,
            help: Some("did you mean total?".into()),
        });
        assert_eq!(
            error.describe(),
            "the model cannot be run: there is no column totl; did you mean total?"
        );
        assert_eq!(error.retry(), Retry::Never);
    }

    #[test]
    fn an_outage_is_not_said_to_be_a_matter_of_the_sql() {
        let (message, after) = ("BigQuery responded with status 503".to_owned(), None);
        let error = RefreshError::Warehouse(WarehouseError::Unavailable { message, after });
        let text = "the warehouse is not available: BigQuery responded with status 503";
        assert_eq!(error.describe(), text);
        assert!(error.is_outage() && is_outage(text));
        let (message, help) = ("no such column".to_owned(), None);
        let error = RefreshError::Warehouse(WarehouseError::Refused { message, help });
        assert_eq!(error.describe(), "the warehouse cannot run the model: no such column");
        assert!(!error.is_outage() && !is_outage(&error.describe()));
    }
}
