//! `throng audience`: list, show, refresh, cancel, pause, approve, reject, roll back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use throng_api::{
    AudienceDetail, AudienceList, AudienceRefresh, AudienceRefreshState, AudienceSnapshot,
    AudienceSnapshotState, AudienceSummary, BulkOperation, RefreshCancelled, RefreshQueued,
    SnapshotVersion,
};
use throng_model::{Clock as _, RefreshId, SystemClock};

use super::{bulk, lists};
use crate::args::{AudienceCommand, HeldSnapshotArgs, ListArgs, NodeArgs, OneAudience};
use crate::client::{Answer, Client, segment};
use crate::failure::Failure;
use crate::out::{self, Output};

pub(crate) async fn run(command: AudienceCommand, output: Output) -> Result<ExitCode> {
    match command {
        AudienceCommand::List { list: args, node } => list(args, &node, output).await,
        AudienceCommand::Show(OneAudience { name, node }) => show(&name, &node, output).await,
        AudienceCommand::Refresh { name, force, no_wait, node } => {
            refresh(&name, force, no_wait, &node, output).await
        }
        AudienceCommand::Cancel(OneAudience { name, node }) => cancel(&name, &node, output).await,
        AudienceCommand::Pause(OneAudience { name, node }) => {
            let done = format!("{name} is paused until `throng audience resume {name}`");
            act(&name, "pause", done, &node, output).await
        }
        AudienceCommand::Resume(OneAudience { name, node }) => {
            act(&name, "resume", format!("{name} is resumed"), &node, output).await
        }
        AudienceCommand::Release(OneAudience { name, node }) => {
            act(&name, "release", format!("{name} is no longer pinned"), &node, output).await
        }
        AudienceCommand::Approve(HeldSnapshotArgs { name, version, many, node }) => match name {
            Some(name) => set_version(&name, "approve", version, &node, output).await,
            None => bulk::run(BulkOperation::ApproveSnapshots, many, &node, output).await,
        },
        AudienceCommand::Reject(HeldSnapshotArgs { name, version, many, node }) => match name {
            Some(name) => set_version(&name, "reject", version, &node, output).await,
            None => bulk::run(BulkOperation::RejectSnapshots, many, &node, output).await,
        },
        AudienceCommand::Rollback { name, version, node } => {
            set_version(&name, "rollback", version, &node, output).await
        }
    }
}

/// A text that may be absent.
fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

/// The members of the served snapshot.
fn members(audience: &AudienceSummary) -> String {
    or_dash(audience.current.as_ref().map(|current| out::count(current.members)))
}

/// The members of the served snapshot, with the noun.
fn members_text(audience: &AudienceSummary) -> String {
    or_dash(audience.current.as_ref().map(|current| out::counted(current.members, "member")))
}

/// The version of the served snapshot.
fn version(audience: &AudienceSummary) -> String {
    or_dash(audience.current.as_ref().map(|current| current.version.to_string()))
}

async fn list(args: ListArgs, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let answer = lists::read(&lists::AUDIENCES, args.filter, args.limit, node).await?;
    let Some(AudienceList { audiences, next_cursor, .. }) = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let now = SystemClock.now();
    let rows = audiences.iter().map(|audience| {
        let refresh = audience.refresh.as_ref();
        let reason = refresh.map_or_else(String::new, |newest| newest.refresh.reason_text(now));
        let (name, refreshed) = (audience.name.to_string(), audience.last_refresh(now));
        vec![name, members(audience), audience.state_text(), version(audience), refreshed, reason]
    });
    let header = ["AUDIENCE", "MEMBERS", "STATE", "VERSION", "LAST REFRESH", "REASON"];
    out::table(&header, rows.collect());
    lists::print_next(next_cursor.as_deref());
    Ok(ExitCode::SUCCESS)
}

