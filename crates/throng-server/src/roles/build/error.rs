//! Why a refresh did not come to its end.

use std::path::{Path, PathBuf};

use throng_lake::LakeError;
use throng_membership::MembershipError;
use throng_model::{AudienceName, Retry};
use throng_objects::ObjectsError;
use throng_store::LedgerError;

/// Why a refresh, or the loading of what is published, failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The spec changed while the refresh waited.
    #[error("audience {0} is not in the applied spec any more; put it back or let it be")]
    Gone(AudienceName),
    /// The audience's model was changed since the refresh began.
    #[error("the model was changed since the refresh began; another refresh runs the new one")]
    Superseded,
    /// The process that worked on the refresh died with it, again and again.
    #[error(
        "{0} processes died while they worked on it, and none finished a part: see their logs before \
         the next try"
    )]
    Crashed(u32),
    /// The refresh took too long.
    #[error("killed: the refresh ran longer than query_timeout_secs ({0} s)")]
    Timeout(u64),
    /// The model cannot be run.
    #[error("the model cannot be run")]
    Lake(#[from] LakeError),
    /// The ledger failed, or gave the refresh to somebody else.
    #[error("the ledger failed a refresh")]
    Ledger(#[from] LedgerError),
    /// A dictionary or a snapshot cannot be read or written.
    #[error("dictionaries or snapshots cannot be used")]
    Membership(#[from] MembershipError),
    /// Objects cannot be kept or fetched.
    #[error("the object storage failed a refresh")]
    Objects(#[from] ObjectsError),
    /// The file system refused.
    #[error("could not {doing} {}; check the disk, its free space and the permissions", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
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
    /// A bug of ours.
    #[error("the builder broke off; this is a bug of Throng, please report it")]
    Panicked,
}

impl BuildError {
    pub(super) fn io<'a>(
        doing: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<'a> {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    /// Whether the refresh belongs to somebody else now.
    pub(super) fn lease_lost(&self) -> bool {
        matches!(self, Self::Ledger(LedgerError::LeaseLost { .. }))
    }

    /// Whether trying again can help.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Gone(_) | Self::Superseded | Self::Part(_) | Self::Crashed(_) => Retry::Never,
            Self::Lake(error) => error.retry(),
            Self::Ledger(error) => error.retry(),
            Self::Membership(error) => error.retry(),
            Self::Objects(error) => error.retry(),
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
            Self::Lake(LakeError::Source { .. }) => "source",
            Self::Lake(_) => "engine",
            Self::Ledger(_) => "ledger",
            Self::Objects(_) => "objects",
            Self::Membership(_) | Self::Io { .. } | Self::Damaged { .. } => "files",
            Self::Panicked => "crash",
            Self::Crashed(_) => "crash",
            Self::Timeout(_) => "engine",
            Self::Gone(_) | Self::Superseded | Self::Part(_) => "other",
        }
    }

    /// All that is known, in one line: what failed, of what, where in the SQL, and the mend. Names
    /// columns and tables, never a value.
    pub(super) fn in_words(&self) -> String {
        let mut text = throng_model::with_causes(self);
        if let Self::Lake(error) = self {
            // What a running query fails on is often a value, and the engine names it.
            if matches!(error, LakeError::Engine { .. }) {
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
    fn words_name_the_cause_and_the_mend() {
        let error = BuildError::Lake(LakeError::Sql {
            message: "there is no column totl".into(),
            position: None,
            help: Some("did you mean total?".into()),
        });
        assert_eq!(
            error.in_words(),
            "the model cannot be run: there is no column totl; did you mean total?"
        );
        assert_eq!(error.retry(), Retry::Never);
    }
}
