//! A gate apart from the node (`throng-sidecar`) over real HTTP: its decisions are the node's, through changes,
//! restarts, damaged transfers and a full disk.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use throng_access::Scope;
use throng_model::{Clock, Entropy, ManualClock, Secret, SplitMix64, SystemClock};
use throng_server::{Node, NodeConfig};
use throng_sidecar::{NodeOptions, Sidecar, SidecarError, SidecarOptions, SyncError};
use throng_sim::{SmallDisk, zone_far_from_midnight};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxy::{Proxy, Transfer};
use crate::{Client, http, sent_file, until};

const AUDIENCES: &str = r#"version: 1
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
  - { name: hats, campaign: autumn, per: click, price: "2", daily_budget: "100", impression_rate: 0.5, action_rate: 0.1, include: [big], when_stale: stop }
  - { name: gloves, campaign: autumn, per: impression, price: "0.10", daily_budget: "100", impression_rate: 0.5 }
"#;
const COATS: &str = "  - { name: coats, campaign: autumn, per: impression, price: \"0.10\", daily_budget: \"9\", impression_rate: 0.5, exclude: [buyers] }\n";

/// A folder with a spec, its source, and the data directory of a node.
pub(crate) struct Shop {
    dir: tempfile::TempDir,
}

impl Shop {
    pub(crate) fn new() -> Self {
        let shop = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(shop.dir.path().join("data")).unwrap();
        shop.purchases(0..20);
        shop.declare(AUDIENCES);
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn declare(&self, text: &str) {
        let zone = zone_far_from_midnight(SystemClock.now());
        std::fs::write(self.path("throng.yaml"), text.replace("UTC", zone)).unwrap();
    }

    fn purchases(&self, customers: std::ops::Range<u32>) {
        let lines: String = customers.map(|c| format!("c{c},{}\n", c * 10)).collect();
        let temporary = self.path("purchases.tmp");
        std::fs::write(&temporary, format!("customer,amount\n{lines}")).unwrap();
        std::fs::rename(temporary, self.path("data/purchases.csv")).unwrap();
    }

    async fn node_at(&self, listen: SocketAddr) -> Node {
        Node::start(NodeConfig {
            accept_log_loss: Vec::new(),
            data_dir: self.path("node"),
            spec: throng_spec::load(&self.path("throng.yaml")).unwrap(),
            join: false,
            roles: None,
            listen: Some(listen),
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

    /// A node that serves the first versions of both audiences.
    pub(crate) async fn node(&self) -> Node {
        let node = self.node_at(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        serves(&Client::of(&node), json!({ "big": 1, "buyers": 1 })).await;
        node
    }

    /// What a sidecar on this machine is started with; `cache` names its folder.
    pub(crate) fn options(&self, url: &str, token: Secret, cache: &str) -> SidecarOptions {
        SidecarOptions {
            node: NodeOptions { url: url.to_owned(), token: Some(token), ..Default::default() },
            cache_dir: self.path(cache),
            id: None,
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            allowed_hosts: Vec::new(),
            client_token: None,
            socket: None,
            socket_mode: 0o600,
            stale_after: Duration::from_secs(600),
            clock: Arc::new(SystemClock),
        }
    }
}

async fn serves(client: &Client, versions: Value) {
    until("the node serves the versions", async || {
        client.get("/v1/node/health").await["snapshots"] == versions
    })
    .await;
}

pub(crate) async fn token(node: &Node) -> Secret {
    node.replace_token("gate", &[Scope::Feed, Scope::Lookup, Scope::Events]).await.unwrap()
}

/// A client of a sidecar.
pub(crate) fn client_of(sidecar: &Sidecar) -> Client {
    Client { http: http(None), url: sidecar.url().unwrap() }
}

pub(crate) async fn is_ready(client: &Client) -> bool {
    client.request("GET", "/readyz").send().await.unwrap().status() == 200
}

pub(crate) async fn ready(client: &Client) {
    until("the sidecar is ready", async || is_ready(client).await).await;
}

/// The code of the refusal of an ad group, `allowed`, or `unavailable` before the gate decides.
pub(crate) async fn code(client: &Client, user: &str, ad_group: &str) -> String {
    let question = json!({ "user": user, "ad_groups": [ad_group] });
    let (status, answer) = client.post("/v1/decide", &question).await;
    if status != 200 {
        return answer["error"]["code"].as_str().unwrap_or_default().to_owned();
    }
    match answer["refused"].as_array().unwrap().first() {
        Some(refused) => refused["code"].as_str().unwrap().to_owned(),
        None => "allowed".to_owned(),
    }
}

async fn has_code(client: &Client, user: &str, ad_group: &str, expected: &str) {
    until(&format!("{ad_group} is {expected} for {user}"), async || {
        code(client, user, ad_group).await == expected
    })
    .await;
}

/// A request over the unix socket. Returns the status and the body.
async fn over_socket(path: &Path, question: &Value) -> (u16, Value) {
    let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
    let body = question.to_string();
    let head = format!(
        "POST /v1/decide HTTP/1.1\r\nhost: gate\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

/// A random user, who may be unknown or missing, and random candidates, which may be unknown or not names.
fn question(random: &mut SplitMix64) -> Value {
    let names = ["shoes", "hats", "gloves", "coats", "socks", "Not a name"];
    let count = random.below(5);
    let candidates: Vec<&str> =
        (0..count).map(|_| names[random.below(names.len() as u64) as usize]).collect();
    match random.below(8) {
        0 => json!({ "ad_groups": candidates }),
        _ => json!({ "user": format!("c{}", random.below(60)), "ad_groups": candidates }),
    }
}

/// Random questions have the same answer from the node, and from the sidecar over TCP and the socket.
async fn compare(node: &Client, sidecar: &Client, socket: &Path, seed: u64) {
    let mut random = SplitMix64::new(seed);
    for _ in 0..150 {
        let question = question(&mut random);
        until(&format!("the same answer to {question}"), async || {
            let expected = node.post("/v1/decide", &question).await;
            assert_eq!(expected.0, 200, "{question}");
            sidecar.post("/v1/decide", &question).await == expected
                && over_socket(socket, &question).await == expected
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_decisions_are_those_of_the_node_through_all_changes() {
    let shop = Shop::new();
    let node = shop.node().await;
    let client = Client::of(&node);
    let socket = shop.path("gate.sock");
    let options = shop.options(&node.url(), token(&node).await, "cache");
    let sidecar = Sidecar::start(SidecarOptions { socket: Some(socket.clone()), ..options });
    let sidecar = sidecar.await.unwrap();
    let gate = client_of(&sidecar);
    ready(&gate).await;
    compare(&client, &gate, &socket, 1).await;
    for (user, expected) in [("c5", "allowed"), ("c15", "excluded"), ("x", "not_in_audience")] {
        assert_eq!(code(&gate, user, "shoes").await, expected, "{user}");
    }
    // An invalid request is refused as by the node.
    let invalid = json!({ "ad_groups": [], "record": true });
    let answers =
        (client.post("/v1/decide", &invalid).await, gate.post("/v1/decide", &invalid).await);
    assert_eq!((answers.0.0, answers.1.0), (400, 400));
    assert_eq!(answers.0.1["error"]["code"], answers.1.1["error"]["code"]);

    // The budget is spent.
    let at = SystemClock.now().to_string();
    let spent: String = (0..10)
        .map(|n| {
            json!({ "id": format!("i{n}"), "kind": "impression", "ad_group": "shoes", "at": at })
                .to_string()
                + "\n"
        })
        .collect();
    assert_eq!(client.events(spent).await["accepted"], 10);
    has_code(&gate, "c5", "shoes", "out_of_budget").await;
    compare(&client, &gate, &socket, 2).await;

    // Other users are in the audiences.
    shop.purchases(5..30);
    for name in ["buyers", "big"] {
        let path = format!("/v1/audiences/{name}/refresh");
        assert_eq!(client.post(&path, &json!({})).await.0, 200, "{name}");
    }
    has_code(&client, "c25", "hats", "allowed").await;
    has_code(&gate, "c25", "hats", "allowed").await;
    compare(&client, &gate, &socket, 3).await;

    // There is another ad group.
    shop.declare(&(AUDIENCES.to_owned() + COATS));
    let (status, applied) =
        client.post("/v1/spec/apply", &sent_file(&shop.path("throng.yaml"))).await;
    assert_eq!(status, 200, "{applied}");
    has_code(&gate, "c50", "coats", "allowed").await;
    compare(&client, &gate, &socket, 4).await;

    // The node knows which frames the gate has.
    let id = sidecar.id().to_owned();
    until("the gate is in the list", async || {
        let listed = client.get("/v1/gates").await;
        let gates = listed["gates"].as_array().unwrap().clone();
        gates.iter().any(|gate| gate["id"] == id.as_str() && gate["versions"][0][1].is_u64())
    })
    .await;
    sidecar.shutdown().await;
    assert!(!socket.exists());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insertion_is_recorded_by_the_node_and_counts_at_once() {
    let shop = Shop::new();
    let node = shop.node().await;
    let client = Client::of(&node);
    let options = shop.options(&node.url(), token(&node).await, "cache");
    let sidecar = Sidecar::start(options).await.unwrap();
    let gate = client_of(&sidecar);
    ready(&gate).await;
    // 20 insertions of 0.05 reach the budget of 1.00. The node closes the ad group a little earlier, because the
    // amount in flight is uncertain, and the gate counts its own at once.
    let question = json!({ "user": "c5", "ad_groups": ["shoes"], "record_insertion": true });
    let mut recorded = 0;
    loop {
        let (status, answer) = gate.post("/v1/decide", &question).await;
        assert_eq!(status, 200, "{answer}");
        if answer["allowed"] != json!(["shoes"]) {
            break;
        }
        assert!(answer["insertion_id"].as_str().unwrap().starts_with("decide-"), "{answer}");
        recorded += 1;
    }
    assert!((8..=22).contains(&recorded), "{recorded}");
    until("the node has the insertions in flight", async || {
        let state = client.get("/v1/budgets/shoes").await["state"].clone();
        let in_flight = state["in_flight_micros"].as_i64().unwrap();
        (recorded * 45_000..=recorded * 50_000).contains(&in_flight)
    })
    .await;
    // Without the node nothing can be recorded, and decisions continue.
    node.shutdown().await;
    let question = json!({ "ad_groups": ["gloves"], "record_insertion": true });
    let (status, answer) = gate.post("/v1/decide", &question).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("unavailable")), "{answer}");
    assert_eq!(code(&gate, "c5", "gloves").await, "allowed");
    sidecar.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_its_node_and_follows_the_next_one_at_the_address() {
    let shop = Shop::new();
    let node = shop.node().await;
    let (token, url) = (token(&node).await, node.url());
    let address: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let options = shop.options(&url, token.clone(), "cache");
    let options = SidecarOptions { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..options };
    let sidecar = Sidecar::start(options).await.unwrap();
    let gate = client_of(&sidecar);
    ready(&gate).await;
    assert_eq!(code(&gate, "c15", "hats").await, "allowed");
    node.shutdown().await;
    until("the problem is reported", async || {
        let answer = gate.request("GET", "/readyz").send().await.unwrap();
        let (status, answer): (_, Value) = (answer.status(), answer.json().await.unwrap());
        status == 200
            && answer["degraded"] == true
            && answer["problems"].to_string().contains("feed: ")
    })
    .await;
    // Long enough that the figures are stale: each ad group says whether it wants that.
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(code(&gate, "c15", "hats").await, "stale");
    assert_eq!(code(&gate, "c5", "shoes").await, "allowed");
    sidecar.shutdown().await;

    // A sidecar that starts without a node has the snapshots of its cache, but no figures.
    let sidecar = Sidecar::start(shop.options(&url, token, "cache")).await.unwrap();
    let gate = client_of(&sidecar);
    assert_eq!(code(&gate, "c5", "gloves").await, "unavailable");
    assert!(!is_ready(&gate).await);
    let node = shop.node_at(address).await;
    ready(&gate).await;
    assert_eq!(code(&gate, "c15", "hats").await, "allowed");
    assert_eq!(code(&gate, "c15", "shoes").await, "excluded");
    sidecar.shutdown().await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_transfer_is_never_served_and_a_cut_one_continues() {
    let shop = Shop::new();
    let node = shop.node().await;
    let client = Client::of(&node);
    let proxy = Proxy::start(&node.url()).await;
    // Every transfer is cut: each try brings half of what is left, and none is enough.
    proxy.set(Transfer::CutInHalf);
    let sidecar = Sidecar::start(shop.options(&proxy.url, token(&node).await, "cache"));
    let sidecar = sidecar.await.unwrap();
    let gate = client_of(&sidecar);
    let problems = async || {
        let answer: Value =
            gate.request("GET", "/readyz").send().await.unwrap().json().await.unwrap();
        answer["problems"].to_string()
    };
    until("the transfer fails", async || problems().await.contains("membership: ")).await;
    assert_eq!(code(&gate, "c5", "shoes").await, "unavailable");
    proxy.set(Transfer::FlipAByte);
    until("the damage is found", async || problems().await.contains("membership: damaged_file"))
        .await;
    assert_eq!(code(&gate, "c5", "shoes").await, "unavailable");
    proxy.set(Transfer::Whole);
    ready(&gate).await;
    assert_eq!(code(&gate, "c15", "hats").await, "allowed");

    // The version that is served stays until the next one is whole.
    proxy.set(Transfer::FlipAByte);
    shop.purchases(5..30);
    let (status, queued) = client.post("/v1/audiences/big/refresh", &json!({})).await;
    assert_eq!(status, 200, "{queued}");
    has_code(&client, "c25", "hats", "allowed").await;
    until("the damage is found again", async || {
        problems().await.contains("membership: damaged_file")
    })
    .await;
    assert_eq!(code(&gate, "c25", "hats").await, "not_in_audience");
    assert_eq!(code(&gate, "c15", "hats").await, "allowed");
    proxy.set(Transfer::Whole);
    has_code(&gate, "c25", "hats", "allowed").await;
    sidecar.shutdown().await;

    // What is damaged in the cache is read again.
    let files = std::fs::read_dir(shop.path("cache/snapshots/big")).unwrap();
    for file in files {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let sidecar = Sidecar::start(shop.options(&node.url(), token(&node).await, "cache"));
    let sidecar = sidecar.await.unwrap();
    let gate = client_of(&sidecar);
    ready(&gate).await;
    assert_eq!(code(&gate, "c25", "hats").await, "allowed");
    sidecar.shutdown().await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_other_deployments_and_what_is_in_use_end_the_start() {
    let shop = Shop::new();
    let node = shop.node().await;
    let refused = async |options: SidecarOptions| Sidecar::start(options).await.unwrap_err();
    let wrong = Secret::new("throng_wrong");
    let error = refused(shop.options(&node.url(), wrong, "cache")).await;
    assert!(matches!(error, SidecarError::Sync(SyncError::WrongToken { .. })), "{error}");
    assert!(error.hint().unwrap().contains("--scope feed,lookup"), "{error}");
    let feed_only = node.replace_token("feed", &[Scope::Feed]).await.unwrap();
    let error = refused(shop.options(&node.url(), feed_only, "cache")).await;
    assert!(matches!(error, SidecarError::Sync(SyncError::Forbidden { .. })), "{error}");
    assert!(error.to_string().contains("lookup"), "{error}");

    let token_of_node = token(&node).await;
    let options = || shop.options(&node.url(), token_of_node.clone(), "cache");
    let open = SidecarOptions { listen: Some(([0, 0, 0, 0], 0).into()), ..options() };
    let error = refused(open).await;
    assert!(error.to_string().contains("--client-token-file"), "{error}");
    let socket = Some(shop.path("gate.sock"));
    let sidecar = Sidecar::start(SidecarOptions { socket: socket.clone(), ..options() });
    let sidecar = sidecar.await.unwrap();
    ready(&client_of(&sidecar)).await;
    let error = refused(options()).await;
    assert!(matches!(error, SidecarError::CacheInUse { by: Some(_), .. }), "{error}");
    let other_cache = shop.options(&node.url(), token_of_node.clone(), "other-cache");
    let error = refused(SidecarOptions { socket, ..other_cache }).await;
    assert!(matches!(error, SidecarError::SocketInUse { .. }), "{error}");
    sidecar.shutdown().await;

    let other = Shop::new();
    let other_node = other.node().await;
    let error = refused(shop.options(&other_node.url(), token(&other_node).await, "cache")).await;
    assert!(matches!(error, SidecarError::Sync(SyncError::OtherDeployment { .. })), "{error}");
    other_node.shutdown().await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_over_tcp_need_the_token_and_metrics_are_exposed() {
    let shop = Shop::new();
    let node = shop.node().await;
    let options = shop.options(&node.url(), token(&node).await, "cache");
    let client_token = Some(Secret::new("s3cret"));
    let options = SidecarOptions { client_token, id: Some("gate-1".to_owned()), ..options };
    let sidecar = Sidecar::start(options).await.unwrap();
    let stranger = client_of(&sidecar);
    let client = Client { http: http(Some("s3cret")), url: sidecar.url().unwrap() };
    ready(&stranger).await;
    assert_eq!(code(&stranger, "c5", "shoes").await, "unauthorized");
    assert_eq!(code(&client, "c5", "shoes").await, "allowed");
    let metrics = client.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        "throng_sidecar_ready 1",
        "throng_sidecar_decisions_total 1",
        "throng_sidecar_snapshot_version{audience=\"buyers\"} 1",
        "throng_sidecar_sync_failures_total{part=\"feed\"} 0",
        "# TYPE throng_sidecar_frames_total counter",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    assert!(
        metrics.contains("throng_gate_applied_version{gate=\"gate-1\",partition="),
        "{metrics}"
    );
    sidecar.shutdown().await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_cache_leaves_the_old_version_and_the_next_attempt_succeeds() {
    let shop = Shop::new();
    let Some(disk) = SmallDisk::mount(&shop.path("cache"), 2) else { return };
    let node = shop.node().await;
    let client = Client::of(&node);
    let sidecar = Sidecar::start(shop.options(&node.url(), token(&node).await, "cache"));
    let sidecar = sidecar.await.unwrap();
    let gate = client_of(&sidecar);
    ready(&gate).await;
    let ballast = disk.fill().unwrap();
    shop.purchases(5..30);
    let (status, queued) = client.post("/v1/audiences/big/refresh", &json!({})).await;
    assert_eq!(status, 200, "{queued}");
    has_code(&client, "c25", "hats", "allowed").await;
    until("the full disk is reported", async || {
        let answer: Value =
            gate.request("GET", "/readyz").send().await.unwrap().json().await.unwrap();
        answer["problems"].to_string().contains("membership: cache_full")
    })
    .await;
    assert_eq!(code(&gate, "c25", "hats").await, "not_in_audience");
    assert_eq!(code(&gate, "c15", "hats").await, "allowed");
    std::fs::remove_file(ballast).unwrap();
    has_code(&gate, "c25", "hats", "allowed").await;
    sidecar.shutdown().await;
    node.shutdown().await;
}
