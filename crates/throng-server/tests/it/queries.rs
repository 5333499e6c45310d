//! Bad queries do no harm to the node that runs them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use throng_model::{AudienceName, Clock, ManualClock};
use throng_server::{Node, NodeContext};
use throng_store::{AlertKind, AudienceRow, RefreshState, RefreshTrigger};

use crate::{Client, noon, start, until};

/// Never ends, and uses a processor all the time.
const ENDLESS: &str =
    "SELECT a.id FROM shop.t a, shop.t b, shop.t c, shop.t d WHERE a.n + b.n + c.n + d.n = -1";

/// One value of 1.5 GB.
const HUGE: &str = "SELECT repeat(repeat(id, 30000), 10000) AS id FROM shop.t WHERE n = 1000";

struct Shop(tempfile::TempDir);

impl Shop {
    /// A source of three thousand rows and two audiences: `bad` with this SQL, and `good`.
    fn new(sql: &str, node: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let rows: String = (0..3_000).map(|n| format!("u{n},{n}\n")).collect();
        std::fs::write(dir.path().join("data/t.csv"), format!("id,n\n{rows}")).unwrap();
        let ad_groups = crate::SPEC.trim_start_matches("version: 1\n");
        let text = format!(
            "version: 1\nsources:\n  - {{ name: shop, path: data }}\naudiences:\n  - {{ name: bad, sql: \"{sql}\" }}\n  - {{ name: good, sql: \"SELECT id FROM shop.t\" }}\nnode: {{ {node} }}\n{ad_groups}"
        );
        std::fs::write(dir.path().join("throng.yaml"), text).unwrap();
        Self(dir)
    }

    async fn start(&self, clock: &Arc<ManualClock>) -> Node {
        let dir: &Path = self.0.path();
        let spec = throng_spec::load(&dir.join("throng.yaml")).unwrap();
        start(&dir.join("node"), spec, clock).await.unwrap()
    }
}

