//! Health, readiness, metrics. Health and readiness need no token.

use std::sync::{Arc, OnceLock};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use throng_lake::Landlock;
use throng_model::{Clock, Entropy, SystemClock, SystemEntropy};
use throng_telemetry::metrics;

use crate::NodeContext;
use crate::health::Impact;

use super::error::{self, ApiError, REQUEST_ID};

pub(super) fn open_routes() -> Router<Arc<NodeContext>> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

/// The process is alive.
#[utoipa::path(get, path = "/healthz", security(()), responses((status = 200, body = String, content_type = "text/plain", description = "alive")))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the node can answer. Anybody may ask, so it names classes of problems and nothing else,
/// and costs no I/O.
#[utoipa::path(get, path = "/readyz", security(()), responses((status = 200, body = super::answers::Readiness, description = "`ready`: true; `degraded`: whether it goes on with older data or without a part; `problems`: classes of what is wrong"), (status = 503, body = super::answers::Readiness, description = "`ready`: false; `problems`: classes of what is wrong")))]
pub(crate) async fn readyz(State(ctx): State<Arc<NodeContext>>) -> (StatusCode, Json<Value>) {
    let impact = ctx.health.impact();
    let ready = impact != Some(Impact::NotReady);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let answer = json!({
        "ready": ready,
        "degraded": impact.is_some(),
        "problems": ctx.health.classes(),
    });
    (status, Json(answer))
}

/// What is wrong with this node, in detail, and which snapshots it serves.
#[utoipa::path(get, path = "/v1/node/health", responses((status = 200, body = super::answers::NodeHealth, description = "`ready`, `degraded`, `problems`: class, key, impact, detail, since; `snapshots`: the version served of each audience; `landlock`: whether the kernel confines query workers to their folders: yes, partial or no")))]
pub(crate) async fn details(State(ctx): State<Arc<NodeContext>>) -> Json<Value> {
    let impact = ctx.health.impact();
    let index = ctx.membership.load();
    let served: serde_json::Map<String, Value> =
        index.versions().map(|(name, version, _)| (name.to_string(), json!(version))).collect();
    Json(json!({
        "ready": impact != Some(Impact::NotReady),
        "degraded": impact.is_some(),
        "problems": ctx.health.problems(),
        "snapshots": served,
        "landlock": Landlock::of_kernel().name(),
    }))
}

/// One recorder a process; nodes of the same process share it.
static PROMETHEUS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Starts collecting metrics. Safe to call again.
pub(crate) fn install_metrics() {
    PROMETHEUS.get_or_init(|| {
        let handle = PrometheusBuilder::new().install_recorder().ok();
        metrics::describe();
        handle
    });
}

/// Moves the samples of histograms into their summaries. Without a scrape nobody else does, and they
/// would pile up in memory for as long as the process lives.
pub(crate) fn drain_samples() {
    if let Some(handle) = PROMETHEUS.get().and_then(Option::as_ref) {
        handle.run_upkeep();
    }
}

/// The processes of the deployment.
#[utoipa::path(get, path = "/v1/nodes", responses((status = 200, body = super::answers::NodeList, description = "`nodes`: name, roles, url, started_at, seen_at, partitions, stands_by, gates")))]
pub(crate) async fn nodes(State(ctx): State<Arc<NodeContext>>) -> Result<Json<Value>, ApiError> {
    let (nodes, _) = crate::roles::follow::deployment(&ctx).await?;
    Ok(Json(json!({ "nodes": nodes })))
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, description = "Prometheus text", content_type = "text/plain")))]
pub(crate) async fn metrics(State(ctx): State<Arc<NodeContext>>) -> Response {
    match PROMETHEUS.get().and_then(Option::as_ref) {
        Some(handle) => {
            let text = handle.render() + &ctx.collector.text(&ctx).await;
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Numbers, counts, times and logs requests by route; never by the path itself, which can hold a
/// user's key.
pub(super) async fn measure(request: Request, next: Next) -> Response {
    let id = format!("{:016x}", SystemEntropy.next_u64());
    REQUEST_ID.scope(id.clone(), measured(id, request, next)).await
}

async fn measured(id: String, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let start = SystemClock.now();
    let is_page = route == "none" || !(route.starts_with("/v1/") || route.ends_with("z"));
    let mut response = next.run(request).await;
    if !is_page || response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        response = error::in_form(response);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    let took = SystemClock.now().since(start);
    let status = response.status().as_u16();
    tracing::debug!(request_id = id, route, status, ms = took.as_millis() as u64, "request");
    let labels = [("route", route), ("status", status.to_string())];
    metrics::counter!(metrics::HTTP_REQUESTS_TOTAL, &labels).increment(1);
    metrics::histogram!(metrics::HTTP_REQUEST_SECONDS, &labels).record(took.as_secs_f64());
    response
}
