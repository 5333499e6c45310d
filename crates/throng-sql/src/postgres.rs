//! A database of a PostgreSQL server, for many processes.
//!
//! A writing transaction of several statements is serializable and is retried when PostgreSQL
//! reports a conflict with another one: it behaves as if it had run alone, as in SQLite. A single
//! writing statement does not need that: claims lock the row that they claim (`FOR UPDATE SKIP
//! LOCKED`), and all others have the state that they change in their WHERE clause.
//!
//! A call whose connection is lost during the commit returns an error although it may have been
//! committed; every call is safe to repeat.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection};
use throng_model::{Secret, Timestamp};
use throng_store::{LedgerError, Result};
use tokio::sync::Mutex;

use crate::backend::{Access, Backend, back_off};
use crate::conn::{Call, Conn};
use crate::failure::{DbResult, Failure};
use crate::migrations::{Migration, newest, run_missing};

/// PostgreSQL's error code for a connection to a database that does not exist:
/// `invalid_catalog_name`.
const NO_DATABASE: &str = "3D000";
/// The advisory lock of a migration. The numbers of the locks are arbitrary and must not change:
/// nodes of different versions share them.
const MIGRATION_LOCK: i64 = 0x7468_726f_6e67_0001;
/// The advisory lock of the only node of a ledger.
const NODE_LOCK: i64 = 0x7468_726f_6e67_0002;
/// The advisory lock of the leader.
const LEADER_LOCK: i64 = 0x7468_726f_6e67_0003;
/// A leader whose session does not answer within this time is no longer the leader.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit of a call. Without it, a call to a server that disappears without closing the connection
/// (a failover) would wait for TCP's timeout. A call normally takes much less than a second.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a call waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(20);
/// How many times a transaction is tried that conflicts with others. Conflicts are rare:
/// transactions have a few statements, and most change the rows of one holder.
const MAX_ATTEMPTS: u32 = 50;

/// Whether PostgreSQL requires that the transaction is retried: `serialization_failure` and
/// `deadlock_detected`.
fn is_serialization_conflict(failure: &Failure) -> bool {
    let Failure::Driver(sqlx::Error::Database(error)) = failure else { return false };
    matches!(error.code().as_deref(), Some("40001" | "40P01"))
}

/// The state of a PostgreSQL server, as [`PostgresBackend::inspect`] reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresStatus {
    /// The server's version.
    pub server: String,
    /// Its time.
    pub now: Timestamp,
    /// The version of the ledger's tables; `None` if there are none.
    pub schema: Option<u64>,
    /// The version that the migrations of this program create.
    pub newest: u64,
    /// Whether this user may create tables there, or the database if it does not exist.
    pub may_create: bool,
}

/// A PostgreSQL database that any number of processes share.
#[derive(Debug)]
pub struct PostgresBackend {
    pool: PgPool,
    /// The session that holds `NODE_LOCK`, once it is acquired.
    node_session: Mutex<Option<PgConnection>>,
    /// The session that holds `LEADER_LOCK`, while this process is the leader.
    leader_session: Mutex<Option<PgConnection>>,
}

impl PostgresBackend {
    /// Connects to the database of a URL (`postgres://user:password@host:port/database`, with the
    /// parameters of libpq, such as `sslmode=verify-full&sslrootcert=…`) and runs the migrations
    /// that are missing. A database that does not exist is created, if the user may. Keeps up to
    /// `connections` connections open.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] if a newer version of Throng wrote it (nothing is changed then),
    /// [`LedgerError::Database`] if it cannot be reached or is not a ledger. The URL is never in an
    /// error, because it contains a password.
    pub async fn open(
        url: &Secret,
        connections: u32,
        migrations: &'static [Migration],
    ) -> Result<Self> {
        let opened: DbResult<Self> = async {
            let options = options(url)?;
            let mut connection = match options.connect().await {
                Err(error) if code(&error).as_deref() == Some(NO_DATABASE) => {
                    create_database(&options).await?;
                    options.connect().await?
                }
                other => other?,
            };
            migrate_or_retry(&mut connection, migrations).await?;
            connection.close().await?;
            let pool = PgPoolOptions::new()
                .max_connections(connections.max(2))
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_with(options)
                .await?;
            Ok(Self::with_pool(pool))
        }
        .await;
        opened.map_err(|failure| failure.while_doing("opening the ledger"))
    }

