//! The ledger in PostgreSQL, for many processes.
//!
//! A writing transaction of several statements is serialisable and is run again when PostgreSQL
//! says that it collided with another one: it behaves as if it had run alone, as in SQLite. A single
//! writing statement needs no such promise: claims lock the row they take (`FOR UPDATE SKIP
//! LOCKED`), and every other one names the state that it changes.
//!
//! A call whose connection is lost while it commits reports a failure although it may have been
//! done; every call is safe to repeat.

#[path = "sql/access.rs"]
#[expect(clippy::duplicate_mod, reason = "the statements are the same, the driver's types are not")]
mod access;
#[path = "sql/alerts.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod alerts;
#[path = "sql/audiences.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod audiences;
#[path = "sql/delivered.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod delivered;
#[path = "sql/dictionary.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod dictionary;
#[path = "sql/history.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod history;
#[path = "sql/maintenance.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod maintenance;
#[path = "sql/parts.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod parts;
#[path = "sql/pauses.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod pauses;
#[path = "sql/removals.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod removals;
#[path = "sql/runs.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod runs;
mod session;
#[path = "sql/sizes.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod sizes;
#[path = "sql/snapshots.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod snapshots;
#[path = "sql/spec.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod spec;
#[path = "sql/sync.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod sync;
#[path = "sql/tasks.rs"]
#[expect(clippy::duplicate_mod, reason = "as above")]
mod tasks;

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow, PgSslMode};
use sqlx::{ConnectOptions, Connection, Postgres};
use throng_model::{Secret, Timestamp};
use tokio::sync::Mutex;

use crate::failure::{Failure, Tried, check_schema};
use crate::{LedgerError, Result};

use session::{End, Session};

/// The ledger of this backend.
type Backend = PostgresLedger;
/// Its data base.
type Db = Postgres;
/// Its connection.
type Conn = PgConnection;
/// Its row.
type DbRow = PgRow;

/// Put after the inner SELECT of a claim: two claims at once take two rows, and neither waits.
macro_rules! lock_rows {
    () => {
        " FOR UPDATE SKIP LOCKED"
    };
}
use lock_rows;

const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("../migrations/postgres/0001_ledger.sql")),
    (2, include_str!("../migrations/postgres/0002_announcements.sql")),
    (3, include_str!("../migrations/postgres/0003_nodes.sql")),
    (4, include_str!("../migrations/postgres/0004_parts.sql")),
    (5, include_str!("../migrations/postgres/0005_failed_runs.sql")),
    (6, include_str!("../migrations/postgres/0006_access.sql")),
    (7, include_str!("../migrations/postgres/0007_stamp.sql")),
    (8, include_str!("../migrations/postgres/0008_alert_deliveries.sql")),
    (9, include_str!("../migrations/postgres/0009_snapshot_checksums.sql")),
    (10, include_str!("../migrations/postgres/0010_refresh_claims.sql")),
    (11, include_str!("../migrations/postgres/0011_log_partitions.sql")),
    (12, include_str!("../migrations/postgres/0012_snapshot_tables.sql")),
    (13, include_str!("../migrations/postgres/0013_delivered_states.sql")),
    (14, include_str!("../migrations/postgres/0014_pauses.sql")),
    (15, include_str!("../migrations/postgres/0015_foreign_audiences.sql")),
    (16, include_str!("../migrations/postgres/0016_sync_removals.sql")),
    (17, include_str!("../migrations/postgres/0017_platform_sizes.sql")),
];

/// What PostgreSQL answers to a connection to a data base that is not there:
/// `invalid_catalog_name`.
const NO_DATABASE: &str = "3D000";
/// Held while the tables are brought up to date. Any number will do that nobody else uses.
const MIGRATION_LOCK: i64 = 0x7468_726f_6e67_0001;
/// Held by the one node of a ledger.
const NODE_LOCK: i64 = 0x7468_726f_6e67_0002;
/// Held by the one process that leads.
const LEADER_LOCK: i64 = 0x7468_726f_6e67_0003;
/// A leader whose session does not answer for so long leads no more.
const PING_PATIENCE: Duration = Duration::from_secs(5);
/// A call that takes longer is given up: a server that went away without a word (a failover) would
/// hold it for as long as TCP hopes. No call of the ledger takes a second.
const CALL_PATIENCE: Duration = Duration::from_secs(60);
/// How long a call waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(20);
/// Rows of one INSERT. Below the limit of 65,535 values of the protocol with up to 11 columns.
const ROWS_PER_INSERT: usize = 1_000;
/// Runs of a transaction that keeps colliding. Collisions are rare: transactions are a few
/// statements, and most touch the rows of one holder.
const RUNS: u32 = 50;

