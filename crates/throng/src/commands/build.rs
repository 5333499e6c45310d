//! `throng build`: builds audiences and exits, with an exit code for jobs.
//!
//! 0 all are built · 1 a failure that a retry may fix · 2 the command line or the spec is wrong ·
//! 3 a failure that needs a person, or a held snapshot · 75 stopped by a signal

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use throng_model::{AudienceName, SystemClock};
use throng_refresh::{RefreshOutcome, refresh_audiences};
use throng_server::{Node, NodeConfig, WorkerCommand};
use throng_spec::Spec;
use throng_store::RefreshState;
use tokio_util::sync::CancellationToken;

use super::up::ShutdownSignal;
use crate::args::BuildArgs;
use crate::failure::{Failure, Success, report_problems};
use crate::out::{self, Output};

/// `EX_TEMPFAIL`: stopped by a signal; the next run continues.
const STOPPED: u8 = 75;
/// A retry cannot succeed.
const NEEDS_A_PERSON: u8 = 3;

pub(crate) async fn run(arguments: BuildArgs, output: Output) -> Result<ExitCode> {
    let spec = match throng_spec::load(&arguments.spec) {
        Ok(spec) => spec,
        Err(problems) => return Ok(report_problems(&problems, output)),
    };
    let (index, completions) = (arguments.index, arguments.completions);
    if index >= completions {
        return Err(Failure::wrong_input(format!("there is no share {index} of {completions}"))
            .help("set JOB_COMPLETIONS to the job's completions")
            .into());
    }
    let mut signal = ShutdownSignal::listen()?;
    let starting = Node::start(NodeConfig {
        accept_log_loss: Vec::new(),
        data_dir: arguments.dir.clone(),
        spec,
        join: arguments.join,
        // Without roles: a job only builds its share. It does not schedule, upload or aggregate.
        roles: Some(Vec::new()),
        listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
        clock: Arc::new(SystemClock),
        access_clock: Arc::new(SystemClock),
        recovery: throng_server::Recovery::default(),
        env: Arc::new(|name: &str| std::env::var(name).ok()),
        limits: throng_access::LimitsConfig::default(),
        query_worker: WorkerCommand::default(),
    });
    let node = tokio::select! {
        started = starting => {
            started.with_context(|| format!("cannot start a node on {}", arguments.dir.display()))?
        }
        () = signal.received() => {
            report(&[], false, output);
            return Ok(ExitCode::from(STOPPED));
        }
    };
    let names = share(&node.context().spec.load(), &arguments);
    if names.is_err() {
        // Without it the next start finds a ledger that was not closed, as after a crash.
        node.shutdown().await;
        return names.map(|_| ExitCode::SUCCESS);
    }
    let names = names?;
    let bar = out::bar(names.len() as u64, "building audiences");
    let stop = CancellationToken::new();
    let stop_on_signal = stop.clone();
    let signal = tokio::spawn(async move {
        signal.received().await;
        stop_on_signal.cancel();
    });
    let refresh = &node.context().refresh;
    let built = refresh_audiences(refresh, &names, arguments.force, &stop, |_| bar.inc(1)).await;
    signal.abort();
    bar.finish_and_clear();
    let stopped = stop.is_cancelled();
    node.shutdown().await;
    let mut built = built?;
    built.sort_by(|a, b| a.audience.cmp(&b.audience));
    let code = code(&built, stopped);
    report(&built, code == ExitCode::SUCCESS, output);
    Ok(code)
}

/// The audiences of this share. They are sorted by name first, so that every pod divides them alike
/// even if its copy of the spec has another order.
fn share(spec: &Spec, arguments: &BuildArgs) -> Result<Vec<AudienceName>> {
    let mut names: Vec<AudienceName> = spec.audiences.iter().map(|a| a.name.clone()).collect();
    for wanted in &arguments.audiences {
        if !names.contains(wanted) {
            return Err(Failure::wrong_input(format!("no audience `{wanted}` in the spec")).into());
        }
    }
    if !arguments.audiences.is_empty() {
        names.retain(|name| arguments.audiences.contains(name));
    }
    names.sort();
    let (index, completions) = (arguments.index, arguments.completions);
    Ok(names.into_iter().skip(index).step_by(completions).collect())
}

/// What `throng build` prints with `--json`.
#[derive(Serialize)]
struct BuildReport<'a> {
    #[serde(flatten)]
    success: Success,
    audiences: Vec<BuiltAudience<'a>>,
}

/// An audience of the share, and how its refresh ended.
#[derive(Serialize)]
struct BuiltAudience<'a> {
    audience: &'a AudienceName,
    state: RefreshState,
    unchanged: bool,
    members: Option<u64>,
    reason: Option<&'a str>,
}

fn report(built: &[RefreshOutcome], ok: bool, output: Output) {
    if output.is_json() {
        let help = "`audiences` has the state of each and the reason";
        let success = Success::new(ok, "not all audiences are built", help);
        let audiences = built.iter().map(|one| BuiltAudience {
            audience: &one.audience,
            state: one.state,
            unchanged: one.unchanged,
            members: one.members,
            reason: one.reason.as_deref(),
        });
        out::json(&BuildReport { success, audiences: audiences.collect() });
        return;
    }
    for one in built {
        let members =
            one.members.map_or_else(String::new, |m| format!(" {}", out::counted(m, "member")));
        let reason = one.reason.as_ref().map_or_else(String::new, |r| format!(": {r}"));
        let state = match one.unchanged {
            true => "unchanged".to_owned(),
            false => format!("{:?}", one.state).to_lowercase(),
        };
        out::line(format!("{} {state}{members}{reason}", one.audience));
    }
}

fn code(built: &[RefreshOutcome], stopped: bool) -> ExitCode {
    let ended = |b: &RefreshOutcome| matches!(b.state, RefreshState::Failed | RefreshState::Held);
    // `failed` is after the last try, or at once if a retry cannot succeed. An outage ends, and needs no person.
    if built.iter().any(|b| ended(b) && !b.is_outage) {
        ExitCode::from(NEEDS_A_PERSON)
    } else if stopped {
        ExitCode::from(STOPPED)
    } else if built.iter().all(|b| b.state == RefreshState::Completed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(state: RefreshState) -> RefreshOutcome {
        RefreshOutcome {
            audience: "a".parse().unwrap(),
            state,
            unchanged: false,
            is_outage: false,
            reason: None,
            members: None,
        }
    }

    #[test]
    fn exit_codes_follow_from_the_states() {
        use RefreshState::{Completed, Failed, Halted, Held};
        let code = |states: &[RefreshState], stopped| {
            code(&states.iter().map(|s| built(*s)).collect::<Vec<_>>(), stopped)
        };
        assert_eq!(code(&[], false), ExitCode::SUCCESS);
        assert_eq!(code(&[Completed, Completed], false), ExitCode::SUCCESS);
        assert_eq!(code(&[Completed, Halted], true), ExitCode::from(75));
        assert_eq!(code(&[Completed, Failed], false), ExitCode::from(3));
        assert_eq!(code(&[Held], false), ExitCode::from(3));
        let outage = RefreshOutcome { is_outage: true, ..built(Failed) };
        assert_eq!(super::code(&[built(Completed), outage.clone()], false), ExitCode::FAILURE);
        assert_eq!(super::code(&[built(Held), outage], false), ExitCode::from(3));
    }
}
