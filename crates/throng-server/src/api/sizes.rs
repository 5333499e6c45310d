//! Sizes of audiences on platforms over time.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use throng_activation::MAX_KEPT_SIZES;
use throng_api::{ActivationVerdict, SyncSizes};

use crate::NodeContext;
use crate::operations::syncs as operations;

use super::error::ApiError;
use super::mapping::activation as mapping;

/// The sizes that the platform reported for the audience of a sync over the last 30 days, each with the
/// number of users that were delivered.
#[utoipa::path(get, path = "/v1/syncs/{name}/sizes", params(("name" = String, Path)), responses((status = 200, body = SyncSizes, description = "`sizes`, oldest first: at, delivered, lower, upper, settling; `verdict` and `reason` of the whole series"), (status = 404, description = "no such sync")))]
pub(crate) async fn of_sync(
    State(ctx): State<Arc<NodeContext>>,
    Path(name): Path<String>,
) -> Result<Json<SyncSizes>, ApiError> {
    let sync = operations::declared(&ctx, &name)?;
    let sizes = ctx.ledger.sizes(&sync, MAX_KEPT_SIZES).await?;
    let audience = ctx.ledger.platform_audience(&sync).await?;
    let platform_id = audience.map(|audience| audience.platform_id);
    let spec = ctx.spec.load();
    let finding =
        platform_id.as_deref().and_then(|id| operations::size_finding(&spec, &sync, &sizes, id));
    let (verdict, reason) = match finding {
        Some(finding) => (mapping::verdict(finding.verdict), Some(finding.reason)),
        None => (ActivationVerdict::Passed, None),
    };
    let sizes = sizes.into_iter().map(mapping::size).collect();
    Ok(Json(SyncSizes { sync, platform_id, verdict, reason, sizes }))
}
