//! `POST /v1/ingest/{schema}`: batches of records.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, header};
use futures::StreamExt as _;
use throng_api::{IngestQuery, IngestReport};
use throng_http::{BodyError, content_type, slow_body};
use throng_ingest::{BodyPart, BodyReader, Encoding, IngestError, IngestRequest};
use throng_model::with_causes;
use throng_operations::Operations;
use throng_schema::{RecordFormat, Schema};
use tokio::sync::mpsc;

use super::error::ApiError;
use super::operations::OperationsOf;
use super::state::IngestState;

/// Pieces of a body that wait for the thread that reads it.
const BUFFERED_PARTS: usize = 16;
/// Of a body whose batch is refused already, this much is read: a client that sends less gets the answer.
const DRAINED_BYTES: usize = 64 << 20;
/// The header of the batch id, if the query has none.
const BATCH_HEADER: &str = "idempotency-key";

fn schema_of(node: &Operations, name: &str) -> Result<Schema, ApiError> {
    let (spec, wanted) = (&node.spec, node.qualified(name));
    let found = spec.schemas.iter().find(|schema| schema.name.as_str() == wanted);
    found.cloned().ok_or_else(|| {
        let shown: String = name.chars().take(60).collect();
        let names: Vec<&str> = spec.schemas.iter().map(|schema| schema.name.as_str()).collect();
        let help = match names.is_empty() {
            true => "declare it in `schemas` of the spec".to_owned(),
            false => format!("the schemas are {}", names.join(", ")),
        };
        ApiError::not_found(format!("no schema `{shown}` in the applied spec")).help(help)
    })
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let values = headers.get_all(header::CONTENT_ENCODING).iter();
    Encoding::of_names(values.map(|value| value.to_str().unwrap_or("?")))
        .map_err(|why| ApiError::unsupported(why).help("send gzip, zstd, or none"))
}

/// The id of the batch, from the query or the header. If both have one, it is the same.
fn batch_id(headers: &HeaderMap, of_query: Option<String>) -> Result<Option<String>, ApiError> {
    let mut batch = of_query;
    for value in headers.get_all(BATCH_HEADER) {
        // Without it the digest would be the id.
        let id = value.to_str().map_err(|_| {
            let help = "write letters, digits, `-`, `_`, `.` and `:`";
            ApiError::bad_request("the header `idempotency-key` is not an id of a batch").help(help)
        })?;
        if batch.as_deref().is_some_and(|other| other != id) {
            let message =
                "`?batch=` and the header `idempotency-key` have different ids of the batch";
            return Err(ApiError::bad_request(message).help("send the id in one of them only"));
        }
        batch = Some(id.to_owned());
    }
    Ok(batch)
}

fn request_of(headers: &HeaderMap, query: IngestQuery) -> Result<IngestRequest, ApiError> {
    let format = RecordFormat::of_content_type(&content_type(headers)).ok_or_else(|| {
        let help = "send text/csv, application/x-ndjson or application/vnd.apache.parquet";
        ApiError::unsupported("records cannot have this content type").help(help)
    })?;
    let batch = batch_id(headers, query.batch)?;
    Ok(IngestRequest { batch, format, encoding: encoding(headers)? })
}

fn refusal(error: &IngestError) -> ApiError {
    let response = match error {
        IngestError::Refused { .. } | IngestError::CutOff => {
            ApiError::bad_request(error.to_string())
        }
        IngestError::Conflict { .. } => ApiError::conflict(error.to_string()),
        _ if error.needs_operator() => ApiError::unavailable(with_causes(error)).without_retry(),
        IngestError::Stopped => ApiError::unavailable(error.to_string()),
        _ => ApiError::of(error),
    };
    match error.help() {
        Some(help) => response.help(help),
        None => response,
    }
}

/// Passes the body to the thread that reads it. A body that is cut off has no end there.
async fn pass_on(body: Body, parts: mpsc::Sender<BodyPart>) -> Result<(), ApiError> {
    let mut frames = body.into_data_stream();
    let mut left = DRAINED_BYTES;
    while let Some(frame) = frames.next().await {
        let bytes = frame.map_err(|error| {
            let cause = slow_body(&error).map_or(BodyError::Incomplete, BodyError::Slow);
            ApiError::from(cause)
        })?;
        let size = bytes.len();
        if parts.send(BodyPart::Data(bytes)).await.is_err() {
            left = left.saturating_sub(size);
            if left == 0 {
                return Ok(());
            }
        }
    }
    // It fails if the batch is refused already, which its result says.
    let _ = parts.send(BodyPart::End).await;
    Ok(())
}