    fn with_pool(pool: PgPool) -> Self {
        Self { pool, node_session: Mutex::new(None), leader_session: Mutex::new(None) }
    }

    /// Connects to an existing database and changes nothing: no database and no table is created.
    /// [`inspect`](Self::inspect) says whether its tables are of this version.
    ///
    /// # Errors
    /// [`LedgerError::Database`] if it cannot be reached.
    pub async fn attach(url: &Secret) -> Result<Self> {
        let attached: DbResult<Self> = async {
            let pool = PgPoolOptions::new()
                .max_connections(2)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_with(options(url)?)
                .await?;
            Ok(Self::with_pool(pool))
        }
        .await;
        attached.map_err(|failure| failure.while_doing("opening the ledger"))
    }

    /// Reads the state of a server and database without changing anything.
    ///
    /// # Errors
    /// [`LedgerError::Database`] if it cannot be reached.
    pub async fn inspect(url: &Secret, migrations: &'static [Migration]) -> Result<PostgresStatus> {
        let inspected: DbResult<PostgresStatus> = async {
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
            Ok(PostgresStatus {
                server,
                now: Timestamp(micros),
                schema: schema.and_then(|version| u64::try_from(version).ok()),
                newest: newest(migrations).cast_unsigned(),
                may_create,
            })
        }
        .await;
        inspected.map_err(|failure| failure.while_doing("inspecting the ledger"))
    }

    /// Locks the database for this node alone, until this value is dropped or the connection is
    /// lost; `false` if another node has locked it.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn acquire_node_lock(&self) -> Result<bool> {
        let mut node_session = self.node_session.lock().await;
        let session = self.acquire_lock_session(NODE_LOCK).await;
        *node_session = session.map_err(|failure| failure.while_doing("locking the ledger"))?;
        Ok(node_session.is_some())
    }

    /// A separate session that holds an advisory lock until it ends; `None` if another session
    /// holds it.
    async fn acquire_lock_session(&self, lock: i64) -> DbResult<Option<PgConnection>> {
        let mut session = self.pool.acquire().await?.detach();
        // The server detects within seconds, not hours, that the machine of a holder died.
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

    /// The session of the leader; `None` if another process is the leader. The kernel keeps the
    /// connection of a paused process alive, and a paused leader would keep the lock while nobody
    /// does the leader's work. So the server ends the session of a leader that is idle (PostgreSQL
    /// 14 and later).
    async fn acquire_leader_session(&self) -> DbResult<Option<PgConnection>> {
        let Some(mut session) = self.acquire_lock_session(LEADER_LOCK).await? else {
            return Ok(None);
        };
        // Older servers do not have this setting: a paused process stays the leader there.
        let _ = sqlx::raw_sql("SET idle_session_timeout = '10s'").execute(&mut session).await;
        Ok(Some(session))
    }
}

