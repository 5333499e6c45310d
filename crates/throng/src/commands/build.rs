//! `throng build`: builds audiences and ends, with an exit code that a job understands.
//!
//! 0 all are built · 1 something failed, and trying again may help · 2 the command line or the spec
//! is wrong · 3 something failed that only a person can mend, or is held · 75 told to stop

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;
use throng_model::{AudienceName, SystemClock};
use throng_refresh::{RefreshOutcome, refresh_audiences};
use throng_server::{Node, NodeConfig, WorkerCommand};
use throng_spec::Spec;
use throng_store::RefreshState;
use tokio_util::sync::CancellationToken;

use super::up::ShutdownSignal;
use crate::args::BuildArgs;
use crate::failure::{Failure, report_problems};
use crate::out;

/// `EX_TEMPFAIL`: put it down, somebody else goes on.
const STOPPED: u8 = 75;
/// Trying again does not help.
const FOR_A_PERSON: u8 = 3;

pub(crate) async fn run(arguments: BuildArgs, json: bool) -> Result<ExitCode> {
    let spec = match throng_spec::load(&arguments.spec) {
        Ok(spec) => spec,
        Err(problems) => return Ok(report_problems(&problems, json)),
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
        // A job does nothing but build its share: it schedules, uploads and counts nothing.
        roles: Some(Vec::new()),
        listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
        clock: Arc::new(SystemClock),
        access_clock: Arc::new(SystemClock),
        recovery: throng_server::Recovery::default(),
        env: Arc::new(|name: &str| std::env::var(name).ok()),
        limits: throng_server::LimitsConfig::default(),
        query_worker: WorkerCommand::default(),
    });
    let node = tokio::select! {
        started = starting => {
            started.with_context(|| format!("cannot start on {}", arguments.dir.display()))?
        }
        () = signal.received() => return Ok(ExitCode::from(STOPPED)),
    };
    let names = share(&node.context().spec.load(), &arguments)?;
    let bar = out::bar(names.len() as u64, "building audiences");
    let stop = CancellationToken::new();
    let told = stop.clone();
    let signal = tokio::spawn(async move {
        signal.received().await;
        told.cancel();
    });
    let refresh = &node.context().refresh;
    let built = refresh_audiences(refresh, &names, &stop, |_| bar.inc(1)).await;
    signal.abort();
    bar.finish_and_clear();
    let stopped = stop.is_cancelled();
    node.shutdown().await;
    let mut built = built?;
    built.sort_by(|a, b| a.audience.cmp(&b.audience));
    let code = code(&built, stopped);
    report(&built, code == ExitCode::SUCCESS, json);
    Ok(code)
}

/// The audiences of this share, by name: the same on every pod, whatever the order in the spec.
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

fn report(built: &[RefreshOutcome], ok: bool, json: bool) {
    if json {
        let audiences: Vec<_> = built
            .iter()
            .map(|b| {
                json!({
                    "audience": b.audience,
                    "state": b.state,
                    "members": b.members,
                    "reason": b.reason,
                })
            })
            .collect();
        let mut answer = json!({ "ok": ok, "audiences": audiences });
        if !ok {
            answer["error"] = json!("not all audiences are built");
            answer["help"] = json!("`audiences` says for each its state and the reason");
        }
        out::json(&answer);
        return;
    }
    for one in built {
        let members =
            one.members.map_or_else(String::new, |m| format!(" {} members", out::count(m)));
        let reason = one.reason.as_ref().map_or_else(String::new, |r| format!(": {r}"));
        let state = format!("{:?}", one.state).to_lowercase();
        out::line(format!("{} {state}{members}{reason}", one.audience));
    }
}

fn code(built: &[RefreshOutcome], stopped: bool) -> ExitCode {
    let any = |state| built.iter().any(|b| b.state == state);
    if any(RefreshState::Failed) || any(RefreshState::Held) {
        // A refresh fails for good after its tries, or at once where a try more cannot help.
        ExitCode::from(FOR_A_PERSON)
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
        RefreshOutcome { audience: "a".parse().unwrap(), state, reason: None, members: None }
    }

    #[test]
    fn exit_codes_say_what_to_do() {
        use RefreshState::{Completed, Failed, Halted, Held};
        let code = |states: &[RefreshState], stopped| {
            code(&states.iter().map(|s| built(*s)).collect::<Vec<_>>(), stopped)
        };
        assert_eq!(code(&[], false), ExitCode::SUCCESS);
        assert_eq!(code(&[Completed, Completed], false), ExitCode::SUCCESS);
        assert_eq!(code(&[Completed, Halted], true), ExitCode::from(75));
        assert_eq!(code(&[Completed, Failed], false), ExitCode::from(3));
        assert_eq!(code(&[Held], false), ExitCode::from(3));
    }
}
