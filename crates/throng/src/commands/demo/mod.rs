//! `throng demo`: everything that Throng does, on the included example. Audiences are built, looked up and
//! activated on a simulated platform, and logged ad traffic runs through a fleet of ad servers, once with
//! the prediction of in-flight spend and, as a baseline, once without.

mod clock_limit;
mod processes;
mod steps;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use throng_access::{Registration, Scope};
use throng_demo::example::TOKEN;
use throng_demo::summary::Summary;
use throng_demo::{example, privacy, start_time};
use throng_model::{AdGroupName, AdjustableClock, Clock as _, Secret, SystemClock, Timestamp};
use throng_server::{Environment, Node, NodeConfig, WorkerCommand};
use throng_sim::clock_file;
use throng_sim::meta::{MetaSim, MetaSimConfig};
use throng_spec::{Prediction, Pricing, Role, Spec};

use crate::args::{DemoArgs, Engine};
use crate::failure::{Failure, Success};
use crate::out::{self, Output};

/// The folder with the demo's files; removed at the end unless `--data-dir` was given.
enum DataDir {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl DataDir {
    fn path(&self) -> &std::path::Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

/// Everything that runs during the demo.
struct DemoEnvironment {
    spec: Spec,
    clock: Arc<AdjustableClock>,
    /// The file with the clock, for other processes.
    clock_file: PathBuf,
    sim: MetaSim,
    /// The other processes with `--on`.
    processes: Option<processes::Processes>,
    /// Predicts in-flight spend; the page is this node's.
    node: Node,
    /// The same ad groups without prediction, for comparison.
    baseline: Node,
    /// The tokens of the ad servers.
    tokens: Tokens,
    /// Removed when the demo ends.
    _registration: Registration,
    data_dir: DataDir,
}

impl DemoEnvironment {
    /// Sets the speed of the demo's clock, for all of its processes.
    fn set_speed(&self, speed: f64) -> Result<()> {
        self.clock.set_speed(speed);
        self.publish_clock()
    }

    /// Sets the instant at which the demo's clock stops, for all of its processes.
    fn set_limit(&self, limit: Timestamp) -> Result<()> {
        self.clock.set_limit(Some(limit));
        self.publish_clock()
    }

    fn publish_clock(&self) -> Result<()> {
        clock_file::publish(&self.clock, &self.clock_file).context("cannot write the demo's clock")
    }

