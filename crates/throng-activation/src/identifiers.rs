//! The source of a sync's identifiers.

use async_trait::async_trait;
use throng_delivered::IdentifierRow;

use crate::SendError;

/// A sync's identifier query. It runs once for each pass over the users of a run.
#[async_trait]
pub trait IdentifierSource: Send + Sync {
    /// Starts the query. Rows may come in any order and more than once for a user. `delivered`: what
    /// [`IdentifierRows::tables`] has returned for the identifiers that syncs with this query have delivered.
    ///
    /// # Errors
    /// Also if a table has changed since, so that the same SQL would find other users or identifiers.
    async fn open(&self, delivered: &[String]) -> Result<Box<dyn IdentifierRows>, SendError>;
}

/// The rows of a started query.
#[async_trait]
pub trait IdentifierRows: Send {
    /// The next rows; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<IdentifierRow>>, SendError>;

    /// The tables that are read, with the types of their columns, as a text to record. `None` if they are not known.
    fn tables(&self) -> Option<String> {
        None
    }
}
