//! Audiences over HTTP: refreshes, lookups, held snapshots, approval, rollback, decisions.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use throng_model::SystemClock;
use throng_server::{Node, NodeConfig};
use throng_store::RefreshTrigger;

use crate::{Client, TIMEOUT, sent_file, until};

const SPEC: &str = r#"version: 1
sources:
  - { name: shop, path: data }
audiences:
  - { name: buyers, sql: "SELECT customer FROM shop.purchases" }
  - { name: big, sql: "SELECT customer FROM shop.purchases WHERE amount >= 100" }
advertisers:
  - { name: shop, currency: USD, time_zone: UTC }
campaigns:
  - { name: autumn, advertiser: shop }
ad_groups:
  - { name: shoes, campaign: autumn, per: impression, price: "0.10", daily_budget: "1.00", impression_rate: 0.5, include: [buyers], exclude: [big] }
"#;

fn purchases(dir: &Path, customers: impl Iterator<Item = u32>) {
    let lines: String = customers.map(|c| format!("c{c},{}\n", c * 10)).collect();
    let temporary = dir.join("purchases.tmp");
    std::fs::write(&temporary, format!("customer,amount\n{lines}")).unwrap();
    std::fs::rename(temporary, dir.join("data/purchases.csv")).unwrap();
}

async fn start(dir: &Path) -> Node {
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
        env: Arc::new(|_: &str| None),
        limits: Default::default(),
        query_worker: crate::query_worker(),
    })
    .await
    .unwrap()
}

/// Waits, by the changes that the node publishes, until an audience is as wanted.
pub(crate) async fn settled(node: &Node, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let client = Client::of(node);
    let mut changes = node.context().changes.subscribe();
    let asking = async {
        loop {
            let audience = client.get(&format!("/v1/audiences/{name}")).await;
            if wanted(&audience) {
                return audience;
            }
            // A lagging receiver asks again, too.
            let _ = changes.recv().await;
        }
    };
    tokio::time::timeout(TIMEOUT, asking).await.expect(name)
}

/// Waits until these versions are served, which is a moment after they are published.
async fn served(client: &Client, versions: Value) {
    until("the versions are served", async || {
        client.get("/v1/node/health").await["snapshots"] == versions
    })
    .await;
}

async fn audiences_of(client: &Client, user: &str) -> Value {
    client.get(&format!("/v1/users/{user}/audiences")).await["audiences"].clone()
}

/// Both audiences are built and served, and decisions use them.
async fn check_first_snapshots(node: &Node, client: &Client) {
    for (name, members) in [("buyers", 20), ("big", 10)] {
        let built = settled(node, name, |a| !a["current"].is_null()).await;
        assert_eq!(built["current"]["members"], json!(members), "{name}");
    }
    served(client, json!({ "big": 1, "buyers": 1 })).await;
    assert_eq!(audiences_of(client, "c5").await, json!(["buyers"]));
    assert_eq!(audiences_of(client, "c15").await, json!(["big", "buyers"]));
    assert_eq!(audiences_of(client, "nobody").await, json!([]));
    for (user, allowed, code) in
        [("c5", true, ""), ("c15", false, "excluded"), ("x", false, "not_in_audience")]
    {
        let (_, said) =
            client.post("/v1/decide", &json!({ "user": user, "ad_groups": ["shoes"] })).await;
        assert_eq!(
            said["allowed"].as_array().map(Vec::len),
            Some(usize::from(allowed)),
            "{user}: {said}"
        );
        assert_eq!(said["refused"][0]["code"].as_str().unwrap_or_default(), code, "{user}");
    }
}

/// The source is emptied: the served version stays until a person approves the new one.
async fn check_held_and_approved(dir: &Path, node: &Node, client: &Client) {
    purchases(dir, 0..2);
    let (status, queued) = client.post("/v1/audiences/buyers/refresh", &json!({})).await;
    assert_eq!(status, 200, "{queued}");
    let held = settled(node, "buyers", |a| a["refresh"]["state"] == "held").await;
    assert_eq!(held["current"]["members"], json!(20));
    assert_eq!(audiences_of(client, "c5").await, json!(["buyers"]));
    let (status, said) =
        client.post("/v1/audiences/buyers/approve", &json!({ "version": 2 })).await;
    assert_eq!(status, 200, "{said}");
    let refresh = client.get("/v1/audiences/buyers").await["refresh"].clone();
    assert_eq!((&refresh["state"], &refresh["reason"]), (&json!("completed"), &Value::Null));
    assert_eq!(audiences_of(client, "c5").await, json!([]));
    let (status, said) =
        client.post("/v1/audiences/buyers/approve", &json!({ "version": 2 })).await;
    assert_eq!((status, &said["error"]["code"]), (409, &json!("wrong_state")));
}

