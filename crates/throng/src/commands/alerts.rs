//! `throng alerts`: alerts and their deliveries.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use throng_api::{AlertDeliveryList, AlertList, AlertTest, AlertTestAnswers};
use throng_model::{Clock as _, SystemClock};

use super::lists;
use crate::args::{AlertsCommand, FilterArgs, NodeArgs};
use crate::client::Client;
use crate::failure::{Failure, Success};
use crate::out::{self, Output};

pub(crate) async fn run(command: AlertsCommand, output: Output) -> Result<ExitCode> {
    match command {
        AlertsCommand::List { limit, filter, offset, node } => {
            list(Some(filter), limit, offset, &node, output).await
        }
        AlertsCommand::Deliveries { limit, node } => deliveries(&node, limit, output).await,
        AlertsCommand::Test { receiver, node } => test(receiver, &node, output).await,
    }
}

/// Prints the alerts, open ones first unless the filter sets another order.
pub(crate) async fn list(
    filter: Option<FilterArgs>,
    limit: u32,
    offset: u32,
    node: &NodeArgs,
    output: Output,
) -> Result<ExitCode> {
    let answer = match filter {
        Some(filter) if offset == 0 => {
            lists::read(&lists::ALERTS, filter, Some(limit), node).await?
        }
        Some(filter) if filter.is_set() => {
            return Err(Failure::new(
                "--offset cannot be combined with --search, --state, --sort, --cursor, --workspace and \
                 --all",
            )
            .help("the cursor after a page continues the list")
            .into());
        }
        _ => {
            let path = format!("/v1/alerts?limit={limit}&offset={offset}");
            Client::new(node)?.get(&path).await?
        }
    };
    let Some(AlertList { alerts, open, total, receivers, next_cursor, .. }) =
        answer.for_people(output)?
    else {
        return Ok(ExitCode::SUCCESS);
    };
    let (shown, now) = (out::count(alerts.len() as u64), SystemClock.now());
    let rows = alerts.into_iter().map(|alert| {
        let state = if alert.resolved_at.is_none() { "open" } else { "resolved" };
        let delivery = alert.delivery_text(&receivers, now);
        vec![
            state.to_owned(),
            alert.severity.to_string(),
            alert.kind,
            alert.subject,
            alert.count.to_string(),
            alert.last_at.to_string(),
            delivery,
            alert.message,
        ]
    });
    let header = ["STATE", "SEVERITY", "KIND", "ABOUT", "TIMES", "LAST", "DELIVERY", "MESSAGE"];
    out::table(&header, rows.collect());
    out::line(format!("{shown} of {}, {} open", out::counted(total, "alert"), out::count(open)));
    lists::print_next(next_cursor.as_deref());
    Ok(ExitCode::SUCCESS)
}

async fn deliveries(node: &NodeArgs, limit: u32, output: Output) -> Result<ExitCode> {
    let path = format!("/v1/alerts/deliveries?limit={limit}");
    let answer = Client::new(node)?.get(&path).await?;
    let Some(AlertDeliveryList { deliveries }) = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let rows = deliveries.into_iter().map(|delivery| {
        vec![
            delivery.at.to_string(),
            delivery.receiver,
            delivery.alert.to_string(),
            delivery.event.to_string(),
            delivery.state.to_string(),
            delivery.tries.to_string(),
            delivery.http_status.map_or_else(String::new, |status| status.to_string()),
            delivery.why.unwrap_or_default(),
        ]
    });
    let header = ["AT", "RECEIVER", "ALERT", "EVENT", "STATE", "TRIES", "HTTP", "WHY"];
    out::table(&header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

/// What `throng alerts test` prints with `--json`.
#[derive(Serialize)]
struct TestReport<'a> {
    #[serde(flatten)]
    answer: &'a Value,
    #[serde(flatten)]
    success: Success,
}

/// Exits with 1 if a receiver did not accept the test.
async fn test(receiver: Option<String>, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let body = AlertTest { receiver };
    let answer = Client::new(node)?.post("/v1/alerts/test", &body).await?;
    let AlertTestAnswers { answers } = answer.read()?;
    let all_accepted = !answers.is_empty() && answers.iter().all(|one| one.accepted);
    if output.is_json() {
        let (error, help) =
            ("a receiver did not accept the test", "`answers` has the answer of each");
        let success = Success::new(all_accepted, error, help);
        out::json(&TestReport { answer: answer.document(), success });
    } else {
        for one in answers {
            let name = one.receiver;
            let answer = match one.status {
                Some(status) => format!("{name} answered {status} {}", one.answer),
                None => format!("{name} did not answer: {}", one.error.unwrap_or_default()),
            };
            out::line(answer.trim_end());
        }
    }
    Ok(if all_accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
