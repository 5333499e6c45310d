//! What platforms were given, in SQL. The rows themselves are in objects.

use throng_model::{SyncName, SyncRunId, Timestamp};

use super::{Backend, Conn, DbRow, Tried, read_one, write_one, write_tx};
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

pub(super) async fn forget_foreign(tx: &mut Conn, sync: &SyncName) -> Tried<()> {
    sqlx::query("DELETE FROM foreign_audiences WHERE sync = $1")
        .bind(sync.as_str())
        .execute(tx)
        .await?;
    Ok(())
}

/// The sync lets go of its audience, which holds what its runs have sent.
async fn let_go(tx: &mut Conn, sync: &SyncName) -> Tried<()> {
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

/// What the sync has to send is looked at once more, as if a person had asked for a run.
pub(super) async fn look_again(tx: &mut Conn, sync: &SyncName) -> Tried<()> {
    sqlx::query("UPDATE delivered_states SET identifiers = '' WHERE sync = $1")
        .bind(sync.as_str())
        .execute(tx)
        .await?;
    Ok(())
}

/// Forgets the audience of a sync that is on the platform no longer, or has nobody in it: unlike
/// [`forget`], it is no foreign audience afterwards.
pub(super) async fn forget_all(tx: &mut Conn, sync: &SyncName) -> Tried<()> {
    forget_foreign(tx, sync).await?;
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
    write_tx!(backend, Full, "forgetting what was delivered", |tx| {
        let_go(tx, sync).await?;
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
