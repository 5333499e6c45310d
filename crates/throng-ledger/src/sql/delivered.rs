//! What platforms were given, in SQL. The rows themselves are in objects.

use throng_model::{SyncName, SyncRunId, Timestamp};

use super::{Backend, DbRow, read_one, write_tx};
use crate::rows::{Cells, count};
use crate::{DeliveredRecord, LedgerError, Result};

fn record_of(row: &DbRow) -> Result<DeliveredRecord> {
    let cells = Cells::new(row, "delivered state");
    Ok(DeliveredRecord {
        sync: cells.name("sync")?,
        account: cells.text("account")?,
        columns: cells.text("columns")?,
        identifiers: cells.text("identifiers")?,
        state: cells.maybe_text("state")?,
        users: cells.number("users")?,
        run: SyncRunId(cells.int("run")?),
        due: cells.number("due")?,
        retry_at: cells.maybe_time("retry_at")?,
        tries: cells.number("tries")?,
        replace: cells.int("replaces")? != 0,
    })
}

pub(super) async fn all(backend: &Backend) -> Result<Vec<DeliveredRecord>> {
    read_one!(backend, "reading what was delivered", |tx| {
        let rows = sqlx::query(
            "SELECT sync, account, columns, identifiers, state, users, run, due, retry_at, tries,
                replaces
             FROM delivered_states ORDER BY sync",
        )
        .fetch_all(tx)
        .await?;
        rows.iter().map(record_of).collect::<Result<_>>()?
    })
}

pub(super) async fn put(
    backend: &Backend,
    record: &DeliveredRecord,
    recorded: &[SyncRunId],
) -> Result<()> {
    write_tx!(backend, Full, "recording what was delivered", |tx| {
        sqlx::query(
            "INSERT INTO delivered_states (sync, account, state, users, run, due, retry_at, tries,
                replaces, columns, identifiers)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (sync) DO UPDATE SET account = excluded.account, state = excluded.state,
                users = excluded.users, run = excluded.run, due = excluded.due,
                retry_at = excluded.retry_at, tries = excluded.tries, replaces = excluded.replaces,
                columns = excluded.columns, identifiers = excluded.identifiers",
        )
        .bind(record.sync.as_str())
        .bind(record.account.as_str())
        .bind(record.state.as_deref())
        .bind(count(record.users))
        .bind(record.run.0)
        .bind(count(record.due))
        .bind(record.retry_at.map(|at| at.0))
        .bind(i64::from(record.tries))
        .bind(i64::from(record.replace))
        .bind(record.columns.as_str())
        .bind(record.identifiers.as_str())
        .execute(&mut *tx)
        .await?;
        for run in recorded {
            sqlx::query("UPDATE sync_runs SET plan = NULL WHERE id = $1")
                .bind(run.0)
                .execute(&mut *tx)
                .await?;
        }
    })
}

pub(super) async fn version(
    backend: &Backend,
    sync: &SyncName,
    version: u64,
    now: Timestamp,
) -> Result<()> {
    write_tx!(backend, Full, "recording a delivered version", |tx| {
        let changed = sqlx::query(
            "UPDATE platform_audiences SET delivered_version = $2, delivered_at = $3 WHERE sync = $1",
        )
        .bind(sync.as_str())
        .bind(count(version))
        .bind(now.0)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if changed == 0 {
            let name = sync.to_string();
            return Err(LedgerError::NotFound { what: "audience on the platform", name }.into());
        }
    })
}

pub(super) async fn forget(
    backend: &Backend,
    sync: &SyncName,
    reason: &str,
    now: Timestamp,
) -> Result<()> {
    write_tx!(backend, Full, "forgetting what was delivered", |tx| {
        sqlx::query("DELETE FROM platform_audiences WHERE sync = $1")
            .bind(sync.as_str())
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM delivered_states WHERE sync = $1")
            .bind(sync.as_str())
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "UPDATE tasks SET state = 'failed', holder = NULL, lease_until = NULL, finished_at = $2,
                last_error = $3
             WHERE sync = $1 AND state IN ('queued', 'running', 'held')",
        )
        .bind(sync.as_str())
        .bind(now.0)
        .bind(reason)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "UPDATE sync_runs SET state = 'failed', finished_at = $2, reason = $3
             WHERE sync = $1 AND state IN ('active', 'held')",
        )
        .bind(sync.as_str())
        .bind(now.0)
        .bind(reason)
        .execute(&mut *tx)
        .await?;
        sqlx::query("UPDATE sync_runs SET plan = NULL WHERE sync = $1 AND plan IS NOT NULL")
            .bind(sync.as_str())
            .execute(tx)
            .await?;
    })
}
