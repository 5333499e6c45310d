//! Tokens, sessions and sign-in links.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use throng_access::{AccessError, Caller, Scope, Scopes, TokenRequest, is_token_name};
use throng_api::{
    CreateToken, SessionEnded, SessionList, SessionSummary, SignInLink, TokenCreated, TokenList,
    TokenRevoked, TokenSummary,
};
use throng_model::{Timestamp, WorkspaceName};
use throng_spec::Spec;

use crate::NodeContext;

use super::body::Body;
use super::error::ApiError;
use super::mapping;

type Ctx = State<Arc<NodeContext>>;

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Ledger(error) => error.into(),
            other => Self::internal(&other),
        }
    }
}

/// The maximum of `expires_in_secs`: a hundred years.
const MAX_EXPIRY_SECS: u64 = 100 * 366 * 86_400;

/// The workspace of a new token: one that the applied spec has.
fn checked_workspace(name: &str, scopes: Scopes, spec: &Spec) -> Result<WorkspaceName, ApiError> {
    let beyond = scopes.beyond_workspaces();
    if !beyond.is_empty() {
        let message = format!("a token of a workspace cannot have the scopes {beyond}");
        return Err(ApiError::bad_request(message)
            .help("they concern the whole deployment: use lookup, read or operate"));
    }
    let known = spec.workspaces();
    let workspace = WorkspaceName::new(name).ok().filter(|name| known.contains(name.as_str()));
    workspace.ok_or_else(|| {
        let known: Vec<&str> = known.into_iter().collect();
        let error = ApiError::bad_request("`workspace` is not a workspace of the applied spec");
        error.help(match known.is_empty() {
            true => "the applied spec has no workspaces".to_owned(),
            false => format!("the workspaces are {}", known.join(", ")),
        })
    })
}

fn checked_request(
    create: CreateToken,
    spec: &Spec,
    now: Timestamp,
) -> Result<TokenRequest, ApiError> {
    if !is_token_name(&create.name) {
        return Err(ApiError::bad_request("`name` is not a valid token name").help(
            "use 1 to 64 letters, digits, `-`, `_` and `.`; `admin`, `admin-…` and `node.token` \
             are reserved",
        ));
    }
    let scopes: BTreeSet<&str> = create.scopes.iter().map(String::as_str).collect();
    let parsed: Result<Vec<Scope>, _> = scopes.into_iter().map(str::parse).collect();
    let scopes: Scopes =
        parsed.map_err(|e| ApiError::bad_request(format!("`scopes`: {e}")))?.into_iter().collect();
    if scopes.is_empty() {
        return Err(ApiError::bad_request("`scopes` is empty").help("send at least one scope"));
    }
    let expires_at = match create.expires_in_secs {
        Some(secs) if (1..=MAX_EXPIRY_SECS).contains(&secs) => {
            Some(now.plus(std::time::Duration::from_secs(secs)))
        }
        Some(_) => {
            let message = format!("`expires_in_secs` is not from 1 to {MAX_EXPIRY_SECS}");
            return Err(ApiError::bad_request(message));
        }
        None => None,
    };
    let workspace = create.workspace.map(|name| checked_workspace(&name, scopes, spec));
    let workspace = workspace.transpose()?;
    Ok(TokenRequest { name: create.name, scopes, expires_at, workspace })
}

/// Creates a token. Only this response contains the token itself.
#[utoipa::path(post, path = "/v1/tokens", request_body = CreateToken, responses((status = 200, body = TokenCreated, description = "`name`, `token`, `scopes`, `expires_at`"), (status = 409, description = "a valid token has this name")))]
pub(crate) async fn create(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Body(create): Body<CreateToken>,
) -> Result<Json<TokenCreated>, ApiError> {
    let request = checked_request(create, &ctx.spec.load(), ctx.access.time())?;
    let mut response = TokenCreated {
        name: request.name.clone(),
        scopes: mapping::scope_names(request.scopes),
        expires_at: request.expires_at,
        workspace: request.workspace.as_ref().map(ToString::to_string),
        token: String::new(),
    };
    let secret = ctx.access.create(request, &caller, ctx.clock.now()).await?;
    secret.expose().clone_into(&mut response.token);
    Ok(Json(response))
}