async fn settled(
    ctx: &NodeContext,
    name: &str,
    wanted: impl Fn(&AudienceRow) -> bool,
) -> AudienceRow {
    let mut changes = ctx.changes.subscribe();
    let name: AudienceName = name.parse().unwrap();
    let waiting = async {
        loop {
            if let Some(row) = ctx.ledger.audience(&name).await.unwrap().filter(&wanted) {
                return row;
            }
            // A lagging receiver reads the audience again, too.
            let _ = changes.recv().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.unwrap()
}

fn is(state: RefreshState) -> impl Fn(&AudienceRow) -> bool {
    move |row| row.refresh.as_ref().is_some_and(|refresh| refresh.state == state)
}

async fn healthy(client: &Client) {
    let ready = client.request("GET", "/readyz").send().await.unwrap();
    assert_eq!(ready.status(), 200);
    let ask = json!({ "user": "u1", "ad_groups": ["shoes"] });
    let (status, answer) = client.post("/v1/decide", &ask).await;
    assert_eq!((status, &answer["allowed"]), (200, &json!(["shoes"])), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_is_killed_fails_its_audience_after_three_tries_and_nothing_else() {
    let (shop, clock) = (Shop::new(HUGE, "memory_limit_bytes: 67108864"), noon());
    let node = shop.start(&clock).await;
    let (ctx, client) = (Arc::clone(node.context()), Client::of(&node));
    for failures in 1..=3 {
        healthy(&client).await;
        let tried = settled(&ctx, "bad", |row| {
            row.refresh.as_ref().is_some_and(|refresh| refresh.failures == failures)
        });
        let refresh = tried.await.refresh.unwrap();
        let reason = refresh.reason.unwrap();
        assert!(reason.contains("killed: more than memory_limit_bytes"), "{reason}");
        // Past the backoff.
        clock.advance(Duration::from_secs(600));
        ctx.wake_build.notify_waiters();
    }
    let failed = settled(&ctx, "bad", is(RefreshState::Failed)).await;
    assert_eq!(failed.refresh.unwrap().failures, 3);
    healthy(&client).await;
    until("an alert says why", async || {
        let alerts = client.get("/v1/alerts").await;
        let alerts = alerts["alerts"].as_array().unwrap();
        alerts
            .iter()
            .any(|a| a["subject"] == "bad" && a["message"].to_string().contains("killed: "))
    })
    .await;
    drop(ctx);
    node.shutdown().await;

    // It is not started again by itself.
    let node = shop.start(&clock).await;
    healthy(&Client::of(&node)).await;
    let name = "bad".parse().unwrap();
    let row = node.context().ledger.audience(&name).await.unwrap().unwrap();
    assert_eq!(row.refresh.unwrap().state, RefreshState::Failed);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_refresh_ends_at_once_without_an_alert() {
    let (shop, clock) = (Shop::new(ENDLESS, "query_timeout_secs: 600"), noon());
    let node = shop.start(&clock).await;
    let (ctx, client) = (Arc::clone(node.context()), Client::of(&node));
    settled(&ctx, "bad", is(RefreshState::Processing)).await;
    healthy(&client).await;
    let open = ctx.ledger.audience(&"bad".parse().unwrap()).await.unwrap().unwrap();
    let id = open.refresh.unwrap().id.0;
    let path = |id: i64| format!("/v1/audiences/bad/cancel?refresh={id}");
    let (status, other) = client.post(&path(id + 1), &json!({})).await;
    assert_eq!((status, &other["error"]["code"]), (409, &json!("wrong_state")), "{other}");
    let (status, answer) = client.post(&path(id), &json!({})).await;
    assert_eq!((status, &answer["refresh"]["state"]), (200, &json!("failed")), "{answer}");
    assert_eq!(answer["refresh"]["id"], json!(id), "{answer}");
    let (status, again) = client.post("/v1/audiences/bad/cancel", &json!({})).await;
    assert_eq!((status, &again["error"]["code"]), (409, &json!("wrong_state")));
    let why = client.get("/v1/why/audience/bad").await;
    let history = why["history"].as_array().unwrap();
    let entry = history.iter().find(|entry| entry["what"] == "cancelled");
    assert!(entry.is_some(), "{why}");
    let alerts: Value = client.get("/v1/alerts").await;
    assert_eq!(alerts["alerts"], json!([]));
    // The builder is free for the next one.
    let name: AudienceName = "good".parse().unwrap();
    let trigger = RefreshTrigger::Manual;
    for _ in 0..3 {
        let id = ctx.ledger.schedule_refresh(&name, trigger, ctx.clock.now()).await.unwrap();
        ctx.wake_build.notify_waiters();
        settled(&ctx, "good", |row| {
            row.refresh.as_ref().is_some_and(|r| r.id >= id && r.state == RefreshState::Completed)
        })
        .await;
    }
    drop(ctx);
    node.shutdown().await;

    // A start raises no alert for it.
    let node = shop.start(&clock).await;
    let alerts = node.context().ledger.alerts(10).await.unwrap();
    assert!(alerts.iter().all(|alert| alert.kind != AlertKind::RefreshFailed), "{alerts:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_killed_three_nodes_fails() {
    let (shop, clock) = (Shop::new("SELECT id FROM shop.t", ""), noon());
    let node = shop.start(&clock).await;
    settled(node.context(), "bad", is(RefreshState::Completed)).await;
    let path = node.context().data_dir.join("ledger.db");
    let name: AudienceName = "bad".parse().unwrap();
    node.shutdown().await;
    let ledger: Arc<dyn throng_store::Ledger> =
        Arc::new(throng_ledger::SqliteLedger::open(&path).await.unwrap());
    let id = ledger.schedule_refresh(&name, RefreshTrigger::Manual, clock.now()).await.unwrap();
    // Three processes that claim it and never renew their lease.
    for (n, holder) in ["a", "b", "c"].into_iter().enumerate() {
        let now = clock.now().plus(Duration::from_secs(10 * n as u64));
        let until = now.plus(Duration::from_secs(5));
        ledger.claim_refresh_of(&name, holder, now, until).await.unwrap().unwrap();
    }
    assert_eq!(ledger.refresh(id).await.unwrap().crashes, 2);
    clock.advance(Duration::from_secs(60));
    ledger.close().await.unwrap();
    let node = shop.start(&clock).await;
    let failed = settled(node.context(), "bad", is(RefreshState::Failed)).await;
    let reason = failed.refresh.unwrap().reason.unwrap();
    assert!(reason.contains("3 processes died"), "{reason}");
    healthy(&Client::of(&node)).await;
    node.shutdown().await;
}

/// A program that cannot be started is a problem of the node, not of the spec.
#[tokio::test(flavor = "multi_thread")]
async fn a_spec_is_not_refused_because_query_workers_do_not_start() {
    let shop = Shop::new("SELECT id FROM shop.t", "build_workers: 1");
    let file = shop.0.path().join("throng.yaml");
    let node = Node::start(throng_server::NodeConfig {
        data_dir: shop.0.path().join("node"),
        spec: throng_spec::load(&file).unwrap(),
        join: false,
        roles: None,
        listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
        clock: noon(),
        access_clock: noon(),
        env: Arc::new(|_: &str| None),
        accept_log_loss: Vec::new(),
        recovery: throng_server::Recovery::default(),
        limits: Default::default(),
        query_worker: throng_server::WorkerCommand::of("/no/such/program"),
    })
    .await
    .unwrap();
    let (status, answer) = Client::of(&node).post("/v1/spec/plan", &crate::sent_file(&file)).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("unavailable")), "{answer}");
    node.shutdown().await;
}
