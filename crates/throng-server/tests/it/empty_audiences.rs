//! Syncs of audiences without members.

use serde_json::{Value, json};
use throng_model::SyncName;

use crate::activation::Shop;
use crate::{Client, until};

/// Whether each sync, in the order of the spec, waits for members.
async fn waiting(client: &Client) -> Vec<bool> {
    let syncs = client.get("/v1/syncs").await["syncs"].clone();
    let waits = |sync: &Value| sync["waits_for_members"].as_bool().unwrap();
    syncs.as_array().unwrap().iter().map(waits).collect()
}

/// A run of the sync of customer 15 is refused because there is no member.
async fn refused(client: &Client) {
    let (status, body) = client.post("/v1/syncs/late-on-meta/run", &json!({})).await;
    assert_eq!(status, 409, "{body}");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("sync `late-on-meta`: the audience has no members"), "{body}");
}

/// Adds an audience of customer 15 and its sync to the spec.
fn add_sync(shop: &Shop) {
    let file = shop.dir.path().join("throng.yaml");
    let spec = std::fs::read_to_string(&file).unwrap();
    let audience =
        "  - { name: late, sql: \"SELECT customer FROM shop.purchases WHERE customer = 'c15'\" }";
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
    until("both audiences are built", async || {
        let answer: Value = client.get("/v1/audiences").await;
        answer["audiences"].as_array().unwrap().iter().all(|one| one["current"].is_object())
    })
    .await;
    // The planner was at work since, with both audiences.
    shop.buyers(2..14);
    shop.delivered(&node, 2).await;
    assert!(ledger.runs(Some(&late), 1).await.unwrap().is_empty());
    assert!(shop.holds(2..14), "the other audience has the only list");
    assert_eq!(waiting(&client).await, [false, true]);
    refused(&client).await;
    for path in ["/activation", "/activation/syncs", "/activation/syncs/late-on-meta"] {
        let page = client.request("GET", path).send().await.unwrap().text().await.unwrap();
        assert_eq!(page.matches("the audience has no members").count(), 1, "{path}");
    }
    shop.buyers(2..16);
    let (status, body) = client.post("/v1/audiences/late/refresh", &json!({})).await;
    assert_eq!(status, 200, "{body}");
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
