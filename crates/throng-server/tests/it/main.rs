//! A node in this process, asked over HTTP.

#![expect(clippy::unwrap_used, reason = "tests: a panic is how a case fails")]

mod activate_many;
mod activation;
mod api;
mod audiences;
mod budgets;
mod build;
mod connections;
mod events;
mod node;
mod schedules;
mod shared;
mod tasks;
mod tls;
mod warm;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use throng_model::{ManualClock, Timestamp};
use throng_server::{Node, NodeConfig, NodeError};
use throng_spec::Spec;

/// Noon of a day on the nodes' clock.
pub(crate) const NOON: &str = "2026-11-23T12:00:00Z";

/// Two ad groups with budgets that are soon used up.
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

/// A clock that shows noon.
pub(crate) fn noon() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOON.parse::<Timestamp>().unwrap()))
}

/// Starts a node on a free port; its token, if its spec wants one, is `s3cret`.
pub(crate) async fn start(
    dir: &Path,
    spec: Spec,
    clock: &Arc<ManualClock>,
) -> Result<Node, NodeError> {
    Node::start(NodeConfig {
        data_dir: dir.to_owned(),
        spec,
        join: false,
        roles: None,
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        clock: Arc::clone(clock) as Arc<dyn throng_model::Clock>,
        env: Arc::new(|name: &str| match name {
            "TOKEN" => Some("s3cret".to_owned()),
            "LEDGER" => std::env::var("THRONG_POSTGRES").ok().map(|server| server + "/postgres"),
            _ => None,
        }),
    })
    .await
}

/// A client of a node.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    pub(crate) fn of(node: &Node) -> Self {
        // Only the first test of the process installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { http: reqwest::Client::new(), url: node.url() }
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

    /// POSTs JSON; status and answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.request("POST", path).json(body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// POSTs events as NDJSON.
    pub(crate) async fn events(&self, lines: impl Into<reqwest::Body>) -> Value {
        let request = self.request("POST", "/v1/events");
        let request = request.header("content-type", "application/x-ndjson").body(lines);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }
}
