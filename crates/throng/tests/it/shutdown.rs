//! SIGTERM at any moment: nothing is left `processing`, a job does no other work than its own, and
//! many refreshes take no more threads and handles than a few.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use throng_ledger::SqliteLedger;
use throng_model::{Entropy, SplitMix64};
use throng_sim::meta::{MetaSim, MetaSimConfig};
use throng_store::{AudienceLedger, RefreshState, SyncLedger};

use crate::process::{NodeProcess, get, http, post, throng, wait_for};

/// Rounds of each kind of process.
const ROUNDS: u64 = 12;
const AUDIENCES: u32 = 4;

struct Shop {
    dir: tempfile::TempDir,
}

impl Shop {
    /// A spec of some audiences, followed by `more`.
    fn new(customers: u32, more: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir(dir.path().join("lake")).expect("folder");
        let rows: String = (0..customers).map(|n| format!("c{n:06},{n}\n")).collect();
        std::fs::write(dir.path().join("lake/visits.csv"), format!("customer,n\n{rows}"))
            .expect("written");
        let audiences: String = (0..AUDIENCES)
            .map(|n| {
                format!(
                    "  - name: a{n}\n    keep_snapshots: 2\n    sql: SELECT customer FROM shop.visits GROUP BY customer HAVING sum(n) % 5 <> {n}\n"
                )
            })
            .collect();
        let text = format!(
            "version: 1\nsources:\n  - {{ name: shop, path: lake }}\naudiences:\n{audiences}{more}"
        );
        std::fs::write(dir.path().join("throng.yaml"), text).expect("written");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn ledger(&self) -> SqliteLedger {
        SqliteLedger::open(&self.path("data/ledger.db")).await.expect("ledger")
    }

    /// The states of the newest refreshes.
    async fn states(&self) -> Vec<RefreshState> {
        let rows = self.ledger().await.audiences().await.expect("audiences");
        rows.into_iter().filter_map(|row| row.refresh.map(|refresh| refresh.state)).collect()
    }
}

fn command(verb: &str, shop: &Shop) -> std::process::Command {
    let mut command = throng();
    command.arg(verb).arg("--dir").arg(shop.path("data"));
    command.arg("--spec").arg(shop.path("throng.yaml"));
    command.env("THRONG_META_TOKEN", "simulator").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// SIGTERM after a random part of `longest`, and the end of the process.
async fn terminate_after(
    mut command: std::process::Command,
    random: &mut SplitMix64,
    longest: Duration,
) -> std::process::ExitStatus {
    let mut child = command.spawn().expect("throng starts");
    let pause = longest.mul_f64(random.below(1_000) as f64 / 1_000.0);
    tokio::time::sleep(pause).await;
    let id = child.id().to_string();
    // It may have ended already.
    let _ = std::process::Command::new("kill").args(["-TERM", &id]).status();
    tokio::task::spawn_blocking(move || child.wait().expect("ended")).await.expect("waited")
}

#[tokio::test]
async fn sigterm_leaves_no_refresh_claimed_by_a_dead_process() {
    let shop = Shop::new(30_000, "");
    let mut random = SplitMix64::new(11);
    for round in 0..ROUNDS {
        // A job has more to do each time: its audiences are queued again.
        let verb = if round % 2 == 0 { "build" } else { "up" };
        let mut command = command(verb, &shop);
        match verb {
            "up" => command.args(["--listen", "127.0.0.1:0"]),
            _ => command.arg("--force"),
        };
        let status = terminate_after(command, &mut random, Duration::from_secs(4)).await;
        let code = status.code();
        // Without a code the signal ended the process, before its handler was installed.
        assert!(matches!(code, None | Some(0 | 75)), "{verb}, round {round}: {status}");
        if shop.path("data/ledger.db").exists() {
            let states = shop.states().await;
            assert!(
                !states.contains(&RefreshState::Processing),
                "{verb}, round {round}, {status}: {states:?}"
            );
        }
    }
    let built = command("build", &shop).status().expect("throng runs");
    assert!(built.success());
    assert_eq!(shop.states().await, [RefreshState::Completed; AUDIENCES as usize]);
}

#[tokio::test]
async fn a_job_builds_its_share_and_uploads_nothing() {
    let sim = MetaSim::start(MetaSimConfig::default()).await.expect("simulator");
    let sim_url = sim.url();
    let more = format!(
        "destinations:\n  - {{ name: meta, platform: meta, account: act_1, access_token: \"env:THRONG_META_TOKEN\", base_url: \"{sim_url}\" }}\nsyncs:\n  - name: to-meta\n    audience: a0\n    destination: meta\n    mode: replace\n    identifiers:\n      key: customer\n      sql: SELECT DISTINCT customer, customer || '@example.com' AS email FROM shop.visits\n      columns: {{ email: EMAIL }}\n"
    );
    let shop = Shop::new(500, &more);
    let mut job = command("build", &shop);
    job.args(["--index", "0", "--completions", "2"]);
    assert!(job.status().expect("throng runs").success());
    let ledger = shop.ledger().await;
    let mut built = Vec::new();
    for row in ledger.audiences().await.expect("audiences") {
        if row.current.is_some() {
            built.push(row.name.to_string());
        }
    }
    assert_eq!(built, ["a0", "a2"]);
    assert!(ledger.runs(None, 10).await.expect("runs").is_empty(), "a sync was planned");
    let created = get(&http(), format!("{sim_url}/sim/oracle/audiences")).await.expect("simulator");
    assert_eq!(created["audiences"], json!([]), "an audience was created on the platform");
    sim.shutdown().await;
}

/// The threads and open files of a process.
#[derive(Debug)]
struct Usage {
    threads: usize,
    handles: usize,
}

fn usage(process: u32) -> Usage {
    let folder = Path::new("/proc").join(process.to_string());
    let count = |name: &str| std::fs::read_dir(folder.join(name)).expect("listed").count();
    Usage { threads: count("task"), handles: count("fd") }
}

#[tokio::test]
async fn threads_and_handles_do_not_grow_with_refreshes() {
    let shop = Shop::new(3_000, "");
    let node = NodeProcess::start(&shop.path("data"), &shop.path("throng.yaml"), &shop.path("log"));
    let http = http();
    let all_built = async |rounds: u64| {
        wait_for("every refresh", async || {
            let answer = get(&http, format!("{}/v1/audiences", node.url)).await?;
            let list = answer["audiences"].as_array().ok_or("no list")?.clone();
            let open = list
                .iter()
                .find(|audience| audience["current"]["version"].as_u64().unwrap_or(0) < rounds);
            open.map_or(Ok(()), |open| Err(open.to_string()))
        })
        .await;
    };
    all_built(1).await;
    let first = usage(node.id());
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    // Runtime, builders, blocking calls, the ledger's connections, and some of libraries.
    let most = 2 * cores + 32 + 32;
    for round in 2..=8 {
        for audience in 0..AUDIENCES {
            let path = format!("{}/v1/audiences/a{audience}/refresh?force=true", node.url);
            let answer = post(&http, path).json(&json!({})).send().await.expect("answered");
            assert!(answer.status().is_success(), "{}", answer.status());
        }
        all_built(round).await;
        let now = usage(node.id());
        assert!(now.threads <= most, "round {round}: {now:?}, at first {first:?}");
        assert!(now.handles <= first.handles + 32, "round {round}: {now:?}, at first {first:?}");
    }
    assert!(node.terminate());
}
