//! Syncs of audiences without members.

use serde_json::{Value, json};
use throng_model::SyncName;
use throng_sim::meta::{FaultKind, FaultRule, FaultScript};
use throng_store::{AlertKind, RunState, TaskState};

use crate::activation::Shop;
use crate::{Client, until};

/// Whether each sync, in the order of the spec, waits for members.
async fn waiting(client: &Client) -> Vec<bool> {
    let syncs = client.get("/v1/syncs").await["syncs"].clone();
    let waits = |sync: &Value| sync["waits_for_members"].as_bool().unwrap();
    syncs.as_array().unwrap().iter().map(waits).collect()
}

async fn refresh_late(client: &Client) {
    let (status, body) = client.post("/v1/audiences/late/refresh", &json!({})).await;
    assert_eq!(status, 200, "{body}");
}

/// Waits until the node serves these versions.
async fn serves(client: &Client, versions: Value) {
    until("the versions are served", async || {
        client.get("/v1/node/health").await["snapshots"] == versions
    })
    .await;
}

/// What would send something for the sync of customer 15 is refused because there is no member.
async fn refused(client: &Client, path: &str) {
    let (status, body) = client.post(path, &json!({})).await;
    assert_eq!(status, 409, "{body}");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("sync `late-on-meta`: the audience has no members"), "{body}");
}

/// Adds an audience of customer 15 and its sync to the spec.
fn add_sync(shop: &Shop) {
    let file = shop.dir.path().join("throng.yaml");
    let spec = std::fs::read_to_string(&file).unwrap();
    // It may become empty again.
    let audience = "  - name: late
    sql: \"SELECT customer FROM shop.purchases WHERE customer = 'c15'\"
    guard: { max_shrink_percent: 100, min_members: 0 }";
    let spec = spec.replace("destinations:", &format!("{audience}\ndestinations:"));
    let sync = "  - name: late-on-meta
    audience: late
    destination: account
    identifiers:
      sql: \"SELECT customer, email FROM shop.customers\"
      key: customer
      columns: { email: EMAIL }
";
    std::fs::write(&file, format!("{spec}{sync}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_gets_its_list_on_the_platform_with_its_first_member() {
    let shop = Shop::new().await;
    add_sync(&shop);
    shop.buyers(2..12);
    let node = shop.node().await;
    let (client, ledger) = (Client::of(&node), &node.context().ledger);
    let late: SyncName = "late-on-meta".parse().unwrap();
    serves(&client, json!({ "buyers": 1, "late": 1 })).await;
    // The planner was at work since, with both audiences.
    shop.buyers(2..14);
    shop.delivered(&node, 2).await;
    assert!(ledger.runs(Some(&late), 1).await.unwrap().is_empty());
    assert!(shop.holds(2..14), "the other audience has the only list");
    assert_eq!(waiting(&client).await, [false, true]);
    assert_eq!(client.get("/v1/syncs").await["destinations"], json!(["account"]));
    assert_eq!(client.get("/v1/syncs?workspace=acme").await["destinations"], json!([]));
    refused(&client, "/v1/syncs/late-on-meta/run").await;
    for path in ["/activation", "/activation/syncs", "/activation/syncs/late-on-meta"] {
        let page = client.request("GET", path).send().await.unwrap().text().await.unwrap();
        assert_eq!(page.matches("the audience has no members").count(), 1, "{path}");
    }
    shop.buyers(2..16);
    refresh_late(&client).await;
    until("the first member is delivered", async || {
        let there = ledger.platform_audience(&late).await.unwrap();
        there.is_some_and(|there| there.delivered_version == Some(2))
    })
    .await;
    let run = ledger.runs(Some(&late), 1).await.unwrap().remove(0);
    assert_eq!((run.from_version, run.to_version, run.sent), (None, 2, 1));
    assert_eq!(shop.sim.audiences().len(), 2);
    assert_eq!(waiting(&client).await, [false, false]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_is_empty_after_its_first_run_failed_gets_no_list() {
    let shop = Shop::new().await;
    add_sync(&shop);
    shop.buyers(2..12);
    let node = shop.node().await;
    let (client, ledger) = (Client::of(&node), &node.context().ledger);
    let late: SyncName = "late-on-meta".parse().unwrap();
    serves(&client, json!({ "buyers": 1, "late": 1 })).await;
    until("the other audience is delivered", async || shop.holds(2..12)).await;
    // The list cannot be created.
    let refusal = FaultKind::Error { code: 3, subcode: None, status: 400, message: String::new() };
    let rule = FaultRule::new(refusal).on_call("create_audience");
    shop.sim.set_faults(FaultScript::new(1, [rule])).unwrap();
    shop.buyers(2..16);
    refresh_late(&client).await;
    until("the first run has failed", async || {
        let newest = ledger.runs(Some(&late), 1).await.unwrap();
        newest.first().is_some_and(|run| run.state == RunState::Failed)
    })
    .await;
    let failed = ledger.runs(Some(&late), 1).await.unwrap().remove(0);
    assert_eq!(waiting(&client).await, [false, false], "it has a member");
    let alert = async || ledger.open_alert(AlertKind::TaskFailed, late.as_str()).await.unwrap();
    until("an alert is raised", async || alert().await.is_some()).await;

    shop.buyers(2..14);
    refresh_late(&client).await;
    serves(&client, json!({ "buyers": 1, "late": 3 })).await;
    shop.sim.set_faults(FaultScript::new(1, [])).unwrap();
    // The planner was at work since, with both audiences.
    shop.delivered(&node, 2).await;
    let newest = ledger.runs(Some(&late), 1).await.unwrap().remove(0);
    assert_eq!((newest.id, newest.state), (failed.id, RunState::Failed));
    assert_eq!(waiting(&client).await, [false, true]);
    refused(&client, "/v1/syncs/late-on-meta/run").await;
    // Its task has a user who has left.
    let task = ledger.task_of_run(failed.id).await.unwrap();
    refused(&client, &format!("/v1/tasks/{}/requeue", task.id)).await;
    assert_eq!(ledger.task(task.id).await.unwrap().state, TaskState::Failed);
    assert!(shop.holds(2..14), "the other audience has the only list");
    until("the alert is resolved", async || alert().await.is_none()).await;

    shop.buyers(2..16);
    refresh_late(&client).await;
    until("the first member is delivered", async || {
        let there = ledger.platform_audience(&late).await.unwrap();
        there.is_some_and(|there| there.delivered_version == Some(4))
    })
    .await;
    assert_eq!(shop.sim.audiences().len(), 2);
    node.shutdown().await;
}
