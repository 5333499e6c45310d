//! Alerts reach somebody outside: a receiver on this machine gets them signed, in order, once per
//! cause, and again until it has accepted them.

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
use throng_model::{Clock, ManualClock};
use throng_server::{Node, NodeConfig, ProblemClass};
use throng_store::{AlertKind, NewAlert, RefreshTrigger};

use crate::{Client, noon, until};

const SECRET: &str = "whsec-of-the-test";

/// What a receiver does with a request.
#[derive(Debug, Clone)]
enum Act {
    Answer(u16),
    Redirect(String),
    /// Takes it and never answers.
    Hang,
}

/// A receiver of alerts that keeps what it is sent.
#[derive(Clone, Default)]
struct Receiver {
    got: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    script: Arc<Mutex<VecDeque<Act>>>,
    /// What it does when the script is at its end.
    otherwise: Arc<Mutex<Option<Act>>>,
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

    fn does(&self, act: Option<Act>) {
        *self.otherwise.lock().unwrap() = act;
    }

    fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    /// Every request, its signature checked: headers and body.
    fn events(&self) -> Vec<Value> {
        let got = self.got.lock().unwrap();
        got.iter().map(|(headers, body)| checked(headers, body)).collect()
    }

    /// `raised buyers`, … of every request.
    fn told(&self) -> Vec<String> {
        let line = |event: &Value| {
            let part = |value: &Value| value.as_str().unwrap().to_owned();
            format!("{} {}", part(&event["event"]), part(&event["alert"]["subject"]))
        };
        self.events().iter().map(line).collect()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    receiver.got.lock().unwrap().push((headers, body));
    let scripted = receiver.script.lock().unwrap().pop_front();
    let act = scripted.or_else(|| receiver.otherwise.lock().unwrap().clone());
    match act {
        None => (StatusCode::OK, "thanks").into_response(),
        Some(Act::Answer(status)) => {
            (StatusCode::from_u16(status).unwrap(), "no\nthanks").into_response()
        }
        Some(Act::Redirect(to)) => (StatusCode::FOUND, [("location", to)]).into_response(),
        Some(Act::Hang) => std::future::pending().await,
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
    let digest: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
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
        let aside = self.0.path().join("aside");
        std::fs::write(&aside, format!("customer,page\n{lines}")).unwrap();
        std::fs::rename(aside, self.0.path().join("data/visits.csv")).unwrap();
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
async fn the_third_failed_try_reaches_a_person_and_so_does_the_fix() {
    let (receiver, url) = Receiver::start().await;
    let shop = Shop::new();
    shop.spec(AUDIENCE, &[("pager", &url, "")]);
    shop.visits(&["1", "ann@example.com"]);
    let clock = noon();
    let node = shop.start(&clock).await;
    let ledger = &node.context().ledger;
    let name = "buyers".parse().unwrap();
    for tries in 1..=3 {
        until("a try fails", async || {
            let row = ledger.audience(&name).await.unwrap();
            row.and_then(|row| row.refresh).is_some_and(|refresh| refresh.failures == tries)
        })
        .await;
        assert!(tries == 3 || receiver.count() == 0, "told after {tries} tries");
        clock.advance(Duration::from_secs(600));
    }
    until("somebody hears of it", async || receiver.count() > 0).await;
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
    until("somebody hears that it works again", async || receiver.count() > 1).await;
    assert_eq!(receiver.told(), ["raised buyers", "resolved buyers"]);
    let resolved = receiver.events().remove(1);
    assert_eq!(resolved["alert"]["id"], alert["id"]);
    assert!(!resolved["alert"]["resolved_at"].is_null());
    assert_ne!(resolved["id"], raised["id"]);

    let client = Client::of(&node);
    until("both are noted as delivered", async || {
        let said = client.get("/v1/alerts").await;
        said["alerts"][0]["deliveries"].as_array().map(Vec::len) == Some(2)
    })
    .await;
    let said = client.get("/v1/alerts").await;
    assert_eq!((&said["open"], &said["total"]), (&json!(0), &json!(1)));
    let first = &said["alerts"][0]["deliveries"][0];
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
async fn a_receiver_that_is_down_holds_up_nobody_and_is_told_everything_later() {
    let ((up, up_url), (down, down_url)) = (Receiver::start().await, Receiver::start().await);
    let (elsewhere, elsewhere_url) = Receiver::start().await;
    let shop = Shop::new();
    shop.spec("", &[("down", &down_url, ""), ("up", &up_url, "")]);
    down.script.lock().unwrap().push_back(Act::Redirect(elsewhere_url));
    down.does(Some(Act::Answer(503)));
    let clock = noon();
    let node = shop.start(&clock).await;
    for subject in ["a", "b"] {
        raise(&node, subject).await;
        clock.advance(Duration::from_secs(1));
    }
    // Of one cause there is one alert, however often it is raised.
    for _ in 0..50 {
        raise(&node, "a").await;
    }
    until("the other one is told", async || up.count() == 2).await;
    resolve(&node, "a").await;
    until("and that it is resolved", async || up.count() == 3).await;
    assert_eq!(up.told(), ["raised a", "raised b", "resolved a"]);
    assert_eq!(up.events()[2]["alert"]["count"], 51);
    // Each try of the other one is of the first event, with its id.
    let client = Client::of(&node);
    let waiting = async || {
        let said = client.get("/v1/alerts").await;
        said["receivers"].as_array().unwrap().iter().find(|r| r["name"] == "down").unwrap().clone()
    };
    for tries in 1..=4 {
        // The time of the next try follows from when a failure is noted.
        until("a failed try is noted", async || {
            waiting().await["failures"].as_u64() >= Some(tries)
        })
        .await;
        if tries < 4 {
            clock.advance(Duration::from_secs(700));
        }
    }
    assert_eq!(down.count(), 4);
    assert_eq!(elsewhere.count(), 0, "a redirect was followed");
    let said = waiting().await;
    assert_eq!(said["pending"], 3);
    assert!(said["last_error"].as_str().unwrap().contains("503"), "{said}");
    node.shutdown().await;

    // It is back, and so is the node.
    down.does(None);
    let before = down.count();
    clock.advance(Duration::from_secs(1_000));
    let node = shop.start(&clock).await;
    until("it is told everything", async || down.count() == before + 3).await;
    assert_eq!(down.told()[before..], ["raised a", "raised b", "resolved a"]);
    let events = down.events();
    let first = &events[0]["id"];
    assert!(events[..=before].iter().all(|event| event["id"] == *first), "one event has one id");
    assert_eq!(events[before]["id"], up.events()[0]["id"], "the id is the event's");
    node.shutdown().await;
    assert_eq!(up.count(), 3, "nothing twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_on_its_way_when_the_node_ended_comes_again_with_its_id() {
    let (receiver, url) = Receiver::start().await;
    let shop = Shop::new();
    shop.spec("", &[("pager", &url, "")]);
    receiver.script.lock().unwrap().push_back(Act::Hang);
    let clock = noon();
    let node = shop.start(&clock).await;
    raise(&node, "a").await;
    until("it is on its way", async || receiver.count() == 1).await;
    node.shutdown().await;
    let node = shop.start(&clock).await;
    until("it comes again", async || receiver.count() == 2).await;
    let events = receiver.events();
    assert_eq!(events[0], events[1]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn urgency_and_age_decide_what_a_receiver_is_told() {
    let (receiver, url) = Receiver::start().await;
    let shop = Shop::new();
    shop.spec("", &[("night", &url, ", min_severity: critical, retry_hours: 1")]);
    receiver.does(Some(Act::Answer(500)));
    let clock = noon();
    let node = shop.start(&clock).await;
    let ctx = node.context();
    let held =
        NewAlert { kind: AlertKind::RunHeld, subject: "ads".to_owned(), message: "x".to_owned() };
    ctx.ledger.raise_alert(&held, clock.now()).await.unwrap();
    clock.advance(Duration::from_secs(1));
    raise(&node, "too-old").await;
    until("a failed try is noted", async || {
        ctx.ledger.receivers().await.unwrap().first().is_some_and(|row| row.failures == 1)
    })
    .await;
    clock.advance(Duration::from_secs(3_601));
    let client = Client::of(&node);
    let ended = async || client.get("/v1/alerts/deliveries").await["deliveries"].clone();
    until("it is given up", async || ended().await.as_array().map(Vec::len) == Some(1)).await;
    let given_up = ended().await[0].clone();
    assert_eq!(given_up["state"], "expired");
    assert!(given_up["why"].as_str().unwrap().contains("1 hours"), "{given_up}");
    receiver.does(None);
    let before = receiver.count();
    raise(&node, "next").await;
    until("the next one comes", async || receiver.count() > before).await;
    assert_eq!(receiver.told()[before..], ["raised next"]);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_of_the_node_are_alerts_until_they_are_gone() {
    let (receiver, url) = Receiver::start().await;
    let shop = Shop::new();
    shop.spec("", &[("pager", &url, "")]);
    let clock = noon();
    let node = shop.start(&clock).await;
    let health = &node.context().health;
    health.report(ProblemClass::Disk, "data", "no room in the data directory");
    health.report(ProblemClass::Snapshot, "buyers", "it is damaged");
    clock.advance(Duration::from_secs(11));
    until("both are told", async || receiver.count() == 2).await;
    health.clear(ProblemClass::Disk, "data");
    until("the end of one is told", async || receiver.count() == 3).await;
    assert_eq!(
        receiver.told(),
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
    // The process that had the problem is gone, and so is the problem.
    let node = shop.start(&clock).await;
    // The answer to the last event may have been cut off with the node: it is sent again in a while.
    until("the other end is told", async || {
        clock.advance(Duration::from_secs(1));
        receiver.told().last().is_some_and(|told| *told == "resolved snapshot buyers on this node")
    })
    .await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_says_what_each_receiver_answered() {
    let ((good, good_url), (bad, bad_url)) = (Receiver::start().await, Receiver::start().await);
    bad.does(Some(Act::Answer(403)));
    let shop = Shop::new();
    let gone = "http://127.0.0.1:1/";
    shop.spec("", &[("bad", &bad_url, ""), ("good", &good_url, ""), ("gone", gone, "")]);
    let node = shop.start(&noon()).await;
    let client = Client::of(&node);
    let (status, said) = client.post("/v1/alerts/test", &json!({})).await;
    assert_eq!(status, 200, "{said}");
    let answer = |n: usize, field: &str| said["answers"][n][field].clone();
    assert_eq!((answer(0, "accepted"), answer(0, "status")), (json!(false), json!(403)));
    assert_eq!(answer(0, "answer"), "no thanks");
    assert_eq!((answer(1, "accepted"), answer(1, "answer")), (json!(true), json!("thanks")));
    assert_eq!((answer(2, "accepted"), answer(2, "status")), (json!(false), json!(null)));
    let error = answer(2, "error");
    assert!(error.as_str().unwrap().contains("no connection"), "{error}");
    assert!(!error.as_str().unwrap().contains(gone), "{error}");
    assert_eq!(good.told(), ["test throng alerts test"]);
    let (status, said) = client.post("/v1/alerts/test", &json!({ "receiver": "good" })).await;
    assert_eq!((status, said["answers"].as_array().map(Vec::len)), (200, Some(1)));
    let (status, said) = client.post("/v1/alerts/test", &json!({ "receiver": "none" })).await;
    assert_eq!((status, &said["error"]["code"]), (404, &json!("not_found")));
    node.shutdown().await;
}