/// All tokens, also expired and revoked ones; without their secrets.
#[utoipa::path(get, path = "/v1/tokens", responses((status = 200, body = TokenList, description = "`tokens`: name, scopes, workspace, created_at, created_by, expires_at, last_used_at, revoked_at, valid")))]
pub(crate) async fn list(State(ctx): Ctx) -> Result<Json<TokenList>, ApiError> {
    Ok(Json(TokenList { tokens: all_tokens(&ctx).await? }))
}

/// All tokens, also expired and revoked ones; without their secrets.
pub(crate) async fn all_tokens(ctx: &NodeContext) -> Result<Vec<TokenSummary>, ApiError> {
    let tokens = ctx.access.list().await?.into_iter().map(|row| {
        let valid = ctx.access.is_valid(&row);
        mapping::token(row, valid)
    });
    Ok(tokens.collect())
}

/// Revokes a token and ends its sessions.
#[utoipa::path(post, path = "/v1/tokens/{name}/revoke", params(("name" = String, Path)), responses((status = 200, body = TokenRevoked, description = "`revoked`: the name of the token"), (status = 404, description = "no valid token has this name")))]
pub(crate) async fn revoke(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<TokenRevoked>, ApiError> {
    ctx.access.revoke(&name, &caller, ctx.clock.now()).await?;
    Ok(Json(TokenRevoked { revoked: name }))
}

/// The sessions of browsers.
#[utoipa::path(get, path = "/v1/sessions", responses((status = 200, body = SessionList, description = "`sessions`: id, token, created_at, last_seen_at, expires_at")))]
pub(crate) async fn sessions(State(ctx): Ctx) -> Result<Json<SessionList>, ApiError> {
    Ok(Json(SessionList { sessions: all_sessions(&ctx).await? }))
}

/// The sessions of browsers.
pub(crate) async fn all_sessions(ctx: &NodeContext) -> Result<Vec<SessionSummary>, ApiError> {
    let sessions = ctx.access.sessions().await?.into_iter();
    Ok(sessions.map(|(row, token)| mapping::session(&row, token)).collect())
}

/// Ends a session.
#[utoipa::path(post, path = "/v1/sessions/{id}/end", params(("id" = i64, Path)), responses((status = 200, body = SessionEnded, description = "`ended`: the id of the session"), (status = 404, description = "no such session")))]
pub(crate) async fn end_session(
    State(ctx): Ctx,
    Path(id): Path<i64>,
) -> Result<Json<SessionEnded>, ApiError> {
    match ctx.access.end_session(id).await? {
        true => Ok(Json(SessionEnded { ended: id })),
        false => Err(ApiError::not_found(format!("no session {id}"))
            .help("`throng session list` shows the sessions")),
    }
}

/// Creates a link that signs a browser in once, within ten minutes, with the scopes of the token of the
/// request.
#[utoipa::path(post, path = "/v1/sign-in-links", responses((status = 200, body = SignInLink, description = "`path`, `url` with the address of the node, and `expires_at`"), (status = 403, description = "a session cannot create a sign-in link")))]
pub(crate) async fn sign_in_link(
    State(ctx): Ctx,
    Extension(caller): Extension<Caller>,
) -> Result<Json<SignInLink>, ApiError> {
    if caller.session().is_some() {
        // Otherwise a session could extend itself without limit.
        return Err(ApiError::forbidden_to_sessions());
    }
    let (code, expires_at) = ctx.access.sign_in_code(&caller).await?;
    let path = format!("/sign-in?code={}", code.expose());
    let url = format!("{}{path}", ctx.page_url());
    Ok(Json(SignInLink { path, url, expires_at }))
}
