//! The checks of every request before its handler runs: host name, origin, credentials, scope and content type,
//! in this order. `throng-access` decides; what is refused is counted, logged and answered here.

mod headers;
mod sign_in;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::HttpBody as _;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use throng_access::{
    AcceptedBody, Access, Authentication, Caller, HostNames, HostRefusal, RequestOrigin,
    RouteRequirement, SessionCookie, ThrottleAction, is_api_path, rule_of,
};
use throng_http::{content_type, prefers_html};
use throng_telemetry::metrics;

use super::error::ApiError;

pub(super) use headers::secure;
pub(super) use sign_in::routes as sign_in_routes;

/// The state that the checks need.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Tokens and sessions.
    pub(crate) access: Arc<Access>,
    /// The host names that the node accepts.
    pub(crate) hosts: HostNames,
    /// The cookie of sessions.
    cookie: SessionCookie,
}

impl Guard {
    pub(crate) fn new(access: Arc<Access>, hosts: HostNames) -> Self {
        Self { access, cookie: SessionCookie::new(&hosts), hosts }
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
    let probe = rule.needs == RouteRequirement::Probe;
    guard.hosts.check(parts, probe).map_err(|refusal| refuse(unknown_host(&refusal)))?;
    let changes = !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let site = RequestOrigin::of(parts, &guard.hosts);
    if changes && site.is_foreign() {
        metrics::counter!(metrics::REQUESTS_REFUSED_TOTAL, "reason" => "foreign_origin")
            .increment(1);
        return Err(refuse(ApiError::foreign_origin()));
    }
    let open = matches!(rule.needs, RouteRequirement::Nothing | RouteRequirement::Probe);
    let caller = match caller(guard, parts, site, changes).await {
        // An expired cookie does not block what is open to everybody.
        Err(_) if open => None,
        other => other?,
    };
    match caller {
        Some(caller) => {
            let name = caller.name();
            if !rule.needs.allow(caller.scopes()) {
                let needed = rule.needs.to_string();
                let text = format!("lacks a scope: this page needs the scope {needed}");
                return Err(forbidden(parts, name, &text, ApiError::forbidden(name, &needed)));
            }
            if let Some(workspace) = caller.workspace().filter(|_| !rule.in_workspaces) {
                let text =
                    format!("is limited to the workspace {workspace}, which has no such page");
                let error = ApiError::outside_workspace(name, workspace);
                return Err(forbidden(parts, name, &text, error));
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
    site: RequestOrigin,
    changes: bool,
) -> Result<Option<Caller>, Box<Response>> {
    let credentials = guard.cookie.credentials(parts);
    match guard.access.authenticate(credentials, site, changes).await {
        Ok(Authentication::Anonymous) => Ok(None),
        Ok(Authentication::Caller(caller)) => Ok(Some(caller)),
        Ok(Authentication::WrongToken) => Err(refuse(wrong_token(guard, address(parts)))),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "failed to check a token");
            let message = "the ledger does not answer, so the token cannot be checked";
            Err(refuse(ApiError::unavailable(message).help("try again in a moment")))
        }
    }
}

/// The response to a request whose host is not one of the node's.
fn unknown_host(refusal: &HostRefusal) -> ApiError {
    metrics::counter!(metrics::REQUESTS_REFUSED_TOTAL, "reason" => "unknown_host").increment(1);
    ApiError::misdirected(refusal.to_string()).help(
        "use the address that the node listens on, or set node.public_url (or \
         node.allowed_hosts) to the name that callers use",
    )
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

/// The response to a caller whose token does not allow the request: for a browser the sign-in page, to use another
/// token, with the reason.
fn forbidden(parts: &Parts, name: &str, reason: &str, error: ApiError) -> Box<Response> {
    match browser_page(parts) {
        Some(back) => {
            let message = format!("The token {name} {reason}.");
            Box::new(sign_in::page(StatusCode::FORBIDDEN, back, &message))
        }
        None => refuse(error),
    }
}

/// The path of the page, if a browser requests a page.
fn browser_page(parts: &Parts) -> Option<&str> {
    let is_page = parts.method == Method::GET && !is_api_path(parts.uri.path());
    (is_page && prefers_html(&parts.headers))
        .then(|| parts.uri.path_and_query().map_or("/", |p| p.as_str()))
}

/// Refuses a content type that the route does not accept.
fn check_content_type(parts: &Parts, empty: bool, accepts: AcceptedBody) -> CheckResult {
    let kind = content_type(&parts.headers);
    if accepts.allows(&kind, empty) {
        return Ok(());
    }
    let shown: String = kind.chars().filter(|c| !c.is_control()).take(60).collect();
    let message = match kind.is_empty() {
        true => "the body has no content type".to_owned(),
        false => format!("this path does not accept `{shown}`"),
    };
    Err(refuse(ApiError::unsupported(message).help(accepts.help())))
}
