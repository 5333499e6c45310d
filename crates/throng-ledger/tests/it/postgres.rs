//! The PostgreSQL backend: the suite of all backends, and cases of several processes.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use sqlx::{ConnectOptions, Connection, PgConnection};
use throng_ledger::PostgresLedger;
use throng_model::{AudienceName, Secret, StorageProblem, Timestamp};
use throng_sql::{Migration, PostgresBackend};
use throng_store::conformance::{Backend, suite};
use throng_store::{AlertKind, Ledger, LedgerError, NewAlert, RefreshTrigger};
use throng_store::{
    AlertLedger as _, AudienceLedger as _, MaintenanceLedger as _, SpecLedger as _,
};

/// How long a test waits for a condition, on a machine that is busy with other work.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// A server to create databases on; `cargo xtask test` starts it. `None`: the test is skipped.
fn server() -> Option<String> {
    let url = std::env::var("THRONG_POSTGRES").ok();
    if url.is_none() {
        let message = "PostgreSQL is not provided (THRONG_POSTGRES): run `cargo xtask test`";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("skipped: {message}");
    }
    url
}

/// Databases of one test on a server.
struct Databases {
    server: String,
    prefix: String,
}

impl Databases {
    fn new(server: String, test: &str) -> Self {
        Self { server, prefix: format!("{test}_{}", std::process::id()) }
    }

    fn url(&self, name: &str) -> String {
        format!("{}/{}_{name}", self.server, self.prefix)
    }

    async fn raw(&self, name: &str) -> PgConnection {
        let options: sqlx::postgres::PgConnectOptions = self.url(name).parse().unwrap();
        options.connect().await.unwrap()
    }

    async fn create(&self, name: &str) {
        let options: sqlx::postgres::PgConnectOptions =
            format!("{}/postgres", self.server).parse().unwrap();
        let mut connection = options.connect().await.unwrap();
        let create = format!("CREATE DATABASE {}_{name}", self.prefix);
        // It may exist: a case opens it again.
        let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut connection).await;
        connection.close().await.unwrap();
    }

    async fn ledger(&self, name: &str) -> PostgresLedger {
        self.create(name).await;
        PostgresLedger::open(&Secret::new(self.url(name)), 6).await.unwrap()
    }
}

