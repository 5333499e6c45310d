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
type Answer = Result<Json<Value>, ApiError>;

/// Rows of one answer, at most.
const MOST_ROWS: u32 = 1_000;

/// A part of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Window {
    /// How many; 200 unless set, at most 1,000.
    limit: Option<u32>,
    /// How many to leave out at the beginning.
    #[serde(default)]
    offset: u32,
}

impl Window {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(200).min(MOST_ROWS)
    }
}

/// Alerts, open ones first.
#[utoipa::path(get, path = "/v1/alerts", params(("limit" = Option<u32>, Query), ("offset" = Option<u32>, Query)), responses((status = 200, body = super::answers::AlertList, description = "`alerts`: kind, severity, subject, message, count, raised_at, last_at, resolved_at, deliveries that have ended; `open` and `total`: how many there are; `receivers`: name, pending, failures, next_try_at, last_error, last_ok_at")))]
pub(crate) async fn list(State(ctx): Ctx, Query(window): Query<Window>) -> Answer {
    let alerts = ctx.ledger.alerts_page(window.limit(), window.offset).await?;
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

/// Deliveries of alerts that have ended, newest first.
#[utoipa::path(get, path = "/v1/alerts/deliveries", params(("limit" = Option<u32>, Query)), responses((status = 200, body = super::answers::AlertDeliveryList, description = "`deliveries`: receiver, event_id, alert, event, state, tries, http_status, why, at")))]
pub(crate) async fn deliveries(State(ctx): Ctx, Query(window): Query<Window>) -> Answer {
    Ok(Json(json!({ "deliveries": ctx.ledger.deliveries(window.limit()).await? })))
}

/// Which receiver to test.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Test {
    /// Its name; all unless set.
    receiver: Option<String>,
}

/// Sends a test to the receivers of alerts in this node's settings, and waits for their answers.
#[utoipa::path(post, path = "/v1/alerts/test", request_body = Test, responses((status = 200, body = super::answers::AlertTestAnswers, description = "`answers`: receiver, accepted, status, answer, error"), (status = 404, description = "no such receiver, or none at all")))]
pub(crate) async fn test(State(ctx): Ctx, Body(Test { receiver }): Body<Test>) -> Answer {
    let answers = crate::roles::notify::send_test(&ctx, receiver.as_deref()).await;
    let answers = answers.map_err(|error| ApiError::of(&error))?;
    if answers.is_empty() {
        let message = match receiver {
            Some(name) => format!("this node has no receiver of alerts named `{name}`"),
            None => "this node has no receiver of alerts".to_owned(),
        };
        let help = "set node.alerts in the spec that this node was started with";
        return Err(ApiError::not_found(message).help(help));
    }
    Ok(Json(json!({ "answers": answers })))
}
