//! Files of a data directory that are damaged, swapped or missing: a node never gives a wrong
//! answer while it reports that it is not degraded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use throng_ledger::SqliteLedger;
use throng_model::ManualClock;
use throng_server::{Impact, Node, ProblemClass};
use throng_sim::damage::{Mutation, copy_folder};
use throng_store::{AudienceLedger, RefreshState};

use crate::{Client, noon, start};

/// How many mutations are tried; `cargo xtask attack` asks for more.
const MUTATIONS: u64 = 24;

const CUSTOMERS: u32 = 400;

/// A folder with a spec of three audiences and a data directory in which two of them have two
/// versions.
struct Shop(tempfile::TempDir);

impl Shop {
    async fn built() -> Self {
        let shop = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(shop.path("lake")).unwrap();
        shop.write_visits(0);
        std::fs::write(
            shop.path("throng.yaml"),
            "version: 1\nsources:\n  - { name: shop, path: lake }\naudiences:\n\
             \x20 - { name: even, sql: \"SELECT customer FROM shop.visits WHERE n % 2 = 0\" }\n\
             \x20 - { name: odd, sql: \"SELECT customer FROM shop.visits WHERE n % 2 = 1\" }\n\
             \x20 - { name: some, sql: \"SELECT customer FROM shop.visits WHERE n < 40\" }\n",
        )
        .unwrap();
        let node = shop.start(&shop.path("node")).await;
        wait_served(&node, &[("even", 1), ("odd", 1), ("some", 1)]).await;
        shop.write_visits(20);
        let client = Client::of(&node);
        for name in ["even", "odd"] {
            let path = format!("/v1/audiences/{name}/refresh");
            assert_eq!(client.post(&path, &json!({})).await.0, 200);
        }
        wait_served(&node, &[("even", 2), ("odd", 2), ("some", 1)]).await;
        node.shutdown().await;
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Customers `first` to `first + CUSTOMERS`, each with a number.
    fn write_visits(&self, first: u32) {
        let lines: String = (first..first + CUSTOMERS)
            .map(|n| format!("{{\"customer\":\"c{n:05}\",\"n\":{n}}}\n"))
            .collect();
        std::fs::write(self.path("lake/visits.json"), lines).unwrap();
    }

    async fn start(&self, data_dir: &Path) -> Node {
        self.try_start(data_dir, &noon()).await.unwrap()
    }

    async fn try_start(
        &self,
        data_dir: &Path,
        clock: &Arc<ManualClock>,
    ) -> Result<Node, throng_server::NodeError> {
        let spec = throng_spec::load(&self.path("throng.yaml")).unwrap();
        start(data_dir, spec, clock).await
    }

    /// Removes the source: refreshes fail, and the published versions stay.
    fn remove_source(&self) {
        std::fs::remove_file(self.path("lake/visits.json")).unwrap();
    }

    /// A copy of the data directory.
    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.path(name);
        copy_folder(&self.path("node"), &copy).unwrap();
        copy
    }
}

