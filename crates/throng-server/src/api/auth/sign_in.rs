//! The pages to sign in and out. A signed-in browser has a session: a random number in a cookie, whose hash is in
//! the ledger. The browser never stores the token.

use std::net::SocketAddr;
use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Form, Router};
use serde::Deserialize;
use throng_http::slow_body;

use super::{ApiError, Guard, origin, wrong_token};
use crate::NodeContext;
use crate::access::{AccessError, Caller};

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
    Query(Link { code }): Query<Link>,
    parts: Parts,
) -> Response {
    if code.is_empty() {
        return page(StatusCode::OK, "/", "");
    }
    if !origin::is_opened_by_hand(&parts) {
        return render(&SignInPage { back: "/", code: &code, error: "" }, StatusCode::OK);
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
            let cookie =
                guard.set_cookie(secret.expose(), crate::access::SESSION_LIFETIME.as_secs());
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
    ([(header::SET_COOKIE, guard.set_cookie("", 0))], Redirect::to("/sign-in")).into_response()
}

fn failed(error: &AccessError) -> Response {
    tracing::error!(error = error as &dyn std::error::Error, "failed to start or end a session");
    let error = ApiError::unavailable("the ledger does not answer");
    error.help("try again in a moment").into_response()
}

impl Guard {
    /// `SameSite=Strict`: browsers do not send it with requests of other sites.
    fn set_cookie(&self, value: &str, max_age_secs: u64) -> String {
        let secure = if self.hosts.is_https() { "; Secure" } else { "" };
        format!(
            "{}={value}; Path=/; Max-Age={max_age_secs}; HttpOnly; SameSite=Strict{secure}",
            self.cookie
        )
    }
}

/// A path of this node, or `/`: never another site. Only printable ASCII without `\`, because browsers read `\` as
/// `/` and drop tabs and line breaks.
fn own_path(back: &str) -> &str {
    let plain = back.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'\\');
    let own = back.starts_with('/') && !back.starts_with("//");
    if plain && own && back.len() <= 2_000 { back } else { "/" }
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    back: &'a str,
    code: &'a str,
    error: &'a str,
}

/// The sign-in page.
pub(super) fn page(status: StatusCode, back: &str, error: &str) -> Response {
    render(&SignInPage { back: own_path(back), code: "", error }, status)
}

fn render(page: &SignInPage<'_>, status: StatusCode) -> Response {
    match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => ApiError::unauthorized().into_response(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_paths_of_this_node_are_allowed_after_signing_in() {
        for own in ["/", "/decide?user=1", "/audiences/a%20b"] {
            assert_eq!(super::own_path(own), own);
        }
        for elsewhere in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "/\r\nset-cookie: a=b",
            "\t//evil.example",
            " /",
            "/ü",
            "javascript:alert(1)",
        ] {
            assert_eq!(super::own_path(elsewhere), "/", "{elsewhere:?}");
        }
    }
}
