//! Sizes of audiences on platforms.

use throng_model::SyncRunId;

use super::*;
use crate::{RunState, SizeRecord, SizeRetention};

/// A size that was read at second `n`.
fn size(name: &str, n: u64, upper: Option<u64>) -> SizeRecord {
    SizeRecord {
        sync: sync_name(name),
        account: "meta/12".to_owned(),
        platform_id: "77".to_owned(),
        at: at(n),
        lower: upper.map(|upper| upper / 2),
        upper,
        delivered: 10 * n,
        settling: upper.is_none(),
        removed: (n > 2).then_some(3 * n),
        removed_run: (n > 3).then_some(SyncRunId(17)),
    }
}

/// Keeps sizes since second `n`, and at most `rows` per sync.
fn keep(n: u64, rows: u32) -> SizeRetention {
    SizeRetention { since: at(n), rows, min_interval: Duration::ZERO }
}

pub(super) async fn sizes_are_kept_in_order_and_within_the_retention(ledger: &dyn Ledger) {
    let (ads, other) = (sync_name("ads"), sync_name("other"));
    assert_eq!(ledger.sizes(&ads, 9).await.unwrap(), []);
    ledger.put_size(&size("other", 1, Some(7)), keep(0, 9)).await.unwrap();
    let read = [size("ads", 2, None), size("ads", 3, Some(u64::MAX >> 1)), size("ads", 4, Some(0))];
    for size in &read {
        ledger.put_size(size, keep(0, 9)).await.unwrap();
    }
    assert_eq!(ledger.sizes(&ads, 9).await.unwrap(), read);
    assert_eq!(ledger.sizes(&ads, 2).await.unwrap(), read[1..]);
    assert_eq!(ledger.newest_sizes().await.unwrap(), [], "they have no audience on the platform");
    for sync in [&ads, &other] {
        ledger.put_platform_audience(sync, "77").await.unwrap();
    }
    let newest = [read[2].clone(), size("other", 1, Some(7))];
    assert_eq!(ledger.newest_sizes().await.unwrap(), newest);
    // The number of rows per sync is bounded, and so is the age of all rows.
    let fifth = size("ads", 5, Some(9));
    ledger.put_size(&fifth, keep(0, 2)).await.unwrap();
    assert_eq!(ledger.sizes(&ads, 9).await.unwrap(), [read[2].clone(), fifth.clone()]);
    assert_eq!(ledger.sizes(&other, 9).await.unwrap().len(), 1);
    let sixth = size("ads", 6, Some(9));
    ledger.put_size(&sixth, keep(5, 9)).await.unwrap();
    assert_eq!(ledger.sizes(&ads, 9).await.unwrap(), [fifth, sixth]);
    assert_eq!(ledger.sizes(&other, 9).await.unwrap(), []);
}

pub(super) async fn sizes_that_are_read_often_are_thinned(ledger: &dyn Ledger) {
    let keep = SizeRetention { min_interval: Duration::from_secs(10), ..keep(0, 99) };
    for second in [1, 4, 8, 12, 13, 21, 22, 23] {
        ledger.put_size(&size("ads", second, Some(7)), keep).await.unwrap();
    }
    let kept = ledger.sizes(&sync_name("ads"), 99).await.unwrap();
    assert_eq!(kept.iter().map(|size| size.at).collect::<Vec<_>>(), [1, 12, 22, 23].map(at));
    // The sizes of another audience of the sync stay.
    let other = SizeRecord { platform_id: "78".to_owned(), ..size("ads", 24, Some(7)) };
    ledger.put_size(&other, keep).await.unwrap();
    assert_eq!(ledger.sizes(&sync_name("ads"), 99).await.unwrap().len(), 5);
}

pub(super) async fn a_size_is_due_some_time_after_it_was_read(ledger: &dyn Ledger) {
    let sync = sync_name("ads");
    let due = async |n| ledger.sizes_due(at(n)).await.unwrap();
    let task = running(ledger, &new_run("ads", 1, &[]), "w").await;
    ledger.put_platform_audience(&sync, "77").await.unwrap();
    assert_eq!(due(99).await, [], "nothing is delivered");
    assert!(!ledger.claim_size(&sync, at(99), at(99)).await.unwrap());
    ledger.complete_task(task.id, "w", at(10)).await.unwrap();
    assert_eq!(ledger.run(task.run).await.unwrap().state, RunState::Completed);
    assert_eq!(due(9).await, []);
    assert_eq!(due(10).await, std::slice::from_ref(&sync));
    assert!(ledger.claim_size(&sync, at(10), at(20)).await.unwrap());
    assert!(!ledger.claim_size(&sync, at(10), at(20)).await.unwrap(), "it is claimed");
    assert_eq!((due(19).await, due(20).await), (vec![], vec![sync.clone()]));
    // A size that was read after a delivery counts too.
    ledger.put_size(&size("ads", 30, None), keep(0, 9)).await.unwrap();
    assert_eq!((due(29).await, due(30).await), (vec![], vec![sync.clone()]));
    // The reading time belongs to the old audience on the platform.
    ledger.forget_delivered(&sync, "recreated", at(31)).await.unwrap();
    assert_eq!(due(99).await, []);
    assert_eq!(ledger.sizes(&sync, 9).await.unwrap().len(), 1);
}
