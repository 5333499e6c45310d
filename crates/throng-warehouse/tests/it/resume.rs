//! Processes that are killed, and the process that continues.

use std::time::Duration;

use throng_sim_bigquery::{CallKind, FaultKind, FaultRule};
use throng_store::RefreshState;

use crate::{Site, clicks};

/// Call number `after` of a kind is not answered, so that the process can be killed there.
fn hang(on: CallKind, after: u64) -> FaultRule {
    FaultRule { on, after, times: 1, kind: FaultKind::Hang }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_is_killed_at_every_call_reads_each_page_once() {
    let site = Site::new().await;
    // Twelve rows are four pages. A call that hangs is repeated by the next process.
    site.sim.set_faults(vec![
        hang(CallKind::Poll, 0),
        hang(CallKind::Page, 0),
        hang(CallKind::Page, 2),
        hang(CallKind::Page, 4),
        hang(CallKind::Page, 6),
    ]);
    for killed in 1..=5 {
        let what = format!("call {killed} hangs");
        site.refresh_until(&what, || site.sim.oracle().hanging == killed).await;
    }
    let outcome = site.refresh().await;
    assert_eq!(outcome.state, RefreshState::Completed, "{outcome:?}");
    site.assert_members(0..10).await;
    let oracle = site.sim.oracle();
    assert_eq!(site.pages(), [[0, 3, 6, 9]]);
    // Each process that did not know of the job has asked for it by its id.
    assert!(oracle.duplicates > 0, "{oracle:?}");
    let labels = &oracle.jobs[0].labels;
    assert!(labels.contains(&("throng_audience".to_owned(), "clickers".to_owned())), "{labels:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_before_its_job_exists_leaves_none() {
    let site = Site::new().await;
    site.sim.set_faults(vec![hang(CallKind::Token, 0), hang(CallKind::Insert, 0)]);
    for killed in 1..=2 {
        let what = format!("call {killed} hangs");
        site.refresh_until(&what, || site.sim.oracle().hanging == killed).await;
    }
    assert_eq!(site.refresh().await.state, RefreshState::Completed);
    site.assert_members(0..10).await;
    assert_eq!((site.pages(), site.sim.oracle().duplicates), (vec![vec![0, 3, 6, 9]], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_has_job_and_page_token_of_the_next_page() {
    let site = Site::new().await;
    site.sim.set_faults(vec![hang(CallKind::Page, 2)]);
    site.refresh_until("the third page", || site.sim.oracle().hanging == 1).await;
    let ledger = site.ledger().await;
    let refresh = ledger.refreshes(None, 1).await.unwrap().remove(0).id;
    let parts = ledger.parts(refresh).await.unwrap();
    let [first, second, third] = parts.as_slice() else { panic!("{parts:?}") };
    let id = site.sim.oracle().jobs[0].id.clone();
    assert!(first.covers["page"]["cursor"].is_null());
    for (done, next) in [(first, second), (second, third)] {
        let cursor = &done.output.as_ref().unwrap()["page"]["next"];
        assert_eq!(cursor["job"], id.as_str());
        assert_eq!(cursor, &next.covers["page"]["cursor"]);
    }
    assert_eq!(third.output, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_result_is_replaced_by_another_job_and_never_mixed() {
    let site = Site::new().await;
    site.sim.set_faults(vec![hang(CallKind::Page, 2)]);
    site.refresh_until("the third page", || site.sim.oracle().hanging == 1).await;
    // Results are kept for 24 hours, and the table has other users by then.
    site.clock.advance(Duration::from_secs(24 * 3_600));
    site.engine.set(clicks(100..105));
    let outcome = site.refresh().await;
    assert_eq!(outcome.state, RefreshState::Completed, "{outcome:?}");
    site.assert_members(100..105).await;
    assert_eq!(site.pages(), [vec![0, 3], vec![0, 3, 6]]);
    let jobs = site.sim.oracle().jobs;
    assert_ne!(jobs[0].id, jobs[1].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refresh_has_a_job_of_its_own_and_an_empty_result_is_held() {
    let site = Site::new().await;
    assert_eq!(site.refresh().await.state, RefreshState::Completed);
    site.engine.set(clicks(5..12));
    assert_eq!(site.refresh().await.state, RefreshState::Completed);
    site.assert_members(5..12).await;
    let mut empty = clicks(0..1);
    empty.rows.clear();
    site.engine.set(empty);
    // The guard: an emptied table empties no audience.
    assert_eq!(site.refresh().await.state, RefreshState::Held);
    site.assert_members(5..12).await;
    assert_eq!(site.pages(), [vec![0, 3, 6, 9], vec![0, 3, 6], vec![0]]);
}
