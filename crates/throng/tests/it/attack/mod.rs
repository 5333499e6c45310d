//! Attacks on a running node: unauthorized requests, connections that never finish a request, damaged
//! files, a full disk, bad statements, backups while it works. Every test run does a short form;
//! `THRONG_ATTACK=full` does all of it.

mod connections;
mod damage;
mod disk;
mod page;
mod restore;
mod statements;
mod unauthorized;

use std::path::{Path, PathBuf};

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use throng_model::{Clock as _, SystemClock};

use crate::process::{NodeProcess, http, wait_for};

/// How much to do: `short` in a test run, `full` in an attack.
fn scale(short: usize, full: usize) -> usize {
    if std::env::var_os("THRONG_ATTACK").is_some_and(|value| value == "full") {
        full
    } else {
        short
    }
}

/// A small deployment: customers, two audiences, two ad groups.
struct Target {
    folder: tempfile::TempDir,
}

const CUSTOMERS: u64 = 500;
const PRICE_MICROS: i64 = 130_001;

impl Target {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir(folder.path().join("data")).expect("made");
        let mut table = String::from("customer,amount\n");
        for customer in 0..CUSTOMERS {
            table.push_str(&format!("c{customer:04},{}\n", customer % 100));
        }
        std::fs::write(folder.path().join("data/orders.csv"), table).expect("written");
        let target = Self { folder };
        target.write_spec("");
        target
    }

    /// Writes the spec with more audiences (YAML, indented by two) after its own.
    fn write_spec(&self, audiences: &str) {
        let zone = throng_sim::zone_far_from_midnight(SystemClock.now());
        let text = format!(
            "version: 1
sources:
  - {{ name: shop, path: data }}
audiences:
  - {{ name: everybody, sql: SELECT customer FROM shop.orders }}
  - {{ name: spenders, sql: SELECT customer FROM shop.orders WHERE amount >= 50 }}
{audiences}advertisers:
  - {{ name: shop, currency: USD, time_zone: {zone} }}
campaigns:
  - {{ name: autumn, advertiser: shop }}
ad_groups:
  - {{ name: shoes, campaign: autumn, per: impression, price: \"0.130001\", daily_budget: \"100000\", impression_rate: 0.9 }}
  - {{ name: hats, campaign: autumn, per: impression, price: \"0.130001\", daily_budget: \"100000\", impression_rate: 0.9, include: [spenders] }}
"
        );
        std::fs::write(self.spec(), text).expect("written");
    }

    fn spec(&self) -> PathBuf {
        self.folder.path().join("throng.yaml")
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn start(&self) -> Running {
        self.start_in(&self.data_dir())
    }

    fn start_in(&self, data_dir: &Path) -> Running {
        Running::of(NodeProcess::start(data_dir, &self.spec(), &self.log()), data_dir)
    }
}

/// A node that runs, and a client with its admin token.
struct Running {
    process: NodeProcess,
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Running {
    fn of(process: NodeProcess, data_dir: &Path) -> Self {
        let token = std::fs::read_to_string(data_dir.join("admin.token")).expect("a token");
        let url = process.url.clone();
        Self { process, http: http(), url, token: token.trim().to_owned() }
    }

    /// Status and body of an answer.
    async fn answer(&self, request: RequestBuilder) -> Result<(StatusCode, Value), String> {
        let response = request.send().await.map_err(|e| e.to_string())?;
        let status = response.status();
        let body = response.text().await.map_err(|e| e.to_string())?;
        Ok((status, serde_json::from_str(&body).unwrap_or(Value::String(body))))
    }

    async fn successful(&self, path: &str, request: RequestBuilder) -> Result<Value, String> {
        let (status, body) = self.answer(request.bearer_auth(&self.token)).await?;
        if status.is_success() { Ok(body) } else { Err(format!("{path}: {status} {body}")) }
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        self.successful(path, self.http.get(format!("{}{path}", self.url))).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.successful(path, self.http.post(format!("{}{path}", self.url)).json(body)).await
    }

    /// Sends events as NDJSON.
    async fn events(&self, lines: String) -> Result<Value, String> {
        let path = "/v1/events";
        let request = self.http.post(format!("{}{path}", self.url));
        self.successful(path, request.header("content-type", "application/x-ndjson").body(lines))
            .await
    }

    /// The body of `/readyz` without a token, whatever its status.
    async fn health(&self) -> Result<Value, String> {
        let request = self.http.get(format!("{}/readyz", self.url));
        self.answer(request).await.map(|(_, body)| body)
    }

    /// `kill -9`.
    fn kill(self) {
        self.process.kill();
    }

    /// SIGTERM; whether the end was clean.
    fn terminate(self) -> bool {
        self.process.terminate()
    }
}

/// Impressions `from..to` of `shoes`, as lines of NDJSON; `run` makes their ids unique.
fn impressions(run: &str, from: u64, to: u64) -> String {
    let at = SystemClock.now().to_string();
    let events = (from..to).map(|number| {
        let event = json!({ "id": format!("{run}-{number}"), "kind": "impression", "ad_group": "shoes", "at": at });
        format!("{event}\n")
    });
    events.collect()
}

/// Waits until both audiences are published.
async fn built(node: &Running) {
    wait_for("the audiences", async || {
        for (name, members) in [("everybody", CUSTOMERS), ("spenders", CUSTOMERS / 2)] {
            let audience = node.get(&format!("/v1/audiences/{name}")).await?;
            let seen = audience["current"]["members"].as_u64();
            if seen != Some(members) {
                return Err(format!("{name}: {audience}"));
            }
        }
        let of_a_spender = node.get("/v1/users/c0099/audiences").await?;
        match of_a_spender["audiences"].as_array().map(Vec::len) {
            Some(2) => Ok(()),
            _ => Err(of_a_spender.to_string()),
        }
    })
    .await;
}

/// Lookups and spend of a node. They are compared before and after actions that must not change them.
async fn answers(node: &Running) -> Result<Value, String> {
    let mut users = Vec::new();
    for customer in ["c0000", "c0049", "c0050", "c0099", "c0499", "nobody"] {
        let answer = node.get(&format!("/v1/users/{customer}/audiences")).await?;
        users.push(answer["audiences"].clone());
    }
    let mut spend = Vec::new();
    for ad_group in ["shoes", "hats"] {
        let answer = node.get(&format!("/v1/budgets/{ad_group}")).await?;
        spend.push(json!([ad_group, answer["state"]["actual_micros"]]));
    }
    Ok(json!({ "users": users, "spend": spend }))
}
