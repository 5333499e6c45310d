//! `throng alerts`: what needs a person, and whether it reached one.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use crate::args::{AlertsCommand, NodeAt};
use crate::client::Client;
use crate::out;

pub(crate) async fn run(command: AlertsCommand, json: bool) -> Result<ExitCode> {
    match command {
        AlertsCommand::List { limit, offset, node } => list(&node, limit, offset, json).await,
        AlertsCommand::Deliveries { limit, node } => deliveries(&node, limit, json).await,
        AlertsCommand::Test { receiver, node } => test(receiver, &node, json).await,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn rows<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Prints the alerts, open ones first.
pub(crate) async fn list(node: &NodeAt, limit: u32, offset: u32, json: bool) -> Result<ExitCode> {
    let path = format!("/v1/alerts?limit={limit}&offset={offset}");
    let answer = Client::new(node)?.get(&path).await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let alerts = rows(&answer, "alerts");
    let table = alerts
        .iter()
        .map(|alert| {
            let state = if alert["resolved_at"].is_null() { "open" } else { "resolved" };
            vec![
                state.to_owned(),
                text(&alert["severity"]),
                text(&alert["kind"]),
                text(&alert["subject"]),
                text(&alert["count"]),
                text(&alert["last_at"]),
                delivery(alert, rows(&answer, "receivers")),
                text(&alert["message"]),
            ]
        })
        .collect();
    let header = ["STATE", "SEVERITY", "KIND", "ABOUT", "TIMES", "LAST", "DELIVERY", "MESSAGE"];
    out::table(&header, table);
    let (open, total) = (text(&answer["open"]), text(&answer["total"]));
    out::line(format!("{} of {total} alerts, {open} open", alerts.len()));
    Ok(ExitCode::SUCCESS)
}

/// For each receiver what became of the newest event of an alert.
fn delivery(alert: &Value, receivers: &[Value]) -> String {
    let ended = rows(alert, "deliveries");
    let of = |receiver: &Value| {
        let name = text(&receiver["name"]);
        match ended.iter().rfind(|delivery| delivery["receiver"] == receiver["name"]) {
            Some(delivery) if delivery["state"] == "delivered" => {
                format!("{name}: {} delivered", text(&delivery["event"]))
            }
            Some(delivery) => {
                format!("{name}: {}, {}", text(&delivery["state"]), text(&delivery["why"]))
            }
            None if receiver["failures"].as_u64().unwrap_or(0) > 0 => {
                let (why, at) = (text(&receiver["last_error"]), text(&receiver["next_try_at"]));
                format!("{name}: waiting, {why}, next try {at}")
            }
            None if receiver["pending"].as_u64().unwrap_or(0) > 0 => format!("{name}: waiting"),
            None => format!("{name}: not sent"),
        }
    };
    match receivers {
        [] => "no receiver".to_owned(),
        all => all.iter().map(of).collect::<Vec<_>>().join("; "),
    }
}

async fn deliveries(node: &NodeAt, limit: u32, json: bool) -> Result<ExitCode> {
    let path = format!("/v1/alerts/deliveries?limit={limit}");
    let answer = Client::new(node)?.get(&path).await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let fields = ["at", "receiver", "alert", "event", "state", "tries", "http_status", "why"];
    let table = rows(&answer, "deliveries")
        .iter()
        .map(|delivery| fields.iter().map(|field| text(&delivery[*field])).collect())
        .collect();
    out::table(&["AT", "RECEIVER", "ALERT", "EVENT", "STATE", "TRIES", "HTTP", "WHY"], table);
    Ok(ExitCode::SUCCESS)
}

/// Exits with 1 if a receiver did not accept the test.
async fn test(receiver: Option<String>, node: &NodeAt, json: bool) -> Result<ExitCode> {
    let body = json!({ "receiver": receiver });
    let answer = Client::new(node)?.post("/v1/alerts/test", &body).await?;
    let answers = rows(&answer, "answers");
    if json {
        out::json(&answer);
    } else {
        for one in answers {
            let name = text(&one["receiver"]);
            let said = match one["status"].as_u64() {
                Some(status) => format!("{name} answered {status} {}", text(&one["answer"])),
                None => format!("{name} did not answer: {}", text(&one["error"])),
            };
            out::line(said.trim_end());
        }
    }
    let all_accepted = !answers.is_empty() && answers.iter().all(|one| one["accepted"] == true);
    Ok(if all_accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
