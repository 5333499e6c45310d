//! Spend: counted once, to the micro, through every kind of restart; and published to gates.

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use throng_backends::BackendError;
use throng_gate::feed::Frame;
use throng_gate::{Catalog, FrameOutcome, Gate};
use throng_log::FileLog;
use throng_model::{AdGroupName, Clock, ManualClock, Micros};
use throng_server::{Node, NodeError};

use crate::{Client, SPEC, TIMEOUT, noon, sent, spec, start, until};

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

    // No insertion was reported, so nothing is learned of rates.
    let declared = |rate: f64| json!({ "declared": rate, "learned": null, "low": null, "high": null, "trials": 0 });
    for (ad_group, action) in [("shoes", json!(null)), ("hats", declared(0.1))] {
        let rates = json!({ "impression": declared(0.5), "action": action, "placements": [] });
        assert_eq!(client.get(&format!("/v1/budgets/{ad_group}")).await["rates"], rates);
        assert_eq!(client.get(&format!("/v1/why/ad_group/{ad_group}")).await["rates"], rates);
    }

    let states = client.get("/v1/budgets").await;
    let open: Vec<(&str, bool)> = states["budgets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["name"].as_str().unwrap(), s["open"].as_bool().unwrap()))
        .collect();
    assert_eq!(open, [("hats", true), ("shoes", false)]);
    until("the history has the transition", async || {
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
        // Sent twice, together with all that was sent before.
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

/// Ends a node without a last checkpoint, as a kill does, and waits until its log is unlocked.
async fn crash(node: Node) {
    let log = node.context().data_dir.join("log");
    drop(node);
    until("the log is unlocked", async || FileLog::open(&log, 4).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_keep_the_price_of_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    Client::of(&node).events(line(&clock, "impression", "shoes", 1)).await;
    crash(node).await;
    let expensive = spec(&SPEC.replace("\"0.10\"", "\"0.20\""));
    let node = start(dir.path(), expensive, &clock).await.unwrap();
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

/// Applies the feed to a gate until `wanted` holds.
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
                assert_ne!(gate.apply(&frame), FrameOutcome::NeedKeyframe);
                buffer.drain(..4 + length);
            }
        }
    };
    tokio::time::timeout(TIMEOUT, reading).await.expect("the feed has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_follow_the_feed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    let catalog: Catalog = serde_json::from_value(client.get("/v1/catalog").await).unwrap();
    // By these a gate notices that feed and snapshots are of different deployments.
    let deployment = format!("{:016x}", throng_membership::seed_check(node.context().seed));
    for path in ["/v1/catalog", "/v1/feed?format=3"] {
        let response = client.request("GET", path).send().await.unwrap();
        assert_eq!(response.headers()["throng-deployment"], deployment.as_str(), "{path}");
    }
    let gate = Gate::new(catalog, Duration::from_secs(60));
    let shoes: AdGroupName = "shoes".parse().unwrap();
    client.events(line(&clock, "impression", "shoes", 1)).await;
    let spent = |gate: &Gate| gate.spend(&shoes).map(|s| s.actual);
    follow(&client, &gate, |gate| spent(gate) == Some(Micros(100_000))).await;
    // A new connection after more events: a keyframe has them all.
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
async fn with_little_free_disk_space_events_are_refused() {
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
    assert_eq!(said["error"]["message"], "the event log is unavailable: disk full", "{said}");
    let question = json!({ "ad_groups": ["shoes"], "record_insertion": true });
    let (status, said) = client.post("/v1/decide", &question).await;
    assert_eq!(status, 503, "{said}");
    assert_eq!(said["error"]["message"], "the event log is unavailable: disk full", "{said}");
    assert!(said["error"]["help"].as_str().unwrap().contains("free some space"), "{said}");
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
    let expected =
        matches!(refused, NodeError::Backend(BackendError::LogPartitions { found: 5, stored: 4 }));
    assert!(expected, "{refused}");
    std::fs::write(&count, "4\n").unwrap();
    start(dir.path(), spec(SPEC), &clock).await.unwrap().shutdown().await;
}

/// An event of this moment, with an insertion if one is named.
fn event(clock: &ManualClock, id: &str, kind: &str, insertion: Option<&str>) -> String {
    let at = clock.now().to_string();
    let mut event = json!({ "id": id, "kind": kind, "ad_group": "shoes", "at": at });
    if let Some(insertion) = insertion {
        event["insertion_id"] = json!(insertion);
        event["inserted_at"] = json!(at);
    }
    event.to_string() + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_of_a_kind_and_an_ad_group() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    let one_request = event(&clock, "r1", "insertion", Some("r1"))
        + &event(&clock, "r1", "impression", Some("r1"))
        + &event(&clock, "r1", "click", Some("r1"))
        + &json!({ "id": "r1", "kind": "click", "ad_group": "hats", "at": clock.now().to_string() })
            .to_string();
    for (accepted, duplicates) in [(4, 0), (0, 4)] {
        let said = client.events(one_request.clone()).await;
        assert_eq!(said["accepted"], json!(accepted), "{said}");
        assert_eq!(said["duplicates"], json!(duplicates), "{said}");
    }
    assert_eq!(
        (actual(&client, "shoes").await, actual(&client, "hats").await),
        (100_000, 2_000_000)
    );
    crash(node).await;
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    assert_eq!(
        (actual(&client, "shoes").await, actual(&client, "hats").await),
        (100_000, 2_000_000)
    );
    node.shutdown().await;
}

/// Over HTTP, and from the log after a crash.
#[tokio::test(flavor = "multi_thread")]
async fn events_count_at_their_own_price_and_settle_their_insertion() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let mut node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let at = clock.now().to_string();
    let insertion = |id: &str, price: Value| {
        json!({
            "id": id, "kind": "insertion", "ad_group": "hats", "at": at, "insertion_id": id,
            "price": price, "impression_rate": 0.8, "action_rate": "0.05", "placement": "home",
        })
        .to_string()
            + "\n"
    };
    // Without the time of its insertion.
    let click = |id: &str, of: &str| {
        let ad_group = "hats";
        json!({ "id": id, "kind": "click", "ad_group": ad_group, "at": at, "insertion_id": of })
    };
    let insertions = insertion("i1", json!("3.00")) + &insertion("i2", json!(0.5));
    let said = Client::of(&node).events(insertions).await;
    assert_eq!(said["accepted"], json!(2), "{said}");
    // 3 × 0.8 × 0.05 and 0.5 × 0.8 × 0.05; then with one click, and with two.
    let mut clearing = click("c2", "i2");
    clearing["cpm"] = json!(425.0001);
    for (clicked, in_flight, spent) in [
        (None, 120_000 + 20_000, 0),
        (Some(click("c1", "i1")), 20_000, 3_000_000),
        (Some(clearing), 0, 3_425_000),
    ] {
        let client = Client::of(&node);
        if let Some(click) = clicked {
            let said = client.events(click.to_string()).await;
            assert_eq!(said["accepted"], json!(1), "{said}");
        }
        let state = client.get("/v1/budgets/hats").await;
        assert_eq!(state["state"]["in_flight_micros"], json!(in_flight), "{state}");
        assert_eq!(actual(&client, "hats").await, spent);
        crash(node).await;
        node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
        let client = Client::of(&node);
        let state = client.get("/v1/budgets/hats").await;
        assert_eq!(state["state"]["in_flight_micros"], json!(in_flight), "{state}");
        assert_eq!(actual(&client, "hats").await, spent);
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insertion_has_one_impression() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    client.events(event(&clock, "i", "insertion", Some("n1"))).await;
    let state = client.get("/v1/budgets/shoes").await;
    assert_eq!(state["state"]["in_flight_micros"], json!(50_000), "{state}");
    // Seen: what was in flight is spent, and no longer in flight.
    client.events(event(&clock, "m", "impression", Some("n1"))).await;
    let state = client.get("/v1/budgets/shoes").await;
    assert_eq!(state["state"]["in_flight_micros"], json!(0), "{state}");
    let said = client.events(event(&clock, "m again", "impression", Some("n1"))).await;
    assert_eq!((&said["accepted"], &said["repeated"]), (&json!(0), &json!(1)), "{said}");
    let said = client.events(event(&clock, "m", "impression", Some("n1"))).await;
    assert_eq!((&said["duplicates"], &said["repeated"]), (&json!(1), &json!(0)), "{said}");
    client.events(event(&clock, "other", "impression", Some("never inserted"))).await;
    assert_eq!(actual(&client, "shoes").await, 200_000);
    let (status, _) = client
        .post(
            "/v1/spec/apply",
            &sent(&SPEC.replace("name: shoes,", "name: shoes, once_per_insertion: false,")),
        )
        .await;
    assert_eq!(status, 200);
    let said = client.events(event(&clock, "m third", "impression", Some("n1"))).await;
    assert_eq!((&said["accepted"], &said["repeated"]), (&json!(1), &json!(0)), "{said}");
    assert_eq!(actual(&client, "shoes").await, 300_000);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_sum_overflows_is_rejected_and_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let expensive = SPEC.replace("\"0.10\"", "\"9223372036854.775807\"");
    let node = start(dir.path(), spec(&expensive), &clock).await.unwrap();
    let client = Client::of(&node);
    client.events(event(&clock, "a", "impression", None)).await;
    for _ in 0..2 {
        let said = client.events(event(&clock, "b", "impression", None)).await;
        assert_eq!(
            (&said["duplicates"], &said["rejected_count"]),
            (&json!(0), &json!(1)),
            "{said}"
        );
    }
    node.shutdown().await;
}

/// The days that the API returns, each as (day, actual).
async fn days(client: &Client) -> Vec<(i64, i64)> {
    let answer = client.get("/v1/budgets/shoes").await;
    let days = answer["days"].as_array().unwrap();
    days.iter().map(|d| (d["day"].as_i64().unwrap(), d["actual"].as_i64().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_ad_group_and_another_zone_keep_the_spend() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    let lines: String = (0..10).map(|n| line(&clock, "impression", "shoes", n)).collect();
    client.events(lines.clone()).await;
    let lists_shoes = |line: &&str| line.contains("name: shoes");
    let removed: String =
        SPEC.lines().filter(|line| !lists_shoes(line)).map(|line| format!("{line}\n")).collect();
    let (status, answer) = client.post("/v1/spec/apply", &sent(&removed)).await;
    assert_eq!(status, 200, "{answer}");
    let said = client.events(lines.clone()).await;
    assert_eq!(said["rejected_count"], json!(10), "{said}");
    crash(node).await;
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    assert_eq!(actual(&client, "shoes").await, 1_000_000);
    let said = client.events(lines).await;
    assert_eq!(said["duplicates"], json!(10), "{said}");
    for zone in ["Pacific/Kiritimati", "America/New_York", "UTC"] {
        let moved = SPEC.replace("time_zone: UTC", &format!("time_zone: {zone}"));
        assert!(zone == "UTC" || moved != SPEC, "the spec names the zone");
        let (status, answer) = client.post("/v1/spec/apply", &sent(&moved)).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(actual(&client, "shoes").await, 1_000_000, "{zone}");
        assert_eq!(days(&client).await[0].1, 1_000_000, "{zone}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_count_for_their_day() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let client = Client::of(&node);
    client.events(line(&clock, "impression", "shoes", 1)).await;
    let late = line(&clock, "impression", "shoes", "late");
    let today = days(&client).await[0].0;
    clock.advance(Duration::from_secs(13 * 3600));
    client.events(late).await;
    client.events(line(&clock, "impression", "shoes", 2)).await;
    assert_eq!(days(&client).await, [(today + 1, 100_000), (today, 200_000)]);
    node.shutdown().await;
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let name: AdGroupName = "shoes".parse().unwrap();
    let stored = node.context().ledger.budget_days(&name, 9).await.unwrap();
    let stored: Vec<i64> = stored.iter().map(|row| row.actual.0).collect();
    assert_eq!(stored, [100_000, 200_000]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_counts_its_own_decisions_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    // One ad reaches the budget; no frame is published for a minute.
    let expensive = SPEC.replace("\"0.10\"", "\"2.00\"") + "node:\n  feed_interval_ms: 60000\n";
    let node = start(dir.path(), spec(&expensive), &clock).await.unwrap();
    let client = Client::of(&node);
    let question = json!({ "ad_groups": ["shoes"], "record_insertion": true });
    let asked =
        futures::future::join_all((0..8).map(|_| client.post("/v1/decide", &question))).await;
    let allowed = asked.iter().filter(|(_, answer)| answer["allowed"] == json!(["shoes"])).count();
    assert_eq!(allowed, 1, "{asked:?}");
    let (_, answer) = client.post("/v1/decide", &json!({ "ad_groups": ["shoes"] })).await;
    assert_eq!(answer["refused"][0]["code"], "out_of_budget", "{answer}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_hours_ago_are_in_files_that_the_next_leader_reads() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let settings = format!("{SPEC}node:\n  dedupe_hours: 48\n");
    let node = start(dir.path(), spec(&settings), &clock).await.unwrap();
    let client = Client::of(&node);
    let first = line(&clock, "impression", "shoes", 1);
    client.events(first.clone()).await;
    clock.advance(Duration::from_secs(30 * 3600));
    client.events(line(&clock, "impression", "shoes", 2)).await;
    node.context().budgets.checkpoint().await.unwrap();
    let files = || -> usize {
        let folder = node.context().data_dir.join("objects/ids");
        let partitions = std::fs::read_dir(folder).unwrap();
        partitions.map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap().count()).sum()
    };
    assert_eq!(files(), 1);
    crash(node).await;
    let node = start(dir.path(), spec(&settings), &clock).await.unwrap();
    let client = Client::of(&node);
    let said = client.events(first.clone()).await;
    assert_eq!(said["duplicates"], json!(1), "{said}");
    clock.advance(Duration::from_secs(19 * 3600));
    let said = client.events(first.clone()).await;
    assert_eq!(
        said["rejected"][0]["message"], "2026-11-23T12:00:00Z is more than 48 hours ago",
        "{said}"
    );
    // The same id again, after the window.
    client.events(line(&clock, "impression", "shoes", 1)).await;
    assert_eq!(actual(&client, "shoes").await, 100_000);
    node.shutdown().await;
    // Without the file duplicates cannot be recognized.
    std::fs::remove_dir_all(dir.path().join("objects/ids")).unwrap();
    let refused = start(dir.path(), spec(&settings), &clock).await.unwrap_err();
    assert!(format!("{refused:?}").contains("Ids"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_per_thousand_is_exact() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let by_the_thousand =
        SPEC.replace("per: impression, price: \"0.10\"", "per: thousand, price: \"1.234567\"");
    let node = start(dir.path(), spec(&by_the_thousand), &clock).await.unwrap();
    let client = Client::of(&node);
    let send = async |from: u32, to: u32| {
        let lines: String = (from..to).map(|n| line(&clock, "impression", "shoes", n)).collect();
        client.events(lines).await;
    };
    send(0, 1).await;
    assert_eq!(actual(&client, "shoes").await, 1_235, "rounded for display");
    send(1, 500).await;
    assert_eq!(actual(&client, "shoes").await, 617_284);
    crash(node).await;
    let node = start(dir.path(), spec(&by_the_thousand), &clock).await.unwrap();
    let client = Client::of(&node);
    let lines: String = (500..1_000).map(|n| line(&clock, "impression", "shoes", n)).collect();
    client.events(lines).await;
    assert_eq!(actual(&client, "shoes").await, 1_234_567);
    let state = client.get("/v1/budgets/shoes").await;
    assert_eq!(
        (&state["state"]["open"], &state["state"]["currency"]),
        (&json!(false), &json!("USD"))
    );
    node.shutdown().await;
}
