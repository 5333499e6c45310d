//! Errors of the API. Their bodies are read leniently: a proxy may have sent something else.

use serde::Deserialize;
use throng_api::ErrorCode;
use throng_spec::Problem;

/// The body of an error.
#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

/// An error of the node.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ErrorDetail {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) help: Option<String>,
    pub(crate) request_id: Option<String>,
}

/// The problems in the body of an error.
#[derive(Debug, Default, Deserialize)]
struct ProblemsBody {
    error: ProblemList,
}

#[derive(Debug, Default, Deserialize)]
struct ProblemList {
    #[serde(default)]
    problems: Vec<Problem>,
}

/// The codes for a request that the node does not know.
const UNKNOWN_REQUEST: [ErrorCode; 3] = [
    ErrorCode::UnknownPath,
    ErrorCode::MethodNotAllowed,
    // `/v1/tasks/summary`, where only `/v1/tasks/{id}` is known.
    ErrorCode::InvalidPath,
];

/// What nodes say that have none of these codes. A node without the role says the same.
const EARLIER_MESSAGES: [&str; 2] =
    ["this path does not exist", "a part of the path is not of its type"];

/// The error in a body; without any field if the body is not one of the API.
pub(crate) fn error_of(body: &str) -> ErrorDetail {
    let error = serde_json::from_str::<ErrorBody>(body).unwrap_or_default().error;
    let code = error.code.as_deref().unwrap_or_default();
    let is_unknown = UNKNOWN_REQUEST.iter().any(|unknown| unknown.as_str() == code);
    let has_codes = !["", "not_found", "bad_request"].contains(&code);
    let is_other = |text: &str| has_codes || !EARLIER_MESSAGES.contains(&text);
    if !is_unknown && error.message.as_deref().is_none_or(is_other) {
        return error;
    }
    let version = "it is of another version than this command line";
    let mut message = format!("the node does not know this request: {version}");
    let mut help = "upgrade the node, or use the command line of the node's version".to_owned();
    if !is_unknown {
        message.push_str(", or lacks the role for it");
        help.extend(error.help.iter().flat_map(|said| ["; the node says: ", said.as_str()]));
    }
    ErrorDetail { message: Some(message), help: Some(help), ..error }
}

/// The problems of a spec in a body. They are read apart from the error, which is shown even if problems of
/// another version cannot be read.
pub(crate) fn problems_of(body: &str) -> Vec<Problem> {
    serde_json::from_str::<ProblemsBody>(body).unwrap_or_default().error.problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_even_if_its_problems_cannot_be() {
        let body =
            r#"{"error": {"code": "invalid_spec", "message": "1 problem", "problems": [7]}}"#;
        let error = error_of(body);
        assert_eq!(error.code.as_deref(), Some("invalid_spec"));
        assert_eq!(error.message.as_deref(), Some("1 problem"));
        assert!(problems_of(body).is_empty());
    }

    #[test]
    fn a_request_that_the_node_does_not_know_is_of_another_version() {
        for code in UNKNOWN_REQUEST {
            let body =
                format!(r#"{{"error": {{"code": "{code}", "message": "no", "help": "h"}}}}"#);
            let error = error_of(&body);
            assert!(error.message.unwrap().ends_with("than this command line"), "{code}");
            assert!(error.help.unwrap().starts_with("upgrade the node"), "{code}");
            assert_eq!(error.code.as_deref(), Some(code.as_str()));
        }
        let body = r#"{"error": {"code": "missing_role", "message": "this path does not exist",
            "help": "use a node with the role api", "request_id": "17"}}"#;
        let error = error_of(body);
        assert_eq!(error.message.as_deref(), Some("this path does not exist"));
        assert_eq!(error.help.as_deref(), Some("use a node with the role api"));
        assert_eq!(error.request_id.as_deref(), Some("17"));
        let other = error_of(r#"{"error": {"message": "no audience `a`", "help": "list them"}}"#);
        assert_eq!(other.message.as_deref(), Some("no audience `a`"));
        assert_eq!(other.help.as_deref(), Some("list them"));
    }

    #[test]
    fn a_node_without_the_codes_may_be_of_another_version_or_lack_the_role() {
        for message in EARLIER_MESSAGES {
            for code in [r#""code": "not_found", "#, r#""code": "bad_request", "#, ""] {
                let body = format!(r#"{{"error": {{{code}"message": "{message}", "help": "h"}}}}"#);
                let error = error_of(&body);
                assert!(error.message.unwrap().ends_with("or lacks the role for it"), "{body}");
                assert!(error.help.unwrap().ends_with("version; the node says: h"), "{body}");
                assert_eq!(error.code.is_some(), !code.is_empty());
            }
            let body = format!(r#"{{"error": {{"code": "internal", "message": "{message}"}}}}"#);
            assert_eq!(error_of(&body).message.as_deref(), Some(message));
        }
    }

    #[test]
    fn a_body_of_a_proxy_has_no_fields() {
        for body in ["", "<html>502</html>", "null", "{}", "[1]"] {
            assert!(error_of(body).message.is_none(), "{body}");
            assert!(problems_of(body).is_empty(), "{body}");
        }
    }
}
