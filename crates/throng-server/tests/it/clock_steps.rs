//! The clock of a node steps back and forward while audiences are scheduled, leases are held and insertions recorded.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use throng_model::{AudienceName, Clock as _, ManualClock};
use throng_server::Node;
use throng_store::{LedgerError, RefreshState, RefreshTrigger};

use crate::schedules::{at, fired};
use crate::{Client, SPEC as BUDGETS, noon, spec, start, until};

/// `mark` is polled after `hourly`: once it has fired, both schedules have been polled at that time.
const SPEC: &str = r#"version: 1
sources:
  - { name: shop, path: data }
audiences:
  - name: hourly
    sql: "SELECT customer FROM shop.visits"
    schedule: { cron: "0 * * * *", time_zone: UTC }
  - name: mark
    sql: "SELECT customer FROM shop.visits WHERE n > 0"
    schedule: { cron: "25 * * * *", time_zone: UTC }
"#;

const HOUR: Duration = Duration::from_secs(3_600);

/// A node that has built both audiences, with its clock and folder.
async fn built() -> (Node, Arc<ManualClock>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("data/visits.csv"), "customer,n\nc1,1\nc2,0\n").unwrap();
    std::fs::write(dir.path().join("throng.yaml"), SPEC).unwrap();
    let spec = throng_spec::load(&dir.path().join("throng.yaml")).unwrap();
    let clock = Arc::new(ManualClock::new(at("2026-11-23T11:50:00Z")));
    let node = start(&dir.path().join("node"), spec, &clock).await.unwrap();
    for audience in ["hourly", "mark"] {
        let name: AudienceName = audience.parse().unwrap();
        until("the first refreshes are done", async || {
            let all = node.context().ledger.refreshes(Some(&name), 9).await.unwrap();
            all.first().is_some_and(|refresh| refresh.state == RefreshState::Completed)
        })
        .await;
    }
    (node, clock, dir)
}

/// Refreshes an audience by hand, and waits until it is done.
async fn refresh(node: &Node, audience: &str) {
    let name: AudienceName = audience.parse().unwrap();
    let refreshes = async || node.context().ledger.refreshes(Some(&name), 100).await.unwrap();
    let before = refreshes().await.len();
    let path = format!("/v1/audiences/{audience}/refresh");
    let (status, answer) = Client::of(node).post(&path, &json!({})).await;
    assert_eq!(status, 200, "{answer}");
    until("the refresh by hand is done", async || {
        let all = refreshes().await;
        all.len() > before && all.iter().all(|refresh| refresh.state == RefreshState::Completed)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_time_of_a_schedule_fires_twice_when_the_clock_steps() {
    let (node, clock, _dir) = built().await;
    let fire = async |time: &str, hourly: usize, mark: usize| {
        clock.set(at(time));
        until("the schedules have fired", async || {
            fired(&node, "hourly").await >= Some(hourly) && fired(&node, "mark").await >= Some(mark)
        })
        .await;
        let counts = (fired(&node, "hourly").await, fired(&node, "mark").await);
        assert_eq!(counts, (Some(hourly), Some(mark)), "{time}");
    };
    fire("2026-11-23T12:10:00Z", 1, 0).await;
    // An hour back. A refresh by hand works, and noon comes a second time.
    clock.step(clock.now().minus(HOUR));
    refresh(&node, "hourly").await;
    fire("2026-11-23T12:26:00Z", 1, 1).await;
    // Two hours forward: the times in between are one firing.
    clock.step(clock.now().plus(HOUR * 2));
    fire("2026-11-23T14:26:30Z", 2, 2).await;
    // Back before times that have fired and times that were left out.
    clock.step(clock.now().minus(HOUR * 2));
    refresh(&node, "mark").await;
    fire("2026-11-23T15:26:00Z", 3, 3).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_although_the_clock_steps_back_while_it_is_held() {
    let (node, clock, _dir) = built().await;
    let ledger = &node.context().ledger;
    let name: AudienceName = "hourly".parse().unwrap();
    // A builder of another process claims a refresh and dies. Its clock is ahead, so that the builders of this node
    // cannot claim the refresh before it.
    let ahead = clock.now().plus(Duration::from_secs(60));
    let id = ledger.schedule_refresh(&name, RefreshTrigger::Manual, ahead).await.unwrap();
    let until_time = ahead.plus(Duration::from_secs(20));
    let claimed = ledger.claim_refresh_of(&name, "dead", ahead, until_time).await.unwrap();
    assert_eq!(claimed.unwrap().id, id);
    clock.step(clock.now().minus(HOUR));
    // Other audiences are built meanwhile, and the lease is respected.
    refresh(&node, "mark").await;
    let held = ledger.refresh(id).await.unwrap();
    assert_eq!((held.state, held.holder.as_deref()), (RefreshState::Processing, Some("dead")));
    clock.step(until_time);
    until("another builder has completed the refresh", async || {
        ledger.refresh(id).await.unwrap().state == RefreshState::Completed
    })
    .await;
    let late = ledger.recover_refresh(id, "dead", clock.now()).await;
    assert!(matches!(late, Err(LedgerError::LeaseLost { .. })), "{late:?}");
    let all = ledger.refreshes(Some(&name), 9).await.unwrap();
    let by_hand = all.iter().filter(|refresh| refresh.trigger == RefreshTrigger::Manual);
    assert_eq!(by_hand.count(), 1, "{all:?}");
    node.shutdown().await;
}

/// They have the time of the node's own clock, which is not evidence for that clock.
#[tokio::test(flavor = "multi_thread")]
async fn recorded_insertions_do_not_confirm_a_step_of_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let clock = noon();
    let node = start(dir.path(), spec(BUDGETS), &clock).await.unwrap();
    let real = clock.now();
    clock.step(real.plus(HOUR));
    let question = json!({ "ad_groups": ["shoes"], "record_insertion": true });
    let (status, answer) = Client::of(&node).post("/v1/decide", &question).await;
    assert_eq!((status, &answer["allowed"]), (200, &json!(["shoes"])), "{answer}");
    assert!(answer["insertion_id"].is_string());
    // A step that events of others confirm is accepted after a minute.
    let later = Duration::from_secs(90);
    clock.advance(later);
    assert_eq!(node.context().budgets.now(), real.plus(later));
    node.shutdown().await;
}