/// What PostgreSQL answers to a transaction that has to be run again: `serialization_failure` and
/// `deadlock_detected`.
fn collided(failure: &Failure) -> bool {
    let Failure::Driver(sqlx::Error::Database(error)) = failure else { return false };
    matches!(error.code().as_deref(), Some("40001" | "40P01"))
}

/// Runs a body between a `BEGIN` and its end. A body that fails is rolled back.
macro_rules! in_transaction {
    ($self:ident, $begin:expr, |$tx:ident| $body:expr) => {{
        let tried: crate::failure::Tried<_> = crate::postgres::within_patience(async {
            let mut session = crate::postgres::Session::begin(&$self.pool, $begin).await?;
            let done: crate::failure::Tried<_> = async {
                let $tx: &mut crate::postgres::Conn = session.connection()?;
                let done = $body;
                Ok(done)
            }
            .await;
            match done {
                Ok(done) => {
                    session.end(crate::postgres::End::Commit).await?;
                    Ok(done)
                }
                Err(failure) => {
                    // What failed is what is told; a session that cannot roll back is closed.
                    let _ = session.end(crate::postgres::End::Rollback).await;
                    Err(failure)
                }
            }
        })
        .await;
        tried
    }};
}
use in_transaction;

/// A call, or a failure when it takes too long.
async fn within_patience<T>(call: impl Future<Output = Tried<T>>) -> Tried<T> {
    match tokio::time::timeout(CALL_PATIENCE, call).await {
        Ok(done) => done,
        Err(_) => Err(Failure::Driver(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
    }
}

/// Runs a body in a serialisable transaction: commits what it did if it returns `Ok`, else nothing;
/// runs it again after a collision. PostgreSQL's commits are all durable, so the durability that
/// SQLite distinguishes does not matter. A macro for the reason that is told in `sqlite`.
macro_rules! write_tx {
    ($self:ident, $durability:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let mut run = 0;
        loop {
            let tried = crate::postgres::in_transaction!(
                $self,
                "BEGIN ISOLATION LEVEL SERIALIZABLE",
                |$tx| $body
            );
            run += 1;
            match tried {
                Err(failure)
                    if crate::postgres::collided(&failure) && run < crate::postgres::RUNS =>
                {
                    crate::postgres::step_aside(run).await;
                }
                other => break other.map_err(|failure| failure.while_doing($doing)),
            }
        }
    }};
}
use write_tx;

/// Waits a little, so that the one that was collided with can finish.
async fn step_aside(run: u32) {
    tokio::time::sleep(Duration::from_millis(u64::from(run.min(20)))).await;
}

/// Runs a body on one connection, each statement by itself.
macro_rules! read_one {
    ($self:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let tried: crate::failure::Tried<_> = crate::postgres::within_patience(async {
            let mut connection = $self.pool.acquire().await?;
            let $tx: &mut crate::postgres::Conn = &mut connection;
            let done = $body;
            Ok(done)
        })
        .await;
        tried.map_err(|failure| failure.while_doing($doing))
    }};
}
use read_one;

/// Runs a body of one writing statement, which is a transaction of its own.
macro_rules! write_one {
    ($self:ident, $durability:ident, $doing:expr, |$tx:ident| $body:expr) => {
        crate::postgres::read_one!($self, $doing, |$tx| $body)
    };
}
use write_one;

/// Runs a body of several reading statements, on one consistent state of the ledger.
macro_rules! read_tx {
    ($self:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let tried = crate::postgres::in_transaction!(
            $self,
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            |$tx| $body
        );
        tried.map_err(|failure| failure.while_doing($doing))
    }};
}
use read_tx;

/// What [`PostgresLedger::look`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresLook {
    /// The server's version.
    pub server: String,
    /// Its time.
    pub now: Timestamp,
    /// The version of the ledger's tables; `None` if there are none.
    pub schema: Option<u64>,
    /// The version that this program makes.
    pub newest: u64,
    /// Whether this user may make tables there (the data base itself, if it is not there).
    pub may_create: bool,
}

/// A ledger in a PostgreSQL data base that any number of processes share.
#[derive(Debug)]
pub struct PostgresLedger {
    pool: PgPool,
    /// The session that holds [`NODE_LOCK`], once it is taken.
    taken: Mutex<Option<Conn>>,
    /// The session that holds [`LEADER_LOCK`], while this process leads.
    leads: Mutex<Option<Conn>>,
}

