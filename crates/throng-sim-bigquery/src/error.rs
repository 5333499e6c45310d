//! Errors as the API returns them.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::engine::SqlError;

/// An error of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid", message)
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(404, "notFound", format!("Not found: {what}"))
    }
}

impl From<SqlError> for ApiError {
    fn from(SqlError(message): SqlError) -> Self {
        if message.contains(SqlError::NO_TABLE) {
            return Self::not_found(&message);
        }
        // With the reason of wrong SQL, the client would ask to correct it in BigQuery's dialect.
        match message.starts_with(SqlError::SIMULATOR) {
            true => Self::invalid(message),
            false => Self::new(400, "invalidQuery", message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let item = json!({ "domain": "global", "reason": self.reason, "message": self.message });
        let body = json!({
            "error": { "code": self.status, "message": self.message, "errors": [item] },
        });
        (status, Json(body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sql_that_bigquery_would_refuse_is_an_invalid_query() {
        for (message, status, reason) in [
            ("Unrecognized name: totl", 400, "invalidQuery"),
            ("there is no table events.views", 404, "notFound"),
            ("the simulator does not serve BYTES: column id", 400, "invalid"),
        ] {
            let error = ApiError::from(SqlError(message.to_owned()));
            assert_eq!((error.status, error.reason), (status, reason), "{message}");
            assert!(error.message.ends_with(message), "{}", error.message);
        }
    }
}
