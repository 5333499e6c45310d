//! Operations on many objects at once: failed tasks and held runs, in API and pages.

use std::time::Duration;

use serde_json::{Value, json};
use throng_model::{Clock, SystemClock, TaskId};
use throng_server::Node;
use throng_spec::Role;
use throng_store::{
    HistoryEvent, Hold, HoldCause, NewRun, Operation, ReasonCounts, RunState, SubjectKind,
    TaskState,
};

use crate::shared::Deployment;
use crate::{Client, http};

const REQUEUE: &str = "/v1/bulk/requeue-tasks";
const APPROVE: &str = "/v1/bulk/approve-runs";

/// Plans a run of two batches for a sync that the spec does not have, and returns its task.
async fn plan(node: &Node, sync: &str, held: Option<Hold>) -> TaskId {
    let run = NewRun {
        sync: sync.parse().unwrap(),
        audience: "buyers".parse().unwrap(),
        destination: "account".parse().unwrap(),
        mode: throng_model::SyncMode::Mirror,
        from_version: None,
        to_version: 1,
        adds: 5,
        removes: 1,
        batches: vec![(Operation::Add, 5), (Operation::Remove, 1)],
        priority: 0,
        held,
        plan: None,
        normalised: ReasonCounts::new(),
        users_removed: 0,
    };
    let ledger = &node.context().ledger;
    let id = ledger.plan_run(&run, SystemClock.now()).await.unwrap();
    ledger.task_of_run(id.expect("its sync has no open run")).await.unwrap().id
}

/// Plans a run and lets its task fail.
async fn fail(node: &Node, sync: &str) -> TaskId {
    let id = plan(node, sync, None).await;
    let (ledger, now) = (&node.context().ledger, SystemClock.now());
    let until = now.plus(Duration::from_secs(60));
    ledger.claim_task(id, "test", 99, now, until).await.unwrap().expect("it is due");
    ledger.fail_task(id, "test", "no answer", None, true, now).await.unwrap();
    id
}

async fn states(node: &Node, tasks: &[TaskId]) -> Vec<TaskState> {
    let mut states = Vec::new();
    for task in tasks {
        states.push(node.context().ledger.task(*task).await.unwrap().state);
    }
    states
}

