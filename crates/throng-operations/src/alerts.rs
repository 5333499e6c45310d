//! Alerts with their deliveries, and the receivers.

use throng_api::AlertList;
use throng_store::LedgerError;

use crate::Operations;
use crate::mapping::alerts as mapping;

/// The newest alerts, open ones first, with the numbers of all. Their deliveries and the receivers are not read:
/// both lists are empty.
///
/// # Errors
/// [`LedgerError`].
pub async fn newest(operations: &Operations, limit: u32) -> Result<AlertList, LedgerError> {
    let ledger = &operations.ledger;
    let alerts = ledger.alerts(limit).await?;
    let totals = ledger.alert_totals().await?;
    Ok(AlertList {
        alerts: alerts.into_iter().map(|alert| mapping::item(alert, &[])).collect(),
        open: totals.open,
        total: totals.total,
        receivers: Vec::new(),
        next_cursor: None,
        previous_cursor: None,
    })
}

/// Alerts, open ones first, without the first `offset`.
///
/// # Errors
/// [`LedgerError`].
pub async fn list(
    operations: &Operations,
    limit: u32,
    offset: u32,
) -> Result<AlertList, LedgerError> {
    let ledger = &operations.ledger;
    let alerts = ledger.alerts_page(limit, offset).await?;
    let ids: Vec<i64> = alerts.iter().map(|alert| alert.id).collect();
    let deliveries = ledger.deliveries_of(&ids).await?;
    let totals = ledger.alert_totals().await?;
    let receivers = ledger.receivers().await?;
    Ok(AlertList {
        alerts: alerts.into_iter().map(|alert| mapping::item(alert, &deliveries)).collect(),
        open: totals.open,
        total: totals.total,
        receivers: receivers.into_iter().map(mapping::receiver).collect(),
        next_cursor: None,
        previous_cursor: None,
    })
}
