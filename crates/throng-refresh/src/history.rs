//! Entries in the history of an audience.

use throng_model::{AudienceName, Timestamp};
use throng_store::{HistoryEntry, HistoryEvent, LedgerError, SubjectKind};

use crate::RefreshContext;

/// Adds an entry to the history of an audience.
pub(super) async fn record(
    ctx: &RefreshContext,
    name: &AudienceName,
    what: HistoryEvent,
    why: String,
) -> Result<(), LedgerError> {
    ctx.ledger.record_history(&[entry(name, what, why, ctx.clock.now())]).await
}

/// An entry for the history of an audience.
pub(super) fn entry(
    name: &AudienceName,
    what: HistoryEvent,
    why: String,
    at: Timestamp,
) -> HistoryEntry {
    let (subject_kind, subject) = (SubjectKind::Audience, name.to_string());
    HistoryEntry { subject_kind, subject, what, why, at, actor: None }
}