#[async_trait]
impl Backend for Databases {
    async fn open(&self, name: &str) -> Arc<dyn Ledger> {
        Arc::new(self.ledger(name).await)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_passes_the_suite() {
    let Some(server) = server() else { return };
    suite(&Databases::new(server, "suite")).await;
}

#[tokio::test]
async fn a_ledger_of_a_newer_version_is_refused_and_left_alone() {
    let Some(server) = server() else { return };
    let databases = Databases::new(server, "newer");
    drop(databases.ledger("ledger").await);
    let mut connection = databases.raw("ledger").await;
    sqlx::query("UPDATE ledger_schema SET version = 99").execute(&mut connection).await.unwrap();
    let refused = PostgresLedger::open(&Secret::new(databases.url("ledger")), 2).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Unreadable { .. }));
    assert!(refused.to_string().contains("newer version of throng"), "{refused}");
    let version: i64 = sqlx::query_scalar("SELECT version FROM ledger_schema")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(version, 99);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_can_open_a_new_ledger_concurrently() {
    let Some(server) = server() else { return };
    let databases = Databases::new(server, "together");
    databases.create("ledger").await;
    let url = Secret::new(databases.url("ledger"));
    let opened = futures::future::join_all((0..4).map(|_| PostgresLedger::open(&url, 2))).await;
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
}

const SEQUENCE: Migration = (1, "CREATE SEQUENCE tries");
/// PostgreSQL does not roll back sequences: the third try succeeds.
const DEADLOCKED: Migration = (
    2,
    "CREATE TABLE made (id BIGINT);
     DO $$ BEGIN
        IF nextval('tries') < 3 THEN
            RAISE EXCEPTION USING ERRCODE = 'deadlock_detected', MESSAGE = 'deadlock detected';
        END IF;
     END $$",
);

#[tokio::test]
async fn a_migration_that_loses_a_deadlock_is_tried_again() {
    let Some(server) = server() else { return };
    let databases = Databases::new(server, "deadlocked");
    databases.create("ledger").await;
    let url = Secret::new(databases.url("ledger"));
    drop(PostgresBackend::open(&url, 2, &[SEQUENCE]).await.unwrap());
    drop(PostgresBackend::open(&url, 2, &[SEQUENCE, DEADLOCKED]).await.unwrap());
    let mut connection = databases.raw("ledger").await;
    let (version, tries, rows): (i64, i64, i64) = sqlx::query_as(
        "SELECT version, (SELECT last_value FROM tries), (SELECT count(*) FROM made)
         FROM ledger_schema",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!((version, tries, rows), (2, 3, 0));
}

/// Polls a future `polls` times and drops it.
async fn cancel_after<F: Future>(future: F, polls: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// A connection that returned to the pool inside a transaction would show the next caller an old
/// state of the ledger, and its writes would not be committed.
#[tokio::test]
async fn a_call_that_is_cancelled_anywhere_does_not_affect_later_calls() {
    if server().is_none() {
        return;
    }
    // Through the proxy, so that every answer takes long enough to be waited for.
    let server = std::env::var("THRONG_POSTGRES_PROXIED").unwrap();
    let databases = Databases::new(server, "cut");
    databases.create("ledger").await;
    let ledger = PostgresLedger::open(&Secret::new(databases.url("ledger")), 2).await.unwrap();
    let mut raw = databases.raw("ledger").await;
    let (now, until) = (Timestamp(1), Timestamp(1_000));
    let trigger = RefreshTrigger::Manual;
    let mut ended = false;
    for polls in 0.. {
        let pair = [0, 1].map(|n| AudienceName::new(format!("later-{polls}-{n}")).unwrap());
        for audience in &pair {
            ledger.schedule_refresh(audience, trigger, now).await.unwrap();
        }
        let cancelled = AudienceName::new(format!("cancelled-{polls}")).unwrap();
        let call = ledger.schedule_refresh(&cancelled, trigger, now);
        ended = cancel_after(call, polls).await.is_some();
        // Both of the pool's connections are used.
        let [one, two] = &pair;
        let claims = tokio::join!(
            ledger.claim_refresh_of(one, "a", now, until),
            ledger.claim_refresh_of(two, "b", now, until),
        );
        assert!(matches!(claims, (Ok(Some(_)), Ok(Some(_)))), "after {polls} polls: {claims:?}");
        let seen: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM refreshes WHERE state = 'processing' AND audience LIKE $1",
        )
        .bind(format!("later-{polls}-%"))
        .fetch_one(&mut raw)
        .await
        .unwrap();
        assert_eq!(seen, 2, "claims after a call that was cancelled at poll {polls} are committed");
        if ended {
            break;
        }
    }
    assert!(ended, "the last one was not cancelled");
}

#[tokio::test]
async fn an_unreachable_server_is_an_error_without_the_password() {
    for url in ["postgres://u:hunter2@127.0.0.1:9/x", "hunter2"] {
        let error = PostgresLedger::open(&Secret::new(url), 2).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_at_a_time_is_the_leader() {
    let Some(server) = server() else { return };
    let databases = Databases::new(server, "lead");
    let (one, two) = (databases.ledger("ledger").await, databases.ledger("ledger").await);
    assert!(one.acquire_leadership().await.unwrap());
    assert!(!two.acquire_leadership().await.unwrap());
    assert!(one.acquire_leadership().await.unwrap() && !two.acquire_leadership().await.unwrap());
    // The leader's session ends, as when its process is killed.
    let mut admin = databases.raw("ledger").await;
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_locks
         WHERE locktype = 'advisory' AND database =
            (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    let is_leader =
        async |ledger: &PostgresLedger| ledger.acquire_leadership().await.unwrap_or(false);
    let waiting = async {
        while !is_leader(&two).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, waiting).await.unwrap();
    assert!(!is_leader(&one).await, "a process that lost its session is no longer the leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_leader_loses_the_leadership() {
    let Some(server) = server() else { return };
    let databases = Databases::new(server, "silent");
    let (one, two) = (databases.ledger("ledger").await, databases.ledger("ledger").await);
    assert!(one.acquire_leadership().await.unwrap());
    let mut admin = databases.raw("ledger").await;
    let sessions: Vec<i64> = sqlx::query_scalar(
        "SELECT l.pid::BIGINT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    assert_eq!(sessions.len(), 1, "one session has the lock");
    // The first process makes no further call: for the server it is as if it were paused.
    let waiting = async {
        while !two.acquire_leadership().await.unwrap() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, waiting).await.unwrap();
    assert!(!one.acquire_leadership().await.unwrap_or(false));
}

/// Forty calls, six connections, and a table that another session locks for a while: the calls
/// wait, and all of them succeed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_wait_when_all_connections_are_taken() {
    let Some(server) = server() else { return };
    let databases = Databases::new(server, "pool");
    let ledger = Arc::new(databases.ledger("ledger").await);
    let (mut owner, mut admin) = (databases.raw("ledger").await, databases.raw("ledger").await);
    for statement in ["BEGIN", "LOCK TABLE alerts IN ACCESS EXCLUSIVE MODE"] {
        sqlx::query(statement).execute(&mut owner).await.unwrap();
    }
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..40 {
        let ledger = Arc::clone(&ledger);
        let subject = format!("sync-{number}");
        let alert = NewAlert { kind: AlertKind::TaskFailed, subject, message: "x".into() };
        calls.spawn(async move { ledger.raise_alert(&alert, Timestamp(number)).await });
    }
    let mut waiting = async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        waiting
    };
    while waiting().await < 6 {
        tokio::task::yield_now().await;
    }
    assert!(calls.try_join_next().is_none(), "no call passed the lock");
    sqlx::query("COMMIT").execute(&mut owner).await.unwrap();
    let mut raised = std::collections::BTreeSet::new();
    while let Some(call) = calls.join_next().await {
        raised.insert(call.unwrap().unwrap());
    }
    assert_eq!(raised.len(), 40);
    assert_eq!(ledger.alerts(100).await.unwrap().len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_privileges_of_a_user_are_reported() {
    let Some(server) = server() else { return };
    let databases = Databases::new(server, "rights");
    databases.create("there").await;
    let mut admin = databases.raw("there").await;
    let role = format!("reader_{}", std::process::id());
    let create = format!("CREATE ROLE {role} LOGIN");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut admin).await.unwrap();
    for name in ["there", "missing"] {
        let url = databases.url(name);
        let status = PostgresLedger::inspect(&Secret::new(url.clone())).await.unwrap();
        assert!(status.may_create, "{name}");
        let url = url.replacen("://throng@", &format!("://{role}@"), 1);
        let status = PostgresLedger::inspect(&Secret::new(url)).await.unwrap();
        assert!(!status.may_create, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_database_is_created() {
    let Some(server) = server() else { return };
    let databases = Databases::new(server, "created");
    let url = Secret::new(databases.url("new"));
    let opened = futures::future::join_all((0..3).map(|_| PostgresLedger::open(&url, 2))).await;
    for ledger in opened {
        assert!(ledger.unwrap().applied_spec().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_a_lost_connection() {
    // There is no server on port 1.
    let url = Secret::new("postgres://throng@127.0.0.1:1/throng".to_owned());
    let error = PostgresLedger::open(&url, 2).await.unwrap_err();
    assert_eq!(error.problem(), Some(StorageProblem::ConnectionLost), "{error:?}");
}

/// The next call succeeds as soon as the server works again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn problems_of_the_server_have_a_class_and_are_temporary() {
    let Some(server) = server() else { return };
    let databases = Databases::new(server, "problems");
    let ledger = databases.ledger("ledger").await;
    let mut raw = databases.raw("ledger").await;
    let mut run = async |statements: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut raw).await.unwrap();
    };
    let name = format!("{}_ledger", databases.prefix);
    let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";

    // A full disk, as the server reports it.
    run("CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$;
         CREATE TRIGGER no_room BEFORE INSERT OR UPDATE ON write_probe FOR EACH ROW EXECUTE FUNCTION no_room()"
        .to_owned())
    .await;
    for _ in 0..3 {
        let error = ledger.probe().await.unwrap_err();
        assert_eq!(error.problem(), Some(StorageProblem::DiskFull), "{error:?}");
    }
    run("DROP TRIGGER no_room ON write_probe".to_owned()).await;
    ledger.probe().await.unwrap();

    // A replica, or a server that was made read-only.
    run(format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    run(end_sessions.to_owned()).await;
    let error = ledger.probe().await.unwrap_err();
    assert_eq!(error.problem(), Some(StorageProblem::ReadOnly), "{error:?}");
    ledger.applied_version().await.unwrap();
    run(format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
    run(end_sessions.to_owned()).await;
    ledger.probe().await.unwrap();
    ledger.close().await.unwrap();
    let error = ledger.probe().await.unwrap_err();
    assert_eq!(error.problem(), Some(StorageProblem::ConnectionLost), "{error:?}");
}
