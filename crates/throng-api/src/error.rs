//! Errors.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of an error response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "code": "not_found", "message": "no audience `buyer` in the applied spec",
    "help": "`throng audience list` shows the names", "request_id": "9f86d081884c7d65"
}))]
pub struct ErrorDetail {
    /// The stable code for programs.
    pub code: ErrorCode,
    /// The message for people.
    pub message: String,
    /// A hint how to fix the error, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// All problems of a spec; omitted for other errors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<SpecProblem>,
    /// The request id, as in the log of the node and in the header `x-request-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// The stable code of an error, in `snake_case`. Each has one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: the request is invalid.
    BadRequest,
    /// 400: the spec in the request has problems, or exceeds the limits of the node.
    InvalidSpec,
    /// 400: a part of the path is not of its type, such as a word where the path has a number.
    InvalidPath,
    /// 401: the request has no token and no session.
    Unauthorized,
    /// 401: the token is not valid.
    WrongToken,
    /// 403: the token lacks a scope.
    Forbidden,
    /// 403: a page of another site sent the request.
    ForeignOrigin,
    /// 404: the object does not exist.
    NotFound,
    /// 404: the path does not exist; other versions may have it.
    UnknownPath,
    /// 404: this process does not have the path: it lacks a role for it, or is a gate.
    MissingRole,
    /// 405: the path does not support the method.
    MethodNotAllowed,
    /// 408: the request, or its body, took too long.
    Timeout,
    /// 409: the state that the request is based on is no longer the current one.
    Conflict,
    /// 409: the state of the object does not allow the operation.
    WrongState,
    /// 413: the body is too large.
    TooLarge,
    /// 415: the path does not accept the content type or encoding.
    UnsupportedMediaType,
    /// 421: the host name of the request is not a name of the node.
    UnknownHost,
    /// 422: none of the events of the request counts.
    NoEventCounts,
    /// 429: too many wrong tokens from this address.
    TooManyWrongTokens,
    /// 500: a bug.
    Internal,
    /// 503: the node cannot do it now. With `Retry-After` if a retry may succeed.
    Unavailable,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 21] = [
        Self::BadRequest,
        Self::InvalidSpec,
        Self::InvalidPath,
        Self::Unauthorized,
        Self::WrongToken,
        Self::Forbidden,
        Self::ForeignOrigin,
        Self::NotFound,
        Self::UnknownPath,
        Self::MissingRole,
        Self::MethodNotAllowed,
        Self::Timeout,
        Self::Conflict,
        Self::WrongState,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::UnknownHost,
        Self::NoEventCounts,
        Self::TooManyWrongTokens,
        Self::Internal,
        Self::Unavailable,
    ];

    /// The HTTP status of a response with this code.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::InvalidSpec | Self::InvalidPath => 400,
            Self::Unauthorized | Self::WrongToken => 401,
            Self::Forbidden | Self::ForeignOrigin => 403,
            Self::NotFound | Self::UnknownPath | Self::MissingRole => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::Conflict | Self::WrongState => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::UnknownHost => 421,
            Self::NoEventCounts => 422,
            Self::TooManyWrongTokens => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    /// The code as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::InvalidSpec => "invalid_spec",
            Self::InvalidPath => "invalid_path",
            Self::Unauthorized => "unauthorized",
            Self::WrongToken => "wrong_token",
            Self::Forbidden => "forbidden",
            Self::ForeignOrigin => "foreign_origin",
            Self::NotFound => "not_found",
            Self::UnknownPath => "unknown_path",
            Self::MissingRole => "missing_role",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::WrongState => "wrong_state",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::UnknownHost => "unknown_host",
            Self::NoEventCounts => "no_event_counts",
            Self::TooManyWrongTokens => "too_many_wrong_tokens",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A problem of a spec, at its place in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "file": "throng.yaml", "line": 12, "column": 5, "path": "audiences[0].sql",
    "message": "no table `shop.order`", "help": "did you mean `shop.orders`?"
}))]
pub struct SpecProblem {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 if the problem has none.
    pub line: u32,
    /// The column in characters, from 1; 0 if the problem has no line.
    pub column: u32,
    /// The field, such as `audiences[2].sql`; may be empty.
    pub path: String,
    /// The problem.
    pub message: String,
    /// A hint how to fix it.
    pub help: Option<String>,
}

