//! Money: counted once, to the micro, through every kind of restart; and told to gates.

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use throng_gate::feed::Frame;
use throng_gate::{Applied, Catalog, Gate};
use throng_log::FileLog;
use throng_model::{AdGroupName, Clock, ManualClock, Micros};
use throng_server::{Node, NodeError};

use crate::{Client, PATIENCE, SPEC, noon, sent, spec, start, until};

fn line(clock: &ManualClock, kind: &str, ad_group: &str, id: impl std::fmt::Display) -> String {
    let at = clock.now().to_string();
    json!({ "id": format!("{kind}-{id}"), "kind": kind, "ad_group": ad_group, "at": at })
        .to_string()
        + "\n"
}

async fn actual(client: &Client, ad_group: &str) -> i64 {
    let answer = client.get(&format!("/v1/budgets/{ad_group}")).await;
    answer["state"]["actual_micros"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_count_once_and_close_the_ad_group() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    let mut lines = String::new();
    for n in 0..9 {
        lines += &line(&clock, "impression", "shoes", n);
    }
    for (accepted, duplicates) in [(9, 0), (0, 9)] {
        let said = client.events(lines.clone()).await;
        assert_eq!(said["accepted"], json!(accepted));
        assert_eq!(said["duplicates"], json!(duplicates));
    }
    assert_eq!(actual(&client, "shoes").await, 900_000);
    client.events(line(&clock, "impression", "shoes", 9)).await;
    client.events(line(&clock, "impression", "hats", 9)).await;
    assert_eq!(actual(&client, "shoes").await, 1_000_000);
    assert_eq!(actual(&client, "hats").await, 0, "hats are paid by click");

    let states = client.get("/v1/budgets").await;
    let open: Vec<(&str, bool)> = states["budgets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["name"].as_str().unwrap(), s["open"].as_bool().unwrap()))
        .collect();
    assert_eq!(open, [("hats", true), ("shoes", false)]);
    until("the history tells", async || {
        let why = client.get("/v1/why/ad_group/shoes").await;
        why["history"][0]["what"] == "closed"
    })
    .await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_restart_loses_or_doubles_a_micro() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    for round in 0..6 {
        let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
        let client = Client::of(&node);
        assert_eq!(actual(&client, "hats").await, round * 2_000_000);
        // Sent twice, and all that was sent before too.
        for _ in 0..2 {
            let lines: String = (0..=round).map(|n| line(&clock, "click", "hats", n)).collect();
            client.events(lines).await;
        }
        assert_eq!(actual(&client, "hats").await, (round + 1) * 2_000_000);
        if round % 3 == 1 {
            node.context().budgets.checkpoint().await.unwrap();
        }
        if round % 2 == 0 {
            node.shutdown().await;
        } else {
            crash(node).await;
        }
    }
}

/// Ends a node without a last checkpoint, as a kill does, and waits until its log is free.
async fn crash(node: Node) {
    let log = node.context().data_dir.join("log");
    drop(node);
    until("everything of the node is gone", async || FileLog::open(&log, 4).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_keep_the_price_that_they_came_under() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    Client::of(&node).events(line(&clock, "impression", "shoes", 1)).await;
    crash(node).await;
    let dearer = spec(&SPEC.replace("\"0.10\"", "\"0.20\""));
    let node = start(dir.path(), dearer, &clock).await.unwrap();
    let client = Client::of(&node);
    assert_eq!(actual(&client, "shoes").await, 100_000, "replayed under the old price");
    client.events(line(&clock, "impression", "shoes", 2)).await;
    assert_eq!(actual(&client, "shoes").await, 300_000);
    // And back, while the node runs.
    let body = sent(SPEC);
    let (status, answer) = client.post("/v1/spec/apply", &body).await;
    assert_eq!((status, &answer["version"]), (200, &json!(3)), "{answer}");
    client.events(line(&clock, "impression", "shoes", 3)).await;
    assert_eq!(actual(&client, "shoes").await, 400_000);
    node.shutdown().await;
}

/// Reads the feed into a gate until it is as wanted.
async fn follow(client: &Client, gate: &Gate, mut wanted: impl FnMut(&Gate) -> bool) {
    let response = client.request("GET", "/v1/feed?gate=test-1").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut stream = response.bytes_stream();
    let mut buffer = Vec::new();
    let reading = async {
        while !wanted(gate) {
            buffer.extend_from_slice(&stream.next().await.unwrap().unwrap());
            while buffer.len() >= 4 {
                let length = u32::from_le_bytes(buffer[..4].try_into().unwrap()) as usize;
                if buffer.len() < 4 + length {
                    break;
                }
                let frame = Frame::decode(&buffer[4..4 + length]).unwrap();
                assert_ne!(gate.apply(&frame), Applied::NeedKeyframe);
                buffer.drain(..4 + length);
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the feed tells");
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_follow_the_feed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    let catalog: Catalog = serde_json::from_value(client.get("/v1/catalog").await).unwrap();
    let gate = Gate::new(catalog, Duration::from_secs(60));
    let shoes: AdGroupName = "shoes".parse().unwrap();
    client.events(line(&clock, "impression", "shoes", 1)).await;
    let spent = |gate: &Gate| gate.spend(&shoes).map(|s| s.actual);
    follow(&client, &gate, |gate| spent(gate) == Some(Micros(100_000))).await;
    // A new connection after more has happened: a keyframe tells all of it.
    let lines: String = (2..12).map(|n| line(&clock, "impression", "shoes", n)).collect();
    client.events(lines).await;
    follow(&client, &gate, |gate| spent(gate) == Some(Micros(1_100_000))).await;
    let decision = gate.decide(None, &[shoes], clock.now());
    assert_eq!(decision.refused[0].1.code(), "out_of_budget");

    let report = json!({ "versions": { "0": 7, "1": 9 } });
    let (status, _) = client.post("/v1/gates/test-1/applied", &report).await;
    assert_eq!(status, 200);
    let gates: Value = client.get("/v1/gates").await;
    assert_eq!(gates["gates"][0]["id"], "test-1");
    assert_eq!(gates["gates"][0]["versions"], json!([[0, 7], [1, 9]]));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deciding_can_record_the_insertion() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    let question = json!({ "ad_groups": ["shoes", "gloves"], "record_insertion": true });
    let (status, answer) = client.post("/v1/decide", &question).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["allowed"], json!(["shoes"]));
    assert_eq!(answer["refused"][0]["ad_group"], "gloves");
    assert!(answer["insertion_id"].is_string());
    let state = client.get("/v1/budgets/shoes").await;
    assert_eq!(state["state"]["in_flight_micros"], json!(50_000), "{state}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_little_room_on_the_disk_events_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    // More than any disk has.
    let settings = format!("{SPEC}node:\n  min_free_disk_bytes: {}\n", 1u64 << 50);
    let node = start(dir.path(), spec(&settings), &clock).await.unwrap();
    let client = Client::of(&node);
    let request = client.request("POST", "/v1/events");
    let request = request.header("content-type", "application/x-ndjson");
    let response = request.body(line(&clock, "impression", "shoes", 1)).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "5");
    let said: Value = response.json().await.unwrap();
    assert_eq!(said["error"]["code"], "unavailable", "{said}");
    assert_eq!(actual(&client, "shoes").await, 0);
    let response = client.request("GET", "/readyz").send().await.unwrap();
    assert_eq!(response.status(), 503);
    let said: Value = response.json().await.unwrap();
    assert_eq!(said["problems"], json!(["disk"]), "{said}");
    node.shutdown().await;
    // With room for it, the same events count once.
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    client.events(line(&clock, "impression", "shoes", 1)).await;
    assert_eq!(actual(&client, "shoes").await, 100_000);
    assert_eq!(client.request("GET", "/readyz").send().await.unwrap().status(), 200);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_another_number_of_partitions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    start(dir.path(), spec(SPEC), &clock).await.unwrap().shutdown().await;
    let count = dir.path().join("log/partitions");
    assert_eq!(std::fs::read_to_string(&count).unwrap().trim(), "4");
    std::fs::write(&count, "5\n").unwrap();
    let refused = start(dir.path(), spec(SPEC), &clock).await.unwrap_err();
    let expected = matches!(refused, NodeError::LogPartitions { found: 5, stored: 4 });
    assert!(expected, "{refused}");
    std::fs::write(&count, "4\n").unwrap();
    start(dir.path(), spec(SPEC), &clock).await.unwrap().shutdown().await;
}
