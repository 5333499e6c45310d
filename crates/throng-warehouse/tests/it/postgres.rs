//! Refreshes of audiences whose SQL a real PostgreSQL runs.

use std::collections::BTreeSet;

use serde_json::Value;
use sqlx::{ConnectOptions, Connection, PgConnection};
use throng_lake::KeyKind;
use throng_model::{Retry, UserHash, UserKey};
use throng_refresh::{Page, PageRequest, QueryPlan, Session, WarehouseError, Warehouses};
use throng_spec::{PostgresSettings, Spec, WarehouseSettings};
use throng_store::RefreshState;

use crate::{SEED, Site, TIMEOUT, first_job, refresh};

pub(crate) const CLICKS: &str = "SELECT user_id FROM clicks";

/// A database of one test on a real server, and a site whose source it is.
pub(crate) struct Shop {
    pub(crate) site: Site,
    pub(crate) raw: PgConnection,
    /// `postgres://user@host:port/database`.
    pub(crate) url: String,
}

pub(crate) async fn connect(url: &str) -> PgConnection {
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    options.connect().await.unwrap()
}

pub(crate) async fn run(connection: &mut PgConnection, sql: impl Into<String>) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.into())).execute(connection).await.unwrap();
}

impl Shop {
    /// A table with ten users, one of them twice, and a row without a user. `None` if there is no
    /// server: `cargo xtask test` starts it.
    pub(crate) async fn new(test: &str) -> Option<Self> {
        let Ok(server) = std::env::var("THRONG_POSTGRES") else {
            let message = "PostgreSQL is not provided (THRONG_POSTGRES): run `cargo xtask test`";
            assert!(std::env::var_os("CI").is_none(), "{message}");
            eprintln!("skipped: {message}");
            return None;
        };
        let database = format!("source_{test}_{}", std::process::id());
        let mut admin = connect(&format!("{server}/postgres")).await;
        run(&mut admin, format!("CREATE DATABASE {database}")).await;
        admin.close().await.unwrap();
        let url = format!("{server}/{database}");
        let mut raw = connect(&url).await;
        run(
            &mut raw,
            "CREATE TABLE clicks (user_id INT, name TEXT);
             INSERT INTO clicks SELECT n, 'hunter2' FROM generate_series(0, 9) AS n;
             INSERT INTO clicks VALUES (0, 'hunter2'), (NULL, 'hunter2');
             ANALYZE clicks",
        )
        .await;
        let mut site = Site::new().await;
        site.spec = spec(&site, &url, CLICKS);
        Some(Self { site, raw, url })
    }

    pub(crate) fn settings(&mut self) -> &mut PostgresSettings {
        let WarehouseSettings::Postgres(settings) = &mut self.site.spec.warehouses[0].settings
        else {
            panic!()
        };
        settings
    }

    pub(crate) async fn check(&self, sql: &str) -> Result<QueryPlan, WarehouseError> {
        let source = &self.site.spec.warehouses[0];
        self.site.warehouses().open(source)?.check(sql, None).await
    }

    /// Reads a result. `after` is called after each batch of keys.
    async fn read(
        &self,
        sql: &str,
        mut after: impl FnMut() + Send,
    ) -> Result<(Vec<UserHash>, Page), WarehouseError> {
        let job = first_job();
        let request = PageRequest { sql, key: None, job: &job, cursor: None::<&Value>, seed: SEED };
        let mut read = Vec::new();
        let mut keys = |hashes: &[UserHash], _nulls: u64| {
            read.extend_from_slice(hashes);
            after();
            Ok::<(), WarehouseError>(())
        };
        let source = &self.site.spec.warehouses[0];
        let warehouse = self.site.warehouses().open(source)?;
        let page = warehouse.page(&request, &mut keys, &mut Session::default()).await?;
        Ok((read, page))
    }

    /// Ends the next `times` sessions of a refresh, each while it waits for the table.
    async fn end_sessions(&self, times: usize) {
        let mut admin = connect(&self.url).await;
        let mut ended: Vec<i32> = Vec::new();
        let ending = async {
            while ended.len() < times {
                let waiting: Option<i32> = sqlx::query_scalar(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
                     AND application_name LIKE 'throng %' AND wait_event_type = 'Lock'
                     AND pid <> ALL($1)",
                )
                .bind(ended.clone())
                .fetch_optional(&mut admin)
                .await
                .unwrap();
                let Some(pid) = waiting else {
                    tokio::task::yield_now().await;
                    continue;
                };
                run(&mut admin, format!("SELECT pg_terminate_backend({pid})")).await;
                ended.push(pid);
            }
        };
        assert!(tokio::time::timeout(TIMEOUT, ending).await.is_ok(), "no session waits");
    }
}

