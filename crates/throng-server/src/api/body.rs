//! Bodies of requests as JSON, and the errors of bodies in the form of the API. The server enforces how fast a
//! body has to arrive (`throng-http`).

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use throng_api::body_of;
use throng_http::{BodyError, DecodeError, is_encoded, read_body};

use super::error::ApiError;

const ENCODING_HELP: &str = "send the body without an encoding, or with one of gzip, zstd and br";

/// A JSON body. Its content type has been checked before, as for every route.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if is_encoded(request.headers())? {
            let error = ApiError::unsupported("this path does not accept encoded bodies");
            return Err(error.help(
                "send the body without a content encoding; POST /v1/events accepts gzip, zstd and br",
            ));
        }
        let bytes = read_body(request).await?;
        body_of(&bytes).map(Self).map_err(|message| {
            ApiError::bad_request(message).help("/openapi.json has the schema of the body")
        })
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::too_large(),
            BodyError::Slow(slow) => Self::slow_body(slow),
            BodyError::Incomplete => Self::bad_request(error.to_string()),
        }
    }
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLarge => Self::too_large(),
            DecodeError::Unsupported { .. } => {
                Self::unsupported(error.to_string()).help(ENCODING_HELP)
            }
            DecodeError::Invalid => Self::bad_request(error.to_string()).help(ENCODING_HELP),
        }
    }
}
