//! Twelve processes on one PostgreSQL, one Kafka and one bucket, while processes are killed and paused (for
//! seconds, and for a minute), connections are cut and slowed, the bucket answers 503, and the services
//! themselves crash and restart. At the end every audience, every audience on the platform and all spend
//! are exactly as expected.
//!
//! Ten rounds unless `THRONG_CHAOS_ROUNDS` says otherwise. The faults follow from a fixed seed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use throng_model::Entropy;
use throng_sim::meta::{MetaSim, MetaSimConfig};
use tokio::time::Instant;

use crate::chaos::{
    Workload, check_audiences, check_platform, refresh_all, send_events_until, settle,
    wait_for_money,
};
use crate::process::{HEAVY, NodeProcess, http, wait_for};

const ROLES: [&str; 12] = [
    "api",
    "api",
    "schedule",
    "schedule",
    "build",
    "build",
    "activate",
    "activate",
    "aggregate",
    "aggregate",
    "relay",
    "lookup",
];

/// Rounds between two pauses of a minute.
const LONG_PAUSE_ROUNDS: u64 = 20;

fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests by `cargo xtask test`"))
}

/// The processes of one deployment. The process at an index has the role of this index in [`ROLES`].
struct Deployment {
    folder: PathBuf,
    name: String,
    nodes: Vec<NodeProcess>,
}

impl Deployment {
    fn new(folder: &Path) -> Self {
        let unique = folder.file_name().and_then(|n| n.to_str()).expect("a name");
        let unique = unique.trim_matches('.').to_lowercase();
        Self { folder: folder.to_owned(), name: format!("chaos-{unique}"), nodes: Vec::new() }
    }

    /// Node settings with all engines behind the faulty proxies.
    fn settings(&self) -> String {
        let (kafka, s3) = (setting("THRONG_KAFKA_PROXIED"), setting("THRONG_S3_PROXIED"));
        let name = &self.name;
        format!(
            "node:\n  ledger: postgres\n  ledger_url: env:LEDGER\n  identifiers_key: env:IDENTIFIERS\n  log: kafka\n  kafka: {{ brokers: \"{kafka}\", prefix: \"{name}\", session_ms: 3000 }}\n  objects: s3\n  bucket: {{ name: throng, prefix: \"{name}\", endpoint: \"{s3}\", access_key: \"env:THRONG_S3_ACCESS_KEY\", secret_key: \"env:THRONG_S3_SECRET_KEY\" }}\n"
        )
    }

    fn start(&self, index: usize, join: bool) -> NodeProcess {
        let ledger = format!("{}/{}", setting("THRONG_POSTGRES_PROXIED"), self.name);
        let dir = self.folder.join(format!("node-{index}"));
        let log = self.folder.join(format!("log-{index}"));
        let mut arguments = vec!["--roles", ROLES[index]];
        if join {
            arguments.push("--join");
        }
        let variables = [("LEDGER", ledger), ("IDENTIFIERS", "5a".repeat(32))];
        NodeProcess::with(&dir, &self.folder.join("throng.yaml"), &log, &arguments, &variables)
    }

    fn api(&self) -> &str {
        &self.nodes[0].url
    }
}

/// The faults of connections, by the proxy's API.
struct Proxy {
    http: reqwest::Client,
    url: String,
}

impl Proxy {
    async fn enabled(&self, name: &str, enabled: bool) {
        let url = format!("{}/proxies/{name}", self.url);
        let answer = self.http.post(url).json(&json!({ "enabled": enabled })).send().await;
        assert!(answer.expect("answered").status().is_success(), "{name}");
    }

    async fn toxic(&self, name: &str, kind: &str, attributes: serde_json::Value) {
        let toxic = json!({
            "name": "fault", "type": kind, "stream": "downstream", "toxicity": 1.0,
            "attributes": attributes,
        });
        let url = format!("{}/proxies/{name}/toxics", self.url);
        let answer = self.http.post(url).json(&toxic).send().await.expect("answered");
        assert!(answer.status().is_success(), "{name} {kind}");
    }

