//! A log that does not confirm appends, and one whose brokers are gone.

use super::test_log::Appends;
use super::*;

/// Budgets on a shared log that does this with appends, and the log.
async fn open(fixture: &Fixture, dir: &Path, appends: Appends) -> (Arc<Budgets>, Arc<TestLog>) {
    let log = fixture.shared_log(dir);
    log.set_appends(appends);
    let budgets = fixture.open_on(Arc::<TestLog>::clone(&log), dir, &[]).await.unwrap();
    (budgets, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_whose_append_is_not_confirmed_in_time_may_be_stored() {
    let fixture = Fixture { append_timeout: Duration::from_millis(1), ..Fixture::new() };
    let dir = tempfile::tempdir().unwrap();
    let (budgets, log) = open(&fixture, dir.path(), Appends::Pending).await;
    let event = fixture.event("1", EventKind::Impression);
    let refused = budgets.accept(vec![event]).await.unwrap_err();
    assert!(matches!(&refused, BudgetsError::Append(_)) && refused.may_be_appended(), "{refused}");
    assert_eq!(fixture.health.kinds(), [ProblemKind::Log]);
    // Nobody sends events to a node that is not ready.
    log.set_appends(Appends::Stored);
    budgets.probe_refusing().await;
    assert!(fixture.health.kinds().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_reached_refuses_events_until_it_can() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let (budgets, log) = open(&fixture, dir.path(), Appends::Refused).await;
    let event = || vec![fixture.event("1", EventKind::Impression)];
    let refused = budgets.accept(event()).await.unwrap_err();
    assert!(!refused.may_be_appended(), "{refused}");
    // Nothing is left to be cleared once it is back.
    assert!(fixture.health.kinds().is_empty());
    log.set_appends(Appends::Stored);
    assert_eq!(budgets.accept(event()).await.unwrap().accepted, 1);
    assert_eq!(actual(&budgets), 100_000);
}
