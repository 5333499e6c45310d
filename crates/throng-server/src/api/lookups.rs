//! Lookups: the audiences of users. An unknown user is in no audience; that is not an error.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use throng_access::Caller;
use throng_api::{LookupRequest, LookupResult, UserAudiences};
use throng_membership::MembershipIndex;
use throng_model::{AudienceName, UserKey};
use throng_telemetry::metrics;

use crate::api::state::LookupState;

use super::body::Body;
use super::error::ApiError;

/// The most keys of one request.
const MAX_KEYS: usize = 10_000;

/// The audiences of a user that the caller may know of.
fn look_up(index: &MembershipIndex, key: String, caller: &Caller) -> UserAudiences {
    let hash = UserKey::text(key.as_str()).hash(index.seed());
    let visible = |audience: &&AudienceName| caller.can_access(audience.workspace());
    let found = index.audiences_of(hash).into_iter().filter(visible);
    let mut audiences: Vec<AudienceName> = found.cloned().collect();
    audiences.sort_unstable();
    let unknown = index.missing().iter().filter(visible).cloned().collect();
    UserAudiences { key, audiences, unknown }
}

/// Looks up one user.
#[utoipa::path(get, path = "/v1/users/{key}/audiences", params(("key" = String, Path)), responses((status = 200, body = UserAudiences, description = "the audiences of the user; an unknown user is in none")))]
pub(crate) async fn one(
    State(ctx): State<LookupState>,
    Extension(caller): Extension<Caller>,
    Path(key): Path<String>,
) -> Json<UserAudiences> {
    metrics::counter!(metrics::LOOKUPS_TOTAL).increment(1);
    Json(look_up(&ctx.membership.load(), key, &caller))
}

/// Looks up many users.
#[utoipa::path(post, path = "/v1/lookups", request_body = LookupRequest, responses((status = 200, body = LookupResult, description = "the users in the order of their keys"), (status = 400, description = "too many keys")))]
pub(crate) async fn batch(
    State(ctx): State<LookupState>,
    Extension(caller): Extension<Caller>,
    Body(LookupRequest { keys }): Body<LookupRequest>,
) -> Result<Json<LookupResult>, ApiError> {
    if keys.len() > MAX_KEYS {
        return Err(ApiError::bad_request(format!("{} keys in one request", keys.len()))
            .help(format!("send at most {MAX_KEYS}")));
    }
    metrics::counter!(metrics::LOOKUPS_TOTAL).increment(keys.len() as u64);
    let index = ctx.membership.load();
    let users = keys.into_iter().map(|key| look_up(&index, key, &caller)).collect();
    Ok(Json(LookupResult { users }))
}
