//! Snapshots: read, approved, rejected, made current again. `publishing` records them.

use std::collections::HashMap;

use throng_model::{AudienceName, RefreshId, Timestamp};

use super::pauses;
use crate::conn::Conn;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow};
use crate::{LedgerError, Result, Snapshot, SnapshotState, StoredEnum};

/// The columns of a snapshot, for SELECT and INSERT.
macro_rules! snapshot_columns {
    () => {
        "audience, version, state, path, members, rows_read, null_keys, bytes, model_fingerprint,
         refresh, created_at, checksum, tables, inputs"
    };
}
pub(super) use snapshot_columns;

/// SELECT of snapshots, with these clauses.
macro_rules! snapshots {
    ($clauses:literal) => {
        concat!("SELECT ", snapshot_columns!(), " FROM snapshots ", $clauses)
    };
}

/// The snapshot of a row.
pub(super) fn snapshot_of(row: &DbRow) -> Result<Snapshot> {
    let cells = Cells::new(row, "snapshot");
    Ok(Snapshot {
        audience: cells.name("audience")?,
        version: cells.number("version")?,
        state: cells.variant("state")?,
        path: cells.text("path")?,
        members: cells.number("members")?,
        rows_read: cells.number("rows_read")?,
        null_keys: cells.number("null_keys")?,
        bytes: cells.number("bytes")?,
        checksum: cells.maybe_text("checksum")?,
        tables: cells.maybe_text("tables")?,
        inputs: cells.maybe_text("inputs")?,
        model_fingerprint: cells.text("model_fingerprint")?,
        refresh: RefreshId(cells.int("refresh")?),
        created_at: cells.time("created_at")?,
    })
}

fn full_name(audience: &AudienceName, version: u64) -> String {
    format!("{audience}@{version}")
}

/// The current snapshots of all audiences, or of one.
pub(super) async fn current(
    tx: &mut Conn,
    only: Option<&str>,
) -> DbResult<HashMap<AudienceName, Snapshot>> {
    let text = "SELECT s.audience, s.version, s.state, s.path, s.members, s.rows_read, s.null_keys,
            s.bytes, s.model_fingerprint, s.refresh, s.created_at, s.checksum, s.tables,
            s.inputs
         FROM audiences a JOIN snapshots s ON s.audience = a.name AND s.version = a.current_version
         WHERE CAST($1 AS TEXT) IS NULL OR a.name = $1";
    let current = tx.all(text, only, snapshot_of).await?;
    Ok(current.into_iter().map(|snapshot| (snapshot.audience.clone(), snapshot)).collect())
}

pub(super) async fn get(
    tx: &mut Conn,
    audience: &AudienceName,
    version: u64,
) -> DbResult<Snapshot> {
    let text = snapshots!("WHERE audience = $1 AND version = $2");
    let snapshot = tx.optional(text, (audience, version), snapshot_of).await?;
    let name = || full_name(audience, version);
    Ok(snapshot.ok_or_else(|| LedgerError::not_found("snapshot", name()))?)
}

pub(super) async fn list(tx: &mut Conn, audience: &AudienceName) -> DbResult<Vec<Snapshot>> {
    let text = snapshots!("WHERE audience = $1 ORDER BY version DESC");
    tx.all(text, audience, snapshot_of).await
}

async fn make_current(tx: &mut Conn, audience: &AudienceName, version: u64) -> DbResult<()> {
    let text = "UPDATE audiences SET current_version = $2 WHERE name = $1";
    tx.execute(text, (audience, version)).await?;
    Ok(())
}

async fn set_state(tx: &mut Conn, snapshot: &mut Snapshot, state: SnapshotState) -> DbResult<()> {
    let text = "UPDATE snapshots SET state = $3 WHERE audience = $1 AND version = $2";
    tx.execute(text, (&snapshot.audience, snapshot.version, state)).await?;
    snapshot.state = state;
    Ok(())
}

async fn add_size(tx: &mut Conn, snapshot: &Snapshot) -> DbResult<()> {
    tx.execute(
        "INSERT INTO audience_sizes (audience, version, at, members) VALUES ($1, $2, $3, $4)
         ON CONFLICT (audience, version) DO NOTHING",
        (&snapshot.audience, snapshot.version, snapshot.created_at, snapshot.members),
    )
    .await?;
    Ok(())
}

