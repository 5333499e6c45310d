//! Refreshes that are started by changes of the source, and refreshes of an unchanged source.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use throng_model::ManualClock;
use throng_server::Node;
use throng_store::{HistoryEvent, Refresh, RefreshState, RefreshTrigger, SubjectKind};

use crate::{Client, noon, start, until};

const BUYERS: &str = "SELECT customer FROM shop.visits";

/// A step of the clock while a test waits for a look at the source. Far below the lease of a refresh:
/// one that expired while the refresh is processed would let it end as crashed.
pub(crate) const STEP: Duration = Duration::from_secs(1);

/// A folder with a spec of one audience over the table `visits`.
struct Shop(tempfile::TempDir);

impl Shop {
    /// `more`: fields of the audience after its SQL.
    fn new(sql: &str, more: &str) -> Self {
        let shop = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(shop.path("data/visits")).unwrap();
        shop.spec(sql, more);
        shop.visits("1.csv", 0..10);
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn spec(&self, sql: &str, more: &str) {
        let text = format!(
            "version: 1\nsources:\n  - {{ name: shop, path: data }}\naudiences:\n  - {{ name: buyers, sql: \"{sql}\"{more} }}\n"
        );
        std::fs::write(self.path("throng.yaml"), text).unwrap();
    }

    fn visits(&self, file: &str, customers: std::ops::Range<u32>) {
        let lines: String = customers.map(|c| format!("c{c:03},1\n")).collect();
        let path = self.path("data/visits").join(file);
        std::fs::write(path, format!("customer,n\n{lines}")).unwrap();
    }

    async fn start(&self, clock: &Arc<ManualClock>) -> Node {
        let spec = throng_spec::load(&self.path("throng.yaml")).unwrap();
        start(&self.path("node"), spec, clock).await.unwrap()
    }
}

/// The refreshes of the audience, newest first.
pub(crate) async fn refreshes(node: &Node) -> Vec<Refresh> {
    let name = "buyers".parse().unwrap();
    node.context().ledger.refreshes(Some(&name), 100).await.unwrap()
}

/// Waits until so many refreshes have ended. Returns the newest one.
pub(crate) async fn ended(node: &Node, count: usize) -> Refresh {
    until("the refreshes have ended", async || {
        let all = refreshes(node).await;
        all.len() == count && all.iter().all(|refresh| refresh.finished_at.is_some())
    })
    .await;
    refreshes(node).await.remove(0)
}

/// The versions that exist, newest first.
async fn versions(node: &Node) -> Vec<u64> {
    let name = "buyers".parse().unwrap();
    let all = node.context().ledger.snapshots(&name).await.unwrap();
    all.iter().map(|snapshot| snapshot.version).collect()
}

/// Waits until this version is loaded for lookups: one that is not is made again.
async fn served(client: &Client, version: u64) {
    until("the version is served", async || {
        client.get("/v1/node/health").await["snapshots"] == json!({ "buyers": version })
    })
    .await;
}

async fn post(client: &Client, query: &str) {
    let path = format!("/v1/audiences/buyers/refresh{query}");
    let (status, answer) = client.post(&path, &json!({})).await;
    assert_eq!(status, 200, "{answer}");
}

async fn page(client: &Client) -> String {
    client.request("GET", "/audiences/buyers").send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_of_an_unchanged_source_makes_no_snapshot_unless_it_is_forced() {
    let shop = Shop::new(BUYERS, "");
    let node = shop.start(&noon()).await;
    let client = Client::of(&node);
    assert!(!ended(&node, 1).await.unchanged);
    served(&client, 1).await;

    post(&client, "").await;
    let refresh = ended(&node, 2).await;
    assert_eq!((refresh.state, refresh.unchanged), (RefreshState::Completed, true));
    assert_eq!((refresh.snapshot_version, refresh.rows_read), (Some(1), 0));
    assert_eq!(versions(&node).await, [1]);
    // Visible in API, page and history.
    let answer: Value = client.get("/v1/audiences/buyers").await;
    let shown = &answer["refresh"];
    assert_eq!((&shown["state"], &shown["unchanged"]), (&json!("completed"), &json!(true)));
    assert!(page(&client).await.contains(">unchanged<"));
    until("the history has it", async || {
        let subject = (&SubjectKind::Audience, "buyers");
        let history = node.context().ledger.history(Some(subject), 10).await.unwrap();
        history
            .iter()
            .any(|e| e.what == HistoryEvent::Unchanged && e.why.contains("version 1 with 10"))
    })
    .await;

    post(&client, "?force=true").await;
    let forced = ended(&node, 3).await;
    assert!(forced.forced && !forced.unchanged);
    assert_eq!((forced.snapshot_version, versions(&node).await), (Some(2), vec![2, 1]));
    served(&client, 2).await;

    // A change makes a snapshot, and the next refresh finds nothing again.
    shop.visits("2.csv", 10..12);
    post(&client, "").await;
    assert_eq!(ended(&node, 4).await.snapshot_version, Some(3));
    served(&client, 3).await;
    post(&client, "").await;
    assert!(ended(&node, 5).await.unchanged);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_other_types_and_a_model_of_the_time_are_scanned() {
    let shop = Shop::new(BUYERS, "");
    let clock = noon();
    let node = shop.start(&clock).await;
    ended(&node, 1).await;
    node.shutdown().await;
    // Whether the spec queues a refresh by itself: it does so for another model.
    let timed = "SELECT customer FROM shop.visits WHERE now() IS NOT NULL";
    let positive = "SELECT customer FROM shop.visits WHERE n > 0";
    for (count, (sql, columns, is_queued)) in [
        (positive, "", true),
        (positive, ", columns: { n: integer }", false),
        (timed, ", columns: { n: integer }", true),
        // The same model over the same files.
        (timed, ", columns: { n: integer }", false),
    ]
    .into_iter()
    .enumerate()
    {
        shop.spec(sql, "");
        let text = std::fs::read_to_string(shop.path("throng.yaml")).unwrap();
        let text = text.replace("path: data }", &format!("path: data{columns} }}"));
        std::fs::write(shop.path("throng.yaml"), text).unwrap();
        let node = shop.start(&clock).await;
        if !is_queued {
            post(&Client::of(&node), "").await;
        }
        let refresh = ended(&node, count + 2).await;
        assert!(!refresh.unchanged, "{sql} {columns}");
        assert_eq!(refresh.snapshot_version, Some(count as u64 + 2), "{sql} {columns}");
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_two_polls_find_the_same_starts_one_refresh() {
    let shop = Shop::new(BUYERS, ", schedule: { on: source_changed, poll_secs: 60 }");
    let clock = noon();
    let node = shop.start(&clock).await;
    let client = Client::of(&node);
    assert_eq!(ended(&node, 1).await.trigger, RefreshTrigger::Apply);
    served(&client, 1).await;
    assert!(page(&client).await.contains("on change"));

    shop.visits("2.csv", 10..15);
    until("the change is found", async || {
        clock.advance(STEP);
        refreshes(&node).await.len() == 2
    })
    .await;
    let refresh = ended(&node, 2).await;
    assert_eq!(refresh.trigger, RefreshTrigger::SourceChanged);
    assert_eq!((refresh.snapshot_version, refresh.unchanged), (Some(2), false));
    let answer = client.get("/v1/audiences/buyers").await;
    assert_eq!(answer["refresh"]["trigger"], json!("source_changed"));
    assert_eq!(answer["current"]["members"], json!(15));

    // Another process continues with what the ledger has.
    node.shutdown().await;
    let node = shop.start(&clock).await;
    shop.visits("3.csv", 15..16);
    until("the next change is found", async || {
        clock.advance(STEP);
        refreshes(&node).await.len() >= 3
    })
    .await;
    assert_eq!(ended(&node, 3).await.snapshot_version, Some(3));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_as_before_end_the_failure_of_a_change() {
    let shop = Shop::new(BUYERS, ", schedule: { on: source_changed, poll_secs: 60 }");
    let clock = noon();
    let node = shop.start(&clock).await;
    let client = Client::of(&node);
    ended(&node, 1).await;
    served(&client, 1).await;
    let is_alerted = async || {
        let alerts = client.get("/v1/alerts").await["alerts"].as_array().unwrap().clone();
        let mut open = alerts.iter().filter(|alert| alert["resolved_at"].is_null());
        open.any(|alert| alert["kind"] == json!("refresh_failed"))
    };
    let found = async |count: usize| {
        clock.advance(STEP);
        refreshes(&node).await.len() == count
    };

    let other = shop.path("data/visits/2.csv");
    std::fs::write(&other, "article,price\nx1,2\n").unwrap();
    until("the change is found", async || found(2).await).await;
    assert_eq!(ended(&node, 2).await.state, RefreshState::Failed);
    until("the alert is open", async || is_alerted().await).await;

    std::fs::remove_file(&other).unwrap();
    until("the files are as before", async || found(3).await).await;
    let refresh = ended(&node, 3).await;
    assert_eq!((refresh.state, refresh.unchanged), (RefreshState::Completed, true));
    assert_eq!(refresh.trigger, RefreshTrigger::SourceChanged);
    until("the alert is resolved", async || !is_alerted().await).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_newer_success_file_start_nothing() {
    let trigger = ", schedule: { on: source_changed, poll_secs: 60, success_file: _SUCCESS }";
    let shop = Shop::new(BUYERS, trigger);
    let clock = noon();
    let node = shop.start(&clock).await;
    ended(&node, 1).await;
    let success = |path: &Path| std::fs::write(path.join("_SUCCESS"), "").unwrap();
    shop.visits("2.csv", 10..15);
    // The second audience has no success file, and shows that both were looked at.
    node.shutdown().await;
    let text = std::fs::read_to_string(shop.path("throng.yaml")).unwrap();
    let marker = format!(
        "  - {{ name: marker, sql: \"{BUYERS}\", schedule: {{ on: source_changed, poll_secs: 60 }} }}\n"
    );
    std::fs::write(shop.path("throng.yaml"), text + &marker).unwrap();
    let node = shop.start(&clock).await;
    let marker = "marker".parse().unwrap();
    let marks = async || node.context().ledger.refreshes(Some(&marker), 9).await.unwrap();
    // It must have read the files before they change: else they are those of its first snapshot.
    until("the marker is built", async || {
        marks().await.first().is_some_and(|refresh| refresh.finished_at.is_some())
    })
    .await;
    shop.visits("2.csv", 10..16);
    until("the marker has changed", async || {
        clock.advance(STEP);
        marks().await.len() == 2
    })
    .await;
    assert_eq!(refreshes(&node).await.len(), 1, "the files are not complete");
    success(&shop.path("data/visits"));
    until("the complete files are found", async || {
        clock.advance(STEP);
        refreshes(&node).await.len() == 2
    })
    .await;
    assert_eq!(ended(&node, 2).await.trigger, RefreshTrigger::SourceChanged);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn padded_keys_are_an_alert_and_files_that_are_not_read_are_in_the_history() {
    let shop = Shop::new(BUYERS, "");
    let second = |lines: &str| {
        std::fs::write(shop.path("data/visits/2.csv"), format!("customer,n\n{lines}")).unwrap();
    };
    second(" d1,1\nd2 ,1\n");
    std::fs::write(shop.path("data/visits/3.csv.old"), "customer,n\nd3,1\n").unwrap();
    let node = shop.start(&noon()).await;
    let client = Client::of(&node);
    ended(&node, 1).await;
    let open_alerts = async || {
        let alerts = client.get("/v1/alerts").await["alerts"].as_array().unwrap().clone();
        let open = alerts.into_iter().filter(|alert| alert["resolved_at"].is_null());
        open.map(|alert| format!("{}: {}", alert["kind"], alert["message"])).collect::<Vec<_>>()
    };
    until("the alert is open", async || {
        open_alerts().await.iter().any(|alert| {
            alert.starts_with("\"null_keys\"")
                && alert.contains("2 of 12 rows")
                && alert.contains("trim: true")
        })
    })
    .await;
    until("the history names the file", async || {
        let subject = (&SubjectKind::Audience, "buyers");
        let history = node.context().ledger.history(Some(subject), 10).await.unwrap();
        let published = history.iter().find(|entry| entry.what == HistoryEvent::Published);
        published.is_some_and(|entry| {
            entry.why.contains("shop.visits: 1 file is not read") && entry.why.contains("3.csv.old")
        })
    })
    .await;
    second("d1,1\nd2,1\n");
    post(&client, "").await;
    ended(&node, 2).await;
    until("the alert is resolved", async || open_alerts().await.is_empty()).await;
    node.shutdown().await;
}
