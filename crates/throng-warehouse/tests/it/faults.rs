//! Every fault of the warehouse: the members are the same, or the refresh fails with an alert.

use std::time::Duration;

use throng_model::{Retry, UserHash};
use throng_refresh::{PageRequest, Session, WarehouseError, Warehouses as _};
use throng_sim_bigquery::{CallKind, FaultKind, FaultRule};
use throng_spec::WarehouseSettings;
use throng_store::{AlertKind, RefreshState};

use crate::{SEED, SQL, Site, audience, first_job};

fn fault(on: CallKind, after: u64, times: u64, kind: FaultKind) -> FaultRule {
    FaultRule { on, after, times, kind }
}

/// Refreshes with one fault. Checks the members, and the number of jobs.
async fn survives(rule: FaultRule, jobs: usize) {
    let mut site = Site::new().await;
    if let FaultKind::Slow(_) = rule.kind {
        site.timeout = Duration::from_secs(2);
    }
    site.sim.set_faults(vec![rule]);
    let outcome = site.refresh().await;
    assert_eq!(outcome.state, RefreshState::Completed, "{rule:?}: {outcome:?}");
    site.assert_members(0..10).await;
    let oracle = site.sim.oracle();
    assert_eq!(oracle.faults, rule.times, "{rule:?}");
    assert_eq!(oracle.jobs.len(), jobs, "{rule:?}");
    let last = oracle.jobs.last().unwrap();
    let mut pages = last.pages.clone();
    // A page whose answer was lost is served again, and counts once.
    pages.dedup();
    assert_eq!(pages, [0, 3, 6, 9], "{rule:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_errors_are_retried_with_one_job() {
    let kinds = [
        FaultKind::Unavailable,
        FaultKind::RateLimited,
        FaultKind::TooManyRequests,
        FaultKind::Cut,
        FaultKind::CutAfter,
    ];
    for kind in kinds {
        for on in [CallKind::Token, CallKind::Insert, CallKind::Poll, CallKind::Page] {
            survives(fault(on, 0, 3, kind), 1).await;
        }
        survives(fault(CallKind::Page, 2, 2, kind), 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_asked_for_again() {
    for on in [CallKind::Insert, CallKind::Page] {
        survives(fault(on, 0, 1, FaultKind::Slow(60_000)), 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_access_token_is_replaced_once() {
    for on in [CallKind::Insert, CallKind::Poll, CallKind::Page] {
        survives(fault(on, 0, 1, FaultKind::ExpiredToken), 1).await;
    }
    let site = Site::new().await;
    site.sim.set_faults(vec![fault(CallKind::Poll, 0, 2, FaultKind::ExpiredToken)]);
    let outcome = site.refresh().await;
    // The new token is refused too: that is not a matter of its age.
    assert_eq!(outcome.state, RefreshState::Failed, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_failed_job_is_replaced_as_a_whole() {
    for kind in [FaultKind::JobLost, FaultKind::JobFails] {
        survives(fault(CallKind::Poll, 1, 1, kind), 2).await;
    }
    survives(fault(CallKind::Page, 2, 1, FaultKind::JobLost), 2).await;
    // Each refresh has three jobs.
    let site = Site::new().await;
    site.sim.set_faults(vec![fault(CallKind::Page, 0, 99, FaultKind::JobLost)]);
    let outcome = site.refresh().await;
    assert_eq!(outcome.state, RefreshState::Failed, "{outcome:?}");
    assert!(outcome.reason.unwrap().contains("is lost"));
    assert_eq!(site.sim.oracle().jobs.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_without_an_answer_is_tried_four_times_under_one_id_and_raises_an_alert() {
    let site = Site::new().await;
    site.sim.set_faults(vec![fault(CallKind::Insert, 0, 4, FaultKind::CutAfter)]);
    let outcome = site.refresh().await;
    assert_eq!(outcome.state, RefreshState::Failed);
    let reason = outcome.reason.unwrap();
    assert!(reason.contains("was tried four times"), "{reason}");
    let oracle = site.sim.oracle();
    assert_eq!((oracle.jobs.len(), oracle.duplicates, oracle.faults), (1, 3, 4));
    let ledger = site.ledger().await;
    let name = audience();
    let alert = ledger.open_alert(AlertKind::RefreshFailed, name.as_str()).await.unwrap();
    assert!(alert.is_some());
    // The next refresh is another job, and resolves the alert.
    assert_eq!(site.refresh().await.state, RefreshState::Completed);
    site.assert_members(0..10).await;
    assert_eq!(ledger.open_alert(AlertKind::RefreshFailed, name.as_str()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_cannot_have_reached_the_server_is_tried_again_later() {
    let mut site = Site::new().await;
    let WarehouseSettings::Bigquery(settings) = &mut site.spec.warehouses[0].settings else {
        panic!()
    };
    // The simulator issues the access token; nothing listens here.
    settings.endpoint = Some("http://127.0.0.1:9".to_owned());
    let job = first_job();
    let request =
        PageRequest { sql: SQL, key: Some("user_id"), job: &job, cursor: None, seed: SEED };
    let mut keys = |_: &[UserHash], _: u64| Ok::<(), WarehouseError>(());
    let warehouse = site.warehouses().open(&site.spec.warehouses[0]).unwrap();
    let mut session = Session::default();
    let error = warehouse.page(&request, &mut keys, &mut session).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Backoff, "{error}");
}