async fn show(name: &str, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let answer = Client::new(node)?.get(&format!("/v1/audiences/{}", segment(name))).await?;
    let Some(AudienceDetail { audience, snapshots, .. }) = answer.for_people(output)? else {
        return Ok(ExitCode::SUCCESS);
    };
    out::line(format!("{name}: {}", members_text(&audience)));
    let rows = snapshots.into_iter().map(|snapshot| {
        let counts = [snapshot.members, snapshot.rows_read, snapshot.null_keys, snapshot.bytes];
        let mut row = vec![snapshot.version.to_string(), snapshot.state.to_string()];
        row.extend(counts.map(out::count));
        row
    });
    let header = ["VERSION", "STATE", "MEMBERS", "ROWS READ", "NULL KEYS", "BYTES"];
    out::table(&header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

async fn refresh(
    name: &str,
    force: bool,
    no_wait: bool,
    node: &NodeArgs,
    output: Output,
) -> Result<ExitCode> {
    let client = Client::new(node)?;
    let path = format!("/v1/audiences/{}", segment(name));
    let query = if force { "?force=true" } else { "" };
    let queued = client.post_empty(&format!("{path}/refresh{query}")).await?;
    let RefreshQueued { refresh: id } = queued.read()?;
    if no_wait {
        if output.is_json() {
            queued.print();
        } else {
            out::line(format!("refresh {id} of {name} is queued"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let bar = out::bar(0, name);
    loop {
        let answer = client.get(&path).await?;
        let AudienceDetail { audience, snapshots, .. } = answer.read()?;
        let newest = audience.refresh.as_ref().map(|newest| &newest.refresh);
        let ended = match newest {
            Some(newest) if newest.id > id => {
                ended_before(name, id, &snapshots).or_else(|| ended(name, newest))
            }
            Some(newest) if newest.id == id => {
                bar.set_length(newest.rows_expected.unwrap_or(0));
                bar.set_position(newest.rows_read);
                ended(name, newest)
            }
            _ => None,
        };
        if let Some(ended) = ended {
            bar.finish_and_clear();
            ended?;
            return print_current(&answer, &audience, output);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How a refresh has ended if another one of the audience was queued before this command has seen it: as its snapshot
/// says. `None` without one: it has failed, was cancelled or found nothing changed. The one that follows reads what it
/// would have read, so its end is the answer.
fn ended_before(name: &str, id: RefreshId, snapshots: &[AudienceSnapshot]) -> Option<Result<()>> {
    let snapshot = snapshots.iter().find(|snapshot| snapshot.refresh == id)?;
    if snapshot.state == AudienceSnapshotState::Published {
        return Some(Ok(()));
    }
    let error =
        Failure::new(format!("refresh {id} has ended, and another one of {name} follows it"))
            .help(format!("`throng why audience {name}` has how it has ended"));
    Some(Err(error.into()))
}

/// How a refresh has ended; `None` while it is open.
fn ended(name: &str, refresh: &AudienceRefresh) -> Option<Result<()>> {
    let reason = refresh.reason.as_deref().unwrap_or("–");
    match refresh.state {
        AudienceRefreshState::Completed => Some(Ok(())),
        AudienceRefreshState::Held => {
            let failure = Failure::new(format!("the new snapshot is held: {reason}"))
                .help(format!("check it, then run `throng audience approve {name}`, or `reject`"));
            Some(Err(failure.into()))
        }
        AudienceRefreshState::Failed => Some(Err(anyhow!("the refresh failed: {reason}"))),
        AudienceRefreshState::Scheduled
        | AudienceRefreshState::Processing
        | AudienceRefreshState::Halted => None,
    }
}

async fn cancel(name: &str, node: &NodeArgs, output: Output) -> Result<ExitCode> {
    let path = format!("/v1/audiences/{}/cancel", segment(name));
    let answer = Client::new(node)?.post_empty(&path).await?;
    if let Some(RefreshCancelled { refresh }) = answer.for_people(output)? {
        out::line(format!("refresh {} of {name} is cancelled", refresh.id));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_current(answer: &Answer, audience: &AudienceSummary, output: Output) -> Result<ExitCode> {
    if output.is_json() {
        answer.print();
    } else {
        let (version, members) = (version(audience), members_text(audience));
        let newest = audience.refresh.as_ref().map(|newest| &newest.refresh);
        let unchanged = match newest.is_some_and(|newest| newest.unchanged) {
            true => ", unchanged: neither the model nor its files have changed",
            false => "",
        };
        out::line(format!("{}: version {version} with {members}{unchanged}", audience.name));
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(name: &str, node: &NodeArgs) -> Result<AudienceDetail> {
    Client::new(node)?.get(&format!("/v1/audiences/{}", segment(name))).await?.read()
}

/// The newest version of an audience in a state; with `below`, the newest one before that.
fn newest(
    detail: &AudienceDetail,
    state: AudienceSnapshotState,
    below: Option<u64>,
) -> Result<u64> {
    let name = &detail.audience.name;
    let snapshots = detail.snapshots.iter().filter(|snapshot| snapshot.state == state);
    snapshots
        .map(|snapshot| snapshot.version)
        .filter(|version| below.is_none_or(|below| *version < below))
        .max()
        .with_context(|| match below {
            Some(below) => format!("audience {name} has no {state} version before {below}"),
            None => format!("audience {name} has no {state} version"),
        })
}

/// The newest held version.
async fn held_version(name: &str, node: &NodeArgs) -> Result<u64> {
    newest(&fetch(name, node).await?, AudienceSnapshotState::Held, None)
}

/// The published version before the current one.
async fn previous_version(name: &str, node: &NodeArgs) -> Result<u64> {
    let detail = fetch(name, node).await?;
    let current = detail.audience.current.as_ref();
    let current = current.with_context(|| format!("audience {name} has no snapshot yet"))?;
    newest(&detail, AudienceSnapshotState::Published, Some(current.version))
}

async fn act(
    name: &str,
    verb: &str,
    done: String,
    node: &NodeArgs,
    output: Output,
) -> Result<ExitCode> {
    let path = format!("/v1/audiences/{}/{verb}", segment(name));
    let answer = Client::new(node)?.post_empty(&path).await?;
    answer.print_or(done, output);
    Ok(ExitCode::SUCCESS)
}

/// Approves, rejects or rolls back to a version. Without one: the newest held one, or the one before the current.
async fn set_version(
    name: &str,
    verb: &str,
    version: Option<u64>,
    node: &NodeArgs,
    output: Output,
) -> Result<ExitCode> {
    let version = match (version, verb) {
        (Some(version), _) => version,
        (None, "rollback") => previous_version(name, node).await?,
        (None, _) => held_version(name, node).await?,
    };
    let path = format!("/v1/audiences/{}/{verb}", segment(name));
    let answer = Client::new(node)?.post(&path, &SnapshotVersion { version }).await?;
    answer.print_or(version_set(name, verb, version), output);
    Ok(ExitCode::SUCCESS)
}

/// What is printed after [`set_version`].
fn version_set(name: &str, verb: &str, version: u64) -> String {
    match verb {
        "reject" => format!("version {version} of {name} is rejected; what it serves stays"),
        "rollback" => format!(
            "{name} now serves version {version}, pinned until `throng audience release {name}`"
        ),
        _ => format!("{name} now serves version {version}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use throng_api::{AudienceRefreshProgress, AudienceRefreshTrigger};
    use throng_model::Timestamp;

    use super::*;

    fn refresh(state: AudienceRefreshState) -> AudienceRefresh {
        AudienceRefresh {
            id: RefreshId(1),
            audience: "a".parse().unwrap(),
            state,
            trigger: AudienceRefreshTrigger::Manual,
            scheduled_at: Timestamp(0),
            started_at: None,
            finished_at: None,
            not_before: Timestamp(0),
            failures: 0,
            crashes: 0,
            holder: None,
            lease_until: None,
            rows_read: 0,
            null_keys: 0,
            rows_expected: None,
            reason: None,
            snapshot_version: None,
            forced: false,
            unchanged: false,
        }
    }

    #[test]
    fn a_failed_refresh_shows_its_next_try() {
        let now: Timestamp = "2026-11-25T18:40:00Z".parse().unwrap();
        let mut failed = AudienceRefresh {
            failures: 1,
            not_before: now.plus(Duration::from_secs(60)),
            reason: Some("disk full".to_owned()),
            ..refresh(AudienceRefreshState::Scheduled)
        };
        assert_eq!(failed.reason_text(now), "next try 2026-11-25T18:41:00Z; disk full");
        failed.state = AudienceRefreshState::Failed;
        assert_eq!(failed.reason_text(now), "disk full");
        assert_eq!(refresh(AudienceRefreshState::Scheduled).reason_text(now), "");
    }

    fn snapshot((version, state): (u64, AudienceSnapshotState)) -> AudienceSnapshot {
        AudienceSnapshot {
            audience: "a".parse().unwrap(),
            version,
            state,
            path: format!("snapshots/a/{version}.tsnap"),
            members: 1,
            rows_read: 1,
            null_keys: 0,
            bytes: 1,
            checksum: None,
            tables: None,
            model_fingerprint: String::new(),
            refresh: RefreshId(1),
            created_at: Timestamp(0),
        }
    }

    #[test]
    fn a_refresh_that_another_one_follows_has_ended_as_its_snapshot_says() {
        use AudienceSnapshotState::{Held, Published};
        let of = |id, state| AudienceSnapshot { refresh: RefreshId(id), ..snapshot((7, state)) };
        let snapshots = [of(2, Published), of(1, Held)];
        assert!(ended_before("a", RefreshId(2), &snapshots).unwrap().is_ok());
        let error = ended_before("a", RefreshId(1), &snapshots).unwrap().unwrap_err().to_string();
        assert!(error.starts_with("refresh 1 has ended"), "{error}");
        assert!(ended_before("a", RefreshId(3), &snapshots).is_none(), "the next one is awaited");
    }

    #[test]
    fn the_state_names_the_refresh_that_waits() {
        let audience = |waiting: Option<i64>| -> AudienceSummary {
            let newest = AudienceRefreshProgress {
                refresh: refresh(AudienceRefreshState::Processing),
                eta_seconds: None,
            };
            let row =
                serde_json::json!({ "name": "a", "refresh": newest, "waiting_refresh": waiting });
            serde_json::from_value(row).unwrap()
        };
        assert_eq!(audience(None).state_text(), "processing");
        assert_eq!(audience(Some(2)).state_text(), "processing, refresh 2 waits");
    }

    #[test]
    fn the_state_of_a_refresh_that_a_person_has_ended_says_so() {
        let of = |reason: &str, snapshot_version: Option<u64>| {
            let reason = Some(reason.to_owned());
            let failed = refresh(AudienceRefreshState::Failed);
            let refresh = AudienceRefresh { reason, snapshot_version, ..failed };
            let newest = AudienceRefreshProgress { refresh, eta_seconds: None };
            let row = serde_json::json!({ "name": "a", "refresh": newest });
            let audience: AudienceSummary = serde_json::from_value(row).unwrap();
            audience.state_text()
        };
        assert_eq!(of("disk full", None), "failed");
        assert_eq!(of("cancelled by ann", None), "cancelled");
        assert_eq!(of("rejected by ann; held: 80% fewer", Some(2)), "rejected");
    }

    #[test]
    fn a_rollback_goes_to_the_version_before_the_current_one() {
        use AudienceSnapshotState::{Held, Published, Rejected};
        let snapshots = [(4, Held), (3, Published), (2, Rejected), (1, Published)];
        let audience = AudienceSummary {
            name: "a".parse().unwrap(),
            current: None,
            refresh: None,
            waiting_refresh: None,
            refreshed_at: None,
            last_fired: None,
            paused_at: None,
            pinned_at: None,
        };
        let snapshots = snapshots.map(snapshot).to_vec();
        let detail = AudienceDetail { audience, snapshots, sizes: Vec::new() };
        assert_eq!(newest(&detail, Held, None).unwrap(), 4);
        assert_eq!(newest(&detail, Published, Some(3)).unwrap(), 1);
        let none = newest(&detail, Published, Some(1)).unwrap_err();
        assert_eq!(none.to_string(), "audience a has no published version before 1");
    }

    #[test]
    fn a_rejected_version_is_not_said_to_be_served() {
        let rejected = version_set("a", "reject", 7);
        assert_eq!(rejected, "version 7 of a is rejected; what it serves stays");
        assert_eq!(version_set("a", "approve", 7), "a now serves version 7");
        let pinned = "a now serves version 7, pinned until `throng audience release a`";
        assert_eq!(version_set("a", "rollback", 7), pinned);
        let line = ["throng", "audience", "reject", "a", "--version", "7"];
        let command = crate::args::Arguments::try_parse_from(line).unwrap().command;
        let crate::args::Command::Audience(AudienceCommand::Reject(rejected)) = command else {
            panic!("another command")
        };
        assert_eq!((rejected.name.as_deref(), rejected.version), (Some("a"), Some(7)));
    }

    #[test]
    fn a_refresh_ends_with_its_outcome() {
        use AudienceRefreshState::{Completed, Failed, Halted, Held, Processing, Scheduled};
        for open in [Scheduled, Processing, Halted] {
            assert!(ended("a", &refresh(open)).is_none(), "{open}");
        }
        assert!(ended("a", &refresh(Completed)).unwrap().is_ok());
        for state in [Held, Failed] {
            assert!(ended("a", &refresh(state)).unwrap().is_err(), "{state}");
        }
    }
}
