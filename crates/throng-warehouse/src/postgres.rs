//! PostgreSQL, and servers that speak its protocol.
//!
//! A snapshot of the tables lasts as long as the transaction that took it, and no other process can
//! continue that transaction. So the whole result is one page: a server-side cursor in a read-only
//! transaction at `REPEATABLE READ` reads the tables as they were at one moment, and a job whose
//! connection is lost is replaced as a whole. Rows of two moments are never in one result.
//!
//! A source with `key_range_rows` is read in ranges of a hash of the key ([`ranges`]), each of which is a page. One
//! transaction reads them one after another; if it is lost, another one goes on behind the last range.

mod describe;
mod failure;
mod keys;
mod ranges;

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use serde::Deserialize as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Row, TypeInfo};
use throng_lake::{ColumnFacts, KeyKind};
use throng_model::{HashSeed, Secret};
use throng_refresh::{
    KeySink, Page, PageRequest, QueryPlan, Session, Warehouse, WarehouseError, WarehouseJob,
};
use throng_spec::PostgresSettings;

use crate::columns::key_position;
use failure::{connecting, failed, lost, reading, reading_range};
use ranges::{KeyRow, Range, RangeCursor};

/// Limit of connecting and beginning a transaction.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit of a check, which waits for locks of tables, and for an answer if the network is interrupted: `plan` and
/// `apply` must not wait for `statement_timeout_secs`.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings of a session that only some servers and versions have; others work without them.
const OPTIONAL_SETTINGS: [&str; 7] = [
    // The driver logs notices, which may contain values of the data.
    "SET client_min_messages = 'error'",
    // The server notices within seconds that the machine of a reader has died.
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 3",
    // It stops a statement whose reader is gone, and ends the transaction of a paused process: an
    // open transaction keeps VACUUM from removing old rows.
    "SET client_connection_check_interval = '10s'",
    "SET idle_in_transaction_session_timeout = '5min'",
    // All rows are read, so the fastest plan for all of them is the right one.
    "SET cursor_tuple_fraction = 1.0",
];

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const CHECKING: &str = "checking the SQL";

/// A database of a PostgreSQL server.
pub(crate) struct Postgres {
    options: PgConnectOptions,
    statement_timeout_ms: u64,
    page_rows: u32,
    /// The rows of a key range, if results are read in such.
    key_range_rows: Option<u32>,
    /// Server, database and user, as cursors of key ranges have them.
    name: String,
}

/// A transaction that reads key ranges, between two of them.
struct OpenRanges {
    connection: PgConnection,
    kind: KeyKind,
    /// Rows that were fetched, and belong to the next ranges.
    rows: VecDeque<KeyRow>,
    key: ColumnFacts,
    /// The next range; `None` before the first one.
    next: Option<RangeCursor>,
}

/// A result: its columns with their types, and the key column.
struct Columns {
    all: Vec<(String, String)>,
    at: usize,
    kind: KeyKind,
}

impl Postgres {
    /// Makes no call.
    pub(crate) fn open(
        settings: &PostgresSettings,
        password: Option<&Secret>,
    ) -> Result<Self, WarehouseError> {
        // In the form that the limits of specs are compared with.
        let server = settings.server().map_err(|_| WarehouseError::Refused {
            message: "the host of the source is not the name of a server".to_owned(),
            help: None,
        })?;
        let options = PgConnectOptions::new_without_pgpass()
            .host(server.host())
            .port(server.port())
            .database(&settings.database)
            .username(&settings.username)
            // Never that of the environment, which belongs to another server.
            .password(password.map_or("", Secret::expose))
            .ssl_mode(if settings.tls { PgSslMode::VerifyFull } else { PgSslMode::Disable })
            // Not known to all servers, and a float is not a key.
            .extra_float_digits(None::<i8>)
            .disable_statement_logging();
        let statement_timeout_ms = u64::from(settings.statement_timeout_secs) * 1_000;
        Ok(Self {
            options,
            statement_timeout_ms,
            page_rows: settings.page_rows,
            key_range_rows: settings.key_range_rows,
            name: format!("{server}/{} as {}", settings.database, settings.username),
        })
    }

