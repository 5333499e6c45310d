//! The source of a sync's identifiers.

use async_trait::async_trait;
use throng_model::UserHash;

use crate::{Note, Prepared, SendError};

/// One row of a sync's identifier query. Raw identifiers stay in the process that runs the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentifierRow {
    /// The user.
    pub user: UserHash,
    /// The identifiers in the platform's form, normalised and hashed by
    /// [`Destination::prepare`](crate::Destination::prepare), or the reason why the row is skipped.
    pub row: Prepared,
    /// Identifiers that were changed or refused.
    pub notes: Vec<Note>,
}

/// A sync's identifier query. It runs once for each pass over the users of a run.
#[async_trait]
pub trait IdentifierSource: Send + Sync {
    /// Starts the query. Rows may come in any order and more than once for a user.
    async fn open(&self) -> Result<Box<dyn IdentifierRows>, SendError>;
}

/// The rows of a started query.
#[async_trait]
pub trait IdentifierRows: Send {
    /// The next rows; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<IdentifierRow>>, SendError>;
}