/// Waits until these versions are served.
async fn wait_served(node: &Node, versions: &[(&str, u64)]) {
    let ctx = node.context();
    let mut changes = ctx.changes.subscribe();
    let waiting = async {
        loop {
            let index = ctx.membership.load_full();
            let served = |(name, version): &(&str, u64)| {
                let file = index.snapshot(&name.parse().unwrap());
                file.is_some_and(|file| file.meta().version == *version)
            };
            if versions.iter().all(served) {
                return;
            }
            // A lagging receiver checks again, too; so does the poll interval of the node.
            let _ = tokio::time::timeout(Duration::from_millis(100), changes.recv()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.unwrap();
}

/// The lookup of every customer.
async fn answers(client: &Client) -> Vec<Value> {
    let keys: Vec<String> = (0..CUSTOMERS + 20).map(|n| format!("c{n:05}")).collect();
    let (status, answer) = client.post("/v1/lookups", &json!({ "keys": keys })).await;
    assert_eq!(status, 200);
    answer["users"].as_array().unwrap().clone()
}

async fn ready(node: &Node) -> Value {
    let response = Client::of(node).request("GET", "/readyz").send().await.unwrap();
    response.json().await.unwrap()
}

/// The object of a version below the data directory.
async fn object(dir: &Path, name: &str, version: u64) -> PathBuf {
    let ledger = SqliteLedger::open(&dir.join("ledger.db")).await.unwrap();
    let snapshot = ledger.snapshot(&name.parse().unwrap(), version).await.unwrap();
    dir.join("objects").join(snapshot.path)
}

fn replace(path: &Path, bytes: &[u8]) {
    // The files are read-only.
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn problem(node: &Node, key: &str) -> Option<String> {
    let problems = node.context().health.problems();
    let found = problems.into_iter().find(|p| p.class == ProblemClass::Snapshot && p.key == key)?;
    assert_eq!(found.impact, Impact::Degraded);
    Some(found.detail)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_mutation_of_objects_gives_a_wrong_answer_while_the_node_is_not_degraded() {
    let mutations = std::env::var("THRONG_MUTATIONS").ok();
    let mutations = mutations.map_or(MUTATIONS, |count| count.parse().unwrap());
    let shop = Shop::built().await;
    let node = shop.start(&shop.path("node")).await;
    let before = answers(&Client::of(&node)).await;
    assert_eq!(ready(&node).await["degraded"], json!(false));
    node.shutdown().await;
    shop.remove_source();
    let mut seen = BTreeMap::<&str, u64>::new();
    for seed in 0..mutations {
        let dir = shop.copy("damaged");
        let mutation = Mutation::choose(&dir.join("objects"), seed).unwrap();
        mutation.apply(&dir.join("objects")).unwrap();
        let outcome = match shop.try_start(&dir, &noon()).await {
            // A node that refuses to start gives no answer.
            Err(_) => "not started",
            Ok(node) => {
                let is_healthy = ready(&node).await["degraded"] == json!(false);
                let after = answers(&Client::of(&node)).await;
                assert!(after == before || !is_healthy, "seed {seed}: {mutation}: wrong and ready");
                node.shutdown().await;
                match (after == before, is_healthy) {
                    (true, true) => "right",
                    (true, false) => "right and degraded",
                    (false, _) => "degraded",
                }
            }
        };
        *seen.entry(outcome).or_default() += 1;
        std::fs::remove_dir_all(dir).unwrap();
    }
    println!("{mutations} mutations: {seen:?}");
    // Most files are dictionary segments, without which nothing can be served.
    assert!(seen.get("degraded").is_some_and(|count| *count > mutations / 4), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_with_the_name_of_another_is_not_served_and_its_audience_is_refreshed() {
    let shop = Shop::built().await;
    let dir = shop.path("node");
    // Complete files with valid checksums, of the same size.
    let (even, odd) = (object(&dir, "even", 2).await, object(&dir, "odd", 2).await);
    let (even_bytes, odd_bytes) = (std::fs::read(&even).unwrap(), std::fs::read(&odd).unwrap());
    replace(&even, &odd_bytes);
    replace(&odd, &even_bytes);

    let node = shop.start(&dir).await;
    // The older version is served and the node is degraded until the refresh is done.
    wait_served(&node, &[("even", 3), ("odd", 3)]).await;
    let users = answers(&Client::of(&node)).await;
    let user = |n: usize| &users[n]["audiences"];
    assert_eq!((user(30), user(31)), (&json!(["even", "some"]), &json!(["odd", "some"])));
    assert_eq!((user(410), user(411)), (&json!(["even"]), &json!(["odd"])));
    let ledger = &node.context().ledger;
    let history =
        ledger.history(Some((&throng_store::SubjectKind::Audience, "even")), 100).await.unwrap();
    let why = &history
        .iter()
        .find(|entry| entry.what == throng_store::HistoryEvent::Damaged)
        .unwrap()
        .why;
    assert!(why.contains("version 2 of audience `odd`"), "{why}");
    assert!(why.contains("version 1 is served in its place"), "{why}");
    let cleared = async {
        while problem(&node, "even").is_some() || problem(&node, "odd").is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), cleared).await.unwrap();
    assert_eq!(ready(&node).await, json!({ "ready": true, "degraded": false, "problems": [] }));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_version_is_served_and_the_node_is_degraded_while_refreshes_fail() {
    let shop = Shop::built().await;
    let dir = shop.path("node");
    let (even, some) = (object(&dir, "even", 2).await, object(&dir, "some", 1).await);
    let cut = std::fs::read(&even).unwrap();
    replace(&even, &cut[..cut.len() / 2]);
    std::fs::remove_file(&some).unwrap();
    // The refreshes fail.
    shop.remove_source();
    let node = shop.start(&dir).await;
    let detail = problem(&node, "even").unwrap();
    assert!(detail.contains("version 1 is served in its place"), "{detail}");
    assert!(problem(&node, "some").is_some() && problem(&node, "odd").is_none());
    let said = ready(&node).await;
    assert_eq!(said, json!({ "ready": true, "degraded": true, "problems": ["snapshot"] }));
    let users = answers(&Client::of(&node)).await;
    // Version 1 of `even`, version 2 of `odd`; `some` is unknown.
    assert_eq!(users[410]["audiences"], json!([]));
    assert_eq!(users[411]["audiences"], json!(["odd"]));
    assert_eq!(users[30], json!({ "key": "c00030", "audiences": ["even"], "unknown": ["some"] }));
    // A refresh was tried, and is not tried forever.
    let even = "even".parse().unwrap();
    let failed = async {
        loop {
            let row = node.context().ledger.audience(&even).await.unwrap().unwrap();
            let refresh = row.refresh.unwrap();
            if refresh.failures > 0 || refresh.state == RefreshState::Failed {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), failed).await.unwrap();

    // A damaged version cannot become the current one by hand.
    let client = Client::of(&node);
    let (status, answer) =
        client.post("/v1/audiences/even/rollback", &json!({ "version": 2 })).await;
    assert_eq!(status, 409, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("version 2 of `even` cannot be served"), "{message}");
    let (status, _) = client.post("/v1/audiences/even/rollback", &json!({ "version": 1 })).await;
    assert_eq!(status, 200);
    assert!(problem(&node, "even").is_none(), "version 1 is complete, and a person chose it");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_data_directory_is_missing_accepts_no_work() {
    let shop = Shop::built().await;
    let dir = shop.path("node");
    let node = shop.start(&dir).await;
    // The token of the client lies in the directory.
    let client = Client::of(&node);
    let before = answers(&client).await;
    std::fs::rename(&dir, shop.path("moved")).unwrap();
    let lost = node.context().clone();
    let waiting = async {
        while !lost.health.classes().contains(&ProblemClass::DataDirectory) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.unwrap();
    let response = client.request("GET", "/readyz").send().await.unwrap();
    assert_eq!(response.status(), 503);
    let said: Value = response.json().await.unwrap();
    assert!(said["problems"].as_array().unwrap().contains(&json!("data_directory")), "{said}");
    for path in ["/v1/events", "/v1/audiences/even/refresh", "/v1/spec/apply"] {
        assert_eq!(client.post(path, &json!({})).await.0, 503, "{path}");
    }
    // Lookups from memory are still right.
    assert_eq!(answers(&client).await, before);
    node.shutdown().await;
}
