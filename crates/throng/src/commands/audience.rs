//! `throng audience`: list, show, refresh, cancel, pause, approve, roll back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use throng_model::{Clock as _, SystemClock, Timestamp};

use super::alerts::next_try;
use crate::answers::{Audience, AudienceList, CancelledRefresh, QueuedRefresh, Refresh};
use crate::args::{AudienceCommand, NodeArgs};
use crate::client::{Answer, Client, segment};
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
                None => held_version(&name, &node).await?,
            };
            set_version(&name, "approve", version, &node, json).await
        }
        AudienceCommand::Rollback { name, version, node } => {
            let version = match version {
                Some(version) => version,
                None => previous_version(&name, &node).await?,
            };
            set_version(&name, "rollback", version, &node, json).await
        }
    }
}

/// The body of `approve` and `rollback`.
#[derive(Serialize)]
struct VersionRequest {
    version: u64,
}

/// A text that may be absent.
fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

/// The members of the served snapshot.
fn members(audience: &Audience) -> String {
    or_dash(audience.current.as_ref().map(|current| out::count(current.members)))
}

/// The version of the served snapshot.
fn version(audience: &Audience) -> String {
    or_dash(audience.current.as_ref().map(|current| current.version.to_string()))
}

/// The reason of a refresh's state, with the time of the next try if there is one.
fn reason(refresh: &Refresh, now: Timestamp) -> String {
    let why = refresh.reason.clone().unwrap_or_default();
    match refresh.state == "scheduled" && refresh.failures > 0 {
        true => format!("{}; {why}", next_try(refresh.not_before, now)),
        false => why,
    }
}

async fn list(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/audiences").await?;
    if json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let AudienceList { audiences } = answer.read()?;
    let now = SystemClock.now();
    let rows = audiences.iter().map(|audience| {
        let reason = audience.refresh.as_ref().map_or_else(String::new, |r| reason(r, now));
        vec![audience.name.clone(), members(audience), state(audience), version(audience), reason]
    });
    out::table(&["AUDIENCE", "MEMBERS", "STATE", "VERSION", "REASON"], rows.collect());
    Ok(ExitCode::SUCCESS)
}

/// The state of the newest refresh, and whether the audience is paused or pinned.
fn state(audience: &Audience) -> String {
    let mut state = or_dash(audience.refresh.as_ref().map(|refresh| refresh.state.clone()));
    for (since, word) in [(audience.paused_at, ", paused"), (audience.pinned_at, ", pinned")] {
        if since.is_some() {
            state.push_str(word);
        }
    }
    state
}

