//! The rows of refreshes: read, claimed, queued.

use throng_model::{AudienceName, RefreshId, Timestamp};
use throng_sql::statement::StatementBuilder;

use crate::conn::Conn;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow, json};
use crate::{ClaimFilter, LedgerError, Refresh, RefreshState, RefreshTrigger, Result};

/// The columns of a refresh, for SELECT and RETURNING.
macro_rules! refresh_columns {
    () => {
        "id, audience, state, started_by, scheduled_at, started_at, finished_at, not_before,
         failures, claims, holder, lease_until, rows_read, null_keys, rows_expected, reason,
         snapshot_version, forced, unchanged, by_source"
    };
}
pub(super) use refresh_columns;

/// SELECT of refreshes, with these clauses.
macro_rules! select_refreshes {
    ($clauses:literal) => {
        concat!("SELECT ", refresh_columns!(), " FROM refreshes ", $clauses)
    };
}
pub(super) use select_refreshes;

/// The refresh of a row.
pub(super) fn refresh_of(row: &DbRow) -> Result<Refresh> {
    let cells = Cells::new(row, "refresh");
    let state = cells.variant("state")?;
    let claims: u32 = cells.number("claims")?;
    let crashes = match state {
        // Neither the current try is a crash, nor one that has ended.
        RefreshState::Processing => claims.saturating_sub(1),
        RefreshState::Completed | RefreshState::Held => 0,
        _ => claims,
    };
    Ok(Refresh {
        id: RefreshId(cells.int("id")?),
        audience: cells.name("audience")?,
        state,
        trigger: match cells.flag("by_source")? {
            true => RefreshTrigger::SourceChanged,
            false => cells.variant("started_by")?,
        },
        scheduled_at: cells.time("scheduled_at")?,
        started_at: cells.maybe_time("started_at")?,
        finished_at: cells.maybe_time("finished_at")?,
        not_before: cells.time("not_before")?,
        failures: cells.number("failures")?,
        crashes,
        holder: cells.maybe_text("holder")?,
        lease_until: cells.maybe_time("lease_until")?,
        rows_read: cells.number("rows_read")?,
        null_keys: cells.number("null_keys")?,
        rows_expected: cells.maybe_number("rows_expected")?,
        // Earlier versions did not remove the reason of the hold when a refresh was approved.
        reason: cells.maybe_text("reason")?.filter(|_| state != RefreshState::Completed),
        snapshot_version: cells.maybe_number("snapshot_version")?,
        forced: cells.flag("forced")?,
        unchanged: cells.flag("unchanged")?,
    })
}

/// One refresh, or `NotFound`.
pub(super) async fn get(tx: &mut Conn, id: RefreshId) -> DbResult<Refresh> {
    let refresh = tx.optional(select_refreshes!("WHERE id = $1"), id, refresh_of).await?;
    Ok(refresh.ok_or_else(|| LedgerError::not_found("refresh", id))?)
}

/// One refresh, if `holder` has its lease; else `LeaseLost`. A holder's writes call this in their
/// transaction: a builder that was paused must not overwrite the work of the next one.
pub(super) async fn get_leased_by(tx: &mut Conn, id: RefreshId, holder: &str) -> DbResult<Refresh> {
    let refresh = get(tx, id).await?;
    if refresh.holder.as_deref() == Some(holder) {
        Ok(refresh)
    } else {
        Err(LedgerError::lease_lost("refresh", id).into())
    }
}

/// Appends the condition of a WHERE clause that a refresh is of an audience of the filter.
pub(super) fn filtered(
    statement: StatementBuilder,
    filter: ClaimFilter<'_>,
) -> Result<StatementBuilder> {
    let (condition, audiences) = match filter {
        ClaimFilter::All => return Ok(statement),
        // With the states, so that SQLite uses the index of open refreshes: that of audiences has all of them.
        ClaimFilter::Only(audiences) => {
            (" AND state IN ('scheduled', 'processing', 'halted') AND audience IN (", audiences)
        }
        ClaimFilter::Except(audiences) => (" AND audience NOT IN (", audiences),
    };
    let (before, after) = statement.dialect().texts_of_json();
    let statement = statement.push(condition).push(before).values(json(&audiences)?);
    Ok(statement.push(after).push(")"))
}

/// The UPDATE that claims refreshes for `holder`, without its WHERE clause.
pub(super) fn claiming(
    tx: &Conn,
    holder: &str,
    now: Timestamp,
    lease_until: Timestamp,
) -> StatementBuilder {
    tx.build("UPDATE refreshes SET state = 'processing', (holder, lease_until) = (")
        .values((holder, lease_until))
        .push("), claims = claims + 1, started_at = coalesce(started_at, ")
        .values(now)
        .push(")")
}

/// The oldest refresh of the filter's audiences that is due, claimed for `holder`.
pub(super) async fn claim(
    tx: &mut Conn,
    filter: ClaimFilter<'_>,
    holder: &str,
    now: Timestamp,
    lease_until: Timestamp,
) -> DbResult<Option<Refresh>> {
    let lock = tx.dialect().lock_rows();
    let update = claiming(tx, holder, now, lease_until)
        .push(" WHERE id = (SELECT id FROM refreshes WHERE due_at IS NOT NULL AND due_at <= ")
        .values(now);
    let update = filtered(update, filter)?
        .push(" ORDER BY scheduled_at, id LIMIT 1")
        .push(lock)
        .push(concat!(") RETURNING ", refresh_columns!()));
    // All rows are fetched: only then is it certain that the statement was committed.
    let claimed = tx.rows(update.build(true)).await?;
    Ok(claimed.first().map(refresh_of).transpose()?)
}

/// The trigger to store, and whether it was the source. Earlier versions, which may share the ledger, know no other
/// trigger than a schedule, a person and a new spec.
pub(super) fn stored_trigger(trigger: RefreshTrigger) -> (RefreshTrigger, bool) {
    match trigger {
        RefreshTrigger::SourceChanged => (RefreshTrigger::Schedule, true),
        other => (other, false),
    }
}

/// Queues a refresh of an audience that has a row; returns the open one if there is one.
pub(super) async fn queue(
    tx: &mut Conn,
    audience: &AudienceName,
    trigger: RefreshTrigger,
    now: Timestamp,
) -> DbResult<RefreshId> {
    let (started_by, by_source) = stored_trigger(trigger);
    let queue = "INSERT INTO refreshes
            (audience, state, started_by, scheduled_at, not_before, by_source)
         VALUES ($1, 'scheduled', $2, $3, $3, $4)
         ON CONFLICT (audience) WHERE state IN ('scheduled', 'processing', 'halted') DO NOTHING
         RETURNING id";
    let open = "SELECT id FROM refreshes
         WHERE audience = $1 AND state IN ('scheduled', 'processing', 'halted')";
    let queued: Option<i64> =
        tx.maybe_scalar(queue, (audience, started_by, now, by_source)).await?;
    let id = match queued {
        Some(id) => id,
        None => tx.scalar(open, audience).await?,
    };
    Ok(RefreshId(id))
}
