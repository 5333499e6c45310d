//! Sources in buckets, on the S3 server that `cargo xtask test` has started.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use throng_model::{Clock, ManualClock, Secret};
use throng_objects::{BucketObjects, BucketOptions, Objects as _, Service};
use throng_server::{Node, NodeConfig};
use throng_spec::Environment;
use throng_store::RefreshTrigger;

use crate::shared::setting;
use crate::source_changes::{STEP, ended, refreshes};
use crate::{Client, noon, query_worker, sent_file, until};

/// A secret key that the server does not know.
const WRONG_KEY: &str = "wrong-EAAB-key";

/// A prefix of the bucket, and a folder for nodes and their specs.
struct Exports {
    dir: tempfile::TempDir,
    prefix: String,
    objects: BucketObjects,
}

impl Exports {
    fn new() -> Self {
        // It fails if another test of the process has installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap().to_lowercase();
        let prefix = format!("sources-{}", name.trim_matches('.'));
        let [access, secret] =
            ["THRONG_S3_ACCESS_KEY", "THRONG_S3_SECRET_KEY"].map(|key| Secret::new(setting(key)));
        let options = BucketOptions {
            service: Service::S3 {
                endpoint: Some(setting("THRONG_S3")),
                region: "us-east-1".to_owned(),
                keys: Some((access, secret)),
                ca_file: None,
            },
            bucket: "throng".to_owned(),
            prefix: prefix.clone(),
            cache_bytes: 0,
        };
        let objects = BucketObjects::open(dir.path().join("local"), &options).unwrap();
        Self { dir, prefix, objects }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self) -> String {
        format!("s3://throng/{}", self.prefix)
    }

    /// Writes an object with these customers.
    async fn put(&self, name: &str, customers: std::ops::Range<u32>) {
        let lines: String = customers.map(|c| format!("c{c:03},1\n")).collect();
        let path = self.objects.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("customer,n\n{lines}")).unwrap();
        self.objects.upload(name).await.unwrap();
    }

    /// A spec of these audiences over the bucket.
    fn spec(&self, secret: &str, audiences: &str) -> PathBuf {
        let text = format!(
            "version: 1\nsources:\n  - name: shop\n    path: {}\n    s3: {{ endpoint: \"{}\", access_key: env:ACCESS, \
             secret_key: env:{secret} }}\naudiences:\n{audiences}",
            self.url(),
            setting("THRONG_S3"),
        );
        let file = self.path("throng.yaml");
        std::fs::write(&file, text).unwrap();
        file
    }

    async fn start(&self, spec: &Path, clock: &Arc<ManualClock>) -> Node {
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        let config = NodeConfig {
            accept_log_loss: Vec::new(),
            data_dir: self.path("node"),
            spec: throng_spec::load(spec).unwrap(),
            join: false,
            roles: None,
            listen: Some(([127, 0, 0, 1], 0).into()),
            access_clock: Arc::clone(&clock),
            clock,
            recovery: throng_server::Recovery::default(),
            env: env(),
            limits: Default::default(),
            query_worker: query_worker(),
        };
        Node::start(config).await.unwrap()
    }
}

fn env() -> Environment {
    Arc::new(|name: &str| match name {
        "ACCESS" => Some(setting("THRONG_S3_ACCESS_KEY")),
        "SECRET" => Some(setting("THRONG_S3_SECRET_KEY")),
        "WRONG" => Some(WRONG_KEY.to_owned()),
        _ => None,
    })
}

