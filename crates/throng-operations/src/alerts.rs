//! Alerts with their deliveries, and the receivers.

use throng_api::{AlertDelivery, AlertList};
use throng_model::WorkspaceName;
use throng_store::{Alert, AlertSort, AlertState, AlertTotals, LedgerError, ListPage};

use crate::Operations;
use crate::mapping::alerts as mapping;

/// The newest alerts, open ones first, with the numbers of all. Their deliveries and the receivers are not read:
/// both lists are empty.
///
/// # Errors
/// [`LedgerError`].
pub async fn newest(operations: &Operations, limit: u32) -> Result<AlertList, LedgerError> {
    let workspace = operations.workspace.as_ref();
    let alerts = open_first(operations, workspace, limit, 0).await?;
    let totals = totals(operations, workspace).await?;
    Ok(AlertList {
        alerts: alerts.into_iter().map(|alert| mapping::item(alert, &[])).collect(),
        open: totals.open,
        total: totals.total,
        receivers: Vec::new(),
        next_cursor: None,
        previous_cursor: None,
    })
}

/// Alerts of a workspace, or all, open ones first, without the first `offset`.
///
/// # Errors
/// [`LedgerError`].
pub(crate) async fn list(
    operations: &Operations,
    workspace: Option<&WorkspaceName>,
    limit: u32,
    offset: u32,
) -> Result<AlertList, LedgerError> {
    let ledger = &operations.ledger;
    let alerts = open_first(operations, workspace, limit, offset).await?;
    let ids: Vec<i64> = alerts.iter().map(|alert| alert.id).collect();
    let deliveries = ledger.deliveries_of(&ids).await?;
    let totals = totals(operations, workspace).await?;
    let receivers = match &operations.workspace {
        // They get the alerts of all workspaces, and their state says how many there are.
        Some(_) => Vec::new(),
        None => ledger.receivers().await?,
    };
    Ok(AlertList {
        alerts: alerts.into_iter().map(|alert| mapping::item(alert, &deliveries)).collect(),
        open: totals.open,
        total: totals.total,
        receivers: receivers.into_iter().map(mapping::receiver).collect(),
        next_cursor: None,
        previous_cursor: None,
    })
}

/// Ended deliveries of alerts, newest first.
///
/// # Errors
/// [`LedgerError`].
pub async fn deliveries(
    operations: &Operations,
    limit: u32,
) -> Result<Vec<AlertDelivery>, LedgerError> {
    let deliveries = match &operations.workspace {
        Some(workspace) => operations.ledger.workspace_deliveries(workspace, limit).await?,
        None => operations.ledger.deliveries(limit).await?,
    };
    Ok(deliveries.into_iter().map(mapping::delivery).collect())
}

async fn totals(
    operations: &Operations,
    workspace: Option<&WorkspaceName>,
) -> Result<AlertTotals, LedgerError> {
    match workspace {
        Some(workspace) => operations.ledger.workspace_alert_totals(workspace).await,
        None => operations.ledger.alert_totals().await,
    }
}

/// Alerts, open ones first, then newest first.
async fn open_first(
    operations: &Operations,
    workspace: Option<&WorkspaceName>,
    limit: u32,
    offset: u32,
) -> Result<Vec<Alert>, LedgerError> {
    let ledger = &operations.ledger;
    let Some(workspace) = workspace else { return ledger.alerts_page(limit, offset).await };
    let page = |state, limit| ListPage {
        workspace: Some(workspace.clone()),
        search: None,
        state: Some(state),
        order: AlertSort::Id,
        descending: true,
        after: None,
        limit,
    };
    let end = limit.saturating_add(offset);
    let mut alerts = ledger.list_alerts(&page(AlertState::Open, end)).await?;
    let open = u32::try_from(alerts.len()).unwrap_or(u32::MAX);
    alerts.extend(ledger.list_alerts(&page(AlertState::Resolved, end.saturating_sub(open))).await?);
    Ok(alerts.into_iter().skip(offset as usize).collect())
}
