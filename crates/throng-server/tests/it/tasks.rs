//! Tasks over Kafka: workers that start and stop, failed checks, and failed tasks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use throng_log::{GroupTiming, KafkaOptions, KafkaQueue, Message, Queue};
use throng_model::{Clock, HashedIdentifier, SystemClock, Timestamp};
use throng_server::Node;
use throng_sim::meta::{FaultKind, FaultRule, FaultScript, MetaSim, MetaSimConfig};
use throng_spec::Role;
use throng_store::{RunState, SyncRun, TaskState};

use crate::shared::{Deployment, lookup, setting};
use crate::{Client, sent_file, until};

/// A deployment with one account and `syncs` syncs of the buyers to it.
async fn activating(syncs: u32) -> (Deployment, MetaSim) {
    let deployment = Deployment::new();
    let sim = MetaSim::start(MetaSimConfig::default()).await.unwrap();
    let mut text = format!(
        "destinations:\n  - {{ name: account, platform: meta, account: act_12, access_token: \"env:META\", base_url: \"{}\" }}\nsyncs:\n",
        sim.url()
    );
    text.extend((0..syncs).map(sync));
    deployment.declare(&text);
    (deployment, sim)
}

/// One sync with four rows per batch.
fn sync(number: u32) -> String {
    format!(
        r#"  - name: sync-{number}
    audience: buyers
    destination: account
    platform_name: buyers-{number}
    batch_rows: 4
    identifiers:
      sql: "SELECT customer, email FROM shop.customers"
      key: customer
      columns: {{ email: EMAIL }}
      default_country: US
"#
    )
}

fn customers(deployment: &Deployment, address: impl Fn(u32) -> String) {
    let lines: String = (0..100).map(|c| format!("c{c},{}\n", address(c))).collect();
    let temporary = deployment.path().join("aside");
    std::fs::write(&temporary, format!("customer,email\n{lines}")).unwrap();
    std::fs::rename(temporary, deployment.path().join("data/customers.csv")).unwrap();
}

fn address(customer: u32) -> String {
    format!("c{customer}@example.com")
}

/// Delays every upload by 40 ms, and all but the first ones from now by three seconds, so that the test can act
/// while tasks are running, also on a busy machine.
fn delay_uploads_after(sim: &MetaSim, first: u64) {
    let all = FaultRule::new(FaultKind::Slow { millis: 40 }).on_call("add_users");
    let later = FaultRule::new(FaultKind::Slow { millis: 2_960 }).on_call("add_users");
    // Of two rules both delays count, and a rule counts its calls from 1.
    let later = later.nth(first + 1..first + 1_000);
    sim.set_faults(FaultScript::new(1, [all, later])).unwrap();
}

/// The hashed members on the platform of an audience with all buyers.
fn all_members() -> Vec<String> {
    let mut wanted: Vec<String> =
        (0..100).map(|c| HashedIdentifier::of_normalised(&address(c)).to_hex()).collect();
    wanted.sort();
    wanted
}

async fn runs(node: &Node) -> Vec<SyncRun> {
    node.context().ledger.runs(None, 100).await.unwrap()
}

