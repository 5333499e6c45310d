//! Where a worker reads a sync's identifiers from.

use async_trait::async_trait;
use throng_model::UserHash;

use crate::{Note, Prepared, SendError};

/// One row of a sync's identifier query. Raw identifiers stay in the process that ran the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentifierRow {
    /// The user.
    pub user: UserHash,
    /// The identifiers as the platform wants them, normalised and hashed by
    /// [`Destination::prepare`](crate::Destination::prepare), or why they are not worth sending.
    pub row: Prepared,
    /// What was changed or refused in them.
    pub notes: Vec<Note>,
}

/// All reasons of a platform, in the same order wherever rows are written and read.
#[derive(Debug, Clone, Copy)]
pub struct Reasons {
    /// Why rows are skipped.
    pub skips: &'static [&'static str],
    /// What notes say.
    pub notes: &'static [&'static str],
}

/// A sync's identifier query. It is run once for each pass over the users of a run.
#[async_trait]
pub trait IdentifierSource: Send + Sync {
    /// Starts the query. Rows may come in any order and more than once for a user.
    async fn open(&self) -> Result<Box<dyn IdentifierRows>, SendError>;
}

/// The rows of a started query.
#[async_trait]
pub trait IdentifierRows: Send {
    /// Some more rows; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<IdentifierRow>>, SendError>;
}
