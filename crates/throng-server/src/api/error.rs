//! Errors of the API: a status, a stable code, a message, a hint, and the request id.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use throng_access::{Caller, is_api_path};
use throng_api::{ErrorBody, ErrorCode, ErrorDetail, SpecProblem};
use throng_http::{SlowBody, prefers_html};
use throng_model::{StorageProblem, WorkspaceName};
use throng_spec::Role;

/// After how many seconds a client may send a request again that failed because the node was unavailable.
const RETRY_AFTER_SECS: u64 = 1;

/// An error that a handler returns.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    /// Boxed, so that results stay small.
    detail: Box<ErrorDetail>,
    /// After how many seconds the client may retry.
    retry_after: Option<u64>,
}

impl ApiError {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.status());
        Self::with_status(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), code, message)
    }

    /// An error of a layer whose status is not the one of the code.
    fn with_status(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status,
            retry_after: None,
            detail: Box::new(ErrorDetail {
                code,
                message: message.into(),
                help: None,
                problems: Vec::new(),
                request_id: None,
            }),
        }
    }

    /// The request is invalid.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// The spec in the request has problems, or exceeds the limits of this node.
    pub(crate) fn invalid_spec(problems: Vec<SpecProblem>) -> Self {
        let s = if problems.len() == 1 { "" } else { "s" };
        let message = format!("{} problem{s} in the spec", problems.len());
        let mut error = Self::new(ErrorCode::InvalidSpec, message)
            .help("`problems` says for each where it is and how to fix it");
        error.detail.problems = problems;
        error
    }

    /// The state that the request is based on is no longer the current one.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Conflict, message)
    }

    /// The object does not exist.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// The state of the object does not allow the operation.
    pub(crate) fn wrong_state(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::WrongState, message)
    }

    /// The request has no token and no session.
    pub(crate) fn unauthorized() -> Self {
        Self::new(ErrorCode::Unauthorized, "this node requires a token").help(
            "send `Authorization: Bearer <token>`; on the command line use --dir of a node on this \
             machine, --token-file or THRONG_TOKEN",
        )
    }

    /// The token is not valid.
    pub(crate) fn wrong_token() -> Self {
        let message = "this token is not valid: it is wrong, expired or revoked";
        Self::new(ErrorCode::WrongToken, message).help("`throng token list` shows the valid tokens")
    }

    /// The address sent too many wrong tokens.
    pub(crate) fn too_many_wrong_tokens(after: Duration) -> Self {
        let message = "too many wrong tokens from this address";
        // Rounded up: a client that waits exactly this long must not come too early.
        let secs = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        Self::new(ErrorCode::TooManyWrongTokens, message)
            .help("send a valid token: it is accepted at once")
            .retry_after(secs.max(1))
    }

    /// Whether the address sent too many wrong tokens.
    pub(super) fn is_throttled(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// The token is valid, but lacks the scope.
    pub(crate) fn forbidden(name: &str, needed: &str) -> Self {
        let message =
            format!("the token `{name}` lacks a scope: this request needs the scope {needed}");
        Self::new(ErrorCode::Forbidden, message)
            .help("`throng token create NAME --scope …` creates a token with other scopes")
    }

    /// The token is limited to a workspace, and the route concerns the whole deployment.
    pub(crate) fn outside_workspace(name: &str, workspace: &WorkspaceName) -> Self {
        let message = format!(
            "the token `{name}` is limited to the workspace `{workspace}`, and this request concerns \
             the whole deployment"
        );
        Self::new(ErrorCode::Forbidden, message).help("use a token without a workspace")
    }

    /// The operation requires a token; a session is not enough.
    pub(super) fn forbidden_to_sessions() -> Self {
        let message = "a session cannot create a sign-in link";
        Self::new(ErrorCode::Forbidden, message).help("use a token")
    }

    /// A page of another site sent the request.
    pub(super) fn foreign_origin() -> Self {
        let message = "a page of another site sent this request";
        Self::new(ErrorCode::ForeignOrigin, message).help(
            "use the page of this node, or a program; behind a proxy set node.public_url to the \
             URL that people use",
        )
    }

    /// The host name of the request is unknown.
    pub(super) fn misdirected(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::UnknownHost, message)
    }

    /// The body is too large.
    pub(crate) fn too_large() -> Self {
        let message = "the request body is larger than node.max_request_bytes";
        Self::new(ErrorCode::TooLarge, message)
            .help("send less in one request, or raise node.max_request_bytes")
    }

    /// The body did not arrive in time.
    pub(crate) fn slow_body(slow: SlowBody) -> Self {
        let help = match slow {
            SlowBody::Idle(_) => "send the body without pauses",
            SlowBody::Rate { .. } => "send the body faster, or less in one request",
        };
        Self::new(ErrorCode::Timeout, slow.to_string()).help(help)
    }

    /// The path does not accept the content type or encoding of the body.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::UnsupportedMediaType, message)
    }

    /// None of the events of the request counts.
    pub(crate) fn no_event_counts(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NoEventCounts, message)
    }

    /// The error as a field of a response that has other fields too.
    pub(crate) fn into_detail(mut self) -> ErrorDetail {
        self.detail.request_id = REQUEST_ID.try_with(Clone::clone).ok();
        *self.detail
    }

    /// The node cannot do it now; a retry after a second may succeed.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let error = Self::new(ErrorCode::Unavailable, message);
        error.retry_after(RETRY_AFTER_SECS)
    }

    /// Sets after how many seconds the client may retry.
    pub(crate) fn retry_after(mut self, secs: u64) -> Self {
        self.retry_after = Some(secs);
        self
    }

    /// Without `Retry-After`: a retry fails until somebody has fixed the cause.
    pub(crate) fn without_retry(mut self) -> Self {
        self.retry_after = None;
        self
    }

    /// A store is unavailable. The client gets the class of the problem, the log the error.
    pub(super) fn storage(
        what: &str,
        problem: StorageProblem,
        error: &(dyn std::error::Error + 'static),
    ) -> Self {
        tracing::error!(error, %problem, "request failed");
        let error =
            Self::unavailable(format!("{what} is unavailable: {problem}")).help(problem.hint());
        if problem.is_retryable() { error } else { error.without_retry() }
    }

    /// A bug. The client gets no internals; the log has them.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "request failed");
        Self::new(ErrorCode::Internal, error.to_string())
    }

    /// Status, message, hint, and seconds until a retry: for a response that is not JSON.
    pub(crate) fn into_parts(self) -> (StatusCode, String, Option<String>, Option<u64>) {
        let detail = *self.detail;
        (self.status, detail.message, detail.help, self.retry_after)
    }

    /// The stable code.
    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.detail.code.as_str()
    }

    /// Adds a hint how to fix the error.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.detail.help = Some(help.into());
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = (status, Json(ErrorBody { error: self.into_detail() })).into_response();
        if let Some(after) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, after.into());
        }
        response
    }
}

