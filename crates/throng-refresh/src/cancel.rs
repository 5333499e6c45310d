//! Cancelling a refresh: the ledger ends it, and the builder that processes it detects that its
//! lease is lost.

use std::sync::Arc;

use throng_model::{AudienceName, RefreshId};
use throng_store::{HistoryEntry, HistoryEvent, LedgerError, Refresh};
use throng_telemetry::metrics;

use super::cleanup;
use crate::RefreshContext;

/// What the reason of a cancelled refresh begins with.
const CANCELLED: &str = "cancelled";

/// Ends the open refresh of an audience, or only `id`; `who` is for the history. A builder of this process stops
/// at once and kills its query worker; one of another process does so within a second. `None` if no
/// refresh is open, or another one than `id`.
///
/// # Errors
/// [`LedgerError`]; the refresh continues then.
pub async fn cancel(
    ctx: &Arc<RefreshContext>,
    name: &AudienceName,
    id: Option<RefreshId>,
    who: &str,
) -> Result<Option<Refresh>, LedgerError> {
    let reason = format!("{CANCELLED} by {who}");
    let cancelled = ctx.ledger.cancel_refresh(name, id, &reason, ctx.clock.now()).await?;
    let Some(refresh) = cancelled else { return Ok(None) };
    // After the ledger: a builder that wakes up earlier finds its lease valid and continues.
    ctx.cancelled.notify_waiters();
    // After the ledger too, which has deleted the parts: it must not name an output that is gone.
    cleanup::remove_parts(ctx, refresh.id).await;
    let entry = HistoryEntry {
        subject_kind: throng_store::SubjectKind::Audience,
        subject: name.to_string(),
        what: HistoryEvent::Cancelled,
        why: format!("refresh {}", refresh.id),
        at: ctx.clock.now(),
        actor: Some(who.to_owned()),
    };
    ctx.ledger.record_history(&[entry]).await?;
    metrics::counter!(metrics::REFRESHES_TOTAL, "outcome" => "cancelled").increment(1);
    tracing::info!(audience = %name, refresh = %refresh.id, who, "cancelled a refresh");
    ctx.observer.audiences_changed();
    Ok(Some(refresh))
}

/// Whether a failed refresh was cancelled.
pub(super) fn is_cancelled(refresh: &Refresh) -> bool {
    refresh.reason.as_deref().is_some_and(|reason| reason.starts_with(CANCELLED))
}
