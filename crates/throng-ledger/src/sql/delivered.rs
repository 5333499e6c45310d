//! Delivered states and foreign audiences in SQL. The delivered rows are in objects.

use throng_model::{SyncName, SyncRunId, Timestamp};

use crate::conn::Conn;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow};
use crate::{DeliveredRecord, ForeignAudience, LedgerError, PlatformAudience, Result};

/// SELECT of audiences on platforms, with these clauses.
macro_rules! platform_audiences {
    ($clauses:literal) => {
        concat!(
            "SELECT sync, platform_id, delivered_version, delivered_at FROM platform_audiences ",
            $clauses
        )
    };
}
pub(super) use platform_audiences;

pub(super) fn platform_audience_of(row: &DbRow) -> Result<PlatformAudience> {
    let cells = Cells::new(row, "platform audience");
    Ok(PlatformAudience {
        platform_id: cells.text("platform_id")?,
        delivered_version: cells.maybe_number("delivered_version")?,
        delivered_at: cells.maybe_time("delivered_at")?,
    })
}

pub(super) async fn platform_audience(
    tx: &mut Conn,
    sync: &SyncName,
) -> DbResult<Option<PlatformAudience>> {
    tx.optional(platform_audiences!("WHERE sync = $1"), sync, platform_audience_of).await
}

fn record_of(row: &DbRow) -> Result<DeliveredRecord> {
    let cells = Cells::new(row, "delivered state");
    let (identifiers, replace) = (cells.text("identifiers")?, cells.flag("replaces")?);
    let requested = match cells.maybe_int("requested")? {
        Some(requested) => requested != 0,
        None => replace || identifiers.is_empty(),
    };
    Ok(DeliveredRecord {
        sync: cells.name("sync")?,
        account: cells.text("account")?,
        columns: cells.text("columns")?,
        identifiers,
        state: cells.maybe_text("state")?,
        users: cells.number("users")?,
        run: SyncRunId(cells.int("run")?),
        due: cells.number("due")?,
        retry_at: cells.maybe_time("retry_at")?,
        tries: cells.number("tries")?,
        replace,
        requested,
        tables: cells.maybe_text("tables")?,
    })
}

/// SELECT of delivered states, with these clauses.
macro_rules! records {
    ($clauses:literal) => {
        concat!(
            "SELECT sync, account, columns, identifiers, state, users, run, due, retry_at, tries,
                replaces, requested, tables
             FROM delivered_states ",
            $clauses
        )
    };
}

pub(super) async fn all(tx: &mut Conn) -> DbResult<Vec<DeliveredRecord>> {
    tx.all(records!("ORDER BY sync"), (), record_of).await
}

pub(super) async fn one(tx: &mut Conn, sync: &SyncName) -> DbResult<Option<DeliveredRecord>> {
    tx.optional(records!("WHERE sync = $1"), sync, record_of).await
}

pub(super) async fn put(
    tx: &mut Conn,
    record: &DeliveredRecord,
    recorded: &[SyncRunId],
) -> DbResult<()> {
    tx.execute(
        "INSERT INTO delivered_states (sync, account, state, users, run, due, retry_at, tries,
            replaces, columns, identifiers, requested, tables)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (sync) DO UPDATE SET account = excluded.account, state = excluded.state,
            users = excluded.users, run = excluded.run, due = excluded.due,
            retry_at = excluded.retry_at, tries = excluded.tries, replaces = excluded.replaces,
            columns = excluded.columns, identifiers = excluded.identifiers,
            requested = excluded.requested, tables = excluded.tables",
        (
            &record.sync,
            &record.account,
            record.state.as_deref(),
            record.users,
            record.run,
            record.due,
            record.retry_at,
            record.tries,
            record.replace,
            &record.columns,
            &record.identifiers,
            record.requested,
            record.tables.as_deref(),
        ),
    )
    .await?;
    for run in recorded {
        tx.execute("UPDATE sync_runs SET plan = NULL WHERE id = $1", *run).await?;
    }
    Ok(())
}

pub(super) async fn version(
    tx: &mut Conn,
    sync: &SyncName,
    version: u64,
    now: Timestamp,
) -> DbResult<()> {
    let text =
        "UPDATE platform_audiences SET delivered_version = $2, delivered_at = $3 WHERE sync = $1";
    if tx.execute(text, (sync, version, now)).await? == 0 {
        return Err(LedgerError::not_found("audience on the platform", sync).into());
    }
    Ok(())
}

pub(super) async fn put_foreign(
    tx: &mut Conn,
    sync: &SyncName,
    platform_id: &str,
    run: SyncRunId,
) -> DbResult<()> {
    keep_former(tx, sync).await?;
    tx.execute(
        "INSERT INTO foreign_audiences (sync, platform_id, run, found) VALUES ($1, $2, $3, 1)
         ON CONFLICT (sync) DO UPDATE SET platform_id = excluded.platform_id,
            run = excluded.run, found = excluded.found",
        (sync, platform_id, run),
    )
    .await?;
    Ok(())
}

fn foreign_of(row: &DbRow) -> Result<ForeignAudience> {
    let cells = Cells::new(row, "foreign audience");
    Ok(ForeignAudience {
        sync: cells.name("sync")?,
        platform_id: cells.text("platform_id")?,
        run: SyncRunId(cells.int("run")?),
        found: cells.flag("found")?,
    })
}