/// The message about a body that is not of its form, without the values that it has: one may be the key of a user, and
/// the parser repeats the one that it does not expect.
fn invalid_body(error: &serde_json::Error) -> String {
    format!("the request body is invalid: {}", without_found(&error.to_string()))
}

/// Reads a body as JSON. A byte order mark before it, as some editors and PowerShell write, is skipped.
///
/// # Errors
/// The message for the answer, without the values of the body.
pub fn body_of<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    serde_json::from_slice(text).map_err(|error| invalid_body(&error))
}

fn without_found(text: &str) -> String {
    if let Some(shown) = with_short_field(text) {
        return shown;
    }
    let masked =
        ["invalid type: ", "invalid value: ", "unknown variant "].into_iter().find_map(|what| {
            // The last one: the value may have these words too.
            let (found, expected) = text.strip_prefix(what)?.rsplit_once(", expected ")?;
            // Such as "integer `7`" and "string \"x\"".
            let kind = found.split(['`', '"']).next().unwrap_or_default();
            let found = format!("{what}{kind}");
            Some(format!("{}, expected {expected}", found.trim_end()))
        });
    masked.unwrap_or_else(|| text.to_owned())
}

/// The longest name of a field that a message has in full: fields of the API have shorter ones.
const MAX_FIELD_CHARACTERS: usize = 40;

/// The message about an unknown field, with the beginning of its name.
fn with_short_field(text: &str) -> Option<String> {
    let what = "unknown field `";
    let rest = text.strip_prefix(what)?;
    let end = rest.rfind("`, expected ").or_else(|| rest.rfind("`, there are no fields"))?;
    let (name, expected) = rest.split_at(end);
    let (cut, _) = name.char_indices().nth(MAX_FIELD_CHARACTERS)?;
    Some(format!("{what}{}…{expected}", &name[..cut]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecideRequest, LookupRequest};

    #[test]
    fn a_body_that_is_invalid_is_not_repeated() {
        let problem = |error: serde_json::Error| invalid_body(&error);
        let decide = |text: &str| serde_json::from_str::<DecideRequest>(text).map_err(problem);
        let lookup = |text: &str| serde_json::from_str::<LookupRequest>(text).map_err(problem);
        let message = |what: &str| format!("the request body is invalid: {what}");
        let error = lookup(r#"{"keys":[15551234567]}"#).unwrap_err();
        let expected = message("invalid type: integer, expected a string at line 1");
        assert!(error.starts_with(&expected) && !error.contains("1555"), "{error}");
        let error = decide(r#"{"ad_groups":"ann, expected `b` \" c@example.com"}"#).unwrap_err();
        assert!(
            error.starts_with(&message("invalid type: string, expected a sequence")),
            "{error}"
        );
        let error = decide(r#"{"user":null}"#).unwrap_err();
        assert!(error.starts_with(&message("missing field `ad_groups`")), "{error}");
        let error = lookup(r#"{"keys":{}}"#).unwrap_err();
        assert!(error.starts_with(&message("invalid type: map, expected a sequence")), "{error}");
        let error = serde_json::from_str::<ErrorCode>("\"s3cret\"").map_err(problem).unwrap_err();
        assert!(error.contains("unknown variant, expected one of"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn the_name_of_an_unknown_field_is_not_repeated_in_full() {
        let of = |name: &str| {
            let body = format!(r#"{{"ad_groups": [], "{name}": 1}}"#);
            body_of::<DecideRequest>(body.as_bytes()).unwrap_err()
        };
        let message = |name: &str| {
            format!("the request body is invalid: unknown field `{name}`, expected one of `user`, ")
        };
        assert!(of("record").starts_with(&message("record")));
        let long = of(&"ü".repeat(5_000));
        assert!(long.starts_with(&message(&format!("{}…", "ü".repeat(40)))), "{long}");
        assert!(long.len() < 300, "{long}");
    }

    #[test]
    fn a_byte_order_mark_before_a_body_is_skipped() {
        let body = "\u{feff}{\"ad_groups\": [\"shoes\"]}";
        let request: DecideRequest = body_of(body.as_bytes()).unwrap();
        assert_eq!(request.ad_groups, ["shoes"]);
        let cut: Result<DecideRequest, String> = body_of("\u{feff}{".as_bytes());
        assert!(cut.unwrap_err().starts_with("the request body is invalid: "));
    }
}
