//! The pages to sign in and out. A signed-in browser has a session: a random number in a cookie, whose hash is in
//! the ledger. The browser never stores the token.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{ConnectInfo, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Form, Router};
use serde::Deserialize;
use throng_access::{AccessError, Caller, SESSION_LIFETIME, is_opened_by_hand, own_path};
use throng_http::slow_body;

use super::{ApiError, Guard, wrong_token};
use crate::NodeContext;

const WRONG_LINK: &str = "This link has already been used, or is older than ten minutes.";

/// The routes, with their state.
pub(in crate::api) fn routes(guard: Arc<Guard>) -> Router<Arc<NodeContext>> {
    Router::new()
        .route("/sign-in", get(open).post(sign_in))
        .route("/sign-out", post(sign_out))
        .with_state(guard)
}

/// The query of a sign-in link.
#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    code: String,
}

/// Opens a sign-in link. A person who opens it directly is signed in at once. A request from a link of another
/// page, a preview of a program, or a prefetch of a browser gets a button instead, because such a request must
/// not consume the code.
async fn open(
    State(guard): State<Arc<Guard>>,
    link: Result<Query<Link>, QueryRejection>,
    parts: Parts,
) -> Response {
    let Ok(Query(Link { code })) = link else {
        return page(StatusCode::BAD_REQUEST, "/", "This is not a whole sign-in link.");
    };
    if code.is_empty() {
        return page(StatusCode::OK, "/", "");
    }
    if !is_opened_by_hand(&parts) {
        return respond(throng_page::sign_in::with_code(&code), StatusCode::OK);
    }
    sign_in_by_code(&guard, &code).await
}

async fn sign_in_by_code(guard: &Guard, code: &str) -> Response {
    match guard.access.redeem_code(code).await {
        Ok(Some(caller)) => start_session(guard, &caller, "/").await,
        Ok(None) => page(StatusCode::UNAUTHORIZED, "/", WRONG_LINK),
        Err(error) => failed(&error.into()),
    }
}

/// The form of the sign-in page.
#[derive(Deserialize)]
struct SignIn {
    #[serde(default)]
    token: String,
    #[serde(default)]
    code: String,
    /// The page to show after signing in.
    #[serde(default)]
    back: String,
}

/// Starts a session for a valid token, or for the code of a link.
async fn sign_in(
    State(guard): State<Arc<Guard>>,
    address: Option<Extension<ConnectInfo<SocketAddr>>>,
    form: Result<Form<SignIn>, FormRejection>,
) -> Response {
    let form = match form {
        Ok(Form(form)) => form,
        Err(rejection) => {
            return match slow_body(&rejection) {
                Some(slow) => ApiError::slow_body(slow).into_response(),
                None => rejection.into_response(),
            };
        }
    };
    if !form.code.is_empty() {
        return sign_in_by_code(&guard, &form.code).await;
    }
    let back = own_path(&form.back);
    match guard.access.token(form.token.trim()).await {
        Ok(Some(caller)) => start_session(&guard, &caller, back).await,
        Ok(None) => {
            let error = wrong_token(&guard, address.map(|Extension(info)| info.0.ip()));
            if error.is_throttled() {
                return error.into_response();
            }
            page(StatusCode::UNAUTHORIZED, back, "This is not a valid token.")
        }
        Err(error) => failed(&error.into()),
    }
}

async fn start_session(guard: &Guard, caller: &Caller, back: &str) -> Response {
    match guard.access.begin_session(caller).await {
        Ok(secret) => {
            tracing::info!(name = caller.name(), "signed in");
            let cookie = guard.cookie.set(secret.expose(), SESSION_LIFETIME.as_secs());
            ([(header::SET_COOKIE, cookie)], Redirect::to(back)).into_response()
        }
        Err(error) => failed(&error),
    }
}

/// Ends the session of this browser.
async fn sign_out(
    State(guard): State<Arc<Guard>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    if let Some(session) = caller.session()
        && let Err(error) = guard.access.end_session(session).await
    {
        return failed(&error.into());
    }
    ([(header::SET_COOKIE, guard.cookie.set("", 0))], Redirect::to("/sign-in")).into_response()
}

fn failed(error: &AccessError) -> Response {
    tracing::error!(error = error as &dyn std::error::Error, "failed to start or end a session");
    let error = ApiError::unavailable("the ledger does not answer");
    error.help("try again in a moment").into_response()
}

/// The sign-in page.
pub(super) fn page(status: StatusCode, back: &str, error: &str) -> Response {
    respond(throng_page::sign_in::with_token(own_path(back), error), status)
}

fn respond(page: throng_page::Rendered, status: StatusCode) -> Response {
    match page {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => ApiError::unauthorized().into_response(),
    }
}