impl PostgresLedger {
    /// Connects to the data base of a URL (`postgres://user:password@host:port/data_base`, with the
    /// parameters of libpq, such as `sslmode=verify-full&sslrootcert=…`) and brings its tables up to
    /// date. A data base that is not there is made, if the user may. Holds up to `connections` of
    /// them open.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] if a newer version of Throng wrote it (nothing is changed then),
    /// [`LedgerError::Database`] if it cannot be reached or is no ledger. The URL is never in an
    /// error: it has a password.
    pub async fn open(url: &Secret, connections: u32) -> Result<Self> {
        let opened: Tried<Self> = async {
            let options = options(url)?;
            let mut connection = match options.connect().await {
                Err(error) if code(&error).as_deref() == Some(NO_DATABASE) => {
                    create_database(&options).await?;
                    options.connect().await?
                }
                other => other?,
            };
            migrate(&mut connection).await?;
            connection.close().await?;
            let pool = PgPoolOptions::new()
                .max_connections(connections.max(2))
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_with(options)
                .await?;
            Ok(Self { pool, taken: Mutex::new(None), leads: Mutex::new(None) })
        }
        .await;
        opened.map_err(|failure| failure.while_doing("opening the ledger"))
    }

    /// Connects to a ledger that exists and changes nothing: no database and no table is made. For
    /// comparisons; [`look`](Self::look) says whether its tables are of this version.
    ///
    /// # Errors
    /// [`LedgerError::Database`] if it cannot be reached.
    pub async fn attach(url: &Secret) -> Result<Self> {
        let attached: Tried<Self> = async {
            let pool = PgPoolOptions::new()
                .max_connections(2)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_with(options(url)?)
                .await?;
            Ok(Self { pool, taken: Mutex::new(None), leads: Mutex::new(None) })
        }
        .await;
        attached.map_err(|failure| failure.while_doing("opening the ledger"))
    }

    /// Looks at a data base without changing anything.
    ///
    /// # Errors
    /// [`LedgerError::Database`] if it cannot be reached.
    pub async fn look(url: &Secret) -> Result<PostgresLook> {
        let looked: Tried<PostgresLook> = async {
            let options = options(url)?;
            let (mut session, right) = match options.connect().await {
                Err(error) if code(&error).as_deref() == Some(NO_DATABASE) => {
                    let session = options.database("postgres").connect().await?;
                    (
                        session,
                        "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user",
                    )
                }
                other => (
                    other?,
                    "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)",
                ),
            };
            let may_create: bool = sqlx::query_scalar(right).fetch_one(&mut session).await?;
            let server: String =
                sqlx::query_scalar("SHOW server_version").fetch_one(&mut session).await?;
            let micros: i64 = sqlx::query_scalar(
                "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT",
            )
            .fetch_one(&mut session)
            .await?;
            let table: Option<String> =
                sqlx::query_scalar("SELECT to_regclass('ledger_schema')::TEXT")
                    .fetch_one(&mut session)
                    .await?;
            let schema: Option<i64> = match table {
                Some(_) => {
                    sqlx::query_scalar("SELECT version FROM ledger_schema")
                        .fetch_optional(&mut session)
                        .await?
                }
                None => None,
            };
            Ok(PostgresLook {
                server,
                now: Timestamp(micros),
                schema: schema.and_then(|version| u64::try_from(version).ok()),
                newest: MIGRATIONS.last().map_or(0, |(version, _)| version.cast_unsigned()),
                may_create,
            })
        }
        .await;
        looked.map_err(|failure| failure.while_doing("looking at the ledger"))
    }

    /// Takes the ledger for one node, until this value is dropped or the connection is lost; `false`
    /// if another node has it. A node that keeps its objects in a folder of its own must be the only
    /// one: the others would look for files that they do not have.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn take(&self) -> Result<bool> {
        let mut taken = self.taken.lock().await;
        let session = self.session_with(NODE_LOCK).await;
        *taken = session.map_err(|failure| failure.while_doing("taking the ledger"))?;
        Ok(taken.is_some())
    }

    /// A session of its own that holds a lock until it ends; `None` if another one holds it.
    async fn session_with(&self, lock: i64) -> Tried<Option<Conn>> {
        let mut session = self.pool.acquire().await?.detach();
        // A holder whose machine died is noticed by the server within seconds, not hours.
        sqlx::raw_sql(
            "SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 1;
             SET tcp_keepalives_count = 3; SET tcp_user_timeout = 6000",
        )
        .execute(&mut session)
        .await?;
        let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(lock)
            .fetch_one(&mut session)
            .await?;
        Ok(free.then_some(session))
    }

    /// The session that leads. Of a process that is paused the kernel keeps the connection alive, so
    /// the server ends the session of a leader that says nothing (PostgreSQL 14 and later).
    async fn leading_session(&self) -> Tried<Option<Conn>> {
        let Some(mut session) = self.session_with(LEADER_LOCK).await? else { return Ok(None) };
        // Older servers do not know it; there a leader that is paused goes on leading.
        let _ = sqlx::raw_sql("SET idle_session_timeout = '10s'").execute(&mut session).await;
        Ok(Some(session))
    }

    #[expect(clippy::unused_async, reason = "the other backend reads its file")]
    async fn check_structure_here(&self) -> Result<()> {
        Ok(())
    }

    async fn close_here(&self) -> Result<()> {
        // The sessions with locks end first, so that others can take them.
        *self.leads.lock().await = None;
        *self.taken.lock().await = None;
        self.pool.close().await;
        Ok(())
    }

    async fn lead_here(&self) -> Result<bool> {
        let mut leads = self.leads.lock().await;
        if let Some(session) = leads.as_mut() {
            let asked = tokio::time::timeout(PING_PATIENCE, session.ping()).await;
            if matches!(asked, Ok(Ok(()))) {
                return Ok(true);
            }
            // The server has given the lock up with the session.
            *leads = None;
        }
        let session = self.leading_session().await;
        *leads = session.map_err(|failure| failure.while_doing("asking who leads"))?;
        Ok(leads.is_some())
    }
}

