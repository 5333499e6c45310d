//! The feed for gates: frames, the catalog, and the versions that each gate has applied.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body as Stream;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::StreamExt;
use throng_aggregator::FeedFormat;
use throng_api::{
    AdGroupCatalog, AppliedVersions, DEPLOYMENT_HEADER, FeedQuery, GATE_ID_RULE, GateList,
    GateNoted, GatePartition, is_gate_id,
};
use throng_membership::seed_check;
use throng_operations::members::members;
use throng_telemetry::metrics;
use tokio_util::sync::CancellationToken;

use crate::api::state::BudgetsState;

use super::body::Body;
use super::error::ApiError;

type Ctx = State<BudgetsState>;

/// The header by which a gate notices that it follows another deployment.
fn deployment(ctx: &BudgetsState) -> (HeaderName, String) {
    (HeaderName::from_static(DEPLOYMENT_HEADER), format!("{:016x}", seed_check(ctx.seed)))
}

fn checked_gate_id(id: &str) -> Result<&str, ApiError> {
    if is_gate_id(id) {
        Ok(id)
    } else {
        Err(ApiError::bad_request("this is not a valid gate id").help(GATE_ID_RULE))
    }
}

/// Budget states for gates: length-prefixed frames, a keyframe of every partition first, then
/// deltas. The response does not end until the node stops. The header `throng-deployment` identifies the deployment.
#[utoipa::path(get, path = "/v1/feed", params(("gate" = Option<String>, Query, description = "the id of the gate"), ("format" = Option<u8>, Query, description = "1 (default), 2: with log positions, or 3: with pass-through rates too")), responses((status = 200, body = Vec<u8>, description = "frames, each with a u32 little-endian length before it; the format is in docs/specs/feed-format.md", content_type = "application/octet-stream")))]
pub(crate) async fn stream(
    State(ctx): Ctx,
    Query(query): Query<FeedQuery>,
    Extension(stop): Extension<CancellationToken>,
) -> Result<Response, ApiError> {
    if let Some(gate) = &query.gate {
        checked_gate_id(gate)?;
    }
    let format = match query.format {
        None | Some(1) => FeedFormat::V1,
        Some(2) => FeedFormat::V2,
        Some(3) => FeedFormat::V3,
        Some(_) => {
            return Err(ApiError::bad_request(
                "this node serves the feed in the formats 1, 2 and 3",
            )
            .help("omit `format`, or send format=3"));
        }
    };
    metrics::gauge!(metrics::FEED_CONNECTIONS).increment(1.0);
    let connection = OpenConnection;
    let subscription = Arc::clone(&ctx.budgets).subscribe(format);
    let frames =
        futures::stream::unfold((subscription, connection), async |(mut from, connection)| {
            let frame = from.next().await?;
            Some((Ok::<_, Infallible>(frame), (from, connection)))
        });
    let body = Stream::from_stream(frames.take_until(stop.cancelled_owned()));
    let content_type = (header::CONTENT_TYPE, "application/octet-stream".to_owned());
    Ok(([content_type, deployment(&ctx)], body).into_response())
}

/// Counts an open feed connection until it is dropped.
struct OpenConnection;

impl Drop for OpenConnection {
    fn drop(&mut self) {
        metrics::gauge!(metrics::FEED_CONNECTIONS).decrement(1.0);
    }
}

/// The ad groups with their index in the feed, budget and targeting.
#[utoipa::path(get, path = "/v1/catalog", responses((status = 200, body = AdGroupCatalog, description = "`version`, `ad_groups`")))]
pub(crate) async fn catalog(State(ctx): Ctx) -> Response {
    ([deployment(&ctx)], Json(ctx.budgets.catalog())).into_response()
}

/// Reports the versions of the feed that a gate has applied.
#[utoipa::path(post, path = "/v1/gates/{id}/applied", params(("id" = String, Path)), request_body = AppliedVersions, responses((status = 200, body = GateNoted, description = "recorded"), (status = 400, description = "the gate id is invalid, or there are too many gates")))]
pub(crate) async fn applied(
    State(ctx): Ctx,
    Path(id): Path<String>,
    Body(AppliedVersions { versions }): Body<AppliedVersions>,
) -> Result<Json<GateNoted>, ApiError> {
    let id = checked_gate_id(&id)?;
    if versions.len() > 256 {
        return Err(ApiError::bad_request("more than 256 partitions in one report"));
    }
    // In ascending order of the partitions, as the map has them.
    let versions: Vec<(u32, u64)> = versions.into_iter().collect();
    if !ctx.budgets.gate_report(id, versions, ctx.clock.now()) {
        return Err(ApiError::bad_request("the number of gates of this node is at its limit")
            .help(
                "give each gate a fixed id; gates that have not reported for an hour are removed",
            ));
    }
    Ok(Json(GateNoted { noted: true }))
}

/// The gates that have reported within the last hour, to this node or to another one.
#[utoipa::path(get, path = "/v1/gates", responses((status = 200, body = GateList, description = "`gates`: id, versions, at, age_seconds; `partitions`: the published version of each partition")))]
pub(crate) async fn gates(State(ctx): Ctx) -> Result<Json<GateList>, ApiError> {
    let now = ctx.clock.now();
    let (_, gates) = members(&*ctx.ledger, now, ctx.budgets.gates()).await?;
    let partitions = ctx.budgets.feed_positions().into_iter().map(|feed| GatePartition {
        partition: feed.partition,
        epoch: feed.epoch,
        version: feed.version,
        age_seconds: now.since(feed.at).as_secs_f64(),
    });
    Ok(Json(GateList { gates, partitions: partitions.collect() }))
}
