//! The activate role in a node: runs are planned, delivered and checked; held; failed and corrected.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use throng_model::{HashedIdentifier, SyncRunId, SystemClock};
use throng_server::{Node, NodeConfig};
use throng_sim::meta::{FaultKind, FaultRule, FaultScript, MetaSim, MetaSimConfig};
use throng_store::{AlertKind, Ledger, RunState, SyncRun, Verdict};

use crate::{Client, TIMEOUT, until};

const SPEC: &str = r#"version: 1
sources:
  - { name: shop, path: data }
audiences:
  - { name: buyers, sql: "SELECT customer FROM shop.purchases", guard: { max_shrink_percent: 100 } }
destinations:
  - { name: account, platform: meta, account: act_12, access_token: "env:META", base_url: "URL" }
syncs:
  - name: buyers-on-meta
    audience: buyers
    destination: account
    batch_rows: 4
    identifiers:
      sql: "SELECT customer, email FROM shop.customers"
      key: customer
      columns: { email: EMAIL }
      default_country: US
"#;

/// A spec with one sync, its data, and its platform.
pub(crate) struct Shop {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) sim: MetaSim,
}

impl Shop {
    pub(crate) async fn new() -> Self {
        let shop = Self {
            dir: tempfile::tempdir().unwrap(),
            sim: MetaSim::start(MetaSimConfig::default()).await.unwrap(),
        };
        std::fs::create_dir(shop.dir.path().join("data")).unwrap();
        std::fs::write(shop.dir.path().join("throng.yaml"), SPEC.replace("URL", &shop.sim.url()))
            .unwrap();
        // Customer 0 has no row, customer 1 no valid address.
        let lines: String = (2..20).map(|c| format!("c{c},C{c}@Example.com\n")).collect();
        shop.write("customers", &format!("customer,email\nc1,none\n{lines}"));
        shop
    }

    fn write(&self, table: &str, text: &str) {
        let temporary = self.dir.path().join("aside");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.dir.path().join(format!("data/{table}.csv"))).unwrap();
    }

    pub(crate) fn buyers(&self, customers: impl Iterator<Item = u32>) {
        let lines: String = customers.map(|c| format!("c{c}\n")).collect();
        self.write("purchases", &format!("customer\n{lines}"));
    }

    pub(crate) async fn node(&self) -> Node {
        let dir: &Path = self.dir.path();
        Node::start(NodeConfig {
            accept_log_loss: Vec::new(),
            data_dir: dir.join("node"),
            spec: throng_spec::load(&dir.join("throng.yaml")).unwrap(),
            join: false,
            roles: None,
            listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
            clock: Arc::new(SystemClock),
            access_clock: Arc::new(SystemClock),
            recovery: throng_server::Recovery::default(),
            env: Arc::new(|name: &str| (name == "META").then(|| "s3cret-token".to_owned())),
            limits: Default::default(),
            query_worker: crate::query_worker(),
        })
        .await
        .unwrap()
    }

    /// Whether the platform has exactly these customers.
    pub(crate) fn holds(&self, customers: impl Iterator<Item = u32>) -> bool {
        let mut wanted: Vec<String> = customers
            .map(|c| HashedIdentifier::of_normalised(&format!("c{c}@example.com")).to_hex())
            .collect();
        wanted.sort();
        let audiences = self.sim.audiences();
        audiences.len() == 1 && self.sim.members(&audiences[0].id).unwrap() == wanted
    }
}

/// Waits until the newest run fulfils a condition.
pub(crate) async fn settled(node: &Node, what: &str, wanted: impl Fn(&SyncRun) -> bool) -> SyncRun {
    let ledger: &dyn Ledger = &*node.context().ledger;
    let mut changes = node.context().changes.subscribe();
    let polling = async {
        loop {
            if let Some(run) = ledger.runs(None, 1).await.unwrap().pop().filter(|r| wanted(r)) {
                return run;
            }
            let _ = changes.recv().await;
        }
    };
    tokio::time::timeout(TIMEOUT, polling).await.expect(what)
}

