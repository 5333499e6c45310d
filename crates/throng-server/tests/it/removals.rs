//! The audience on the platform of a sync that is removed from the spec.

use serde_json::{Value, json};
use throng_model::{SyncMode, SyncName};
use throng_server::Node;
use throng_sim::meta::{FaultKind, FaultRule, FaultScript};
use throng_store::{Operation, RunState, SyncRun};

use crate::activation::{Shop, refresh, settled};
use crate::{Client, sent_file, until};

const SYNC: &str = "buyers-on-meta";

/// A shop whose customers 2 to 5 are on the platform, and that can apply its spec with or without its sync.
struct Removable {
    shop: Shop,
    spec: String,
}

impl Removable {
    async fn new() -> (Self, Node) {
        let shop = Shop::new().await;
        shop.buyers(2..6);
        let spec = std::fs::read_to_string(shop.dir.path().join("throng.yaml")).unwrap();
        let removable = Self { shop, spec };
        let node = removable.shop.node().await;
        removable.is_delivered(&node, 4).await;
        (removable, node)
    }

    /// Waits until this number of users is recorded as delivered and the run is checked.
    async fn is_delivered(&self, node: &Node, users: u64) {
        let ledger = &node.context().ledger;
        until("the delivery is recorded", async || {
            let records = ledger.delivered_records().await.unwrap();
            records.first().is_some_and(|record| record.users == users)
                && ledger.unrecorded_runs().await.unwrap().is_empty()
                && ledger.unchecked_tasks(1).await.unwrap().is_empty()
        })
        .await;
    }

    fn write(&self, text: &str) -> Value {
        let path = self.shop.dir.path().join("throng.yaml");
        std::fs::write(&path, text).unwrap();
        sent_file(&path)
    }

    /// Applies the spec with the sync and this rule.
    async fn declare(&self, client: &Client, rule: &str) {
        let rule = format!("batch_rows: 4\n    on_remove: {rule}");
        let sent = self.write(&self.spec.replace("batch_rows: 4", &rule));
        let (status, body) = client.post("/v1/spec/apply", &sent).await;
        assert_eq!(status, 200, "{body}");
    }

    /// Applies the spec with the sync in this mode, with these columns and the rule `empty`.
    async fn declare_with(&self, client: &Client, mode: &str, columns: &str) {
        let settings = format!("batch_rows: 4\n    mode: {mode}\n    on_remove: empty");
        let spec = self.spec.replace("batch_rows: 4", &settings);
        let sent = self.write(&spec.replace("{ email: EMAIL }", columns));
        let (status, body) = client.post("/v1/spec/apply", &sent).await;
        assert_eq!(status, 200, "{body}");
    }

    /// Plans and applies the spec without the sync. Returns the warning of both.
    async fn remove(&self, client: &Client) -> String {
        let sent = self.write(self.spec.split_once("syncs:").unwrap().0);
        let mut warnings = Vec::new();
        for what in ["plan", "apply"] {
            let (status, body) = client.post(&format!("/v1/spec/{what}"), &sent).await;
            assert_eq!(status, 200, "{body}");
            warnings.push(body["plan"]["warnings"][0].as_str().unwrap().to_owned());
        }
        assert_eq!(warnings[0], warnings[1]);
        warnings.remove(0)
    }
}

async fn removals(client: &Client) -> Value {
    client.get("/v1/removals").await["removals"].clone()
}

async fn post(client: &Client, what: &str) -> u16 {
    client.post(&format!("/v1/removals/{SYNC}/{what}"), &json!({})).await.0
}

/// The messages of open alerts.
async fn open_alerts(client: &Client) -> Vec<String> {
    let alerts = client.get("/v1/alerts").await["alerts"].as_array().unwrap().clone();
    let open = alerts.iter().filter(|alert| alert["resolved_at"].is_null());
    open.map(|alert| alert["message"].as_str().unwrap().to_owned()).collect()
}

async fn is_forgotten(node: &Node) -> bool {
    let ledger = &node.context().ledger;
    let sync: SyncName = SYNC.parse().unwrap();
    ledger.removals().await.unwrap().is_empty()
        && ledger.platform_audience(&sync).await.unwrap().is_none()
        && ledger.delivered_records().await.unwrap().is_empty()
        && ledger.foreign_audiences().await.unwrap().is_empty()
}

