//! Alerts about gates that are silent, about a feed that is stale, and about records of the event log that are skipped.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use serde_json::{Value, json};
use throng_model::{Clock as _, ManualClock};
use throng_server::Node;

use crate::{Client, SPEC, noon, spec, start, until};

/// As often as a gate reports.
const STEP: Duration = Duration::from_secs(10);

/// A node with one gate.
struct Deployment {
    client: Client,
    clock: Arc<ManualClock>,
}

impl Deployment {
    /// How many alerts of a kind about an object there are, and how many of them are open.
    async fn alerts(&self, kind: &str, subject: &str) -> (usize, usize) {
        let response = self.client.get("/v1/alerts").await;
        let all = response["alerts"].as_array().unwrap();
        let is_of = |alert: &&Value| alert["kind"] == kind && alert["subject"] == subject;
        let own: Vec<&Value> = all.iter().filter(is_of).collect();
        (own.len(), own.iter().filter(|alert| alert["resolved_at"].is_null()).count())
    }

    async fn report(&self, partition: u32, version: u64) {
        let versions = json!({ "versions": { (partition.to_string()): version } });
        let (status, body) = self.client.post("/v1/gates/shop-1/applied", &versions).await;
        assert_eq!(status, 200, "{body}");
    }

    /// The newest version of a partition; `None` if there is no frame yet.
    async fn newest(&self, partition: u32) -> Option<u64> {
        let list = self.client.get("/v1/gates").await;
        let partitions = list["partitions"].as_array().unwrap();
        partitions.iter().find(|of| of["partition"] == partition)?["version"].as_u64()
    }
}

/// Advances the clock, and waits until all partitions have a frame of the new time: on a busy machine the clock of the
/// test would leave them behind, and they would be stale.
async fn advance(node: &Node, clock: &ManualClock) {
    clock.advance(STEP);
    let now = clock.now();
    until("the feed follows the clock", async || {
        let frames = node.context().budgets.feed_positions();
        !frames.is_empty() && frames.iter().all(|frame| frame.at >= now)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_gate_and_a_stale_feed_raise_alerts() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let settings = format!("{SPEC}node:\n  budget_alerts: true\n");
    let node = start(dir.path(), spec(&settings), &clock).await.unwrap();
    let shop = Deployment { client: Client::of(&node), clock: Arc::clone(&clock) };
    let (silent, stale) = (("gate_silent", "gate shop-1"), ("feed_stale", "partition 0"));

    shop.report(0, 1).await;
    until("the silent gate raises an alert", async || {
        advance(&node, &shop.clock).await;
        shop.alerts(silent.0, silent.1).await == (1, 1)
    })
    .await;
    shop.report(0, 1).await;
    until("it is resolved when the gate reports", async || {
        shop.alerts(silent.0, silent.1).await == (1, 0)
    })
    .await;

    // It reports again and again, and applies no frame.
    until("the stale feed raises an alert", async || {
        advance(&node, &shop.clock).await;
        shop.report(0, 1).await;
        shop.alerts(stale.0, stale.1).await == (1, 1)
    })
    .await;
    until("it is resolved when the gate follows", async || {
        if let Some(version) = shop.newest(0).await {
            shop.report(0, version).await;
        }
        shop.alerts(stale.0, stale.1).await.1 == 0
    })
    .await;

    until("the gate is silent for good", async || {
        shop.clock.advance(STEP);
        shop.alerts(silent.0, silent.1).await.1 == 1
    })
    .await;
    shop.clock.advance(Duration::from_secs(25 * 3_600));
    until("the gate is forgotten", async || shop.alerts(silent.0, silent.1).await.1 == 0).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_open_ones_are_resolved() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let settings = format!("{SPEC}node:\n  budget_alerts: true\n");
    let node = start(dir.path(), spec(&settings), &clock).await.unwrap();
    let before = Deployment { client: Client::of(&node), clock: Arc::clone(&clock) };
    before.report(0, 1).await;
    until("the silent gate raises an alert", async || {
        before.clock.advance(STEP);
        before.alerts("gate_silent", "gate shop-1").await == (1, 1)
    })
    .await;
    node.shutdown().await;
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let after = Deployment { client: Client::of(&node), clock: Arc::clone(&clock) };
    until("it is resolved", async || after.alerts("gate_silent", "gate shop-1").await == (1, 0))
        .await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_record_raises_an_alert_for_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(SPEC), &clock).await.unwrap();
    let shop = Deployment { client: Client::of(&node), clock: Arc::clone(&clock) };
    let invalid = vec![Bytes::from_static(b"not an event")];
    node.context().log.append(2, clock.now(), invalid).await.unwrap();
    until("the record raises an alert", async || {
        // For the next checkpoint, with which the list is written. In small steps, so that a slow machine does not
        // reach the next day.
        shop.clock.advance(Duration::from_secs(1));
        shop.alerts("records_quarantined", "partition 2").await == (1, 1)
    })
    .await;
    shop.clock.advance(Duration::from_secs(25 * 3_600));
    until("it is resolved", async || {
        shop.alerts("records_quarantined", "partition 2").await == (1, 0)
    })
    .await;
    node.shutdown().await;
}
