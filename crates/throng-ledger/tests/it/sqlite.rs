//! The SQLite backend: the suite of all backends, and cases of its file.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;
use throng_ledger::SqliteLedger;
use throng_model::{SyncMode, Timestamp};
use throng_store::conformance::{Backend, suite};
use throng_store::{
    Hold, HoldCause, Ledger, LedgerError, NewRun, Operation, ReasonCounts, RunState,
};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.db"))
    }
}

#[async_trait]
impl Backend for Folder {
    async fn open(&self, name: &str) -> Arc<dyn Ledger> {
        Arc::new(SqliteLedger::open(&self.file(name)).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_passes_the_suite() {
    suite(&Folder::new()).await;
}

async fn raw(folder: &Folder, name: &str) -> sqlx::SqliteConnection {
    use sqlx::ConnectOptions;
    sqlx::sqlite::SqliteConnectOptions::new().filename(folder.file(name)).connect().await.unwrap()
}

#[tokio::test]
async fn a_ledger_of_a_newer_version_is_refused_and_left_alone() {
    let folder = Folder::new();
    drop(folder.open("ledger").await);
    let mut connection = raw(&folder, "ledger").await;
    sqlx::query("UPDATE ledger_schema SET version = 99").execute(&mut connection).await.unwrap();
    let refused = SqliteLedger::open(&folder.file("ledger")).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Unreadable { .. }));
    let shown = refused.to_string();
    assert!(shown.contains("newer version of throng") && shown.contains("99"), "{shown}");
    let version: i64 = sqlx::query_scalar("SELECT version FROM ledger_schema")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(version, 99);
}

#[tokio::test]
async fn a_file_that_is_not_a_ledger_is_an_error_with_its_cause() {
    let folder = Folder::new();
    std::fs::write(folder.file("text"), "a long text in place of a ledger ".repeat(99)).unwrap();
    let error = SqliteLedger::open(&folder.file("text")).await.unwrap_err();
    assert!(matches!(error, LedgerError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("not a database"), "{error}");
    std::fs::create_dir(folder.file("folder")).unwrap();
    let error = SqliteLedger::open(&folder.file("folder")).await.unwrap_err();
    assert!(error.to_string().contains("it is not a regular file"), "{error}");
    let nowhere = folder.0.path().join("no/such/ledger.db");
    let error = SqliteLedger::open(&nowhere).await.unwrap_err();
    assert!(matches!(error, LedgerError::Database { .. }), "{error:?}");
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn a_damaged_row_is_an_error() {
    let folder = Folder::new();
    let ledger = folder.open("ledger").await;
    let mut connection = raw(&folder, "ledger").await;
    sqlx::raw_sql("INSERT INTO audiences (name) VALUES ('Not A Name')")
        .execute(&mut connection)
        .await
        .unwrap();
    let error = ledger.audiences().await.unwrap_err();
    assert!(matches!(error, LedgerError::Unreadable { .. }), "{error:?}");
}

/// The constraints of the tables refuse rows that no statement of the store should ever write.
#[tokio::test]
async fn invalid_rows_are_refused_by_the_tables() {
    let folder = Folder::new();
    drop(folder.open("ledger").await);
    let mut connection = raw(&folder, "ledger").await;
    sqlx::raw_sql(
        "INSERT INTO audiences (name) VALUES ('a');
         INSERT INTO sync_runs (id, sync, audience, destination, mode, to_version, state, adds,
            removes, read, pending, created_at)
         VALUES (1, 's', 'a', 'd', 'mirror', 1, 'active', 5, 5, 10, 10, 0);
         INSERT INTO tasks (id, run, sync, audience, destination, state, priority, not_before,
            batches, created_at)
         VALUES (1, 1, 's', 'a', 'd', 'queued', 0, 0, 1, 0);
         INSERT INTO batches (task, number, operation, first_rank, row_count)
         VALUES (1, 0, 'add', 0, 10);
         INSERT INTO refreshes (id, audience, state, started_by, scheduled_at, not_before)
         VALUES (1, 'a', 'scheduled', 'manual', 0, 0);",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    for statement in [
        "UPDATE sync_runs SET sent = 1",
        "UPDATE sync_runs SET sent = -1, pending = 11",
        "UPDATE sync_runs SET pending = 0, sent = 5, skipped = 4",
        "UPDATE sync_runs SET state = 'completed', finished_at = 1",
        "UPDATE sync_runs SET state = 'odd'",
        "UPDATE tasks SET state = 'running'",
        "UPDATE tasks SET holder = 'w'",
        "UPDATE tasks SET state = 'done', finished_at = 1",
        "UPDATE tasks SET state = 'failed'",
        "UPDATE tasks SET batches_done = 2",
        "UPDATE tasks SET failures = -1",
        "UPDATE batches SET state = 'done'",
        "UPDATE batches SET sent = 3",
        "UPDATE refreshes SET state = 'processing', holder = 'b'",
        "UPDATE refreshes SET lease_until = 5",
        "UPDATE refreshes SET state = 'completed', finished_at = 1",
        "UPDATE refreshes SET rows_read = -1",
        "UPDATE audiences SET current_version = 1",
        "INSERT INTO dictionary_shards (shard, version, manifest) VALUES (256, 1, '')",
        "INSERT INTO refreshes (audience, state, started_by, scheduled_at, not_before)
         VALUES ('a', 'scheduled', 'manual', 0, 0)",
        "INSERT INTO ad_groups (name, number) VALUES ('x', -1)",
    ] {
        let result = sqlx::raw_sql(statement).execute(&mut connection).await;
        assert!(result.is_err(), "{statement}");
    }
}

/// The statements of the hot path find their rows by an index, however large the tables grow.
#[tokio::test]
async fn due_work_is_found_by_an_index() {
    let folder = Folder::new();
    drop(folder.open("ledger").await);
    let mut connection = raw(&folder, "ledger").await;
    for (statement, index) in [
        (
            "EXPLAIN QUERY PLAN SELECT id FROM tasks WHERE due_at IS NOT NULL AND due_at <= 5
             AND sync NOT IN (SELECT sync FROM paused_syncs) ORDER BY priority DESC, id LIMIT 9",
            "tasks_due",
        ),
        (
            "EXPLAIN QUERY PLAN UPDATE tasks SET state = 'running', holder = 'w', lease_until = 9
             WHERE id = 1 AND due_at <= 5
               AND (SELECT count(*) FROM tasks AS other
                    WHERE other.state = 'running' AND other.lease_until > 5
                      AND other.destination = tasks.destination) < 2",
            "tasks_by_state",
        ),
        (
            "EXPLAIN QUERY PLAN SELECT id FROM refreshes WHERE due_at IS NOT NULL AND due_at <= 5
             ORDER BY scheduled_at, id LIMIT 1",
            "refreshes_due",
        ),
        (
            "EXPLAIN QUERY PLAN SELECT id FROM refreshes WHERE due_at IS NOT NULL AND due_at <= 5
             AND audience NOT IN (SELECT value FROM json_each('[]'))
             ORDER BY scheduled_at, id LIMIT 1",
            "refreshes_due",
        ),
        (
            "EXPLAIN QUERY PLAN SELECT id FROM tasks WHERE unchecked_since IS NOT NULL
             ORDER BY unchecked_since, id LIMIT 9",
            "tasks_unchecked",
        ),
        (
            "EXPLAIN QUERY PLAN SELECT id, recorded, raised_at, resolved_at FROM alerts
             WHERE recorded = 0 OR (recorded = 1 AND resolved_at IS NOT NULL)
             ORDER BY id LIMIT 9",
            "alerts_unrecorded",
        ),
        (
            "EXPLAIN QUERY PLAN SELECT r.finished_at FROM refreshes r
             WHERE r.audience = 'a' AND r.state = 'completed' ORDER BY r.id DESC LIMIT 1",
            "COVERING INDEX refreshes_completed",
        ),
    ] {
        let plan = plan_of(&mut connection, statement).await;
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{plan}");
    }
    // Of some audiences: not by the index of audiences, which has all refreshes that they ever had.
    let statement = "EXPLAIN QUERY PLAN SELECT id FROM refreshes WHERE due_at IS NOT NULL
         AND due_at <= 5 AND state IN ('scheduled', 'processing', 'halted')
         AND audience IN (SELECT value FROM json_each('[]')) ORDER BY scheduled_at, id LIMIT 1";
    let plan = plan_of(&mut connection, statement).await;
    assert!(plan.contains("INDEX refreshes_") && !plan.contains("of_audience"), "{plan}");
}

/// How SQLite runs a statement that begins with `EXPLAIN QUERY PLAN`.
async fn plan_of(connection: &mut sqlx::SqliteConnection, statement: &'static str) -> String {
    let rows: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(statement).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.3.as_str()).collect::<Vec<_>>().join("; ")
}

/// A refresh may have thousands of parts, and each is claimed by itself.
#[tokio::test]
async fn a_claim_reads_no_part_that_is_done() {
    let folder = Folder::new();
    drop(folder.open("ledger").await);
    let mut connection = raw(&folder, "ledger").await;
    let kind = "SEARCH s USING COVERING INDEX refresh_parts_pending";
    let claimable = "SEARCH p USING COVERING INDEX refresh_parts_pending";
    for (statement, accesses) in [
        (
            "EXPLAIN QUERY PLAN SELECT r.id FROM refreshes r WHERE r.state = 'processing' AND (
                SELECT p.number FROM refresh_parts p
                WHERE p.refresh = r.id AND p.state = 'pending'
                    AND p.kind = (SELECT s.kind FROM refresh_parts s
                                  WHERE s.refresh = r.id AND s.state = 'pending'
                                  ORDER BY s.kind LIMIT 1)
                    AND (p.lease_until IS NULL OR p.lease_until <= 5)
                ORDER BY p.number LIMIT 1) IS NOT NULL ORDER BY r.id",
            [kind, claimable, "SEARCH r USING COVERING INDEX refreshes_processing"],
        ),
        (
            "EXPLAIN QUERY PLAN UPDATE refresh_parts SET holder = 'b', lease_until = 9
             WHERE refresh = 1 AND number = (
                SELECT p.number FROM refresh_parts p
                WHERE p.refresh = 1 AND p.state = 'pending'
                    AND p.kind = (SELECT s.kind FROM refresh_parts s
                                  WHERE s.refresh = 1 AND s.state = 'pending'
                                  ORDER BY s.kind LIMIT 1)
                    AND (p.lease_until IS NULL OR p.lease_until <= 5)
                    AND EXISTS (SELECT 1 FROM refreshes r
                                WHERE r.id = 1 AND r.state = 'processing')
                ORDER BY p.number LIMIT 1)",
            [kind, claimable, "SEARCH refresh_parts USING PRIMARY KEY (refresh=? AND number=?)"],
        ),
        (
            "EXPLAIN QUERY PLAN UPDATE refresh_parts SET lease_until = 9
             WHERE holder = 'b' AND state = 'pending'",
            ["SEARCH refresh_parts USING INDEX refresh_parts_held"; 3],
        ),
    ] {
        let plan = plan_of(&mut connection, statement).await;
        assert!(accesses.iter().all(|access| plan.contains(access)), "{plan}");
        assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}

/// A workspace's lists do not read what the others have.
#[tokio::test]
async fn lists_of_a_workspace_are_read_by_an_index() {
    let folder = Folder::new();
    drop(folder.open("ledger").await);
    let mut connection = raw(&folder, "ledger").await;
    for (statement, index) in [
        (
            "EXPLAIN QUERY PLAN SELECT id, state FROM sync_runs WHERE TRUE
             AND substr(sync, 1, instr(sync, ':')) = 'acme:' AND id < 90 ORDER BY id DESC LIMIT 9",
            "sync_runs_by_workspace (<expr>=? AND id<?)",
        ),
        (
            "EXPLAIN QUERY PLAN SELECT id, state FROM tasks WHERE TRUE
             AND substr(sync, 1, instr(sync, ':')) = 'acme:' ORDER BY id LIMIT 9",
            "tasks_by_workspace (<expr>=?)",
        ),
        (
            "EXPLAIN QUERY PLAN SELECT id, subject FROM history
             WHERE subject_kind IN ('audience', 'sync', 'destination')
               AND substr(subject, 1, instr(subject, ':')) = 'acme:'
             ORDER BY at DESC, id DESC LIMIT 9",
            "history_by_workspace (<expr>=?)",
        ),
    ] {
        let plan = plan_of(&mut connection, statement).await;
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}

#[tokio::test]
async fn runs_that_an_earlier_version_held_are_recognised_by_their_reason() {
    let folder = Folder::new();
    let ledger = folder.open("ledger").await;
    let now = Timestamp(0);
    for (name, reason) in [("a", "3 of the last 5 checks of shop failed"), ("b", "too many leave")]
    {
        let run = NewRun {
            sync: name.parse().unwrap(),
            audience: "buyers".parse().unwrap(),
            destination: "shop".parse().unwrap(),
            mode: SyncMode::Mirror,
            from_version: None,
            to_version: 1,
            adds: 1,
            removes: 0,
            batches: vec![(Operation::Add, 1)],
            priority: 0,
            held: Some(Hold::new(HoldCause::Guard, reason)),
            plan: Some(format!("plans/{name}")),
            normalised: ReasonCounts::new(),
            users_removed: 0,
        };
        ledger.plan_run(&run, now).await.unwrap().unwrap();
    }
    let mut connection = raw(&folder, "ledger").await;
    let statement = "UPDATE sync_runs SET hold_cause = NULL";
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    let shop = "shop".parse().unwrap();
    let reason = Some("checks of shop failed");
    assert_eq!(ledger.approve_destination(&shop, reason, now).await.unwrap(), 1);
    let runs = ledger.runs(None, 9).await.unwrap();
    let left: Vec<_> = runs.iter().map(|run| (run.sync.as_str(), run.state)).collect();
    assert_eq!(left, [("b", RunState::Held)], "the other one is planned again");
}
