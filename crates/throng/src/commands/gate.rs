//! `throng gate`: a gate beside an ad server, until SIGINT or SIGTERM.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use throng_model::SystemClock;
use throng_sidecar::{NodeOptions, Sidecar, SidecarError, SidecarOptions};

use crate::args::GateArgs;
use crate::failure::Failure;
use crate::out::{self, Output};
use crate::secret_input;

use super::up::ShutdownSignal;

/// What a gate that listens prints with `--json`.
#[derive(Serialize)]
struct ReadyGate<'a> {
    /// The URL; null without --listen.
    url: Option<String>,
    /// The path of the socket; null without --socket.
    socket: Option<String>,
    /// The name in the list of gates.
    id: &'a str,
}

pub(crate) async fn run(arguments: GateArgs, output: Output) -> Result<ExitCode> {
    let mut signal = ShutdownSignal::listen()?;
    let socket = arguments.socket.as_ref().map(|path| path.display().to_string());
    let options = options(arguments)?;
    let sidecar = tokio::select! {
        started = Sidecar::start(options) => started.map_err(failure)?,
        () = signal.received() => return Ok(ExitCode::SUCCESS),
    };
    if output.is_json() {
        out::json_line(&ReadyGate { url: sidecar.url(), socket, id: sidecar.id() })?;
    } else {
        let places: Vec<String> = sidecar.url().into_iter().chain(socket).collect();
        out::line(format!("the gate {} is up: {}", sidecar.id(), places.join(", ")));
        if !sidecar.is_ready() {
            out::message("it decides once it has the figures of all ad groups: see /readyz");
        }
    }
    signal.received().await;
    sidecar.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

fn options(arguments: GateArgs) -> Result<SidecarOptions> {
    let ca_pem = match &arguments.ca_file {
        Some(path) => {
            Some(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?)
        }
        None => None,
    };
    let from_input = |file: &Option<PathBuf>| file.as_deref() == Some(Path::new("-"));
    if from_input(&arguments.token_file) && from_input(&arguments.client_token_file) {
        let message = "only one of --token-file and --client-token-file can be the standard input";
        return Err(Failure::wrong_input(message.to_owned()).into());
    }
    let token = secret_input::read(arguments.token_file.as_deref(), "THRONG_TOKEN")?;
    let client_token =
        secret_input::read(arguments.client_token_file.as_deref(), "THRONG_GATE_TOKEN")?;
    let stale_after = Duration::from_secs(arguments.stale_after);
    Ok(SidecarOptions {
        node: NodeOptions {
            url: arguments.node,
            feed_url: arguments.feed,
            token,
            insecure: arguments.insecure,
            ca_pem,
            // Two and a half intervals of the feed, if `stale_after` is ten, as in the node.
            feed_timeout: stale_after / 4,
        },
        cache_dir: arguments.cache_dir,
        id: arguments.id,
        listen: arguments.listen,
        allowed_hosts: arguments.allowed_host,
        client_token,
        socket: arguments.socket,
        socket_mode: arguments.socket_mode,
        stale_after,
        clock: Arc::new(SystemClock),
    })
}

/// The error of a start, with its hint.
fn failure(error: SidecarError) -> anyhow::Error {
    let hint = error.hint();
    let failure = match &error {
        // A retry cannot succeed: the command line is wrong.
        SidecarError::Options(message) => return Failure::wrong_input(message.clone()).into(),
        _ => Failure::new("cannot start the gate"),
    };
    let failure = match hint {
        Some(hint) => failure.help(hint),
        None => failure,
    };
    anyhow::Error::new(error).context(failure)
}