    /// A session in a transaction that reads. `name` is shown in `pg_stat_activity`.
    async fn begin(&self, name: &str) -> Result<PgConnection, WarehouseError> {
        let begun = async {
            let options = self.options.clone().application_name(name);
            let mut session = options.connect().await?;
            for setting in OPTIONAL_SETTINGS {
                match sqlx::raw_sql(setting).execute(&mut session).await {
                    Err(error) if error.as_database_error().is_none() => return Err(error),
                    _ => {}
                }
            }
            let timeout = format!("SET statement_timeout = {}", self.statement_timeout_ms);
            sqlx::raw_sql(AssertSqlSafe(timeout)).execute(&mut session).await?;
            sqlx::raw_sql(BEGIN).execute(&mut session).await?;
            Ok(session)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, begun).await {
            Ok(begun) => begun.map_err(|error| connecting(&error)),
            Err(_) => {
                let message = "connecting to PostgreSQL timed out".to_owned();
                Err(WarehouseError::Unavailable { message, after: None })
            }
        }
    }

    /// Reads the result of a query through a cursor.
    async fn read(
        &self,
        session: &mut PgConnection,
        request: &PageRequest<'_>,
        sink: &mut KeySink<'_>,
    ) -> Result<Page, WarehouseError> {
        let job = name_of(request.job);
        let described = describe(session, request.sql).await;
        let described = described.map_err(|error| reading(&error, &job, Some(request.sql)))?;
        let Columns { mut all, at, kind } = columns(described, request.key)?;
        let (name, of) = all.swap_remove(at);
        let key = ColumnFacts::key(name, of);
        let lost_while = |error: sqlx::Error| reading(&error, &job, None);
        declare(session, request.sql).await.map_err(lost_while)?;
        let fetch = format!("FETCH FORWARD {} FROM throng", self.page_rows);
        let (mut rows, mut null_keys, mut padded_keys) = (0, 0, 0);
        loop {
            let mut hashes = Vec::new();
            let mut nulls = 0;
            let query =
                sqlx::query::<sqlx::Postgres>(AssertSqlSafe(fetch.clone())).persistent(false);
            let mut fetched = query.fetch(&mut *session);
            while let Some(row) = fetched.try_next().await.map_err(lost_while)? {
                match keys::hash_of_row(&row, at, kind, request.seed) {
                    Some(Some(hash)) => {
                        padded_keys += u64::from(keys::is_padded_row(&row, at, kind));
                        hashes.push(hash);
                    }
                    Some(None) => nulls += 1,
                    None => return Err(failed("a key does not have the form of its type")),
                }
            }
            drop(fetched);
            let read = hashes.len() as u64 + nulls;
            if read == 0 {
                break;
            }
            sink(&hashes, nulls)?;
            rows += read;
            null_keys += nulls;
        }
        // Nothing is written: this shows that the transaction lasted until here.
        sqlx::raw_sql("COMMIT").execute(&mut *session).await.map_err(lost_while)?;
        let (total_rows, is_later, next) = (Some(rows), false, None);
        Ok(Page { rows, null_keys, padded_keys, total_rows, is_later, key, next })
    }

    /// Reads a key range of `limit` rows: in the transaction that has read the one before it, or in another one.
    async fn range(
        &self,
        request: &PageRequest<'_>,
        limit: u32,
        sink: &mut KeySink<'_>,
        session: &mut Session,
    ) -> Result<Page, WarehouseError> {
        let job = name_of(request.job);
        let cursor = request.cursor.map(RangeCursor::deserialize).transpose();
        let cursor =
            cursor.map_err(|_| lost(&job, "its cursor is that of another kind of source"))?;
        if cursor.as_ref().is_some_and(|cursor| cursor.source != self.name) {
            return Err(lost(&job, "its source has another server, database or user"));
        }
        let open = session.take::<OpenRanges>();
        let open = open.filter(|open| open.next.is_some() && open.next == cursor);
        let is_later = open.is_none() && cursor.is_some();
        let mut open = match open {
            Some(open) => open,
            None => self.begin_ranges(request, &job, cursor).await?,
        };
        let lost_while =
            |error: sqlx::Error| reading_range(&error, &job, None, request.cursor.is_some());
        let (mut range, mut is_full) = (Range::default(), false);
        while !is_full {
            if open.rows.is_empty() {
                fetch(&mut open, self.page_rows, request.seed, lost_while).await?;
                if open.rows.is_empty() {
                    break;
                }
            }
            let taken = range.take(&mut open.rows, limit.into());
            is_full = taken.is_full;
            sink(&taken.hashes, taken.null_keys)?;
        }
        let Range { rows, null_keys, padded_keys, last } = range;
        let (key, rows_before) = (open.key.clone(), open.next.as_ref().map_or(0, |next| next.rows));
        let read = rows_before + rows;
        let (total_rows, next) = match last {
            Some(behind) if is_full => {
                let (source, key) = (self.name.clone(), key.clone());
                let next = RangeCursor { source, key, behind, rows: read };
                let value = serde_json::to_value(&next);
                session.put(OpenRanges { next: Some(next), ..open });
                (None, Some(value.map_err(|_| failed("its position cannot be recorded"))?))
            }
            _ => {
                // As in `read`.
                let end = sqlx::raw_sql("COMMIT").execute(&mut open.connection).await;
                end.map_err(lost_while)?;
                let _ = open.connection.close().await;
                (Some(read), None)
            }
        };
        Ok(Page { rows, null_keys, padded_keys, total_rows, is_later, key, next })
    }

