//! Bodies of requests, with errors in the form of the API. The server enforces how fast a body has to
//! arrive (`node/serve/body.rs`).

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::node::SlowBody;

/// A JSON body. Its content type has been checked before, as for every route.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        super::encoding::refuse_encoded(request.headers())?;
        let bytes = whole(request, state).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            ApiError::bad_request(format!("the request body is invalid: {error}"))
                .help("/openapi.json has the schema of the body")
        })
    }
}

/// The whole body as bytes.
pub(crate) async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|error| {
        if error.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::too_large()
        } else if let Some(slow) = slow_body(&error) {
            ApiError::slow_body(slow)
        } else {
            ApiError::bad_request("the request body is incomplete")
        }
    })
}

/// The error of a body that did not arrive in time, if that is the cause.
pub(super) fn slow_body(error: &dyn std::error::Error) -> Option<SlowBody> {
    let mut causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.find_map(|cause| cause.downcast_ref::<SlowBody>().copied())
}

/// The content type without its parameters, in lower case; empty if there is none.
pub(super) fn content_type(headers: &HeaderMap) -> String {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(';').next())
        .map(|kind| kind.trim().to_ascii_lowercase())
        .unwrap_or_default()
}