async fn show(name: &str, node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get(&format!("/v1/audiences/{}", segment(name))).await?;
    if json {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let audience: Audience = answer.read()?;
    out::line(format!("{name}: {} members", members(&audience)));
    let rows = audience.snapshots.into_iter().map(|snapshot| {
        let counts = [snapshot.members, snapshot.rows_read, snapshot.null_keys, snapshot.bytes];
        let mut row = vec![snapshot.version.to_string(), snapshot.state];
        row.extend(counts.map(out::count));
        row
    });
    let header = ["VERSION", "STATE", "MEMBERS", "ROWS READ", "NULL KEYS", "BYTES"];
    out::table(&header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

async fn refresh(name: &str, no_wait: bool, node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let client = Client::new(node)?;
    let path = format!("/v1/audiences/{}", segment(name));
    let queued = client.post_empty(&format!("{path}/refresh")).await?;
    let QueuedRefresh { refresh: id } = queued.read()?;
    if no_wait {
        if json {
            queued.print();
        } else {
            out::line(format!("refresh {id} of {name} is queued"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let bar = out::bar(0, name);
    loop {
        let answer = client.get(&path).await?;
        let audience: Audience = answer.read()?;
        if let Some(refresh) = audience.refresh.as_ref().filter(|refresh| refresh.id == id) {
            bar.set_length(refresh.rows_expected.unwrap_or(0));
            bar.set_position(refresh.rows_read);
            if let Some(ended) = ended(name, refresh) {
                bar.finish_and_clear();
                ended?;
                return print_current(&answer, &audience, json);
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How a refresh has ended; `None` while it is open.
fn ended(name: &str, refresh: &Refresh) -> Option<Result<()>> {
    let reason = refresh.reason.as_deref().unwrap_or("–");
    match refresh.state.as_str() {
        "completed" => Some(Ok(())),
        "held" => {
            let failure = Failure::new(format!("the new snapshot is held: {reason}"))
                .help(format!("check it, then run `throng audience approve {name}`"));
            Some(Err(failure.into()))
        }
        "failed" => Some(Err(anyhow!("the refresh failed: {reason}"))),
        _ => None,
    }
}

async fn cancel(name: &str, node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let path = format!("/v1/audiences/{}/cancel", segment(name));
    let answer = Client::new(node)?.post_empty(&path).await?;
    if json {
        answer.print();
    } else {
        let CancelledRefresh { refresh } = answer.read()?;
        out::line(format!("refresh {} of {name} is cancelled", refresh.id));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_current(answer: &Answer, audience: &Audience, json: bool) -> Result<ExitCode> {
    if json {
        answer.print();
    } else {
        let (version, members) = (version(audience), members(audience));
        out::line(format!("{}: version {version} with {members} members", audience.name));
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(name: &str, node: &NodeArgs) -> Result<Audience> {
    Client::new(node)?.get(&format!("/v1/audiences/{}", segment(name))).await?.read()
}

/// The newest version of an audience in a state; with `below`, the newest one before that.
fn newest(audience: &Audience, state: &str, below: Option<u64>) -> Result<u64> {
    let snapshots = audience.snapshots.iter().filter(|snapshot| snapshot.state == state);
    snapshots
        .map(|snapshot| snapshot.version)
        .filter(|version| below.is_none_or(|below| *version < below))
        .max()
        .with_context(|| format!("audience {} has no such {state} snapshot", audience.name))
}

/// The newest held version.
async fn held_version(name: &str, node: &NodeArgs) -> Result<u64> {
    newest(&fetch(name, node).await?, "held", None)
}

/// The published version before the current one.
async fn previous_version(name: &str, node: &NodeArgs) -> Result<u64> {
    let audience = fetch(name, node).await?;
    let current = audience.current.as_ref();
    let current = current.with_context(|| format!("audience {name} has no snapshot yet"))?;
    newest(&audience, "published", Some(current.version))
}

async fn act(
    name: &str,
    verb: &str,
    done: String,
    node: &NodeArgs,
    json: bool,
) -> Result<ExitCode> {
    let path = format!("/v1/audiences/{}/{verb}", segment(name));
    let answer = Client::new(node)?.post_empty(&path).await?;
    if json {
        answer.print();
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
    let answer = Client::new(node)?.post(&path, &VersionRequest { version }).await?;
    if json {
        answer.print();
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
        let mut refresh = Refresh {
            state: "scheduled".to_owned(),
            failures: 1,
            not_before: Some(now.plus(Duration::from_secs(60))),
            reason: Some("disk full".to_owned()),
            ..Refresh::default()
        };
        assert_eq!(reason(&refresh, now), "next try 2026-11-25T18:41:00Z; disk full");
        refresh.state = "failed".to_owned();
        assert_eq!(reason(&refresh, now), "disk full");
        assert_eq!(reason(&Refresh::default(), now), "");
    }

    #[test]
    fn a_rollback_goes_to_the_version_before_the_current_one() {
        let snapshots = r#"[
            {"version": 4, "state": "held", "members": 1},
            {"version": 3, "state": "published", "members": 1},
            {"version": 2, "state": "rejected", "members": 1},
            {"version": 1, "state": "published", "members": 1}
        ]"#;
        let audience: Audience =
            serde_json::from_str(&format!(r#"{{"name": "a", "snapshots": {snapshots}}}"#)).unwrap();
        assert_eq!(newest(&audience, "held", None).unwrap(), 4);
        assert_eq!(newest(&audience, "published", Some(3)).unwrap(), 1);
        assert!(newest(&audience, "published", Some(1)).is_err());
    }

    #[test]
    fn a_refresh_ends_with_its_outcome() {
        let refresh = |state: &str| Refresh { state: state.to_owned(), ..Refresh::default() };
        assert!(ended("a", &refresh("processing")).is_none());
        assert!(ended("a", &refresh("completed")).unwrap().is_ok());
        for state in ["held", "failed"] {
            assert!(ended("a", &refresh(state)).unwrap().is_err(), "{state}");
        }
    }
}
