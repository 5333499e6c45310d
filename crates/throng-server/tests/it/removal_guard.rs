//! Runs that would remove too many of the delivered users wait for approval.

use serde_json::json;
use throng_model::Timestamp;
use throng_sim::meta::{FaultKind, FaultRule, FaultScript};
use throng_store::{AlertKind, NewAlert, RunState, SyncRun};

use crate::activation::{Shop, approve, deny, recorded, refresh, request_run, settled};
use crate::{Client, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_corrects_the_effects_of_a_failed_run() {
    let shop = Shop::new().await;
    shop.buyers(2..12);
    deny(&shop.sim, 2);
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
    approve(&client, held.id).await;
    let done = |r: &SyncRun| r.id == held.id && r.state == RunState::Completed;
    let run = settled(&node, "next", done).await;
    assert_eq!((run.adds, run.removes), (8, 10));
    assert!(shop.holds(12..20));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_could_not_create_its_audience_has_delivered_nobody() {
    let shop = Shop::new().await;
    shop.buyers(2..12);
    let denied = FaultKind::Error { code: 294, subcode: None, status: 400, message: String::new() };
    let rule = FaultRule::new(denied).on_call("create_audience").nth([1]);
    shop.sim.set_faults(FaultScript::new(1, [rule])).unwrap();
    let node = shop.node().await;
    let failed = settled(&node, "failure", |r| r.state == RunState::Failed).await;
    assert_eq!((failed.sent, failed.pending), (0, 10));
    assert!(shop.sim.audiences().is_empty());
    node.shutdown().await;

    // All of its users leave the audience: none of them is on the platform, so nobody has to approve that.
    shop.buyers(12..20);
    let node = shop.node().await;
    refresh(&Client::of(&node)).await;
    let next = settled(&node, "next", |r| r.to_version == 2 && r.state != RunState::Active).await;
    assert_eq!(next.state, RunState::Completed, "{:?}", next.reason);
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
    recorded(&node).await;
    // The audience is deleted on the platform: the replace session fails, and the next version is sent in one too.
    shop.sim.reset();
    request_run(&client, &json!({ "full": true })).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn approving_a_held_account_does_not_release_removals() {
    let shop = Shop::new().await;
    shop.buyers(2..12);
    let node = shop.node().await;
    let client = Client::of(&node);
    settled(&node, "first", |r| r.state == RunState::Completed).await;
    recorded(&node).await;
    // As after failed checks.
    let ledger = &node.context().ledger;
    let subject = throng_activation::account_alert_subject(&"account".parse().unwrap());
    let message = "its tasks are held".to_owned();
    let alert = NewAlert { kind: AlertKind::RunHeld, subject, message };
    ledger.raise_alert(&alert, Timestamp(0)).await.unwrap();

    shop.buyers(12..20);
    refresh(&client).await;
    let held = settled(&node, "held", |r| r.state == RunState::Held).await;
    let reason = held.reason.unwrap();
    assert!(reason.starts_with("10 of the 10 users delivered so far"), "{reason}");
    let path = format!("/v1/runs/{}/approve", held.id);
    let (status, body) = client.post(&path, &json!({})).await;
    assert_eq!(status, 409, "{body}");
    let help = body["error"]["help"].as_str().unwrap();
    assert!(help.contains("throng sync approve --destination account"), "{body}");
    let (status, body) = client.post("/v1/destinations/account/approve", &json!({})).await;
    assert_eq!((status, body), (200, json!({ "approved": 0 })));
    assert_eq!(ledger.run(held.id).await.unwrap().state, RunState::Held);
    let alert = ledger.open_alert(AlertKind::RunHeld, "buyers-on-meta").await.unwrap().unwrap();
    // With what sends it, and what to do if it should not be sent.
    for part in [&*reason, "`throng sync approve", "`throng audience rollback"] {
        assert!(alert.contains(part), "{alert}");
    }
    assert!(shop.holds(2..12));

    approve(&client, held.id).await;
    let done = |r: &SyncRun| r.id == held.id && r.state == RunState::Completed;
    settled(&node, "approved", done).await;
    assert!(shop.holds(12..20));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_replaces_a_held_run() {
    let shop = Shop::new().await;
    shop.buyers(2..12);
    let node = shop.node().await;
    let client = Client::of(&node);
    settled(&node, "first", |r| r.state == RunState::Completed).await;
    recorded(&node).await;
    shop.buyers(12..20);
    refresh(&client).await;
    settled(&node, "held", |r| r.to_version == 2 && r.state == RunState::Held).await;

    // It is held as well, with its own figures.
    shop.buyers((2..4).chain(12..20));
    refresh(&client).await;
    let held = settled(&node, "again", |r| r.to_version == 3 && r.state == RunState::Held).await;
    let reason = held.reason.unwrap();
    assert!(reason.starts_with("8 of the 10 users delivered so far"), "{reason}");
    assert!(shop.holds(2..12));

    // Within the limit.
    shop.buyers(2..10);
    refresh(&client).await;
    let run = settled(&node, "sent", |r| r.to_version == 4 && r.state == RunState::Completed).await;
    assert_eq!((run.adds, run.removes), (0, 2));
    assert!(shop.holds(2..10));
    let ledger = &node.context().ledger;
    let alert = ledger.open_alert(AlertKind::RunHeld, "buyers-on-meta").await.unwrap();
    assert_eq!(alert, None);
    let runs = ledger.runs(None, 9).await.unwrap();
    let versions: Vec<u64> = runs.iter().map(|run| run.to_version).collect();
    assert_eq!(versions, [4, 1], "the held runs are discarded");
    node.shutdown().await;
}
