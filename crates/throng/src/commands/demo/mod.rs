//! `throng demo`: the whole job on the shipped example. Audiences are built, looked up, activated
//! on a simulated platform, and a day of logged ad traffic runs through a fleet of ad servers, once
//! with the prediction of in-flight spend and, for comparison, once without.

mod example;
mod privacy;
mod steps;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use throng_model::AdjustableClock;
use throng_server::{Node, NodeConfig};
use throng_sim::meta::{MetaSim, MetaSimConfig};
use throng_spec::{Prediction, Spec};

use crate::args::DemoArgs;
use crate::out;

use example::TOKEN;

/// Where the demo keeps what it makes; gone at the end unless `--data-dir` was given.
enum DataDir {
    Kept(PathBuf),
    Passing(tempfile::TempDir),
}

impl DataDir {
    fn path(&self) -> &std::path::Path {
        match self {
            Self::Kept(path) => path,
            Self::Passing(dir) => dir.path(),
        }
    }
}

/// The running parts of the demo.
struct Stage {
    spec: Spec,
    clock: Arc<AdjustableClock>,
    sim: MetaSim,
    /// Predicts in-flight spend; its page is the one to look at.
    node: Node,
    /// The same, prediction off, for comparison.
    blind: Node,
    data_dir: DataDir,
}

pub(crate) async fn run(arguments: DemoArgs, json: bool) -> Result<ExitCode> {
    let stage = set_up(&arguments).await?;
    if !json {
        out::say(format!("the page is at {}", stage.node.url()));
    }
    let audiences = steps::build_audiences(&stage).await?;
    let lookups = steps::check_lookups(&stage).await?;
    let syncs = steps::wait_for_syncs(&stage).await?;
    let traffic = steps::run_traffic(&stage, &arguments).await?;
    let found = privacy::plain_identifiers(&[stage.data_dir.path()], &stage.spec)
        .context("cannot search the data directory for plain identifiers")?;
    let summary = summary::Summary::new(audiences, lookups, syncs, traffic, found);
    if json {
        out::json(&serde_json::to_value(&summary).context("cannot write the summary")?);
    } else {
        summary.print();
    }
    for failure in &summary.failures {
        out::say(format!("not as expected: {failure}"));
    }
    let code = if summary.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if !arguments.once {
        stay(&stage).await?;
    }
    stage.blind.shutdown().await;
    stage.node.shutdown().await;
    stage.sim.shutdown().await;
    Ok(code)
}

async fn set_up(arguments: &DemoArgs) -> Result<Stage> {
    let data_dir = match &arguments.data_dir {
        Some(path) => DataDir::Kept(path.clone()),
        None => DataDir::Passing(tempfile::tempdir().context("cannot make a temporary folder")?),
    };
    let root = data_dir.path();
    let spec_dir = root.join("example");
    example::unpack(&spec_dir)
        .with_context(|| format!("cannot write the example to {}", spec_dir.display()))?;
    let mut spec = match throng_spec::load(&spec_dir) {
        Ok(spec) => spec,
        Err(problems) => {
            let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::bail!("the example is wrong:\n{}", text.join("\n"));
        }
    };
    let clock = Arc::new(AdjustableClock::default());
    let sim = MetaSim::start(MetaSimConfig {
        port: 0,
        tokens: vec![TOKEN.to_owned()],
        ..Default::default()
    })
    .await
    .context("cannot start the Meta simulator")?;
    for destination in &mut spec.destinations {
        destination.base_url = Some(sim.url());
    }
    let node = start(root.join("node"), spec.clone(), arguments.listen, &clock).await?;
    let blind_listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let blind =
        start(root.join("without-prediction"), blinded(&spec), blind_listen, &clock).await?;
    Ok(Stage { spec, clock, sim, node, blind, data_dir })
}

/// The spec of the node that does not predict: the same audiences and ad groups, no syncs.
fn blinded(spec: &Spec) -> Spec {
    let mut blind = spec.clone();
    blind.syncs.clear();
    for ad_group in &mut blind.ad_groups {
        ad_group.prediction = Prediction::Off;
    }
    blind
}

async fn start(
    data_dir: PathBuf,
    spec: Spec,
    listen: std::net::SocketAddr,
    clock: &Arc<AdjustableClock>,
) -> Result<Node> {
    Node::start(NodeConfig {
        data_dir,
        spec,
        join: false,
        roles: None,
        listen: Some(listen),
        clock: Arc::clone(clock) as Arc<dyn throng_model::Clock>,
        env: Arc::new(|name: &str| (name == "THRONG_META_TOKEN").then(|| TOKEN.to_owned())),
    })
    .await
    .with_context(|| format!("cannot start a node at {listen}; is another one there? try --listen"))
}

/// Leaves the page up until Ctrl-C.
async fn stay(stage: &Stage) -> Result<()> {
    let url = stage.node.url();
    let ad_group = stage.spec.ad_groups.first().map_or("", |a| a.name.as_str());
    out::say(format!(
        "\nThe page stays up at {url} until you press Ctrl-C. Try, in another terminal:\n  \
         cargo run -p throng -- lookup 00002 --url {url}\n  \
         cargo run -p throng -- audience refresh loyal --url {url}\n  \
         cargo run -p throng -- decide 00002 {ad_group} --url {url}\n  \
         cargo run -p throng -- why ad-group {ad_group} --url {url}\n  \
         cargo run -p throng -- sync runs --url {url}\n"
    ));
    super::up::shutdown_signal().await
}
