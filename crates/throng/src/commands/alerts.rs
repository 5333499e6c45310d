//! `throng alerts`: alerts and their deliveries.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use throng_model::{Clock as _, SystemClock, Timestamp};

use crate::args::{AlertsCommand, NodeArgs};
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

/// A time of an answer, in UTC.
fn time(value: &Value) -> String {
    value.as_i64().map_or_else(String::new, |at| Timestamp(at).to_string())
}

/// When something is tried again. A time in the past means that the next try is due.
pub(super) fn next_try(at: &Value, now: Timestamp) -> String {
    match at.as_i64().map(Timestamp).filter(|at| *at > now) {
        Some(at) => format!("next try {at}"),
        None => "next try at once".to_owned(),
    }
}

fn rows<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Prints the alerts, open ones first.
pub(crate) async fn list(node: &NodeArgs, limit: u32, offset: u32, json: bool) -> Result<ExitCode> {
    let path = format!("/v1/alerts?limit={limit}&offset={offset}");
    let answer = Client::new(node)?.get(&path).await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let alerts = rows(&answer, "alerts");
    let now = SystemClock.now();
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
                time(&alert["last_at"]),
                delivery(alert, rows(&answer, "receivers"), now),
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

/// The delivery of the newest event of an alert, for each receiver.
fn delivery(alert: &Value, receivers: &[Value], now: Timestamp) -> String {
    let ended = rows(alert, "deliveries");
    let describe = |receiver: &Value| {
        let name = text(&receiver["name"]);
        match ended.iter().rfind(|delivery| delivery["receiver"] == receiver["name"]) {
            Some(delivery) if delivery["state"] == "delivered" => {
                format!("{name}: {} delivered", text(&delivery["event"]))
            }
            Some(delivery) => {
                format!("{name}: {}, {}", text(&delivery["state"]), text(&delivery["why"]))
            }
            None if receiver["failures"].as_u64().unwrap_or(0) > 0 => {
                let why = text(&receiver["last_error"]);
                format!("{name}: waiting, {why}, {}", next_try(&receiver["next_try_at"], now))
            }
            None if receiver["pending"].as_u64().unwrap_or(0) > 0 => format!("{name}: waiting"),
            None => format!("{name}: not sent"),
        }
    };
    match receivers {
        [] => "no receiver".to_owned(),
        all => all.iter().map(describe).collect::<Vec<_>>().join("; "),
    }
}

async fn deliveries(node: &NodeArgs, limit: u32, json: bool) -> Result<ExitCode> {
    let path = format!("/v1/alerts/deliveries?limit={limit}");
    let answer = Client::new(node)?.get(&path).await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let fields = ["receiver", "alert", "event", "state", "tries", "http_status", "why"];
    let table = rows(&answer, "deliveries")
        .iter()
        .map(|delivery| {
            let others = fields.iter().map(|field| text(&delivery[*field]));
            std::iter::once(time(&delivery["at"])).chain(others).collect()
        })
        .collect();
    out::table(&["AT", "RECEIVER", "ALERT", "EVENT", "STATE", "TRIES", "HTTP", "WHY"], table);
    Ok(ExitCode::SUCCESS)
}

/// Exits with 1 if a receiver did not accept the test.
async fn test(receiver: Option<String>, node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let body = json!({ "receiver": receiver });
    let answer = Client::new(node)?.post("/v1/alerts/test", &body).await?;
    let answers = rows(&answer, "answers");
    let all_accepted = !answers.is_empty() && answers.iter().all(|one| one["accepted"] == true);
    if json {
        let mut shown = answer.clone();
        shown["ok"] = json!(all_accepted);
        if !all_accepted {
            shown["error"] = json!("a receiver did not accept the test");
            shown["help"] = json!("`answers` has the answer of each");
        }
        out::json(&shown);
    } else {
        for one in answers {
            let name = text(&one["receiver"]);
            let answer = match one["status"].as_u64() {
                Some(status) => format!("{name} answered {status} {}", text(&one["answer"])),
                None => format!("{name} did not answer: {}", text(&one["error"])),
            };
            out::line(answer.trim_end());
        }
    }
    Ok(if all_accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_try_lies_in_the_future_and_has_a_zone() {
        let now: Timestamp = "2026-11-25T18:40:00Z".parse().unwrap();
        let later = now.plus(std::time::Duration::from_secs(5));
        assert_eq!(next_try(&json!(later), now), "next try 2026-11-25T18:40:05Z");
        for due in [json!(now), json!(now.0 - 1), Value::Null] {
            assert_eq!(next_try(&due, now), "next try at once", "{due}");
        }
    }

    #[test]
    fn times_are_not_numbers() {
        assert_eq!(time(&json!(0)), "1970-01-01T00:00:00Z");
        assert_eq!(time(&Value::Null), "");
    }
}
