//! Snapshots are recorded, and refreshes are completed as unchanged: by a few statements for up to
//! [`ROWS_PER_STATEMENT`](crate::dialect::ROWS_PER_STATEMENT) of them, also for one.

use std::collections::{HashMap, HashSet};

use throng_model::{AudienceName, RefreshId, Timestamp};

use super::snapshots::{self, snapshot_columns};
use super::{parts, pauses, waiting};
use crate::conn::Conn;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow};
use crate::{LedgerError, RefreshState, Result, Snapshot, SnapshotState};

/// The rows that a statement of this text and these values in parentheses returns, read by `of`. A statement of one
/// value is common, and stays prepared.
macro_rules! rows_in {
    ($tx:ident, $text:expr, $values:expr, $rest:expr, $of:expr) => {{
        let select = $tx.build($text).values($values).push($rest);
        let rows = $tx.rows(select.build($values.len() == 1)).await?;
        rows.iter().map($of).collect::<Result<_>>()?
    }};
}
pub(super) use rows_in;

/// A snapshot of a refresh: published, or held for a reason.
#[derive(Clone, Copy)]
pub(super) struct Recorded<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) held: Option<&'a str>,
}

/// Who has a refresh.
struct Lease {
    audience: AudienceName,
    holder: Option<String>,
}

/// What decides whether an audience can have another snapshot.
#[derive(Default)]
pub(super) struct Versions {
    pub(super) last: u64,
    /// The version that the audience is pinned to.
    pinned: Option<u64>,
}

fn lease_of(row: &DbRow) -> Result<(RefreshId, Lease)> {
    let cells = Cells::new(row, "refresh");
    let lease = Lease { audience: cells.name("audience")?, holder: cells.maybe_text("holder")? };
    Ok((RefreshId(cells.int("id")?), lease))
}

fn versions_of(row: &DbRow) -> Result<(AudienceName, Versions)> {
    let cells = Cells::new(row, "audience");
    let (last, pinned) = (cells.number("last_version")?, cells.maybe_number("pinned")?);
    Ok((cells.name("name")?, Versions { last, pinned }))
}

/// The id of a refresh's row.
pub(super) fn id_of(row: &DbRow) -> Result<RefreshId> {
    Cells::new(row, "refresh").int("id").map(RefreshId)
}

async fn leases(tx: &mut Conn, ids: &[RefreshId]) -> DbResult<HashMap<RefreshId, Lease>> {
    let text = "SELECT id, audience, holder FROM refreshes WHERE id IN (";
    Ok(rows_in!(tx, text, ids, ")", lease_of))
}

/// The versions of those of the audiences that have rows.
pub(super) async fn versions(
    tx: &mut Conn,
    audiences: &[&AudienceName],
) -> DbResult<HashMap<AudienceName, Versions>> {
    let text = "SELECT name, last_version,
            CASE WHEN pinned_at IS NOT NULL THEN current_version END AS pinned
         FROM audiences WHERE name IN (";
    Ok(rows_in!(tx, text, audiences, ")", versions_of))
}

/// The lease on a refresh, if `holder` has it. A builder that was paused must not overwrite the work of the next one.
fn held_by<'l>(
    leases: &'l mut HashMap<RefreshId, Lease>,
    id: RefreshId,
    holder: &str,
) -> Result<&'l mut Lease> {
    let lease = leases.get_mut(&id).ok_or_else(|| LedgerError::not_found("refresh", id))?;
    if lease.holder.as_deref() != Some(holder) {
        return Err(LedgerError::lease_lost("refresh", id));
    }
    Ok(lease)
}

/// Whether a snapshot can be recorded after those before it, for which this was called. Changes what it reads as the
/// statements change the ledger: the refresh has ended, and the version exists.
fn check(
    new: Recorded<'_>,
    holder: &str,
    leases: &mut HashMap<RefreshId, Lease>,
    audiences: &mut HashMap<AudienceName, Versions>,
) -> Result<()> {
    let Recorded { snapshot, held } = new;
    let lease = held_by(leases, snapshot.refresh, holder)?;
    let versions = audiences.entry(snapshot.audience.clone()).or_default();
    snapshots::check_consistent(snapshot, &lease.audience, versions.last)?;
    if let Some(version) = versions.pinned.filter(|_| held.is_none()) {
        return Err(pauses::pinned_error(&snapshot.audience, version));
    }
    lease.holder = None;
    versions.last = snapshot.version;
    Ok(())
}

/// Records the snapshots of at most `ROWS_PER_STATEMENT` refreshes, with the result of each. All reads are before
/// the first write, so that one that is refused has changed nothing.
pub(super) async fn record(
    tx: &mut Conn,
    all: &[Recorded<'_>],
    holder: &str,
    now: Timestamp,
) -> DbResult<Vec<Result<()>>> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<RefreshId> = all.iter().map(|new| new.snapshot.refresh).collect();
    let names: Vec<&AudienceName> = all.iter().map(|new| &new.snapshot.audience).collect();
    let mut leases = leases(tx, &ids).await?;
    let mut audiences = versions(tx, &names).await?;
    let (mut results, mut accepted) = (Vec::with_capacity(all.len()), Vec::new());
    for new in all {
        let checked = check(*new, holder, &mut leases, &mut audiences);
        if checked.is_ok() {
            accepted.push(*new);
        }
        results.push(checked);
    }
    if !accepted.is_empty() {
        insert(tx, &accepted).await?;
        complete(tx, &accepted, now).await?;
    }
    Ok(results)
}

