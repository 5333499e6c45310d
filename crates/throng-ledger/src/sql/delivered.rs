//! Delivered states and foreign audiences in SQL. The delivered rows are in objects.

use throng_model::{SyncName, SyncRunId, Timestamp};

use super::{Backend, Conn, DbResult, DbRow, read_one, write_one, write_tx};
use crate::rows::{Cells, count};
use crate::{DeliveredRecord, ForeignAudience, LedgerError, Result};

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
    read_one!(backend, "reading the delivered states", |tx| {
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
    write_tx!(backend, Full, "recording a delivered state", |tx| {
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

pub(super) async fn put_foreign(
    backend: &Backend,
    sync: &SyncName,
    platform_id: &str,
    run: SyncRunId,
) -> Result<()> {
    write_one!(backend, Full, "recording a foreign audience", |tx| {
        sqlx::query(
            "INSERT INTO foreign_audiences (sync, platform_id, run, found) VALUES ($1, $2, $3, 1)
             ON CONFLICT (sync) DO UPDATE SET platform_id = excluded.platform_id,
                run = excluded.run, found = excluded.found",
        )
        .bind(sync.as_str())
        .bind(platform_id)
        .bind(run.0)
        .execute(tx)
        .await?;
    })
}

pub(super) async fn foreign(backend: &Backend) -> Result<Vec<ForeignAudience>> {
    read_one!(backend, "reading the foreign audiences", |tx| {
        let rows = sqlx::query(
            "SELECT sync, platform_id, run, found FROM foreign_audiences ORDER BY sync",
        )
        .fetch_all(tx)
        .await?;
        let mut foreign = Vec::with_capacity(rows.len());
        for row in &rows {
            let cells = Cells::new(row, "foreign audience");
            foreign.push(ForeignAudience {
                sync: cells.name("sync")?,
                platform_id: cells.text("platform_id")?,
                run: SyncRunId(cells.int("run")?),
                found: cells.int("found")? != 0,
            });
        }
        foreign
    })
}

pub(super) async fn delete_foreign(tx: &mut Conn, sync: &SyncName) -> DbResult<()> {
    sqlx::query("DELETE FROM foreign_audiences WHERE sync = $1")
        .bind(sync.as_str())
        .execute(tx)
        .await?;
    Ok(())
}

/// Makes the audience of a sync a foreign one, because it has the users that the sync's runs have
/// sent.
async fn detach_audience(tx: &mut Conn, sync: &SyncName) -> DbResult<()> {
    sqlx::query(
        "INSERT INTO foreign_audiences (sync, platform_id, run, found)
         SELECT sync, platform_id,
            (SELECT coalesce(max(id), 0) FROM sync_runs WHERE sync_runs.sync = $1), 0
         FROM platform_audiences WHERE sync = $1
         ON CONFLICT (sync) DO UPDATE SET platform_id = excluded.platform_id,
            run = excluded.run, found = excluded.found",
    )
    .bind(sync.as_str())
    .execute(&mut *tx)
    .await?;
    sqlx::query("DELETE FROM platform_audiences WHERE sync = $1")
        .bind(sync.as_str())
        .execute(tx)
        .await?;
    Ok(())
}

/// Clears the recorded fingerprint of the identifiers, so that the next planning compares the sync
/// with its delivered state again.
pub(super) async fn reset_identifiers(tx: &mut Conn, sync: &SyncName) -> DbResult<()> {
    sqlx::query("UPDATE delivered_states SET identifiers = '' WHERE sync = $1")
        .bind(sync.as_str())
        .execute(tx)
        .await?;
    Ok(())
}

/// Deletes the delivered state of a sync whose audience is deleted or empty. Unlike after
/// [`forget`], the audience is not a foreign one afterwards.
pub(super) async fn delete_all(tx: &mut Conn, sync: &SyncName) -> DbResult<()> {
    delete_foreign(tx, sync).await?;
    for statement in [
        "DELETE FROM platform_audiences WHERE sync = $1",
        "DELETE FROM delivered_states WHERE sync = $1",
        "UPDATE sync_runs SET plan = NULL WHERE sync = $1 AND plan IS NOT NULL",
    ] {
        sqlx::query(statement).bind(sync.as_str()).execute(&mut *tx).await?;
    }
    Ok(())
}

pub(super) async fn forget(
    backend: &Backend,
    sync: &SyncName,
    reason: &str,
    now: Timestamp,
) -> Result<()> {
    write_tx!(backend, Full, "forgetting a delivered state", |tx| {
        detach_audience(tx, sync).await?;
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
