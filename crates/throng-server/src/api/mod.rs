//! The HTTP API: one file per resource. `openapi.rs` describes every route; a test compares that
//! description with the routes.

mod alerts;
mod audiences;
mod auth;
mod body;
mod budgets;
mod bulk;
pub(crate) mod decide;
mod error;
mod events;
mod failure;
mod feed;
mod health;
mod ingest;
mod lookups;
mod mapping;
mod membership;
mod openapi;
mod operations;
mod removals;
mod sizes;
mod sources;
mod spec;
mod state;
mod stores;
mod stream;
mod syncs;
pub(crate) mod tokens;
mod why;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, MatchedPath, Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use throng_api::QueryParameters;
use throng_http::within;
use throng_spec::{NodeSettings, Role};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use utoipa::OpenApi as _;

pub(crate) use auth::Guard;
pub(crate) use error::ApiError;
pub(crate) use operations::OperationsOf;

use crate::NodeContext;

/// The least timeout of requests that check a spec: they read the columns of all tables.
const SPEC_TIMEOUT: Duration = Duration::from_secs(600);

/// Limits on requests, from the spec's node settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestLimits {
    /// The maximum length of a body.
    pub(crate) max_request_bytes: usize,
    /// The timeout of a request, without the time in which its body arrives. Streams have none.
    pub(crate) timeout: Duration,
}

impl RequestLimits {
    /// The limits that a spec sets.
    pub(crate) fn of(settings: &NodeSettings) -> Self {
        Self {
            max_request_bytes: usize::try_from(settings.max_request_bytes).unwrap_or(usize::MAX),
            timeout: Duration::from_secs(u64::from(settings.request_timeout_secs)),
        }
    }
}

/// The web pages, for the role api, and what every page loads.
pub(crate) struct PageRoutes {
    /// The pages.
    pub(crate) pages: Router<Arc<NodeContext>>,
    /// Style and script, which contain no data.
    pub(crate) assets: Router<Arc<NodeContext>>,
}

/// All routes of a node: API, streams, pages. Streams end when `stop` is cancelled.
pub(crate) fn router(
    ctx: Arc<NodeContext>,
    guard: Arc<Guard>,
    limits: RequestLimits,
    page: PageRoutes,
    stop: CancellationToken,
) -> Router {
    let has = |role| ctx.roles.contains(&role);
    let mut bounded = Router::new().merge(about());
    let mut slow = Router::new();
    let mut streams = Router::new();
    let mut large = Router::new();
    if has(Role::Api) {
        bounded = bounded.merge(objects()).merge(page.pages);
        slow = slow.merge(specs());
        streams = streams.route("/v1/stream", get(stream::changes));
        large = large.route("/v1/ingest/{schema}", post(ingest::ingest));
    }
    if has(Role::Api) || has(Role::Lookup) {
        bounded = bounded.merge(lookups());
    }
    if has(Role::Api) || has(Role::Relay) {
        bounded = bounded.merge(feed());
        streams = streams.route("/v1/feed", get(feed::stream));
    }
    let bounded = bounded.layer(from_fn_with_state(limits.timeout, within));
    let slow_timeout = limits.timeout.max(SPEC_TIMEOUT);
    let slow = slow.layer(from_fn_with_state(slow_timeout, within));
    let streams = streams.layer(Extension(stop));
    let roles: Arc<[Role]> = ctx.roles.as_slice().into();
    let data_directory_lost = ctx.data_directory_lost.clone();
    let known = Arc::new(QueryParameters::of(&openapi::Api::openapi()));
    // The bodies of batches have any length: they are read as they arrive.
    let large = large
        .layer(from_fn_with_state(Arc::clone(&known), check_query))
        .layer(from_fn_with_state(data_directory_lost.clone(), require_data_directory))
        .layer(from_fn_with_state(Arc::clone(&guard), auth::check))
        .layer(DefaultBodyLimit::disable());
    Router::new()
        .merge(bounded)
        .merge(slow)
        .merge(streams)
        .merge(health::open_routes())
        .merge(auth::sign_in_routes(Arc::clone(&guard)))
        .merge(page.assets)
        .fallback(move |request: Request| error::no_such_route(Arc::clone(&roles), request))
        .method_not_allowed_fallback(error::no_such_method)
        .layer(from_fn_with_state(known, check_query))
        .layer(from_fn_with_state(data_directory_lost, require_data_directory))
        .layer(from_fn_with_state(guard, auth::check))
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.max_request_bytes))
        .merge(large)
        .layer(CatchPanicLayer::new())
        .layer(axum::middleware::from_fn(health::measure))
        .layer(axum::middleware::from_fn(auth::secure)) // outside of `measure`, which replaces errors
        .with_state(ctx)
}

