//! Specs over HTTP: checked as `throng check` does, and against the limits of the node's operator.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use throng_access::{LimitsConfig, LimitsError};
use throng_server::{Node, NodeConfig, NodeError};
use throng_spec::{Limits, Problem};

use crate::{Client, SPEC, noon, sent, spec, start};

/// A folder with a source `data` and a spec on it.
struct Shop(tempfile::TempDir);

impl Shop {
    fn new() -> Self {
        let shop = Self(tempfile::tempdir().unwrap());
        for folder in ["data", "data/more", "elsewhere"] {
            std::fs::create_dir(shop.path(folder)).unwrap();
            std::fs::write(shop.path(folder).join("visits.csv"), "user,n\na,1\nb,2\n").unwrap();
        }
        shop
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// A spec with one audience over the source at `path`, and `more`.
    fn spec(path: &str, more: &str) -> String {
        format!(
            "version: 1\nsources:\n  - {{ name: s, path: \"{path}\" }}\naudiences:\n  \
             - {{ name: all, sql: SELECT user FROM s.visits }}\n{more}"
        )
    }

    /// The request body of a spec that is sent from this folder.
    fn sent(&self, text: &str) -> Value {
        let file = json!({ "path": self.path("throng.yaml"), "text": text });
        json!({ "base": self.0.path(), "files": [file] })
    }

    async fn start(&self, text: &str, limits: LimitsConfig) -> Result<Node, NodeError> {
        std::fs::write(self.path("throng.yaml"), text).unwrap();
        Node::start(NodeConfig {
            accept_log_loss: Vec::new(),
            data_dir: self.path("node"),
            spec: throng_spec::load(&self.path("throng.yaml")).unwrap(),
            join: false,
            roles: None,
            listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
            clock: noon(),
            access_clock: noon(),
            recovery: throng_server::Recovery::default(),
            env: Arc::new(|_: &str| Some("s3cret".to_owned())),
            limits,
            query_worker: crate::query_worker(),
        })
        .await
    }
}

fn flags(allow: impl FnOnce(&mut Limits)) -> LimitsConfig {
    let mut flags = Limits::default();
    allow(&mut flags);
    LimitsConfig { flags, file: None }
}

/// Sends a spec that must be refused to plan and to apply. Returns its problems.
async fn refused(client: &Client, body: &Value) -> Vec<Problem> {
    let version = client.get("/v1/spec").await["version"].clone();
    let (status, planned) = client.post("/v1/spec/plan", body).await;
    assert_eq!((status, &planned["error"]["code"]), (400, &json!("invalid_spec")), "{planned}");
    let (status, response) = client.post("/v1/spec/apply", body).await;
    assert_eq!((status, &response["error"]["code"]), (400, &json!("invalid_spec")), "{response}");
    assert_eq!(response["error"]["problems"], planned["error"]["problems"]);
    assert_eq!(client.get("/v1/spec").await["version"], version, "nothing is applied");
    let problems: Vec<Problem> =
        serde_json::from_value(response["error"]["problems"].clone()).unwrap();
    assert!(problems.iter().all(|problem| problem.help.is_some()), "{problems:#?}");
    problems
}

async fn applied(client: &Client, body: &Value) -> u64 {
    let (status, planned) = client.post("/v1/spec/plan", body).await;
    assert_eq!(status, 200, "{planned}");
    let (status, response) = client.post("/v1/spec/apply", body).await;
    assert_eq!(status, 200, "{response}");
    assert_eq!(response["plan"], planned["plan"]);
    response["version"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_over_http_is_checked_as_throng_check_does() {
    let shop = Shop::new();
    let node = shop.start(&Shop::spec("data", ""), LimitsConfig::default()).await.unwrap();
    let client = Client::of(&node);
    let groups = SPEC.trim_start_matches("version: 1\n");
    let sync = "destinations:\n  - { name: d, platform: meta, account: act_1, access_token: env:A }\n\
                syncs:\n  - { name: x, audience: all, destination: d, batch_rows: 0, identifiers: \
                { sql: SELECT user, key: user, columns: { user: EXTERN_ID } } }\n";
    let long = format!("SELECT '{}', user", "x".repeat(300 << 10));
    let with = |from: &str, to: &str| Shop::spec("data", &groups.replace(from, to));
    for (text, wrong) in [
        (with("\"0.10\"", "\"-0.10\""), "`price` must be more than zero"),
        (with("impression_rate: 0.5", "impression_rate: 1e300"), "`impression_rate`"),
        (with("name: hats", "name: shoes"), "two ad groups named `shoes`"),
        (with("campaign: autumn", "campaign: spring"), "no campaign named `spring`"),
        (with("per: click", "per: clicks"), "`per`"),
        (Shop::spec("data", sync), "`batch_rows` cannot be 0"),
        (Shop::spec("data", "").replace("SELECT user", "SELECT usr"), "no column usr"),
        (Shop::spec("data", "").replace("SELECT user", "DROP user"), "begins with `DROP`"),
        (Shop::spec("data", "").replace("s.visits", "s.visit"), "no table s.visit"),
        (Shop::spec("data/nothing", ""), "no such folder"),
        (Shop::spec("data", "node: { listen: nowhere }\n"), "is not an address"),
        (Shop::spec("data", "").replace("SELECT user", &long), "longer than 256 KiB"),
    ] {
        std::fs::write(shop.path("throng.yaml"), &text).unwrap();
        let local = match throng_spec::load(&shop.path("throng.yaml")) {
            Err(problems) => problems,
            Ok(_) => Vec::new(),
        };
        let problems = refused(&client, &shop.sent(&text)).await;
        assert!(problems.iter().any(|p| p.message.contains(wrong)), "{wrong}: {problems:#?}");
        let place = |p: &Problem| (p.line, p.column, p.path.clone(), p.message.clone());
        if !local.is_empty() && wrong != "no such folder" && !wrong.contains("batch_rows") {
            let places = |some: &[Problem]| some.iter().map(place).collect::<Vec<_>>();
            assert_eq!(places(&problems), places(&local), "{wrong}");
        }
    }
    // Invalid request bodies.
    let file = json!({ "path": "a", "text": "version: 1" });
    for body in [
        json!({ "base": "relative", "files": [file] }),
        json!({ "base": "/", "files": [] }),
        json!({ "base": "/", "files": [file, file] }),
        json!({ "base": "/", "files": vec![json!({ "path": "a\u{7}", "text": "" }); 2] }),
    ] {
        refused(&client, &body).await;
    }
    let old = json!({ "spec": client.get("/v1/spec").await["spec"] });
    assert_eq!(client.post("/v1/spec/apply", &old).await.0, 400, "a spec is its texts");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_of_an_attacker_is_refused_with_every_problem() {
    let shop = Shop::new();
    let data = shop.path("data");
    let mine =
        "destinations:\n  - { name: d, platform: meta, account: act_1, access_token: env:META }\n";
    let node = shop.start(&Shop::spec("data", mine), LimitsConfig::default()).await.unwrap();
    let client = Client::of(&node);
    let secret = shop.path("node/ledger.db");
    let elsewhere = shop.path("elsewhere");
    let text = format!(
        "version: 1\nsources:\n  - {{ name: s, path: \"{}\" }}\n  - {{ name: t, path: \"{}\" }}\n\
         \x20 - {{ name: u, path: \"/no/such/folder\" }}\naudiences:\n  - {{ name: all, sql: SELECT \
         user FROM s.visits }}\ndestinations:\n  - {{ name: d, platform: meta, account: act_1, \
         access_token: env:META, base_url: \"https://evil.example:8443\" }}\n  - {{ name: e, platform: \
         meta, account: act_1, access_token: \"file:{}\" }}\n  - {{ name: f, platform: meta, account: \
         act_1, access_token: env:META, app_secret: env:HOME }}\n",
        elsewhere.display(),
        data.join("../elsewhere").display(),
        secret.display(),
    );
    let problems = refused(&client, &shop.sent(&text)).await;
    let all = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for hint in [
        format!("--allow-source {}", elsewhere.display()),
        "--allow-source /no/such/folder".to_owned(),
        "--allow-secret env:META@evil.example:8443".to_owned(),
        format!("--allow-secret file:{}@graph.facebook.com", secret.display()),
        "--allow-secret env:HOME@graph.facebook.com".to_owned(),
        "hosts: [\"evil.example:8443\"]".to_owned(),
    ] {
        assert!(all.contains(&hint), "{hint}\n{all}");
    }
    assert_eq!(problems.len(), 6, "{all}");
    assert!(!all.contains("no such folder"), "it reveals what exists: {all}");
    // What the node was started with may be named, also with another spelling.
    let same = Shop::spec("data/more/..", mine).replace("name: d", "name: other");
    assert_eq!(applied(&client, &shop.sent(&same)).await, 2);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_allows_is_accepted_and_no_link_leads_out_of_it() {
    let shop = Shop::new();
    let limits = flags(|limits| {
        limits.allow_source(&shop.path("data"));
        limits.allow_secret("env:A".parse().unwrap(), "ads.example".parse().unwrap());
        limits.allow_host("other.example:8443".parse().unwrap());
    });
    let node = shop.start(SPEC, limits).await.unwrap();
    let client = Client::of(&node);
    let destination = |token: &str, host: &str| {
        Shop::spec(
            "data/more",
            &format!(
                "destinations:\n  - {{ name: d, platform: meta, account: act_1, access_token: {token}, base_url: \"https://{host}\" }}\n"
            ),
        )
    };
    for (token, host, refusals) in [
        ("env:A", "other.example:8443", 1),
        ("env:A", "ads.example:8443", 1),
        ("env:A", "ads.example.evil.example", 1),
        ("env:B", "ads.example", 1),
        ("env:A", "ads.example", 0),
        ("env:A", "ADS.example:443/", 0),
    ] {
        let body = shop.sent(&destination(token, host));
        match refusals {
            0 => assert!(applied(&client, &body).await > 1),
            _ => assert_eq!(refused(&client, &body).await.len(), refusals, "{token} {host}"),
        }
    }
    // An existing link, and links that are created later: inside the source, and instead of it.
    symlink(shop.path("elsewhere"), shop.path("data/link")).unwrap();
    let problems = refused(&client, &shop.sent(&Shop::spec("data/link", ""))).await;
    assert!(problems[0].message.contains("leads out of"), "{problems:#?}");
    let good = shop.sent(&Shop::spec("data/more", ""));
    applied(&client, &good).await;
    let planted = shop.path("data/more/visits.csv");
    std::fs::remove_file(&planted).unwrap();
    symlink(shop.path("elsewhere/visits.csv"), &planted).unwrap();
    let problems = refused(&client, &good).await;
    assert!(problems[0].message.contains("leads out of"), "{problems:#?}");
    let lake = node.context().lake.load_full();
    let error = lake.check_model("SELECT user FROM s.visits", None).await.unwrap_err().to_string();
    assert!(error.contains("leads out of"), "a refresh reads no other file: {error}");
    std::fs::remove_dir_all(shop.path("data/more")).unwrap();
    symlink(shop.path("elsewhere"), shop.path("data/more")).unwrap();
    let error = lake.check_model("SELECT user FROM s.visits", None).await.unwrap_err().to_string();
    assert!(error.contains("leads out of"), "it reads no other folder either: {error}");
    node.shutdown().await;

    // The ledger stores the root of the source, for a start without the flags.
    let ledger = throng_ledger::SqliteLedger::open(&shop.path("node/ledger.db")).await.unwrap();
    let stored = throng_store::SpecLedger::applied_spec(&ledger).await.unwrap().unwrap().spec;
    assert_eq!(stored["sources"][0]["root"], json!(shop.path("data")));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_node_cannot_be_changed_over_http() {
    let shop = Shop::new();
    let node_settings =
        "node:\n  listen: 127.0.0.1:7999\n  build_workers: 3\n  memory_limit_bytes: 100000000\n";
    let node =
        shop.start(&Shop::spec("data", node_settings), LimitsConfig::default()).await.unwrap();
    let client = Client::of(&node);
    for same in [node_settings, "", "node:\n  build_workers: 3\n"] {
        let version = applied(&client, &shop.sent(&Shop::spec("data", same))).await;
        assert_eq!(version, 1, "nothing differs: {same}");
    }
    let other = "node:\n  listen: 127.0.0.1:7998\n  build_workers: 4\n  token: env:T\n  memory_limit_bytes: 100000000\n  \
                 ledger: postgres\n  ledger_url: env:EVIL\n  spill_dir: /etc\n";
    let problems = refused(&client, &shop.sent(&Shop::spec("data", other))).await;
    let fields: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
    let wanted =
        ["node.listen", "node.build_workers", "node.token", "node.ledger", "node.spill_dir"];
    assert_eq!(fields, wanted, "{problems:#?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_concurrent_applies_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), spec(SPEC), &noon()).await.unwrap();
    let client = Client::of(&node);
    let over = |version: u64, price: &str| {
        let mut body = sent(&SPEC.replace("\"0.10\"", price));
        body["base_version"] = version.into();
        body
    };
    let (status, response) = client.post("/v1/spec/apply", &over(1, "\"0.20\"")).await;
    assert_eq!((status, &response["version"]), (200, &json!(2)), "{response}");
    let (status, response) = client.post("/v1/spec/apply", &over(1, "\"0.30\"")).await;
    assert_eq!((status, &response["error"]["code"]), (409, &json!("conflict")), "{response}");
    assert!(
        response["error"]["message"].as_str().unwrap().contains("version is now 2"),
        "{response}"
    );
    assert!(response["error"]["help"].as_str().unwrap().contains("throng plan"), "{response}");
    let (_, planned) = client.post("/v1/spec/plan", &over(1, "\"0.30\"")).await;
    assert_eq!(planned["version"], json!(2));
    let bodies: Vec<Value> = (3..8).map(|n| over(2, &format!("\"0.{n}\""))).collect();
    let all = bodies.iter().map(|body| client.post("/v1/spec/apply", body));
    let statuses: Vec<u16> =
        futures::future::join_all(all).await.into_iter().map(|(status, _)| status).collect();
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 409).count(), 4, "{statuses:?}");
    assert_eq!(client.get("/v1/spec").await["version"], json!(3));
    node.shutdown().await;
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_file_is_read_again_and_a_bad_one_changes_nothing() {
    let shop = Shop::new();
    let file = shop.path("node/limits.yaml");
    std::fs::create_dir(shop.path("node")).unwrap();
    let node = shop.start(SPEC, LimitsConfig::default()).await.unwrap();
    let client = Client::of(&node);
    let body = shop.sent(&Shop::spec("data", ""));
    assert_eq!(refused(&client, &body).await.len(), 1);
    let allowing = format!("version: 1\nsources: [\"{}\"]\n", shop.path("data").display());
    for (text, mode) in [(allowing.as_str(), 0o666), ("version: 1\nsource: [x]\n", 0o600)] {
        write(&file, text, mode);
        node.reload_limits().unwrap_err();
        assert_eq!(refused(&client, &body).await.len(), 1);
        let problems = node.context().health.classes();
        assert_eq!(problems, [throng_server::ProblemClass::Config], "{text}");
    }
    write(&file, &allowing, 0o600);
    let change = node.reload_limits().unwrap();
    assert_eq!(change.added, [format!("source {}", shop.path("data").display())]);
    assert!(change.removed.is_empty() && node.context().health.classes().is_empty());
    assert_eq!(applied(&client, &body).await, 2);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(node.reload_limits().unwrap().removed, change.added);
    // The applied spec stays applied, and is refused if it is sent again.
    assert_eq!(refused(&client, &body).await.len(), 1);
    node.shutdown().await;
    let named = LimitsConfig { file: Some(file), ..LimitsConfig::default() };
    let error = shop.start(SPEC, named).await.unwrap_err();
    assert!(matches!(error, NodeError::Limits(LimitsError::Unreadable { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_sent_from_the_data_directory() {
    let shop = Shop::new();
    let limits = flags(|limits| {
        let secret = format!("file:{}", shop.path("node/admin.token").display());
        limits.allow_secret(secret.parse().unwrap(), "ads.example".parse().unwrap());
    });
    std::fs::create_dir(shop.path("node")).unwrap();
    std::fs::write(shop.path("node/admin.token"), "t").unwrap();
    let error = shop.start(SPEC, limits).await.unwrap_err();
    assert!(matches!(error, NodeError::Limits(LimitsError::InDataDir { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_spec_in_the_ledger_is_refused() {
    let shop = Shop::new();
    shop.start(SPEC, LimitsConfig::default()).await.unwrap().shutdown().await;
    let ledger = throng_ledger::SqliteLedger::open(&shop.path("node/ledger.db")).await.unwrap();
    let stored = throng_store::SpecLedger::applied_spec(&ledger).await.unwrap().unwrap().spec;
    let good = serde_json::from_value::<throng_spec::Spec>(stored.clone()).unwrap();
    assert_eq!(serde_json::to_value(&good).unwrap(), stored);
    for (pointer, value) in [
        ("/ad_groups/0/price", json!(-1)),
        ("/ad_groups/0/impression_rate", json!(1e300)),
        ("/ad_groups/0/campaign", json!("spring")),
        ("/ad_groups/1/name", json!("shoes")),
        ("/node/log_partitions", json!(0)),
        ("/version", json!(2)),
    ] {
        let mut wrong = stored.clone();
        *wrong.pointer_mut(pointer).unwrap() = value;
        let error = serde_json::from_value::<throng_spec::Spec>(wrong).unwrap_err();
        assert!(!error.to_string().is_empty(), "{pointer}");
    }
}
