//! Simulators over HTTP, with an ordinary client; simulated days of two advertisers.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should panic")]

mod advertisers;
mod meta_access;
mod meta_audiences;
mod meta_control;
mod meta_faults;
mod meta_limits;
mod meta_replace;
mod meta_users;

use std::sync::Arc;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use throng_model::{HashedIdentifier, ManualClock, Timestamp};
use throng_sim::meta::{MetaSim, MetaSimConfig};

const TOKEN: &str = "sim-token";

/// A running simulator, its clock, and a client.
struct Meta {
    sim: MetaSim,
    clock: Arc<ManualClock>,
    http: Client,
}

/// A response of the platform.
struct Reply {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl Reply {
    /// `error.code` and `error.error_subcode`.
    fn code(&self) -> (i64, i64) {
        let error = &self.body["error"];
        (error["code"].as_i64().unwrap_or(0), error["error_subcode"].as_i64().unwrap_or(0))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Meta {
    async fn start(config: MetaSimConfig) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000_000)));
        let sim = MetaSim::start(MetaSimConfig {
            tokens: vec![TOKEN.to_owned()],
            clock: Arc::clone(&clock) as _,
            ..config
        });
        Self { sim: sim.await.unwrap(), clock, http: Client::new() }
    }

    async fn plain() -> Self {
        Self::start(MetaSimConfig::default()).await
    }

    /// A call with the right version and token.
    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/v25.0/{path}", self.sim.url())).bearer_auth(TOKEN)
    }

    /// A call with people in its query, as official clients remove them.
    fn call_with_payload(
        &self,
        method: Method,
        path: &str,
        people: std::ops::Range<u32>,
    ) -> RequestBuilder {
        let payload = emails(people)["payload"].to_string();
        let url = format!("{}/v25.0/{path}", self.sim.url());
        let url = reqwest::Url::parse_with_params(&url, [("payload", payload)]).unwrap();
        self.http.request(method, url).bearer_auth(TOKEN)
    }

    async fn send(&self, call: RequestBuilder) -> Reply {
        let response = call.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        Reply { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(self.call(Method::GET, path)).await
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(self.call(Method::POST, path).json(&body)).await
    }

    async fn delete(&self, path: &str, body: Value) -> Reply {
        self.send(self.call(Method::DELETE, path).json(&body)).await
    }

    /// Creates an audience in `act_1`.
    async fn audience(&self, name: &str) -> String {
        let body = json!({"name": name, "customer_file_source": "USER_PROVIDED_ONLY"});
        let reply = self.post("act_1/customaudiences", body).await;
        reply.body["id"].as_str().unwrap_or_else(|| panic!("{}", reply.body)).to_owned()
    }

    /// Adds people to an audience by e-mail; all must be accepted.
    async fn add(&self, id: &str, people: std::ops::Range<u32>) {
        let reply = self.post(&format!("{id}/users"), emails(people)).await;
        assert_eq!((reply.status, &reply.body["num_invalid_entries"]), (200, &json!(0)));
    }

    fn count(&self, id: &str) -> u64 {
        self.sim.member_count(id).unwrap()
    }
}

fn hash(text: &str) -> String {
    HashedIdentifier::of_normalised(text).to_hex()
}

fn email(person: u32) -> String {
    hash(&format!("user{person}@example.com"))
}

/// The body that uploads people by e-mail.
fn emails(people: std::ops::Range<u32>) -> Value {
    let rows: Vec<Value> = people.map(|person| json!([email(person)])).collect();
    json!({"payload": {"schema": ["EMAIL"], "data": rows}})
}

/// The same as a batch of a session.
fn batch(people: std::ops::Range<u32>, id: u64, seq: u64, last: bool) -> Value {
    let mut body = emails(people);
    body["session"] = json!({"session_id": id, "batch_seq": seq, "last_batch_flag": last});
    body
}
