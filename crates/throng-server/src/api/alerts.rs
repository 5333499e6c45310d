//! `/v1/alerts`: alerts, their delivery, and a test of the receivers.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use throng_store::{Alert, Delivery};

use crate::NodeContext;

use super::body::Body;
use super::error::ApiError;

type Ctx = State<Arc<NodeContext>>;
type JsonResult = Result<Json<Value>, ApiError>;

/// The most rows of one response.
const MAX_ROWS: u32 = 1_000;

/// Which rows of a list to return.
#[derive(Debug, Deserialize)]
pub(crate) struct PageQuery {
    /// The number of rows: 200 by default, at most 1,000.
    limit: Option<u32>,
    /// The number of rows to skip first.
    #[serde(default)]
    offset: u32,
}

impl PageQuery {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(200).min(MAX_ROWS)
    }
}

/// Alerts, open ones first.
#[utoipa::path(get, path = "/v1/alerts", params(("limit" = Option<u32>, Query), ("offset" = Option<u32>, Query)), responses((status = 200, body = super::answers::AlertList, description = "`alerts`: kind, severity, subject, message, count, raised_at, last_at, resolved_at, ended deliveries; `open` and `total`: the number of alerts; `receivers`: name, pending, failures, next_try_at, last_error, last_ok_at")))]
pub(crate) async fn list(State(ctx): Ctx, Query(page): Query<PageQuery>) -> JsonResult {
    let alerts = ctx.ledger.alerts_page(page.limit(), page.offset).await?;
    let ids: Vec<i64> = alerts.iter().map(|alert| alert.id).collect();
    let deliveries = ctx.ledger.deliveries_of(&ids).await?;
    let totals = ctx.ledger.alert_totals().await?;
    let rows: Vec<Value> = alerts.iter().map(|alert| view(alert, &deliveries)).collect();
    Ok(Json(json!({
        "alerts": rows,
        "open": totals.open,
        "total": totals.total,
        "receivers": ctx.ledger.receivers().await?,
    })))
}

fn view(alert: &Alert, deliveries: &[Delivery]) -> Value {
    let mut view = json!(alert);
    view["severity"] = json!(alert.kind.severity());
    let of_this: Vec<&Delivery> = deliveries.iter().filter(|d| d.alert == alert.id).collect();
    view["deliveries"] = json!(of_this);
    view
}

/// Ended deliveries of alerts, newest first.
#[utoipa::path(get, path = "/v1/alerts/deliveries", params(("limit" = Option<u32>, Query)), responses((status = 200, body = super::answers::AlertDeliveryList, description = "`deliveries`: receiver, event_id, alert, event, state, tries, http_status, why, at")))]
pub(crate) async fn deliveries(State(ctx): Ctx, Query(page): Query<PageQuery>) -> JsonResult {
    Ok(Json(json!({ "deliveries": ctx.ledger.deliveries(page.limit()).await? })))
}

/// Which receivers to test.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlertTest {
    /// The name of the receiver; all receivers if not set.
    receiver: Option<String>,
}

/// Sends a test alert to the receivers of this node's settings, and waits for their responses.
#[utoipa::path(post, path = "/v1/alerts/test", request_body = AlertTest, responses((status = 200, body = super::answers::AlertTestAnswers, description = "`answers`: receiver, accepted, status, answer, error"), (status = 404, description = "no such receiver, or no receiver is configured")))]
pub(crate) async fn test(
    State(ctx): Ctx,
    Body(AlertTest { receiver }): Body<AlertTest>,
) -> JsonResult {
    let answers = crate::roles::notify::send_test(&ctx, receiver.as_deref()).await;
    let answers = answers.map_err(|error| ApiError::of(&error))?;
    if answers.is_empty() {
        let message = match receiver {
            Some(name) => format!("this node has no alert receiver named `{name}`"),
            None => "this node has no alert receiver".to_owned(),
        };
        let help = "set node.alerts in the spec that this node was started with";
        return Err(ApiError::not_found(message).help(help));
    }
    Ok(Json(json!({ "answers": answers })))
}
