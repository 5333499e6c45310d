//! The HTTP API: one file per resource. `openapi.rs` describes every route; a test compares that
//! description with the routes.

mod audiences;
mod auth;
mod body;
mod budgets;
mod decide;
mod error;
mod events;
mod feed;
mod health;
mod lookups;
mod openapi;
mod spec;
mod stream;
pub(crate) mod syncs;
mod why;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Router};
use throng_model::Secret;
use throng_spec::{NodeSettings, Role};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

pub(crate) use health::install_metrics;

use crate::NodeContext;

/// Limits on requests, from the spec's node settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The longest body.
    pub(crate) max_request_bytes: usize,
    /// The longest that a request may take; streams are not requests in this sense.
    pub(crate) timeout: Duration,
}

impl Limits {
    /// The limits that a spec sets.
    pub(crate) fn of(settings: &NodeSettings) -> Self {
        Self {
            max_request_bytes: usize::try_from(settings.max_request_bytes).unwrap_or(usize::MAX),
            timeout: Duration::from_secs(u64::from(settings.request_timeout_secs)),
        }
    }
}

/// Everything that a node serves: API, streams, pages. Streams end when `stop` is told.
pub(crate) fn router(
    ctx: Arc<NodeContext>,
    token: Option<Secret>,
    limits: Limits,
    stop: CancellationToken,
) -> Router {
    let has = |role| ctx.roles.contains(&role);
    let mut bounded = Router::new().merge(about());
    let mut streams = Router::new();
    if has(Role::Api) {
        bounded = bounded.merge(objects()).merge(crate::page::routes());
        streams = streams.route("/v1/stream", get(stream::changes));
    }
    if has(Role::Api) || has(Role::Lookup) {
        bounded = bounded.merge(lookups());
    }
    if has(Role::Api) || has(Role::Relay) {
        bounded = bounded.merge(feed());
        streams = streams.route("/v1/feed", get(feed::stream));
    }
    let bounded =
        bounded.layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limits.timeout));
    let streams = streams.layer(Extension(stop));
    let roles: Arc<[Role]> = ctx.roles.as_slice().into();
    let wanted: auth::Wanted = Arc::new(token);
    let sign_in = auth::sign_in_routes(Arc::clone(&wanted)).merge(crate::page::assets());
    Router::new()
        .merge(bounded)
        .merge(streams)
        .fallback(move || error::no_such_route(Arc::clone(&roles)))
        .method_not_allowed_fallback(error::no_such_method)
        .layer(axum::middleware::from_fn_with_state(wanted, auth::require_token))
        .merge(health::open_routes())
        .merge(sign_in)
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.max_request_bytes))
        .layer(CatchPanicLayer::new())
        .layer(axum::middleware::from_fn(health::measure))
        .with_state(ctx)
}

/// What every node answers.
fn about() -> Router<Arc<NodeContext>> {
    Router::new()
        .route("/metrics", get(health::metrics))
        .route("/v1/node/health", get(health::details))
        .route("/openapi.json", get(openapi::document))
}

/// Membership and decisions.
fn lookups() -> Router<Arc<NodeContext>> {
    Router::new()
        .route("/v1/users/{key}/audiences", get(lookups::one))
        .route("/v1/lookups", post(lookups::batch))
        .route("/v1/decide", post(decide::decide))
}

/// What gates follow.
fn feed() -> Router<Arc<NodeContext>> {
    Router::new()
        .route("/v1/catalog", get(feed::catalog))
        .route("/v1/gates", get(feed::gates))
        .route("/v1/gates/{id}/applied", post(feed::applied))
}

/// Everything else.
fn objects() -> Router<Arc<NodeContext>> {
    Router::new()
        .route("/v1/nodes", get(health::nodes))
        .route("/v1/audiences", get(audiences::list))
        .route("/v1/audiences/{name}", get(audiences::one))
        .route("/v1/audiences/{name}/refresh", post(audiences::refresh))
        .route("/v1/audiences/{name}/approve", post(audiences::approve))
        .route("/v1/audiences/{name}/reject", post(audiences::reject))
        .route("/v1/audiences/{name}/rollback", post(audiences::rollback))
        .route("/v1/syncs", get(syncs::list))
        .route("/v1/runs", get(syncs::runs))
        .route("/v1/runs/{id}/approve", post(syncs::approve_run))
        .route("/v1/destinations/{name}/approve", post(syncs::approve_destination))
        .route("/v1/tasks", get(syncs::tasks))
        .route("/v1/tasks/announce", post(syncs::announce))
        .route("/v1/tasks/{id}", get(syncs::task))
        .route("/v1/tasks/{id}/requeue", post(syncs::requeue))
        .route("/v1/alerts", get(syncs::alerts))
        .route("/v1/events", post(events::accept))
        .route("/v1/events/quarantine", get(events::quarantine))
        .route("/v1/budgets", get(budgets::list))
        .route("/v1/budgets/{ad_group}", get(budgets::one))
        .route("/v1/spec", get(spec::current))
        .route("/v1/spec/apply", post(spec::apply))
        .route("/v1/why/{kind}/{name}", get(why::history))
}
