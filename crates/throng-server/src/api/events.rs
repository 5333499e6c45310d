//! `POST /v1/events`: events of ad servers.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use throng_aggregator::{Budgets, BudgetsError, CheckedEvents};
use throng_api::{EventsAccepted, QuarantineByPartition};
use throng_apply::is_declared_later;
use throng_budget::{EventProblem, MAX_PROBLEMS, ProtobufEvents, RefusedEvents, parse_ndjson};
use throng_http::{content_type, decoded, read_body};
use throng_model::AdGroupName;
use throng_operations::mapping::budgets as mapping;
use throng_store::Ledger;
use throng_telemetry::metrics;

use super::error::ApiError;
use crate::api::state::EventsState;

/// After how many seconds refused events may be sent again. A full disk is checked about every second.
const RETRY_AFTER_SECS: u64 = 5;

const KINDS: &str = "send application/x-ndjson (one JSON object a line) or application/x-protobuf";

type Checked = (CheckedEvents, RefusedEvents);

fn parse(kind: &str, body: &[u8], budgets: &Budgets) -> Result<Checked, ApiError> {
    match kind {
        "application/x-ndjson" | "application/ndjson" | "application/json" => {
            let parsed = parse_ndjson(body);
            let mut events = parsed.events.iter().map(|(line, event)| (*line, event.into()));
            Ok((budgets.check(parsed.events.len(), &mut events), parsed.refused))
        }
        "application/x-protobuf" | "application/protobuf" => {
            let mut events = ProtobufEvents::new(body);
            let checked = budgets.check(events.expected(), &mut events);
            let invalid = |it: EventProblem| ApiError::bad_request(it.message).help(it.help);
            Ok((checked, events.finish().map_err(invalid)?))
        }
        other => {
            let shown: String = other.chars().take(60).collect();
            let message = format!("events cannot have the content type `{shown}`");
            Err(ApiError::unsupported(message).help(KINDS))
        }
    }
}

/// No event of the batch is acknowledged: the client sends all of them again later.
fn refuse_batch(error: ApiError) -> Response {
    const HELP: &str = "send the same events again, with the same ids: an event that was counted is not counted twice";
    error.help(HELP).retry_after(RETRY_AFTER_SECS).into_response()
}

/// Whether a spec to which this node has not switched yet has one of these ad groups. If the ledger does not answer they
/// are rejected: one event must not keep all others of its batch from being counted for as long.
async fn has_newer_spec(
    ledger: Arc<dyn Ledger>,
    version: u64,
    unknown: HashSet<AdGroupName>,
) -> bool {
    let found = is_declared_later(&*ledger, version, &unknown).await;
    found.unwrap_or_else(|error| {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to look for unknown ad groups in the newest spec"
        );
        false
    })
}

