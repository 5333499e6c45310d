//! Which audiences is a user in? An unknown user is in none; that is no error.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use throng_membership::MembershipIndex;
use throng_model::{AudienceName, UserKey};
use throng_telemetry::metrics;
use utoipa::ToSchema;

use crate::NodeContext;

use super::body::Body;
use super::error::ApiError;

/// The most keys of one request.
const MOST_KEYS: usize = 10_000;

/// Keys to look up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keys {
    /// At most 10,000.
    keys: Vec<String>,
}

/// A user's audiences.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct User {
    /// The key, as it was asked for.
    key: String,
    /// The names of the audiences, sorted.
    #[schema(value_type = Vec<String>)]
    audiences: Vec<AudienceName>,
    /// Audiences of which the node cannot tell whether the user is in them, because their snapshot is
    /// damaged or cannot be fetched. Left out if there are none.
    #[schema(value_type = Vec<String>)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<AudienceName>,
}

/// The users in the order of their keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Users {
    users: Vec<User>,
}

fn look_up(index: &MembershipIndex, key: String) -> User {
    let hash = UserKey::text(key.as_str()).hash(index.seed());
    let mut audiences: Vec<AudienceName> = index.audiences_of(hash).into_iter().cloned().collect();
    audiences.sort_unstable();
    User { key, audiences, unknown: index.missing().to_vec() }
}

/// One user.
#[utoipa::path(get, path = "/v1/users/{key}/audiences", params(("key" = String, Path)), responses((status = 200, body = User, description = "the user's audiences; an unknown user is in none")))]
pub(crate) async fn one(
    State(ctx): State<Arc<NodeContext>>,
    Path(key): Path<String>,
) -> Json<User> {
    metrics::counter!(metrics::LOOKUPS_TOTAL).increment(1);
    Json(look_up(&ctx.membership.load(), key))
}

/// Many users.
#[utoipa::path(post, path = "/v1/lookups", request_body = Keys, responses((status = 200, body = Users, description = "the users in the order of their keys"), (status = 400, description = "too many keys")))]
pub(crate) async fn batch(
    State(ctx): State<Arc<NodeContext>>,
    Body(Keys { keys }): Body<Keys>,
) -> Result<Json<Users>, ApiError> {
    if keys.len() > MOST_KEYS {
        return Err(ApiError::bad_request(format!("{} keys in one request", keys.len()))
            .help(format!("send at most {MOST_KEYS}")));
    }
    metrics::counter!(metrics::LOOKUPS_TOTAL).increment(keys.len() as u64);
    let index = ctx.membership.load();
    Ok(Json(Users { users: keys.into_iter().map(|key| look_up(&index, key)).collect() }))
}
