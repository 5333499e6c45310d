//! Rows that a platform does not report as received: they may be on its list.

use serde_json::json;
use throng_server::Node;
use throng_sim::meta::{FaultKind, FaultRule, FaultScript};
use throng_store::RunState;

use crate::activation::{Shop, recorded, settled};
use crate::{Client, until};

/// The customers 2 to 11 are delivered. Those from 12 to 15 are added while every request loses its last row, so that three
/// of them reach the list, and the platform confirms none.
async fn with_unconfirmed_rows() -> (Shop, Node) {
    let shop = Shop::new().await;
    shop.buyers(2..12);
    let node = shop.node().await;
    settled(&node, "first", |r| r.state == RunState::Completed).await;
    recorded(&node).await;
    let short = FaultRule::new(FaultKind::WrongCounts { missing: 1 }).on_call("add_users");
    shop.sim.set_faults(FaultScript::new(1, [short])).unwrap();
    shop.buyers(2..16);
    shop.delivered(&node, 2).await;
    let is_done = |r: &throng_store::SyncRun| r.to_version == 2 && r.state == RunState::Completed;
    let run = settled(&node, "second", is_done).await;
    assert_eq!((run.adds, run.sent, run.rejected.get("not_confirmed")), (4, 0, Some(&4)));
    let audience = shop.sim.audiences().remove(0).id;
    assert_eq!(shop.sim.members(&audience).unwrap().len(), 13);
    shop.sim.set_faults(FaultScript::new(1, [])).unwrap();
    (shop, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_may_have_arrived_are_removed_when_their_users_leave() {
    let (shop, node) = with_unconfirmed_rows().await;
    shop.buyers(2..12);
    shop.delivered(&node, 3).await;
    let is_done = |r: &throng_store::SyncRun| r.to_version == 3 && r.state == RunState::Completed;
    let run = settled(&node, "third", is_done).await;
    assert_eq!((run.adds, run.removes, run.users_removed), (0, 4, 4));
    assert!(shop.holds(2..12));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn additions_that_are_not_confirmed_are_sent_again_once_their_destination_is_approved() {
    let (shop, node) = with_unconfirmed_rows().await;
    let ledger = &node.context().ledger;
    until("the retry has a time", async || {
        let records = ledger.delivered_records().await.unwrap();
        records.iter().any(|record| record.due == 0 && record.retry_at.is_some())
    })
    .await;
    let before = ledger.runs(None, 1).await.unwrap().remove(0).id;
    let client = Client::of(&node);
    let listed = client.get("/v1/runs?state=rejected").await["runs"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((&listed[0]["id"], &listed[0]["state"]), (&json!(before), &json!("completed")));
    assert_eq!(listed[0]["reason"], "none of its rows was accepted: 4 were rejected");
    let (status, body) = client.post("/v1/destinations/account/approve", &json!({})).await;
    assert_eq!(status, 200, "{body}");
    let is_done = |r: &throng_store::SyncRun| r.id > before && r.state == RunState::Completed;
    let run = settled(&node, "retry", is_done).await;
    assert_eq!((run.to_version, run.adds, run.sent), (2, 4, 4));
    assert!(shop.holds(2..16));
    // Nothing is left to retry.
    until("the retry is recorded", async || {
        let records = ledger.delivered_records().await.unwrap();
        records.iter().all(|record| record.run == run.id && record.retry_at.is_none())
    })
    .await;
    node.shutdown().await;
}
