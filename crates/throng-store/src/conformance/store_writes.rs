//! Writes of serving stores.

use super::*;
use crate::{NewStoreWrite, StoreCheck, StoreLease, StoreProgress, StoreWriteState};

fn new_write(audience_name: &str, from: Option<u64>, to: Option<u64>) -> NewStoreWrite {
    NewStoreWrite {
        store: "cache".parse().unwrap(),
        audience: audience(audience_name),
        place: "redis://cache throng: by_user".to_owned(),
        from_version: from,
        to_version: to,
        rewrite: from.is_none(),
    }
}

/// A lease of `holder` at second `n` for 60 seconds.
fn lease(id: i64, holder: &str, n: u64) -> StoreLease<'_> {
    StoreLease { id, holder, now: at(n), until: at(n + 60) }
}

async fn begun(ledger: &dyn Ledger, write: &NewStoreWrite, newest: Option<i64>) -> i64 {
    ledger.begin_store_write(write, newest, at(0)).await.unwrap().expect("begun")
}

pub(super) async fn a_write_is_begun_once_and_done_with_its_last_batch(ledger: &dyn Ledger) {
    assert_eq!(ledger.newest_store_writes().await.unwrap(), []);
    let write = new_write("buyers", None, Some(3));
    let id = begun(ledger, &write, None).await;
    assert_eq!(ledger.begin_store_write(&write, None, at(1)).await.unwrap(), None);
    assert_eq!(ledger.begin_store_write(&write, Some(id + 1), at(1)).await.unwrap(), None);
    let newest = ledger.newest_store_writes().await.unwrap();
    assert_eq!(newest.len(), 1);
    assert_eq!((newest[0].id, &newest[0].write, newest[0].users), (id, &write, None));
    assert_eq!(newest[0].state, StoreWriteState::Open);

    assert!(ledger.claim_store_write(lease(id, "a", 1)).await.unwrap());
    let half = StoreProgress { users: 15, batches: 1, added: 7, removed: 3 };
    ledger.record_store_progress(lease(id, "a", 2), half).await.unwrap();
    let open = ledger.newest_store_writes().await.unwrap().remove(0);
    assert_eq!((open.state, open.updated_at), (StoreWriteState::Open, at(2)));
    assert_eq!((open.users, open.batches, open.added, open.removed), (Some(15), 1, 7, 3));
    let all = StoreProgress { users: 15, batches: 2, added: 7, removed: 8 };
    ledger.record_store_progress(lease(id, "a", 3), all).await.unwrap();
    let done = ledger.newest_store_writes().await.unwrap().remove(0);
    assert_eq!((done.state, done.batches, done.removed), (StoreWriteState::Done, 2, 8));
    assert_lease_lost(ledger.record_store_progress(lease(id, "a", 4), all).await);
    assert!(!ledger.claim_store_write(lease(id, "a", 4)).await.unwrap(), "it is done");

    // A write without users is done at once. Those of other audiences are separate.
    let next = begun(ledger, &new_write("buyers", Some(3), Some(4)), Some(id)).await;
    begun(ledger, &new_write("visitors", None, Some(1)), None).await;
    assert!(ledger.claim_store_write(lease(next, "a", 5)).await.unwrap());
    let none = StoreProgress { users: 0, batches: 0, added: 0, removed: 0 };
    ledger.record_store_progress(lease(next, "a", 5), none).await.unwrap();
    let newest = ledger.newest_store_writes().await.unwrap();
    let states: Vec<_> =
        newest.iter().map(|row| (row.write.audience.as_str(), row.state)).collect();
    let expected = [("buyers", StoreWriteState::Done), ("visitors", StoreWriteState::Open)];
    assert_eq!(states, expected);
    let (store, none) = (&newest[0].write.store, audience("nobody"));
    for row in &newest {
        let found = ledger.newest_store_write(store, &row.write.audience).await.unwrap();
        assert_eq!(found.as_ref(), Some(row));
    }
    assert_eq!(ledger.newest_store_write(store, &none).await.unwrap(), None);
}

