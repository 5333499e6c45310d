//! Removals of syncs whose audience on the platform is to be emptied or deleted.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use throng_access::Caller;
use throng_activation::{RemovalDefinition, users_of};
use throng_api::{RemovalList, SyncNamed, SyncRemoval};

use crate::NodeContext;
use crate::operations::removals as operations;

use super::error::ApiError;
use super::mapping::activation as mapping;

type Ctx = State<Arc<NodeContext>>;

/// The removals that are not finished.
#[utoipa::path(get, path = "/v1/removals", responses((status = 200, body = RemovalList, description = "`removals`: sync, rule, platform_id, users, approved_by, last_error")))]
pub(crate) async fn list(State(ctx): Ctx) -> Result<Json<RemovalList>, ApiError> {
    let mut audiences: HashMap<_, _> = ctx.ledger.delivered().await?.into_iter().collect();
    let records = ctx.ledger.delivered_records().await?;
    let records: HashMap<_, _> = records.into_iter().map(|r| (r.sync.clone(), r)).collect();
    let removals = ctx.ledger.removals().await?.into_iter().map(|removal| {
        let definition = RemovalDefinition::of(&removal).ok();
        let audience = audiences.remove(&removal.sync);
        SyncRemoval {
            rule: mapping::removal_rule(removal.rule),
            audience: definition.as_ref().map(RemovalDefinition::platform_name),
            destination: definition.map(|definition| definition.destination.name),
            platform_id: audience.map(|audience| audience.platform_id),
            users: users_of(records.get(&removal.sync)),
            sync: removal.sync,
            requested_at: removal.requested_at,
            approved_at: removal.approved_at,
            approved_by: removal.approved_by,
            tries: removal.tries,
            retry_at: removal.retry_at,
            last_error: removal.last_error,
        }
    });
    Ok(Json(RemovalList { removals: removals.collect() }))
}

/// Approves a removal: the audience on the platform is emptied or deleted.
#[utoipa::path(post, path = "/v1/removals/{name}/approve", params(("name" = String, Path)), responses((status = 200, body = SyncNamed, description = "`sync`"), (status = 404, description = "no such removal"), (status = 409, description = "it is already approved")))]
pub(crate) async fn approve(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<SyncNamed>, ApiError> {
    let sync = operations::approve(&ctx, &name, caller.name()).await?;
    Ok(Json(SyncNamed { sync }))
}

/// Discards a removal: the audience on the platform is not changed.
#[utoipa::path(post, path = "/v1/removals/{name}/keep", params(("name" = String, Path)), responses((status = 200, body = SyncNamed, description = "`sync`"), (status = 404, description = "no such removal"), (status = 409, description = "it is being carried out")))]
pub(crate) async fn keep(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<SyncNamed>, ApiError> {
    let sync = operations::discard(&ctx, &name, caller.name()).await?;
    Ok(Json(SyncNamed { sync }))
}
