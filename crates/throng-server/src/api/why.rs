//! The history of one object.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use throng_api::History;
use throng_model::AdGroupName;
use throng_operations::history::newest;
use throng_operations::mapping::budgets as mapping;
use throng_spec::Spec;
use throng_store::SubjectKind;

use crate::NodeContext;

use super::error::ApiError;

/// The history of an audience, a sync or an ad group, newest first.
#[utoipa::path(get, path = "/v1/why/{kind}/{name}", params(("kind" = String, Path, description = "audience, sync or ad_group"), ("name" = String, Path)), responses((status = 200, body = History, description = "`history`: what, why, at, actor; `rates` of an ad group: declared and learned, with intervals"), (status = 404, description = "no such object in the applied spec, and no history of it")))]
pub(crate) async fn history(
    State(ctx): State<Arc<NodeContext>>,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<History>, ApiError> {
    if !["audience", "sync", "ad_group"].contains(&kind.as_str()) {
        return Err(ApiError::bad_request(format!("`{kind}` is not a kind of object"))
            .help("use audience, sync or ad_group"));
    }
    let subject = (SubjectKind::from(kind.clone()), name.as_str());
    let history = newest(&ctx.operations(), Some(subject), 200).await?;
    let is_declared = is_declared(&ctx.spec.load(), &kind, &name);
    if history.is_empty() && !is_declared {
        let what = kind.replace('_', " ");
        return Err(ApiError::not_found(format!("no {what} `{name}` in the applied spec")));
    }
    let ad_group = AdGroupName::new(name).ok().filter(|_| is_declared && kind == "ad_group");
    let past = match ad_group {
        Some(ad_group) => ctx.budgets.spend_history(&ad_group).await?,
        None => None,
    };
    Ok(Json(History { history, rates: past.map(|past| mapping::rates(past.rates)) }))
}

fn is_declared(spec: &Spec, kind: &str, name: &str) -> bool {
    match kind {
        "audience" => spec.audiences.iter().any(|a| a.name.as_str() == name),
        "sync" => spec.syncs.iter().any(|s| s.name.as_str() == name),
        _ => spec.ad_groups.iter().any(|a| a.name.as_str() == name),
    }
}
