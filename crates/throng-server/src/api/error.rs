//! Errors of the API: a status, a stable code, words, a mend, and a request id to quote.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use throng_model::StorageProblem;
use throng_spec::{Problem, Role};
use utoipa::ToSchema;

use crate::node::SlowBody;

/// After how many seconds a client tries again what the node could not do.
const RETRY_AFTER_SECS: u64 = 1;

/// An error as a client sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// The error.
    pub(crate) error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// A stable word for programs: `not_found`, `bad_request`, …
    pub(crate) code: &'static str,
    /// A sentence for people.
    pub(crate) message: String,
    /// How to mend it, if there is a way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
    /// Everything that is wrong in a spec: file, line, column, field, message, help.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub(crate) problems: Vec<Problem>,
    /// Also in the node's log and in the header `x-request-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    /// Boxed: results that carry an error stay small.
    detail: Box<ErrorDetail>,
    /// After how many seconds the client may come again.
    retry_after: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
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

    /// The client sent something wrong.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// The spec that the client sent is wrong, or more than this node allows.
    pub(crate) fn invalid_spec(problems: Vec<Problem>) -> Self {
        let s = if problems.len() == 1 { "" } else { "s" };
        let message = format!("{} problem{s} in the spec", problems.len());
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_spec", message)
            .help("`problems` says for each where it is and what to do");
        error.detail.problems = problems;
        error
    }

    /// What the client wants to replace is not there any more.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// There is no such object.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The object is in a state that does not allow it.
    pub(crate) fn wrong_state(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "wrong_state", message)
    }

    /// The request has no token and no session.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "this node needs a token").help(
            "send `Authorization: Bearer <token>`; on the command line use --dir of a node on this \
             machine, --token-file or THRONG_TOKEN",
        )
    }

    /// The token is not valid.
    pub(crate) fn wrong_token() -> Self {
        let words = "this token is not valid: it is wrong, expired or revoked";
        Self::new(StatusCode::UNAUTHORIZED, "wrong_token", words)
            .help("`throng token list` shows the valid tokens")
    }

    /// The address sent too many wrong tokens.
    pub(crate) fn too_many_wrong_tokens(after: Duration) -> Self {
        let words = "too many wrong tokens came from this address";
        // Not a moment too early: a part of a second is a whole one.
        let secs = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_wrong_tokens", words)
            .help("send a valid token: it is accepted at once")
            .retry_after(secs.max(1))
    }

    /// Whether it is an answer to too many wrong tokens.
    pub(super) fn is_throttled(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// The token is valid, but does not allow this.
    pub(crate) fn forbidden(name: &str, needed: &str) -> Self {
        let words = format!("the token `{name}` does not allow this: it needs the scope {needed}");
        Self::new(StatusCode::FORBIDDEN, "forbidden", words)
            .help("`throng token create NAME --scope …` creates a token with other scopes")
    }

    /// Only a token may do this.
    pub(super) fn forbidden_to_sessions() -> Self {
        let words = "a session cannot make a sign-in link";
        Self::new(StatusCode::FORBIDDEN, "forbidden", words).help("ask with a token")
    }

    /// A page of another site sent the request.
    pub(super) fn foreign_origin() -> Self {
        let words = "a page of another site sent this request";
        Self::new(StatusCode::FORBIDDEN, "foreign_origin", words).help(
            "use the node's own page, or a program; behind a proxy set node.public_url to the URL \
             that people use",
        )
    }

    /// The request is for another host.
    pub(super) fn misdirected(message: impl Into<String>) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", message)
    }

    /// The body is too large.
    pub(crate) fn too_large() -> Self {
        let words = "the request's body is larger than this node takes";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", words)
            .help("send less at once, or raise node.max_request_bytes")
    }

    /// The body did not come in time.
    pub(crate) fn slow_body(slow: SlowBody) -> Self {
        let help = match slow {
            SlowBody::Idle(_) => "send it without pauses",
            SlowBody::Rate { .. } => "send it faster, or less at once",
        };
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", slow.to_string()).help(help)
    }

    /// The body has a content type that the path does not take.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// Nothing of what was sent can be used.
    pub(crate) fn no_event_counts(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "no_event_counts", message)
    }

    /// The error as a part of an answer that says more.
    pub(crate) fn in_body(mut self) -> serde_json::Value {
        self.detail.request_id = REQUEST_ID.try_with(Clone::clone).ok();
        serde_json::to_value(&*self.detail).unwrap_or_default()
    }

    /// The node cannot do it now; it may in a second.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        error.retry_after(RETRY_AFTER_SECS)
    }

    /// The client may come again after so many seconds.
    pub(crate) fn retry_after(mut self, secs: u64) -> Self {
        self.retry_after = Some(secs);
        self
    }

    /// Time alone changes nothing: a person has to do something first.
    pub(crate) fn without_retry(mut self) -> Self {
        self.retry_after = None;
        self
    }

    /// A store cannot be used now. The class is for the client, the error for the log.
    pub(super) fn storage(
        what: &str,
        problem: StorageProblem,
        error: &(dyn std::error::Error + 'static),
    ) -> Self {
        tracing::error!(error, %problem, "request failed");
        let error =
            Self::unavailable(format!("{what} cannot be used now: {problem}")).help(problem.hint());
        if problem.can_pass() { error } else { error.without_retry() }
    }

    /// Our fault. The client gets no internals; the log has them.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
    }

    /// Status, words for people, and when to come again: for an answer in another form.
    pub(crate) fn into_parts(self) -> (StatusCode, String, Option<u64>) {
        let words = match self.detail.help {
            Some(help) => format!("{}: {help}", self.detail.message),
            None => self.detail.message,
        };
        (self.status, words, self.retry_after)
    }

    /// Its stable word.
    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.detail.code
    }

    /// Adds a mend.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.detail.help = Some(help.into());
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut detail = self.detail;
        detail.request_id = REQUEST_ID.try_with(Clone::clone).ok();
        let mut response = (self.status, Json(ErrorBody { error: *detail })).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, after.into());
        }
        response
    }
}

tokio::task_local! {
    /// The id of the request that is being answered.
    pub(super) static REQUEST_ID: String;
}

/// Nothing lies at this path, or nothing on a node with these roles.
pub(super) async fn no_such_route(roles: Arc<[Role]>) -> ApiError {
    let error = ApiError::not_found("nothing lies at this path");
    if roles.contains(&Role::Api) {
        return error.help("/openapi.json lists every path");
    }
    let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    error.help(format!(
        "this node has the role {} only: ask a node with the role api, or see /openapi.json",
        roles.join(", ")
    ))
}

/// The path is right, the method is not.
pub(super) async fn no_such_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path does not know this method",
    )
    .help("/openapi.json lists the methods of every path")
}

/// An answer of a layer that knows no JSON (too large, too slow, a panic), in the API's form.
pub(super) fn in_form(response: Response) -> Response {
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
            ApiError::new(status, "timeout", "the request took longer than this node allows").help(
                "if /readyz names a problem, wait for its end; else ask for less at once, or \
                     raise node.request_timeout_secs",
            )
        }
        _ if status.is_server_error() => ApiError::new(status, "internal", "the request failed")
            .help("the node's log says why, under the request id"),
        _ => {
            let words = status.canonical_reason().unwrap_or("refused").to_lowercase();
            ApiError::new(status, "bad_request", words)
        }
    };
    error.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry_after(error: ApiError) -> Option<String> {
        let response = error.into_response();
        let value = response.headers().get(header::RETRY_AFTER)?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_client_that_may_come_again_is_told_when() {
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