pub(crate) async fn checked(node: &Node) -> (Verdict, Vec<String>) {
    let mut changes = node.context().changes.subscribe();
    let polling = async {
        loop {
            if let Some(check) = node.context().ledger.checks(1).await.unwrap().pop() {
                return (check.verdict, check.reasons);
            }
            let _ = changes.recv().await;
        }
    };
    tokio::time::timeout(TIMEOUT, polling).await.expect("a check")
}

pub(crate) async fn refresh(client: &Client) {
    let (status, body) = client.post("/v1/audiences/buyers/refresh?force=true", &json!({})).await;
    assert_eq!(status, 200, "{body}");
}

pub(crate) async fn request_run(client: &Client, how: &Value) {
    let (status, body) = client.post("/v1/syncs/buyers-on-meta/run", how).await;
    assert_eq!(status, 200, "{body}");
}

pub(crate) async fn approve(client: &Client, run: SyncRunId) {
    let (status, body) = client.post(&format!("/v1/runs/{run}/approve"), &json!({})).await;
    assert_eq!(status, 200, "{body}");
}

/// Waits until the first run is in the delivered state.
pub(crate) async fn recorded(node: &Node) {
    let ledger = &node.context().ledger;
    until("the first run is recorded", async || {
        !ledger.delivered_records().await.unwrap().is_empty()
    })
    .await;
}

