//! Alerts are sent to receivers: a receiver on this machine gets them signed, in order, once per cause, and retried
//! until it has accepted them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use throng_model::{Clock, ManualClock, to_hex};
use throng_server::{Node, NodeConfig, ProblemClass};
use throng_store::{AlertKind, NewAlert, RefreshState, RefreshTrigger};

use crate::{Client, noon, until};

const SECRET: &str = "whsec-of-the-test";

/// The reaction of a receiver to a request.
#[derive(Debug, Clone)]
enum Reaction {
    Answer(u16),
    Redirect(String),
    /// Never responds.
    Hang,
}

/// A receiver of alerts that records requests.
#[derive(Clone, Default)]
struct Receiver {
    requests: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    script: Arc<Mutex<VecDeque<Reaction>>>,
    /// The reaction after the end of the script.
    default: Arc<Mutex<Option<Reaction>>>,
}

impl Receiver {
    async fn start() -> (Self, String) {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, format!("http://{address}/alerts"))
    }

    fn set_default(&self, reaction: Option<Reaction>) {
        *self.default.lock().unwrap() = reaction;
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// The body of every request, after checking its signature.
    fn events(&self) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|(headers, body)| checked(headers, body)).collect()
    }

    /// `raised buyers`, … of every request.
    fn received(&self) -> Vec<String> {
        let line = |event: &Value| {
            let part = |value: &Value| value.as_str().unwrap().to_owned();
            format!("{} {}", part(&event["event"]), part(&event["alert"]["subject"]))
        };
        self.events().iter().map(line).collect()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    receiver.requests.lock().unwrap().push((headers, body));
    let scripted = receiver.script.lock().unwrap().pop_front();
    let reaction = scripted.or_else(|| receiver.default.lock().unwrap().clone());
    match reaction {
        None => (StatusCode::OK, "thanks").into_response(),
        Some(Reaction::Answer(status)) => {
            (StatusCode::from_u16(status).unwrap(), "no\nthanks").into_response()
        }
        Some(Reaction::Redirect(to)) => (StatusCode::FOUND, [("location", to)]).into_response(),
        Some(Reaction::Hang) => std::future::pending().await,
    }
}

/// Checks a request as docs/operate/alerts.md says that receivers do.
fn checked(headers: &HeaderMap, body: &str) -> Value {
    let header = |name: &str| headers[name].to_str().unwrap();
    let (time, signature) = header("throng-signature").split_once(',').unwrap();
    let time = time.strip_prefix("t=").unwrap();
    assert!(time.parse::<u64>().is_ok(), "{time}");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}.{body}").as_bytes());
    let digest = to_hex(&mac.finalize().into_bytes());
    assert_eq!(signature, format!("v1={digest}"));
    assert_eq!(header("content-type"), "application/json");
    assert!(!body.contains(SECRET));
    let event: Value = serde_json::from_str(body).unwrap();
    assert_eq!(header("throng-event-id"), event["id"].as_str().unwrap());
    event
}

struct Shop(tempfile::TempDir);

impl Shop {
    fn new() -> Self {
        let shop = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(shop.0.path().join("data")).unwrap();
        shop
    }

    /// Writes a spec with these receivers (name, URL, more fields).
    fn spec(&self, audiences: &str, receivers: &[(&str, &str, &str)]) {
        let receivers: String = receivers
            .iter()
            .map(|(name, url, more)| {
                format!(
                    "    - webhook: {{ name: {name}, url: \"{url}\", secret: env:ALERTS{more} }}\n"
                )
            })
            .collect();
        let text = format!(
            "version: 1\nsources:\n  - {{ name: shop, path: data }}\n{audiences}node:\n  alerts:\n{receivers}"
        );
        std::fs::write(self.0.path().join("throng.yaml"), text).unwrap();
    }

    fn visits(&self, pages: &[&str]) {
        let lines: String =
            pages.iter().enumerate().map(|(n, page)| format!("c{n},{page}\n")).collect();
        let temporary = self.0.path().join("aside");
        std::fs::write(&temporary, format!("customer,page\n{lines}")).unwrap();
        std::fs::rename(temporary, self.0.path().join("data/visits.csv")).unwrap();
    }

