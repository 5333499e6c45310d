//! `throng demo`: the whole job on the shipped example. Audiences are built, looked up, activated
//! on a simulated platform, and a day of logged ad traffic runs through a fleet of ad servers, once
//! with the prediction of in-flight spend and, for comparison, once without.

mod example;
mod pace;
mod privacy;
mod quiet;
mod shared;
mod steps;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use throng_model::{AdjustableClock, Clock as _, Secret, SystemClock};
use throng_server::access::Scope;
use throng_server::{Environment, Node, NodeConfig, WorkerCommand};
use throng_sim::meta::{MetaSim, MetaSimConfig};
use throng_spec::{Prediction, Role, Spec};

use crate::args::{DemoArgs, Engine};
use crate::failure::Failure;
use crate::local::Registration;
use crate::{out, rehearsal};

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
    /// The file with the clock, for other processes.
    clock_file: PathBuf,
    sim: MetaSim,
    /// The other processes, if there are any.
    processes: Option<shared::Processes>,
    /// Predicts in-flight spend; its page is the one to look at.
    node: Node,
    /// The same, prediction off, for comparison.
    blind: Node,
    /// What the ad servers of each node may do.
    tokens: Tokens,
    /// Removed when the demo ends.
    _registration: Registration,
    data_dir: DataDir,
}

/// Tokens for the simulated ad servers.
struct Tokens {
    node: Secret,
    blind: Secret,
}

pub(crate) async fn run(arguments: DemoArgs, json: bool) -> Result<ExitCode> {
    if !arguments.on.is_empty() {
        for engine in [Engine::Kafka, Engine::Postgres, Engine::S3] {
            let all = arguments.on.contains(&engine);
            if !all {
                let message = "processes share everything or nothing: --on kafka,postgres,s3";
                return Err(Failure::wrong_input(message).into());
            }
        }
    }
    let stage = set_up(&arguments).await?;
    out::say(format!("the page is at {}", stage.node.sign_in_link().await?));
    let audiences = steps::build_audiences(&stage).await?;
    let lookups = steps::check_lookups(&stage).await?;
    let syncs = steps::wait_for_syncs(&stage).await?;
    let traffic = steps::run_traffic(&stage, &arguments).await?;
    let found = privacy::plain_identifiers(&[stage.data_dir.path()], &stage.spec)
        .context("cannot search the data directory for plain identifiers")?;
    let summary = summary::Summary::new(audiences, lookups, syncs, traffic, found);
    if json {
        let mut answer = serde_json::to_value(&summary).context("cannot write the summary")?;
        if !summary.ok {
            answer["error"] = "not all was as expected".into();
            answer["help"] = "`failures` says what".into();
        }
        out::json(&answer);
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
    clock.jump_to(quiet::start(&spec, clock.now()));
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
    let blind_spec = blinded(&spec);
    let mut env: Environment = Arc::new(|name: &str| secret(name));
    let mut engines = None;
    if !arguments.on.is_empty() {
        let found = Arc::new(shared::Engines::find()?);
        spec.node = found.settings(&root.join("shared"))?;
        let known = Arc::clone(&found);
        env = Arc::new(move |name: &str| secret(name).or_else(|| known.secret(name)));
        engines = Some(found);
    }
    let roles = engines.as_ref().map(|_| vec![Role::Api]);
    let mut starting = Starting { env, roles, clock: Arc::clone(&clock) };
    let node = starting.start(root.join("node"), spec.clone(), arguments.listen).await?;
    let mut processes = None;
    if let Some(engines) = engines {
        rehearsal::publish(&clock, &clock_file).context("cannot write the demo's clock")?;
        let started = engines.start(root, &root.join("shared"), &clock_file)?;
        out::say(format!("{} other processes are up", started.count()));
        processes = Some(started);
    }
    let blind_listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    starting.roles = None;
    let blind = starting.start(root.join("without-prediction"), blind_spec, blind_listen).await?;
    let scopes = [Scope::Events, Scope::Lookup, Scope::Feed];
    let tokens = Tokens {
        node: node.replace_token("ad-servers", &scopes).await?,
        blind: blind.replace_token("ad-servers", &scopes).await?,
    };
    let _registration = Registration::new(&node.url(), &root.join("node"));
    Ok(Stage {
        spec,
        clock,
        clock_file,
        sim,
        processes,
        node,
        blind,
        tokens,
        _registration,
        data_dir,
    })
}

fn secret(name: &str) -> Option<String> {
    (name == "THRONG_META_TOKEN").then(|| TOKEN.to_owned())
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

/// What the demo's nodes have in common.
struct Starting {
    env: Environment,
    roles: Option<Vec<Role>>,
    clock: Arc<AdjustableClock>,
}

impl Starting {
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
            // Sessions last as long as they do in life.
            access_clock: Arc::new(SystemClock),
            recovery: throng_server::Recovery::default(),
            env: Arc::clone(&self.env),
            limits: throng_server::LimitsConfig::default(),
            query_worker: WorkerCommand::default(),
        })
        .await
        .with_context(|| {
            format!("cannot start a node at {listen}; is another one there? try --listen")
        })
    }
}

/// Leaves the page up until Ctrl-C.
async fn stay(stage: &Stage) -> Result<()> {
    let url = stage.node.url();
    let link = stage.node.sign_in_link().await?;
    let ad_group = stage.spec.ad_groups.first().map_or("", |a| a.name.as_str());
    out::say(format!(
        "\nThe page stays up until you press Ctrl-C; this link signs you in, once, within ten \
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
