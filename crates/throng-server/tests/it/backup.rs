//! Backups of a node that runs and writes, and their restores.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use throng_backends::LocalStores;
use throng_backup::{BackupError, Manifest, Progress};
use throng_model::{Clock as _, SystemClock, Timestamp};
use throng_server::{Node, NodeConfig, Recovery};
use throng_sim::zone_far_from_midnight;

use crate::{Client, TIMEOUT};

const SPEC: &str = r#"version: 1
sources:
  - { name: shop, path: data }
audiences:
  - { name: buyers, sql: "SELECT customer FROM shop.purchases", keep_snapshots: 2 }
advertisers:
  - { name: shop, currency: USD, time_zone: UTC }
campaigns:
  - { name: autumn, advertiser: shop }
ad_groups:
  - { name: shoes, campaign: autumn, per: impression, price: "0.10", daily_budget: "1000000.00", impression_rate: 0.5 }
"#;

/// The spec, with a time zone in which no day ends during the test, and `more`.
fn write_spec(dir: &Path, more: &str) {
    let zone = format!("time_zone: {}", zone_far_from_midnight(SystemClock.now()));
    let text = SPEC.replace("time_zone: UTC", &zone) + more;
    fs::write(dir.join("throng.yaml"), text).unwrap();
}

fn purchases(dir: &Path, customers: u64) {
    let lines: String = (0..customers).map(|c| format!("c{c}\n")).collect();
    let temporary = dir.join("purchases.tmp");
    fs::write(&temporary, format!("customer\n{lines}")).unwrap();
    fs::rename(temporary, dir.join("data/purchases.csv")).unwrap();
}

async fn start(dir: &Path, data_dir: &Path) -> Node {
    Node::start(NodeConfig {
        accept_log_loss: Vec::new(),
        data_dir: data_dir.to_owned(),
        spec: throng_spec::load(&dir.join("throng.yaml")).unwrap(),
        join: false,
        roles: None,
        listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
        clock: Arc::new(SystemClock),
        access_clock: Arc::new(SystemClock),
        recovery: Recovery::Refuse,
        env: Arc::new(|_: &str| None),
        limits: Default::default(),
        query_worker: crate::query_worker(),
    })
    .await
    .unwrap()
}

fn no_progress() -> Progress {
    Arc::new(|_, _| ())
}

async fn backup(data_dir: &Path, to: &Path) -> Result<Manifest, BackupError> {
    throng_backup::backup(&LocalStores, data_dir, to, SystemClock.now(), no_progress()).await
}

async fn restore(from: &Path, dir: &Path) -> Result<Manifest, BackupError> {
    throng_backup::restore(Arc::new(LocalStores), from, dir, no_progress()).await
}

/// All events have the same time, so that they can be sent again unchanged.
fn impression(at: Timestamp, id: usize) -> String {
    json!({ "id": format!("i-{id}"), "kind": "impression", "ad_group": "shoes", "at": at.to_string() })
        .to_string()
        + "\n"
}

/// Writes to a node until it is stopped.
struct Load {
    at: Timestamp,
    stop: AtomicBool,
    /// The numbers of events that were sent and that were acknowledged.
    sent: AtomicUsize,
    acknowledged: AtomicUsize,
}

impl Load {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            at: SystemClock.now(),
            stop: AtomicBool::new(false),
            sent: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
        })
    }

    async fn events(self: Arc<Self>, client: Client) {
        while !self.stop.load(Ordering::SeqCst) {
            let id = self.sent.fetch_add(1, Ordering::SeqCst);
            let response = client.events(impression(self.at, id)).await;
            assert_eq!(response["accepted"], json!(1));
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Refreshes an audience that grows by one user each time.
    async fn refreshes(self: Arc<Self>, client: Client, dir: PathBuf) {
        for round in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            purchases(&dir, 100 + round);
            let before = client.get("/v1/audiences/buyers").await["current"]["version"].clone();
            client.post("/v1/audiences/buyers/refresh", &json!({})).await;
            published(&client, &before).await;
        }
    }
}

/// Waits until another version than `before` is served.
async fn published(client: &Client, before: &Value) {
    let asking = async {
        while client.get("/v1/audiences/buyers").await["current"]["version"] == *before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, asking).await.expect("a version is published");
}

