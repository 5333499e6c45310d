//! Commands that read from a node: `lookup`, `budget`, `decide`, `why`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use throng_model::Micros;

use crate::args::{NodeArgs, WhyKind};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::out;

/// Refuses options after `--`: the parser takes them for keys, which is hardly ever intended.
fn refuse_options(users: &[String]) -> Result<(), Failure> {
    let options = ["--url", "--dir", "--token-file", "--ca-file", "--json", "--log", "--log-json"];
    let is_option = |user: &&String| {
        let name = user.split_once('=').map_or(user.as_str(), |(name, _)| name);
        options.contains(&name)
    };
    match users.iter().find(is_option) {
        None => Ok(()),
        Some(user) => Err(Failure::wrong_input(format!("`{user}` comes after `--`"))
            .help(format!("put options before `--`; a key of this name is --key={user}"))),
    }
}

pub(crate) async fn lookup(
    mut users: Vec<String>,
    keys: Vec<String>,
    node: &NodeArgs,
    json: bool,
) -> Result<ExitCode> {
    refuse_options(&users)?;
    users.extend(keys);
    let answer = Client::new(node)?.post("/v1/lookups", &json!({ "keys": users })).await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let found = answer["users"].as_array().map(Vec::as_slice).unwrap_or_default();
    for user in found {
        let names = |field: &str| -> Vec<&str> {
            let list = user[field].as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).collect()
        };
        let (audiences, unknown) = (names("audiences"), names("unknown"));
        let mut shown = match audiences.is_empty() {
            true => "in no audience".to_owned(),
            false => audiences.join(" "),
        };
        if !unknown.is_empty() {
            // Their snapshots cannot be used. To print nothing would say that the user is not in them.
            shown.push_str(&format!("\tunknown: {}", unknown.join(" ")));
        }
        let key = out::printable(user["key"].as_str().unwrap_or_default());
        out::line(format!("{key}\t{shown}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// An amount of an ad group's state, with its currency.
fn amount(state: &Value, field: &str) -> String {
    let currency = state["currency"].as_str().unwrap_or_default();
    let amount = |micros| format!("{} {currency}", Micros(micros)).trim_end().to_owned();
    state[field].as_i64().map_or_else(String::new, amount)
}

pub(crate) async fn budget(
    ad_group: Option<&str>,
    node: &NodeArgs,
    json: bool,
) -> Result<ExitCode> {
    let client = Client::new(node)?;
    let answer = match ad_group {
        Some(name) => client.get(&format!("/v1/budgets/{}", segment(name))).await?,
        None => client.get("/v1/budgets").await?,
    };
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let one = [answer["state"].clone()];
    let states = answer["budgets"].as_array().map_or(one.as_slice(), Vec::as_slice);
    let rows = states
        .iter()
        .map(|s| {
            vec![
                s["name"].as_str().unwrap_or_default().to_owned(),
                if s["open"].as_bool() == Some(true) { "open" } else { "closed" }.to_owned(),
                amount(s, "budget_micros"),
                amount(s, "actual_micros"),
                amount(s, "in_flight_micros"),
                amount(s, "projected_micros"),
                s["reason"].as_str().unwrap_or_default().to_owned(),
            ]
        })
        .collect();
    let header = ["AD GROUP", "STATE", "BUDGET", "ACTUAL", "IN FLIGHT", "PROJECTED", "WHY"];
    out::table(&header, rows);
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn decide(
    user: &str,
    ad_groups: &[String],
    record_insertion: bool,
    node: &NodeArgs,
    json: bool,
) -> Result<ExitCode> {
    let body =
        json!({ "user": user, "ad_groups": ad_groups, "record_insertion": record_insertion });
    let answer = Client::new(node)?.post("/v1/decide", &body).await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    for allowed in list("allowed") {
        out::line(format!("allowed\t{}", allowed.as_str().unwrap_or_default()));
    }
    for refused in list("refused") {
        let text = |field: &str| refused[field].as_str().unwrap_or_default().to_owned();
        out::line(format!("refused\t{}\t{}", text("ad_group"), text("why")));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn why(
    kind: WhyKind,
    name: &str,
    node: &NodeArgs,
    json: bool,
) -> Result<ExitCode> {
    let path = format!("/v1/why/{}/{}", kind.as_str(), segment(name));
    let answer = Client::new(node)?.get(&path).await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let entries = answer["history"].as_array().map(Vec::as_slice).unwrap_or_default();
    if entries.is_empty() {
        out::line(format!("{} {name} has no history yet", kind.as_str()));
    }
    for entry in entries {
        let at = throng_model::Timestamp(entry["at"].as_i64().unwrap_or_default());
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let by = entry["actor"].as_str().map_or_else(String::new, |name| format!(" (by {name})"));
        out::line(format!("{at}  {}: {}{by}", text("what"), text("why")));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::refuse_options;

    #[test]
    fn options_after_the_hyphens_are_not_keys() {
        let keys = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(refuse_options(&keys(&["-7", "", "a b", "id=", "--", "-x", "--urls"])).is_ok());
        for option in ["--url", "--url=http://x", "--json"] {
            let refused = refuse_options(&keys(&["-7", option])).unwrap_err();
            assert!(refused.to_string().contains(option), "{refused}");
        }
    }
}
