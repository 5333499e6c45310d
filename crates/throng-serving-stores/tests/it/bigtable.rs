//! Stores in the Bigtable emulator: each user is written once, whatever happens to the processes that write.

use std::sync::Arc;
use std::time::Duration;

use throng_model::SystemClock;
use throng_serving_stores::{StoreConnector, StoreError, alert_subject, try_store};
use throng_spec::StoreEngine;
use throng_store::{AlertKind, AlertLedger as _};

use crate::cut::Kill;
use crate::faults::{fails, recovers};
use crate::histories::random_history;
use crate::rig::{Rig, audience, user};
use crate::setting;
use crate::table::Table;

/// The fields of a store; each test has a table of its own.
fn fields(table: &str) -> String {
    let url = setting("THRONG_BIGTABLE");
    format!(
        "type: bigtable, project: it, instance: it, table: {table}, family: f, app_profile: batch, \
         endpoint: \"{url}\""
    )
}

async fn rig(users: u64, table: &str) -> Rig {
    let rig = Rig::of(users, &fields(table), None).await;
    rig.flush().await;
    rig
}

async fn table_of(rig: &Rig) -> Table {
    let StoreEngine::Bigtable(settings) = &rig.store.engine else { panic!() };
    Table::open(settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differences_are_written_in_batches_of_ten_thousand() {
    let mut rig = rig(30_000, "differences").await;
    rig.cut.set(None);
    rig.publish("buyers", 0..25_000).await;
    rig.publish("visitors", 20_000..30_000).await;
    rig.settle().await;
    rig.assert_equal().await;
    let first = rig.newest("buyers").await;
    assert_eq!((first.users, first.added, first.removed), (Some(25_000), 25_000, 0));
    assert_eq!((first.batches, rig.newest("visitors").await.batches), (3, 1));
    // A batch is one request.
    assert_eq!(rig.cut.requests(), 4);
    let check = first.check.unwrap();
    assert_eq!(check.missing + check.unexpected, 0);
    assert!(check.sampled > 100, "{check:?}");

    // Only the difference is written; a member who stays has the same cell.
    rig.publish("buyers", 1_000..26_000).await;
    rig.cut.set(None);
    rig.settle().await;
    rig.assert_equal().await;
    let second = rig.newest("buyers").await;
    assert_eq!((second.added, second.removed, second.batches), (1_000, 1_000, 1));
    assert_eq!(rig.cut.requests(), 1);

    rig.rewrite("buyers").await;
    rig.settle().await;
    rig.assert_equal().await;
    let third = rig.newest("buyers").await;
    assert_eq!((third.added, third.removed, third.batches), (25_000, 5_000, 3));
    rig.publish("buyers", []).await;
    rig.settle().await;
    rig.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_batch_is_continued_by_the_next() {
    let mut rig = rig(40_000, "killed").await;
    let mut low = false;
    rig.publish("buyers", 0..12_000).await;
    rig.settle().await;
    for request in [0, 1, 2] {
        for after in [false, true] {
            // 24,000 users differ: 3 batches.
            let members = if low { 0..12_000 } else { 12_000..24_000 };
            low = !low;
            rig.publish("buyers", members).await;
            rig.settle_killed(Kill { request, after }).await;
            let write = rig.newest("buyers").await;
            let place = format!("request {request}, after: {after}");
            assert_eq!((write.users, write.batches), (Some(24_000), 3), "{place}");
            assert_eq!((write.added, write.removed), (12_000, 12_000), "{place}");
            // At most one batch was written twice.
            assert_eq!(rig.cut.requests(), 3 - request, "{place}");
            rig.assert_equal().await;
        }
    }
    for request in [0, 1, 2, 3] {
        // 40,000 users are known.
        rig.rewrite("buyers").await;
        rig.settle_killed(Kill { request, after: true }).await;
        let write = rig.newest("buyers").await;
        assert_eq!((write.added, write.removed, write.batches), (12_000, 28_000, 4));
        assert_eq!(rig.cut.requests(), 4 - request);
        rig.assert_equal().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_history_ends_with_the_published_members() {
    for seed in [11, 12] {
        let mut rig = rig(3_000, &format!("history{seed}")).await;
        random_history(&mut rig, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_lost_its_rows_is_found_and_rewritten() {
    let mut rig = rig(2_000, "lost").await;
    rig.publish("buyers", 0..1_000).await;
    rig.settle().await;
    rig.flush().await;
    // Somebody else writes to the table.
    let strangers = [format!("{:016x}", user(1_500).0), format!("{:016x}", user(1_501).0)];
    for stranger in &strangers {
        table_of(&rig).await.set(stranger, "buyers").await;
    }
    rig.clock.advance(Duration::from_secs(3_601));
    assert!(rig.pass().await);
    let check = rig.newest("buyers").await.check.unwrap();
    assert!(check.sampled > 100 && check.missing > 50, "{check:?}");
    let subject = alert_subject(&rig.store.name, &audience("buyers"));
    let alert = rig.ledger.open_alert(AlertKind::CheckFailed, &subject).await.unwrap().unwrap();
    assert!(alert.contains("throng store rewrite cache --audience buyers"), "{alert}");
    rig.rewrite("buyers").await;
    rig.settle().await;
    rig.assert_equal().await;
    assert_eq!(rig.ledger.open_alert(AlertKind::CheckFailed, &subject).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_table_and_a_server_that_does_not_run_are_reported() {
    // The emulator may have it from an earlier run.
    let name = format!("missing{}", std::process::id());
    let mut rig = Rig::of(100, &fields(&name), None).await;
    rig.publish("buyers", 0..50).await;
    fails(&mut rig, "no such table").await;
    table_of(&rig).await.create().await;
    recovers(&mut rig).await;

    let nowhere = "type: bigtable, project: it, instance: it, table: t, \
                   endpoint: \"http://127.0.0.1:1\"";
    let mut rig = Rig::of(100, nowhere, None).await;
    rig.publish("buyers", 0..50).await;
    fails(&mut rig, "cannot be reached").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_of_a_table_reads_and_finds_that_it_is_missing() {
    let name = format!("checked{}", std::process::id());
    let rig = Rig::of(100, &fields(&name), None).await;
    let connector = StoreConnector::new(Arc::new(|_: &str| None::<String>), Arc::new(SystemClock));
    let missing = try_store(&connector, &rig.store).await;
    assert!(matches!(missing, Err(StoreError::NoTable)), "{missing:?}");
    table_of(&rig).await.create().await;
    try_store(&connector, &rig.store).await.unwrap();
    assert!(rig.contents().await.is_empty(), "it writes nothing");
}