/// The foreign audiences, and the former ones that are not their sync's own again.
pub(super) async fn foreign(tx: &mut Conn) -> DbResult<Vec<ForeignAudience>> {
    let text = "SELECT sync, platform_id, run, found FROM foreign_audiences
         UNION ALL
         SELECT sync, platform_id, run, 0 FROM former_audiences
         WHERE NOT EXISTS (SELECT 1 FROM foreign_audiences
                WHERE foreign_audiences.sync = former_audiences.sync
                    AND foreign_audiences.platform_id = former_audiences.platform_id)
            AND NOT EXISTS (SELECT 1 FROM platform_audiences
                WHERE platform_audiences.sync = former_audiences.sync
                    AND platform_audiences.platform_id = former_audiences.platform_id)
         ORDER BY sync, platform_id";
    tx.all(text, (), foreign_of).await
}

/// Deletes the foreign audience of a sync. One that the sync had itself becomes a former one.
pub(super) async fn delete_foreign(tx: &mut Conn, sync: &SyncName) -> DbResult<()> {
    keep_former(tx, sync).await?;
    tx.execute("DELETE FROM foreign_audiences WHERE sync = $1", sync).await?;
    Ok(())
}

/// Keeps the audience that a sync had and that was released, before its row is deleted or replaced: on the platform it still
/// has the mark of the sync, so nothing else tells that it has users whom a later run does not know.
async fn keep_former(tx: &mut Conn, sync: &SyncName) -> DbResult<()> {
    tx.execute(
        "INSERT INTO former_audiences (sync, platform_id, run)
         SELECT sync, platform_id, run FROM foreign_audiences WHERE sync = $1 AND found = 0
         ON CONFLICT (sync, platform_id) DO UPDATE SET run = excluded.run",
        sync,
    )
    .await?;
    Ok(())
}

/// Makes the audience of a sync a foreign one, because it has the users that the sync's runs have
/// sent.
async fn detach_audience(tx: &mut Conn, sync: &SyncName) -> DbResult<()> {
    keep_former(tx, sync).await?;
    tx.execute(
        "INSERT INTO foreign_audiences (sync, platform_id, run, found)
         SELECT sync, platform_id,
            (SELECT coalesce(max(id), 0) FROM sync_runs WHERE sync_runs.sync = $1), 0
         FROM platform_audiences WHERE sync = $1
         ON CONFLICT (sync) DO UPDATE SET platform_id = excluded.platform_id,
            run = excluded.run, found = excluded.found",
        sync,
    )
    .await?;
    tx.execute("DELETE FROM platform_audiences WHERE sync = $1", sync).await?;
    Ok(())
}

/// Records a delivered state if it has not changed since it was read as `before`.
pub(super) async fn replace(
    tx: &mut Conn,
    before: Option<&DeliveredRecord>,
    record: &DeliveredRecord,
    recorded: &[SyncRunId],
) -> DbResult<bool> {
    if one(tx, &record.sync).await?.as_ref() != before {
        return Ok(false);
    }
    put(tx, record, recorded).await?;
    Ok(true)
}

/// Records whether a run of a sync is requested and not planned yet.
pub(super) async fn set_requested(tx: &mut Conn, sync: &SyncName, requested: bool) -> DbResult<()> {
    let text = "UPDATE delivered_states SET requested = $2 WHERE sync = $1";
    tx.execute(text, (sync, requested)).await?;
    Ok(())
}

/// Clears the recorded fingerprint of the identifiers, so that the next planning compares the sync
/// with its delivered state again, also if its newest run failed.
pub(super) async fn reset_identifiers(tx: &mut Conn, sync: &SyncName) -> DbResult<()> {
    tx.execute("UPDATE delivered_states SET identifiers = '' WHERE sync = $1", sync).await?;
    set_requested(tx, sync, true).await
}

/// Deletes the delivered state of a sync whose audience is deleted or empty. Unlike after
/// [`forget`], the audience is not a foreign one afterwards.
pub(super) async fn delete_all(tx: &mut Conn, sync: &SyncName) -> DbResult<()> {
    delete_foreign(tx, sync).await?;
    for statement in [
        "DELETE FROM former_audiences WHERE sync = $1 AND platform_id IN
            (SELECT platform_id FROM platform_audiences WHERE sync = $1)",
        "DELETE FROM platform_audiences WHERE sync = $1",
        "DELETE FROM delivered_states WHERE sync = $1",
        "UPDATE sync_runs SET plan = NULL WHERE sync = $1 AND plan IS NOT NULL",
    ] {
        tx.execute(statement, sync).await?;
    }
    Ok(())
}

pub(super) async fn forget(
    tx: &mut Conn,
    sync: &SyncName,
    reason: &str,
    now: Timestamp,
) -> DbResult<()> {
    detach_audience(tx, sync).await?;
    tx.execute("DELETE FROM delivered_states WHERE sync = $1", sync).await?;
    tx.execute(
        "UPDATE tasks SET state = 'failed', holder = NULL, lease_until = NULL, finished_at = $2,
            last_error = $3
         WHERE sync = $1 AND state IN ('queued', 'running', 'held')",
        (sync, now, reason),
    )
    .await?;
    tx.execute(
        "UPDATE sync_runs SET state = 'failed', finished_at = $2, reason = $3
         WHERE sync = $1 AND state IN ('active', 'held')",
        (sync, now, reason),
    )
    .await?;
    let text = "UPDATE sync_runs SET plan = NULL WHERE sync = $1 AND plan IS NOT NULL";
    tx.execute(text, sync).await?;
    Ok(())
}