tokio::task_local! {
    /// The id of the current request.
    pub(super) static REQUEST_ID: String;
}

/// The path does not exist, or not on a node with these roles. A browser gets a page, unless it is a path of the API.
pub(super) async fn no_such_route(roles: Arc<[Role]>, request: Request) -> Response {
    let missing = |code| ApiError::new(code, "this path does not exist");
    if !roles.contains(&Role::Api) {
        let roles = roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ");
        let help = "use a node with the role api, or see /openapi.json";
        let help = format!("this node has only the role {roles}: {help}");
        return missing(ErrorCode::MissingRole).help(help).into_response();
    }
    if !is_api_path(request.uri().path()) && prefers_html(request.headers()) {
        let caller = request.extensions().get::<Caller>();
        if let Ok(html) = throng_page::error::no_such_page(caller.and_then(Caller::workspace)) {
            return (StatusCode::NOT_FOUND, Html(html)).into_response();
        }
    }
    missing(ErrorCode::UnknownPath).help("/openapi.json lists all paths").into_response()
}

/// The path exists, but not with this method.
pub(super) async fn no_such_method() -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, "this path does not support this method")
        .help("/openapi.json lists the methods of each path")
}

/// Converts the plain-text error of a layer (too large, too slow, a panic) to the error form of the API.
pub(super) fn into_api_error(response: Response) -> Response {
    let status = response.status();
    let is_text = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !is_text || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let error = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(),
        StatusCode::REQUEST_TIMEOUT => {
            let message = "the request took longer than node.request_timeout_secs";
            ApiError::new(ErrorCode::Timeout, message).help(
                "if /readyz names a problem, wait until it is resolved; otherwise request less at \
                 once, or raise node.request_timeout_secs",
            )
        }
        _ if status.is_server_error() => {
            ApiError::with_status(status, ErrorCode::Internal, "the request failed")
                .help("the log of the node has the cause, with the request id")
        }
        StatusCode::BAD_REQUEST => {
            ApiError::new(ErrorCode::InvalidPath, "a part of the path is not of its type")
        }
        _ => {
            let message = status.canonical_reason().unwrap_or("refused").to_lowercase();
            ApiError::with_status(status, ErrorCode::BadRequest, message)
        }
    };
    error.into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};

    use super::*;

    fn retry_after(error: ApiError) -> Option<String> {
        let response = error.into_response();
        let value = response.headers().get(header::RETRY_AFTER)?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn the_code_says_whether_the_node_lacks_the_role_for_a_path() {
        let code = async |role: Role| {
            let request = Request::new(Body::empty());
            let response = no_such_route(Arc::from([role]), request).await;
            let body = to_bytes(response.into_body(), 10_000).await.unwrap();
            let body: ErrorBody = serde_json::from_slice(&body).unwrap();
            body.error.code
        };
        assert_eq!(code(Role::Relay).await, ErrorCode::MissingRole);
        assert_eq!(code(Role::Api).await, ErrorCode::UnknownPath);
        let text = Response::new(Body::empty());
        let (mut head, body) = text.into_parts();
        head.status = StatusCode::BAD_REQUEST;
        let response = into_api_error(Response::from_parts(head, body));
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        assert!(String::from_utf8_lossy(&body).contains("\"invalid_path\""), "{body:?}");
    }

    #[test]
    fn a_retryable_error_has_retry_after() {
        let seconds = |text: &str| Some(text.to_owned());
        assert_eq!(retry_after(ApiError::unavailable("no")), seconds("1"));
        assert_eq!(retry_after(ApiError::unavailable("no").retry_after(5)), seconds("5"));
        assert_eq!(retry_after(ApiError::unavailable("gone").without_retry()), None);
        for (millis, secs) in [(0, "1"), (1_000, "1"), (1_001, "2"), (4_999, "5")] {
            let error = ApiError::too_many_wrong_tokens(Duration::from_millis(millis));
            assert_eq!(retry_after(error), seconds(secs), "{millis} ms");
        }
        assert_eq!(retry_after(ApiError::bad_request("wrong")), None);
    }
}