/// Fails with `Refused` if this snapshot cannot be the next one of its audience. `owner`: the audience of its refresh;
/// `last`: the highest version that the audience ever had, 0 if none. The numbers of deleted snapshots are not used again:
/// nodes and caches identify a snapshot by its version.
pub(super) fn check_consistent(snapshot: &Snapshot, owner: &AudienceName, last: u64) -> Result<()> {
    let why = if snapshot.audience != *owner {
        format!("its refresh belongs to audience `{owner}`")
    } else if snapshot.version <= last {
        format!("version {last} already exists")
    } else if snapshot.null_keys > snapshot.rows_read {
        "it has more NULL keys than rows".to_owned()
    } else {
        return Ok(());
    };
    let name = full_name(&snapshot.audience, snapshot.version);
    Err(LedgerError::refused("snapshot", format!("{name}: {why}")))
}

/// One snapshot if it is in `state`, else `WrongState`.
async fn get_in(
    tx: &mut Conn,
    audience: &AudienceName,
    version: u64,
    state: SnapshotState,
    wanted: &'static str,
) -> DbResult<Snapshot> {
    let snapshot = get(tx, audience, version).await?;
    if snapshot.state == state {
        Ok(snapshot)
    } else {
        Err(wrong_state(&snapshot, snapshot.state.stored_name(), wanted).into())
    }
}

fn wrong_state(snapshot: &Snapshot, state: &str, wanted: &'static str) -> LedgerError {
    let name = full_name(&snapshot.audience, snapshot.version);
    LedgerError::wrong_state("snapshot", name, state, wanted)
}

pub(super) async fn approve(
    tx: &mut Conn,
    audience: &AudienceName,
    version: u64,
    now: Timestamp,
) -> DbResult<Snapshot> {
    let mut snapshot = get_in(tx, audience, version, SnapshotState::Held, "approved").await?;
    pauses::check_not_pinned(tx, audience).await?;
    // A newer version was published since: users who have left would be served again, and sent to platforms.
    let served = current(tx, Some(audience.as_str())).await?.remove(audience);
    if let Some(served) = served.filter(|served| served.version > version) {
        let state = format!("older than version {}, which is served", served.version);
        return Err(wrong_state(&snapshot, &state, "approved").into());
    }
    set_state(tx, &mut snapshot, SnapshotState::Published).await?;
    make_current(tx, audience, version).await?;
    add_size(tx, &snapshot).await?;
    tx.execute(
        "UPDATE refreshes SET state = 'completed', finished_at = $2, reason = NULL
         WHERE id = $1 AND state = 'held'",
        (snapshot.refresh, now),
    )
    .await?;
    Ok(snapshot)
}

pub(super) async fn reject(
    tx: &mut Conn,
    audience: &AudienceName,
    version: u64,
    reason: &str,
    now: Timestamp,
) -> DbResult<Snapshot> {
    let mut snapshot = get_in(tx, audience, version, SnapshotState::Held, "rejected").await?;
    set_state(tx, &mut snapshot, SnapshotState::Rejected).await?;
    // The refresh keeps the reason why its snapshot was held.
    tx.execute(
        "UPDATE refreshes SET state = 'failed', finished_at = $2,
            reason = CAST($3 AS TEXT) || coalesce('; held: ' || reason, '')
         WHERE id = $1 AND state = 'held'",
        (snapshot.refresh, now, reason),
    )
    .await?;
    Ok(snapshot)
}

pub(super) async fn roll_back(
    tx: &mut Conn,
    audience: &AudienceName,
    version: u64,
    now: Timestamp,
) -> DbResult<Snapshot> {
    let wanted = "made current";
    let snapshot = get_in(tx, audience, version, SnapshotState::Published, wanted).await?;
    make_current(tx, audience, version).await?;
    pauses::pin(tx, audience, now).await?;
    Ok(snapshot)
}

fn size_of(row: &DbRow) -> Result<(Timestamp, u64)> {
    let cells = Cells::new(row, "audience size");
    Ok((cells.time("at")?, cells.number("members")?))
}

pub(super) async fn sizes(
    tx: &mut Conn,
    audience: &AudienceName,
    limit: u32,
) -> DbResult<Vec<(Timestamp, u64)>> {
    let text = "SELECT at, members FROM audience_sizes WHERE audience = $1
         ORDER BY version DESC LIMIT $2";
    let mut sizes = tx.all(text, (audience, limit), size_of).await?;
    sizes.reverse();
    Ok(sizes)
}