    /// A transaction with a cursor for the rows of a range and all behind it.
    async fn begin_ranges(
        &self,
        request: &PageRequest<'_>,
        job: &str,
        next: Option<RangeCursor>,
    ) -> Result<OpenRanges, WarehouseError> {
        let mut connection = self.begin(job).await?;
        let (sql, goes_on) = (request.sql, next.is_some());
        let described = describe(&mut connection, sql).await;
        let described =
            described.map_err(|error| reading_range(&error, job, Some(sql), goes_on))?;
        let Columns { mut all, at, kind } = columns(described, request.key)?;
        let (name, of) = all.swap_remove(at);
        let key = ColumnFacts::key(name, of);
        if next.as_ref().is_some_and(|next| next.key != key) {
            return Err(lost(job, "its key column has another name or type"));
        }
        // Positions of two refreshes are not comparable, so that what the ledger keeps of them tells nothing together.
        let seed = request.job.refresh.0;
        let behind = next.as_ref().map(|next| next.behind);
        let statement = ranges::statement(sql, &key.name, kind, seed, behind);
        let declared = declare(&mut connection, &statement).await;
        declared.map_err(|error| reading_range(&error, job, None, goes_on))?;
        Ok(OpenRanges { connection, kind, rows: VecDeque::new(), key, next })
    }
}

#[async_trait]
impl Warehouse for Postgres {
    async fn check(&self, sql: &str, key: Option<&str>) -> Result<QueryPlan, WarehouseError> {
        let mut session = self.begin("throng").await?;
        // A session that gives no answer is dropped, which closes its connection.
        let in_ranges = self.key_range_rows.is_some();
        let plan = match within(CHECK_TIMEOUT, plan(&mut session, sql, key, in_ranges)).await {
            Some(plan) => plan,
            None => return Err(no_answer()),
        };
        // The server ends the transaction, whether or not it gets the message.
        let _ = session.close().await;
        plan
    }

    async fn page(
        &self,
        request: &PageRequest<'_>,
        keys: &mut KeySink<'_>,
        session: &mut Session,
    ) -> Result<Page, WarehouseError> {
        if let Some(limit) = self.key_range_rows {
            return self.range(request, limit, keys, session).await;
        }
        let job = name_of(request.job);
        if request.cursor.is_some() {
            return Err(lost(&job, "its cursor is that of another kind of source"));
        }
        let mut session = self.begin(&job).await?;
        let page = self.read(&mut session, request, keys).await?;
        let _ = session.close().await;
        Ok(page)
    }
}

/// The result of a call, unless it takes longer than `limit`.
async fn within<T>(limit: Duration, call: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, call).await.ok()
}

/// A check that takes too long: it says nothing about the SQL.
fn no_answer() -> WarehouseError {
    let seconds = CHECK_TIMEOUT.as_secs();
    let message = format!(
        "{CHECKING} in PostgreSQL failed: no answer within {seconds} seconds; a table may be locked"
    );
    WarehouseError::Unavailable { message, after: None }
}

/// Fetches rows; none after the last one.
async fn fetch(
    open: &mut OpenRanges,
    rows: u32,
    seed: HashSeed,
    lost_while: impl Fn(sqlx::Error) -> WarehouseError,
) -> Result<(), WarehouseError> {
    let fetch = AssertSqlSafe(format!("FETCH FORWARD {rows} FROM throng"));
    let query = sqlx::query::<sqlx::Postgres>(fetch).persistent(false);
    let mut fetched = query.fetch(&mut open.connection);
    while let Some(row) = fetched.try_next().await.map_err(&lost_while)? {
        let position = row.try_get::<i64, _>(1);
        let position = position.map_err(|_| failed("a row has no position"))?;
        let key = keys::hash_of_row(&row, 0, open.kind, seed);
        let key = key.ok_or_else(|| failed("a key does not have the form of its type"))?;
        let is_padded = key.is_some() && keys::is_padded_row(&row, 0, open.kind);
        open.rows.push_back(KeyRow { position, key, is_padded });
    }
    Ok(())
}