/// Whether the history has this entry for the sync, and whether it names an actor.
async fn history_actor(node: &Node, what: &str) -> Option<bool> {
    let history = node
        .context()
        .ledger
        .history(Some((&throng_store::SubjectKind::Sync, SYNC)), 100)
        .await
        .unwrap();
    let entry = history.into_iter().find(|entry| entry.what.name() == what)?;
    Some(entry.actor.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_sync_deletes_its_audience_after_an_approval() {
    let (removable, node) = Removable::new().await;
    let shop = &removable.shop;
    let client = Client::of(&node);
    removable.declare(&client, "delete").await;
    let warning = removable.remove(&client).await;
    for part in ["with 4 users is deleted", "`throng sync approve --removal buyers-on-meta`"] {
        assert!(warning.contains(part), "{warning}");
    }
    let waiting = removals(&client).await;
    let users_and_rule = (&waiting[0]["users"], &waiting[0]["rule"]);
    assert_eq!(users_and_rule, (&json!(4), &json!("delete")), "{waiting}");
    assert!(waiting[0]["approved_at"].is_null());
    let page = client.request("GET", "/activation").send().await.unwrap().text().await.unwrap();
    for part in
        ["id=\"removals\"", "waits for approval", "throng sync approve --removal buyers-on-meta"]
    {
        assert!(page.contains(part), "{part} is not on the page");
    }
    let alerts = open_alerts(&client).await;
    assert!(alerts.len() == 1 && alerts[0].contains("throng sync approve --removal"), "{alerts:?}");
    // Declared again: nothing is removed.
    removable.declare(&client, "delete").await;
    assert_eq!(removals(&client).await, json!([]));
    assert_eq!(open_alerts(&client).await, Vec::<String>::new());
    assert_eq!(history_actor(&node, "removal_cancelled").await, Some(true));
    assert_eq!(post(&client, "approve").await, 404);

    removable.remove(&client).await;
    let used = FaultKind::Error {
        code: 2656,
        subcode: None,
        status: 400,
        message: "a lookalike uses it".to_owned(),
    };
    // Every try: the next one may be made before the node is stopped.
    let rule = FaultRule::new(used).on_call("delete_audience");
    shop.sim.set_faults(FaultScript::new(1, [rule])).unwrap();
    assert!(shop.holds(2..6), "it is not approved");
    assert_eq!(post(&client, "approve").await, 200);
    until("the alert has the reason", async || {
        open_alerts(&client).await.iter().any(|alert| alert.contains("delete that first"))
    })
    .await;
    assert!(shop.holds(2..6));
    // The node dies, and the response to the next try is lost.
    node.shutdown().await;
    let rule = FaultRule::new(FaultKind::CutAfter).on_call("delete_audience").times(1);
    shop.sim.set_faults(FaultScript::new(1, [rule])).unwrap();
    let node = shop.node().await;
    let client = Client::of(&node);
    until("the audience is deleted", async || is_forgotten(&node).await).await;
    assert_eq!((shop.sim.audience_count(), shop.sim.injected_faults()), (0, vec![1]));
    until("it is in the history", async || history_actor(&node, "removal_done").await.is_some())
        .await;
    assert_eq!(open_alerts(&client).await, Vec::<String>::new());
    assert_eq!(history_actor(&node, "removal_approved").await, Some(true));
    // A new sync of this name starts without a delivered state.
    removable.declare(&client, "delete").await;
    until("another audience is filled", async || shop.holds(2..6)).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_sync_empties_its_audience_after_an_approval() {
    let (removable, node) = Removable::new().await;
    let shop = &removable.shop;
    let client = Client::of(&node);
    removable.declare(&client, "empty").await;
    let warning = removable.remove(&client).await;
    assert!(warning.contains("4 users are removed from"), "{warning}");
    let cut = FaultRule::new(FaultKind::CutAfter).on_call("remove_users").times(1);
    shop.sim.set_faults(FaultScript::new(1, [cut])).unwrap();
    assert_eq!(post(&client, "approve").await, 200);
    assert_eq!(post(&client, "approve").await, 409, "it is approved already");
    until("the response is lost", async || shop.sim.injected_faults() == [1]).await;
    node.shutdown().await;
    let node = shop.node().await;
    let client = Client::of(&node);
    until("the audience is emptied", async || is_forgotten(&node).await).await;
    let audiences = shop.sim.audiences();
    assert_eq!(audiences.len(), 1);
    assert_eq!(shop.sim.members(&audiences[0].id).unwrap(), Vec::<String>::new());
    let ledger = &node.context().ledger;
    let run: SyncRun = ledger.runs(None, 1).await.unwrap().remove(0);
    assert_eq!((run.state, run.removes, run.sent), (RunState::Completed, 4, 4));
    let task = ledger.task_of_run(run.id).await.unwrap();
    let receipts = ledger.receipts(task.id).await.unwrap();
    let is_received = receipts.iter().any(|r| r.operation == Operation::Remove && r.received == 4);
    assert!(is_received, "{receipts:?}");
    until("it is in the history", async || history_actor(&node, "removal_done").await.is_some())
        .await;
    assert_eq!(open_alerts(&client).await, Vec::<String>::new());
    // The sync owns the empty list.
    removable.declare(&client, "empty").await;
    until("the audience is filled", async || shop.holds(2..6)).await;
    assert_eq!(shop.sim.audience_count(), 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_with_rows_of_earlier_columns_is_emptied_only_after_a_mirror_has_replaced_it() {
    let (removable, node) = Removable::new().await;
    let shop = &removable.shop;
    let client = Client::of(&node);
    let id = shop.sim.audiences()[0].id.clone();
    let both = "{ email: EMAIL, customer: EXTERN_ID }";
    removable.declare_with(&client, "add", both).await;
    let is_completed =
        |run: &SyncRun, mode: SyncMode| run.mode == mode && run.state == RunState::Completed;
    settled(&node, "other columns", |run| is_completed(run, SyncMode::Add)).await;
    removable.is_delivered(&node, 4).await;
    let rows = shop.sim.member_rows(&id).unwrap();

    removable.remove(&client).await;
    assert_eq!(post(&client, "approve").await, 200);
    until("the alert has the reason", async || {
        let why = "rows of earlier identifier columns";
        open_alerts(&client).await.iter().any(|alert| alert.contains(why))
    })
    .await;
    assert_eq!(shop.sim.member_rows(&id).unwrap(), rows);
    assert_eq!(removals(&client).await.as_array().unwrap().len(), 1);
    assert_eq!(post(&client, "keep").await, 200);
    node.shutdown().await;

    // Another leader does not wait for the next try.
    let node = shop.node().await;
    let client = Client::of(&node);
    removable.declare_with(&client, "mirror", both).await;
    settled(&node, "the whole list", |run| is_completed(run, SyncMode::Replace)).await;
    removable.is_delivered(&node, 4).await;
    let rows = shop.sim.member_rows(&id).unwrap();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.contains_key("EXTERN_ID")), "{rows:?}");
    removable.remove(&client).await;
    assert_eq!(post(&client, "approve").await, 200);
    until("the audience is emptied", async || is_forgotten(&node).await).await;
    assert_eq!(shop.sim.members(&id).unwrap(), Vec::<String>::new());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_sync_keeps_its_audience_and_continues_when_it_is_declared_again() {
    let (removable, node) = Removable::new().await;
    let shop = &removable.shop;
    let client = Client::of(&node);
    let warning = removable.remove(&client).await;
    assert!(warning.contains("remains there with 4 users"), "{warning}");
    assert_eq!(removals(&client).await, json!([]));
    assert_eq!(history_actor(&node, "removed").await, Some(true));
    shop.buyers(3..8);
    removable.declare(&client, "empty").await;
    refresh(&client).await;
    let run = settled(&node, "next", |r| r.to_version == 2 && r.state == RunState::Completed).await;
    assert_eq!((run.adds, run.removes), (2, 1), "a difference");
    assert!(shop.holds(3..8));
    // A discarded removal has the same effect as the rule keep.
    removable.is_delivered(&node, 5).await;
    removable.remove(&client).await;
    assert_eq!(post(&client, "keep").await, 200);
    assert_eq!((post(&client, "keep").await, post(&client, "approve").await), (404, 404));
    assert_eq!(open_alerts(&client).await, Vec::<String>::new());
    assert_eq!(history_actor(&node, "removal_discarded").await, Some(true));
    assert!(shop.holds(3..8));
    shop.buyers(4..8);
    removable.declare(&client, "keep").await;
    refresh(&client).await;
    let run = settled(&node, "last", |r| r.to_version == 3 && r.state == RunState::Completed).await;
    assert_eq!((run.adds, run.removes), (0, 1), "a difference");
    assert!(shop.holds(4..8));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_moves_to_another_account_says_who_stays_on_the_old_one() {
    let (removable, node) = Removable::new().await;
    let client = Client::of(&node);
    let old = removable.shop.sim.audiences()[0].id.clone();
    let sent = removable.write(&removable.spec.replace("act_12", "act_13"));
    for what in ["plan", "apply"] {
        let (status, body) = client.post(&format!("/v1/spec/{what}"), &sent).await;
        assert_eq!(status, 200, "{body}");
        let warning = body["plan"]["warnings"][0].as_str().unwrap();
        let stay = format!("the audience {old} on account meta/12 keeps 4 users");
        let parts = [
            "moves from account meta/12 to account meta/13",
            stay.as_str(),
            "throng sync approve --removal buyers-on-meta",
        ];
        for part in parts {
            assert!(warning.contains(part), "{warning}");
        }
    }
    until("the history has the move", async || history_actor(&node, "moved").await == Some(false))
        .await;
    assert_eq!(removable.shop.sim.members(&old).unwrap().len(), 4);
    let (_, body) = client.post("/v1/spec/plan", &sent).await;
    assert!(body["plan"]["warnings"].as_array().is_none_or(Vec::is_empty), "{body}");
    node.shutdown().await;
}