async fn actual(client: &Client) -> i64 {
    let answer = client.get("/v1/budgets/shoes").await;
    answer["state"]["actual_micros"].as_i64().unwrap()
}

async fn is_buyer(client: &Client, user: u64) -> bool {
    let found: Value = client.get(&format!("/v1/users/c{user}/audiences")).await;
    found["audiences"] == json!(["buyers"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_writing_node_is_a_prefix_of_its_events() {
    let dir = tempfile::tempdir().unwrap();
    let (top, live) = (dir.path(), dir.path().join("node"));
    fs::create_dir(top.join("data")).unwrap();
    write_spec(top, "");
    purchases(top, 100);
    let node = start(top, &live).await;
    published(&Client::of(&node), &Value::Null).await;
    let load = Load::new();
    let events = tokio::spawn(Arc::clone(&load).events(Client::of(&node)));
    let refreshes = tokio::spawn(Arc::clone(&load).refreshes(Client::of(&node), top.to_owned()));
    let mut backups: Vec<(PathBuf, usize, usize, Manifest)> = Vec::new();
    for name in ["folder", "file.tar", "file.tar.zst", "again"] {
        let target = load.acknowledged.load(Ordering::SeqCst) + 20;
        let growing = async {
            while load.acknowledged.load(Ordering::SeqCst) < target {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, growing).await.expect("events are accepted");
        let least = load.acknowledged.load(Ordering::SeqCst);
        let made = backup(&live, &top.join(name)).await.unwrap();
        backups.push((top.join(name), least, load.sent.load(Ordering::SeqCst), made));
    }
    load.stop.store(true, Ordering::SeqCst);
    events.await.unwrap();
    refreshes.await.unwrap();
    node.shutdown().await;
    let all = load.sent.load(Ordering::SeqCst);
    for (number, (from, least, most, made)) in backups.into_iter().enumerate() {
        let target = top.join(format!("restored-{number}"));
        let restored = restore(&from, &target).await.unwrap();
        assert_eq!(restored, made);
        let node = start(top, &target).await;
        let client = Client::of(&node);
        let money = actual(&client).await;
        assert_eq!(money % 100_000, 0);
        let counted = usize::try_from(money / 100_000).unwrap();
        assert!((least..=most).contains(&counted), "{least} {counted} {most}");
        // The audience was published in this form: its users are the first ones.
        let audience = client.get("/v1/audiences/buyers").await;
        let members = audience["current"]["members"].as_u64().unwrap();
        assert!(members >= 100);
        assert!(is_buyer(&client, members - 1).await && !is_buyer(&client, members).await);
        // Lost events can be sent again, and count once: the backup has the first events.
        let lines: String = (0..all).map(|id| impression(load.at, id)).collect();
        let response = client.events(lines).await;
        assert_eq!(response["duplicates"], json!(counted), "a prefix, each event once");
        assert_eq!(actual(&client).await, all as i64 * 100_000);
        node.shutdown().await;
    }
}

/// The files below a folder, without those of query workers: their processes remove them when they end, which may be
/// after their node has stopped.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("spill") {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

/// A backup is not written to its own data directory, nor restored to where it would not become a data directory.
async fn wrong_places_are_refused(top: &Path, live: &Path, tar: &Path) {
    let before = files(live);
    for inside in ["inside", "log/inside.tar", "objects/new/inside"] {
        let refused = backup(live, &live.join(inside)).await.unwrap_err();
        assert!(matches!(refused, BackupError::Target { .. }), "{inside}: {refused:?}");
    }
    assert_eq!(files(live), before);
    let empty = top.join("empty");
    fs::create_dir(&empty).unwrap();
    std::os::unix::fs::symlink(&empty, top.join("link")).unwrap();
    fs::copy(tar, top.join("file.bin")).unwrap();
    for (from, to) in [("file.tar", "link"), ("folder", "folder/restored")] {
        let refused = restore(&top.join(from), &top.join(to)).await.unwrap_err();
        assert!(matches!(refused, BackupError::Target { .. }), "{to}: {refused:?}");
    }
    let refused = restore(&top.join("file.bin"), &empty).await.unwrap_err();
    assert!(matches!(refused, BackupError::NotABackup { .. }), "{refused:?}");
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_refused_and_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let (top, live) = (dir.path(), dir.path().join("node"));
    fs::create_dir(top.join("data")).unwrap();
    write_spec(top, "");
    purchases(top, 100);
    let node = start(top, &live).await;
    let client = Client::of(&node);
    client.events(impression(SystemClock.now(), 0)).await;
    node.shutdown().await;
    fs::write(live.join("admin.token"), "secret").unwrap();
    // The files of a stopped node are not changed.
    let before = files(&live);
    let made = backup(&live, &top.join("folder")).await.unwrap();
    assert_eq!(files(&live), before);
    assert!(made.files.iter().all(|file| !file.path.contains("token")));
    let tar = top.join("file.tar");
    backup(&live, &tar).await.unwrap();
    let again = backup(&live, &tar).await.unwrap_err();
    assert!(matches!(again, BackupError::Exists { .. }), "{again:?}");

    let target = top.join("restored");
    let whole = files(&top.join("folder"));
    for (path, bytes) in &whole {
        let mut bad = bytes.clone();
        match bad.get_mut(bytes.len() / 2) {
            Some(byte) => *byte ^= 1,
            None => bad.push(0),
        }
        fs::write(path, bad).unwrap();
        let refused = restore(&top.join("folder"), &target).await;
        assert!(refused.is_err(), "changed {}", path.display());
        fs::remove_file(path).unwrap();
        let refused = restore(&top.join("folder"), &target).await;
        assert!(refused.is_err(), "without {}", path.display());
        fs::write(path, bytes).unwrap();
        assert!(!target.exists());
    }
    wrong_places_are_refused(top, &live, &tar).await;
    let compressed = top.join("file.tar.zst");
    backup(&live, &compressed).await.unwrap();
    let archive = fs::read(&compressed).unwrap();
    fs::write(&compressed, &archive[..archive.len() / 2]).unwrap();
    let refused = restore(&compressed, &target).await.unwrap_err();
    assert!(matches!(refused, BackupError::NotABackup { .. }), "{refused:?}");
    let archive = fs::read(&tar).unwrap();
    // Truncated anywhere but in the padding at the end.
    let end = archive.iter().rposition(|byte| *byte != 0).unwrap();
    for cut in (0..end).step_by(end / 40 + 1) {
        fs::write(&tar, &archive[..cut]).unwrap();
        assert!(restore(&tar, &target).await.is_err(), "truncated at {cut}");
        assert!(!target.exists());
    }
    fs::write(&tar, &archive).unwrap();
    restore(&tar, &target).await.unwrap();
    let refused = restore(&tar, &target).await.unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty { .. }), "{refused:?}");
    let restored = start(top, &target).await;
    assert_eq!(actual(&Client::of(&restored)).await, 100_000);
    restored.shutdown().await;
}

/// The spend of past days is in files that checkpoints name.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_the_spend_of_past_days() {
    let dir = tempfile::tempdir().unwrap();
    let (top, live) = (dir.path(), dir.path().join("node"));
    fs::create_dir(top.join("data")).unwrap();
    write_spec(top, "node:\n  dedupe_hours: 72\n");
    purchases(top, 100);
    let node = start(top, &live).await;
    let client = Client::of(&node);
    let before = SystemClock.now().minus(Duration::from_secs(48 * 3600));
    client.events(impression(before, 0) + &impression(before, 1)).await;
    node.context().budgets.checkpoint().await.unwrap();
    client.events(impression(before, 2)).await;
    let slices = client.get("/v1/budgets/shoes").await["slices"].clone();
    assert_eq!(slices[0][1], json!(300_000), "{slices}");
    let made = backup(&live, &top.join("folder")).await.unwrap();
    let of_slices = made.files.iter().filter(|file| file.path.starts_with("objects/slices/"));
    assert_eq!(of_slices.count(), 1, "{:?}", made.files);
    node.shutdown().await;
    let target = top.join("restored");
    restore(&top.join("folder"), &target).await.unwrap();
    let node = start(top, &target).await;
    let restored = Client::of(&node).get("/v1/budgets/shoes").await["slices"].clone();
    assert_eq!(restored, slices);
    node.shutdown().await;
}