/// The plan of a query. Its cursor is declared, and no row of it is read. `in_ranges`: for reading it in key ranges.
async fn plan(
    session: &mut PgConnection,
    sql: &str,
    key: Option<&str>,
    in_ranges: bool,
) -> Result<QueryPlan, WarehouseError> {
    let refused = |error: sqlx::Error| failure::error(&error, CHECKING, None);
    let described = describe(session, sql).await;
    let described = described.map_err(|error| failure::error(&error, CHECKING, Some(sql)))?;
    let Columns { all, at, kind } = columns(described, key)?;
    let ranges = in_ranges.then(|| ranges::statement(sql, &all[at].0, kind, 0, None));
    let sql = ranges.as_deref().unwrap_or(sql);
    let explain = AssertSqlSafe(format!("EXPLAIN {sql}"));
    let explain = sqlx::query::<sqlx::Postgres>(explain).persistent(false);
    let lines = explain.fetch_all(&mut *session).await.map_err(refused)?;
    let mut lines = lines.iter().filter_map(|row| row.try_get::<String, _>(0).ok());
    let estimated_rows = lines.find_map(|line| estimated_rows(&line));
    declare(session, sql).await.map_err(refused)?;
    let key_column = all[at].0.clone();
    Ok(QueryPlan {
        columns: all,
        key_column,
        key_kind: kind,
        estimated_rows,
        bytes_processed: None,
        cost: None,
    })
}

/// What a job is called in `pg_stat_activity` and in errors. The server cuts it after 63 bytes.
fn name_of(job: &WarehouseJob) -> String {
    format!("throng {}.{} {}", job.refresh, job.attempt, job.audience)
}

/// The columns of a query with their types. The server parses it, and checks rights.
async fn describe(session: &mut PgConnection, sql: &str) -> sqlx::Result<Vec<(String, String)>> {
    let sql = AssertSqlSafe(describe::describing(sql));
    let row = sqlx::query::<sqlx::Postgres>(sql).persistent(false).fetch_one(session).await?;
    let columns = row.columns().iter();
    let columns = columns.map(|one| (one.name().to_owned(), one.type_info().name().to_owned()));
    Ok(columns.collect())
}

/// Declares the cursor `throng`. The server takes one statement only, and refuses one that writes.
async fn declare(session: &mut PgConnection, sql: &str) -> sqlx::Result<()> {
    let declare = AssertSqlSafe(format!("DECLARE throng CURSOR FOR {sql}"));
    sqlx::query::<sqlx::Postgres>(declare).persistent(false).execute(session).await?;
    Ok(())
}

fn columns(all: Vec<(String, String)>, key: Option<&str>) -> Result<Columns, WarehouseError> {
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    let at = key_position(&names, key)?;
    let kind = keys::kind_of(&all[at].0, &all[at].1)?;
    Ok(Columns { all, at, kind })
}

/// The estimate in the first line of a plan: `Seq Scan on t  (cost=0.00..35.50 rows=2550 width=4)`.
fn estimated_rows(line: &str) -> Option<u64> {
    let (_, rest) = line.rsplit_once("(cost=")?;
    let (_, rows) = rest.split_once(" rows=")?;
    let (rows, _) = rows.split_once(" width=")?;
    rows.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_of_a_plan_is_read() {
        for line in [
            "Seq Scan on clicks  (cost=0.00..35.50 rows=2550 width=4)",
            "XN Seq Scan on clicks  (cost=0.00..35.50 rows=2550 width=4)",
        ] {
            assert_eq!(estimated_rows(line), Some(2550), "{line}");
        }
        assert_eq!(estimated_rows("  Filter: (name = 'rows=1 width=2'::text)"), None);
    }

    #[tokio::test]
    async fn a_check_without_an_answer_ends_and_does_not_refuse_the_sql() {
        let limit = Duration::from_millis(1);
        assert_eq!(within(limit, std::future::pending::<()>()).await, None);
        assert_eq!(within(limit, std::future::ready(1)).await, Some(1));
        assert_eq!(no_answer().retry(), throng_model::Retry::Backoff);
    }

    #[test]
    fn a_password_is_not_in_errors() {
        let settings = PostgresSettings {
            host: "db/x".to_owned(),
            port: 5_432,
            database: "d".to_owned(),
            username: "u".to_owned(),
            password: None,
            tls: true,
            insecure: false,
            page_rows: 1,
            key_range_rows: None,
            statement_timeout_secs: 1,
            timeout_secs: 60,
        };
        let Err(error) = Postgres::open(&settings, Some(&Secret::new("hunter2"))) else { panic!() };
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
