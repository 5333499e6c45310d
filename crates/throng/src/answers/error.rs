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

/// The error in a body; without any field if the body is not one of the API.
pub(crate) fn error_of(body: &str) -> ErrorDetail {
    serde_json::from_str::<ErrorBody>(body).unwrap_or_default().error
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
    fn a_body_of_a_proxy_has_no_fields() {
        for body in ["", "<html>502</html>", "null", "{}", "[1]"] {
            assert!(error_of(body).message.is_none(), "{body}");
            assert!(problems_of(body).is_empty(), "{body}");
        }
    }
}
