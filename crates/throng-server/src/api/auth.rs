//! The token. Compared in constant time; accepted as a bearer token, or as a cookie for pages.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use throng_model::Secret;

use super::error::ApiError;

/// The cookie that a page's token travels in.
const COOKIE: &str = "throng_token=";

/// Lets a request through if the node wants no token or the request brings it.
pub(super) async fn require_token(
    State(token): State<Arc<Option<Secret>>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(wanted) = token.as_ref() else { return next.run(request).await };
    if brought(&request).is_some_and(|got| equal(got.as_bytes(), wanted.expose().as_bytes())) {
        next.run(request).await
    } else {
        ApiError::unauthorized().into_response()
    }
}

fn brought(request: &Request) -> Option<&str> {
    let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok());
    if let Some(bearer) = text(header::AUTHORIZATION).and_then(|v| v.strip_prefix("Bearer ")) {
        return Some(bearer);
    }
    text(header::COOKIE)?.split(';').find_map(|cookie| cookie.trim().strip_prefix(COOKIE))
}

/// Compares without telling by its time where the texts differ.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_equal_texts_are_equal() {
        assert!(super::equal(b"abc", b"abc"));
        assert!(!super::equal(b"abc", b"abd"));
        assert!(!super::equal(b"abc", b"ab"));
    }
}
