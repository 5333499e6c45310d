//! Runs that would remove too many of the delivered users wait for approval.

use serde_json::json;
use throng_sim::meta::{FaultKind, FaultRule, FaultScript};
use throng_store::{RunState, SyncRun};

use crate::activation::{Shop, refresh, settled};
use crate::{Client, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_corrects_the_effects_of_a_failed_run() {
    let shop = Shop::new().await;
    shop.buyers(2..12);
    // The permission is missing at the second batch.
    let denied = FaultKind::Error { code: 294, subcode: None, status: 400, message: String::new() };
    let rule = FaultRule::new(denied).on_call("add_users").nth([2]);
    shop.sim.set_faults(FaultScript::new(1, [rule])).unwrap();
    let node = shop.node().await;
    let failed = settled(&node, "failure", |r| r.state == RunState::Failed).await;
    assert_eq!((failed.sent, failed.pending), (4, 6));
    // The alert follows the run's end.
    let ledger = &node.context().ledger;
    until("the alert says why", async || {
        let alerts = ledger.alerts(5).await.unwrap();
        alerts.first().is_some_and(|alert| alert.message.contains("ads_management"))
    })
    .await;
    node.shutdown().await;

    // The task is not requeued; the next version removes the users that were sent, after an approval: no version was
    // delivered, but rows were.
    shop.buyers(12..20);
    let node = shop.node().await;
    let client = Client::of(&node);
    refresh(&client).await;
    let held = settled(&node, "held", |r| r.state == RunState::Held).await;
    assert_eq!((held.from_version, held.to_version), (None, 2));
    let reason = held.reason.unwrap();
    assert!(reason.starts_with("10 of the 10 users delivered so far"), "{reason}");
    let (status, body) = client.post(&format!("/v1/runs/{}/approve", held.id), &json!({})).await;
    assert_eq!(status, 200, "{body}");
    let done = |r: &SyncRun| r.id == held.id && r.state == RunState::Completed;
    let run = settled(&node, "next", done).await;
    assert_eq!((run.adds, run.removes), (8, 10));
    assert!(shop.holds(12..20));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_list_is_compared_with_the_delivered_state() {
    let shop = Shop::new().await;
    // Only the customers 2 to 5 have identifiers.
    shop.buyers((2..6).chain(100..120));
    let node = shop.node().await;
    let client = Client::of(&node);
    settled(&node, "first", |r| r.state == RunState::Completed).await;
    let ledger = &node.context().ledger;
    until("the first run is recorded", async || {
        !ledger.delivered_records().await.unwrap().is_empty()
    })
    .await;
    // The audience is deleted on the platform: the replace session fails, and the next version is sent in one too.
    shop.sim.reset();
    let request = json!({ "full": true });
    let (status, body) = client.post("/v1/syncs/buyers-on-meta/run", &request).await;
    assert_eq!(status, 200, "{body}");
    settled(&node, "failure", |r| r.state == RunState::Failed).await;

    // Of the members only 3 of 24 leave, of the delivered users 3 of 4.
    shop.buyers((5..6).chain(100..120));
    refresh(&client).await;
    let held = settled(&node, "held", |r| r.state == RunState::Held).await;
    assert_eq!(held.to_version, 2);
    let reason = held.reason.unwrap();
    assert!(reason.starts_with("3 of the 4 users delivered so far"), "{reason}");
    node.shutdown().await;
}
