//! `POST /v1/events`: what ad servers report.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use throng_budget::{MAX_PROBLEMS, ParsedEvents, parse_ndjson, parse_protobuf};
use throng_telemetry::metrics;

use crate::NodeContext;

use super::body::{content_type, whole};
use super::encoding::decoded;
use super::error::ApiError;

/// When to send refused events again, in seconds: a partition is opened anew and a disk is looked at about
/// every second.
const RETRY_AFTER_SECS: u64 = 5;

const KINDS: &str = "send application/x-ndjson (one JSON object a line) or application/x-protobuf";

fn parse(kind: &str, body: &[u8]) -> Result<ParsedEvents, ApiError> {
    match kind {
        "application/x-ndjson" | "application/ndjson" | "application/json" => {
            Ok(parse_ndjson(body))
        }
        "application/x-protobuf" | "application/protobuf" => parse_protobuf(body)
            .map_err(|problem| ApiError::bad_request(problem.message).help(problem.help)),
        other => {
            let shown: String = other.chars().take(60).collect();
            let words = format!("events do not come as `{shown}`");
            Err(ApiError::unsupported(words).help(KINDS))
        }
    }
}

/// Nothing of a batch is acknowledged; the same events are sent again in a while.
fn refusal(error: ApiError) -> Response {
    let error = error.help("send the same events again: those that were counted count once");
    error.retry_after(RETRY_AFTER_SECS).into_response()
}

/// Takes events in. Each stands alone: those that are fine are durable and counted when the answer
/// comes, the others are listed with their line. Sending a batch again counts nothing twice. The body may
/// be encoded with gzip, zstd or br.
#[utoipa::path(post, path = "/v1/events", request_body(content = String, description = "one event a line: id, kind (insertion, impression, click), ad_group, at, and insertion_id and inserted_at if known; or a throng.events.v1.Events message", content_type = "application/x-ndjson"), responses((status = 200, body = super::answers::EventsAccepted, description = "`accepted`, `duplicates`, `repeated` (an impression or a click whose insertion had had one under another id), `rejected`: line, field, message, help, of the first 1,000; `rejected_count`; `inserted_at_ignored`: how many have an inserted_at after `at` or more than 24 hours before it, from which nothing is learned; `positions`: by partition, the first offset of the event log behind these events: a feed frame with this log position, or a higher one, has them"), (status = 422, body = super::answers::EventsAccepted, description = "none of the events counts: the same fields, and `error`"), (status = 413, description = "the body, encoded or decoded, is larger than `node.max_request_bytes`"), (status = 415, description = "neither NDJSON nor protobuf, or another content encoding than gzip, zstd and br"), (status = 503, description = "the log or its disk refuses, or a partition is being restarted: send all of it again after `Retry-After`")))]
pub(crate) async fn accept(
    State(ctx): State<Arc<NodeContext>>,
    request: Request,
) -> Result<Response, Response> {
    let limit = usize::try_from(ctx.spec.load().node.max_request_bytes).unwrap_or(usize::MAX);
    let parsed = read(request, limit).await.map_err(IntoResponse::into_response)?;
    let ParsedEvents { events, mut problems, mut refused, inserted_at_ignored } = parsed;
    let (lines, events): (Vec<usize>, Vec<_>) = events.into_iter().unzip();
    let budgets = Arc::clone(&ctx.budgets);
    // In a task of its own: a client that goes away does not leave a batch half counted.
    let accepted = tokio::spawn(async move { budgets.accept(events).await })
        .await
        .map_err(|_| refusal(ApiError::unavailable("the events could not be accepted")))?
        .map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "events not accepted");
            refusal(error.into())
        })?;
    refused += accepted.rejected_count;
    let more = accepted.rejected.into_iter().map(|(place, problem)| {
        let line = lines.get(place).copied().unwrap_or(0);
        problem.at_line(line)
    });
    problems.extend(more);
    problems.sort_by_key(|problem| problem.line);
    problems.truncate(MAX_PROBLEMS);
    metrics::counter!(metrics::EVENTS_INSERTED_AT_IGNORED_TOTAL).increment(inserted_at_ignored);
    let positions: BTreeMap<u32, u64> = accepted.positions.iter().copied().collect();
    let mut answer = json!({
        "accepted": accepted.accepted,
        "duplicates": accepted.duplicates,
        "repeated": accepted.repeated,
        "rejected": problems,
        "rejected_count": refused,
        "inserted_at_ignored": inserted_at_ignored,
        "positions": positions,
    });
    if refused == 0 || accepted.accepted + accepted.duplicates + accepted.repeated > 0 {
        return Ok(Json(answer).into_response());
    }
    let words = format!("none of the {refused} events of the request counts");
    let error = ApiError::no_event_counts(words).help("`rejected` says why, event by event");
    answer["error"] = error.in_body();
    Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(answer)).into_response())
}

async fn read(request: Request, limit: usize) -> Result<ParsedEvents, ApiError> {
    let headers = request.headers().clone();
    let body = whole(request, &()).await?;
    parse(&content_type(&headers), &decoded(&headers, body, limit)?)
}

/// Records of the event log that could not be applied: they are passed over, and stay in the log.
#[utoipa::path(get, path = "/v1/events/quarantine", responses((status = 200, body = super::answers::QuarantineByPartition, description = "`partitions`: partition, total, records (the first 1,000): offset, reason, count, at")))]
pub(crate) async fn quarantine(
    State(ctx): State<Arc<NodeContext>>,
) -> Result<Json<Value>, ApiError> {
    let all = ctx.budgets.quarantine().await?;
    let partitions: Vec<Value> = all
        .into_iter()
        .map(|(partition, list)| {
            json!({ "partition": partition, "total": list.total, "records": list.records })
        })
        .collect();
    Ok(Json(json!({ "partitions": partitions })))
}
