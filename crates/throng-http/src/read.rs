//! Reading the body of a request.

use axum::extract::{FromRequest as _, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;

use crate::body::SlowBody;

/// Why the body of a request cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is longer than a layer of the router allows.
    #[error("the request body is too large")]
    TooLarge,
    /// It did not arrive in time.
    #[error(transparent)]
    Slow(#[from] SlowBody),
    /// Its sender ended it early.
    #[error("the request body is incomplete")]
    Incomplete,
}

/// The whole body as bytes.
///
/// # Errors
/// [`BodyError`].
pub async fn read_body(request: Request) -> Result<Bytes, BodyError> {
    Bytes::from_request(request, &()).await.map_err(|error| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            BodyError::TooLarge
        } else {
            slow_body(&error).map_or(BodyError::Incomplete, BodyError::Slow)
        }
    })
}

/// The error of a body that did not arrive in time, if that is the cause of an extractor's error.
pub fn slow_body(error: &dyn std::error::Error) -> Option<SlowBody> {
    let mut causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.find_map(|cause| cause.downcast_ref::<SlowBody>().copied())
}

/// The content type without its parameters, in lower case; empty if there is none.
pub fn content_type(headers: &HeaderMap) -> String {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(';').next())
        .map(|kind| kind.trim().to_ascii_lowercase())
        .unwrap_or_default()
}
