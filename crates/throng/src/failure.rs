//! Why a command failed: a text for people, one JSON object for programs, and the exit code.

use std::fmt;
use std::process::ExitCode;

use clap::error::ErrorKind;
use serde::Serialize;
use throng_lake::LakeError;
use throng_spec::{Problem, collapsed_problems};

use crate::answers::ErrorDetail;
use crate::out::{self, Output};

/// Exit code: it failed.
const FAILED: u8 = 1;
/// Exit code: the command line or the spec is wrong.
const WRONG_INPUT: u8 = 2;
/// Exit code: all records are in quarantine. `throng build` has 3.
const NONE_ACCEPTED: u8 = 4;

/// An error that says what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    help: Option<String>,
    /// The error code of the node, such as `not_found`.
    code: Option<String>,
    /// Identifies the request in the node's log.
    request_id: Option<String>,
    exit_code: u8,
}

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
            code: None,
            request_id: None,
            exit_code: FAILED,
        }
    }

    /// The command line or the spec is wrong: a retry cannot succeed.
    pub(crate) fn wrong_input(message: impl Into<String>) -> Self {
        Self { exit_code: WRONG_INPUT, ..Self::new(message) }
    }

    /// Records were sent, and all of them are in quarantine.
    pub(crate) fn none_accepted() -> Self {
        let failure = Self { exit_code: NONE_ACCEPTED, ..Self::new("no row was accepted") };
        failure.help("the report has the reasons; correct the rows, or the schema")
    }

    /// Adds a hint: what to do about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The error in a node's answer; `place` (status and path) is in the message if the node gives none.
    pub(crate) fn of_answer(error: ErrorDetail, place: &str) -> Self {
        let ErrorDetail { code, message, help, request_id } = error;
        let message = message.unwrap_or_else(|| format!("the node gave no reason ({place})"));
        Self { help, code, request_id, ..Self::new(message) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The hint of an error, if it has one.
fn help_of(error: &anyhow::Error) -> Option<String> {
    let own_help = error.downcast_ref::<Failure>().and_then(|failure| failure.help.clone());
    own_help.or_else(|| {
        error.chain().find_map(|cause| cause.downcast_ref::<LakeError>().and_then(LakeError::help))
    })
}

/// The object that a failed command prints with `--json`. `help` is null if there is none.
#[derive(Debug, PartialEq, Serialize)]
struct FailureObject {
    ok: bool,
    error: String,
    help: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

impl FailureObject {
    fn new(error: impl Into<String>, help: Option<String>) -> Self {
        Self {
            ok: false,
            error: error.into(),
            help,
            code: None,
            request_id: None,
            problems: Vec::new(),
        }
    }

    fn with_code(self, code: &str) -> Self {
        Self { code: Some(code.to_owned()), ..self }
    }
}

fn object(error: &anyhow::Error) -> FailureObject {
    let object = FailureObject::new(format!("{error:#}"), help_of(error));
    match error.downcast_ref::<Failure>() {
        Some(Failure { code, request_id, .. }) => {
            FailureObject { code: code.clone(), request_id: request_id.clone(), ..object }
        }
        None => object,
    }
}

/// Whether the result of a command is a success: fields of what it prints with `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct Success {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'static str>,
}

impl Success {
    /// `error` and `help` are those of a result that is not a success.
    pub(crate) fn new(ok: bool, error: &str, help: &'static str) -> Self {
        Self { ok, error: (!ok).then(|| error.to_owned()), help: (!ok).then_some(help) }
    }
}

/// Prints why a command failed to the standard error, where a service's log is kept; with `--json` also
/// as one object to the standard output.
pub(crate) fn report(error: &anyhow::Error, output: Output) -> ExitCode {
    if output.is_json() {
        out::json(&object(error));
    }
    report_text(error)
}

/// The object of a command that failed after a part of its work.
#[derive(Debug, Serialize)]
struct PartialObject<'a, T> {
    #[serde(flatten)]
    failure: FailureObject,
    #[serde(flatten)]
    done: &'a T,
}

/// As [`report`] of a command that has done a part of its work: with `--json` the object also has the fields of `done`.
pub(crate) fn report_partial<T: Serialize>(
    error: &anyhow::Error,
    done: &T,
    output: Output,
) -> ExitCode {
    if output.is_json() {
        out::json(&PartialObject { failure: object(error), done });
    }
    report_text(error)
}

/// Prints why a command failed for people, and returns its exit code.
fn report_text(error: &anyhow::Error) -> ExitCode {
    out::message(format!("error: {error:#}"));
    if let Some(help) = help_of(error) {
        out::message(format!("  help: {help}"));
    }
    let exit_code = error.downcast_ref::<Failure>().map_or(FAILED, |failure| failure.exit_code);
    ExitCode::from(exit_code)
}

/// Prints the problems of a spec, as [`report`] does. For people, many that are alike are one.
pub(crate) fn report_problems(problems: &[Problem], output: Output) -> ExitCode {
    let message = format!("{} in the spec", out::counted(problems.len() as u64, "problem"));
    if output.is_json() {
        let help = "`problems` has the place of each and what to do".to_owned();
        let object = FailureObject::new(message.as_str(), Some(help)).with_code("invalid_spec");
        out::json(&FailureObject { problems: problems.to_vec(), ..object });
    }
    for problem in collapsed_problems(problems) {
        out::message(problem);
    }
    out::message(message);
    ExitCode::from(WRONG_INPUT)
}

/// Whether a command line has `--json`; it may be one that cannot be parsed.
pub(crate) fn wants_json(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    arguments.skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

/// Prints what is wrong with the command line, or the help that it asks for.
pub(crate) fn report_command_line(error: &clap::Error, output: Output) -> ExitCode {
    let is_error = error.use_stderr();
    if output.is_json() && is_error {
        out::json(&command_line_object(error));
    }
    // A failed write to the standard error cannot be reported anywhere.
    let _ = error.print();
    if is_error { ExitCode::from(WRONG_INPUT) } else { ExitCode::SUCCESS }
}

fn command_line_object(error: &clap::Error) -> FailureObject {
    let text = error.render().to_string();
    let (message, help) = match error.kind() {
        // clap prints the usage alone: there is no message to split off.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            ("a command is missing", text.as_str())
        }
        _ => text.split_once("\n\n").unwrap_or((text.as_str(), "")),
    };
    let message = message.strip_prefix("error: ").unwrap_or(message).trim();
    let help = help.trim();
    let help = (!help.is_empty()).then(|| help.to_owned());
    FailureObject::new(message, help).with_code("command_line")
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use clap::Parser as _;

    use super::*;
    use crate::args::Arguments;

    #[test]
    fn an_error_keeps_its_help_under_more_context() {
        let failure = Failure::new("no audience `x`").help("`throng audience list` shows them");
        let error = Err::<(), _>(failure).context("cannot refresh").unwrap_err();
        let printed = serde_json::to_value(object(&error)).unwrap();
        let expected = serde_json::json!({
            "ok": false,
            "error": "cannot refresh: no audience `x`",
            "help": "`throng audience list` shows them",
        });
        assert_eq!(printed, expected);
        let bare = serde_json::to_value(object(&anyhow::anyhow!("it broke"))).unwrap();
        assert_eq!(bare, serde_json::json!({ "ok": false, "error": "it broke", "help": null }));
    }

    #[test]
    fn a_failure_after_a_part_of_the_work_has_both() {
        let error = anyhow::Error::new(Failure::new("no disk").help("free some"));
        let done = serde_json::json!({ "batches": [{ "rows": 2 }] });
        let printed = serde_json::to_value(PartialObject { failure: object(&error), done: &done });
        let expected = serde_json::json!({
            "ok": false, "error": "no disk", "help": "free some", "batches": [{ "rows": 2 }],
        });
        assert_eq!(printed.unwrap(), expected);
    }

    #[test]
    fn a_nodes_error_keeps_its_code_and_request() {
        let answer = ErrorDetail {
            code: Some("not_found".to_owned()),
            message: Some("no".to_owned()),
            help: None,
            request_id: Some("17".to_owned()),
        };
        let error = anyhow::Error::new(Failure::of_answer(answer, "HTTP 404 from /x"));
        let object = object(&error);
        assert_eq!(object.code.as_deref(), Some("not_found"));
        assert_eq!(object.request_id.as_deref(), Some("17"));
        let silent = Failure::of_answer(ErrorDetail::default(), "HTTP 502 from /x");
        assert_eq!(silent.to_string(), "the node gave no reason (HTTP 502 from /x)");
    }

    #[test]
    fn json_is_an_option_only_before_the_hyphens() {
        let line = |text: &str| {
            text.split(' ').map(std::ffi::OsString::from).collect::<Vec<_>>().into_iter()
        };
        assert!(wants_json(line("throng audience list --json")));
        assert!(!wants_json(line("throng lookup -- --json")));
        assert!(!wants_json(line("--json audience list")));
    }

    #[test]
    fn errors_of_the_command_line_are_split_into_error_and_help() {
        let error = Arguments::try_parse_from(["throng", "lookup", "--no-such"]).unwrap_err();
        let object = command_line_object(&error);
        let message = &object.error;
        assert!(message.contains("--no-such") && !message.contains('\n'), "{message}");
        assert!(object.help.as_deref().unwrap().contains("Usage"), "{object:?}");
        let nothing = Arguments::try_parse_from(["throng"]).unwrap_err();
        assert_eq!(command_line_object(&nothing).error, "a command is missing");
    }
}