/// Ingests a batch of records: each is checked against the schema, identifiers are hashed or dropped as it says, and
/// the rest becomes rows of the table `lake.<schema>`, all at once. Rows that fail a check go to quarantine and are
/// counted. A batch that is sent again under the same id is not stored again.
#[utoipa::path(post, path = "/v1/ingest/{schema}", params(("schema" = String, Path, description = "the name of a schema of the applied spec"), ("batch" = Option<String>, Query, description = "the id of the batch; otherwise the header `idempotency-key`, which must not differ from it, otherwise the digest of the content"), ("workspace" = Option<String>, Query, description = "the workspace of the schema; a token that is limited to a workspace needs none")), request_body(content = String, description = "text/csv with a header, application/x-ndjson or application/vnd.apache.parquet, of any size, also encoded with gzip or zstd", content_type = "text/csv", example = "email,seen\nann@example.com,2026-11-25T10:00:00Z\n"), responses((status = 200, body = IngestReport, description = "rows, accepted, quarantined; `faults`: rows by field and reason, with the first line; `repeated`: the batch was ingested before, and this is its report"), (status = 400, description = "the content as a whole cannot be used: a wrong header, a quote that is not closed, a truncated file, no row in the form of a record; nothing of it is stored. Or `?batch=` and `idempotency-key` differ"), (status = 404, description = "no such schema, or the node ingests nothing"), (status = 409, description = "the batch id was used for other content")))]
pub(crate) async fn ingest(
    State(ctx): State<IngestState>,
    OperationsOf(node): OperationsOf,
    Path(schema): Path<String>,
    Query(query): Query<IngestQuery>,
    request: Request,
) -> Result<Json<IngestReport>, ApiError> {
    let ingest = ctx.ingest.ok_or_else(|| {
        let help =
            "add `lake: FOLDER` or `lake: s3://BUCKET/PREFIX` below `node:` and restart the node";
        ApiError::not_found("this node ingests nothing").help(help)
    })?;
    let workspace = query.workspace.as_deref().filter(|name| !name.is_empty());
    let schema = match workspace {
        Some(workspace) => format!("{workspace}:{schema}"),
        None => schema,
    };
    let schema = schema_of(&node, &schema)?;
    let wanted = request_of(request.headers(), query)?;
    let slot = ingest.slot().await;
    let (parts, receiver) = mpsc::channel(BUFFERED_PARTS);
    let worker = Arc::clone(&ingest);
    let name = schema.name.clone();
    let work = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        worker.run(&schema, &wanted, BodyReader::new(receiver))
    });
    let passed = pass_on(request.into_body(), parts).await;
    let result = work.await.unwrap_or_else(|error| Err(IngestError::of_task(&error)));
    passed?;
    let report = result.map_err(|error| refusal(&error))?;
    let (rows, quarantined, repeated) = (report.rows, report.quarantined, report.repeated);
    tracing::info!(schema = %name, batch = report.batch, rows, quarantined, repeated, "ingested a batch");
    Ok(Json(report))
}

#[cfg(test)]
mod tests {
    use throng_objects::ObjectsError;

    use super::*;

    #[test]
    fn a_batch_that_the_bucket_refuses_is_not_sent_again() {
        let parts = |error: ObjectsError| refusal(&IngestError::Bucket(error)).into_parts();
        let why = "there is no such bucket".to_owned();
        let (status, message, help, retry) = parts(ObjectsError::Settings { why });
        assert_eq!((status.as_u16(), retry), (503, None));
        assert!(message.contains("no such bucket"), "{message}");
        assert!(help.unwrap().contains("`node.lake`"));
        let source = Box::new(std::io::Error::other("refused"));
        let unreachable = ObjectsError::Store { doing: "upload", name: "a".to_owned(), source };
        let (status, _, _, retry) = parts(unreachable);
        assert_eq!((status.as_u16(), retry), (503, Some(1)));
    }

    #[tokio::test]
    async fn the_text_of_a_panic_is_not_answered() {
        let panicked = tokio::spawn(async { assert_eq!("ann@example.com", "") }).await.unwrap_err();
        let error = IngestError::of_task(&panicked);
        assert!(matches!(error, IngestError::Panicked), "{error}");
        let (status, message, _, _) = refusal(&error).into_parts();
        assert_eq!(status.as_u16(), 500);
        assert!(!message.contains("ann@"), "{message}");
    }
}