/// The dead-letter topic, read by a normal consumer.
async fn dead_letters(deployment: &Deployment) -> KafkaQueue {
    let settings = KafkaOptions {
        brokers: setting("THRONG_KAFKA"),
        prefix: deployment.name().to_owned(),
        tls: None,
        sasl: None,
    };
    KafkaQueue::join(&settings, "tasks.dead", 1, GroupTiming::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_start_and_stop_during_tasks_send_nothing_twice() {
    let (deployment, sim) = activating(4).await;
    customers(&deployment, address);
    // Of four rows each.
    delay_uploads_after(&sim, 2);
    let rest = [Role::Api, Role::Schedule, Role::Build];
    let api = deployment.node("api", &rest).await;
    let first = deployment.node("worker-1", &[Role::Activate]).await;
    let sent = async || runs(&api).await.iter().map(|run| run.sent).sum::<u64>();
    // Each of these triggers a rebalance while tasks are running.
    until("the first sends", async || sent().await >= 8).await;
    let second = deployment.node("worker-2", &[Role::Activate]).await;
    delay_uploads_after(&sim, 48);
    until("half is sent", async || sent().await >= 200).await;
    assert!(sent().await < 400, "too much is sent already");
    first.shutdown().await;
    delay_uploads_after(&sim, 1_000);
    let completed = async || {
        let runs = runs(&api).await;
        runs.len() == 4 && runs.iter().all(|run| run.state == RunState::Completed)
    };
    until("all is delivered", completed).await;
    for run in runs(&api).await {
        assert_eq!((run.read, run.sent, run.pending), (100, 100, 0), "{run:?}");
    }
    let audiences = sim.audiences();
    assert_eq!(audiences.len(), 4);
    for audience in &audiences {
        assert_eq!(sim.members(&audience.id).unwrap(), all_members());
    }
    // A worker that stops abandons its current batch, which is sent again: at most two batches, because an account
    // has two running tasks.
    let counts = sim.requests();
    let adds = &counts.calls["add_users"];
    assert!((400..=408).contains(&adds.rows), "{adds:?}");
    for node in [second, api] {
        node.shutdown().await;
    }
}

/// The clock of a process that polls very rarely.
#[derive(Debug)]
struct SlowClock;

impl Clock for SlowClock {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn wall_duration(&self, duration: Duration) -> Duration {
        1_000 * duration
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_the_newest_spec_fails_no_task() {
    let (deployment, sim) = activating(1).await;
    customers(&deployment, address);
    let api = deployment.node("api", &[Role::Api, Role::Schedule, Role::Build]).await;
    let client = Client::of(&api);
    until("it is built", async || lookup(&client, "c60").await == ["big", "buyers"]).await;
    let roles = [Role::Activate];
    let late = deployment.start_at("late", &roles, true, Arc::new(SlowClock)).await.unwrap();
    let delivered = async |count: usize| {
        let runs = runs(&api).await;
        runs.len() == count && runs.iter().all(|run| run.state == RunState::Completed)
    };
    until("the first sync is delivered", async || delivered(1).await).await;
    deployment.declare(&sync(1));
    let spec = sent_file(&deployment.path().join("throng.yaml"));
    let (status, body) = client.post("/v1/spec/apply", &spec).await;
    assert_eq!(status, 200, "{body}");
    let tried = async || {
        let tasks = api.context().ledger.tasks(10).await.unwrap();
        tasks.into_iter().find(|task| task.sync.as_str() == "sync-1" && task.failures > 0)
    };
    until("it has tried the unknown sync", async || tried().await.is_some()).await;
    let task = tried().await.unwrap();
    assert!(task.finished_at.is_none(), "{task:?}");
    assert!(task.last_error.as_deref().unwrap().contains("a newer one is applied"), "{task:?}");
    late.shutdown().await;
    let next = deployment.start("next", &roles, true).await.unwrap();
    until("another one delivers it", async || delivered(2).await).await;
    for audience in sim.audiences() {
        assert_eq!(sim.members(&audience.id).unwrap(), all_members());
    }
    for node in [next, api] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_whose_checks_fail_is_held_long_before_the_run_ends() {
    let (deployment, sim) = activating(30).await;
    // No value is a valid address, so that no user is sent and every check fails.
    customers(&deployment, |_| "none".to_owned());
    // Each task takes so long that the first ones are checked long before the last of the thirty starts: two of an
    // account run at the same time, so there is more than a minute.
    let rule = FaultRule::new(FaultKind::Slow { millis: 5_000 }).on_call("create_audience");
    sim.set_faults(FaultScript::new(1, [rule])).unwrap();
    let node = deployment.node("node", &Role::ALL).await;
    let client = Client::of(&node);
    let alert = async || {
        let alerts = client.get("/v1/alerts").await["alerts"].as_array().unwrap().clone();
        alerts
            .into_iter()
            .find(|a| a["subject"] == "destination account" && a["resolved_at"].is_null())
    };
    until("the account is held", async || alert().await.is_some()).await;
    sim.set_faults(FaultScript::new(1, [])).unwrap();
    let body = alert().await.unwrap()["message"].as_str().unwrap().to_owned();
    assert!(body.contains("throng sync approve --destination account"), "{body}");
    let in_state = async |state: RunState| {
        let runs = runs(&node).await;
        runs.iter().filter(|run| run.state == state).count()
    };
    // Runs that are planned afterwards are held as well.
    until("all runs are planned, and running tasks have ended", async || {
        in_state(RunState::Active).await == 0 && runs(&node).await.len() == 30
    })
    .await;
    let (held, completed) = (in_state(RunState::Held).await, in_state(RunState::Completed).await);
    assert_eq!(held + completed, 30);
    assert!(completed >= 3 && held >= 10, "{completed} were completed before {held} were held");
    let checks = async || node.context().ledger.checks(100).await.unwrap().len();
    until("the ended tasks are checked", async || checks().await == completed).await;

    // The cause is fixed, and a person approves the account.
    customers(&deployment, address);
    let (status, body) = client.post("/v1/destinations/account/approve", &json!({})).await;
    assert_eq!((status, body), (200, json!({ "approved": held })));
    until("the rest is delivered", async || in_state(RunState::Completed).await == 30).await;
    let delivered = runs(&node).await.iter().filter(|run| run.sent == 100).count();
    assert_eq!(delivered, held);
    assert!(alert().await.is_none());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_task_becomes_a_dead_letter() {
    let (deployment, sim) = activating(1).await;
    customers(&deployment, address);
    crate::activation::deny(&sim, 2);
    let node = deployment.node("node", &Role::ALL).await;
    let dead = dead_letters(&deployment).await;
    let letter = dead.take().await.unwrap();
    dead.done(&letter).await.unwrap();
    let text = String::from_utf8(letter.body.to_vec()).unwrap();
    let letter: Value = serde_json::from_str(&text).unwrap();
    let task = node.context().ledger.tasks(10).await.unwrap().pop().unwrap();
    assert_eq!(task.state, TaskState::Failed);
    assert_eq!(
        (&letter["version"], &letter["task"], &letter["sync"], &letter["destination"]),
        (&json!(1), &json!(task.id), &json!("sync-0"), &json!("account"))
    );
    assert!(letter["reason"].as_str().unwrap().contains("ads_management"), "{letter}");
    assert!(!text.contains("example.com"), "{text}");

    // An invalid message on the topic does not stop the workers.
    let stray = Message::new("x", "hello");
    node.context().queues.tasks.put(vec![stray]).await.unwrap();
    let letter = dead.take().await.unwrap();
    let letter: Value = serde_json::from_slice(&letter.body).unwrap();
    assert_eq!(letter["message"], "hello");
    assert!(letter["reason"].as_str().unwrap().contains("not a task message"), "{letter}");
    node.shutdown().await;

    // A process that has not seen the failure calls the account at once.
    let node = deployment.node("another", &Role::ALL).await;
    let client = Client::of(&node);
    let (status, body) = client.post(&format!("/v1/tasks/{}/requeue", task.id), &json!({})).await;
    assert_eq!(status, 200, "{body}");
    until("the run is completed", async || runs(&node).await[0].state == RunState::Completed).await;
    assert_eq!(sim.members(&sim.audiences()[0].id).unwrap(), all_members());
    node.shutdown().await;
}