    async fn start(&self, clock: &Arc<ManualClock>) -> Node {
        Node::start(NodeConfig {
            accept_log_loss: Vec::new(),
            data_dir: self.0.path().join("node"),
            spec: throng_spec::load(&self.0.path().join("throng.yaml")).unwrap(),
            join: false,
            roles: None,
            listen: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0))),
            clock: Arc::clone(clock) as Arc<dyn Clock>,
            access_clock: Arc::clone(clock) as Arc<dyn Clock>,
            recovery: throng_server::Recovery::default(),
            env: Arc::new(|name: &str| (name == "ALERTS").then(|| SECRET.to_owned())),
            limits: Default::default(),
            query_worker: crate::query_worker(),
        })
        .await
        .unwrap()
    }
}

const AUDIENCE: &str = "audiences:\n  - { name: buyers, sql: \"SELECT customer FROM shop.visits WHERE CAST(page AS INT) > 0\" }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_fails_because_of_its_data_and_its_resolution_are_sent() {
    let (receiver, url) = Receiver::start().await;
    let shop = Shop::new();
    shop.spec(AUDIENCE, &[("pager", &url, "")]);
    shop.visits(&["1", "ann@example.com"]);
    let clock = noon();
    let node = shop.start(&clock).await;
    let ledger = &node.context().ledger;
    let name = "buyers".parse().unwrap();
    // The same values fail in the same way: there is no other try.
    until("the alert is sent", async || receiver.count() > 0).await;
    let refresh = ledger.audience(&name).await.unwrap().and_then(|row| row.refresh).unwrap();
    assert_eq!((refresh.state, refresh.failures), (RefreshState::Failed, 1));
    let raised = receiver.events().remove(0);
    assert_eq!((&raised["version"], &raised["event"]), (&json!(1), &json!("raised")));
    let alert = &raised["alert"];
    assert_eq!((&alert["kind"], &alert["subject"]), (&json!("refresh_failed"), &json!("buyers")));
    assert_eq!((&alert["severity"], &alert["count"]), (&json!("critical"), &json!(1)));
    assert!(alert["resolved_at"].is_null());
    let message = alert["message"].as_str().unwrap();
    assert!(
        message.contains("cannot be converted") && message.contains("throng audience refresh"),
        "{message}"
    );
    assert!(!message.contains("ann@"), "a value of the data: {message}");

    // The source is fixed.
    shop.visits(&["1", "2"]);
    ledger.schedule_refresh(&name, RefreshTrigger::Manual, clock.now()).await.unwrap();
    until("the resolution is sent", async || receiver.count() > 1).await;
    assert_eq!(receiver.received(), ["raised buyers", "resolved buyers"]);
    let resolved = receiver.events().remove(1);
    assert_eq!(resolved["alert"]["id"], alert["id"]);
    assert!(!resolved["alert"]["resolved_at"].is_null());
    assert_ne!(resolved["id"], raised["id"]);

    let client = Client::of(&node);
    until("both are recorded as delivered", async || {
        let response = client.get("/v1/alerts").await;
        response["alerts"][0]["deliveries"].as_array().map(Vec::len) == Some(2)
    })
    .await;
    let response = client.get("/v1/alerts").await;
    assert_eq!((&response["open"], &response["total"]), (&json!(0), &json!(1)));
    let first = &response["alerts"][0]["deliveries"][0];
    assert_eq!((&first["state"], &first["receiver"]), (&json!("delivered"), &json!("pager")));
    assert_eq!((&first["http_status"], &first["tries"]), (&json!(200), &json!(1)));
    assert_eq!(first["event_id"], raised["id"]);
    node.shutdown().await;
}

async fn raise(node: &Node, subject: &str) {
    let message = "look at it".to_owned();
    let alert = NewAlert { kind: AlertKind::TaskFailed, subject: subject.to_owned(), message };
    let ctx = node.context();
    ctx.ledger.raise_alert(&alert, ctx.clock.now()).await.unwrap();
}

