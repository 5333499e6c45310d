//! Removals of syncs whose audience on the platform is to be emptied or deleted.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde_json::{Value, json};
use throng_activation::{RemovalDefinition, users_of, users_text};
use throng_store::{Removal, RemovalRule};

use crate::NodeContext;
use crate::access::Caller;

use super::error::ApiError;
use super::syncs::noted;

type Ctx = State<Arc<NodeContext>>;
type Answer = Result<Json<Value>, ApiError>;

/// The removals that have not been carried out.
#[utoipa::path(get, path = "/v1/removals", responses((status = 200, body = super::answers::RemovalList, description = "`removals`: sync, rule, platform_id, users, who approved it, and why the last try failed")))]
pub(crate) async fn list(State(ctx): Ctx) -> Answer {
    let audiences: HashMap<_, _> = ctx.ledger.delivered().await?.into_iter().collect();
    let records = ctx.ledger.delivered_records().await?;
    let records: HashMap<_, _> = records.into_iter().map(|r| (r.sync.clone(), r)).collect();
    let removals = ctx.ledger.removals().await?;
    let removals = removals.iter().map(|removal| {
        let definition = RemovalDefinition::of(removal).ok();
        json!({
            "sync": removal.sync,
            "rule": removal.rule,
            "audience": definition.as_ref().map(RemovalDefinition::platform_name),
            "destination": definition.as_ref().map(|d| &d.destination.name),
            "platform_id": audiences.get(&removal.sync).map(|there| &there.platform_id),
            "users": users_of(records.get(&removal.sync)),
            "requested_at": removal.requested_at,
            "approved_at": removal.approved_at,
            "approved_by": removal.approved_by,
            "tries": removal.tries,
            "retry_at": removal.retry_at,
            "last_error": removal.last_error,
        })
    });
    Ok(Json(json!({ "removals": removals.collect::<Vec<Value>>() })))
}

/// Lets a removal be carried out: the audience on the platform is emptied or deleted.
#[utoipa::path(post, path = "/v1/removals/{name}/approve", params(("name" = String, Path)), responses((status = 200, body = super::answers::SyncNamed, description = "`sync`"), (status = 404, description = "no such removal"), (status = 409, description = "it is approved already")))]
pub(crate) async fn approve(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    let removal = find(&ctx, &name).await?;
    let sync = &removal.sync;
    ctx.ledger.approve_removal(sync, caller.name(), ctx.clock.now()).await?;
    let what = match removal.rule {
        RemovalRule::Empty => "is emptied",
        RemovalRule::Delete => "is deleted",
    };
    let why = format!("{} {what}", audience(&ctx, &removal).await?);
    noted(&ctx, sync, &caller, "removal_approved", why).await
}

/// Discards a removal: the audience stays on the platform as it is.
#[utoipa::path(post, path = "/v1/removals/{name}/keep", params(("name" = String, Path)), responses((status = 200, body = super::answers::SyncNamed, description = "`sync`"), (status = 404, description = "no such removal"), (status = 409, description = "it is being carried out")))]
pub(crate) async fn keep(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    let removal = find(&ctx, &name).await?;
    ctx.ledger.discard_removal(&removal.sync, ctx.clock.now()).await?;
    let why = format!("{} stays there", audience(&ctx, &removal).await?);
    noted(&ctx, &removal.sync, &caller, "removal_discarded", why).await
}

async fn find(ctx: &NodeContext, name: &str) -> Result<Removal, ApiError> {
    let removals = ctx.ledger.removals().await?;
    let found = removals.into_iter().find(|removal| removal.sync.as_str() == name);
    found.ok_or_else(|| {
        ApiError::not_found(format!("no removal of a sync `{name}`"))
            .help("`throng sync removals` lists those that have not been carried out")
    })
}

/// The audience of a removal with its users, in words.
async fn audience(ctx: &NodeContext, removal: &Removal) -> Result<String, ApiError> {
    let Some(there) = ctx.ledger.platform_audience(&removal.sync).await? else {
        return Ok("its audience, which is not on the platform,".to_owned());
    };
    let records = ctx.ledger.delivered_records().await?;
    let record = records.iter().find(|record| record.sync == removal.sync);
    let users = users_text(users_of(record));
    Ok(format!("the audience {} on the platform with {users}", there.platform_id))
}
