//! `throng token`, `throng session`, `throng sign-in`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use throng_model::Timestamp;

use crate::args::{NodeArgs, SessionCommand, TokenCommand};
use crate::client::{Client, segment};
use crate::out;

/// `90d`, `12h`, `30m`, `45s` or `2w`, in seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let help =
        || format!("`{text}` is not a duration: write a number with s, m, h, d or w, as 90d");
    let unit = text.chars().next_back().ok_or_else(help)?;
    let number = text.strip_suffix(unit).unwrap_or_default();
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(help()),
    };
    let number: u64 = number.parse().map_err(|_| help())?;
    number.checked_mul(factor).filter(|secs| *secs > 0).ok_or_else(help)
}

fn time(value: &Value) -> String {
    value.as_i64().map_or_else(|| "never".to_owned(), |at| Timestamp(at).to_string())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) async fn token(command: TokenCommand, json: bool) -> Result<ExitCode> {
    match command {
        TokenCommand::Create { name, scopes, expires, workspace, node } => {
            let names: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
            let body = json!({
                "name": name,
                "scopes": names,
                "expires_in_secs": expires,
                "workspace": workspace,
            });
            let answer = Client::new(&node)?.post("/v1/tokens", &body).await?;
            if json {
                out::json(&answer);
            } else {
                out::line(text(&answer["token"]));
                out::message("the token is not shown again");
            }
        }
        TokenCommand::List { node } => {
            let answer = Client::new(&node)?.get("/v1/tokens").await?;
            if json {
                out::json(&answer);
            } else {
                list_tokens(&answer);
            }
        }
        TokenCommand::Revoke { name, node } => {
            let path = format!("/v1/tokens/{}/revoke", segment(&name));
            let answer = Client::new(&node)?.post(&path, &json!({})).await?;
            if json {
                out::json(&answer);
            } else {
                out::line(format!("{name} is revoked"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list_tokens(answer: &Value) {
    let tokens = answer["tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = tokens
        .iter()
        .map(|token| {
            let state = match (token["valid"].as_bool(), token["revoked_at"].is_null()) {
                (Some(true), _) => "valid",
                (_, false) => "revoked",
                _ => "expired",
            };
            let scopes: Vec<&str> = token["scopes"]
                .as_array()
                .map(|list| list.iter().filter_map(Value::as_str).collect())
                .unwrap_or_default();
            vec![
                text(&token["name"]),
                state.to_owned(),
                scopes.join(","),
                time(&token["created_at"]),
                text(&token["created_by"]),
                time(&token["expires_at"]),
                time(&token["last_used_at"]),
            ]
        })
        .collect();
    out::table(&["NAME", "STATE", "SCOPES", "CREATED", "BY", "EXPIRES", "LAST USED"], rows);
}

pub(crate) async fn session(command: SessionCommand, json: bool) -> Result<ExitCode> {
    match command {
        SessionCommand::List { node } => {
            let answer = Client::new(&node)?.get("/v1/sessions").await?;
            if json {
                out::json(&answer);
                return Ok(ExitCode::SUCCESS);
            }
            let sessions = answer["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let rows = sessions
                .iter()
                .map(|session| {
                    vec![
                        session["id"].to_string(),
                        text(&session["token"]),
                        time(&session["created_at"]),
                        time(&session["last_seen_at"]),
                        time(&session["expires_at"]),
                    ]
                })
                .collect();
            out::table(&["SESSION", "TOKEN", "CREATED", "LAST USED", "EXPIRES"], rows);
        }
        SessionCommand::End { id, node } => {
            let path = format!("/v1/sessions/{id}/end");
            let answer = Client::new(&node)?.post(&path, &json!({})).await?;
            if json {
                out::json(&answer);
            } else {
                out::line(format!("session {id} has ended"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn sign_in(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let client = Client::new(node)?;
    let mut answer = client.post("/v1/sign-in-links", &json!({})).await?;
    // With --url the link has that address, which may be a name that the node does not know of itself.
    if node.url.is_some() {
        let path = answer["path"].as_str().context("the node's answer has no link")?;
        answer["url"] = json!(format!("{}{path}", client.url()));
    }
    if json {
        out::json(&answer);
    } else {
        out::line(text(&answer["url"]));
        out::message("open it in a browser; it works once, within ten minutes");
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_have_a_unit() {
        for (text, secs) in [("45s", 45), ("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000)] {
            assert_eq!(super::seconds(text), Ok(secs));
        }
        for wrong in ["", "d", "0d", "1.5d", "90", "-1d", "90 d", "99999999999999999w"] {
            assert!(super::seconds(wrong).is_err(), "{wrong}");
        }
    }
}
