//! The history of one object.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use throng_api::History;
use throng_model::AdGroupName;
use throng_operations::history::of_object;
use throng_operations::mapping::budgets as mapping;

use crate::NodeContext;

use super::error::ApiError;
use super::operations::OperationsOf;

/// The history of an audience, a sync or an ad group, newest first.
#[utoipa::path(get, path = "/v1/why/{kind}/{name}", params(("kind" = String, Path, description = "audience, sync or ad_group"), ("name" = String, Path)), responses((status = 200, body = History, description = "`history`: what, why, at, actor; `rates` of an ad group: declared and learned, with intervals"), (status = 404, description = "no such object in the applied spec, and no history of it")))]
pub(crate) async fn history(
    State(ctx): State<Arc<NodeContext>>,
    OperationsOf(node): OperationsOf,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<History>, ApiError> {
    let history = of_object(&node, &kind, &name).await?;
    let ad_group = AdGroupName::new(name).ok().filter(|_| kind == "ad_group");
    let past = match ad_group {
        Some(ad_group) => ctx.budgets.spend_history(&ad_group).await?,
        None => None,
    };
    Ok(Json(History { history, rates: past.map(|past| mapping::rates(past.rates)) }))
}