/// Inserts snapshots, and makes those that are published current.
async fn insert(tx: &mut Conn, all: &[Recorded<'_>]) -> DbResult<()> {
    let text = concat!("INSERT INTO snapshots (", snapshot_columns!(), ") VALUES ");
    let rows = all.iter().map(|Recorded { snapshot, held }| {
        let state = if held.is_some() { SnapshotState::Held } else { SnapshotState::Published };
        (
            &snapshot.audience,
            snapshot.version,
            state,
            &snapshot.path,
            snapshot.members,
            snapshot.rows_read,
            snapshot.null_keys,
            snapshot.bytes,
            &snapshot.model_fingerprint,
            snapshot.refresh,
            snapshot.created_at,
            snapshot.checksum.as_deref(),
            snapshot.tables.as_deref(),
            snapshot.inputs.as_deref(),
        )
    });
    // Those of one snapshot are common, and stay prepared.
    let is_common = all.len() == 1;
    let insert = tx.build(text).rows(rows);
    tx.execute_built(insert.build(is_common)).await?;
    let rows = all.iter().map(|Recorded { snapshot, held }| {
        let served = held.is_none().then_some(snapshot.version);
        (&snapshot.audience, snapshot.version, served)
    });
    let update = tx.build("WITH v (audience, version, served) AS (VALUES ").rows(rows);
    let update = update.push(
        ") UPDATE audiences SET last_version = v.version,
            current_version = coalesce(v.served, audiences.current_version)
         FROM v WHERE audiences.name = v.audience",
    );
    tx.execute_built(update.build(is_common)).await?;
    let published = all.iter().filter(|new| new.held.is_none()).map(|new| {
        let Snapshot { audience, version, created_at, members, .. } = new.snapshot;
        (audience, *version, *created_at, *members)
    });
    let published: Vec<_> = published.collect();
    if published.is_empty() {
        return Ok(());
    }
    let insert = tx.build("INSERT INTO audience_sizes (audience, version, at, members) VALUES ");
    let insert = insert.rows(published).push(" ON CONFLICT (audience, version) DO NOTHING");
    tx.execute_built(insert.build(is_common)).await?;
    Ok(())
}

/// Ends the refreshes of recorded snapshots, and deletes their parts.
async fn complete(tx: &mut Conn, all: &[Recorded<'_>], now: Timestamp) -> DbResult<()> {
    let rows = all.iter().map(|Recorded { snapshot, held }| {
        let state = if held.is_some() { RefreshState::Held } else { RefreshState::Completed };
        let Snapshot { refresh, version, rows_read, null_keys, .. } = snapshot;
        (*refresh, state, *held, *version, *rows_read, *null_keys)
    });
    let update = tx
        .build("WITH v (refresh, state, reason, version, rows_read, null_keys) AS (VALUES ")
        .rows(rows)
        .push(") UPDATE refreshes SET state = v.state, finished_at = ")
        .values(now)
        .push(
            ", reason = v.reason, snapshot_version = v.version, rows_read = v.rows_read,
            null_keys = v.null_keys, holder = NULL, lease_until = NULL
         FROM v WHERE refreshes.id = v.refresh",
        );
    tx.execute_built(update.build(all.len() == 1)).await?;
    let ids: Vec<RefreshId> = all.iter().map(|new| new.snapshot.refresh).collect();
    parts::delete_of(tx, &ids).await?;
    waiting::follow(tx, &ids, now).await
}

/// Completes at most `ROWS_PER_STATEMENT` refreshes whose inputs are those of the versions that are served, with the
/// result of each: `false` if another version is served, or if the refresh is forced.
pub(super) async fn confirm(
    tx: &mut Conn,
    served: &[(RefreshId, u64)],
    holder: &str,
    now: Timestamp,
) -> DbResult<Vec<Result<bool>>> {
    if served.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<RefreshId> = served.iter().map(|(id, _)| *id).collect();
    let mut leases = leases(tx, &ids).await?;
    let update = tx
        .build("WITH v (refresh, version) AS (VALUES ")
        .rows(served.iter().copied())
        .push(") UPDATE refreshes SET state = 'completed', finished_at = ")
        .values(now)
        .push(
            ", reason = NULL, snapshot_version = v.version, unchanged = 1, holder = NULL,
            lease_until = NULL
         FROM v WHERE id = v.refresh AND forced = 0 AND holder = ",
        )
        .values(holder)
        .push(
            " AND EXISTS (SELECT 1 FROM audiences a
                WHERE a.name = refreshes.audience AND a.current_version = v.version)
             RETURNING id",
        );
    let confirmed = tx.rows(update.build(served.len() == 1)).await?;
    let confirmed: Vec<RefreshId> = confirmed.iter().map(id_of).collect::<Result<_>>()?;
    waiting::follow(tx, &confirmed, now).await?;
    let confirmed: HashSet<RefreshId> = confirmed.into_iter().collect();
    let result = |id: RefreshId| -> Result<bool> {
        let lease = held_by(&mut leases, id, holder)?;
        let is_confirmed = confirmed.contains(&id);
        if is_confirmed {
            lease.holder = None;
        }
        Ok(is_confirmed)
    };
    Ok(ids.into_iter().map(result).collect())
}

/// [`confirm`] for one refresh.
pub(super) async fn confirm_one(
    tx: &mut Conn,
    id: RefreshId,
    holder: &str,
    version: u64,
    now: Timestamp,
) -> DbResult<bool> {
    let results = confirm(tx, &[(id, version)], holder, now).await?;
    Ok(results.into_iter().collect::<Result<Vec<bool>>>()?.contains(&true))
}