/// Whether this URL lets a password go to another machine without TLS: a host that is not this
/// machine, and an `sslmode` (or `PGSSLMODE`) that does not insist on encryption. The default,
/// `prefer`, does not.
///
/// # Errors
/// [`LedgerError::Refused`] if it is no URL of a PostgreSQL server.
pub fn is_plain_remote_postgres(url: &Secret) -> Result<bool> {
    let options = options(url).map_err(|failure| failure.while_doing("reading the URL"))?;
    Ok(is_plain_remote(&options))
}

fn is_plain_remote(options: &PgConnectOptions) -> bool {
    let encrypted = matches!(
        options.get_ssl_mode(),
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull
    );
    let host = options.get_host();
    // A socket's folder stands in the place of the host.
    let here = options.get_socket().is_some()
        || host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback());
    !here && !encrypted
}

fn options(url: &Secret) -> Tried<PgConnectOptions> {
    let options: PgConnectOptions = url.expose().parse().map_err(|_| {
        Failure::Ledger(LedgerError::Refused {
            what: "URL of the ledger",
            why: "it is not of the form postgres://user:password@host:port/data_base".to_owned(),
        })
    })?;
    Ok(options.application_name("throng").statement_cache_capacity(200).disable_statement_logging())
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Makes the data base of the options, by way of the one that every server has.
async fn create_database(options: &PgConnectOptions) -> Tried<()> {
    let name = options.get_database().unwrap_or("throng").replace('"', "\"\"");
    let mut session = options.clone().database("postgres").connect().await?;
    // A name cannot be bound; as a quoted identifier it is no more than a name.
    let statement = format!("CREATE DATABASE \"{name}\"");
    match sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut session).await {
        // Another process may have been first.
        Err(error) if !matches!(code(&error).as_deref(), Some("42P04" | "23505")) => {
            Err(error.into())
        }
        _ => Ok(()),
    }
}

/// Brings the tables up to date, in one transaction: of two processes that open a new ledger at
/// once, the second waits and finds it done.
async fn migrate(connection: &mut Conn) -> Tried<()> {
    let mut tx = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *tx).await?;
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS ledger_schema (
            only_row BIGINT PRIMARY KEY CHECK (only_row = 1), version BIGINT NOT NULL)",
    )
    .execute(&mut *tx)
    .await?;
    let found: Option<i64> =
        sqlx::query_scalar("SELECT version FROM ledger_schema").fetch_optional(&mut *tx).await?;
    let found = found.unwrap_or(0);
    check_schema(found, MIGRATIONS)?;
    for (version, statements) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
        sqlx::raw_sql(*statements).execute(&mut *tx).await?;
        sqlx::query(
            "INSERT INTO ledger_schema (only_row, version) VALUES (1, $1)
             ON CONFLICT (only_row) DO UPDATE SET version = excluded.version",
        )
        .bind(*version)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_another_machine_wants_tls() {
        let plain = |url: &str| is_plain_remote_postgres(&Secret::new(url)).unwrap();
        for url in [
            "postgres://u:p@db.example/throng",
            "postgres://u:p@10.0.0.1:5432/throng?sslmode=prefer",
            "postgres://u:p@db.example/throng?sslmode=disable",
            "postgres://u:p@localhost.example/throng",
        ] {
            assert!(plain(url), "{url}");
        }
        for url in [
            "postgres://u:p@db.example/throng?sslmode=require",
            "postgres://u:p@db.example/throng?sslmode=verify-full",
            "postgres://u:p@127.0.0.1/throng",
            "postgres://u:p@[::1]:5432/throng",
            "postgres://u:p@localhost:5432/throng?sslmode=disable",
            "postgres:///throng?host=/run/postgresql",
        ] {
            assert!(!plain(url), "{url}");
        }
        assert!(is_plain_remote_postgres(&Secret::new("EAABnothing")).is_err());
    }
}
