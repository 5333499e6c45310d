//! Leases that another process takes, and specs that are applied, while a write runs: it stops before its next request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use throng_model::{Clock, ManualClock, Timestamp, UserHash};
use throng_serving_stores::{BATCH_USERS, Connector, alert_subject, run_leader};
use throng_spec::{ServingStore, StoreEngine};
use throng_store::{
    AlertKind, AlertLedger as _, NewAlert, NewStoreWrite, StoreLease, StoreWriteLedger as _,
    StoreWriteState,
};
use tokio_util::sync::CancellationToken;

use crate::faults::Refusing;
use crate::memory::{Memory, MemoryConnector};
use crate::rig::{Place, Rig, audience, user};

const LEASE: Duration = Duration::from_secs(30);

/// A deployment whose stores are in memory.
async fn rig(users: u64) -> (Rig, Arc<Memory>) {
    let place = Place { url: "redis://127.0.0.1:1", database: 0, layout: "by_user", more: "" };
    let mut rig = Rig::new(users, place, None).await;
    let memory = Arc::new(Memory::default());
    rig.deps.connector = Arc::new(MemoryConnector(Arc::clone(&memory))) as Arc<dyn Connector>;
    (rig, memory)
}

/// Another process claims the newest write of `buyers`.
async fn other_claims(rig: &Rig) -> bool {
    let (id, now) = (rig.newest("buyers").await.id, rig.clock.now());
    let lease = StoreLease { id, holder: "other", now, until: now.plus(LEASE) };
    rig.ledger.claim_store_write(lease).await.unwrap()
}

async fn is_open(rig: &Rig, kind: AlertKind, name: &str) -> bool {
    let subject = alert_subject(&rig.store.name, &audience(name));
    rig.ledger.open_alert(kind, &subject).await.unwrap().is_some()
}

async fn raise(rig: &Rig, kind: AlertKind, name: &str) {
    let subject = alert_subject(&rig.store.name, &audience(name));
    let alert = NewAlert { kind, subject, message: "failed".to_owned() };
    rig.ledger.raise_alert(&alert, rig.clock.now()).await.unwrap();
}

/// The rig's store with other settings, in the applied spec too.
fn change_store(rig: &Rig, change: impl FnOnce(&mut ServingStore)) -> ServingStore {
    let mut store = rig.store.clone();
    change(&mut store);
    let applied = store.clone();
    rig.apply(|spec| spec.serving_stores = vec![applied]);
    store
}

fn set_prefix(store: &mut ServingStore) {
    let StoreEngine::Redis(settings) = &mut store.engine else { panic!() };
    "moved:".clone_into(&mut settings.prefix);
}

