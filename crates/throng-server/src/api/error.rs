//! Errors of the API: a status, a stable code, words, a mend, and a request id to quote.

use std::sync::Arc;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use throng_ledger::LedgerError;
use throng_spec::Role;
use utoipa::ToSchema;

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
    /// Also in the node's log and in the header `x-request-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    detail: ErrorDetail,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            detail: ErrorDetail { code, message: message.into(), help: None, request_id: None },
        }
    }

    /// The client sent something wrong.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// There is no such object.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The token is missing or wrong.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "this node wants a token")
            .help("send `Authorization: Bearer <token>`, or use --token or THRONG_TOKEN")
    }

    /// The body is too large.
    pub(crate) fn too_large() -> Self {
        let words = "the request's body is larger than this node takes";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", words)
            .help("send less at once, or raise node.max_request_bytes")
    }

    /// The body did not come in time.
    pub(crate) fn slow_body() -> Self {
        let words = "nothing more of the request's body came for a while";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", words).help("send it without pauses")
    }

    /// The body has a content type that the path does not take.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// The node cannot do it now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// Our fault. The client gets no internals; the log has them.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
    }

    /// Adds a mend.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.detail.help = Some(help.into());
        self
    }
}

impl From<crate::roles::aggregate::BudgetsError> for ApiError {
    fn from(error: crate::roles::aggregate::BudgetsError) -> Self {
        Self::internal(&error)
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        match &error {
            LedgerError::NotFound { .. } => Self::not_found(error.to_string()),
            LedgerError::WrongState { .. } => {
                Self::new(StatusCode::CONFLICT, "wrong_state", error.to_string())
            }
            _ => Self::internal(&error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut detail = self.detail;
        detail.request_id = REQUEST_ID.try_with(Clone::clone).ok();
        (self.status, Json(ErrorBody { error: detail })).into_response()
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
            ApiError::new(status, "timeout", "the request took longer than this node allows")
                .help("ask for less at once, or raise node.request_timeout_secs")
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