/// A version that a person rolled back to is pinned.
async fn check_rolled_back_and_pinned(client: &Client) {
    let (status, _) = client.post("/v1/audiences/buyers/rollback", &json!({ "version": 1 })).await;
    assert_eq!(status, 200);
    assert_eq!(audiences_of(client, "c5").await, json!(["buyers"]));
    let (status, said) = client.post("/v1/audiences/buyers/refresh", &json!({})).await;
    assert_eq!(status, 409, "{said}");
    assert!(said["error"]["help"].as_str().unwrap().contains("throng audience release buyers"));
    let page = client.request("GET", "/audiences").send().await.unwrap().text().await.unwrap();
    assert!(page.contains("pinned to version 1"), "{page}");
}

/// A paused audience is not refreshed, not even on request.
async fn check_paused(client: &Client) {
    let post =
        async |what: &str| client.post(&format!("/v1/audiences/big/{what}"), &json!({})).await;
    let (status, said) = post("pause").await;
    assert_eq!((status, said["paused_at"].is_null()), (200, false), "{said}");
    assert_eq!(post("pause").await.0, 409);
    let (status, said) = post("refresh").await;
    assert_eq!(status, 409, "{said}");
    assert!(said["error"]["help"].as_str().unwrap().contains("throng audience resume big"));
    let page = client.request("GET", "/audiences/big").send().await.unwrap().text().await.unwrap();
    assert!(page.contains("id=\"stopped\">paused<"), "{page}");
    let (status, said) = post("resume").await;
    assert_eq!((status, said["paused_at"].is_null()), (200, true), "{said}");
    assert_eq!(post("resume").await.0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_is_refreshed_held_approved_rolled_back_pinned_and_paused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("throng.yaml"), SPEC).unwrap();
    purchases(dir.path(), 0..20);
    let node = start(dir.path()).await;
    let client = Client::of(&node);
    check_first_snapshots(&node, &client).await;
    check_held_and_approved(dir.path(), &node, &client).await;
    check_rolled_back_and_pinned(&client).await;
    check_paused(&client).await;

    // All of it survives a restart.
    node.shutdown().await;
    let node = start(dir.path()).await;
    let client = Client::of(&node);
    assert_eq!(audiences_of(&client, "c15").await, json!(["big", "buyers"]));
    let health = client.get("/v1/node/health").await;
    assert_eq!(health["snapshots"], json!({ "big": 1, "buyers": 1 }));
    purchases(dir.path(), 0..21);
    for (status, code) in [(200, Value::Null), (409, json!("wrong_state"))] {
        let said = client.post("/v1/audiences/buyers/release", &json!({})).await;
        assert_eq!((said.0, &said.1["error"]["code"]), (status, &code), "{}", said.1);
    }
    let (status, said) = client.post("/v1/audiences/buyers/refresh", &json!({})).await;
    assert_eq!(status, 200, "{said}");
    settled(&node, "buyers", |a| a["current"]["members"] == 21).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_held_snapshots_that_match_are_rejected_or_approved() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("throng.yaml"), SPEC).unwrap();
    purchases(dir.path(), 0..20);
    let node = start(dir.path()).await;
    let client = Client::of(&node);
    served(&client, json!({ "big": 1, "buyers": 1 })).await;
    purchases(dir.path(), 0..2);
    for (operation, state, audiences) in [
        ("reject-snapshots", "failed", json!(["buyers"])),
        ("approve-snapshots", "completed", json!([])),
    ] {
        let (status, queued) = client.post("/v1/audiences/buyers/refresh", &json!({})).await;
        assert_eq!(status, 200, "{queued}");
        settled(&node, "buyers", |a| a["refresh"]["state"] == "held").await;
        let path = format!("/v1/bulk/{operation}");
        let page = client.request("GET", "/audiences?state=held").send().await.unwrap();
        assert!(page.text().await.unwrap().contains(&format!("data-post=\"{path}\"")), "{path}");
        let (status, counted) = client.post(&path, &json!({ "search": "buy" })).await;
        assert_eq!((status, &counted["matched"]), (200, &json!(1)), "{counted}");
        assert_eq!(counted["totals"], json!({ "members": 2, "members_served": 20 }));
        assert_eq!(audiences_of(&client, "c5").await, json!(["buyers"]), "it is only counted");
        let body = json!({ "search": "buy", "expected": 1, "digest": counted["digest"] });
        let (status, done) = client.post(&path, &body).await;
        assert_eq!(
            (status, &done["done"], &done["refused"]),
            (200, &json!(1), &json!([])),
            "{done}"
        );
        assert_eq!(client.get("/v1/audiences/buyers").await["refresh"]["state"], state);
        assert_eq!(audiences_of(&client, "c5").await, audiences);
        let (status, said) = client.post(&path, &body).await;
        assert_eq!((status, &said["error"]["code"]), (409, &json!("wrong_state")), "{said}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_the_spec_does_not_declare_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let file = dir.path().join("throng.yaml");
    let end = SPEC.find("advertisers:").unwrap();
    std::fs::write(&file, &SPEC[..end]).unwrap();
    purchases(dir.path(), 0..20);
    let node = start(dir.path()).await;
    let client = Client::of(&node);
    served(&client, json!({ "big": 1, "buyers": 1 })).await;
    let whole = sent_file(&file);
    let big = SPEC.find("  - { name: big").unwrap();
    std::fs::write(&file, &SPEC[..big]).unwrap();
    std::fs::write(dir.path().join("data/purchases.csv.old"), "customer,amount\n").unwrap();
    let (status, said) = client.post("/v1/spec/apply", &sent_file(&file)).await;
    assert_eq!(status, 200, "{said}");
    // What the check of the SQL has found is in the answer, as it is in that of a plan.
    assert!(said["plan"]["warnings"].to_string().contains("purchases.csv.old"), "{said}");
    served(&client, json!({ "buyers": 1 })).await;
    assert_eq!(audiences_of(&client, "c15").await, json!(["buyers"]));
    // It is not served after a restart either.
    node.shutdown().await;
    let node = start(dir.path()).await;
    let client = Client::of(&node);
    assert_eq!(audiences_of(&client, "c15").await, json!(["buyers"]));
    // Once it is declared again, it is served with the version that it had.
    let (status, said) = client.post("/v1/spec/apply", &whole).await;
    assert_eq!(status, 200, "{said}");
    until("it is served again", async || {
        audiences_of(&client, "c15").await == json!(["big", "buyers"])
    })
    .await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_audience_is_not_refreshed_by_its_schedule() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let file = dir.path().join("throng.yaml");
    let end = SPEC.find("  - { name: big").unwrap();
    let hourly = "purchases\", schedule: { cron: \"0 * * * *\", time_zone: UTC } }";
    std::fs::write(&file, SPEC[..end].replace("purchases\" }", hourly)).unwrap();
    purchases(dir.path(), 0..20);
    let clock = crate::noon();
    let spec = throng_spec::load(&file).unwrap();
    let node = crate::start(&dir.path().join("node"), spec, &clock).await.unwrap();
    let (client, ledger) = (Client::of(&node), Arc::clone(&node.context().ledger));
    settled(&node, "buyers", |a| !a["current"].is_null()).await;
    let name = "buyers".parse().unwrap();
    let skipped = async || {
        let history = ledger
            .history(Some((&throng_store::SubjectKind::Audience, "buyers")), 50)
            .await
            .unwrap();
        history.iter().filter(|entry| entry.what == throng_store::HistoryEvent::Skipped).count()
    };
    let refreshes = async || ledger.refreshes(Some(&name), 9).await.unwrap();
    assert_eq!(client.post("/v1/audiences/buyers/pause", &json!({})).await.0, 200);
    clock.advance(Duration::from_secs(3_700));
    until("the first firing is skipped", async || skipped().await == 1).await;
    clock.advance(Duration::from_secs(3_600));
    until("the second firing is recorded", async || {
        let row = ledger.audience(&name).await.unwrap().unwrap();
        row.last_fired == Some("2026-11-23T14:00:00Z".parse().unwrap())
    })
    .await;
    assert_eq!((skipped().await, refreshes().await.len()), (1, 1));
    assert_eq!(client.post("/v1/audiences/buyers/resume", &json!({})).await.0, 200);
    clock.advance(Duration::from_secs(3_600));
    until("the schedule starts a refresh again", async || refreshes().await.len() == 2).await;
    assert_eq!(refreshes().await[0].trigger, RefreshTrigger::Schedule);
    node.shutdown().await;
}

/// The value of a card on the overview.
async fn card(client: &Client, id: &str) -> String {
    let page = client.request("GET", "/").send().await.unwrap().text().await.unwrap();
    let (_, rest) = page.split_once(&format!("id=\"{id}\"")).expect(id);
    let (_, rest) = rest.split_once("<b>").expect(id);
    rest.split_once("</b>").expect(id).0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_counts_what_is_declared() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let path = dir.path().join("throng.yaml");
    std::fs::write(&path, SPEC).unwrap();
    purchases(dir.path(), 0..20);
    let node = start(dir.path()).await;
    let client = Client::of(&node);
    for name in ["buyers", "big"] {
        settled(&node, name, |a| !a["current"].is_null()).await;
    }
    assert_eq!(card(&client, "audiences").await, "2 of 2");
    assert_eq!(card(&client, "memberships").await, "30");
    let audience =
        "  - { name: big, sql: \"SELECT customer FROM shop.purchases WHERE amount >= 100\" }\n";
    let fewer = SPEC.replace(audience, "").replace(", exclude: [big]", "");
    assert!(!fewer.contains("big"), "{fewer}");
    std::fs::write(&path, fewer).unwrap();
    let (status, said) = client.post("/v1/spec/apply", &crate::sent_file(&path)).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(card(&client, "audiences").await, "1 of 1");
    assert_eq!(card(&client, "memberships").await, "20");
    node.shutdown().await;
}

/// The same SQL in three workspaces, over a folder each.
const WORKSPACES: &str = r#"version: 1
sources: [{ name: shop, path: own }]
audiences: [{ name: all, sql: "SELECT customer FROM shop.visits" }]
workspaces:
  - name: acme
    sources: [{ name: shop, path: acme }]
    audiences:
      - { name: all, sql: "SELECT customer FROM shop.visits" }
      - name: "{region}-visitors"
        for_each: SELECT DISTINCT region FROM shop.visits
        sql: SELECT customer FROM shop.visits WHERE region = $region
  - name: globex
    sources: [{ name: shop, path: globex }]
    audiences: [{ name: all, sql: "SELECT customer FROM shop.visits" }]
advertisers: [{ name: shop, currency: USD, time_zone: UTC }]
campaigns: [{ name: autumn, advertiser: shop }]
ad_groups:
  - { name: shoes, campaign: autumn, per: impression, price: "0.10", daily_budget: "1.00", include: ["acme:all"] }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn audiences_of_workspaces_have_members_of_their_own_sources() {
    let dir = tempfile::tempdir().unwrap();
    for (folder, users) in [("own", 1), ("acme", 2), ("globex", 3)] {
        let path = dir.path().join(folder);
        std::fs::create_dir(&path).unwrap();
        let rows: String = (0..users).map(|n| format!("{folder}{n},emea\n")).collect();
        std::fs::write(path.join("visits.csv"), format!("customer,region\n{rows}")).unwrap();
    }
    std::fs::write(dir.path().join("throng.yaml"), WORKSPACES).unwrap();
    let versions = json!({ "all": 1, "acme:all": 1, "acme:emea-visitors": 1, "globex:all": 1 });
    // Also after a restart, which removes what no audience needs.
    for _ in 0..2 {
        let node = start(dir.path()).await;
        let client = Client::of(&node);
        for (name, members) in
            [("all", 1), ("acme:all", 2), ("acme:emea-visitors", 2), ("globex:all", 3)]
        {
            let built = settled(&node, name, |a| !a["current"].is_null()).await;
            assert_eq!(built["current"]["members"], json!(members), "{name}");
        }
        served(&client, versions.clone()).await;
        assert_eq!(audiences_of(&client, "own0").await, json!(["all"]));
        assert_eq!(audiences_of(&client, "acme0").await, json!(["acme:all", "acme:emea-visitors"]));
        assert_eq!(audiences_of(&client, "globex2").await, json!(["globex:all"]));
        for (user, allowed) in [("acme1", 1), ("globex1", 0), ("own0", 0)] {
            let wanted = json!({ "user": user, "ad_groups": ["shoes"] });
            let (_, decided) = client.post("/v1/decide", &wanted).await;
            assert_eq!(decided["allowed"].as_array().map(Vec::len), Some(allowed), "{user}");
        }
        let folder = dir.path().join("node/objects/snapshots/acme:all");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
        node.shutdown().await;
    }
}
