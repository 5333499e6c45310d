//! A file destination in a node: the rows of the files are the audience, and a change is an add file and a remove
//! file. Folders that a sent spec may write to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use throng_access::{LimitsConfig, LimitsError};
use throng_model::{HashedIdentifier, SystemClock};
use throng_server::{Node, NodeConfig, NodeError};
use throng_store::{RunState, SyncRun, Verdict};

use crate::Client;
use crate::activation::{checked, refresh, settled};

const SPEC: &str = r#"version: 1
sources:
  - { name: shop, path: data }
audiences:
  - { name: buyers, sql: "SELECT customer FROM shop.purchases", guard: { max_shrink_percent: 100 } }
destinations:
  - { name: files, platform: file, folder: out }
syncs:
  - name: buyers-in-files
    audience: buyers
    destination: files
    mode: MODE
    batch_rows: 4
    identifiers:
      sql: "SELECT customer, email FROM shop.customers"
      key: customer
      columns: { email: EMAIL }
"#;

struct Shop(tempfile::TempDir);

impl Shop {
    fn new(mode: &str) -> Self {
        let shop = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(shop.path("data")).unwrap();
        std::fs::create_dir(shop.path("out")).unwrap();
        std::fs::write(shop.path("throng.yaml"), SPEC.replace("MODE", mode)).unwrap();
        // Customer 0 has no row.
        let lines: String = (1..20).map(|c| format!("c{c},C{c}@Example.com\n")).collect();
        std::fs::write(shop.path("data/customers.csv"), format!("customer,email\n{lines}"))
            .unwrap();
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn buyers(&self, customers: impl Iterator<Item = u32>) {
        let lines: String = customers.map(|c| format!("c{c}\n")).collect();
        let temporary = self.path("aside");
        std::fs::write(&temporary, format!("customer\n{lines}")).unwrap();
        std::fs::rename(temporary, self.path("data/purchases.csv")).unwrap();
    }

    async fn node(&self, limits: LimitsConfig) -> Result<Node, NodeError> {
        Node::start(NodeConfig {
            accept_log_loss: Vec::new(),
            data_dir: self.path("node"),
            spec: throng_spec::load(&self.path("throng.yaml")).unwrap(),
            join: false,
            roles: None,
            listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
            clock: Arc::new(SystemClock),
            access_clock: Arc::new(SystemClock),
            recovery: throng_server::Recovery::default(),
            env: Arc::new(|_: &str| None),
            limits,
            query_worker: crate::query_worker(),
        })
        .await
    }

    /// The only audience's folder.
    fn audience(&self) -> PathBuf {
        let is_hidden =
            |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with('.');
        let mut folders: Vec<PathBuf> = std::fs::read_dir(self.path("out"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !is_hidden(path))
            .collect();
        let folder = folders.pop().unwrap();
        assert!(folders.is_empty(), "one sync, one folder");
        folder
    }

    /// The sorted rows of the files of a run whose names have an ending, and the number of files.
    fn rows(&self, run: &SyncRun, ending: &str) -> (Vec<String>, usize) {
        let run = format!("run-{:010}-", run.id.0);
        let names = std::fs::read_dir(self.audience()).unwrap();
        let paths = names.map(|entry| entry.unwrap().path()).filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(&run) && name.ends_with(ending)
        });
        let paths: Vec<PathBuf> = paths.collect();
        let mut rows: Vec<String> = paths.iter().flat_map(|path| rows_of(path)).collect();
        rows.sort();
        (rows, paths.len())
    }
}

/// The rows of a file with the column EMAIL.
fn rows_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(str::to_owned);
    assert_eq!(lines.next().as_deref(), Some("EMAIL"));
    lines.collect()
}

/// The hashed addresses of customers, sorted.
fn hashes(customers: impl Iterator<Item = u32>) -> Vec<String> {
    let hash = |c: u32| HashedIdentifier::of_normalised(&format!("c{c}@example.com")).to_hex();
    let mut hashes: Vec<String> = customers.map(hash).collect();
    hashes.sort();
    hashes
}

#[tokio::test(flavor = "multi_thread")]
async fn files_have_the_audience_and_later_its_changes() {
    let shop = Shop::new("mirror");
    shop.buyers(0..10);
    let node = shop.node(LimitsConfig::default()).await.unwrap();
    let client = Client::of(&node);
    let first = settled(&node, "delivery", |run| run.state == RunState::Completed).await;
    assert_eq!((first.read, first.sent, first.pending), (10, 9, 0));
    assert_eq!(json!(first.skipped), json!({ "no_identifiers": 1 }));
    assert_eq!(shop.rows(&first, "-add.csv"), (hashes(1..10), 3));
    assert_eq!(shop.rows(&first, "-remove.csv").1, 0);
    assert_eq!(checked(&node).await, (Verdict::Passed, vec![]));
    let task = node.context().ledger.task_of_run(first.id).await.unwrap();
    let receipts = node.context().ledger.receipts(task.id).await.unwrap();
    assert_eq!(receipts.iter().map(|receipt| receipt.received).sum::<u64>(), 9);
    assert!(
        receipts.iter().all(|receipt| receipt.received == receipt.rows && receipt.invalid == 0)
    );

    // Customer 1 is removed, customer 10 is added.
    shop.buyers((0..11).filter(|c| *c != 1));
    refresh(&client).await;
    let wanted = |run: &SyncRun| run.state == RunState::Completed && run.id != first.id;
    let second = settled(&node, "second delivery", wanted).await;
    assert_eq!((second.sent, second.pending), (2, 0));
    assert_eq!(shop.rows(&second, "-add.csv"), (hashes(10..11), 1));
    assert_eq!(shop.rows(&second, "-remove.csv"), (hashes(1..2), 1));
    assert_eq!(shop.rows(&first, "-add.csv"), (hashes(1..10), 3), "existing files remain");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_complete_although_its_last_rows_are_skipped() {
    let shop = Shop::new("replace");
    // Most buyers have no row in the table of customers, so the last ones are skipped.
    shop.buyers((1..4).chain(100..140));
    let node = shop.node(LimitsConfig::default()).await.unwrap();
    let run = settled(&node, "delivery", |run| run.state == RunState::Completed).await;
    assert_eq!((run.sent, run.pending), (3, 0));
    let (rows, files) = shop.rows(&run, "-set.csv");
    assert_eq!(rows, hashes(1..4));
    let text = std::fs::read(shop.audience().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(manifest["rows"], 3);
    assert_eq!(manifest["run"], run.id.0);
    assert_eq!(manifest["files"].as_array().unwrap().len(), files);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_does_not_write_to_the_data_directory() {
    for folder in ["node", "node/objects", ""] {
        let shop = Shop::new("mirror");
        shop.buyers(0..1);
        let mut limits = LimitsConfig::default();
        limits.flags.allow_destination_folder(&shop.path(folder));
        let error = shop.node(limits).await.map(drop).expect_err("it is refused");
        let refused = matches!(error, NodeError::Limits(LimitsError::WritesToDataDir { .. }));
        assert!(refused, "{folder}: {error}");
    }
}
