//! The checks that every request passes before a handler sees it: the host name, the origin, the
//! credentials, the scope and the content type, in this order.

mod headers;
mod host;
mod origin;
mod routes;
mod sign_in;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::HttpBody as _;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::AsHeaderName;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use throng_telemetry::metrics;

use super::error::ApiError;
use crate::access::{Access, Caller, Verdict};

pub(super) use headers::secure;
pub(crate) use host::HostNames;
pub(super) use sign_in::routes as sign_in_routes;

pub(super) use routes::Needs;
#[cfg(test)]
pub(super) use routes::ROUTES;
use routes::{Takes, rule_of};

/// What the checks need to know.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Tokens and sessions.
    pub(crate) access: Arc<Access>,
    /// The names that the node answers to.
    pub(crate) hosts: HostNames,
    /// The name of the session's cookie.
    cookie: String,
}

impl Guard {
    pub(crate) fn new(access: Arc<Access>, hosts: HostNames) -> Self {
        // Browsers send cookies to every port of a host. The port in the name keeps the sessions of
        // two nodes on one machine apart.
        let port = hosts.public_port();
        let prefix = if hosts.is_https() { "__Host-" } else { "" };
        Self { access, cookie: format!("{prefix}throng-session-{port}"), hosts }
    }
}

fn text(parts: &Parts, name: impl AsHeaderName) -> Option<&str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}

/// How a request says who sent it.
enum Credentials<'a> {
    None,
    Token(&'a str),
    Session(&'a str),
}

impl Guard {
    fn credentials<'a>(&self, parts: &'a Parts) -> Credentials<'a> {
        if let Some(value) = text(parts, header::AUTHORIZATION) {
            // Another scheme is a wrong token, not none.
            return Credentials::Token(value.strip_prefix("Bearer ").unwrap_or_default().trim());
        }
        let cookies = parts.headers.get_all(header::COOKIE);
        let mut pairs = cookies.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';'));
        let session = pairs.find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == self.cookie).then_some(value)
        });
        session.map_or(Credentials::None, Credentials::Session)
    }
}

/// Lets a request through if all checks pass.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let empty = body.is_end_stream();
    match pass(&guard, &mut parts, empty).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refused) => *refused,
    }
}

type Passed = Result<(), Box<Response>>;

fn refuse(error: ApiError) -> Box<Response> {
    Box::new(error.into_response())
}

async fn pass(guard: &Guard, parts: &mut Parts, empty: bool) -> Passed {
    let matched = parts.extensions.get::<MatchedPath>().map(|p| p.as_str().to_owned());
    let rule = rule_of(&parts.method, matched.as_deref());
    let probe = rule.needs == Needs::Probe;
    guard.hosts.check(parts, probe).map_err(refuse)?;
    let changes = !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let site = origin::of(parts, &guard.hosts);
    if changes && site.is_foreign() {
        metrics::counter!(metrics::REQUESTS_REFUSED_TOTAL, "reason" => "foreign_origin")
            .increment(1);
        return Err(refuse(ApiError::foreign_origin()));
    }
    let open = matches!(rule.needs, Needs::Nothing | Needs::Probe);
    let caller = match caller(guard, parts, site, changes).await {
        // A stale cookie keeps nobody from what everybody may see.
        Err(_) if open => None,
        other => other?,
    };
    match caller {
        Some(caller) => {
            if !rule.needs.allow(caller.scopes()) {
                return Err(forbidden(parts, caller.name(), &rule.needs.to_string()));
            }
            parts.extensions.insert(caller);
        }
        None if open => {}
        None => return Err(unauthorized(parts)),
    }
    if changes { content(parts, empty, rule.takes) } else { Ok(()) }
}

/// Who sent a request; `None` if it does not say. A wrong token or session is refused.
async fn caller(
    guard: &Guard,
    parts: &Parts,
    site: origin::Site,
    changes: bool,
) -> Result<Option<Caller>, Box<Response>> {
    let found = match guard.credentials(parts) {
        Credentials::None => return Ok(None),
        Credentials::Token(token) => guard.access.token(token).await,
        Credentials::Session(secret) => {
            // A cookie comes by itself, so it counts only where the browser says that a page of this
            // node sent the request. A page on another port of this machine is another site.
            if !site.may_use_cookie(changes) {
                return Ok(None);
            }
            match guard.access.session(secret).await {
                // An expired session is no attack: who has it signs in again.
                Ok(None) => return Ok(None),
                other => other,
            }
        }
    };
    match found {
        Ok(Some(caller)) => Ok(Some(caller)),
        Ok(None) => Err(refuse(wrong_token(guard, address(parts)))),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a token was not checked");
            let words = "the ledger does not answer, so the token cannot be checked";
            Err(refuse(ApiError::unavailable(words).help("try again in a moment")))
        }
    }
}

/// The address of the client, as the connection has it.
fn address(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip())
}

/// The answer to a wrong token: it was checked before, so only wrong ones are slowed down.
fn wrong_token(guard: &Guard, address: Option<IpAddr>) -> ApiError {
    let shown = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    match guard.access.wrong(address) {
        Verdict::Refuse => {
            metrics::counter!(metrics::WRONG_TOKENS_TOTAL, "answer" => "refused").increment(1);
            tracing::warn!(address = shown, "a request came with a wrong token");
            ApiError::wrong_token()
        }
        Verdict::Slow(after) => {
            metrics::counter!(metrics::WRONG_TOKENS_TOTAL, "answer" => "slowed").increment(1);
            tracing::debug!(address = shown, "too many wrong tokens from this address");
            ApiError::too_many_wrong_tokens(after)
        }
    }
}

/// The answer to a request without credentials: for a person the page to sign in.
fn unauthorized(parts: &Parts) -> Box<Response> {
    match page_of_person(parts) {
        Some(back) => Box::new(sign_in::page(StatusCode::UNAUTHORIZED, back, "")),
        None => refuse(ApiError::unauthorized()),
    }
}

/// The answer to a caller who lacks a scope: for a person the page to sign in with another token.
fn forbidden(parts: &Parts, name: &str, needed: &str) -> Box<Response> {
    match page_of_person(parts) {
        Some(back) => {
            let words =
                format!("The token {name} may not see this page: it needs the scope {needed}.");
            Box::new(sign_in::page(StatusCode::FORBIDDEN, back, &words))
        }
        None => refuse(ApiError::forbidden(name, needed)),
    }
}

/// The page that a person in a browser asks for.
fn page_of_person(parts: &Parts) -> Option<&str> {
    let page = parts.method == Method::GET && !parts.uri.path().starts_with("/v1/");
    let person = text(parts, header::ACCEPT).is_some_and(|kinds| kinds.contains("text/html"));
    (page && person).then(|| parts.uri.path_and_query().map_or("/", |p| p.as_str()))
}

/// Refuses a body that the route does not take. Forms and `text/plain` are what a page can send
/// anywhere without being asked, so no route of the API takes them.
fn content(parts: &Parts, empty: bool, takes: Takes) -> Passed {
    let kind = super::body::content_type(&parts.headers);
    if takes.accept(&kind) || (empty && kind.is_empty() && takes != Takes::Events) {
        return Ok(());
    }
    let shown: String = kind.chars().filter(|c| !c.is_control()).take(60).collect();
    let message = match kind.is_empty() {
        true => "the body has no content type".to_owned(),
        false => format!("this path does not take `{shown}`"),
    };
    Err(refuse(ApiError::unsupported(message).help(takes.help())))
}
