//! A node whose disk is full refuses writes, reports that, and continues when there is space; a
//! data directory whose parts do not belong together is refused.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use throng_backends::{BackendError, StampError};
use throng_model::{Clock as _, ManualClock};
use throng_server::{Node, NodeConfig, NodeError, Recovery};
use throng_sim::SmallDisk;

use crate::{Client, SPEC, noon, spec, start};

fn impression(clock: &ManualClock, id: usize) -> String {
    let at = clock.now().to_string();
    json!({ "id": format!("i-{id}"), "kind": "impression", "ad_group": "shoes", "at": at })
        .to_string()
        + "\n"
}

async fn actual(client: &Client) -> i64 {
    let answer = client.get("/v1/budgets/shoes").await;
    answer["state"]["actual_micros"].as_i64().unwrap()
}

/// POSTs one event. Returns whether it was accepted; a refusal must have `Retry-After`.
async fn send(client: &Client, line: String) -> bool {
    let request = client.request("POST", "/v1/events");
    let request = request.header("content-type", "application/x-ndjson").body(line);
    let response = request.send().await.unwrap();
    if response.status() == 200 {
        return true;
    }
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    false
}

/// Waits until `/readyz` returns this status and names these classes of problems.
async fn ready(client: &Client, status: u16, problems: &[&str]) {
    let asking = async {
        loop {
            let response = client.request("GET", "/readyz").send().await.unwrap();
            let found = response.status();
            let answer: serde_json::Value = response.json().await.unwrap();
            let named = answer["problems"].as_array().cloned().unwrap_or_default();
            if found == status && problems.iter().all(|class| named.contains(&json!(class))) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(120), asking).await;
    answer.unwrap_or_else(|_| panic!("/readyz does not return {status}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_reported_and_the_node_continues_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), 16) else { return };
    let clock = noon();
    let node = start(&dir.path().join("node"), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    let (mut sent, mut accepted) = (0, 0);
    for _ in 0..2 {
        for _ in 0..20 {
            assert!(send(&client, impression(&clock, sent)).await);
            sent += 1;
            accepted += 1;
        }
        ready(&client, 200, &[]).await;
        let filler = disk.fill().unwrap();
        // The node's own writes use up the pages that were still free.
        ready(&client, 503, &["disk"]).await;
        for _ in 0..50 {
            accepted += usize::from(send(&client, impression(&clock, sent)).await);
            sent += 1;
        }
        assert_eq!(actual(&client).await, accepted as i64 * 100_000, "while the disk is full");
        fs::remove_file(filler).unwrap();
        // Without a restart.
        ready(&client, 200, &[]).await;
        for _ in 0..20 {
            assert!(send(&client, impression(&clock, sent)).await);
            sent += 1;
            accepted += 1;
        }
        assert_eq!(actual(&client).await, accepted as i64 * 100_000);
    }
    node.shutdown().await;
    let node = start(&dir.path().join("node"), spec(SPEC), &clock).await.unwrap();
    assert_eq!(actual(&Client::of(&node)).await, accepted as i64 * 100_000, "after a restart");
    node.shutdown().await;
}

/// Without a ledger the API and the pages return 503 with `Retry-After`. A 500 would be a bug of
/// Throng.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_ledger_a_node_returns_503_on_every_route_and_page() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let client = Client::of(&node);
    // As if the ledger had closed its connections.
    node.context().ledger.close().await.unwrap();
    let routes = [
        "/v1/audiences",
        "/v1/syncs",
        "/v1/runs",
        "/v1/tasks",
        "/v1/tasks/1",
        "/v1/removals",
        "/v1/alerts",
        "/v1/alerts/deliveries",
        "/v1/nodes",
        "/v1/gates",
        "/v1/spec",
        "/v1/budgets",
        "/v1/budgets/shoes",
        "/v1/why/audience/buyers",
        "/v1/tokens",
        "/v1/sessions",
    ];
    let pages = ["/", "/audiences", "/activation", "/activation/tasks/1", "/alerts", "/access"];
    let mut refused = Vec::new();
    for path in routes.into_iter().chain(pages) {
        let response = client.request("GET", path).send().await.unwrap();
        let status = response.status().as_u16();
        // Some routes are served from memory.
        assert!([200, 503].contains(&status), "{path}: {status}");
        if status == 503 {
            assert_eq!(response.headers()["retry-after"], "1", "{path}");
            assert!(response.text().await.unwrap().contains("ledger"), "{path}");
            refused.push(path);
        }
    }
    for path in ["/v1/audiences", "/v1/tasks/1", "/v1/removals", "/audiences", "/activation"] {
        assert!(refused.contains(&path), "{path} is not among {refused:?}");
    }
    node.shutdown().await;
}

async fn start_with(dir: &Path, recovery: Recovery) -> Result<Node, NodeError> {
    let clock = noon();
    Node::start(NodeConfig {
        accept_log_loss: Vec::new(),
        data_dir: dir.to_owned(),
        spec: spec(SPEC),
        join: false,
        roles: None,
        listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
        clock,
        access_clock: noon(),
        recovery,
        env: std::sync::Arc::new(|_: &str| None),
        limits: Default::default(),
        query_worker: crate::query_worker(),
    })
    .await
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

/// Runs a node that accepts some events, and stops it.
async fn run(dir: &Path, first: usize) -> i64 {
    let node = start_with(dir, Recovery::Refuse).await.unwrap();
    let (client, clock) = (Client::of(&node), noon());
    for id in first..first + 5 {
        assert!(send(&client, impression(&clock, id)).await);
    }
    let actual = actual(&client).await;
    node.shutdown().await;
    actual
}

/// The parts of a data directory that an operator may copy one by one.
const PARTS: [&[&str]; 4] =
    [&["ledger.db", "ledger.sum"], &["log"], &["objects/checkpoints"], &["objects"]];

#[tokio::test(flavor = "multi_thread")]
async fn no_part_of_an_older_copy_is_mixed_with_newer_parts() {
    let dir = tempfile::tempdir().unwrap();
    let (live, older) = (dir.path().join("node"), dir.path().join("older"));
    run(&live, 0).await;
    copy(&live, &older);
    let money = run(&live, 5).await;
    // Every selection of parts from the older copy, except none and all.
    for choice in 1_u32..15 {
        let mixed = dir.path().join(format!("mixed-{choice}"));
        copy(&live, &mixed);
        // `objects` holds `objects/checkpoints`: it is copied first, so that either may be older.
        for part in [3, 0, 1, 2] {
            let source = if choice & (1 << part) == 0 { &live } else { &older };
            for name in PARTS[part] {
                let target = mixed.join(name);
                if target.is_dir() {
                    fs::remove_dir_all(&target).unwrap();
                }
                copy(&source.join(name), &target);
            }
        }
        let refused = start_with(&mixed, Recovery::Refuse).await.expect_err("a mix");
        assert!(
            matches!(
                refused,
                NodeError::Backend(BackendError::Stamp(
                    StampError::Older { .. } | StampError::LedgerOlder { .. }
                ))
            ),
            "choice {choice:#b}: {refused:?}"
        );
        assert!(refused.to_string().contains("throng restore"), "{refused}");
        fs::remove_dir_all(&mixed).unwrap();
    }
    for (whole, expected) in [(&live, money), (&older, 500_000)] {
        let node = start_with(whole, Recovery::Refuse).await.unwrap();
        assert_eq!(actual(&Client::of(&node)).await, expected);
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_ledger_is_refused_unless_a_new_one_is_requested() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("node");
    let money = run(&live, 0).await;
    for name in ["ledger.db", "ledger.sum"] {
        fs::remove_file(live.join(name)).unwrap();
    }
    let refused = start_with(&live, Recovery::Refuse).await.expect_err("no ledger");
    assert!(
        matches!(refused, NodeError::Backend(BackendError::LedgerMissing { .. })),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("--new-ledger"), "{refused}");
    // An empty file is not a ledger either.
    fs::write(live.join("ledger.db"), "").unwrap();
    let refused = start_with(&live, Recovery::Refuse).await.expect_err("no ledger");
    assert!(
        matches!(refused, NodeError::Backend(BackendError::LedgerMissing { .. })),
        "{refused:?}"
    );
    let node = start_with(&live, Recovery::NewLedger).await.unwrap();
    assert_eq!(actual(&Client::of(&node)).await, money, "log and checkpoints exist");
    node.shutdown().await;
    // From then on the new ledger belongs to the other stores.
    start_with(&live, Recovery::Refuse).await.unwrap().shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_another_data_directory_are_refused_unless_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (live, other) = (dir.path().join("node"), dir.path().join("other"));
    run(&live, 0).await;
    run(&other, 0).await;
    fs::remove_dir_all(live.join("log")).unwrap();
    copy(&other.join("log"), &live.join("log"));
    let refused = start_with(&live, Recovery::Refuse).await.expect_err("another log");
    assert!(
        matches!(refused, NodeError::Backend(BackendError::Stamp(StampError::Foreign { .. }))),
        "{refused:?}"
    );
    start_with(&live, Recovery::AcceptMismatch).await.unwrap().shutdown().await;
    start_with(&live, Recovery::Refuse).await.unwrap().shutdown().await;
}
