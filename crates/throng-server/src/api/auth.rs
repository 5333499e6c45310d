//! The token. Compared in constant time; accepted as a bearer token, or as a cookie for pages.

use std::fmt::Write as _;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::post;
use axum::{Extension, Form, Router};
use serde::Deserialize;
use throng_model::Secret;

use super::error::ApiError;
use crate::NodeContext;

/// The cookie that a page's token travels in, as hexadecimal: a token may hold what a cookie cannot.
const COOKIE: &str = "throng_token=";

/// What every request has to bring; `None` on a node that wants nothing.
pub(super) type Wanted = Arc<Option<Secret>>;

/// Lets a request through if the node wants no token or the request brings it. Who asks for a page
/// without it gets the page to sign in.
pub(super) async fn require_token(
    State(wanted): State<Wanted>,
    request: Request,
    next: Next,
) -> Response {
    if wanted.as_ref().as_ref().is_none_or(|wanted| brings(&request, wanted.expose())) {
        return next.run(request).await;
    }
    let path = request.uri().path();
    let page = request.method() == Method::GET && !path.starts_with("/v1/");
    if page && text(&request, header::ACCEPT).is_some_and(|kinds| kinds.contains("text/html")) {
        let back = request.uri().path_and_query().map_or("/", |p| p.as_str());
        return sign_in_page(back, false);
    }
    ApiError::unauthorized().into_response()
}

fn text(request: &Request, name: header::HeaderName) -> Option<&str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

fn brings(request: &Request, wanted: &str) -> bool {
    if let Some(bearer) =
        text(request, header::AUTHORIZATION).and_then(|v| v.strip_prefix("Bearer "))
    {
        return equal(bearer.as_bytes(), wanted.as_bytes());
    }
    let cookies = text(request, header::COOKIE).unwrap_or_default();
    let brought = cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix(COOKIE));
    brought.is_some_and(|got| equal(got.as_bytes(), in_hex(wanted).as_bytes()))
}

fn in_hex(token: &str) -> String {
    token.bytes().fold(String::with_capacity(token.len() * 2), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Where the page to sign in sends the token to. Part of the page, not of the API.
pub(super) fn sign_in_routes(wanted: Wanted) -> Router<Arc<NodeContext>> {
    Router::new().route("/sign-in", post(sign_in)).layer(Extension(wanted))
}

/// What the page to sign in sends.
#[derive(Deserialize)]
struct SignIn {
    token: String,
    /// The page to go on to.
    #[serde(default)]
    back: String,
}

/// Gives a browser its cookie. `SameSite=Strict`: no other site's page can act with it.
async fn sign_in(Extension(wanted): Extension<Wanted>, Form(given): Form<SignIn>) -> Response {
    let back = own_path(&given.back);
    let Some(wanted) = wanted.as_ref() else { return Redirect::to(back).into_response() };
    if !equal(given.token.as_bytes(), wanted.expose().as_bytes()) {
        return sign_in_page(back, true);
    }
    let cookie = format!("{COOKIE}{}; Path=/; HttpOnly; SameSite=Strict", in_hex(wanted.expose()));
    ([(header::SET_COOKIE, cookie)], Redirect::to(back)).into_response()
}

/// A path of this node, or its first page: never another site.
fn own_path(back: &str) -> &str {
    let elsewhere = !back.starts_with('/') || back.starts_with("//") || back.contains('\\');
    if elsewhere { "/" } else { back }
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    back: &'a str,
    wrong: bool,
}

fn sign_in_page(back: &str, wrong: bool) -> Response {
    match (SignInPage { back, wrong }).render() {
        Ok(html) => (StatusCode::UNAUTHORIZED, Html(html)).into_response(),
        Err(_) => ApiError::unauthorized().into_response(),
    }
}

/// Compares without telling by its time where the texts differ.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_equal_texts_are_equal() {
        assert!(super::equal(b"abc", b"abc"));
        assert!(!super::equal(b"abc", b"abd"));
        assert!(!super::equal(b"abc", b"ab"));
    }

    #[test]
    fn one_goes_on_to_a_page_of_this_node_only() {
        assert_eq!(super::own_path("/decide?user=1"), "/decide?user=1");
        for elsewhere in ["", "//evil.example", "https://evil.example", "/\\evil.example"] {
            assert_eq!(super::own_path(elsewhere), "/", "{elsewhere}");
        }
    }
}
