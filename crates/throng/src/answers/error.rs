//! Errors of the API. Their bodies are read leniently: a proxy may have sent something else.

use serde::Deserialize;
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

/// What nodes of all versions answer to a request that they do not know.
const UNKNOWN_REQUEST: [&str; 3] = [
    "this path does not exist",
    "this path does not support this method",
    // `/v1/tasks/summary`, where only `/v1/tasks/{id}` is known.
    "a part of the path is not of its type",
];

/// How the hints of a node without the role, and of a gate, begin: they know the request, which is for another process.
const OTHER_PROCESS: [&str; 2] = ["this node has only the role", "a sidecar has"];

/// The error in a body; without any field if the body is not one of the API.
pub(crate) fn error_of(body: &str) -> ErrorDetail {
    let error = serde_json::from_str::<ErrorBody>(body).unwrap_or_default().error;
    let is_known = |text: &str| !UNKNOWN_REQUEST.contains(&text);
    let is_of_other = |help: &str| OTHER_PROCESS.iter().any(|begin| help.starts_with(begin));
    let has_hint = error.help.as_deref().is_some_and(is_of_other);
    if has_hint || error.message.as_deref().is_none_or(is_known) {
        return error;
    }
    let message =
        "the node does not know this request: it is of another version than this command line";
    let help = "upgrade the node, or use the command line of the node's version";
    ErrorDetail { message: Some(message.to_owned()), help: Some(help.to_owned()), ..error }
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
        for message in UNKNOWN_REQUEST {
            let body = format!(r#"{{"error": {{"code": "bad_request", "message": "{message}"}}}}"#);
            let error = error_of(&body);
            assert!(error.message.unwrap().contains("another version"), "{message}");
            assert!(error.help.unwrap().contains("upgrade the node"), "{message}");
            assert_eq!(error.code.as_deref(), Some("bad_request"));
        }
        for begin in OTHER_PROCESS {
            let message = UNKNOWN_REQUEST[0];
            let body = format!(r#"{{"error": {{"message": "{message}", "help": "{begin} x"}}}}"#);
            let error = error_of(&body);
            assert_eq!(error.message.as_deref(), Some(message));
            assert_eq!(error.help, Some(format!("{begin} x")));
        }
        let other = error_of(r#"{"error": {"message": "no audience `a`", "help": "list them"}}"#);
        assert_eq!(other.message.as_deref(), Some("no audience `a`"));
        assert_eq!(other.help.as_deref(), Some("list them"));
    }

    #[test]
    fn a_body_of_a_proxy_has_no_fields() {
        for body in ["", "<html>502</html>", "null", "{}", "[1]"] {
            assert!(error_of(body).message.is_none(), "{body}");
            assert!(problems_of(body).is_empty(), "{body}");
        }
    }
}
