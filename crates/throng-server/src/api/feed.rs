//! The feed to gates: frames, the catalog, and what each gate has applied.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body as Stream;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use throng_feed::Catalog;
use throng_telemetry::metrics;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::NodeContext;
use crate::roles::aggregate::FeedFormat;
use crate::roles::follow::deployment;

use super::body::Body;
use super::error::ApiError;

type Ctx = State<Arc<NodeContext>>;

/// The longest name of a gate.
const LONGEST_ID: usize = 128;

/// Who subscribes.
#[derive(Debug, Deserialize)]
pub(crate) struct Subscriber {
    /// The gate's name, for the list of gates.
    gate: Option<String>,
    /// The format of the frames that it reads.
    format: Option<u8>,
}

fn checked(id: &str) -> Result<&str, ApiError> {
    let fits = !id.is_empty()
        && id.len() <= LONGEST_ID
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
    if fits {
        Ok(id)
    } else {
        Err(ApiError::bad_request("this is no name of a gate")
            .help("use 1 to 128 letters, digits, `-`, `_`, `.` and `:`"))
    }
}

/// Budget states for gates: length-prefixed frames, a keyframe of every partition first, then
/// deltas. Never ends by itself.
#[utoipa::path(get, path = "/v1/feed", params(("gate" = Option<String>, Query, description = "the gate's name"), ("format" = Option<u8>, Query, description = "1 unless set; 2: with log positions")), responses((status = 200, body = Vec<u8>, description = "u32 little-endian length and a frame, again and again; the format is in docs/specs/feed-format.md", content_type = "application/octet-stream")))]
pub(crate) async fn stream(
    State(ctx): Ctx,
    Query(subscriber): Query<Subscriber>,
    Extension(stop): Extension<CancellationToken>,
) -> Result<Response, ApiError> {
    if let Some(gate) = &subscriber.gate {
        checked(gate)?;
    }
    let format = match subscriber.format {
        None | Some(1) => FeedFormat::One,
        Some(2) => FeedFormat::Two,
        Some(_) => {
            return Err(ApiError::bad_request("this node has the feed in the formats 1 and 2")
                .help("leave `format` out, or send format=2"));
        }
    };
    metrics::gauge!(metrics::FEED_CONNECTIONS).increment(1.0);
    let open = Connection;
    let subscription = Arc::clone(&ctx.budgets).subscribe(format);
    let frames = futures::stream::unfold((subscription, open), async |(mut from, open)| {
        let frame = from.next().await?;
        Some((Ok::<_, Infallible>(frame), (from, open)))
    });
    let body = Stream::from_stream(frames.take_until(stop.cancelled_owned()));
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

/// Counts a connection until it is dropped.
struct Connection;

impl Drop for Connection {
    fn drop(&mut self) {
        metrics::gauge!(metrics::FEED_CONNECTIONS).decrement(1.0);
    }
}

/// The ad groups with their numbers in the feed, budgets and targeting.
#[utoipa::path(get, path = "/v1/catalog", responses((status = 200, body = super::answers::AdGroupCatalog, description = "`version`, `ad_groups`")))]
pub(crate) async fn catalog(State(ctx): Ctx) -> Json<Arc<Catalog>> {
    Json(ctx.budgets.catalog())
}

/// What a gate has applied.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppliedVersions {
    /// The version of each partition's last frame, by partition number.
    versions: HashMap<u32, u64>,
}

/// A gate reports how far it has followed the feed.
#[utoipa::path(post, path = "/v1/gates/{id}/applied", params(("id" = String, Path)), request_body = AppliedVersions, responses((status = 200, body = super::answers::GateNoted, description = "noted"), (status = 400, description = "no name of a gate, or too many gates")))]
pub(crate) async fn applied(
    State(ctx): Ctx,
    Path(id): Path<String>,
    Body(AppliedVersions { versions }): Body<AppliedVersions>,
) -> Result<Json<Value>, ApiError> {
    let id = checked(&id)?;
    if versions.len() > 256 {
        return Err(ApiError::bad_request("more than 256 partitions in one report"));
    }
    let mut versions: Vec<(u32, u64)> = versions.into_iter().collect();
    versions.sort_unstable();
    if !ctx.budgets.gate_report(id, versions, ctx.clock.now()) {
        return Err(ApiError::bad_request("this node knows as many gates as it can")
            .help("give gates names that stay; those silent for an hour are forgotten"));
    }
    Ok(Json(json!({ "noted": true })))
}

/// The gates that have reported within the last hour, to this node or to another one.
#[utoipa::path(get, path = "/v1/gates", responses((status = 200, body = super::answers::GateList, description = "`gates`: id, versions, at, age_seconds; `partitions`: how far the feed has come")))]
pub(crate) async fn gates(State(ctx): Ctx) -> Result<Json<Value>, ApiError> {
    let now = ctx.clock.now();
    let (_, gates) = deployment(&ctx).await?;
    let gates: Vec<Value> = gates
        .into_iter()
        .map(|gate| {
            json!({
                "id": gate.id,
                "versions": gate.versions,
                "at": gate.at,
                "age_seconds": now.since(gate.at).as_secs_f64(),
            })
        })
        .collect();
    let partitions: Vec<Value> = ctx
        .budgets
        .told()
        .into_iter()
        .map(|told| {
            json!({
                "partition": told.partition,
                "epoch": told.epoch,
                "version": told.version,
                "age_seconds": now.since(told.at).as_secs_f64(),
            })
        })
        .collect();
    Ok(Json(json!({ "gates": gates, "partitions": partitions })))
}
