//! `throng audience`: list, show, refresh, cancel, pause, approve, roll back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use throng_model::{Clock as _, SystemClock, Timestamp};

use super::alerts::next_try;
use crate::args::{AudienceCommand, NodeArgs};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::out;

pub(crate) async fn run(command: AudienceCommand, json: bool) -> Result<ExitCode> {
    match command {
        AudienceCommand::List { node } => list(&node, json).await,
        AudienceCommand::Show { name, node } => show(&name, &node, json).await,
        AudienceCommand::Refresh { name, no_wait, node } => {
            refresh(&name, no_wait, &node, json).await
        }
        AudienceCommand::Cancel { name, node } => cancel(&name, &node, json).await,
        AudienceCommand::Pause { name, node } => {
            let done = format!("{name} is paused until `throng audience resume {name}`");
            act(&name, "pause", done, &node, json).await
        }
        AudienceCommand::Resume { name, node } => {
            act(&name, "resume", format!("{name} is resumed"), &node, json).await
        }
        AudienceCommand::Release { name, node } => {
            act(&name, "release", format!("{name} is no longer pinned"), &node, json).await
        }
        AudienceCommand::Approve { name, version, node } => {
            let version = match version {
                Some(version) => version,
                None => version_by_state(&name, &node, "held", 0).await?,
            };
            set_version(&name, "approve", version, &node, json).await
        }
        AudienceCommand::Rollback { name, version, node } => {
            let version = match version {
                Some(version) => version,
                None => before_current(&name, &node).await?,
            };
            set_version(&name, "rollback", version, &node, json).await
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "–".to_owned(), out::count)
}

/// The reason of a refresh's state, with the time of the next try if there is one.
fn reason(refresh: &Value, now: Timestamp) -> String {
    let why = refresh["reason"].as_str().unwrap_or_default();
    let waits = refresh["state"] == "scheduled" && refresh["failures"].as_u64() > Some(0);
    match waits {
        true => format!("{}; {why}", next_try(&refresh["not_before"], now)),
        false => why.to_owned(),
    }
}

async fn list(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/audiences").await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = answer["audiences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let now = SystemClock.now();
    let rows = rows
        .iter()
        .map(|a| {
            vec![
                text(&a["name"]),
                number(&a["current"]["members"]),
                state(a),
                text(&a["current"]["version"]),
                reason(&a["refresh"], now),
            ]
        })
        .collect();
    out::table(&["AUDIENCE", "MEMBERS", "STATE", "VERSION", "REASON"], rows);
    Ok(ExitCode::SUCCESS)
}

/// The state of the newest refresh, and whether the audience is paused or pinned.
fn state(audience: &Value) -> String {
    let mut state = text(&audience["refresh"]["state"]);
    for (field, word) in [("paused_at", ", paused"), ("pinned_at", ", pinned")] {
        if !audience[field].is_null() {
            state.push_str(word);
        }
    }
    state
}

async fn show(name: &str, node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get(&format!("/v1/audiences/{}", segment(name))).await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    out::line(format!("{name}: {} members", number(&answer["current"]["members"])));
    let rows = answer["snapshots"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = rows
        .iter()
        .map(|s| {
            let fields = ["members", "rows_read", "null_keys", "bytes"];
            let mut row = vec![text(&s["version"]), text(&s["state"])];
            row.extend(fields.iter().map(|f| number(&s[*f])));
            row
        })
        .collect();
    out::table(&["VERSION", "STATE", "MEMBERS", "ROWS READ", "NULL KEYS", "BYTES"], rows);
    Ok(ExitCode::SUCCESS)
}

async fn refresh(name: &str, no_wait: bool, node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let client = Client::new(node)?;
    let path = format!("/v1/audiences/{}", segment(name));
    let queued = client.post(&format!("{path}/refresh"), &json!({})).await?;
    let id =
        queued["refresh"].as_i64().context("the node's answer has no number of the refresh")?;
    if no_wait {
        if json {
            out::json(&queued);
        } else {
            out::line(format!("refresh {id} of {name} is queued"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let bar = out::bar(0, name);
    loop {
        let audience = client.get(&path).await?;
        let refresh = &audience["refresh"];
        if refresh["id"].as_i64() == Some(id) {
            bar.set_length(refresh["rows_expected"].as_u64().unwrap_or(0));
            bar.set_position(refresh["rows_read"].as_u64().unwrap_or(0));
            match refresh["state"].as_str() {
                Some("completed") => {
                    bar.finish_and_clear();
                    return print_current(name, &audience, json);
                }
                Some("held") => {
                    bar.finish_and_clear();
                    let reason = text(&refresh["reason"]);
                    return Err(Failure::new(format!("the new snapshot is held: {reason}"))
                        .help(format!("check it, then run `throng audience approve {name}`"))
                        .into());
                }
                Some("failed") => {
                    bar.finish_and_clear();
                    bail!("the refresh failed: {}", text(&refresh["reason"]));
                }
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn cancel(name: &str, node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let path = format!("/v1/audiences/{}/cancel", segment(name));
    let answer = Client::new(node)?.post(&path, &json!({})).await?;
    if json {
        out::json(&answer);
    } else {
        out::line(format!("refresh {} of {name} is cancelled", text(&answer["refresh"]["id"])));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_current(name: &str, audience: &Value, json: bool) -> Result<ExitCode> {
    if json {
        out::json(audience);
    } else {
        let current = &audience["current"];
        out::line(format!(
            "{name}: version {} with {} members",
            text(&current["version"]),
            number(&current["members"])
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(name: &str, node: &NodeArgs) -> Result<Value> {
    Client::new(node)?.get(&format!("/v1/audiences/{}", segment(name))).await
}

async fn version_by_state(name: &str, node: &NodeArgs, state: &str, below: u64) -> Result<u64> {
    let audience = fetch(name, node).await?;
    let rows = audience["snapshots"].as_array().map(Vec::as_slice).unwrap_or_default();
    rows.iter()
        .filter(|s| s["state"].as_str() == Some(state))
        .filter_map(|s| s["version"].as_u64())
        .filter(|version| below == 0 || *version < below)
        .max()
        .with_context(|| format!("audience {name} has no such {state} snapshot"))
}

async fn before_current(name: &str, node: &NodeArgs) -> Result<u64> {
    let audience = fetch(name, node).await?;
    let current = audience["current"]["version"]
        .as_u64()
        .with_context(|| format!("audience {name} has no snapshot yet"))?;
    version_by_state(name, node, "published", current).await
}

async fn act(
    name: &str,
    verb: &str,
    done: String,
    node: &NodeArgs,
    json: bool,
) -> Result<ExitCode> {
    let path = format!("/v1/audiences/{}/{verb}", segment(name));
    let answer = Client::new(node)?.post(&path, &json!({})).await?;
    if json {
        out::json(&answer);
    } else {
        out::line(done);
    }
    Ok(ExitCode::SUCCESS)
}

async fn set_version(
    name: &str,
    verb: &str,
    version: u64,
    node: &NodeArgs,
    json: bool,
) -> Result<ExitCode> {
    let path = format!("/v1/audiences/{}/{verb}", segment(name));
    let answer = Client::new(node)?.post(&path, &json!({ "version": version })).await?;
    if json {
        out::json(&answer);
    } else {
        let pinned = match verb {
            "rollback" => format!(", pinned until `throng audience release {name}`"),
            _ => String::new(),
        };
        out::line(format!("{name} now serves version {version}{pinned}"));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_refresh_shows_its_next_try() {
        let now: Timestamp = "2026-11-25T18:40:00Z".parse().unwrap();
        let not_before = now.plus(Duration::from_secs(60));
        let mut refresh = json!({
            "state": "scheduled", "failures": 1, "not_before": not_before, "reason": "disk full",
        });
        assert_eq!(reason(&refresh, now), "next try 2026-11-25T18:41:00Z; disk full");
        refresh["state"] = json!("failed");
        assert_eq!(reason(&refresh, now), "disk full");
        assert_eq!(reason(&Value::Null, now), "");
    }
}
