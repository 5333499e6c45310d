//! Several nodes on one PostgreSQL, one Kafka and one bucket, with different roles.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use throng_access::Scope;
use throng_gate::feed::Frame;
use throng_gate::{Catalog, Gate};
use throng_log::{EventLog, FileLog, Record};
use throng_model::{AdGroupName, Clock, Micros, SystemClock};
use throng_server::{Node, NodeConfig, NodeError};
use throng_spec::Role;

use crate::{Client, sent_file, until};

/// A separate deployment on the services that `cargo xtask test` has started.
pub(crate) struct Deployment {
    dir: tempfile::TempDir,
    name: String,
    /// Appended to the ledger's URL.
    ledger_options: String,
    /// The advertiser's time zone, in which no day ends during the test.
    zone: &'static str,
}

pub(crate) fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests by `cargo xtask test`"))
}

impl Deployment {
    pub(crate) fn new() -> Self {
        // It fails if another test of the process has installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap().to_lowercase();
        let name = format!("shared-{}", name.trim_matches('.').replace("tmp", ""));
        let zone = throng_sim::zone_far_from_midnight(SystemClock.now());
        let deployment = Self { dir, name, ledger_options: String::new(), zone };
        std::fs::create_dir_all(deployment.path().join("data")).unwrap();
        deployment.purchases(0..100);
        deployment.spec("0.10");
        deployment
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn purchases(&self, customers: std::ops::Range<u32>) {
        let lines: String = customers.map(|c| format!("c{c},{}\n", c * 10)).collect();
        let aside = self.path().join("aside");
        std::fs::write(&aside, format!("customer,amount\n{lines}")).unwrap();
        std::fs::rename(aside, self.path().join("data/purchases.csv")).unwrap();
    }

    fn spec(&self, price: &str) {
        let zone = self.zone;
        let (kafka, s3, name) = (setting("THRONG_KAFKA"), setting("THRONG_S3"), &self.name);
        let text = format!(
            r#"version: 1
sources:
  - {{ name: shop, path: data }}
audiences:
  - {{ name: buyers, sql: "SELECT customer FROM shop.purchases" }}
  - {{ name: big, sql: "SELECT customer FROM shop.purchases WHERE amount >= 500" }}
advertisers:
  - {{ name: shop, currency: USD, time_zone: {zone} }}
campaigns:
  - {{ name: autumn, advertiser: shop }}
ad_groups:
  - {{ name: shoes, campaign: autumn, per: impression, price: "{price}", daily_budget: "1000000", impression_rate: 0.5 }}
  - {{ name: hats, campaign: autumn, per: click, price: "2", daily_budget: "1000000", action_rate: 0.1 }}
  - {{ name: gloves, campaign: autumn, per: impression, price: "0.03", daily_budget: "1000000" }}
node:
  ledger: postgres
  ledger_url: env:LEDGER
  identifiers_key: env:IDENTIFIERS
  log: kafka
  kafka: {{ brokers: "{kafka}", prefix: "{name}", session_ms: 2000 }}
  objects: s3
  bucket: {{ name: throng, prefix: "{name}", endpoint: "{s3}", access_key: env:ACCESS, secret_key: env:SECRET }}
  feed_interval_ms: 100
"#
        );
        std::fs::write(self.path().join("throng.yaml"), text).unwrap();
    }

    /// The prefix of its topics, and the name of its database.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Adds sections to the spec.
    pub(crate) fn declare(&self, sections: &str) {
        let file = self.path().join("throng.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, text.replace("node:\n", &format!("{sections}node:\n"))).unwrap();
    }

    /// Connects to all three engines by TLS, and to Kafka with a password.
    fn by_tls(&mut self) {
        let authority = setting("THRONG_CA");
        self.ledger_options = format!("?sslmode=verify-full&sslrootcert={authority}");
        let file = self.path().join("throng.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        let kafka = format!("brokers: \"{}\"", setting("THRONG_KAFKA"));
        let secure = format!(
            "brokers: \"{}\", tls: true, ca_file: \"{authority}\", sasl_mechanism: PLAIN, username: {}, password: env:PASSWORD",
            setting("THRONG_KAFKA_SECURE"),
            setting("THRONG_KAFKA_USER"),
        );
        let s3 = format!("endpoint: \"{}\"", setting("THRONG_S3"));
        let https =
            format!("endpoint: \"{}\", ca_file: \"{authority}\"", setting("THRONG_S3_SECURE"));
        assert!(text.contains(&kafka) && text.contains(&s3));
        std::fs::write(file, text.replace(&kafka, &secure).replace(&s3, &https)).unwrap();
    }

    fn env(&self) -> throng_server::Environment {
        let ledger = format!("{}/{}{}", setting("THRONG_POSTGRES"), self.name, self.ledger_options);
        Arc::new(move |name: &str| match name {
            "LEDGER" => Some(ledger.clone()),
            "ACCESS" => Some(setting("THRONG_S3_ACCESS_KEY")),
            "SECRET" => Some(setting("THRONG_S3_SECRET_KEY")),
            "PASSWORD" => Some(setting("THRONG_KAFKA_PASSWORD")),
            "META" => Some("s3cret-token".to_owned()),
            "IDENTIFIERS" => Some("5a".repeat(32)),
            _ => None,
        })
    }

    pub(crate) async fn node(&self, folder: &str, roles: &[Role]) -> Node {
        self.start(folder, roles, false).await.unwrap()
    }

    pub(crate) async fn start(
        &self,
        folder: &str,
        roles: &[Role],
        join: bool,
    ) -> Result<Node, NodeError> {
        self.start_at(folder, roles, join, Arc::new(SystemClock)).await
    }

    /// A node with another clock.
    pub(crate) async fn start_at(
        &self,
        folder: &str,
        roles: &[Role],
        join: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Node, NodeError> {
        Node::start(self.config(folder, roles, join, clock)).await
    }

    fn config(
        &self,
        folder: &str,
        roles: &[Role],
        join: bool,
        clock: Arc<dyn Clock>,
    ) -> NodeConfig {
        NodeConfig {
            accept_log_loss: Vec::new(),
            data_dir: self.path().join(folder),
            spec: throng_spec::load(&self.path().join("throng.yaml")).unwrap(),
            join,
            roles: Some(roles.to_vec()),
            listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
            clock,
            access_clock: Arc::new(SystemClock),
            recovery: throng_server::Recovery::default(),
            env: self.env(),
            limits: Default::default(),
            query_worker: crate::query_worker(),
        }
    }
}

fn impressions(ad_group: &str, ids: std::ops::Range<u32>) -> String {
    let at = SystemClock.now().to_string();
    ids.map(|id| {
        let id = format!("{ad_group}-{id}");
        json!({ "id": id, "kind": "impression", "ad_group": ad_group, "at": at }).to_string() + "\n"
    })
    .collect()
}

async fn actual(client: &Client, ad_group: &str) -> i64 {
    let budgets = client.get("/v1/budgets").await;
    let all = budgets["budgets"].as_array().unwrap();
    let one = all.iter().find(|b| b["name"] == ad_group).unwrap();
    one["actual_micros"].as_i64().unwrap()
}

pub(crate) async fn lookup(client: &Client, user: &str) -> Vec<String> {
    let answer = client.get(&format!("/v1/users/{user}/audiences")).await;
    let names = answer["audiences"].as_array().unwrap();
    names.iter().map(|a| a.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_builds_every_node_serves() {
    let deployment = Deployment::new();
    let api = deployment.node("api", &[Role::Api, Role::Schedule]).await;
    let builder = deployment.node("builder", &[Role::Build]).await;
    let lookups = deployment.start("lookups", &[Role::Lookup], true).await.unwrap();
    let (api_client, lookup_client) = (Client::of(&api), Client::of(&lookups));
    for client in [&api_client, &lookup_client] {
        until("both audiences are served", async || {
            lookup(client, "c60").await == ["big", "buyers"]
        })
        .await;
        assert_eq!(lookup(client, "c10").await, ["buyers"]);
        assert_eq!(lookup(client, "c100").await, [] as [&str; 0]);
    }
    // A refresh that one node is asked for is done by another, and a third one serves it.
    deployment.purchases(0..120);
    let (status, _) = api_client.post("/v1/audiences/buyers/refresh", &json!({})).await;
    assert_eq!(status, 200);
    until("the new version is served", async || lookup(&lookup_client, "c100").await == ["buyers"])
        .await;
    let health = lookup_client.get("/v1/node/health").await;
    assert_eq!(health["snapshots"], json!({ "big": 1, "buyers": 2 }));
    // A node does not answer requests of roles that it does not have.
    let refused = lookup_client.request("POST", "/v1/events").body("").send().await.unwrap();
    assert_eq!(refused.status(), 404);
    let said: Value = refused.json().await.unwrap();
    assert!(said["error"]["help"].as_str().unwrap().contains("role"), "{said}");
    for node in [lookups, builder, api] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_engines_are_used_by_tls_and_wrong_secrets_are_reported() {
    let mut deployment = Deployment::new();
    deployment.by_tls();
    let node = deployment.node("node", &Role::ALL).await;
    let client = Client::of(&node);
    until("it is served", async || lookup(&client, "c60").await == ["big", "buyers"]).await;
    client.events(impressions("shoes", 0..30)).await;
    until("it is counted", async || actual(&client, "shoes").await == 3_000_000).await;

    let settings = throng_spec::load(&deployment.path().join("throng.yaml")).unwrap().node;
    let found = throng_backends::check_backends(&settings, &deployment.env()).await;
    assert!(found.iter().all(|finding| finding.ok), "{found:#?}");
    assert!(found.iter().any(|finding| finding.backend == "topics"), "{found:#?}");
    node.shutdown().await;

    // A certificate of an untrusted authority, and a wrong password.
    let right = deployment.env();
    let wrong = move |name: &str| match name {
        "PASSWORD" => Some("guessed".to_owned()),
        "LEDGER" => {
            right(name).map(|url| url[..url.find('?').unwrap()].to_owned() + "?sslmode=verify-full")
        }
        _ => right(name),
    };
    let mut settings = settings;
    let throng_spec::ObjectsSettings::Bucket(bucket) = &mut settings.objects else { panic!() };
    let throng_spec::ServiceSettings::S3 { ca_file, .. } = &mut bucket.service else { panic!() };
    *ca_file = None;
    let found = throng_backends::check_backends(&settings, &(Arc::new(wrong) as _)).await;
    for finding in &found {
        assert!(!finding.ok, "{finding:#?}");
        assert!(!format!("{finding:?}").contains("guessed"), "{finding:#?}");
    }
    let says = |backend: &str| {
        let finding = found.iter().find(|finding| finding.backend == backend).unwrap();
        format!("{} {}", finding.message, finding.help.clone().unwrap_or_default())
    };
    assert!(says("ledger").to_lowercase().contains("certificate"), "{}", says("ledger"));
    assert!(says("log").contains("password"), "{}", says("log"));
    assert!(says("objects").to_lowercase().contains("certificate"), "{}", says("objects"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_another_deployment_are_refused_until_they_are_taken_over() {
    let (first, second) = (Deployment::new(), Deployment::new());
    first.node("node", &[Role::Api]).await.shutdown().await;
    // A copied spec, of which somebody has changed the rest.
    let file = second.path().join("throng.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let prefix = |of: &Deployment| format!("prefix: \"{}\", session_ms", of.name());
    assert!(text.contains(&prefix(&second)));
    std::fs::write(&file, text.replace(&prefix(&second), &prefix(&first))).unwrap();

    let refused = second.start("node", &[Role::Api], false).await.expect_err("a copied prefix");
    let is_foreign = |error: &NodeError| {
        matches!(error, NodeError::Backend(throng_backends::BackendError::ForeignTopics { .. }))
    };
    assert!(is_foreign(&refused), "{refused:?}");
    let words = refused.to_string();
    let topic = format!("{}.events", first.name());
    assert!(words.contains(&topic) && words.contains("--accept-mismatch"), "{words}");
    let settings = throng_spec::load(&file).unwrap().node;
    let found = throng_backends::check_backends(&settings, &second.env()).await;
    let topics = found.iter().find(|finding| finding.backend == "topics").unwrap();
    assert!(!topics.ok && topics.message.contains("node.kafka.prefix"), "{found:#?}");
    // The first deployment is not affected.
    first.node("node", &[Role::Api]).await.shutdown().await;

    let mut config = second.config("node", &[Role::Api], false, Arc::new(SystemClock));
    config.recovery = throng_server::Recovery::AcceptMismatch;
    Node::start(config).await.unwrap().shutdown().await;
    second.node("node", &[Role::Api]).await.shutdown().await;
    let refused = first.start("node", &[Role::Api], false).await.expect_err("taken over");
    assert!(is_foreign(&refused), "{refused:?}");
}

/// Whether the builder of this process has done parts of refreshes that another one leads.
async fn helped(client: &Client) -> bool {
    let metrics = client.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|l| l.starts_with("throng_refresh_parts_helped_total "));
    line.is_some_and(|line| !line.ends_with(" 0"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn builders_share_the_parts_of_one_refresh() {
    let deployment = Deployment::new();
    let visits = deployment.path().join("data/visits");
    std::fs::create_dir(&visits).unwrap();
    for file in 0..40 {
        let lines: String = (file * 100..(file + 1) * 100).map(|c| format!("v{c}\n")).collect();
        std::fs::write(visits.join(format!("{file}.csv")), format!("customer\n{lines}")).unwrap();
    }
    let spec = deployment.path().join("throng.yaml");
    let text = std::fs::read_to_string(&spec).unwrap();
    let audiences =
        "audiences:\n  - { name: visitors, sql: \"SELECT customer FROM shop.visits\" }\n";
    std::fs::write(&spec, text.replace("audiences:\n", audiences)).unwrap();
    let api = deployment.node("api", &[Role::Api, Role::Schedule]).await;
    let builders = [
        deployment.node("builder-1", &[Role::Build]).await,
        deployment.node("builder-2", &[Role::Build]).await,
    ];
    let client = Client::of(&api);
    until("it is served", async || lookup(&client, "v3999").await == ["visitors"]).await;
    // The leader may be done before another builder polls; then the refresh is repeated.
    until("a builder does parts that another one leads", async || {
        let (status, _) =
            client.post("/v1/audiences/visitors/refresh?force=true", &json!({})).await;
        assert_eq!(status, 200);
        helped(&client).await
    })
    .await;
    let visitors = async || {
        let all = client.get("/v1/audiences").await;
        let all = all["audiences"].as_array().unwrap().clone();
        all.into_iter().find(|a| a["name"] == "visitors").unwrap()
    };
    until("the last one has ended", async || visitors().await["refresh"]["state"] == "completed")
        .await;
    assert_eq!(visitors().await["current"]["members"], 4_000);
    for user in ["v0", "v2047", "v3999"] {
        until("it is served", async || lookup(&client, user).await == ["visitors"]).await;
    }
    for node in builders.into_iter().chain([api]) {
        node.shutdown().await;
    }
}

/// Every record of a log.
async fn records(log: &dyn EventLog) -> Vec<(u32, Record)> {
    let mut all = Vec::new();
    for partition in 0..log.partitions() {
        let mut from = log.start(partition).await.unwrap();
        while from < log.end(partition).await.unwrap() {
            for record in log.read(partition, from, 1 << 20).await.unwrap() {
                from = record.offset + 1;
                all.push((partition, record));
            }
        }
    }
    all
}

async fn spend(client: &Client) -> Vec<i64> {
    let mut spend = Vec::new();
    for ad_group in ["shoes", "hats", "gloves"] {
        spend.push(actual(client, ad_group).await);
    }
    spend
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_replayed_in_the_other_form_gives_the_same_spend() {
    let deployment = Deployment::new();
    let api = deployment.node("api", &[Role::Api]).await;
    let client = Client::of(&api);
    // There is no aggregator yet: events are durable all the same.
    for (ad_group, ids) in [("shoes", 0..40), ("gloves", 0..70), ("shoes", 20..90)] {
        client.events(impressions(ad_group, ids)).await;
    }
    let clicks = impressions("hats", 0..7).replace("impression", "click");
    client.events(clicks).await;
    let wanted = vec![9_000_000, 14_000_000, 2_100_000];
    let aggregate = deployment.node("aggregate", &[Role::Aggregate]).await;
    until("the shared form counts", async || spend(&client).await == wanted).await;

    // The records of the topic, as the log of a single node.
    let alone = deployment.path().join("alone");
    let taken = records(&*api.context().log).await;
    {
        let log = FileLog::open(&alone.join("log"), 4).unwrap();
        for (partition, record) in &taken {
            log.append(*partition, record.at, vec![record.value.clone()]).await.unwrap();
        }
    }
    let text = std::fs::read_to_string(deployment.path().join("throng.yaml")).unwrap();
    let text = &text[..text.find("node:").unwrap()];
    std::fs::write(deployment.path().join("throng.yaml"), text).unwrap();
    let mut config = deployment.config("alone", &Role::ALL, false, Arc::new(SystemClock));
    // The log has no ledger, which is intended.
    config.recovery = throng_server::Recovery::NewLedger;
    let node = Node::start(config).await.unwrap();
    assert_eq!(spend(&Client::of(&node)).await, wanted);

    // And back: the log of the single node, as the topic of another deployment.
    let more = impressions("shoes", 500..600);
    assert_eq!(Client::of(&node).events(more).await["accepted"], 100);
    let logged = records(&*node.context().log).await;
    let total = spend(&Client::of(&node)).await;
    assert_eq!(total, [19_000_000, 14_000_000, 2_100_000]);
    node.shutdown().await;
    let other = Deployment::new();
    let api = other.node("api", &[Role::Api]).await;
    for (partition, record) in logged {
        api.context().log.append(partition, record.at, vec![record.value]).await.unwrap();
    }
    let client = Client::of(&api);
    let aggregate_other = other.node("aggregate", &[Role::Aggregate]).await;
    until("the other form counts the same", async || spend(&client).await == total).await;
    for node in [aggregate, aggregate_other, api] {
        node.shutdown().await;
    }
}

/// A gate that reads the feed of a relay receives this spend of the ad group `shoes`.
async fn check_gate_receives(relay_client: &Client, spend: Micros) {
    let catalog: Catalog = serde_json::from_value(relay_client.get("/v1/catalog").await).unwrap();
    let gate = Gate::new(catalog, Duration::from_secs(60));
    let shoes: AdGroupName = "shoes".parse().unwrap();
    let response = relay_client.request("GET", "/v1/feed?gate=test").send().await.unwrap();
    let mut stream = response.bytes_stream();
    let mut buffer = Vec::new();
    while gate.spend(&shoes).unwrap().actual != spend {
        buffer.extend_from_slice(&stream.next().await.unwrap().unwrap());
        while let Some((length, rest)) = buffer.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some(frame) = rest.get(..length) else { break };
            gate.apply(&Frame::decode(frame).unwrap());
            buffer.drain(..4 + length);
        }
    }
}

/// Every node is listed, after its first heartbeat.
async fn check_all_are_listed(client: &Client) {
    until("every node is listed", async || {
        let nodes = client.get("/v1/nodes").await;
        let mut roles: Vec<&str> = nodes["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["roles"].as_str().unwrap())
            .collect();
        roles.sort_unstable();
        roles.dedup();
        roles == ["aggregate", "api", "relay"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregators_share_the_log_and_take_over_to_the_micro() {
    let deployment = Deployment::new();
    let api = deployment.node("api", &[Role::Api]).await;
    let relay = deployment.node("relay", &[Role::Relay]).await;
    let first = deployment.node("aggregate-1", &[Role::Aggregate]).await;
    let second = deployment.node("aggregate-2", &[Role::Aggregate]).await;
    let led = |node: &Node| node.context().budgets.led_partitions();
    until("each leads half of the partitions", async || {
        led(&first).len() == 2 && led(&second).len() == 2
    })
    .await;
    let client = Client::of(&api);
    for round in 0..2 {
        // The same twice: it counts once, whichever process applies it.
        for ad_group in ["shoes", "gloves"] {
            let said = client.events(impressions(ad_group, round * 50..round * 50 + 100)).await;
            assert_eq!(said["accepted"], 100, "{said}");
        }
    }
    let figures = async || (actual(&client, "shoes").await, actual(&client, "gloves").await);
    until("the spend is counted", async || figures().await == (15_000_000, 4_500_000)).await;

    // One is killed; the other one then has all figures, to the micro.
    drop(first);
    until("the second leads all", async || led(&second) == [0, 1, 2, 3]).await;
    client.events(impressions("shoes", 100..300)).await;
    until("events since then are counted too", async || figures().await == (30_000_000, 4_500_000))
        .await;

    let relay_client = Client::of(&relay);
    check_gate_receives(&relay_client, Micros(30_000_000)).await;

    // And is listed by other nodes, as all nodes are.
    let report = json!({ "versions": { "0": 7 } });
    let (status, _) = relay_client.post("/v1/gates/test/applied", &report).await;
    assert_eq!(status, 200);
    until("the gate of the relay is known to the api node", async || {
        let gates = client.get("/v1/gates").await;
        gates["gates"][0]["id"] == "test" && gates["gates"][0]["versions"] == json!([[0, 7]])
    })
    .await;
    check_all_are_listed(&client).await;

    // A new price counts from now on, whichever node applied the spec.
    deployment.spec("0.20");
    let spec = sent_file(&deployment.path().join("throng.yaml"));
    let (status, said) = client.post("/v1/spec/apply", &spec).await;
    assert_eq!(status, 200, "{said}");
    let version = said["version"].as_u64().unwrap();
    until("every node has the new spec", async || {
        [&api, &relay, &second].iter().all(|n| n.context().budgets.catalog().version == version)
    })
    .await;
    client.events(impressions("shoes", 300..310)).await;
    until("the new price counts", async || figures().await.0 == 32_000_000).await;
    for node in [relay, second, api] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_accepts_the_tokens_of_the_others() {
    let deployment = Deployment::new();
    let first = deployment.node("first", &[Role::Api]).await;
    let second = deployment.start("second", &[Role::Api], true).await.unwrap();
    let admin = Client::of(&first);
    // The admin token of one node is one of another, and so is what it creates.
    let of_first = Client { url: second.url(), ..Client::of(&first) };
    assert_eq!(of_first.request("GET", "/v1/tokens").send().await.unwrap().status(), 200);
    let token = first.replace_token("one", &[Scope::Read]).await.unwrap();
    let one = Client { http: crate::http(Some(token.expose())), url: second.url() };
    assert_eq!(one.request("GET", "/v1/runs").send().await.unwrap().status(), 200);
    let names = admin.get("/v1/tokens").await;
    let names: Vec<&str> =
        names["tokens"].as_array().unwrap().iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(names.iter().filter(|name| name.starts_with("admin-")).count(), 2, "{names:?}");
    // A link of one node signs in at another.
    let link = first.sign_in_link().await.unwrap();
    let link = link.replace(&first.url(), &second.url());
    let opened = crate::http(None).get(link);
    let opened = opened.header("sec-fetch-site", "none").header("sec-fetch-mode", "navigate");
    assert_eq!(opened.send().await.unwrap().status(), 303);
    // Revoked on one, it is soon refused by the other.
    assert_eq!(admin.post("/v1/tokens/one/revoke", &json!({})).await.0, 200);
    until("it is refused", async || {
        one.request("GET", "/v1/runs").send().await.unwrap().status() == 401
    })
    .await;
    for node in [second, first] {
        node.shutdown().await;
    }
}