/// A spec whose source is the database of a URL.
pub(crate) fn spec(site: &Site, url: &str, sql: &str) -> Spec {
    let (_, rest) = url.split_once("://").unwrap();
    let (user, rest) = rest.split_once('@').unwrap();
    let (server, database) = rest.split_once('/').unwrap();
    let (host, port) = server.split_once(':').unwrap();
    let text = format!(
        "version: 1\nsources:\n  - {{ name: app, type: postgres, host: \"{host}\", port: {port}, \
         database: {database}, username: {user}, sslmode: disable, page_rows: 3 }}\naudiences:\n  \
         - {{ name: clickers, source: app, key: user_id, sql: \"{sql}\" }}\n"
    );
    let path = site.dir.path().join("postgres.yaml");
    std::fs::write(&path, text).unwrap();
    throng_spec::load(&path).unwrap()
}

/// The message and the help of what is refused, neither of which has a value.
fn refused<T: std::fmt::Debug>(result: Result<T, WarehouseError>) -> (String, String) {
    let error = result.unwrap_err();
    assert_eq!(error.retry(), Retry::Never, "{error}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    (error.to_string(), error.help().unwrap_or_default().to_owned())
}

fn integers(users: std::ops::Range<u32>) -> BTreeSet<UserHash> {
    users.map(|user| UserKey::integer(user.into()).hash(SEED)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_reads_the_whole_result_and_the_next_one_its_changes() {
    let Some(mut shop) = Shop::new("whole").await else { return };
    let outcome = shop.site.refresh().await;
    assert_eq!(outcome.state, RefreshState::Completed, "{outcome:?}");
    shop.site.assert_members(0..10).await;
    run(&mut shop.raw, "INSERT INTO clicks SELECT n FROM generate_series(10, 14) AS n").await;
    let outcome = shop.site.refresh().await;
    assert_eq!(outcome.state, RefreshState::Completed, "{outcome:?}");
    shop.site.assert_members(0..15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_column_of_another_type_is_refused_unless_the_sql_changes() {
    let Some(mut shop) = Shop::new("retyped").await else { return };
    assert_eq!(shop.site.refresh().await.state, RefreshState::Completed);
    run(&mut shop.raw, "ALTER TABLE clicks ALTER user_id TYPE TEXT USING 'user:' || user_id").await;
    let outcome = shop.site.refresh().await;
    assert_eq!(outcome.state, RefreshState::Failed, "{outcome:?}");
    let reason = outcome.reason.unwrap();
    assert!(reason.contains("user_id is TEXT in the source app, and was INT4 when"), "{reason}");
    shop.site.assert_members(0..10).await;
    let accepted = "SELECT CAST(user_id AS TEXT) AS user_id FROM clicks";
    shop.site.spec = spec(&shop.site, &shop.url, accepted);
    let outcome = shop.site.refresh().await;
    assert_eq!(
        (outcome.state, outcome.members),
        (RefreshState::Completed, Some(10)),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_during_the_read_does_not_show() {
    let Some(mut shop) = Shop::new("moment").await else { return };
    let mut writer = connect(&shop.url).await;
    let (began, mut begun) = tokio::sync::mpsc::unbounded_channel::<()>();
    let (wrote, written) = std::sync::mpsc::channel::<()>();
    let writing = tokio::spawn(async move {
        begun.recv().await.unwrap();
        run(
            &mut writer,
            "DELETE FROM clicks WHERE user_id > 4; INSERT INTO clicks VALUES (77, '')",
        )
        .await;
        wrote.send(()).unwrap();
    });
    // The first batch has three of twelve rows.
    let mut batches = 0;
    let counted = &mut batches;
    let read = shop.read(CLICKS, move || {
        *counted += 1;
        if *counted == 1 {
            began.send(()).unwrap();
            tokio::task::block_in_place(|| written.recv().unwrap());
        }
    });
    let (hashes, page) = read.await.unwrap();
    writing.await.unwrap();
    assert_eq!(batches, 4);
    assert_eq!(hashes.iter().copied().collect::<BTreeSet<_>>(), integers(0..10));
    assert_eq!((page.rows, page.total_rows, page.null_keys), (12, Some(12), 1));
    assert_eq!(page.next, None);
    // The next read is of a later moment.
    let now: i64 =
        sqlx::query_scalar("SELECT count(*) FROM clicks").fetch_one(&mut shop.raw).await.unwrap();
    let (_, page) = shop.read(CLICKS, || {}).await.unwrap();
    assert_eq!(i64::try_from(page.rows).unwrap(), now);
}

/// Refreshes while the server ends some of its sessions.
async fn refresh_with_ended_sessions(shop: &mut Shop, times: usize) -> RefreshState {
    run(&mut shop.raw, "BEGIN; LOCK TABLE clicks IN ACCESS EXCLUSIVE MODE").await;
    let ctx = shop.site.process().await;
    let ending = async {
        shop.end_sessions(times).await;
        run(&mut shop.raw, "COMMIT").await;
    };
    let (outcome, ()) = tokio::join!(refresh(&ctx), ending);
    let reason = outcome.reason.clone().unwrap_or_default();
    assert_eq!(outcome.state == RefreshState::Failed, reason.contains("is lost"), "{outcome:?}");
    outcome.state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_session_ends_is_replaced_as_a_whole_twice() {
    let Some(mut shop) = Shop::new("ended").await else { return };
    assert_eq!(refresh_with_ended_sessions(&mut shop, 2).await, RefreshState::Completed);
    shop.site.assert_members(0..10).await;
    let Some(mut shop) = Shop::new("ended_thrice").await else { return };
    assert_eq!(refresh_with_ended_sessions(&mut shop, 3).await, RefreshState::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_has_columns_and_estimated_rows_and_reads_nothing() {
    let Some(shop) = Shop::new("plan").await else { return };
    let plan = shop.check(CLICKS).await.unwrap();
    assert_eq!((plan.key_column.as_str(), plan.key_kind), ("user_id", KeyKind::Integer));
    assert_eq!(plan.columns, [("user_id".to_owned(), "INT4".to_owned())]);
    assert_eq!((plan.estimated_rows, plan.bytes_processed, plan.cost), (Some(12), None, None));
    // It would fail if it was run.
    assert!(shop.check("SELECT user_id / (user_id - user_id) AS id FROM clicks").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_type_have_the_canonical_form_and_other_types_are_refused() {
    let Some(shop) = Shop::new("types").await else { return };
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    for (value, key) in [
        ("(-7)::SMALLINT", UserKey::integer(-7)),
        ("(-70000)::INTEGER", UserKey::integer(-70_000)),
        ("(-7000000000)::BIGINT", UserKey::integer(-7_000_000_000)),
        ("'é 007'::TEXT", UserKey::text("é 007")),
        ("'x'::VARCHAR(9)", UserKey::text("x")),
        ("'\\x00ff'::BYTEA", UserKey::binary(&[0, 255])),
        (format!("'{uuid}'::UUID").as_str(), UserKey::text(uuid)),
    ] {
        let (hashes, page) = shop.read(&format!("SELECT {value} AS id"), || {}).await.unwrap();
        assert_eq!(hashes, [key.hash(SEED)], "{value}");
        assert_eq!((page.rows, page.null_keys), (1, 0), "{value}");
    }
    // Another key than the one without, as in tables of files.
    let padded = "SELECT id FROM (VALUES ('42 '), ('42'), (NULL), (' 7')) AS t (id)";
    let (hashes, page) = shop.read(padded, || {}).await.unwrap();
    assert_eq!((hashes.len(), page.null_keys, page.padded_keys), (3, 1, 2));
    for value in ["1.50::NUMERIC", "1.5::FLOAT8", "'x'::CHAR(9)", "ARRAY[1]", "now()", "true"] {
        let sql = format!("SELECT {value} AS id");
        for result in [shop.check(&sql).await.err(), shop.read(&sql, || {}).await.err()] {
            let (message, help) = refused(Err::<(), _>(result.unwrap()));
            assert!(message.contains("which is not a user key"), "{message}");
            assert!(help.contains("CAST(id AS TEXT)"), "{help}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_where_and_has_no_value_of_the_data() {
    let Some(shop) = Shop::new("refused").await else { return };
    let (message, _) = refused(shop.check("SELECT\n  totl FROM clicks").await);
    assert!(message.contains("at line 2, column 3 near `totl` (ERROR 42703)"), "{message}");
    let (message, help) = refused(shop.check("SELECT user_id FRM clicks c").await);
    assert!(message.contains("a syntax error at line 1, column"), "{message}");
    assert!(message.contains("42601") && help.contains("PostgreSQL's dialect"), "{message}");
    let (message, _) = refused(shop.check("SELECT 1 AS id; DROP TABLE clicks").await);
    assert!(message.contains("42601"), "{message}");
    let (message, _) = refused(shop.check("SELECT id FROM nowhere").await);
    assert!(message.contains("there is no such table"), "{message}");
    let source = &shop.site.spec.warehouses[0];
    let warehouse = shop.site.warehouses().open(source).unwrap();
    let joined = "SELECT a.user_id, b.user_id FROM clicks a JOIN clicks b ON true";
    let (message, help) = refused(warehouse.check(joined, Some("user_id")).await);
    assert_eq!(message, "the model returns several columns user_id");
    assert!(help.contains("with AS"), "{help}");
    let (message, _) = refused(
        shop.read("WITH d AS (DELETE FROM clicks RETURNING user_id) SELECT user_id FROM d", || {})
            .await,
    );
    assert!(message.contains("(ERROR "), "{message}");
    // PostgreSQL's message is: invalid input syntax for type integer: "hunter2".
    let (message, _) = refused(shop.read("SELECT name::INT AS id FROM clicks", || {}).await);
    assert!(message.contains("22P02"), "{message}");
    let (hashes, _) = shop.read(CLICKS, || {}).await.unwrap();
    assert_eq!(hashes.len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_sends_no_notices_which_may_contain_values() {
    let Some(shop) = Shop::new("notices").await else { return };
    let sql = "SELECT current_setting('client_min_messages') AS id";
    let (hashes, _) = shop.read(sql, || {}).await.unwrap();
    assert_eq!(hashes, [UserKey::text("error").hash(SEED)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_is_cancelled() {
    let Some(mut shop) = Shop::new("timeout").await else { return };
    shop.settings().statement_timeout_secs = 1;
    let (message, help) =
        refused(shop.read("SELECT user_id FROM clicks, pg_sleep(600)", || {}).await);
    assert!(message.contains("57014"), "{message}");
    assert!(help.contains("statement_timeout_secs"), "{help}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_and_a_wrong_password_are_refused() {
    let Some(mut shop) = Shop::new("rights").await else { return };
    let stranger = format!("stranger_{}", std::process::id());
    run(&mut shop.raw, format!("CREATE ROLE {stranger} LOGIN")).await;
    shop.settings().username.clone_from(&stranger);
    let (message, help) = refused(shop.check(CLICKS).await);
    assert!(message.contains("permission denied") && message.contains("42501"), "{message}");
    assert!(help.contains("SELECT"), "{help}");
    run(&mut shop.raw, format!("GRANT SELECT ON clicks TO {stranger}")).await;
    assert!(shop.check(CLICKS).await.is_ok());
    run(&mut shop.raw, format!("DROP OWNED BY {stranger}; DROP ROLE {stranger}")).await;

    // The only role of the test server that needs a password.
    run(
        &mut shop.raw,
        "DO $$ BEGIN CREATE ROLE needs_password LOGIN PASSWORD 'right';
         EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         GRANT SELECT ON clicks TO needs_password",
    )
    .await;
    shop.settings().username = "needs_password".to_owned();
    for (password, admitted) in [("right", true), ("hunter2", false)] {
        let file = shop.site.dir.path().join(password);
        std::fs::write(&file, password).unwrap();
        shop.settings().password = Some(throng_spec::SecretRef::File(file));
        let checked = shop.check(CLICKS).await;
        if admitted {
            assert!(checked.is_ok(), "{checked:?}");
        } else {
            let error = checked.unwrap_err();
            assert_eq!(error.retry(), Retry::Never);
            assert!(error.to_string().contains("28P01"), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
    shop.settings().database = "nowhere".to_owned();
    shop.settings().username = "throng".to_owned();
    let (message, _) = refused(shop.check(CLICKS).await);
    assert!(message.contains("3D000"), "{message}");
    // Nothing listens there.
    shop.settings().port = 9;
    let error = shop.check(CLICKS).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Backoff, "{error}");
}