/// Refuses requests that change something once the data directory is lost: the change would go to files that
/// no longer have a name. Requests that read from memory are still served; `decide` checks it itself before it
/// records an insertion.
async fn require_data_directory(
    State(lost): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let reads = request.method().is_safe() || path == "/v1/lookups" || path == "/v1/decide";
    if lost.is_cancelled() && !reads {
        return data_directory_lost().into_response();
    }
    next.run(request).await
}

/// Refuses parameters of the query that the route does not have: they would have no effect.
async fn check_query(
    State(known): State<Arc<QueryParameters>>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    match query.map_or(Ok(()), |Query(query)| known.check(route, &query)) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            error::ApiError::bad_request(problem.message).help(problem.help).into_response()
        }
    }
}

fn data_directory_lost() -> error::ApiError {
    error::ApiError::unavailable("the data directory of this node was removed or replaced")
        .help("restore it and restart the node; `/v1/node/health` has the details")
        .without_retry()
}

/// Routes of every node.
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
        .route("/v1/membership", get(membership::published))
        .route("/v1/membership/dictionary/{shard}/{segment}", get(membership::segment))
        .route("/v1/membership/snapshots/{name}/{version}", get(membership::snapshot))
}

/// The feed and the reports of gates.
fn feed() -> Router<Arc<NodeContext>> {
    Router::new()
        .route("/v1/catalog", get(feed::catalog))
        .route("/v1/gates", get(feed::gates))
        .route("/v1/gates/{id}/applied", post(feed::applied))
}

/// Requests that read the tables of all sources: they have a longer timeout.
fn specs() -> Router<Arc<NodeContext>> {
    Router::new()
        .route("/v1/sources", get(sources::list))
        .route("/v1/spec/plan", post(spec::plan))
        .route("/v1/spec/apply", post(spec::apply))
}

/// All other routes.
fn objects() -> Router<Arc<NodeContext>> {
    Router::new()
        .route("/v1/nodes", get(health::nodes))
        .route("/v1/audiences", get(audiences::list))
        .route("/v1/audiences/{name}", get(audiences::one))
        .route("/v1/audiences/{name}/refresh", post(audiences::refresh))
        .route("/v1/audiences/{name}/cancel", post(audiences::cancel))
        .route("/v1/audiences/{name}/pause", post(audiences::pause))
        .route("/v1/audiences/{name}/resume", post(audiences::resume))
        .route("/v1/audiences/{name}/approve", post(audiences::approve))
        .route("/v1/audiences/{name}/reject", post(audiences::reject))
        .route("/v1/audiences/{name}/rollback", post(audiences::rollback))
        .route("/v1/audiences/{name}/release", post(audiences::release))
        .route("/v1/syncs", get(syncs::list))
        .route("/v1/syncs/{name}/sizes", get(sizes::of_sync))
        .route("/v1/syncs/{name}/run", post(syncs::run))
        .route("/v1/syncs/{name}/recreate", post(syncs::recreate))
        .route("/v1/syncs/{name}/pause", post(syncs::pause))
        .route("/v1/syncs/{name}/resume", post(syncs::resume))
        .route("/v1/removals", get(removals::list))
        .route("/v1/removals/{name}/approve", post(removals::approve))
        .route("/v1/removals/{name}/keep", post(removals::keep))
        .route("/v1/stores", get(stores::list))
        .route("/v1/stores/hash-seed", get(stores::hash_seed))
        .route("/v1/stores/{name}/writes", get(stores::writes))
        .route("/v1/stores/{name}/rewrite", post(stores::rewrite))
        .route("/v1/stores/{name}/audiences/{audience}/remove", post(stores::remove))
        .route("/v1/runs", get(syncs::runs))
        .route("/v1/runs/{id}/approve", post(syncs::approve_run))
        .route("/v1/destinations/{name}/approve", post(syncs::approve_destination))
        .route("/v1/tasks", get(syncs::tasks))
        .route("/v1/tasks/summary", get(syncs::task_summary))
        .route("/v1/tasks/enqueue", post(syncs::enqueue_due))
        .route("/v1/tasks/{id}", get(syncs::task))
        .route("/v1/tasks/{id}/requeue", post(syncs::requeue))
        .route("/v1/bulk/{operation}", post(bulk::act))
        .route("/v1/alerts", get(alerts::list))
        .route("/v1/alerts/deliveries", get(alerts::deliveries))
        .route("/v1/alerts/test", post(alerts::test))
        .route("/v1/events", post(events::accept))
        .route("/v1/events/quarantine", get(events::quarantine))
        .route("/v1/budgets", get(budgets::list))
        .route("/v1/budgets/report", get(budgets::report))
        .route("/v1/budgets/{ad_group}", get(budgets::one))
        .route("/v1/spec", get(spec::current))
        .route("/v1/why/{kind}/{name}", get(why::history))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{name}/revoke", post(tokens::revoke))
        .route("/v1/sessions", get(tokens::sessions))
        .route("/v1/sessions/{id}/end", post(tokens::end_session))
        .route("/v1/sign-in-links", post(tokens::sign_in_link))
}
