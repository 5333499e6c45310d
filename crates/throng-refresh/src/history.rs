//! Entries in the history of an audience.

use throng_model::AudienceName;
use throng_store::{HistoryEntry, HistoryEvent, LedgerError};

use crate::RefreshContext;

/// Adds an entry to the history of an audience.
pub(super) async fn record(
    ctx: &RefreshContext,
    name: &AudienceName,
    what: HistoryEvent,
    why: String,
) -> Result<(), LedgerError> {
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Audience,
        subject: name.to_string(),
        what,
        why,
        at: ctx.clock.now(),
        actor: None,
    };
    ctx.ledger.record_history(&[entry]).await
}