pub(super) async fn a_write_has_one_holder(ledger: &dyn Ledger) {
    let id = begun(ledger, &new_write("buyers", None, Some(3)), None).await;
    assert!(ledger.claim_store_write(lease(id, "a", 1)).await.unwrap());
    assert!(ledger.claim_store_write(lease(id, "a", 2)).await.unwrap(), "a renewal");
    assert!(!ledger.claim_store_write(lease(id, "b", 61)).await.unwrap());
    assert!(ledger.claim_store_write(lease(id, "b", 62)).await.unwrap(), "the lease has ended");
    let progress = StoreProgress { users: 15, batches: 1, added: 10, removed: 0 };
    assert_lease_lost(ledger.record_store_progress(lease(id, "a", 63), progress).await);
    // A failure of another holder changes nothing, one of the holder releases the write.
    ledger.fail_store_write(lease(id, "a", 63), "late").await.unwrap();
    assert_eq!(ledger.newest_store_writes().await.unwrap()[0].error, None);
    ledger.fail_store_write(lease(id, "b", 63), "refused").await.unwrap();
    let failed = ledger.newest_store_writes().await.unwrap().remove(0);
    assert_eq!((failed.tries, failed.error.as_deref()), (1, Some("refused")));
    assert_eq!(failed.retry_at, Some(at(123)));
    assert!(!ledger.claim_store_write(lease(id, "a", 122)).await.unwrap(), "it waits");
    assert!(ledger.claim_store_write(lease(id, "a", 123)).await.unwrap());
    // A batch ends the series of failed tries.
    ledger.record_store_progress(lease(id, "a", 124), progress).await.unwrap();
    let row = ledger.newest_store_writes().await.unwrap().remove(0);
    assert_eq!((row.tries, row.error, row.retry_at), (0, None, None));
    // After the end of the only process nobody waits for its lease.
    ledger.expire_leases(at(125)).await.unwrap();
    assert!(ledger.claim_store_write(lease(id, "c", 125)).await.unwrap());
}

pub(super) async fn an_open_write_is_replaced(ledger: &dyn Ledger) {
    let first = begun(ledger, &new_write("buyers", Some(1), Some(2)), None).await;
    assert!(ledger.claim_store_write(lease(first, "a", 1)).await.unwrap());
    let second = begun(ledger, &new_write("buyers", None, Some(3)), Some(first)).await;
    let progress = StoreProgress { users: 15, batches: 1, added: 10, removed: 0 };
    assert_lease_lost(ledger.record_store_progress(lease(first, "a", 2), progress).await);
    let writes = ledger.store_writes(&"cache".parse().unwrap(), 9).await.unwrap();
    let states: Vec<_> = writes.iter().map(|row| (row.id, row.state)).collect();
    assert_eq!(states, [(second, StoreWriteState::Open), (first, StoreWriteState::Replaced)]);
    assert_eq!(ledger.store_writes(&"other".parse().unwrap(), 9).await.unwrap(), []);
    // The holder of the replaced write may still be sending a batch of it, until its lease ends.
    assert!(!ledger.claim_store_write(lease(second, "b", 60)).await.unwrap());
    assert!(ledger.claim_store_write(lease(second, "a", 60)).await.unwrap(), "the same holder");
    let third = begun(ledger, &new_write("buyers", None, Some(3)), Some(second)).await;
    assert!(!ledger.claim_store_write(lease(third, "b", 119)).await.unwrap());
    assert!(ledger.claim_store_write(lease(third, "b", 120)).await.unwrap(), "the lease has ended");
    // A write that is done delays nobody, and neither does one of another audience.
    let other = begun(ledger, &new_write("visitors", None, Some(1)), None).await;
    assert!(ledger.claim_store_write(lease(other, "c", 120)).await.unwrap());
    let none = StoreProgress { users: 0, batches: 0, added: 0, removed: 0 };
    ledger.record_store_progress(lease(third, "b", 121), none).await.unwrap();
    let fourth = begun(ledger, &new_write("buyers", Some(3), Some(4)), Some(third)).await;
    assert!(ledger.claim_store_write(lease(fourth, "c", 121)).await.unwrap());
}

pub(super) async fn checks_and_old_writes(ledger: &dyn Ledger) {
    let check = StoreCheck { at: at(9), sampled: 400, missing: 2, unexpected: 1 };
    let mut newest = None;
    for version in 1..=30 {
        let id = begun(ledger, &new_write("buyers", None, Some(version)), newest).await;
        // Nothing is recorded for a write that is not done.
        ledger.record_store_check(id, check).await.unwrap();
        assert!(ledger.claim_store_write(lease(id, "a", version)).await.unwrap());
        let none = StoreProgress { users: 0, batches: 0, added: 0, removed: 0 };
        ledger.record_store_progress(lease(id, "a", version), none).await.unwrap();
        assert_eq!(ledger.newest_store_writes().await.unwrap()[0].check, None);
        newest = Some(id);
    }
    ledger.record_store_check(newest.unwrap(), check).await.unwrap();
    let writes = ledger.store_writes(&"cache".parse().unwrap(), 100).await.unwrap();
    assert_eq!((writes.len(), writes[0].check, writes[1].check), (21, Some(check), None));
}
