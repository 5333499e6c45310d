//! A topic of events that was created again, or restored, whose loss of records the operator accepts.

use bytes::Bytes;

use super::*;

/// Counts impressions with these ids, each in a record of its own.
async fn count(fixture: &Fixture, dir: &Path, ids: std::ops::Range<u32>) {
    let budgets = fixture.open_shared(dir, &[]).await.unwrap();
    for id in ids {
        fixture.impressions(&budgets, id..id + 1).await;
    }
    budgets.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_a_new_topic_has_when_the_loss_is_accepted_count_once() {
    // Shorter than the old topic, and longer.
    for new in [4..7, 4..12] {
        let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
        count(&fixture, dir.path(), 0..5).await;
        // Accepted while the partition waits. The first one is sent again, and was counted.
        let other = tempfile::tempdir().unwrap();
        count(&fixture, other.path(), new.clone()).await;
        std::fs::remove_dir_all(dir.path().join("log")).unwrap();
        copy(&other.path().join("log"), &dir.path().join("log"));
        let refused = fixture.open_shared(dir.path(), &[]).await.unwrap_err();
        let is_expected = match new.len() {
            3 => matches!(refused, BudgetsError::LogBehind { checkpoint: 5, end: 3, .. }),
            _ => matches!(refused, BudgetsError::OtherLog { offset: 4, .. }),
        };
        assert!(is_expected, "{refused}");
        let budgets = fixture.open_shared(dir.path(), &[0]).await.unwrap();
        let all = i64::from(new.end) * 100_000;
        assert_eq!(actual(&budgets), all);
        crash(budgets).await;
        let budgets = fixture.open_shared(dir.path(), &[]).await.unwrap();
        assert_eq!(actual(&budgets), all, "nothing is lost or counted twice at the next start");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_new_topic_are_not_in_the_quarantine_of_the_old_one() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    count(&fixture, dir.path(), 0..2).await;
    let invalid = vec![Bytes::from_static(b"not an event")];
    fixture.log(dir.path()).unwrap().append(0, START, invalid).await.unwrap();
    count(&fixture, dir.path(), 2..3).await;
    let other = tempfile::tempdir().unwrap();
    count(&fixture, other.path(), 4..9).await;
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    copy(&other.path().join("log"), &dir.path().join("log"));
    let refused = fixture.open_shared(dir.path(), &[]).await.unwrap_err();
    assert!(matches!(refused, BudgetsError::OtherLog { offset: 3, .. }), "{refused}");
    for accepted in [&[0][..], &[]] {
        let budgets = fixture.open_shared(dir.path(), accepted).await.unwrap();
        assert_eq!(actual(&budgets), 800_000);
        let listed = budgets.quarantine().await.unwrap();
        assert!(listed.is_empty(), "{listed:?}");
        crash(budgets).await;
    }
}