/// The permission is missing at this batch.
pub(crate) fn deny(sim: &MetaSim, batch: u64) {
    let denied = FaultKind::Error { code: 294, subcode: None, status: 400, message: String::new() };
    let rule = FaultRule::new(denied).on_call("add_users").nth([batch]);
    sim.set_faults(FaultScript::new(1, [rule])).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_is_delivered_checked_and_updated() {
    let shop = Shop::new().await;
    shop.buyers(0..12);
    let node = shop.node().await;
    let client = Client::of(&node);
    let run = settled(&node, "delivery", |r| r.state == RunState::Completed).await;
    assert_eq!((run.read, run.sent, run.pending), (12, 10, 0));
    assert_eq!(json!(run.skipped), json!({ "no_identifiers": 1, "no_usable_identifier": 1 }));
    assert!(shop.holds(2..12));
    assert_eq!(checked(&node).await, (Verdict::Passed, vec![]));

    // Some users are added, some removed.
    shop.buyers(6..16);
    refresh(&client).await;
    settled(&node, "second", |r| r.to_version == 2 && r.state == RunState::Completed).await;
    assert!(shop.holds(6..16));

    // Nearly all users are removed: the run waits for approval.
    shop.buyers(15..17);
    refresh(&client).await;
    let held = settled(&node, "held", |r| r.state == RunState::Held).await;
    assert!(held.reason.unwrap().contains("max_removed_percent"));
    assert!(shop.holds(6..16));
    approve(&client, held.id).await;
    let run = |r: &SyncRun| r.id == held.id && r.state == RunState::Completed;
    let approved = settled(&node, "approved", run).await;
    assert_eq!(approved.reason, None, "nothing is held");
    assert!(shop.holds(15..17));
    // They are resolved after the run's end.
    until("no alert is open", async || {
        let all: Value = client.get("/v1/alerts").await["alerts"].clone();
        all.as_array().unwrap().iter().all(|alert| !alert["resolved_at"].is_null())
    })
    .await;
    assert_eq!(shop.sim.requests().unhashed_cells, 0);
    node.shutdown().await;
}

impl Shop {
    /// Whether the platform has exactly these e-mail addresses.
    fn has(&self, addresses: &[&str]) -> bool {
        let mut wanted: Vec<String> =
            addresses.iter().map(|a| HashedIdentifier::of_normalised(a).to_hex()).collect();
        wanted.sort();
        let audiences = self.sim.audiences();
        audiences.len() == 1 && self.sim.members(&audiences[0].id).unwrap() == wanted
    }

    fn customers(&self, rows: &[(&str, &str)]) {
        let lines: String = rows.iter().map(|(c, email)| format!("{c},{email}\n")).collect();
        self.write("customers", &format!("customer,email\n{lines}"));
    }

    /// Refreshes as a schedule does, and waits until the version is delivered.
    pub(crate) async fn delivered(&self, node: &Node, version: u64) {
        let path = "/v1/audiences/buyers/refresh";
        let (status, body) = Client::of(node).post(path, &json!({})).await;
        assert_eq!(status, 200, "{body}");
        self.reaches(node, version).await;
    }

    async fn reaches(&self, node: &Node, version: u64) {
        let ledger = &node.context().ledger;
        let sync = "buyers-on-meta".parse().unwrap();
        until("the version is delivered", async || {
            let there = ledger.platform_audience(&sync).await.unwrap();
            there.is_some_and(|there| there.delivered_version == Some(version))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_shared_and_erased_identifiers_are_removed_from_the_platform() {
    let shop = Shop::new().await;
    let file = shop.dir.path().join("throng.yaml");
    let spec = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        spec.replace("batch_rows: 4", "batch_rows: 4\n    max_removed_percent: 100"),
    )
    .unwrap();
    shop.buyers(1..5);
    let family = "family@example.com";
    shop.customers(&[("c1", family), ("c2", family), ("c3", "old@example.com"), ("c4", "d@e.com")]);
    let node = shop.node().await;
    settled(&node, "first", |r| r.state == RunState::Completed).await;
    assert!(shop.has(&[family, "old@example.com", "d@e.com"]));
    // An address changes; the members and the files that they are read from are the same.
    shop.customers(&[("c1", family), ("c2", family), ("c3", "new@example.com"), ("c4", "d@e.com")]);
    shop.delivered(&node, 2).await;
    assert!(shop.has(&[family, "new@example.com", "d@e.com"]));
    // One of two users with the same address is removed; another user is erased everywhere.
    shop.buyers(2..4);
    shop.customers(&[("c1", family), ("c2", family), ("c3", "new@example.com")]);
    shop.delivered(&node, 3).await;
    assert!(shop.has(&[family, "new@example.com"]));
    // Without a difference no run is planned.
    let runs = node.context().ledger.runs(None, 100).await.unwrap().len();
    refresh(&Client::of(&node)).await;
    shop.reaches(&node, 4).await;
    assert_eq!(node.context().ledger.runs(None, 100).await.unwrap().len(), runs);
    // The last user with the address is removed.
    shop.buyers(3..4);
    shop.delivered(&node, 5).await;
    assert!(shop.has(&["new@example.com"]));
    let key = shop.dir.path().join("node/identifiers.key");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    node.shutdown().await;

    // Without its key the state is not guessed; a person can discard it.
    std::fs::remove_file(&key).unwrap();
    shop.buyers(1..4);
    let node = shop.node().await;
    let client = Client::of(&node);
    refresh(&client).await;
    let ledger = &node.context().ledger;
    until("the alert says that the key is missing", async || {
        let alerts = ledger.alerts(5).await.unwrap();
        alerts.iter().any(|a| a.resolved_at.is_none() && a.message.contains("identifiers.key"))
    })
    .await;
    assert!(shop.has(&["new@example.com"]) && !key.exists());
    let how = json!({ "forget_delivered": true });
    request_run(&client, &how).await;
    settled(&node, "replaced", |r| r.to_version == 6 && r.state == RunState::Completed).await;
    assert!(shop.has(&[family, "new@example.com"]) && key.exists());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_on_the_list_with_each_identifier_row() {
    let shop = Shop::new().await;
    let file = shop.dir.path().join("throng.yaml");
    let spec = std::fs::read_to_string(&file).unwrap();
    let guard = "batch_rows: 4\n    max_removed_percent: 100";
    std::fs::write(&file, spec.replace("batch_rows: 4", guard)).unwrap();
    shop.buyers(1..3);
    shop.customers(&[("c1", "a@x.com"), ("c1", "b@x.com"), ("c1", "a@x.com"), ("c2", "c@x.com")]);
    let node = shop.node().await;
    let run = settled(&node, "delivery", |r| r.state == RunState::Completed).await;
    assert_eq!((run.read, run.sent, run.pending), (3, 3, 0));
    assert!(shop.has(&["a@x.com", "b@x.com", "c@x.com"]));
    // One of the rows changes; the user stays a member.
    shop.customers(&[("c1", "d@x.com"), ("c1", "b@x.com"), ("c2", "c@x.com")]);
    shop.delivered(&node, 2).await;
    assert!(shop.has(&["b@x.com", "c@x.com", "d@x.com"]));
    // The last rows of a user go with the user.
    shop.buyers(2..4);
    shop.delivered(&node, 3).await;
    assert!(shop.has(&["c@x.com"]));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_usable_identifier_completes_and_warns() {
    let shop = Shop::new().await;
    shop.customers(&[("c99", "c99@example.com")]);
    shop.buyers(2..6);
    let node = shop.node().await;
    let run = settled(&node, "delivery", |r| r.state == RunState::Completed).await;
    assert_eq!((run.read, run.sent, run.pending), (4, 0, 0));
    assert_eq!(json!(run.skipped), json!({ "no_identifiers": 4 }));
    let (verdict, reasons) = checked(&node).await;
    assert_eq!(verdict, Verdict::Suspect, "{reasons:?}");
    let expected = "none of 4 users has a usable identifier";
    assert!(reasons[0].contains(expected), "{reasons:?}");
    let ledger = &node.context().ledger;
    let alert = ledger.open_alert(AlertKind::CheckFailed, "buyers-on-meta").await.unwrap();
    assert!(alert.is_some_and(|message| message.contains(expected)));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_not_replaced_by_users_without_identifiers() {
    let shop = Shop::new().await;
    shop.buyers(2..6);
    let node = shop.node().await;
    let client = Client::of(&node);
    settled(&node, "first", |r| r.state == RunState::Completed).await;
    let ledger = &node.context().ledger;
    recorded(&node).await;
    shop.customers(&[("c99", "c99@example.com")]);
    request_run(&client, &json!({ "full": true })).await;
    until("the replacement is refused", async || {
        let alert = ledger.open_alert(AlertKind::TaskFailed, "buyers-on-meta").await.unwrap();
        alert.is_some_and(|message| message.contains("no user of the audience has a usable"))
    })
    .await;
    assert_eq!(ledger.runs(None, 9).await.unwrap().len(), 1, "no run was planned");
    assert!(shop.holds(2..6));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_was_deleted_on_the_platform_is_recreated() {
    let shop = Shop::new().await;
    shop.buyers(2..6);
    let node = shop.node().await;
    let client = Client::of(&node);
    settled(&node, "first", |r| r.state == RunState::Completed).await;
    shop.sim.reset();
    shop.buyers(2..8);
    refresh(&client).await;
    settled(&node, "failure", |r| r.to_version == 2 && r.state == RunState::Failed).await;
    let (status, body) = client.post("/v1/syncs/buyers-on-meta/recreate", &json!({})).await;
    assert_eq!(status, 200, "{body}");
    settled(&node, "recreated", |r| r.to_version == 2 && r.state == RunState::Completed).await;
    assert!(shop.holds(2..8));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_gives_one_run_also_if_that_run_fails() {
    let shop = Shop::new().await;
    shop.buyers(2..6);
    let node = shop.node().await;
    let client = Client::of(&node);
    settled(&node, "first", |r| r.state == RunState::Completed).await;
    let ledger = &node.context().ledger;
    recorded(&node).await;
    // The audience is deleted on the platform: every run fails.
    shop.sim.reset();
    let mut last = ledger.runs(None, 1).await.unwrap().remove(0).id;
    for request in [
        json!({ "full": true }),
        json!({ "full": true, "forget_delivered": true }),
        json!({ "full": false }),
    ] {
        request_run(&client, &request).await;
        let failed =
            settled(&node, "failure", |r| r.id > last && r.state == RunState::Failed).await;
        last = failed.id;
        let records = ledger.delivered_records().await.unwrap();
        assert!(records.iter().all(|record| !record.requested), "{request}: {records:?}");
    }
    assert_eq!(ledger.runs(None, 100).await.unwrap().len(), 4, "a run for each request");
    // The planner was at work since: it plans a run for the next version, which fails too.
    shop.buyers(2..8);
    refresh(&client).await;
    settled(&node, "next", |r| r.to_version == 2 && r.state == RunState::Failed).await;
    assert_eq!(ledger.runs(None, 100).await.unwrap().len(), 5);
    // The answer to another request says that the sync is blocked.
    until("the alert is open", async || {
        let alerts = ledger.alerts(5).await.unwrap();
        alerts.iter().any(|alert| alert.subject == "buyers-on-meta" && alert.resolved_at.is_none())
    })
    .await;
    let (status, body) = client.post("/v1/syncs/buyers-on-meta/run", &json!({})).await;
    assert_eq!((status, body["blocked"].is_string()), (200, true), "{body}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_sync_sends_nothing_until_it_is_resumed() {
    let shop = Shop::new().await;
    shop.buyers(2..6);
    let node = shop.node().await;
    let client = Client::of(&node);
    settled(&node, "first", |r| r.state == RunState::Completed).await;
    let post = async |what: &str| {
        client.post(&format!("/v1/syncs/buyers-on-meta/{what}"), &json!({})).await
    };
    assert_eq!(post("resume").await.0, 409, "it is not paused");
    assert_eq!(post("pause").await.0, 200);
    assert_eq!(post("pause").await.0, 409, "it is paused already");
    let (status, body) = post("run").await;
    assert_eq!(status, 409, "{body}");
    assert!(body["error"]["help"].as_str().unwrap().contains("throng sync resume"), "{body}");
    shop.buyers(2..8);
    refresh(&client).await;
    until("the second version is served", async || {
        client.get("/v1/node/health").await["snapshots"] == json!({ "buyers": 2 })
    })
    .await;
    assert!(!client.get("/v1/syncs").await["syncs"][0]["paused_at"].is_null());
    let page = client.request("GET", "/activation").send().await.unwrap().text().await.unwrap();
    assert!(page.contains("id=\"paused\"") && page.contains("buyers-on-meta: no run is planned"));
    // A pause survives a restart of the node.
    node.shutdown().await;
    let node = shop.node().await;
    let client = Client::of(&node);
    until("the second version is served again", async || {
        client.get("/v1/node/health").await["snapshots"] == json!({ "buyers": 2 })
    })
    .await;
    assert_eq!(node.context().ledger.runs(None, 9).await.unwrap().len(), 1);
    assert!(shop.holds(2..6));
    let (status, body) = client.post("/v1/syncs/buyers-on-meta/resume", &json!({})).await;
    assert_eq!(status, 200, "{body}");
    settled(&node, "resumed", |r| r.to_version == 2 && r.state == RunState::Completed).await;
    assert!(shop.holds(2..8));
    let history = node
        .context()
        .ledger
        .history(Some((&throng_store::SubjectKind::Sync, "buyers-on-meta")), 50)
        .await;
    let history = history.unwrap();
    for what in ["paused", "resumed"] {
        let entry = history.iter().find(|entry| entry.what.name() == what).unwrap();
        assert!(entry.actor.is_some(), "{entry:?}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requeue_resumes_the_suspended_account() {
    let shop = Shop::new().await;
    shop.buyers(2..6);
    deny(&shop.sim, 1);
    let node = shop.node().await;
    settled(&node, "failure", |r| r.state == RunState::Failed).await;
    let client = Client::of(&node);
    until("a suspended account", async || {
        let health = client.get("/v1/node/health").await;
        health["problems"][0]["class"] == "account" && health["problems"][0]["key"] == "account"
    })
    .await;
    // Without it the account would be suspended longer than this test waits.
    let task = node.context().ledger.tasks(1).await.unwrap().remove(0);
    let path = format!("/v1/tasks/{}/requeue", task.id);
    let (status, body) = client.post(&path, &json!({})).await;
    assert_eq!(status, 200, "{body}");
    settled(&node, "completed", |r| r.state == RunState::Completed).await;
    assert!(shop.holds(2..6));
    until("the account resumed", async || {
        let problems = client.get("/v1/node/health").await["problems"].clone();
        problems.as_array().unwrap().iter().all(|problem| problem["class"] != "account")
    })
    .await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_list_is_refused_or_replaced_after_an_approval() {
    let shop = Shop::new().await;
    shop.buyers(2..6);
    let node = shop.node().await;
    settled(&node, "first", |r| r.state == RunState::Completed).await;
    node.shutdown().await;
    // Another deployment without the state of the first one.
    std::fs::remove_dir_all(shop.dir.path().join("node")).unwrap();
    shop.buyers(4..8);
    let node = shop.node().await;
    let failed = settled(&node, "refused", |r| r.state == RunState::Failed).await;
    let reason = failed.reason.unwrap();
    assert!(reason.contains("`throng: buyers`") && reason.contains("adopt: replace"), "{reason}");
    assert!(shop.holds(2..6), "nothing was sent");
    node.shutdown().await;

    let file = shop.dir.path().join("throng.yaml");
    let spec = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, spec.replace("batch_rows: 4", "batch_rows: 4\n    adopt: replace"))
        .unwrap();
    let node = shop.node().await;
    let client = Client::of(&node);
    let held = settled(&node, "held", |r| r.state == RunState::Held).await;
    assert!(held.reason.unwrap().contains("would be replaced"));
    assert!(shop.holds(2..6), "it is not approved");
    approve(&client, held.id).await;
    settled(&node, "replaced", |r| r.id == held.id && r.state == RunState::Completed).await;
    assert!(shop.holds(4..8));
    // Afterwards it is a normal list.
    shop.buyers(5..9);
    refresh(&client).await;
    let run = settled(&node, "next", |r| r.to_version == 2 && r.state == RunState::Completed).await;
    assert_eq!((run.adds, run.removes), (1, 1));
    assert!(shop.holds(5..9));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_of_another_audience_delivers_that_audience() {
    let shop = Shop::new().await;
    let file = shop.dir.path().join("throng.yaml");
    let second = "  - { name: visitors, sql: \"SELECT customer FROM shop.visits\", \
                  guard: { max_shrink_percent: 100 } }\ndestinations:\n";
    let spec = std::fs::read_to_string(&file).unwrap().replace("destinations:\n", second);
    std::fs::write(&file, &spec).unwrap();
    let visitors = |customers: std::ops::Range<u32>| {
        let lines: String = customers.map(|c| format!("c{c}\n")).collect();
        shop.write("visits", &format!("customer\n{lines}"));
    };
    shop.buyers(2..10);
    visitors(6..14);
    let node = shop.node().await;
    let client = Client::of(&node);
    let versions = async |buyers: u64, visitors: u64| {
        let served = json!({ "buyers": buyers, "visitors": visitors });
        until("both audiences are served", async || {
            client.get("/v1/node/health").await["snapshots"] == served
        })
        .await;
    };
    versions(1, 1).await;
    let first = settled(&node, "first", |r| r.state == RunState::Completed).await;
    assert!(shop.holds(2..10));
    let apply = async |audience: &str| {
        let sync = format!("    audience: {audience}\n");
        std::fs::write(&file, spec.replace("    audience: buyers\n", &sync)).unwrap();
        let (status, body) = client.post("/v1/spec/apply", &crate::sent_file(&file)).await;
        assert_eq!(status, 200, "{body}");
    };

    // Both audiences have version 1.
    apply("visitors").await;
    let done = |r: &SyncRun| r.id > first.id && r.state == RunState::Completed;
    let run = settled(&node, "visitors", done).await;
    assert_eq!((run.audience.as_str(), run.from_version, run.to_version), ("visitors", None, 1));
    assert_eq!((run.adds, run.removes), (4, 4));
    assert!(shop.holds(6..14));
    apply("buyers").await;
    let done = |r: &SyncRun| r.id > run.id && r.state == RunState::Completed;
    let run = settled(&node, "buyers", done).await;
    assert_eq!((run.audience.as_str(), run.adds, run.removes), ("buyers", 4, 4));
    assert!(shop.holds(2..10));

    // All delivered users would be removed.
    visitors(12..16);
    let (status, body) = client.post("/v1/audiences/visitors/refresh?force=true", &json!({})).await;
    assert_eq!(status, 200, "{body}");
    versions(1, 2).await;
    apply("visitors").await;
    let held = settled(&node, "held", |r| r.state == RunState::Held).await;
    let reason = held.reason.unwrap();
    assert!(reason.contains("the sync has delivered audience buyers so far"), "{reason}");
    assert!(shop.holds(2..10));
    approve(&client, held.id).await;
    let done = |r: &SyncRun| r.id == held.id && r.state == RunState::Completed;
    settled(&node, "approved", done).await;
    assert!(shop.holds(12..16));
    node.shutdown().await;
}
