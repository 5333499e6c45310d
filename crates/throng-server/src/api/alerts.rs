//! `/v1/alerts`: alerts, their delivery, and a test of the receivers.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use throng_api::{AlertDeliveryList, AlertList, AlertTest, AlertTestAnswers, ListQuery, PageQuery};
use throng_operations::{alerts as operations, lists};

use crate::NodeContext;

use super::body::Body;
use super::error::ApiError;
use super::mapping::test_answer;
use super::operations::OperationsOf;

type Ctx = State<Arc<NodeContext>>;

/// Alerts, open ones first by default.
#[utoipa::path(get, path = "/v1/alerts", params(("search" = Option<String>, Query, description = "only rows whose kind, subject or message contain this text"), ("state" = Option<String>, Query, description = "only rows in this state: open or resolved"), ("sort" = Option<String>, Query, description = "the field to sort by: id or last_at; with `-` in front in descending order; by default open ones come first, with a search, state or cursor `-id`"), ("limit" = Option<u32>, Query, description = "the number of rows: 200 by default, at most 1,000"), ("cursor" = Option<String>, Query, description = "`next_cursor` or `previous_cursor` of another page, with the same search and state"), ("workspace" = Option<String>, Query, description = "only rows of objects of this workspace"), ("offset" = Option<u32>, Query, description = "the number of rows to skip first; only without search, state, sort and cursor")), responses((status = 200, body = AlertList, description = "`alerts`: kind, severity, subject, message, count, raised_at, last_at, resolved_at, ended deliveries; `open` and `total`: the number of alerts; `receivers`: name, pending, failures, next_try_at, last_error, last_ok_at; `next_cursor`, `previous_cursor`")))]
pub(crate) async fn list(
    OperationsOf(node): OperationsOf,
    Query(page): Query<PageQuery>,
    Query(query): Query<ListQuery>,
) -> Result<Json<AlertList>, ApiError> {
    Ok(Json(lists::alerts(&node, &query, page.offset).await?))
}

/// Ended deliveries of alerts, newest first.
#[utoipa::path(get, path = "/v1/alerts/deliveries", params(("limit" = Option<u32>, Query, description = "the number of rows: 200 by default, at most 1,000")), responses((status = 200, body = AlertDeliveryList, description = "`deliveries`: receiver, event_id, alert, event, state, tries, http_status, why, at")))]
pub(crate) async fn deliveries(
    OperationsOf(node): OperationsOf,
    Query(page): Query<PageQuery>,
) -> Result<Json<AlertDeliveryList>, ApiError> {
    Ok(Json(AlertDeliveryList { deliveries: operations::deliveries(&node, page.rows()).await? }))
}

/// Sends a test alert to the receivers of this node's settings, and waits for their responses.
#[utoipa::path(post, path = "/v1/alerts/test", request_body = AlertTest, responses((status = 200, body = AlertTestAnswers, description = "`answers`: receiver, accepted, status, answer, error"), (status = 404, description = "no such receiver, or no receiver is configured")))]
pub(crate) async fn test(
    State(ctx): Ctx,
    Body(AlertTest { receiver }): Body<AlertTest>,
) -> Result<Json<AlertTestAnswers>, ApiError> {
    let deps = crate::roles::notify::deps(&ctx);
    let answers = throng_alerts::send_test(&deps, receiver.as_deref()).await;
    let answers = answers.map_err(|error| ApiError::of(&error))?;
    if answers.is_empty() {
        let message = match receiver {
            Some(name) => format!("this node has no alert receiver named `{name}`"),
            None => "this node has no alert receiver".to_owned(),
        };
        let help = "set node.alerts in the spec that this node was started with";
        return Err(ApiError::not_found(message).help(help));
    }
    let answers = answers.into_iter().map(test_answer).collect();
    Ok(Json(AlertTestAnswers { answers }))
}
