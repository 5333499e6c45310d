//! `throng sim`: simulators of ad platforms and warehouses.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use throng_lake::WorkerCommand;
use throng_sim::meta::{MetaSim, MetaSimConfig};
use throng_sim::network::{self, NetworkConfig};
use throng_sim_bigquery::{
    AcceptedAccount, BigQuerySim, BigQuerySimConfig, FaultRule, FolderEngine,
};

use crate::args::{BigquerySimArgs, NetworkSimArgs, SimCommand};
use crate::failure::{Failure, report_problems};
use crate::out::{self, Output};
use crate::secret_input;

/// What a simulator that is ready prints with `--json`.
#[derive(Serialize)]
struct ReadySimulator {
    url: String,
}

pub(crate) async fn run(command: SimCommand, output: Output) -> Result<ExitCode> {
    let (port, token_file) = match command {
        SimCommand::Meta { port, token_file } => (port, token_file),
        SimCommand::Bigquery(arguments) => return bigquery(arguments, output).await,
        SimCommand::Network(arguments) => return ad_network(&arguments, output),
    };
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

/// The first argument of the program that makes it the worker of the BigQuery simulator.
pub(crate) const BIGQUERY_WORKER: &str = "sim-bigquery-worker";

async fn bigquery(arguments: BigquerySimArgs, output: Output) -> Result<ExitCode> {
    let BigquerySimArgs { data, port, location, polls, credentials, faults } = arguments;
    let spill = tempfile::tempdir().context("cannot create a folder for temporary files")?;
    let worker = WorkerCommand {
        program: PathBuf::from("/proc/self/exe"),
        args: vec![BIGQUERY_WORKER.to_owned()],
    };
    let engine = FolderEngine::open(&data, spill.path().to_owned(), worker)
        .with_context(|| format!("cannot open the datasets in {}", data.display()))?;
    let account = credentials.as_deref().map(|path| {
        let account = AcceptedAccount::of_key_file(&text(path)?);
        let account = account.ok_or_else(|| {
            Failure::wrong_input(format!("{} is not a key of a service account", path.display()))
        });
        anyhow::Ok(account?)
    });
    let faults = faults.as_deref().map(|path| {
        let rules: Result<Vec<FaultRule>, _> = serde_json::from_str(&text(path)?);
        rules.with_context(|| format!("{} is not a list of faults", path.display()))
    });
    let config = BigQuerySimConfig {
        port,
        location,
        polls,
        account: account.transpose()?,
        faults: faults.transpose()?.unwrap_or_default(),
        ..BigQuerySimConfig::new(Arc::new(engine))
    };
    let sim = BigQuerySim::start(config)
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{port}: choose another --port"))?;
    if output.is_json() {
        out::json_line(&ReadySimulator { url: sim.url() })?;
    } else {
        out::line(format!("the BigQuery simulator is up: {}", sim.url()));
        out::message(
            "set `endpoint` and `metadata_url` of a source to this address; stop the simulator with \
             Ctrl-C",
        );
    }
    super::up::shutdown_signal().await?;
    Ok(ExitCode::SUCCESS)
}

fn ad_network(arguments: &NetworkSimArgs, output: Output) -> Result<ExitCode> {
    let spec = match throng_spec::load(&arguments.spec) {
        Ok(spec) => spec,
        Err(problems) => return Ok(report_problems(&problems, output)),
    };
    let (ad_groups, catalog) = throng_aggregator::ad_groups_of(&spec);
    let report = network::run(&NetworkConfig {
        ad_groups,
        catalog,
        gates: arguments.gates,
        feed_interval: Duration::from_millis(u64::from(spec.node.feed_interval_ms)),
        length: Duration::from_secs(u64::from(arguments.hours) * 3_600),
        requests_per_minute: 600.0,
        seed: arguments.seed,
    })
    .context("the ad groups cannot be simulated")?;
    match output.is_json() {
        true => out::json(&report),
        false => out::line(&report),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