/// Accepts events. Each event is checked by itself: accepted ones are durable when the response arrives,
/// rejected ones are listed with their line. Events of a batch that is sent again are not counted twice. The
/// body may be encoded with gzip, zstd or br.
#[utoipa::path(post, path = "/v1/events", request_body(content = String, description = "one event a line: id, kind (insertion, impression, click), ad_group, at, and insertion_id and inserted_at if known; of an insertion also price (of one billed event) or cpm (of a thousand), impression_rate, action_rate and placement, of an impression or click the price or cpm that is paid for it: without them the price of the insertion counts, and the ad group's; or a throng.events.v1.Events message", content_type = "application/x-ndjson", example = "{\"id\":\"i-1\",\"kind\":\"insertion\",\"ad_group\":\"shoes\",\"at\":\"2026-11-24T12:00:00Z\"}\n{\"id\":\"v-1\",\"kind\":\"impression\",\"ad_group\":\"shoes\",\"at\":\"2026-11-24T12:00:05Z\"}\n"), responses((status = 200, body = EventsAccepted, description = "`accepted`, with events in the log that this node does not apply, or has not applied within 10 seconds; `duplicates`, `repeated` (impressions and clicks whose insertion already has one with another id), `rejected`: line, field, message, help, of the first 1,000; `rejected_count`; `inserted_at_ignored`: the number of events whose `inserted_at` is after `at`, or more than 24 hours before it, and is ignored; `positions`: by partition, the first offset of the event log after these events: a feed frame with this log position, or a higher one, includes them"), (status = 422, body = EventsAccepted, description = "`no_event_counts`: none of the events counts; the same fields, and `error`"), (status = 413, description = "the body, encoded or decoded, is larger than `node.max_request_bytes`"), (status = 415, description = "the content type is neither NDJSON nor protobuf, or the content encoding is not gzip, zstd or br"), (status = 503, description = "the event log or its disk does not accept writes, or did not confirm the events in time (they may be stored or not), or this node, or the process that counts the events, does not have the newest spec with their ad group yet: send all events again after `Retry-After`")))]
pub(crate) async fn accept(
    State(ctx): State<EventsState>,
    request: Request,
) -> Result<Response, Response> {
    let limit = usize::try_from(ctx.spec.load().node.max_request_bytes).unwrap_or(usize::MAX);
    let read = read(request, limit, &ctx.budgets).await.map_err(IntoResponse::into_response)?;
    let (checked, RefusedEvents { mut problems, count: mut refused, inserted_at_ignored }) = read;
    let (budgets, ledger) = (Arc::clone(&ctx.budgets), Arc::clone(&ctx.ledger));
    let is_newer = move |version, unknown| has_newer_spec(ledger, version, unknown);
    // In a separate task: if the client disconnects, the batch is still counted as a whole.
    let accepted = tokio::spawn(async move { budgets.accept_checked(checked, is_newer).await })
        .await
        .map_err(|_| refuse_batch(ApiError::unavailable("the events could not be accepted")))?
        .map_err(|error| {
            match &error {
                // Both end as soon as the leader, or this node, has switched to the spec.
                BudgetsError::CatalogBehind { .. } | BudgetsError::SpecBehind => {
                    tracing::warn!(%error, "refused events of a new ad group");
                }
                _ => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to accept events"
                ),
            }
            refuse_batch(error.into())
        })?;
    refused += accepted.rejected_count;
    problems.extend(accepted.rejected.into_iter().map(|(line, problem)| problem.at_line(line)));
    problems.sort_by_key(|problem| problem.line);
    problems.truncate(MAX_PROBLEMS);
    metrics::counter!(metrics::EVENTS_INSERTED_AT_IGNORED_TOTAL).increment(inserted_at_ignored);
    let positions: BTreeMap<u32, u64> = accepted.positions.iter().copied().collect();
    let mut response = EventsAccepted {
        accepted: accepted.accepted,
        duplicates: accepted.duplicates,
        repeated: accepted.repeated,
        rejected: problems.into_iter().map(mapping::rejected).collect(),
        rejected_count: refused,
        inserted_at_ignored,
        positions,
        error: None,
    };
    if refused == 0 || accepted.accepted + accepted.duplicates + accepted.repeated > 0 {
        return Ok(Json(response).into_response());
    }
    let error = ApiError::no_event_counts("no event of the request counts")
        .help("`rejected` says why, event by event");
    response.error = Some(error.into_detail());
    Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(response)).into_response())
}

async fn read(request: Request, limit: usize, budgets: &Budgets) -> Result<Checked, ApiError> {
    let headers = request.headers().clone();
    let body = read_body(request).await?;
    parse(&content_type(&headers), &decoded(&headers, body, limit)?, budgets)
}

/// Records of the event log that could not be applied. They are skipped, and stay in the log.
#[utoipa::path(get, path = "/v1/events/quarantine", responses((status = 200, body = QuarantineByPartition, description = "`partitions`: partition, total, records (the first 1,000): offset, reason, count, at")))]
pub(crate) async fn quarantine(
    State(ctx): State<EventsState>,
) -> Result<Json<QuarantineByPartition>, ApiError> {
    let all = ctx.budgets.quarantine().await?;
    let partitions = all.into_iter().map(|(partition, list)| mapping::quarantine(partition, list));
    Ok(Json(QuarantineByPartition { partitions: partitions.collect() }))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::header;
    use throng_log::LogError;

    use super::*;

    #[tokio::test]
    async fn events_that_the_log_does_not_confirm_may_be_sent_again() {
        let topic = "throng.events".to_owned();
        for (error, message) in [
            (
                LogError::AppendTimeout { limit: std::time::Duration::from_secs(20) },
                "they may be stored or not",
            ),
            (LogError::Unconfirmed { topic: topic.clone() }, "they may be stored or not"),
            (LogError::Unreachable { topic }, "the events are refused"),
        ] {
            let response = refuse_batch(BudgetsError::Append(Arc::new(error)).into());
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()[header::RETRY_AFTER], "5");
            let body = to_bytes(response.into_body(), 10_000).await.unwrap();
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(text.contains(message) && text.contains("with the same ids"), "{text}");
        }
    }
}
