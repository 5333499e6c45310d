//! The checks of requests that arrive over TCP: host name, origin, token. Over the socket, its file mode decides who
//! may connect.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use throng_access::{HostNames, RequestOrigin, bearer_token};
use throng_api::ErrorCode;
use throng_model::{Secret, SecretHash};

use crate::http::{ApiError, is_probe};

/// Who may send requests.
#[derive(Debug)]
pub(crate) struct Guard {
    hosts: HostNames,
    /// The token that clients send, if one is required.
    token: Option<SecretHash>,
}

impl Guard {
    pub(crate) fn new(
        listen: SocketAddr,
        allowed_hosts: &[String],
        token: Option<&Secret>,
    ) -> Self {
        let token = token.map(|token| SecretHash::of(token.expose()));
        Self { hosts: HostNames::new(listen, false, None, allowed_hosts), token }
    }

    fn refusal(&self, parts: &Parts) -> Option<ApiError> {
        let is_probe = is_probe(parts.uri.path());
        if let Err(refusal) = self.hosts.check(parts, is_probe) {
            let error = ApiError::new(ErrorCode::UnknownHost, refusal.to_string());
            return Some(error.help(
                "use the address that the sidecar listens on, or name the host with --allowed-host",
            ));
        }
        // No page belongs to a sidecar.
        let has_origin = parts.headers.contains_key(header::ORIGIN);
        if has_origin || RequestOrigin::of(parts, &self.hosts).is_foreign() {
            let error = ApiError::new(ErrorCode::ForeignOrigin, "a web page sent this request");
            return Some(error.help("send it from a program"));
        }
        if is_probe || self.token.is_none_or(|token| has_token(parts, token)) {
            return None;
        }
        let (code, message) = match parts.headers.contains_key(header::AUTHORIZATION) {
            true => (ErrorCode::WrongToken, "this is not the token of this sidecar"),
            false => (ErrorCode::Unauthorized, "this sidecar requires a token"),
        };
        let error = ApiError::new(code, message);
        Some(
            error
                .help("send `Authorization: Bearer <token>` with the token of --client-token-file"),
        )
    }
}

/// Compared as hashes: the time of the comparison says nothing about the token.
fn has_token(parts: &Parts, expected: SecretHash) -> bool {
    let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.and_then(bearer_token).is_some_and(|token| SecretHash::of(token) == expected)
}

/// Passes a request to its handler if it is allowed.
pub(crate) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    match guard.refusal(&parts) {
        Some(error) => error.into_response(),
        None => next.run(Request::from_parts(parts, body)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(guard: &Guard, path: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = axum::http::Request::builder().method("POST").uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        guard.refusal(&parts).map(|error| error.into_response().status().as_u16())
    }

    #[test]
    fn other_hosts_pages_and_wrong_tokens_are_refused() {
        let listen = ([127, 0, 0, 1], 7079).into();
        let token = Secret::new("s3cret");
        let guard = Guard::new(listen, &["gate".to_owned()], Some(&token));
        let host = ("host", "127.0.0.1:7079");
        let valid = ("authorization", "Bearer s3cret");
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Headers<'_>, Option<u16>); 9] = [
            (&[host, valid], None),
            (&[("host", "gate"), valid], None),
            (&[("host", "evil.example"), valid], Some(421)),
            (&[valid], Some(421)),
            (&[host], Some(401)),
            (&[host, ("authorization", "Bearer other")], Some(401)),
            (&[host, ("authorization", "Basic s3cret")], Some(401)),
            (&[host, valid, ("origin", "http://127.0.0.1:7079")], Some(403)),
            (&[host, valid, ("sec-fetch-site", "cross-site")], Some(403)),
        ];
        for (headers, expected) in cases {
            assert_eq!(code(&guard, "/v1/decide", headers), expected, "{headers:?}");
        }
        assert_eq!(code(&guard, "/readyz", &[("host", "10.0.0.1:80")]), None, "a probe");
        let open = Guard::new(listen, &[], None);
        assert_eq!(code(&open, "/v1/decide", &[host]), None);
    }
}