async fn page(client: &Client, path: &str) -> String {
    let response = client.request("GET", path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_tasks_are_queued_again_together() {
    use TaskState::{Failed, Queued};
    let deployment = Deployment::new();
    let node = deployment.node("api", &[Role::Api]).await;
    let client = Client::of(&node);
    let (a, b) = (fail(&node, "shop-a").await, fail(&node, "shop-b").await);
    let tasks = [a, b, fail(&node, "shop-c").await, fail(&node, "other").await];
    // The run of this one is replaced, so that it is not among those that can be queued again.
    let replaced = fail(&node, "shop-d").await;
    plan(&node, "shop-d", None).await;

    let (status, counted) = client.post(REQUEUE, &json!({ "search": "SHOP" })).await;
    assert_eq!((status, &counted["matched"]), (200, &json!(3)), "{counted}");
    assert_eq!(counted["totals"], json!({ "batches_left": 6 }));
    assert_eq!((&counted["done"], &counted["refused"]), (&json!(0), &json!([])));
    for body in [
        json!({ "search": "shop", "expected": 4 }),
        json!({ "search": "shop", "expected": 3, "digest": "0" }),
    ] {
        let (status, refused) = client.post(REQUEUE, &body).await;
        assert_eq!((status, &refused["error"]["code"]), (409, &json!("wrong_state")), "{refused}");
    }
    assert_eq!(states(&node, &tasks).await, [Failed, Failed, Failed, Failed], "nothing is changed");
    let html = page(&client, "/activation/tasks?state=failed&search=shop").await;
    assert!(html.contains("data-post=\"/v1/bulk/requeue-tasks\""), "{html}");
    assert!(html.contains("Queue 3 failed tasks again?"), "{html}");
    for (task, can_requeue) in [(a, true), (replaced, false)] {
        let button = format!("data-post=\"/v1/tasks/{task}/requeue\"");
        assert_eq!(html.contains(&button), can_requeue, "{html}");
        let of_task = page(&client, &format!("/activation/tasks/{task}")).await;
        assert_eq!(of_task.contains(&button), can_requeue, "{of_task}");
    }
    assert!(!page(&client, "/activation/tasks").await.contains("id=\"bulk\""));

    let ledger = &node.context().ledger;
    ledger.pause_sync(&"shop-b".parse().unwrap(), SystemClock.now()).await.unwrap();
    let confirmed = json!({ "search": "shop", "expected": 3, "digest": counted["digest"] });
    let (status, done) = client.post(REQUEUE, &confirmed).await;
    assert_eq!((status, &done["done"]), (200, &json!(2)), "{done}");
    let refused = done["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1, "{done}");
    assert_eq!(refused[0]["name"], format!("task {b} of shop-b"));
    assert!(refused[0]["error"].as_str().unwrap().contains("is paused"), "{done}");
    assert_eq!(states(&node, &tasks).await, [Queued, Failed, Queued, Failed]);
    for (sync, entries) in [("shop-a", 1), ("shop-b", 0), ("shop-c", 1), ("other", 0)] {
        let history = ledger.history(Some((&SubjectKind::Sync, sync)), 9).await.unwrap();
        let requeued = history.iter().filter(|entry| entry.what == HistoryEvent::Requeued);
        let actors: Vec<_> = requeued.filter_map(|entry| entry.actor.as_deref()).collect();
        // The first token of a shared deployment is named with a number.
        assert_eq!(actors.len(), entries, "{sync}");
        assert!(actors.iter().all(|actor| actor.starts_with("admin-")), "{sync}: {actors:?}");
    }

    let summary = client.get("/v1/tasks/summary").await;
    let tasks = json!({ "queued": 3, "running": 0, "held": 0, "failed": 3, "done": 0 });
    let of_account = json!({ "destination": "account", "tasks": tasks, "batches_left": 6 });
    let all = json!({ "destinations": [of_account], "tasks": tasks, "batches_left": 6 });
    assert_eq!(summary, all);
    let summary = client.get("/v1/tasks/summary?search=other&state=queued").await;
    assert_eq!(summary["destinations"], json!([]));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_objects_than_one_request_takes_are_in_further_ones() {
    let deployment = Deployment::new();
    let node = deployment.node("api", &[Role::Api]).await;
    let client = Client::of(&node);
    for number in 0..203 {
        let hold = Hold::new(HoldCause::Guard, "too many removals");
        plan(&node, &format!("sync-{number:03}"), Some(hold)).await;
    }
    let (mut cursor, mut matched) = (Value::Null, Vec::new());
    loop {
        let (_, counted) = client.post(APPROVE, &json!({ "cursor": cursor })).await;
        let expected = &counted["matched"];
        let rows = json!({ "adds": 5 * expected.as_u64().unwrap(), "removes": expected });
        assert_eq!(counted["totals"], rows, "{counted}");
        let digest = &counted["digest"];
        let body = json!({ "cursor": cursor, "expected": expected, "digest": digest });
        let (status, done) = client.post(APPROVE, &body).await;
        assert_eq!((status, &done["done"]), (200, expected), "{done}");
        matched.push(expected.as_u64().unwrap());
        cursor = counted["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(matched, [200, 3]);
    let runs = node.context().ledger.runs(None, 999).await.unwrap();
    assert_eq!(runs.len(), 203);
    assert!(runs.iter().all(|run| run.state == RunState::Active));
    let (status, unknown) = client.post("/v1/bulk/delete-runs", &json!({})).await;
    assert_eq!((status, &unknown["error"]["code"]), (404, &json!("not_found")), "{unknown}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_of_a_workspace_acts_on_its_objects_only() {
    let deployment = Deployment::new();
    let source = "sources: [{ name: shop, path: data }]";
    deployment.declare(&format!(
        "workspaces:\n  - {{ name: acme, {source} }}\n  - {{ name: other, {source} }}\n"
    ));
    let node = deployment.node("api", &[Role::Api]).await;
    for sync in ["acme:a", "other:a", "a"] {
        plan(&node, sync, Some(Hold::new(HoldCause::Guard, "too many removals"))).await;
    }
    let admin = Client::of(&node);
    let limited = async |scope: &str| {
        let wanted = json!({ "name": scope, "scopes": [scope], "workspace": "acme" });
        let (status, made) = admin.post("/v1/tokens", &wanted).await;
        assert_eq!(status, 200, "{made}");
        Client { http: http(made["token"].as_str()), url: node.url() }
    };
    let (reader, operator) = (limited("read").await, limited("operate").await);
    let (status, refused) = reader.post(APPROVE, &json!({})).await;
    assert_eq!((status, &refused["error"]["code"]), (403, &json!("forbidden")), "{refused}");
    let (status, refused) = operator.post(APPROVE, &json!({ "search": "" })).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("bad_request")), "{refused}");
    let (status, unknown) = operator.post(APPROVE, &json!({ "workspace": "other" })).await;
    assert_eq!((status, &unknown["error"]["code"]), (404, &json!("not_found")), "{unknown}");

    let (_, all) = admin.post(APPROVE, &json!({})).await;
    assert_eq!(all["matched"], json!(3), "{all}");
    let of_all = json!({ "expected": 3, "digest": all["digest"] });
    let (status, refused) = operator.post(APPROVE, &of_all).await;
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("wrong_state")), "{refused}");
    let (_, counted) = operator.post(APPROVE, &json!({})).await;
    assert_eq!(counted["totals"], json!({ "adds": 5, "removes": 1 }), "{counted}");
    let confirmed = json!({ "expected": 1, "digest": counted["digest"] });
    let (status, done) = operator.post(APPROVE, &confirmed).await;
    assert_eq!((status, &done["done"]), (200, &json!(1)), "{done}");
    let runs = node.context().ledger.runs(None, 9).await.unwrap();
    let approved = runs.iter().filter(|run| run.state == RunState::Active);
    let approved: Vec<String> = approved.map(|run| run.sync.to_string()).collect();
    assert_eq!(approved, ["acme:a"]);
    node.shutdown().await;
}
