//! Why a spec cannot be applied.

use throng_aggregator::BudgetsError;
use throng_ingest::IngestError;
use throng_lake::LakeError;
use throng_model::Retry;
use throng_spec::Problem;
use throng_store::LedgerError;
use throng_templates::ExpandError;

/// Why the node could not apply, store or load a spec that may be right.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The operating system refused something, or a task panicked.
    #[error("cannot {doing} {what}")]
    Io {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// With which file or folder.
        what: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The ledger.
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    /// The sources.
    #[error("cannot open the sources")]
    Lake(#[from] LakeError),
    /// The tables of schemas.
    #[error("cannot create the tables of the schemas")]
    Ingest(#[from] IngestError),
    /// A checkpoint of the budgets cannot be written. Not at a start, which [`ApplyError::retry`] is about.
    #[error("cannot write a checkpoint of the budgets")]
    Budgets(#[from] BudgetsError),
    /// The spec in the ledger does not pass the checks.
    #[error("the applied spec in the ledger cannot be used: name a spec with --spec, or apply one")]
    Stored(#[source] serde_json::Error),
    /// A newer version applied the spec.
    #[error(
        "the applied spec in the ledger has version {found} of the spec language, which this version of \
         throng does not support: a newer one applied it. Upgrade throng"
    )]
    Newer {
        /// Its version.
        found: u64,
    },
    /// The templates of the spec with which the process was started cannot be expanded.
    #[error("the templates of the spec cannot be expanded:\n{}", shown(.0))]
    Templates(Vec<Problem>),
    /// The spec cannot be written as JSON.
    #[error("cannot write the spec as JSON")]
    Json(#[from] serde_json::Error),
}

/// The problems, one below the other.
fn shown(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl ApplyError {
    /// Whether another try of a start can succeed without a fix by anybody.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Ledger(error) => error.retry(),
            _ => Retry::Never,
        }
    }

    pub(crate) fn io(
        doing: &'static str,
        what: impl ToString,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_string();
        move |source| Self::Io { doing, what, source }
    }
}

/// Why a spec that was sent is not applied.
#[derive(Debug)]
pub enum Refusal {
    /// It is invalid, or names what this node's limits do not allow.
    Problems(Vec<Problem>),
    /// Another spec was applied after the version that it is based on.
    Superseded {
        /// The version that is applied now.
        version: u64,
    },
    /// The node failed; the spec may be right.
    Failed(ApplyError),
}

impl Refusal {
    /// A spec whose templates cannot be expanded.
    pub(crate) fn of_expansion(error: ExpandError) -> Self {
        match error {
            ExpandError::Problems(problems) => Self::Problems(problems),
            ExpandError::Worker(error) => Self::Failed(error.into()),
        }
    }
}

impl<E: Into<ApplyError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
