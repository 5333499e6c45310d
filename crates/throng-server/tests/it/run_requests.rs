//! Runs that a person requests of a sync that has delivered nothing.

use serde_json::json;
use throng_sim::meta::FaultScript;
use throng_store::RunState;

use crate::Client;
use crate::activation::{Shop, deny, request_run, settled};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_continues_the_first_run_of_a_sync_after_it_has_failed() {
    let shop = Shop::new().await;
    shop.buyers(2..12);
    deny(&shop.sim, 1);
    let node = shop.node().await;
    let failed = settled(&node, "failure", |r| r.state == RunState::Failed).await;
    assert!(node.context().ledger.delivered_records().await.unwrap().is_empty());
    shop.sim.set_faults(FaultScript::new(1, [])).unwrap();
    request_run(&Client::of(&node), &json!({})).await;
    let done = settled(&node, "delivery", |r| r.state == RunState::Completed).await;
    assert_eq!((done.id, done.sent), (failed.id, 10));
    assert!(shop.holds(2..12));
    node.shutdown().await;
}
