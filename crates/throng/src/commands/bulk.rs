//! Operations on all objects that match a filter: they are counted, confirmed, and then done in parts.

use std::process::ExitCode;

use anyhow::Result;
use throng_api::{BulkAnswer, BulkOperation, BulkReport, BulkRequest};

use crate::args::{ManyArgs, NodeArgs};
use crate::client::Client;
use crate::failure::{Failure, report_partial};
use crate::out::{self, Output};

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
            // What was done before it has to be known all the same.
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
    let incomplete = done.incomplete().map(|text| Failure::new(text).help(BulkReport::HELP).into());
    if output == Output::Text {
        out::line(&done.message);
    }
    let report = BulkReport::of(&done);
    match failed.or(incomplete) {
        Some(error) => return report_partial(&error, &report, output),
        None if output.is_json() => out::json(&report),
        None => {}
    }
    ExitCode::SUCCESS
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
    fn a_command_without_an_object_names_all_ways_to_give_one() {
        for (line, ways) in [
            ("throng sync run", &["NAME", "--destination", "--all"][..]),
            ("throng sync requeue", &["ID", "--all"]),
            ("throng sync approve", &["RUN", "--destination", "--removal", "--all"]),
            ("throng tasks requeue", &["ID", "--missing"]),
            ("throng audience reject", &["NAME", "--all"]),
            ("throng gate --node http://a --cache-dir b", &["--listen", "--socket"]),
        ] {
            let parsed = crate::args::Arguments::try_parse_from(line.split(' '));
            let error = parsed.unwrap_err().to_string();
            assert!(ways.iter().all(|way| error.contains(way)), "{line}: {error}");
        }
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