fn users(range: std::ops::Range<u64>) -> BTreeSet<UserHash> {
    range.map(user).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_lease_another_process_took_stops_before_its_next_request() {
    let (mut rig, memory) = rig(5_000).await;
    rig.publish("buyers", 0..5_000).await;
    assert!(rig.pass().await, "the write is begun");
    memory.hold(2);
    let take_over = async {
        memory.reached().await;
        assert!(!other_claims(&rig).await, "the lease counts");
        rig.clock.advance(LEASE);
        assert!(other_claims(&rig).await, "the lease has ended");
        memory.release();
    };
    let (done, ()) = tokio::join!(rig.pass(), take_over);
    assert!(done);
    assert_eq!(memory.writes().len(), 3);
    let row = rig.newest("buyers").await;
    assert_eq!((row.state, row.batches, row.tries), (StoreWriteState::Open, 0, 0));
    // Nobody has to release the lease of a process that crashes.
    rig.clock.advance(LEASE);
    rig.settle().await;
    assert_eq!(memory.members(&rig.store.place(), &audience("buyers")), users(0..5_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_is_renewed_during_a_batch() {
    let (mut rig, memory) = rig(BATCH_USERS as u64).await;
    rig.publish("buyers", 0..BATCH_USERS as u64).await;
    assert!(rig.pass().await, "the write is begun");
    // A batch is ten requests, which take 100 seconds.
    memory.writes_take(&rig.clock, Duration::from_secs(10));
    memory.hold(8);
    let try_to_take_over = async {
        memory.reached().await;
        let is_taken = other_claims(&rig).await;
        memory.release();
        is_taken
    };
    let (done, is_taken) = tokio::join!(rig.pass(), try_to_take_over);
    assert!(done && !is_taken);
    let row = rig.newest("buyers").await;
    assert_eq!((row.state, row.batches), (StoreWriteState::Done, 1));
}

/// A clock that is advanced by more than a lease after it was read so often; never with 0.
#[derive(Debug)]
struct Jump {
    clock: Arc<ManualClock>,
    reads: AtomicU32,
}

impl Clock for Jump {
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        let left = self.reads.load(Ordering::SeqCst);
        self.reads.store(left.saturating_sub(1), Ordering::SeqCst);
        if left == 1 {
            self.clock.advance(LEASE * 2);
        }
        now
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_ends_while_it_is_renewed_is_renewed_again_before_the_next_request() {
    let (mut rig, memory) = rig(3_000).await;
    rig.publish("buyers", 0..3_000).await;
    assert!(rig.pass().await, "the write is begun");
    let jump = Arc::new(Jump { clock: Arc::clone(&rig.clock), reads: AtomicU32::new(0) });
    rig.deps.clock = Arc::clone(&jump) as Arc<dyn Clock>;
    memory.hold(0);
    let try_to_take_over = async {
        memory.reached().await;
        rig.clock.advance(LEASE / 2);
        // The lease is found to end, and the renewal has a time that has passed when the ledger answers.
        let before = rig.clock.now();
        jump.reads.store(2, Ordering::SeqCst);
        memory.hold(1);
        memory.release();
        memory.reached().await;
        assert_eq!(rig.clock.now(), before.plus(LEASE * 2), "the renewal took long");
        let is_taken = other_claims(&rig).await;
        memory.release();
        is_taken
    };
    let (done, is_taken) = tokio::join!(rig.pass(), try_to_take_over);
    assert!(done && !is_taken);
    assert_eq!(rig.newest("buyers").await.state, StoreWriteState::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_waits_no_longer_for_a_lease_if_the_clock_steps_back() {
    let (mut rig, memory) = rig(5_000).await;
    rig.publish("buyers", 0..5_000).await;
    assert!(rig.pass().await, "the write is begun");
    memory.hold(1);
    let step_back = async {
        memory.reached().await;
        rig.clock.step(rig.clock.now().minus(Duration::from_secs(3_600)));
        memory.hold(2);
        memory.release();
        memory.reached().await;
        rig.apply(|spec| spec.serving_stores.clear());
        memory.release();
    };
    let (done, ()) = tokio::join!(rig.pass(), step_back);
    assert!(done);
    assert_eq!(memory.writes().len(), 3);
    assert!(!other_claims(&rig).await, "the lease counts");
    rig.clock.advance(LEASE);
    assert!(other_claims(&rig).await, "the lease has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_more_is_written_to_a_store_that_leaves_the_spec() {
    let (mut rig, memory) = rig(5_000).await;
    rig.publish("buyers", 0..5_000).await;
    rig.publish("visitors", 0..5_000).await;
    assert!(rig.pass().await, "the writes are begun");
    memory.hold(3);
    let remove = async {
        memory.reached().await;
        rig.apply(|spec| spec.serving_stores.clear());
        memory.release();
    };
    let (done, ()) = tokio::join!(rig.pass(), remove);
    assert!(done && rig.pass().await);
    assert_eq!(memory.writes().len(), 4);
    for name in ["buyers", "visitors"] {
        assert_eq!(rig.newest(name).await.state, StoreWriteState::Open);
        assert!(!is_open(&rig, AlertKind::TaskFailed, name).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_audiences_are_written_again_to_another_place() {
    let (mut rig, memory) = rig(5_000).await;
    rig.publish("buyers", 0..4_000).await;
    rig.publish("visitors", 1_000..5_000).await;
    let first_place = rig.store.place();
    assert!(rig.pass().await, "the writes are begun");
    memory.hold(2);
    let change = async {
        memory.reached().await;
        let store = change_store(&rig, set_prefix);
        memory.release();
        store
    };
    let (done, store) = tokio::join!(rig.pass(), change);
    assert!(done);
    assert_eq!(memory.writes().len(), 3);
    rig.store = store;
    rig.settle().await;
    for (name, expected) in [("buyers", users(0..4_000)), ("visitors", users(1_000..5_000))] {
        let write = rig.newest(name).await.write;
        assert_eq!((write.rewrite, &write.place), (true, &rig.store.place()));
        assert_eq!(memory.members(&rig.store.place(), &audience(name)), expected);
        // What the earlier place has got stays there.
        assert!(memory.members(&first_place, &audience(name)).len() <= 3_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_who_left_while_a_store_was_renamed_do_not_stay_in_it() {
    let (mut rig, memory) = rig(1_000).await;
    rig.publish("buyers", 0..600).await;
    rig.settle().await;
    rig.publish("buyers", 100..700).await;
    rig.store = change_store(&rig, |store| store.name = "renamed".parse().unwrap());
    assert!(rig.pass().await, "the write is begun");
    assert!(rig.pass().await, "and carried out");
    assert_eq!(memory.members(&rig.store.place(), &audience("buyers")), users(100..700));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_rate_counts_from_the_next_request_on_also_for_checks() {
    let (mut rig, memory) = rig(5_000).await;
    rig.publish("buyers", 0..3_000).await;
    assert!(rig.pass().await, "the write is begun");
    memory.hold(1);
    let change = async {
        memory.reached().await;
        let store = change_store(&rig, |store| store.max_writes_per_second = 100);
        memory.release();
        store
    };
    let (done, store) = tokio::join!(rig.pass(), change);
    assert!(done);
    rig.store = store;
    rig.settle().await;
    // The batch is written again from its start: no batch is recorded.
    let writes = memory.writes();
    assert_eq!(writes[..2], [1_000; 2]);
    assert_eq!(writes[2..], [100; 30]);
    let questions = memory.questions();
    assert!(!questions.is_empty() && questions.iter().all(|users| *users <= 100), "{questions:?}");
    assert!(!rig.newest("buyers").await.write.rewrite);
}

/// Waits until alerts about an audience are resolved.
async fn resolved(rig: &Rig, name: &str) {
    for kind in [AlertKind::TaskFailed, AlertKind::CheckFailed] {
        while is_open(rig, kind, name).await {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_about_what_leaves_the_spec_are_resolved() {
    let (mut rig, _) = rig(100).await;
    // No write is done, so that none resolves an alert.
    rig.deps.connector = Arc::new(Refusing::default()) as Arc<dyn Connector>;
    for name in ["buyers", "visitors", "winners"] {
        rig.publish(name, 0..50).await;
    }
    assert!(rig.pass().await, "the writes are begun");
    for name in ["buyers", "visitors", "winners"] {
        raise(&rig, AlertKind::TaskFailed, name).await;
        raise(&rig, AlertKind::CheckFailed, name).await;
    }
    // The audience `winners` is being removed from the store.
    let newest = rig.newest("winners").await;
    let removal = NewStoreWrite { to_version: None, rewrite: true, ..newest.write };
    let begun = rig.ledger.begin_store_write(&removal, Some(newest.id), Timestamp(0)).await;
    assert!(begun.unwrap().is_some());
    rig.apply(|spec| spec.audiences.retain(|of| of.name.as_str() == "visitors"));

    let stop = CancellationToken::new();
    let test = async {
        resolved(&rig, "buyers").await;
        while is_open(&rig, AlertKind::CheckFailed, "winners").await {
            tokio::task::yield_now().await;
        }
        assert!(is_open(&rig, AlertKind::TaskFailed, "winners").await, "the removal is not done");
        for kind in [AlertKind::TaskFailed, AlertKind::CheckFailed] {
            assert!(is_open(&rig, kind, "visitors").await, "it is in the spec");
        }
        // The spec has no store.
        rig.apply(|spec| spec.serving_stores.clear());
        resolved(&rig, "visitors").await;
        resolved(&rig, "winners").await;
        stop.cancel();
    };
    let both = async { tokio::join!(run_leader(rig.deps.clone(), stop.clone()), test) };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("the alerts stay open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_write_of_an_audience_that_leaves_the_spec_stops_until_it_is_back() {
    let (mut rig, memory) = rig(5_000).await;
    rig.publish("buyers", 0..5_000).await;
    assert!(rig.pass().await, "the write is begun");
    let applied = rig.deps.spec.load_full();
    memory.hold(1);
    let remove = async {
        memory.reached().await;
        rig.apply(|spec| spec.audiences.retain(|of| of.name.as_str() != "buyers"));
        memory.release();
    };
    let (done, ()) = tokio::join!(rig.pass(), remove);
    assert!(done && rig.pass().await);
    assert_eq!(memory.writes().len(), 2);
    assert_eq!(rig.newest("buyers").await.state, StoreWriteState::Open);
    rig.deps.spec.store(applied);
    rig.settle().await;
    assert_eq!(memory.members(&rig.store.place(), &audience("buyers")), users(0..5_000));
}
