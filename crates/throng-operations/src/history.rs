//! The history of objects.

use throng_api::HistoryItem;
use throng_store::{LedgerError, SubjectKind};

use crate::Operations;
use crate::mapping::audiences::history_item;

/// The newest entries of an object, or of all objects; newest first.
///
/// # Errors
/// [`LedgerError`].
pub async fn newest(
    operations: &Operations,
    subject: Option<(SubjectKind, &str)>,
    limit: u32,
) -> Result<Vec<HistoryItem>, LedgerError> {
    let subject = subject.as_ref().map(|(kind, name)| (kind, *name));
    let entries = operations.ledger.history(subject, limit).await?;
    Ok(entries.into_iter().map(history_item).collect())
}
