//! Tokens, sessions and sign-in links.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use throng_model::Timestamp;
use utoipa::ToSchema;

use crate::NodeContext;
use crate::access::{AccessError, Caller, Scope, Scopes, TokenRequest, is_token_name};

use super::body::Body;
use super::error::ApiError;

type Ctx = State<Arc<NodeContext>>;
type Answer = Result<Json<Value>, ApiError>;

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Ledger(error) => error.into(),
            other => Self::internal(&other),
        }
    }
}

/// A token to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateToken {
    /// 1 to 64 letters, digits, `-`, `_` and `.`; unique among the valid tokens.
    name: String,
    /// At least one of events, lookup, feed, metrics, read, operate, admin.
    scopes: Vec<String>,
    /// After how many seconds it expires; never if left out.
    #[serde(default)]
    expires_in_secs: Option<u64>,
    /// The workspace that it is limited to.
    #[serde(default)]
    workspace: Option<String>,
}

/// The longest life of a token that expires: a hundred years.
const LONGEST_SECS: u64 = 100 * 366 * 86_400;

fn request_of(create: CreateToken, now: Timestamp) -> Result<TokenRequest, ApiError> {
    if !is_token_name(&create.name) {
        return Err(ApiError::bad_request("`name` is not a name for a token").help(
            "use 1 to 64 letters, digits, `-`, `_` and `.`; `admin`, `admin-…` and `node.token` \
             are the node's own",
        ));
    }
    let scopes: BTreeSet<&str> = create.scopes.iter().map(String::as_str).collect();
    let parsed: Result<Vec<Scope>, _> = scopes.into_iter().map(str::parse).collect();
    let scopes: Scopes =
        parsed.map_err(|e| ApiError::bad_request(format!("`scopes`: {e}")))?.into_iter().collect();
    if scopes.is_empty() {
        return Err(ApiError::bad_request("`scopes` is empty").help("name at least one scope"));
    }
    let expires_at = match create.expires_in_secs {
        Some(secs) if (1..=LONGEST_SECS).contains(&secs) => {
            Some(now.plus(std::time::Duration::from_secs(secs)))
        }
        Some(_) => {
            let words = format!("`expires_in_secs` is not from 1 to {LONGEST_SECS}");
            return Err(ApiError::bad_request(words));
        }
        None => None,
    };
    let workspace = create.workspace;
    if workspace.as_ref().is_some_and(|name| name.is_empty() || name.len() > 64) {
        return Err(ApiError::bad_request("`workspace` is not a name of 1 to 64 characters"));
    }
    Ok(TokenRequest { name: create.name, scopes, expires_at, workspace })
}

/// Creates a token. The answer is the only place where it is shown.
#[utoipa::path(post, path = "/v1/tokens", request_body = CreateToken, responses((status = 200, body = super::answers::TokenCreated, description = "`name`, `token`, `scopes`, `expires_at`"), (status = 409, description = "a valid token has this name")))]
pub(crate) async fn create(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Body(create): Body<CreateToken>,
) -> Answer {
    let request = request_of(create, ctx.access.time())?;
    let answer = json!({
        "name": request.name,
        "scopes": request.scopes,
        "expires_at": request.expires_at,
        "workspace": request.workspace,
    });
    let secret = ctx.access.create(request, &caller, ctx.clock.now()).await?;
    let mut answer = answer;
    answer["token"] = json!(secret.expose());
    Ok(Json(answer))
}

/// All tokens, also those that expired or were revoked; never their secrets.
#[utoipa::path(get, path = "/v1/tokens", responses((status = 200, body = super::answers::TokenList, description = "`tokens`: name, scopes, workspace, created_at, created_by, expires_at, last_used_at, revoked_at, valid")))]
pub(crate) async fn list(State(ctx): Ctx) -> Answer {
    let tokens: Vec<Value> = ctx
        .access
        .list()
        .await?
        .into_iter()
        .map(|row| {
            json!({
                "name": row.name,
                "scopes": Scopes::of_known(&row.scopes),
                "workspace": row.workspace,
                "created_at": row.created_at,
                "created_by": row.created_by,
                "expires_at": row.expires_at,
                "last_used_at": row.last_used_at,
                "revoked_at": row.revoked_at,
                "valid": ctx.access.is_valid(&row),
            })
        })
        .collect();
    Ok(Json(json!({ "tokens": tokens })))
}

/// Revokes a token and ends its sessions.
#[utoipa::path(post, path = "/v1/tokens/{name}/revoke", params(("name" = String, Path)), responses((status = 200, body = super::answers::TokenRevoked, description = "`revoked`: its name"), (status = 404, description = "no valid token has this name")))]
pub(crate) async fn revoke(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    ctx.access.revoke(&name, &caller, ctx.clock.now()).await?;
    Ok(Json(json!({ "revoked": name })))
}

/// The sessions of browsers.
#[utoipa::path(get, path = "/v1/sessions", responses((status = 200, body = super::answers::SessionList, description = "`sessions`: id, token, created_at, last_seen_at, expires_at")))]
pub(crate) async fn sessions(State(ctx): Ctx) -> Answer {
    let sessions: Vec<Value> = ctx
        .access
        .sessions()
        .await?
        .into_iter()
        .map(|(row, name)| {
            json!({
                "id": row.id,
                "token": name,
                "created_at": row.created_at,
                "last_seen_at": row.last_seen_at,
                "expires_at": row.expires_at,
            })
        })
        .collect();
    Ok(Json(json!({ "sessions": sessions })))
}

/// Ends a session.
#[utoipa::path(post, path = "/v1/sessions/{id}/end", params(("id" = i64, Path)), responses((status = 200, body = super::answers::SessionEnded, description = "`ended`: its number"), (status = 404, description = "no such session")))]
pub(crate) async fn end_session(State(ctx): Ctx, Path(id): Path<i64>) -> Answer {
    match ctx.access.end_session(id).await? {
        true => Ok(Json(json!({ "ended": id }))),
        false => Err(ApiError::not_found(format!("no session {id}"))
            .help("`throng session list` shows the sessions")),
    }
}

/// Makes a link that signs a browser in once, within ten minutes, with the rights of the token that
/// asks for it.
#[utoipa::path(post, path = "/v1/sign-in-links", responses((status = 200, body = super::answers::SignInLink, description = "`path` and `expires_at`; `url` with the node's own address"), (status = 403, description = "a session cannot make one")))]
pub(crate) async fn sign_in_link(State(ctx): Ctx, Extension(caller): Extension<Caller>) -> Answer {
    if caller.session().is_some() {
        // Else a session could prolong itself for ever.
        return Err(ApiError::forbidden_to_sessions());
    }
    let (code, expires_at) = ctx.access.sign_in_code(&caller).await?;
    let path = format!("/sign-in?code={}", code.expose());
    let url = format!("{}{path}", ctx.page_url());
    Ok(Json(json!({ "path": path, "url": url, "expires_at": expires_at })))
}
