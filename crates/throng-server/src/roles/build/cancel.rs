//! Cancelling a refresh: the ledger ends it, and whoever works on it notices that its lease is lost.

use std::sync::Arc;

use throng_model::AudienceName;
use throng_store::{HistoryEntry, LedgerError, Refresh};
use throng_telemetry::metrics;

use super::sweep;
use crate::{Change, NodeContext};

/// What the reason of a cancelled refresh begins with.
const CANCELLED: &str = "cancelled";

/// Ends the open refresh of an audience; `who` is for the history. A builder of this process lets
/// go of it at once and kills its query worker, one of another process within a second. `None` if
/// no refresh is open.
///
/// # Errors
/// [`LedgerError`]; the refresh goes on then.
pub async fn cancel(
    ctx: &Arc<NodeContext>,
    name: &AudienceName,
    who: &str,
) -> Result<Option<Refresh>, LedgerError> {
    let reason = format!("{CANCELLED} by {who}");
    let cancelled = ctx.ledger.cancel_refresh(name, &reason, ctx.clock.now()).await?;
    let Some(refresh) = cancelled else { return Ok(None) };
    ctx.cancelled.notify_waiters();
    sweep::drop_parts(ctx, refresh.id).await;
    let entry = HistoryEntry {
        subject_kind: "audience".to_owned(),
        subject: name.to_string(),
        what: "cancelled".to_owned(),
        why: format!("refresh {}", refresh.id),
        at: ctx.clock.now(),
        actor: Some(who.to_owned()),
    };
    ctx.ledger.record(&[entry]).await?;
    metrics::counter!(metrics::REFRESHES_TOTAL, "outcome" => "cancelled").increment(1);
    tracing::info!(audience = %name, refresh = %refresh.id, who, "a refresh is cancelled");
    ctx.changed(Change::Audiences);
    Ok(Some(refresh))
}

/// Whether a failed refresh was cancelled.
pub(super) fn is_cancelled(refresh: &Refresh) -> bool {
    refresh.reason.as_deref().is_some_and(|reason| reason.starts_with(CANCELLED))
}
