//! Servers that cannot be reached or refuse: each is reported, and the write is done once it works again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::Cmd;
use throng_model::{Clock as _, SystemClock};
use throng_serving_stores::{
    Connector, MemberStore, StoreConnector, StoreError, alert_subject, try_store,
};
use throng_spec::ServingStore;
use throng_store::{AlertKind, AlertLedger as _, StoreLease, StoreProgress, StoreWriteLedger as _};

use crate::rig::{Place, Rig, audience};
use crate::setting;

/// Lets the next try of the failed write become due.
fn wait_for_retry(rig: &Rig) {
    rig.clock.advance(Duration::from_secs(900));
}

/// Three tries fail with this text, the third one raises an alert.
pub(crate) async fn fails(rig: &mut Rig, expected: &str) {
    assert!(rig.pass().await, "the write is begun");
    let subject = alert_subject(&rig.store.name, &audience("buyers"));
    for tries in 1..=3 {
        assert_eq!(rig.ledger.open_alert(AlertKind::TaskFailed, &subject).await.unwrap(), None);
        assert!(rig.pass().await);
        let row = rig.newest("buyers").await;
        let error = row.error.unwrap_or_default();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("wrong-password"), "{error}");
        assert_eq!((row.tries, row.retry_at.is_some(), row.batches), (tries, true, 0));
        // Not before its time.
        assert!(rig.pass().await);
        assert_eq!(rig.newest("buyers").await.tries, tries);
        wait_for_retry(rig);
    }
    let alert = rig.ledger.open_alert(AlertKind::TaskFailed, &subject).await.unwrap();
    assert!(alert.is_some_and(|message| message.contains(expected)));
}

/// The write is done, and the alert is resolved.
pub(crate) async fn recovers(rig: &mut Rig) {
    wait_for_retry(rig);
    rig.settle().await;
    rig.assert_equal().await;
    let subject = alert_subject(&rig.store.name, &audience("buyers"));
    assert_eq!(rig.ledger.open_alert(AlertKind::TaskFailed, &subject).await.unwrap(), None);
}

fn command(parts: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    for part in parts {
        command.arg(*part);
    }
    command
}

async fn send(rig: &Rig, parts: &[&str]) {
    let mut server = rig.server().await;
    command(parts).exec_async(&mut server).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_run_is_reported() {
    let place = Place { url: "redis://127.0.0.1:1", database: 0, layout: "by_user", more: "" };
    let mut rig = Rig::new(100, place, None).await;
    rig.publish("buyers", 0..50).await;
    fails(&mut rig, "cannot be reached").await;
}

/// Refuses all connections, and counts them.
#[derive(Default)]
pub(crate) struct Refusing(AtomicU64);

#[async_trait]
impl Connector for Refusing {
    async fn connect(&self, _: &ServingStore) -> Result<Box<dyn MemberStore>, StoreError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(StoreError::Unreachable("refused".to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_checked_is_tried_again_after_a_backoff() {
    let place = Place { url: "redis://127.0.0.1:1", database: 0, layout: "by_user", more: "" };
    let mut rig = Rig::new(100, place, None).await;
    let connector = Arc::new(Refusing::default());
    rig.deps.connector = Arc::clone(&connector) as Arc<dyn Connector>;
    // Two audiences that are written, and not checked yet.
    for name in ["buyers", "visitors"] {
        rig.publish(name, 0..50).await;
        rig.rewrite(name).await;
        let (id, now) = (rig.newest(name).await.id, rig.clock.now());
        let until = now.plus(Duration::from_secs(60));
        let lease = StoreLease { id, holder: "process-0", now, until };
        assert!(rig.ledger.claim_store_write(lease).await.unwrap());
        let written = StoreProgress { users: 0, batches: 0, added: 0, removed: 0 };
        rig.ledger.record_store_progress(lease, written).await.unwrap();
    }
    // The first delay is about 5 seconds, the second about 10.
    for (seconds, expected) in [(0, 1), (0, 1), (7, 2), (7, 2), (7, 3)] {
        rig.clock.advance(Duration::from_secs(seconds));
        assert!(rig.pass().await);
        assert_eq!(connector.0.load(Ordering::Relaxed), expected);
    }
    let subject = alert_subject(&rig.store.name, &audience("buyers"));
    let alert = rig.ledger.open_alert(AlertKind::TaskFailed, &subject).await.unwrap();
    assert!(alert.is_some_and(|message| message.starts_with("it cannot be checked")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_reported() {
    let url = setting("THRONG_REDIS");
    let more = ", username: throng-it, password: env:PASSWORD";
    let place = || Place { url: &url, database: 20, layout: "by_user", more };
    let mut rig = Rig::new(100, place(), Some("wrong-password")).await;
    rig.flush().await;
    // The least rights that the documentation names.
    let rights = ["~it:*", "+sadd", "+srem", "+sismember", "+select"];
    let user = ["ACL", "SETUSER", "throng-it", "reset", "on", ">right-password"];
    send(&rig, &[&user[..], &rights[..]].concat()).await;
    rig.publish("buyers", 0..50).await;
    fails(&mut rig, "refuses the user or the password").await;
    let check = async |password: &'static str| {
        let secrets = Arc::new(move |_: &str| Some(password.to_owned()));
        try_store(&StoreConnector::new(secrets, Arc::new(SystemClock)), &rig.store).await
    };
    let refused = check("wrong-password").await;
    assert!(matches!(refused, Err(StoreError::AccessDenied(_))), "{refused:?}");
    check("right-password").await.unwrap();

    let mut rig = Rig::new(100, place(), Some("right-password")).await;
    rig.publish("buyers", 0..50).await;
    recovers(&mut rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_type_concerns_its_audience_only() {
    let url = setting("THRONG_REDIS");
    let place = Place { url: &url, database: 21, layout: "by_audience", more: "" };
    let mut rig = Rig::new(100, place, None).await;
    rig.flush().await;
    send(&rig, &["SET", "it:a:buyers", "1"]).await;
    rig.publish("buyers", 0..50).await;
    rig.publish("visitors", 0..20).await;
    fails(&mut rig, "not a set").await;
    assert_eq!(rig.newest("visitors").await.added, 20);
    send(&rig, &["DEL", "it:a:buyers"]).await;
    recovers(&mut rig).await;
}

/// One test, because it changes the whole server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_and_a_replica_are_reported() {
    let url = setting("THRONG_REDIS_FAULTS");
    let place = || Place { url: &url, database: 1, layout: "by_user", more: "" };
    let mut rig = Rig::new(100, place(), None).await;
    rig.flush().await;
    rig.publish("buyers", 0..50).await;
    send(&rig, &["CONFIG", "SET", "maxmemory", "1"]).await;
    fails(&mut rig, "no memory left").await;
    send(&rig, &["CONFIG", "SET", "maxmemory", "0"]).await;
    recovers(&mut rig).await;

    let mut rig = Rig::new(100, place(), None).await;
    rig.flush().await;
    rig.publish("buyers", 0..50).await;
    // Of a server that does not run, so that nothing is copied.
    send(&rig, &["REPLICAOF", "127.0.0.1", "1"]).await;
    fails(&mut rig, "read-only replica").await;
    send(&rig, &["REPLICAOF", "NO", "ONE"]).await;
    recovers(&mut rig).await;
}
