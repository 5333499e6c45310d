//! `throng sim`: simulators of ad platforms.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;
use throng_sim::meta::{MetaSim, MetaSimConfig};

use crate::args::SimCommand;
use crate::out::{self, Output};
use crate::secret_input;

/// What a simulator that is ready prints with `--json`.
#[derive(Serialize)]
struct ReadySimulator {
    url: String,
}

pub(crate) async fn run(command: SimCommand, output: Output) -> Result<ExitCode> {
    let SimCommand::Meta { port, token_file } = command;
    let token = secret_input::read(token_file.as_deref(), "THRONG_SIM_TOKEN")?;
    let tokens = token.iter().map(|token| token.expose().to_owned()).collect();
    let config = MetaSimConfig { port, tokens, ..Default::default() };
    let sim = MetaSim::start(config)
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{port}: choose another --port"))?;
    if output.is_json() {
        out::json_line(&ReadySimulator { url: sim.url() })?;
    } else {
        out::line(format!("the Meta simulator is up: {}", sim.url()));
        out::message(
            "set `base_url` of a destination to this address; stop the simulator with Ctrl-C",
        );
    }
    super::up::shutdown_signal().await?;
    sim.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
