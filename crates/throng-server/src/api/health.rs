//! Health, readiness, metrics. Health and readiness need no token.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use throng_api::{NodeHealth, NodeList, Readiness};
use throng_model::{Clock, Entropy, SystemClock, SystemEntropy};
use throng_operations::members::members;
use throng_telemetry::metrics;
use throng_worker::Landlock;

use crate::NodeContext;
use throng_telemetry::Impact;

use super::error::{self, ApiError, REQUEST_ID};
use super::mapping;
use super::state::{BudgetsState, HealthState, MetricsState};

pub(super) fn open_routes() -> Router<Arc<NodeContext>> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", security(()), responses((status = 200, body = String, content_type = "text/plain", description = "alive")))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the node is ready. Needs no token, so the response has classes of problems and no details, and
/// costs no I/O.
#[utoipa::path(get, path = "/readyz", security(()), responses((status = 200, body = Readiness, description = "`ready`: true; `degraded`: whether it works with older data or without a component; `problems`: classes of problems"), (status = 503, body = Readiness, description = "`ready`: false; `problems`: classes of problems")))]
pub(crate) async fn readyz(
    State(HealthState { health, .. }): State<HealthState>,
) -> (StatusCode, Json<Readiness>) {
    let impact = health.impact();
    let ready = impact != Some(Impact::NotReady);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let classes = health.classes().into_iter().map(|class| class.name().to_owned());
    let response = Readiness { ready, degraded: impact.is_some(), problems: classes.collect() };
    (status, Json(response))
}

/// The problems of this node in detail, and the snapshots that it serves.
#[utoipa::path(get, path = "/v1/node/health", responses((status = 200, body = NodeHealth, description = "`ready`, `degraded`, `problems`: class, key, impact, detail, since; `snapshots`: the version that is served of each audience; `landlock`: whether the kernel confines query workers to their folders: yes, partial or no")))]
pub(crate) async fn details(
    State(HealthState { health, membership }): State<HealthState>,
) -> Json<NodeHealth> {
    let impact = health.impact();
    let index = membership.load();
    let served = index.snapshots().map(|(name, file)| (name.to_string(), file.meta().version));
    Json(NodeHealth {
        ready: impact != Some(Impact::NotReady),
        degraded: impact.is_some(),
        problems: health.problems().into_iter().map(mapping::problem).collect(),
        snapshots: served.collect(),
        landlock: Landlock::of_kernel().name().to_owned(),
    })
}

/// The nodes of the cluster.
#[utoipa::path(get, path = "/v1/nodes", responses((status = 200, body = NodeList, description = "`nodes`: name, roles, url, started_at, seen_at, partitions, stands_by, gates")))]
pub(crate) async fn nodes(State(node): State<BudgetsState>) -> Result<Json<NodeList>, ApiError> {
    let (nodes, _) = members(&*node.ledger, node.clock.now(), node.budgets.gates()).await?;
    Ok(Json(NodeList { nodes }))
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, description = "Prometheus text", content_type = "text/plain")))]
pub(crate) async fn metrics(State(MetricsState { collector }): State<MetricsState>) -> Response {
    match crate::metrics::render() {
        Some(recorded) => {
            let text = recorded + &collector.text().await;
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Assigns the request id, and measures and logs requests by route; never by path, which can contain the key
/// of a user.
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
        response = error::into_api_error(response);
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
