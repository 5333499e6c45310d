//! Where a worker reads a sync's identifiers from.

use async_trait::async_trait;
use throng_model::{Personal, UserKey};

use crate::SendError;

/// One row of a sync's identifier query: the user, and a value for each column.
pub type IdentifierRow = (UserKey, Vec<Option<Personal>>);

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
