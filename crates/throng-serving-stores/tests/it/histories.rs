//! What a store has after any history is what is published.

use throng_model::{Entropy as _, SplitMix64};
use throng_serving_stores::{BATCH_USERS, alert_subject};
use throng_store::{AlertKind, AlertLedger as _, StoreWriteLedger as _, StoreWriteState};

use crate::cut::Kill;
use crate::rig::{AUDIENCES, Place, Rig, audience};
use crate::setting;

const BATCH: u64 = BATCH_USERS as u64;

async fn rig(users: u64, database: u16, layout: &str) -> Rig {
    let url = setting("THRONG_REDIS");
    let rig = Rig::new(users, Place { url: &url, database, layout, more: "" }, None).await;
    rig.flush().await;
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differences_are_written_in_batches_with_receipts() {
    for (database, layout) in [(1, "by_user"), (2, "by_audience")] {
        let mut rig = rig(30_000, database, layout).await;
        rig.publish("buyers", 0..25_000).await;
        rig.settle().await;
        rig.assert_equal().await;
        let first = rig.newest("buyers").await;
        assert_eq!((first.users, first.added, first.removed), (Some(25_000), 25_000, 0));
        assert_eq!(
            (first.batches, first.write.from_version, first.write.rewrite),
            (3, None, false)
        );
        assert_eq!(first.check.map(|check| check.missing + check.unexpected), Some(0));

        // Only the difference is written.
        rig.publish("buyers", 1_000..26_000).await;
        rig.cut.set(None);
        rig.settle().await;
        rig.assert_equal().await;
        let second = rig.newest("buyers").await;
        assert_eq!((second.added, second.removed, second.batches), (1_000, 1_000, 1));
        assert_eq!((second.write.from_version, second.write.to_version), (Some(1), Some(2)));
        assert_eq!(rig.cut.requests(), 2);

        // The same members again, and nobody.
        rig.publish("buyers", 1_000..26_000).await;
        rig.settle().await;
        assert_eq!(
            (rig.newest("buyers").await.users, rig.newest("buyers").await.batches),
            (Some(0), 0)
        );
        rig.publish("buyers", []).await;
        rig.settle().await;
        rig.assert_equal().await;
        assert_eq!(rig.newest("buyers").await.removed, 25_000);
        let writes = rig.ledger.store_writes(&rig.store.name, 99).await.unwrap();
        assert!(writes.iter().all(|write| write.state == StoreWriteState::Done));
        assert_eq!(writes.len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_request_is_continued_by_the_next() {
    for (database, layout) in [(3, "by_user"), (4, "by_audience")] {
        let mut rig = rig(40_000, database, layout).await;
        let mut low = false;
        rig.publish("buyers", 0..12_000).await;
        rig.settle().await;
        for request in [0, 1, 5, 9, 10, 11, 19, 20, 23] {
            for after in [false, true] {
                // 24,000 users differ: 3 batches of 10, 10 and 4 requests.
                let members = if low { 0..12_000 } else { 12_000..24_000 };
                low = !low;
                rig.publish("buyers", members).await;
                rig.settle_killed(Kill { request, after }).await;
                let write = rig.newest("buyers").await;
                let place = format!("{layout}, request {request}, after: {after}");
                assert_eq!((write.users, write.batches), (Some(24_000), 3), "{place}");
                assert_eq!((write.added, write.removed), (12_000, 12_000), "{place}");
                // At most one batch was written twice.
                let again = rig.cut.requests();
                assert_eq!(again, 24 - request / 10 * 10, "{place}");
                rig.assert_equal().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrite_killed_in_the_middle_is_continued() {
    let mut rig = rig(25_000, 5, "by_user").await;
    rig.publish("buyers", 0..5_000).await;
    rig.settle().await;
    for request in [0, 9, 14, 24] {
        rig.rewrite("buyers").await;
        rig.settle_killed(Kill { request, after: true }).await;
        let write = rig.newest("buyers").await;
        assert_eq!((write.added, write.removed, write.batches), (5_000, 20_000, 3));
        assert_eq!(rig.cut.requests(), 25 - request / 10 * 10);
        rig.assert_equal().await;
    }
}

/// Publishes, rewrites, restarts and kills at random. Then the store has what is published.
pub(crate) async fn random_history(rig: &mut Rig, seed: u64) {
    let mut entropy = SplitMix64::new(seed);
    for _ in 0..60 {
        let name = AUDIENCES[entropy.below(3) as usize];
        let known = rig.model.contains_key(&audience(name));
        match entropy.below(8) {
            0 if known => rig.rewrite(name).await,
            1 => rig.restart().await,
            2 => {
                // Publishes come faster than writes.
                rig.cut.set(None);
                assert!(rig.pass().await);
            }
            _ => {
                let percent = entropy.below(101);
                let members: Vec<u64> =
                    (0..3_000).filter(|_| entropy.below(100) < percent).collect();
                rig.publish(name, members).await;
            }
        }
        let kill = Kill { request: entropy.below(6), after: entropy.below(2) == 1 };
        if entropy.below(3) == 0 {
            rig.settle_killed(kill).await;
            rig.assert_equal().await;
        }
    }
    rig.settle().await;
    rig.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_end_with_the_published_members() {
    for (seed, layout) in [(1, "by_user"), (2, "by_audience"), (3, "by_user")] {
        let mut rig = rig(3_000, 5 + seed as u16, layout).await;
        random_history(&mut rig, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lost_its_data_is_found_and_rewritten() {
    let mut rig = rig(2_000, 10, "by_user").await;
    rig.publish("buyers", 0..1_000).await;
    rig.settle().await;
    rig.flush().await;
    // Somebody else writes to the store.
    let mut server = rig.server().await;
    let stranger = format!("it:u:{:016x}", crate::rig::user(1_500).0);
    redis::cmd("SADD").arg(&stranger).arg("buyers").exec_async(&mut server).await.unwrap();
    let subject = alert_subject(&rig.store.name, &audience("buyers"));
    assert!(rig.pass().await);
    assert_eq!(rig.ledger.open_alert(AlertKind::CheckFailed, &subject).await.unwrap(), None);

    rig.clock.advance(std::time::Duration::from_secs(3_601));
    assert!(rig.pass().await);
    let check = rig.newest("buyers").await.check.unwrap();
    assert!(check.sampled > 100 && check.missing > 50, "{check:?}");
    let alert = rig.ledger.open_alert(AlertKind::CheckFailed, &subject).await.unwrap().unwrap();
    assert!(alert.contains("throng store rewrite cache --audience buyers"), "{alert}");

    rig.rewrite("buyers").await;
    rig.settle().await;
    rig.assert_equal().await;
    assert_eq!(rig.ledger.open_alert(AlertKind::CheckFailed, &subject).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_do_not_write_at_the_same_time() {
    let mut rig = rig(BATCH * 2, 11, "by_user").await;
    rig.publish("buyers", 0..BATCH * 2).await;
    assert!(rig.pass().await, "the write is begun");
    rig.cut.set(Some(Kill { request: 12, after: true }));
    assert!(!rig.pass().await);
    // The first process may still run: its lease counts.
    rig.cut.set(None);
    rig.deps.holder = "other".to_owned();
    assert!(rig.pass().await);
    assert_eq!((rig.cut.requests(), rig.newest("buyers").await.batches), (0, 1));
    rig.clock.advance(std::time::Duration::from_secs(31));
    rig.settle().await;
    assert_eq!(rig.cut.requests(), 10);
    rig.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_snapshot_leads_to_a_rewrite() {
    let mut rig = rig(2_000, 12, "by_audience").await;
    rig.publish("buyers", 0..1_000).await;
    rig.settle().await;
    rig.publish("buyers", 500..1_500).await;
    rig.ledger_delete("buyers", 1).await;
    rig.settle().await;
    let write = rig.newest("buyers").await;
    assert_eq!((write.write.rewrite, write.write.from_version), (true, None));
    rig.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audience_is_removed_by_its_last_write() {
    let mut rig = rig(2_000, 13, "by_user").await;
    rig.publish("buyers", 0..1_000).await;
    rig.publish("visitors", 500..1_500).await;
    rig.settle().await;
    // The spec has `visitors` only.
    rig.store.audiences = Some(vec![audience("visitors")]);
    let stores = vec![rig.store.clone()];
    rig.apply(|spec| spec.serving_stores = stores);
    assert!(rig.pass().await);
    rig.assert_equal().await;
    let newest = rig.newest("buyers").await;
    let write = throng_store::NewStoreWrite {
        from_version: newest.write.to_version,
        to_version: None,
        ..newest.write
    };
    rig.ledger
        .begin_store_write(&write, Some(newest.id), throng_model::Timestamp(0))
        .await
        .unwrap()
        .unwrap();
    assert!(rig.pass().await);
    rig.model.remove(&audience("buyers"));
    rig.assert_equal().await;
    assert_eq!(rig.newest("buyers").await.removed, 1_000);
    // It stays removed, although the audience serves a version.
    assert!(rig.pass().await);
    rig.assert_equal().await;
}