    /// Sets the upstream of a proxy, which cuts its connections.
    async fn set_upstream(&self, name: &str, upstream: &str) {
        let url = format!("{}/proxies/{name}", self.url);
        let answer = self.http.post(url).json(&json!({ "upstream": upstream })).send().await;
        assert!(answer.expect("answered").status().is_success(), "{name} to {upstream}");
    }

    async fn heal(&self, name: &str) {
        let url = format!("{}/proxies/{name}/toxics/fault", self.url);
        // There may be none.
        let _ = self.http.delete(url).send().await.expect("answered");
        self.enabled(name, true).await;
    }
}

/// The fault of a round.
#[derive(Debug)]
enum Fault {
    Kill(usize),
    Pause(usize),
    Cut(&'static str),
    Slow(&'static str),
    Hang(&'static str),
    /// Every request to the bucket is answered with 503.
    Refuse,
    /// The service itself is killed and starts again on its data.
    Restart(&'static str),
}

impl Fault {
    /// `overloaded`: a bucket that refuses every request.
    async fn begin(&self, deployment: &Deployment, proxy: &Proxy, overloaded: &str) {
        match *self {
            // The process is started again at the end of the round.
            Self::Kill(index) => deployment.nodes[index].signal("KILL"),
            Self::Pause(index) => deployment.nodes[index].signal("STOP"),
            Self::Cut(service) => proxy.enabled(service, false).await,
            Self::Slow(service) => {
                proxy.toxic(service, "latency", json!({ "latency": 1000 })).await;
            }
            Self::Hang(service) => proxy.toxic(service, "timeout", json!({ "timeout": 0 })).await,
            Self::Refuse => proxy.set_upstream("s3", overloaded).await,
            Self::Restart(service) => restart(service),
        }
    }

    /// `bucket`: the bucket without faults.
    async fn end(&self, deployment: &mut Deployment, proxy: &Proxy, bucket: &str) {
        match *self {
            Self::Kill(index) => {
                // It ends some time after the signal, and the next one uses its directory.
                deployment.nodes[index].wait();
                deployment.nodes[index] = deployment.start(index, true);
            }
            Self::Pause(index) => deployment.nodes[index].signal("CONT"),
            Self::Cut(service) | Self::Slow(service) | Self::Hang(service) => {
                proxy.heal(service).await;
            }
            Self::Refuse => proxy.set_upstream("s3", bucket).await,
            Self::Restart(service) => listens(service).await,
        }
    }
}

fn restart(service: &str) {
    let script = setting(&format!("THRONG_{}_RESTART", service.to_uppercase()));
    let status = std::process::Command::new("sh").arg(script).status().expect("sh runs");
    assert!(status.success(), "{service} was not started again");
}

/// Waits until a service that was started again accepts connections: a process of the next round does not start
/// without it.
async fn listens(service: &str) {
    let url = setting(&format!("THRONG_{}", service.to_uppercase()));
    // Without a scheme and a user.
    let address = url.rsplit(['/', '@']).next().unwrap_or(&url);
    wait_for("a restarted service", async || {
        let connected = tokio::net::TcpStream::connect(address).await;
        connected.map(drop).map_err(|error| format!("{service}: {error}"))
    })
    .await;
}

fn fault(random: &mut impl Entropy) -> Fault {
    const SERVICES: [&str; 3] = ["postgres", "kafka", "s3"];
    let service = SERVICES[random.below(3) as usize];
    let index = random.below(ROLES.len() as u64) as usize;
    match random.below(10) {
        0..=3 => Fault::Kill(index),
        4 => Fault::Pause(index),
        5 => Fault::Cut(service),
        6 => Fault::Slow(service),
        7 => Fault::Hang(service),
        8 => Fault::Refuse,
        _ => Fault::Restart(service),
    }
}

/// Starts a server that answers every request like an overloaded bucket. Returns its address.
async fn overloaded_bucket() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let refuse = async || {
        let body = "<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>";
        (StatusCode::SERVICE_UNAVAILABLE, body)
    };
    let router = axum::Router::new().fallback(refuse);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Processes with a long pause, and its end.
#[derive(Default)]
struct LongPauses(Vec<(Instant, usize)>);

impl LongPauses {
    /// The length of a long pause: longer than every lease and session.
    const LENGTH: Duration = Duration::from_secs(60);

    fn pause(&mut self, deployment: &Deployment, index: usize) {
        deployment.nodes[index].signal("STOP");
        self.0.push((Instant::now() + Self::LENGTH, index));
    }

    fn is_paused(&self, index: usize) -> bool {
        self.0.iter().any(|(_, paused)| *paused == index)
    }

    fn resume_due(&mut self, deployment: &Deployment) {
        self.0.retain(|(until, index)| {
            let is_paused = *until > Instant::now();
            if !is_paused {
                deployment.nodes[*index].signal("CONT");
            }
            is_paused
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_processes_and_services_lose_nothing_and_count_nothing_twice() {
    let _turn = HEAVY.lock().await;
    let rounds = std::env::var("THRONG_CHAOS_ROUNDS").ok().and_then(|n| n.parse().ok());
    let rounds: u64 = rounds.unwrap_or(10);
    let dir = tempfile::tempdir().expect("temporary folder");
    std::fs::create_dir(dir.path().join("data")).expect("made");
    let config = MetaSimConfig { tokens: vec!["simulator".to_owned()], ..Default::default() };
    let sim = MetaSim::start(config).await.expect("the simulator starts");
    let mut deployment = Deployment::new(dir.path());
    let mut workload = Workload::new(dir.path(), 11);
    workload.write_spec(&sim.url(), &deployment.settings());
    workload.write_purchases();
    let http = http();
    let proxy = Proxy { http: http.clone(), url: setting("THRONG_TOXIPROXY") };

    for index in 0..ROLES.len() {
        let node = deployment.start(index, index > 0);
        deployment.nodes.push(node);
    }
    let bucket = setting("THRONG_S3").trim_start_matches("http://").to_owned();
    let overloaded = overloaded_bucket().await;
    let mut pauses = LongPauses::default();
    for round in 0..rounds {
        workload.add_activity();
        pauses.resume_due(&deployment);
        if round % LONG_PAUSE_ROUNDS == 1 {
            // Not the first two: the test itself sends requests to them.
            let index = 2 + workload.random.below(ROLES.len() as u64 - 2) as usize;
            eprintln!("round {round}: {} {index} is paused for a minute", ROLES[index]);
            pauses.pause(&deployment, index);
        }
        let fault = match fault(&mut workload.random) {
            Fault::Kill(index) | Fault::Pause(index) if pauses.is_paused(index) => Fault::Refuse,
            fault => fault,
        };
        let lasts = Duration::from_millis(200 + workload.random.below(2_800));
        eprintln!("round {round}: {fault:?} for {lasts:?}");
        fault.begin(&deployment, &proxy, &overloaded).await;
        let url = deployment.nodes[workload.random.below(2) as usize].url.clone();
        let work = async {
            // The fault causes errors here.
            let _ = refresh_all(&http, &url).await;
            let _ = workload.send_events(&http, &url).await;
            std::future::pending::<()>().await;
        };
        // This is not a wait for a condition: the random length of the fault is what is tested.
        let _ = tokio::time::timeout(lasts, work).await;
        fault.end(&mut deployment, &proxy, &bucket).await;
    }
    while !pauses.0.is_empty() {
        // The pause itself is what is tested; the other processes work meanwhile.
        let _ = refresh_all(&http, deployment.api()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        pauses.resume_due(&deployment);
    }

    send_events_until(&http, deployment.api(), &mut workload).await;
    settle(&http, deployment.api()).await;
    check_audiences(&http, deployment.api(), &workload).await;
    check_platform(&http, deployment.api(), &workload, &sim).await;
    wait_for_money(&http, deployment.api(), &workload).await;
    for node in deployment.nodes {
        node.signal("TERM");
    }
    sim.shutdown().await;
}
