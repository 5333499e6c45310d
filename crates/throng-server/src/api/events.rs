//! `POST /v1/events`: what ad servers report.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use throng_budget::{Event, EventProblem, parse_ndjson, parse_protobuf};

use crate::NodeContext;

use super::body::{content_type, whole};
use super::error::ApiError;

/// The most problems that are told one by one; the others are only counted.
const MOST_PROBLEMS: usize = 1_000;

const KINDS: &str = "send application/x-ndjson (one JSON object a line) or application/x-protobuf";

/// Events with their line in the body, and what was wrong with the others.
#[derive(Debug)]
struct Parsed {
    events: Vec<Event>,
    lines: Vec<usize>,
    problems: Vec<EventProblem>,
}

fn parse(kind: &str, body: &[u8]) -> Result<Parsed, ApiError> {
    // The place among the good ones is told apart from the place in the body.
    let (numbers, events): (Vec<usize>, Vec<Result<Event, EventProblem>>) = match kind {
        "application/x-ndjson" | "application/ndjson" | "application/json" => {
            let lines = body
                .split(|byte| *byte == b'\n')
                .enumerate()
                .filter(|(_, line)| !line.trim_ascii().is_empty())
                .map(|(at, _)| at + 1);
            (lines.collect(), parse_ndjson(body))
        }
        "application/x-protobuf" | "application/protobuf" => {
            let events = parse_protobuf(body)
                .map_err(|p| ApiError::bad_request(p.message.clone()).help(p.help))?;
            ((1..=events.len()).collect(), events)
        }
        other => {
            let shown: String = other.chars().take(60).collect();
            let words = format!("events do not come as `{shown}`");
            return Err(ApiError::unsupported(words).help(KINDS));
        }
    };
    let mut parsed = Parsed { events: Vec::new(), lines: Vec::new(), problems: Vec::new() };
    for (line, event) in numbers.into_iter().zip(events) {
        match event {
            Ok(event) => {
                parsed.events.push(event);
                parsed.lines.push(line);
            }
            Err(problem) => parsed.problems.push(problem),
        }
    }
    Ok(parsed)
}

/// Takes events in. Each stands alone: those that are fine are durable and counted when the answer
/// comes, the others are listed with their line. Sending a batch again counts nothing twice.
#[utoipa::path(post, path = "/v1/events", request_body(content = String, description = "one event a line: id, kind (insertion, impression, click), ad_group, at, and insertion_id and inserted_at if known; or a throng.events.v1.Events message", content_type = "application/x-ndjson"), responses((status = 200, description = "`accepted`, `duplicates`, `rejected`: line, field, message, help; `rejected_count`"), (status = 415, description = "neither NDJSON nor protobuf"), (status = 503, description = "the log failed: send all of it again")))]
pub(crate) async fn accept(
    State(ctx): State<Arc<NodeContext>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let kind = content_type(request.headers());
    let body = whole(request, &()).await?;
    let Parsed { events, lines, mut problems } = parse(&kind, &body)?;
    let budgets = Arc::clone(&ctx.budgets);
    // In a task of its own: a client that goes away does not leave a batch half counted.
    let accepted = tokio::spawn(async move { budgets.accept(events).await })
        .await
        .map_err(|_| ApiError::unavailable("the events could not be taken in"))?
        .map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "events not taken in");
            ApiError::unavailable(error.to_string())
                .help("send the same events again: those that were counted count once")
        })?;
    let refused = accepted.rejected.into_iter().map(|(place, problem)| {
        let line = lines.get(place).copied().unwrap_or(0);
        problem.at_line(line)
    });
    problems.extend(refused);
    problems.sort_by_key(|problem| problem.line);
    let count = problems.len();
    problems.truncate(MOST_PROBLEMS);
    Ok(Json(json!({
        "accepted": accepted.accepted,
        "duplicates": accepted.duplicates,
        "rejected": problems,
        "rejected_count": count,
    })))
}
