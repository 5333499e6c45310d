//! The checks of every request before its handler runs: host name, origin, credentials, scope and content type,
//! in this order.

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
use throng_http::content_type;
use throng_telemetry::metrics;

use super::error::ApiError;
use crate::access::{Access, Caller, ThrottleAction};

pub(super) use headers::secure;
pub(crate) use host::HostNames;
pub(super) use sign_in::routes as sign_in_routes;

pub(super) use routes::Needs;
#[cfg(test)]
pub(super) use routes::ROUTES;
use routes::{AcceptedBody, rule_of};

/// The state that the checks need.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Tokens and sessions.
    pub(crate) access: Arc<Access>,
    /// The host names that the node accepts.
    pub(crate) hosts: HostNames,
    /// The name of the session's cookie.
    cookie: String,
}

impl Guard {
    pub(crate) fn new(access: Arc<Access>, hosts: HostNames) -> Self {
        // Browsers send a cookie to every port of a host. The port in its name separates the sessions of
        // two nodes on one machine.
        let port = hosts.public_port();
        let prefix = if hosts.is_https() { "__Host-" } else { "" };
        Self { access, cookie: format!("{prefix}throng-session-{port}"), hosts }
    }
}

fn text(parts: &Parts, name: impl AsHeaderName) -> Option<&str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}

/// The credentials of a request.
enum Credentials<'a> {
    None,
    Token(&'a str),
    Session(&'a str),
}

impl Guard {
    fn credentials<'a>(&self, parts: &'a Parts) -> Credentials<'a> {
        if let Some(value) = text(parts, header::AUTHORIZATION) {
            // Another scheme counts as a wrong token, not as a missing one.
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

/// Passes a request to its handler if all checks succeed.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let empty = body.is_end_stream();
    match run_checks(&guard, &mut parts, empty).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refused) => *refused,
    }
}

type CheckResult = Result<(), Box<Response>>;

fn refuse(error: ApiError) -> Box<Response> {
    Box::new(error.into_response())
}

async fn run_checks(guard: &Guard, parts: &mut Parts, empty: bool) -> CheckResult {
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
        // An expired cookie does not block what is open to everybody.
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
    if changes { check_content_type(parts, empty, rule.accepts) } else { Ok(()) }
}

/// The caller of a request; `None` if it has no credentials. A wrong token or session is refused.
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
            // The browser adds the cookie also to requests of other sites, so it counts only if the browser
            // says that a page of this node sent the request. A page on another port is another site.
            if !site.may_use_cookie(changes) {
                return Ok(None);
            }
            match guard.access.session(secret).await {
                // An expired session is not a wrong token: the person signs in again.
                Ok(None) => return Ok(None),
                other => other,
            }
        }
    };
    match found {
        Ok(Some(caller)) => Ok(Some(caller)),
        Ok(None) => Err(refuse(wrong_token(guard, address(parts)))),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "failed to check a token");
            let message = "the ledger does not answer, so the token cannot be checked";
            Err(refuse(ApiError::unavailable(message).help("try again in a moment")))
        }
    }
}

/// The address of the client, from the connection.
fn address(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip())
}

/// The response to a wrong token. The token has been checked before, so valid ones are never delayed.
fn wrong_token(guard: &Guard, address: Option<IpAddr>) -> ApiError {
    let shown = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    match guard.access.throttle_wrong_token(address) {
        ThrottleAction::Refuse => {
            metrics::counter!(metrics::WRONG_TOKENS_TOTAL, "answer" => "refused").increment(1);
            tracing::warn!(address = shown, "wrong token");
            ApiError::wrong_token()
        }
        ThrottleAction::Slow(after) => {
            metrics::counter!(metrics::WRONG_TOKENS_TOTAL, "answer" => "slowed").increment(1);
            tracing::debug!(address = shown, "too many wrong tokens");
            ApiError::too_many_wrong_tokens(after)
        }
    }
}

/// The response to a request without credentials: the sign-in page for a browser.
fn unauthorized(parts: &Parts) -> Box<Response> {
    match browser_page(parts) {
        Some(back) => Box::new(sign_in::page(StatusCode::UNAUTHORIZED, back, "")),
        None => refuse(ApiError::unauthorized()),
    }
}

/// The response to a caller that lacks a scope: for a browser the sign-in page, to use another token.
fn forbidden(parts: &Parts, name: &str, needed: &str) -> Box<Response> {
    match browser_page(parts) {
        Some(back) => {
            let message =
                format!("The token {name} lacks a scope: this page needs the scope {needed}.");
            Box::new(sign_in::page(StatusCode::FORBIDDEN, back, &message))
        }
        None => refuse(ApiError::forbidden(name, needed)),
    }
}

/// The path of the page, if a browser requests a page.
fn browser_page(parts: &Parts) -> Option<&str> {
    let is_page = parts.method == Method::GET && !parts.uri.path().starts_with("/v1/");
    let is_browser = text(parts, header::ACCEPT).is_some_and(|kinds| kinds.contains("text/html"));
    (is_page && is_browser).then(|| parts.uri.path_and_query().map_or("/", |p| p.as_str()))
}

/// Refuses a content type that the route does not accept. A page of another site can send forms and
/// `text/plain` without a preflight request, so no route of the API accepts them.
fn check_content_type(parts: &Parts, empty: bool, accepts: AcceptedBody) -> CheckResult {
    let kind = content_type(&parts.headers);
    if accepts.matches(&kind) || (empty && kind.is_empty() && accepts != AcceptedBody::Events) {
        return Ok(());
    }
    let shown: String = kind.chars().filter(|c| !c.is_control()).take(60).collect();
    let message = match kind.is_empty() {
        true => "the body has no content type".to_owned(),
        false => format!("this path does not accept `{shown}`"),
    };
    Err(refuse(ApiError::unsupported(message).help(accepts.help())))
}