async fn resolve(node: &Node, subject: &str) {
    let ctx = node.context();
    ctx.ledger.resolve_alert(AlertKind::TaskFailed, subject, ctx.clock.now()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_down_delays_no_other_and_gets_all_events_later() {
    let ((up, up_url), (down, down_url)) = (Receiver::start().await, Receiver::start().await);
    let (redirect_target, redirect_url) = Receiver::start().await;
    let shop = Shop::new();
    shop.spec("", &[("down", &down_url, ""), ("up", &up_url, "")]);
    down.script.lock().unwrap().push_back(Reaction::Redirect(redirect_url));
    down.set_default(Some(Reaction::Answer(503)));
    let clock = noon();
    let node = shop.start(&clock).await;
    for subject in ["a", "b"] {
        raise(&node, subject).await;
        clock.advance(Duration::from_secs(1));
    }
    // One cause has one alert, however often it is raised.
    for _ in 0..50 {
        raise(&node, "a").await;
    }
    until("the other receiver has the events", async || up.count() == 2).await;
    resolve(&node, "a").await;
    until("the resolution is sent", async || up.count() == 3).await;
    assert_eq!(up.received(), ["raised a", "raised b", "resolved a"]);
    assert_eq!(up.events()[2]["alert"]["count"], 51);
    // Each try at the first receiver sends the first event with its id.
    let client = Client::of(&node);
    let receiver_status = async || {
        let response = client.get("/v1/alerts").await;
        response["receivers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["name"] == "down")
            .unwrap()
            .clone()
    };
    for tries in 1..=4 {
        // The time of the next try depends on the time at which the failure is recorded.
        until("a failed try is recorded", async || {
            receiver_status().await["failures"].as_u64() >= Some(tries)
        })
        .await;
        if tries < 4 {
            clock.advance(Duration::from_secs(700));
        }
    }
    assert_eq!(down.count(), 4);
    assert_eq!(redirect_target.count(), 0, "a redirect was followed");
    let response = receiver_status().await;
    assert_eq!(response["pending"], 3);
    assert!(response["last_error"].as_str().unwrap().contains("503"), "{response}");
    node.shutdown().await;

    // The receiver and the node are started again.
    down.set_default(None);
    let before = down.count();
    clock.advance(Duration::from_secs(1_000));
    let node = shop.start(&clock).await;
    until("it has all events", async || down.count() == before + 3).await;
    assert_eq!(down.received()[before..], ["raised a", "raised b", "resolved a"]);
    let events = down.events();
    let first = &events[0]["id"];
    assert!(events[..=before].iter().all(|event| event["id"] == *first), "one event has one id");
    assert_eq!(events[before]["id"], up.events()[0]["id"], "the id belongs to the event");
    node.shutdown().await;
    assert_eq!(up.count(), 3, "no event is sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_interrupted_by_a_shutdown_is_sent_again_with_its_id() {
    let (receiver, url) = Receiver::start().await;
    let shop = Shop::new();
    shop.spec("", &[("pager", &url, "")]);
    receiver.script.lock().unwrap().push_back(Reaction::Hang);
    let clock = noon();
    let node = shop.start(&clock).await;
    raise(&node, "a").await;
    until("it is being sent", async || receiver.count() == 1).await;
    node.shutdown().await;
    let node = shop.start(&clock).await;
    until("it is sent again", async || receiver.count() == 2).await;
    let events = receiver.events();
    assert_eq!(events[0], events[1]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn severity_and_age_decide_what_a_receiver_gets() {
    let (receiver, url) = Receiver::start().await;
    let shop = Shop::new();
    shop.spec("", &[("night", &url, ", min_severity: critical, retry_hours: 1")]);
    receiver.set_default(Some(Reaction::Answer(500)));
    let clock = noon();
    let node = shop.start(&clock).await;
    let ctx = node.context();
    let held =
        NewAlert { kind: AlertKind::RunHeld, subject: "ads".to_owned(), message: "x".to_owned() };
    ctx.ledger.raise_alert(&held, clock.now()).await.unwrap();
    clock.advance(Duration::from_secs(1));
    raise(&node, "too-old").await;
    until("a failed try is recorded", async || {
        ctx.ledger.receivers().await.unwrap().first().is_some_and(|row| row.failures == 1)
    })
    .await;
    clock.advance(Duration::from_secs(3_601));
    let client = Client::of(&node);
    let deliveries = async || client.get("/v1/alerts/deliveries").await["deliveries"].clone();
    until("it is expired", async || deliveries().await.as_array().map(Vec::len) == Some(1)).await;
    let given_up = deliveries().await[0].clone();
    assert_eq!(given_up["state"], "expired");
    assert!(given_up["why"].as_str().unwrap().contains("1 hours"), "{given_up}");
    receiver.set_default(None);
    let before = receiver.count();
    raise(&node, "next").await;
    until("the next event is sent", async || receiver.count() > before).await;
    assert_eq!(receiver.received()[before..], ["raised next"]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_of_the_node_are_alerts_until_they_end() {
    let (receiver, url) = Receiver::start().await;
    let shop = Shop::new();
    shop.spec("", &[("pager", &url, "")]);
    let clock = noon();
    let node = shop.start(&clock).await;
    let health = &node.context().health;
    health.report(ProblemClass::Disk, "data", "no room in the data directory");
    health.report(ProblemClass::Snapshot, "buyers", "it is damaged");
    clock.advance(Duration::from_secs(11));
    until("both are sent", async || receiver.count() == 2).await;
    health.clear(ProblemClass::Disk, "data");
    until("the end of one is sent", async || receiver.count() == 3).await;
    assert_eq!(
        receiver.received(),
        [
            "raised disk data on this node",
            "raised snapshot buyers on this node",
            "resolved disk data on this node",
        ]
    );
    let kinds: Vec<Value> =
        receiver.events().iter().map(|event| event["alert"]["kind"].clone()).collect();
    assert_eq!(kinds, ["disk_full", "damaged", "disk_full"]);
    node.shutdown().await;
    // The process with the problem has ended, so the problem has ended as well.
    let node = shop.start(&clock).await;
    // The shutdown may have interrupted the last event: it is sent again after a delay.
    until("the other end is sent", async || {
        clock.advance(Duration::from_secs(1));
        receiver
            .received()
            .last()
            .is_some_and(|event| *event == "resolved snapshot buyers on this node")
    })
    .await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_returns_the_response_of_each_receiver() {
    let ((good, good_url), (bad, bad_url)) = (Receiver::start().await, Receiver::start().await);
    bad.set_default(Some(Reaction::Answer(403)));
    let shop = Shop::new();
    let unreachable = "http://127.0.0.1:1/";
    shop.spec("", &[("bad", &bad_url, ""), ("good", &good_url, ""), ("gone", unreachable, "")]);
    let node = shop.start(&noon()).await;
    let client = Client::of(&node);
    let (status, response) = client.post("/v1/alerts/test", &json!({})).await;
    assert_eq!(status, 200, "{response}");
    let answer = |n: usize, field: &str| response["answers"][n][field].clone();
    assert_eq!((answer(0, "accepted"), answer(0, "status")), (json!(false), json!(403)));
    assert_eq!(answer(0, "answer"), "no thanks");
    assert_eq!((answer(1, "accepted"), answer(1, "answer")), (json!(true), json!("thanks")));
    assert_eq!((answer(2, "accepted"), answer(2, "status")), (json!(false), json!(null)));
    let error = answer(2, "error");
    assert!(error.as_str().unwrap().contains("no connection"), "{error}");
    assert!(!error.as_str().unwrap().contains(unreachable), "{error}");
    assert_eq!(good.received(), ["test throng alerts test"]);
    let (status, response) = client.post("/v1/alerts/test", &json!({ "receiver": "good" })).await;
    assert_eq!((status, response["answers"].as_array().map(Vec::len)), (200, Some(1)));
    let (status, response) = client.post("/v1/alerts/test", &json!({ "receiver": "none" })).await;
    assert_eq!((status, &response["error"]["code"]), (404, &json!("not_found")));
    node.shutdown().await;
}