    /// The value in micros of billable events (`impression` or `click`), by their count of each ad group.
    fn billable_micros(&self, count: impl Fn(&'static str, &AdGroupName) -> u64) -> i64 {
        let amounts = self.spec.ad_groups.iter().map(|ad_group| {
            let kind = match ad_group.pricing {
                Pricing::PerImpression | Pricing::PerThousand => "impression",
                Pricing::PerClick => "click",
            };
            let count = i64::try_from(count(kind, &ad_group.name)).unwrap_or(i64::MAX);
            let amount = ad_group.price.0.saturating_mul(count);
            if ad_group.pricing == Pricing::PerThousand { amount / 1_000 } else { amount }
        });
        amounts.sum()
    }
}

/// Tokens for the simulated ad servers of each node.
struct Tokens {
    node: Secret,
    baseline: Secret,
}

/// What the demo prints with `--json`.
#[derive(Serialize)]
struct DemoReport<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    #[serde(flatten)]
    success: Success,
}

pub(crate) async fn run(arguments: DemoArgs, output: Output) -> Result<ExitCode> {
    if !arguments.on.is_empty() {
        for engine in [Engine::Kafka, Engine::Postgres, Engine::S3] {
            if !arguments.on.contains(&engine) {
                let message = "processes need all three engines: --on kafka,postgres,s3";
                return Err(Failure::wrong_input(message).into());
            }
        }
    }
    let environment = set_up(&arguments).await?;
    out::message(format!("the page is at {}", environment.node.sign_in_link().await?));
    let audiences = steps::build_audiences(&environment).await?;
    let lookups = steps::check_lookups(&environment).await?;
    let syncs = steps::wait_for_syncs(&environment).await?;
    let traffic = steps::run_traffic(&environment, &arguments).await?;
    let found = privacy::plain_identifiers(&[environment.data_dir.path()], &environment.spec)
        .context("cannot search the data directory for plain identifiers")?;
    let summary = Summary::new(audiences, lookups, syncs, traffic, found);
    if output.is_json() {
        let (error, help) = ("a result is not as expected", "`failures` lists what differs");
        let success = Success::new(summary.is_ok(), error, help);
        out::json(&DemoReport { summary: &summary, success });
    } else {
        summary::print(&summary);
    }
    for failure in &summary.failures {
        out::message(format!("not as expected: {failure}"));
    }
    let code = if summary.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if !arguments.once {
        wait_for_shutdown(&environment).await?;
    }
    environment.baseline.shutdown().await;
    environment.node.shutdown().await;
    environment.sim.shutdown().await;
    Ok(code)
}

async fn set_up(arguments: &DemoArgs) -> Result<DemoEnvironment> {
    let data_dir = match &arguments.data_dir {
        Some(path) => DataDir::Kept(path.clone()),
        None => {
            DataDir::Temporary(tempfile::tempdir().context("cannot create a temporary folder")?)
        }
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
    clock.jump_to(start_time::start(&spec, clock.now()));
    let sim = MetaSim::start(MetaSimConfig {
        port: 0,
        tokens: vec![TOKEN.to_owned()],
        ..Default::default()
    })
    .await
    .context("cannot start the Meta simulator")?;
    for destination in &mut spec.destinations {
        if let throng_spec::Platform::Meta(meta) = &mut destination.platform {
            meta.base_url = Some(sim.url());
        }
    }
    let clock_file = root.join("clock");
    let baseline_spec = baseline_spec_of(&spec);
    let mut env: Environment = Arc::new(|name: &str| secret(name));
    let mut engines = None;
    if !arguments.on.is_empty() {
        let found = Arc::new(processes::Engines::find()?);
        spec.node = found.settings(&root.join("shared"))?;
        let secrets = Arc::clone(&found);
        env = Arc::new(move |name: &str| secret(name).or_else(|| secrets.secret(name)));
        engines = Some(found);
    }
    let roles = engines.as_ref().map(|_| vec![Role::Api]);
    let mut starter = NodeStarter { env, roles, clock: Arc::clone(&clock) };
    let node = starter.start(root.join("node"), spec.clone(), arguments.listen).await?;
    let mut processes = None;
    if let Some(engines) = engines {
        clock_file::publish(&clock, &clock_file).context("cannot write the demo's clock")?;
        let started = engines.start(root, &root.join("shared"), &clock_file)?;
        out::message(format!("{} other processes are up", started.count()));
        processes = Some(started);
    }
    let baseline_listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    starter.roles = None;
    let baseline =
        starter.start(root.join("without-prediction"), baseline_spec, baseline_listen).await?;
    let scopes = [Scope::Events, Scope::Lookup, Scope::Feed];
    let tokens = Tokens {
        node: node.replace_token("ad-servers", &scopes).await?,
        baseline: baseline.replace_token("ad-servers", &scopes).await?,
    };
    let _registration = Registration::new(&node.url(), &root.join("node"));
    Ok(DemoEnvironment {
        spec,
        clock,
        clock_file,
        sim,
        processes,
        node,
        baseline,
        tokens,
        _registration,
        data_dir,
    })
}

fn secret(name: &str) -> Option<String> {
    (name == "THRONG_META_TOKEN").then(|| TOKEN.to_owned())
}

/// The spec of the baseline node: the same audiences and ad groups without prediction, no syncs.
fn baseline_spec_of(spec: &Spec) -> Spec {
    let mut baseline = spec.clone();
    baseline.syncs.clear();
    for ad_group in &mut baseline.ad_groups {
        ad_group.prediction = Prediction::Off;
    }
    baseline
}

/// Starts the nodes of the demo's process.
struct NodeStarter {
    env: Environment,
    roles: Option<Vec<Role>>,
    clock: Arc<AdjustableClock>,
}

impl NodeStarter {
    async fn start(
        &self,
        data_dir: PathBuf,
        spec: Spec,
        listen: std::net::SocketAddr,
    ) -> Result<Node> {
        Node::start(NodeConfig {
            accept_log_loss: Vec::new(),
            data_dir,
            spec,
            join: false,
            roles: self.roles.clone(),
            listen: Some(listen),
            clock: Arc::clone(&self.clock) as Arc<dyn throng_model::Clock>,
            // Sessions expire in real time, not on the demo's clock.
            access_clock: Arc::new(SystemClock),
            recovery: throng_server::Recovery::default(),
            env: Arc::clone(&self.env),
            limits: throng_access::LimitsConfig::default(),
            query_worker: WorkerCommand::default(),
        })
        .await
        .with_context(|| {
            format!(
                "cannot start a node at {listen}; if the address is in use, choose another with \
                 --listen"
            )
        })
    }
}

/// Keeps the nodes running until Ctrl-C.
async fn wait_for_shutdown(environment: &DemoEnvironment) -> Result<()> {
    let url = environment.node.url();
    let link = environment.node.sign_in_link().await?;
    let ad_group = environment.spec.ad_groups.first().map_or("", |a| a.name.as_str());
    out::message(format!(
        "\nThe page stays up until you press Ctrl-C. This link signs you in; it works once, within ten \
         minutes:\n  {link}\n`throng sign-in` prints another one. Try, in another terminal:\n  \
         cargo run -p throng -- lookup 00002 --url {url}\n  \
         cargo run -p throng -- audience refresh loyal --url {url}\n  \
         cargo run -p throng -- decide 00002 {ad_group} --url {url}\n  \
         cargo run -p throng -- why ad-group {ad_group} --url {url}\n  \
         cargo run -p throng -- sync runs --url {url}\n  \
         cargo run -p throng -- sign-in --url {url}\n"
    ));
    super::up::shutdown_signal().await
}
