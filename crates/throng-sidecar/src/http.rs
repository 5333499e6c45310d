//! What a sidecar answers: decisions, probes, metrics. Requests, responses and errors are those of a node.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use throng_api::{
    DecideRequest, DecisionMade, ErrorBody, ErrorCode, ErrorDetail, MAX_CANDIDATES, body_of,
    candidates, refusals,
};
use throng_gate::{Gate, OwnInsertion, Reason};
use throng_http::{BodyError, content_type, read_body, within};
use throng_model::{AdGroupName, Entropy as _, SystemEntropy, Timestamp, UserKey};

use crate::cache::Cache;
use crate::client::NodeClient;
use crate::error::SyncError;
use crate::status::Status;

/// A thousand names of ad groups and a key are far shorter.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Recording an insertion waits for the node; a decision alone waits for nothing.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// What the handlers need.
pub(crate) struct Api {
    pub(crate) gate: Arc<Gate>,
    pub(crate) status: Arc<Status>,
    pub(crate) client: NodeClient,
    pub(crate) cache: Arc<Cache>,
}

/// All routes.
pub(crate) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/decide", post(decide))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(|| async {
            ApiError::new(ErrorCode::MissingRole, "this path does not exist")
                .help("a sidecar has /v1/decide, /healthz, /readyz and /metrics")
        })
        .method_not_allowed_fallback(|| async {
            let message = "this path does not support this method";
            ApiError::new(ErrorCode::MethodNotAllowed, message)
        })
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .layer(from_fn_with_state(REQUEST_TIMEOUT, within))
        .with_state(api)
}

/// Whether a path is a probe, which needs no token.
pub(crate) fn is_probe(path: &str) -> bool {
    ["/healthz", "/readyz"].contains(&path)
}

async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let readiness = api.status.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let cache = Arc::clone(&api.cache);
    let bytes = tokio::task::spawn_blocking(move || cache.bytes()).await.unwrap_or(0);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], api.status.metrics(bytes))
        .into_response()
}

async fn decide(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Json<DecisionMade>, ApiError> {
    let request = read_request(request).await?;
    if request.ad_groups.len() > MAX_CANDIDATES {
        let message = format!("more than {MAX_CANDIDATES} ad groups in one request");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let seed = api.status.seed().filter(|_| api.status.is_ready()).ok_or_else(|| {
        ApiError::new(ErrorCode::Unavailable, "the gate does not have all figures yet")
            .help("/readyz says what is missing")
            .retry_after(1)
    })?;
    let now = api.status.now();
    let user = request.user_key().map(|key| UserKey::text(key).hash(seed));
    let (names, mut refused) = candidates(request.ad_groups.iter().map(String::as_str));
    let (decision, counted) = match request.record_insertion {
        true => api.gate.decide_and_count(user, &names, now),
        false => (api.gate.decide(user, &names, now), None),
    };
    refused.extend(refusals(&decision.refused, Reason::code));
    let mut insertion_id = None;
    if let (Some(counted), Some(chosen)) = (counted, decision.allowed.first()) {
        insertion_id = Some(record_insertion(&api, counted, chosen, now).await?);
    }
    api.status.count_decision();
    Ok(Json(DecisionMade { allowed: decision.allowed, refused, insertion_id }))
}

/// Sends the event of an insertion to the node, and returns its id.
async fn record_insertion(
    api: &Api,
    counted: OwnInsertion,
    ad_group: &AdGroupName,
    now: Timestamp,
) -> Result<String, ApiError> {
    let id = format!("decide-{:016x}", SystemEntropy.next_u64());
    let mut sent = api.client.insertion(&id, ad_group, now).await;
    let mut may_have_arrived = sent.as_ref().is_err_and(SyncError::may_have_arrived);
    if matches!(sent, Err(SyncError::Connection { .. })) {
        // The same id: the node counts it once if it has it already.
        sent = api.client.insertion(&id, ad_group, now).await;
        may_have_arrived |= sent.as_ref().is_err_and(SyncError::may_have_arrived);
    }
    match sent {
        Ok(accepted) if accepted.rejected_count == 0 => {
            let positions: Vec<(u32, u64)> = accepted.positions.into_iter().collect();
            api.gate.insertion_logged(counted, &positions, now);
            Ok(id)
        }
        Ok(accepted) => {
            if !may_have_arrived {
                api.gate.insertion_dropped(counted);
            }
            let why = accepted.rejected.into_iter().next().map(|rejected| rejected.message);
            let why = why.unwrap_or_default();
            let message = format!("the insertion was rejected: {why}");
            Err(ApiError::new(ErrorCode::Unavailable, message).retry_after(1))
        }
        Err(error) => {
            // Where it is unknown whether the node has it, the gate counts it for ten minutes, which is safe for the
            // budget.
            if !may_have_arrived {
                api.gate.insertion_dropped(counted);
            }
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "failed to record an insertion"
            );
            Err(not_recorded(&error))
        }
    }
}

fn not_recorded(error: &SyncError) -> ApiError {
    let code = match error {
        SyncError::Forbidden { .. } => ErrorCode::Forbidden,
        _ => ErrorCode::Unavailable,
    };
    let message = format!("the node did not record the insertion: {error}");
    let answer = ApiError::new(code, message).help(error.hint());
    if code == ErrorCode::Unavailable { answer.retry_after(1) } else { answer }
}

async fn read_request(request: Request) -> Result<DecideRequest, ApiError> {
    let unsupported = |message: &str| ApiError::new(ErrorCode::UnsupportedMediaType, message);
    if content_type(request.headers()) != "application/json" {
        return Err(unsupported("the request is not JSON")
            .help("send JSON with `content-type: application/json`"));
    }
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(unsupported("this path does not accept encoded bodies"));
    }
    let bytes = read_body(request).await.map_err(|error| match error {
        BodyError::TooLarge => ApiError::new(
            ErrorCode::TooLarge,
            format!("the request body is larger than {MAX_REQUEST_BYTES} bytes"),
        ),
        BodyError::Slow(slow) => ApiError::new(ErrorCode::Timeout, slow.to_string()),
        BodyError::Incomplete => ApiError::new(ErrorCode::BadRequest, error.to_string()),
    })?;
    body_of(&bytes).map_err(|message| ApiError::new(ErrorCode::BadRequest, message))
}

/// An error, in the form of a node's.
#[derive(Debug)]
pub(crate) struct ApiError {
    detail: Box<ErrorDetail>,
    retry_after: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        let detail =
            ErrorDetail { code, message, help: None, problems: Vec::new(), request_id: None };
        Self { detail: Box::new(detail), retry_after: None }
    }

    pub(crate) fn help(mut self, help: &str) -> Self {
        self.detail.help = Some(help.to_owned());
        self
    }

    fn retry_after(mut self, secs: u64) -> Self {
        self.retry_after = Some(secs);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.detail.code.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(ErrorBody { error: *self.detail })).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, after.into());
        }
        response
    }
}