async fn members(client: &Client) -> Value {
    client.get("/v1/audiences/buyers").await["current"]["members"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_follows_the_objects_of_a_bucket() {
    let exports = Exports::new();
    exports.put("visits/1.csv", 0..10).await;
    let buyers = "  - { name: buyers, sql: SELECT customer FROM shop.visits, schedule: { on: source_changed, \
                  poll_secs: 60 } }\n";
    let spec = exports.spec("SECRET", buyers);
    let clock = noon();
    let node = exports.start(&spec, &clock).await;
    let client = Client::of(&node);
    ended(&node, 1).await;
    assert_eq!(members(&client).await, json!(10));

    exports.put("visits/2.csv", 10..15).await;
    until("the new object is found", async || {
        clock.advance(STEP);
        refreshes(&node).await.len() == 2
    })
    .await;
    let refresh = ended(&node, 2).await;
    assert_eq!(
        (refresh.trigger, refresh.snapshot_version),
        (RefreshTrigger::SourceChanged, Some(2))
    );
    assert_eq!(members(&client).await, json!(15));

    exports.objects.remove("visits/2.csv").await.unwrap();
    until("that it is gone is found", async || {
        clock.advance(STEP);
        refreshes(&node).await.len() == 3
    })
    .await;
    assert_eq!(ended(&node, 3).await.snapshot_version, Some(3));
    assert_eq!(members(&client).await, json!(10));

    // Shown by the URL, and not by the folder of the copy.
    let listed = client.get("/v1/sources").await;
    let [source] = listed["sources"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!(source["path"], json!(exports.url()));
    let file = format!("{}/visits/1.csv", exports.url());
    assert_eq!(source["tables"][0]["files"][0]["path"], json!(file), "{listed}");
    assert!(!listed.to_string().contains(&*exports.path("node").to_string_lossy()), "{listed}");
    node.shutdown().await;

    // The copy is removed with the source.
    let copies = || std::fs::read_dir(exports.path("node/sources")).unwrap().count();
    assert_eq!(copies(), 1);
    std::fs::write(&spec, "version: 1\n").unwrap();
    let node = exports.start(&spec, &clock).await;
    until("the copy is removed", async || copies() == 0).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_one_problem_without_the_key() {
    let exports = Exports::new();
    exports.put("visits/1.csv", 0..10).await;
    let audiences = "  - { name: buyers, sql: SELECT customer FROM shop.visits }\n  - { name: others, sql: SELECT \
                     customer FROM shop.visits WHERE n > 0 }\n";
    let spec = exports.spec("WRONG", audiences);
    let node = exports.start(&spec, &noon()).await;
    let client = Client::of(&node);
    let (status, answer) = client.post("/v1/spec/plan", &sent_file(&spec)).await;
    let text = answer.to_string();
    assert_eq!(status, 400, "{text}");
    let problems = answer["error"]["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{text}");
    assert!(problems[0]["message"].as_str().unwrap().contains(&exports.url()), "{text}");
    assert!(problems[0]["help"].as_str().is_some_and(|help| !help.is_empty()), "{text}");
    assert!(!text.contains("EAAB"), "{text}");
    // The refresh of the start has failed in the same way, and is tried again.
    until("the refresh has failed", async || {
        refreshes(&node).await.iter().any(|refresh| refresh.failures > 0)
    })
    .await;
    let reason = refreshes(&node).await.remove(0).reason.unwrap_or_default();
    assert!(reason.contains(&exports.url()) && !reason.contains("EAAB"), "{reason}");
    // Nothing that was not copied with these keys is listed.
    let listed = client.get("/v1/sources").await;
    assert!(listed["sources"][0]["refused"]["message"].is_string(), "{listed}");
    assert_eq!(listed["sources"][0]["tables"], json!([]), "{listed}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ingested_records_are_in_a_bucket_and_become_members() {
    let exports = Exports::new();
    let text = format!(
        "version: 1\nnode:\n  lake:\n    path: {}\n    s3: {{ endpoint: \"{}\", access_key: env:ACCESS, secret_key: \
         env:SECRET }}\nschemas: [{{ name: visits, key: id, fields: [{{ name: id, type: text, required: true }}] \
         }}]\naudiences:\n  - {{ name: buyers, sql: SELECT id FROM lake.visits }}\n",
        exports.url(),
        setting("THRONG_S3"),
    );
    let spec = exports.path("throng.yaml");
    std::fs::write(&spec, text).unwrap();
    let clock = noon();
    let node = exports.start(&spec, &clock).await;
    let client = Client::of(&node);
    let settings = throng_spec::load(&spec).unwrap().node;
    let found = throng_backends::check_backends(&settings, &env()).await;
    let lake = found.iter().find(|finding| finding.backend == "lake").unwrap();
    assert!(lake.ok && lake.message.contains("conditional write"), "{lake:?}");
    // The table exists before its rows, so the audience is built.
    ended(&node, 1).await;
    assert_eq!(members(&client).await, json!(0));
    let send = async |client: &Client| -> Value {
        let request = client.request("POST", "/v1/ingest/visits?batch=one");
        let request = request.header("content-type", "text/csv").body("id\na\nb\n");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    };
    let report = send(&client).await;
    assert_eq!((&report["accepted"], &report["repeated"]), (&json!(2), &json!(false)));
    // The clock stands still: the copy would not be compared with the bucket if this node had not written to it.
    let (status, _) = client.post("/v1/audiences/buyers/refresh", &json!({})).await;
    assert_eq!(status, 200);
    ended(&node, 2).await;
    assert_eq!(members(&client).await, json!(2));
    let listed = client.get("/v1/sources").await;
    let source = &listed["sources"][0];
    assert_eq!(source["path"], json!(format!("{}/default", exports.url())));
    assert_eq!(source["tables"][0]["passed_over_count"], json!(0), "{listed}");
    node.shutdown().await;

    let manifests = exports.objects.list("default/visits/_batches").await.unwrap();
    assert_eq!(manifests.len(), 2, "that of the columns, and that of the batch: {manifests:?}");
    let node = exports.start(&spec, &clock).await;
    assert_eq!(send(&Client::of(&node)).await["repeated"], json!(true));
    node.shutdown().await;
}
