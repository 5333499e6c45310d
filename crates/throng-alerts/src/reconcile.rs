//! The open alerts of some kinds, and how they become those that should be open.

use std::collections::BTreeMap;

use throng_model::Timestamp;
use throng_store::{AlertKind, Ledger, LedgerError, NewAlert};

/// Alerts that are read at a time.
const PAGE_ALERTS: u32 = 1_000;

/// The cause of an alert: kind and subject.
pub(crate) type Cause = (AlertKind, String);

/// The open alerts of these kinds, with the times at which they were raised.
pub(crate) async fn open_alerts(
    ledger: &dyn Ledger,
    kinds: &[AlertKind],
) -> Result<BTreeMap<Cause, Timestamp>, LedgerError> {
    let mut open = BTreeMap::new();
    let counts = ledger.open_alerts_by_kind().await?;
    if !counts.iter().any(|(kind, _)| kinds.contains(kind)) {
        return Ok(open);
    }
    let mut offset = 0u32;
    loop {
        // Open ones come first.
        let page = ledger.alerts_page(PAGE_ALERTS, offset).await?;
        let is_last =
            page.len() < PAGE_ALERTS as usize || page.iter().any(|a| a.resolved_at.is_some());
        let of_page = page.into_iter().filter(|alert| alert.resolved_at.is_none());
        let of_kinds = of_page.filter(|alert| kinds.contains(&alert.kind));
        open.extend(of_kinds.map(|alert| ((alert.kind, alert.subject), alert.raised_at)));
        if is_last {
            return Ok(open);
        }
        offset = offset.saturating_add(PAGE_ALERTS);
    }
}

/// Resolves the open alerts that are not wanted, and raises the wanted ones, given with their messages, that are not
/// open.
pub(crate) async fn reconcile(
    ledger: &dyn Ledger,
    open: &BTreeMap<Cause, Timestamp>,
    wanted: BTreeMap<Cause, String>,
    now: Timestamp,
) -> Result<(), LedgerError> {
    for (kind, subject) in open.keys().filter(|cause| !wanted.contains_key(*cause)) {
        ledger.resolve_alert(*kind, subject, now).await?;
    }
    for ((kind, subject), message) in wanted {
        let cause = (kind, subject);
        // Raising an open one again would only increase its count.
        if !open.contains_key(&cause) {
            let alert = NewAlert { kind, subject: cause.1, message };
            ledger.raise_alert(&alert, now).await?;
        }
    }
    Ok(())
}
