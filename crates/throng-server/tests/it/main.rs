//! Tests of a node in this process, over HTTP.

#![expect(clippy::unwrap_used, reason = "tests: a panic is how a case fails")]

mod access;
mod activate_many;
mod activation;
mod alerts;
mod answers;
mod api;
mod audiences;
mod backup;
mod budget_report;
mod budgets;
mod build;
mod bulk;
mod clock_steps;
mod connections;
mod damage;
mod empty_audiences;
mod events;
mod feed_alerts;
mod files;
mod identifier_types;
mod ingest;
mod limits;
mod lists;
mod metrics;
mod node;
mod openapi;
mod openapi_document;
mod proxy;
mod queries;
mod removal_guard;
mod removals;
mod run_requests;
mod schedules;
mod sessions;
mod shared;
mod sidecar;
mod sidecar_start;
mod sizes;
mod source_buckets;
mod source_changes;
mod storage;
mod stores;
mod tasks;
mod templates;
mod tls;
mod unconfirmed;
mod upgrade;
mod warm;
mod workspaces;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use throng_model::{ManualClock, Timestamp};
use throng_server::{Node, NodeConfig, NodeError};
use throng_spec::Spec;

/// Noon of a day, at which the nodes' clocks start.
pub(crate) const NOON: &str = "2026-11-23T12:00:00Z";

/// Two ad groups with small budgets.
pub(crate) const SPEC: &str = r#"version: 1
advertisers:
  - { name: shop, currency: USD, time_zone: UTC }
campaigns:
  - { name: autumn, advertiser: shop }
ad_groups:
  - { name: shoes, campaign: autumn, per: impression, price: "0.10", daily_budget: "1.00", impression_rate: 0.5 }
  - { name: hats, campaign: autumn, per: click, price: "2", daily_budget: "100", impression_rate: 0.5, action_rate: 0.1 }
"#;

/// A checked spec.
pub(crate) fn spec(text: &str) -> Spec {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("throng.yaml");
    std::fs::write(&path, text).unwrap();
    throng_spec::load(&path).unwrap()
}

/// A spec as it is sent to a node.
pub(crate) fn sent(text: &str) -> Value {
    serde_json::json!({ "base": "/", "files": [{ "path": "throng.yaml", "text": text }] })
}

/// A spec file as it is sent to a node.
pub(crate) fn sent_file(path: &Path) -> Value {
    serde_json::to_value(throng_spec::read_files(path).unwrap()).unwrap()
}

/// A clock that starts at noon.
pub(crate) fn noon() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOON.parse::<Timestamp>().unwrap()))
}

/// Starts a node on a free port; the token of its spec, if it has one, is `s3cret`.
pub(crate) async fn start(
    dir: &Path,
    spec: Spec,
    clock: &Arc<ManualClock>,
) -> Result<Node, NodeError> {
    Node::start(NodeConfig {
        accept_log_loss: Vec::new(),
        data_dir: dir.to_owned(),
        spec,
        join: false,
        roles: None,
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        clock: Arc::clone(clock) as Arc<dyn throng_model::Clock>,
        access_clock: Arc::clone(clock) as Arc<dyn throng_model::Clock>,
        recovery: throng_server::Recovery::default(),
        env: Arc::new(|name: &str| match name {
            "TOKEN" => Some("s3cret".to_owned()),
            "LEDGER" => std::env::var("THRONG_POSTGRES").ok().map(|server| server + "/postgres"),
            _ => None,
        }),
        limits: Default::default(),
        query_worker: query_worker(),
    })
    .await
}

/// The query worker of these tests: the test program has another `main`.
pub(crate) fn query_worker() -> throng_server::WorkerCommand {
    throng_server::WorkerCommand::of(env!("CARGO_BIN_EXE_server-query-worker"))
}

/// An HTTP client that follows no redirects and sends a token, unless a request has another one.
fn http(token: Option<&str>) -> reqwest::Client {
    // Only the first test of the process installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut headers = reqwest::header::HeaderMap::new();
    if let Some(token) = token {
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let redirect = reqwest::redirect::Policy::none();
    reqwest::Client::builder().default_headers(headers).redirect(redirect).build().unwrap()
}

/// How long a test waits for a condition. It is not a measurement: a busy machine may take that
/// long.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// Polls until the condition holds, with a delay in between so that the nodes get the processor.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let polled = tokio::time::timeout(TIMEOUT, polling).await;
    assert!(polled.is_ok(), "{what}: not within {TIMEOUT:?}");
}

/// A client of a node, with its admin token.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    pub(crate) fn of(node: &Node) -> Self {
        let dir = &node.context().data_dir;
        let token = throng_access::admin_token(dir).unwrap().unwrap();
        Self { http: http(Some(token.expose())), url: node.url() }
    }

    /// A client without a token.
    pub(crate) fn stranger(node: &Node) -> Self {
        Self { http: http(None), url: node.url() }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.request("GET", path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    /// POSTs JSON. Returns the status and the body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.request("POST", path).json(body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// POSTs events as NDJSON.
    pub(crate) async fn events(&self, lines: impl Into<reqwest::Body>) -> Value {
        let request = self.request("POST", "/v1/events");
        let request = request.header("content-type", "application/x-ndjson").body(lines);
        let response = request.send().await.unwrap();
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        // A request whose events are all invalid is refused with the same body.
        let refused = body["error"]["code"] == "no_event_counts";
        assert_eq!(status, if refused { 422 } else { 200 }, "{body}");
        body
    }
}
