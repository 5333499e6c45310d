//! Sizes of audiences on platforms over time.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use throng_activation::{MAX_KEPT_SIZES, evaluate_sizes, size_series};
use throng_store::Verdict;

use crate::NodeContext;

use super::error::ApiError;
use super::syncs::declared;

/// The sizes of a sync's audience as its platform showed them, with what was delivered, over the last 30
/// days.
#[utoipa::path(get, path = "/v1/syncs/{name}/sizes", params(("name" = String, Path)), responses((status = 200, body = super::answers::SyncSizes, description = "`sizes`, oldest first: at, delivered, lower, upper, settling; `verdict` and `reason` of the series"), (status = 404, description = "no such sync")))]
pub(crate) async fn of_sync(
    State(ctx): State<Arc<NodeContext>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let sync = declared(&ctx, &name)?;
    let sizes = ctx.ledger.sizes(&sync, MAX_KEPT_SIZES).await?;
    let audience = ctx.ledger.platform_audience(&sync).await?;
    let platform_id = audience.map(|audience| audience.platform_id);
    let series = platform_id.as_deref().map(|id| size_series(&sizes, id)).unwrap_or_default();
    let finding = evaluate_sizes(&series);
    Ok(Json(json!({
        "sync": sync,
        "platform_id": platform_id,
        "verdict": finding.as_ref().map_or(Verdict::Passed, |finding| finding.verdict),
        "reason": finding.map(|finding| finding.reason),
        "sizes": sizes,
    })))
}
