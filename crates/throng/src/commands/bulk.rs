//! Operations on all objects that match a filter: they are counted, confirmed, and then done in parts.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use throng_api::{BulkAnswer, BulkOperation, BulkRefusal, BulkRequest};

use crate::args::{ManyArgs, NodeArgs};
use crate::client::Client;
use crate::failure::{Failure, report_partial};
use crate::out::{self, Output};

/// What `--json` prints. The digests of the parts are left out: each stands for the objects of one request.
#[derive(Serialize)]
struct BulkReport<'a> {
    matched: u64,
    totals: &'a BTreeMap<String, u64>,
    done: u64,
    refused: &'a [BulkRefusal],
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'a str>,
    message: &'a str,
}

impl<'a> BulkReport<'a> {
    fn of(done: &'a BulkAnswer) -> Self {
        let BulkAnswer { matched, totals, refused, warning, message, .. } = done;
        Self {
            matched: *matched,
            totals,
            done: done.done,
            refused,
            warning: warning.as_deref(),
            message,
        }
    }
}

/// Counts what matches, asks unless `--yes` is set, and carries the operation out on exactly that.
pub(super) async fn run(
    operation: BulkOperation,
    args: ManyArgs,
    node: &NodeArgs,
    output: Output,
) -> Result<ExitCode> {
    let ManyArgs { search, workspace, yes, .. } = args;
    let (client, path) = (Client::new(node)?, operation.path());
    let mut request = BulkRequest { search, workspace, ..BulkRequest::default() };
    let (mut all, mut parts) = (BulkAnswer::default(), Vec::new());
    loop {
        let mut part: BulkAnswer = client.post(&path, &request).await?.read()?;
        let next = part.next_cursor.take();
        if part.matched > 0 {
            parts.push(request.confirmed(&part));
        }
        all.add(part);
        request.cursor = next;
        if request.cursor.is_none() {
            break;
        }
    }
    if all.matched > 0 && !yes {
        let question = all.question(operation);
        confirmed(&question, out::ask(&question)?.as_deref())?;
    }
    let mut done = BulkAnswer::default();
    for part in &parts {
        let answer: Result<BulkAnswer> =
            client.post(&path, part).await.and_then(|answer| answer.read());
        match answer {
            Ok(answer) => done.add(answer),
            Err(error) if done.matched == 0 => return Err(error),
            // What the requests before it have done has to be known all the same.
            Err(error) => {
                done.matched = all.matched;
                return Ok(finish(operation, done, Some(error), output));
            }
        }
    }
    Ok(finish(operation, done, None, output))
}

/// Prints what was done, and returns the exit code. `failed`: why the rest was not tried.
fn finish(
    operation: BulkOperation,
    mut done: BulkAnswer,
    failed: Option<anyhow::Error>,
    output: Output,
) -> ExitCode {
    done.message = done.result(operation);
    let failed = failed.or_else(|| incomplete(&done).map(anyhow::Error::new));
    if output == Output::Text {
        out::line(&done.message);
    }
    match failed {
        Some(error) => report_partial(&error, &BulkReport::of(&done), output),
        None => {
            if output.is_json() {
                out::json(&BulkReport::of(&done));
            }
            ExitCode::SUCCESS
        }
    }
}

/// The failure of a command that has not changed all objects; `None` if it has.
fn incomplete(done: &BulkAnswer) -> Option<Failure> {
    let left = done.matched.saturating_sub(done.done);
    let text = format!("not done: {} of {}", out::count(left), out::count(done.matched));
    let help = "each is printed with the reason; what is done stays so if the command is run again";
    (left > 0).then(|| Failure::new(text).help(help))
}

/// Whether a person agrees to what a command does. `answer`: `None` if nobody can be asked.
pub(super) fn confirmed(what: &str, answer: Option<&str>) -> Result<()> {
    let failure = match answer.map(|answer| answer.trim().to_lowercase()).as_deref() {
        Some("y" | "yes") => return Ok(()),
        Some(_) => Failure::new("it is not confirmed: nothing was changed"),
        None => Failure::wrong_input(what).help("there is no terminal to ask: add --yes"),
    };
    Err(failure.into())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn all_takes_a_filter_and_no_object() {
        let parses = |line: &str| crate::args::Arguments::try_parse_from(line.split(' ')).is_ok();
        for line in [
            "throng sync requeue 7",
            "throng sync requeue --all --search meta --yes",
            "throng sync approve 7",
            "throng sync approve --all --workspace acme",
            "throng audience approve buyers --version 3",
            "throng audience reject --all",
            "throng sync tasks --summary --state failed --search meta",
        ] {
            assert!(parses(line), "{line}");
        }
        for line in [
            "throng sync requeue",
            "throng sync requeue 7 --all",
            "throng sync requeue 7 --search meta",
            "throng sync approve",
            "throng sync approve 7 --yes",
            "throng sync approve --all --destination meta",
            "throng audience approve",
            "throng audience approve buyers --all",
            "throng audience reject --all --version 3",
            "throng sync tasks --summary --sort id",
        ] {
            assert!(!parses(line), "{line}");
        }
    }

    #[test]
    fn a_command_that_has_not_changed_all_objects_fails() {
        let of = |matched: u64, done: u64| BulkAnswer { matched, done, ..BulkAnswer::default() };
        let failure = |answer: &BulkAnswer| incomplete(answer).map(|failure| failure.to_string());
        assert_eq!(failure(&of(0, 0)), None);
        assert_eq!(failure(&of(3, 3)), None);
        assert_eq!(failure(&of(3, 2)).unwrap(), "not done: 1 of 3");
        assert_eq!(failure(&of(1_200, 0)).unwrap(), "not done: 1,200 of 1,200");
    }

    #[test]
    fn the_report_has_the_objects_and_no_digest() {
        let refused = BulkRefusal { name: "task 7".to_owned(), error: "it is paused".to_owned() };
        let mut answer = BulkAnswer { matched: 2, done: 1, ..BulkAnswer::default() };
        answer.refused.push(refused);
        answer.message = answer.result(BulkOperation::RequeueTasks);
        let report = serde_json::to_value(BulkReport::of(&answer)).unwrap();
        let expected = serde_json::json!({
            "matched": 2, "totals": {}, "done": 1,
            "refused": [{ "name": "task 7", "error": "it is paused" }],
            "message": "1 of 2 are queued again\ntask 7: it is paused",
        });
        assert_eq!(report, expected);
    }

    #[test]
    fn only_yes_confirms() {
        let confirmed = |answer| confirmed("all is sent again", answer);
        for answer in ["y\n", "Yes\r\n", " YES "] {
            assert!(confirmed(Some(answer)).is_ok(), "{answer}");
        }
        for answer in ["", "\n", "n", "yy", "no"] {
            let refused = confirmed(Some(answer)).unwrap_err();
            assert_eq!(refused.to_string(), "it is not confirmed: nothing was changed");
        }
        assert_eq!(confirmed(None).unwrap_err().to_string(), "all is sent again");
    }
}
