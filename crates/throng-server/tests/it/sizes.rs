//! The sizes that a platform shows over time.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use throng_model::{Clock, ManualClock};
use throng_server::{Node, NodeConfig};
use throng_sim::meta::{MetaSim, MetaSimConfig};
use throng_store::{HistoryEntry, HistoryEvent};

use crate::{Client, noon, query_worker, until};

/// The number of customers, all of them on the platform.
const CUSTOMERS: u32 = 3_000;

const SPEC: &str = r#"version: 1
sources:
  - { name: shop, path: data }
audiences:
  - { name: buyers, sql: "SELECT customer FROM shop.customers" }
destinations:
  - { name: account, platform: meta, account: act_12, access_token: "env:META", base_url: "URL" }
syncs:
  - name: buyers-on-meta
    audience: buyers
    destination: account
    identifiers:
      sql: "SELECT customer, email FROM shop.customers"
      key: customer
      columns: { email: EMAIL }
"#;

async fn node(dir: &Path, sim: &MetaSim, clock: &Arc<ManualClock>) -> Node {
    std::fs::create_dir(dir.join("data")).unwrap();
    let lines: String = (0..CUSTOMERS).map(|c| format!("c{c},c{c}@example.com\n")).collect();
    std::fs::write(dir.join("data/customers.csv"), format!("customer,email\n{lines}")).unwrap();
    std::fs::write(dir.join("throng.yaml"), SPEC.replace("URL", &sim.url())).unwrap();
    Node::start(NodeConfig {
        accept_log_loss: Vec::new(),
        data_dir: dir.join("node"),
        spec: throng_spec::load(&dir.join("throng.yaml")).unwrap(),
        join: false,
        roles: None,
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        access_clock: Arc::clone(clock) as Arc<dyn Clock>,
        recovery: throng_server::Recovery::default(),
        env: Arc::new(|name: &str| (name == "META").then(|| "s3cret-token".to_owned())),
        limits: Default::default(),
        query_worker: query_worker(),
    })
    .await
    .unwrap()
}

/// The sizes in the API of the node.
async fn sizes(client: &Client) -> Value {
    client.get("/v1/syncs/buyers-on-meta/sizes").await
}

/// Waits until this number of sizes was read.
async fn read(client: &Client, count: usize) -> Value {
    until("the size is read", async || {
        sizes(client).await["sizes"].as_array().unwrap().len() == count
    })
    .await;
    sizes(client).await
}

/// Removes all users from the platform's list, not through the node.
async fn lose_everybody(sim: &MetaSim) {
    let id = sim.audiences()[0].id.clone();
    let rows: Vec<[String; 1]> = sim.members(&id).unwrap().into_iter().map(|m| [m]).collect();
    let body = json!({ "payload": { "schema": ["EMAIL"], "data": rows } });
    let request =
        crate::http(Some("another-token")).delete(format!("{}/v25.0/{id}/users", sim.url()));
    let answer = request.json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(sim.member_count(&id), Some(0));
}

async fn history(node: &Node) -> Vec<HistoryEntry> {
    node.context()
        .ledger
        .history(Some((&throng_store::SubjectKind::Sync, "buyers-on-meta")), 100)
        .await
        .unwrap()
}

async fn open_alerts(client: &Client) -> Vec<String> {
    let alerts = client.get("/v1/alerts").await["alerts"].as_array().unwrap().clone();
    let open = alerts.iter().filter(|alert| alert["resolved_at"].is_null());
    open.map(|alert| alert["message"].as_str().unwrap().to_owned()).collect()
}

async fn page(client: &Client, path: &str) -> String {
    client.request("GET", path).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_loses_its_people_fails_the_check_of_its_sync() {
    let dir = tempfile::tempdir().unwrap();
    let sim = MetaSim::start(MetaSimConfig::default()).await.unwrap();
    let clock = noon();
    let node = node(dir.path(), &sim, &clock).await;
    let client = Client::of(&node);
    let first = read(&client, 1).await;
    assert!(page(&client, "/activation/syncs/buyers-on-meta").await.contains("id=\"unevaluated\""));
    let size = &first["sizes"][0];
    assert_eq!(
        (&size["lower"], &size["upper"], &size["delivered"], &size["account"]),
        (&json!(3_000), &json!(3_100), &json!(3_000), &json!("meta/12"))
    );
    until("the delivery is checked", async || {
        history(&node).await.iter().any(|entry| entry.what == HistoryEvent::CheckPassed)
    })
    .await;
    // It is read again without a delivery; a check with the same result is not recorded again.
    for count in 2..=6 {
        clock.advance(Duration::from_secs(10 * 3_600));
        let known = read(&client, count).await;
        // Three readings over 20 hours say too little.
        let verdict = if count < 4 { Value::Null } else { json!("passed") };
        assert_eq!((&known["verdict"], &known["reason"]), (&verdict, &Value::Null));
    }
    let checks = |history: Vec<HistoryEntry>| {
        history.iter().filter(|entry| entry.what.name().starts_with("check_")).count()
    };
    assert_eq!(checks(history(&node).await), 1);
    assert_eq!(client.get("/v1/syncs").await["syncs"][0]["size"]["lower"], json!(3_000));

    assert!(!page(&client, "/activation/syncs/buyers-on-meta").await.contains("unevaluated"));

    lose_everybody(&sim).await;
    for count in 7..=9 {
        clock.advance(Duration::from_secs(10 * 3_600));
        let known = read(&client, count).await;
        assert_eq!(known["verdict"], json!("passed"), "the loss has not lasted long enough");
        // The platform says that the audience is too small for a number.
        assert_eq!(known["sizes"][count - 1]["upper"], json!(1_000));
    }
    clock.advance(Duration::from_secs(10 * 3_600));
    let known = read(&client, 10).await;
    assert_eq!(known["verdict"], json!("failed"), "{}", known["reason"]);
    let reason = known["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("3000 to 3100 people"), "{reason}");
    until("the alert says so", async || {
        open_alerts(&client).await.iter().any(|message| message.contains(&reason))
    })
    .await;
    assert!(page(&client, "/activation/syncs/buyers-on-meta").await.contains("id=\"finding\""));
    assert!(page(&client, "/activation").await.contains("/activation/syncs/buyers-on-meta"));

    // The whole list is sent again, and the platform shows it.
    crate::activation::request_run(&client, &json!({ "full": true })).await;
    until("the alert ends", async || open_alerts(&client).await.is_empty()).await;
    assert_eq!(sizes(&client).await["verdict"], json!("passed"));
    let id = sim.audiences()[0].id.clone();
    assert_eq!(sim.member_count(&id), Some(u64::from(CUSTOMERS)));
    node.shutdown().await;
}