#[async_trait]
impl Backend for PostgresBackend {
    async fn begin(&self, access: Access) -> DbResult<Call> {
        let conn = Conn::postgres(self.pool.acquire().await?);
        match access {
            Access::ReadOne | Access::WriteOne(_) => Ok(Call::new(conn)),
            Access::ReadMany => {
                Call::begin(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
            }
            Access::WriteMany(_) => Call::begin(conn, "BEGIN ISOLATION LEVEL SERIALIZABLE").await,
        }
    }

    fn call_timeout(&self) -> Option<Duration> {
        Some(CALL_TIMEOUT)
    }

    fn must_retry(&self, failure: &Failure, attempts: u32) -> bool {
        attempts < MAX_ATTEMPTS && is_serialization_conflict(failure)
    }

    /// The server checks its own files.
    async fn check_structure(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        // The sessions with locks end first, so that other processes can acquire the locks.
        *self.leader_session.lock().await = None;
        *self.node_session.lock().await = None;
        self.pool.close().await;
        Ok(())
    }

    async fn acquire_leadership(&self) -> Result<bool> {
        let mut leader_session = self.leader_session.lock().await;
        if let Some(session) = leader_session.as_mut() {
            let ping = tokio::time::timeout(PING_TIMEOUT, session.ping()).await;
            if matches!(ping, Ok(Ok(()))) {
                return Ok(true);
            }
            // The server releases the lock with the session, so another process may be the leader.
            *leader_session = None;
        }
        let session = self.acquire_leader_session().await;
        *leader_session =
            session.map_err(|failure| failure.while_doing("acquiring the leadership"))?;
        Ok(leader_session.is_some())
    }
}

/// Whether this URL sends a password to another machine without TLS: its host is not this machine,
/// and its `sslmode` (or `PGSSLMODE`) does not require encryption. The default, `prefer`, does not.
///
/// # Errors
/// [`LedgerError::Refused`] if it is not a URL of a PostgreSQL server.
pub fn is_unencrypted_remote_postgres(url: &Secret) -> Result<bool> {
    let options = options(url).map_err(|failure| failure.while_doing("reading the URL"))?;
    Ok(is_unencrypted_remote(&options))
}

fn is_unencrypted_remote(options: &PgConnectOptions) -> bool {
    let encrypted = matches!(
        options.get_ssl_mode(),
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull
    );
    let host = options.get_host();
    // The host can be the folder of a Unix socket.
    let is_local = options.get_socket().is_some()
        || host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback());
    !is_local && !encrypted
}

fn options(url: &Secret) -> DbResult<PgConnectOptions> {
    let options: PgConnectOptions = url.expose().parse().map_err(|_| {
        Failure::Ledger(LedgerError::Refused {
            what: "URL of the ledger",
            why: "it is not of the form postgres://user:password@host:port/database".to_owned(),
        })
    })?;
    Ok(options.application_name("throng").statement_cache_capacity(200).disable_statement_logging())
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Creates the database of the options, through the database `postgres`, which every server has.
async fn create_database(options: &PgConnectOptions) -> DbResult<()> {
    let name = options.get_database().unwrap_or("throng").replace('"', "\"\"");
    let mut session = options.clone().database("postgres").connect().await?;
    // A name cannot be a parameter; as a quoted identifier it cannot contain other SQL.
    let statement = format!("CREATE DATABASE \"{name}\"");
    match sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut session).await {
        // Another process may have created it in the meantime.
        Err(error) if !matches!(code(&error).as_deref(), Some("42P04" | "23505")) => {
            Err(error.into())
        }
        _ => Ok(()),
    }
}

/// Runs the migrations that are missing. A new index waits for the transactions that write to its table, while those of
/// the nodes that run may wait for the table of the index before: PostgreSQL ends one side of such a deadlock.
async fn migrate_or_retry(
    connection: &mut PgConnection,
    migrations: &'static [Migration],
) -> DbResult<()> {
    let mut attempts = 0;
    loop {
        let migrated = migrate(connection, migrations).await;
        attempts += 1;
        match migrated {
            Err(failure) if attempts < MAX_ATTEMPTS && is_serialization_conflict(&failure) => {
                back_off(attempts).await;
            }
            other => return other,
        }
    }
}

/// Runs the migrations that are missing, in one transaction: of two processes that open a new
/// ledger at the same time, the second waits for the first and has nothing to do.
async fn migrate(connection: &mut PgConnection, migrations: &'static [Migration]) -> DbResult<()> {
    let mut tx = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *tx).await?;
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS ledger_schema (
            only_row BIGINT PRIMARY KEY CHECK (only_row = 1), version BIGINT NOT NULL)",
    )
    .execute(&mut *tx)
    .await?;
    run_missing!(tx, migrations);
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_another_machine_requires_tls() {
        let plain = |url: &str| is_unencrypted_remote_postgres(&Secret::new(url)).unwrap();
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
        assert!(is_unencrypted_remote_postgres(&Secret::new("EAABnothing")).is_err());
    }
}
