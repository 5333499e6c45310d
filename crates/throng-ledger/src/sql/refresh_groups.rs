//! Calls for many refreshes in SQL: a few statements for up to [`ROWS_PER_STATEMENT`] of them.

use std::collections::HashMap;

use async_trait::async_trait;
use throng_model::{AudienceName, RefreshId, Timestamp};

use super::publishing::{Recorded, confirm, id_of, record, rows_in, versions};
use super::refreshes::{self, refresh_columns, refresh_of};
use super::snapshots::{snapshot_columns, snapshot_of};
use crate::backend::{Backend, SqlLedger, read_tx, write_tx};
use crate::conn::Conn;
use crate::dialect::ROWS_PER_STATEMENT;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow};
use crate::{
    NewSnapshot, Refresh, RefreshGroupLedger, RefreshTrigger, Result, Snapshot, SnapshotBase,
};

fn name_of(row: &DbRow) -> Result<AudienceName> {
    Cells::new(row, "audience").name("name")
}

fn version_of(row: &DbRow) -> Result<(AudienceName, u64)> {
    let cells = Cells::new(row, "snapshot");
    Ok((cells.name("audience")?, cells.number("version")?))
}

/// Queues refreshes of audiences that have rows, unless they are paused or pinned, or have an open one. Returns how many.
async fn queue(
    tx: &mut Conn,
    audiences: &[&AudienceName],
    trigger: RefreshTrigger,
    now: Timestamp,
) -> DbResult<u64> {
    if audiences.is_empty() {
        return Ok(0);
    }
    let (started_by, by_source) = refreshes::stored_trigger(trigger);
    let insert = tx
        .build(
            "INSERT INTO refreshes
                (audience, state, started_by, scheduled_at, not_before, by_source)
             SELECT name, 'scheduled', ",
        )
        .values((started_by, now, now, by_source))
        .push(" FROM audiences WHERE paused_at IS NULL AND pinned_at IS NULL AND name IN (")
        .values(audiences)
        .push(
            ") ON CONFLICT (audience) WHERE state IN ('scheduled', 'processing', 'halted')
             DO NOTHING",
        );
    tx.execute_built(insert.build(false)).await
}

/// Records firings that are after the last ones of their audiences, and queues refreshes. Returns how many have fired.
async fn fire(
    tx: &mut Conn,
    firings: &[(AudienceName, Timestamp)],
    now: Timestamp,
) -> DbResult<u64> {
    let insert = tx
        .build("INSERT INTO audiences (name, last_fired) VALUES ")
        .rows(firings.iter().map(|(audience, fire_at)| (audience, *fire_at)))
        .push(
            " ON CONFLICT (name) DO UPDATE SET last_fired = excluded.last_fired
             WHERE audiences.paused_at IS NULL AND audiences.pinned_at IS NULL
               AND (audiences.last_fired IS NULL OR audiences.last_fired < excluded.last_fired)
             RETURNING name",
        );
    let fired = tx.rows(insert.build(false)).await?.iter().map(name_of).collect::<Result<_>>();
    let fired: Vec<AudienceName> = fired?;
    let names: Vec<&AudienceName> = fired.iter().collect();
    queue(tx, &names, RefreshTrigger::Schedule, now).await?;
    Ok(fired.len() as u64)
}

/// Claims the open refreshes of some audiences that are due.
async fn claim(
    tx: &mut Conn,
    audiences: &[&AudienceName],
    holder: &str,
    now: Timestamp,
    lease_until: Timestamp,
) -> DbResult<Vec<Refresh>> {
    let lock = tx.dialect().lock_rows();
    let update = refreshes::claiming(tx, holder, now, lease_until)
        // With the states, so that the index of open refreshes is used: that of audiences has all of them.
        .push(
            " WHERE id IN (SELECT id FROM refreshes
                WHERE state IN ('scheduled', 'processing', 'halted') AND audience IN (",
        )
        .values(audiences)
        .push(") AND due_at <= ")
        .values(now)
        .push(" ORDER BY id")
        .push(lock)
        .push(concat!(") RETURNING ", refresh_columns!()));
    let claimed = tx.rows(update.build(false)).await?;
    Ok(claimed.iter().map(refresh_of).collect::<Result<_>>()?)
}

/// `processing → halted`, with `claims` less, for those of the refreshes that `holder` has. Parts that it has claimed as
/// `HOLDER#…` become free.
pub(super) async fn halt(
    tx: &mut Conn,
    ids: &[RefreshId],
    holder: &str,
    claims: i64,
    now: Timestamp,
) -> DbResult<()> {
    let update = tx
        .build(
            "UPDATE refreshes SET state = 'halted', holder = NULL, lease_until = NULL,
                claims = CASE WHEN claims > ",
        )
        .values(claims)
        .push(" THEN claims - ")
        .values(claims)
        .push(" ELSE 0 END, not_before = ")
        .values(now)
        .push(" WHERE holder = ")
        .values(holder)
        .push(" AND id IN (")
        .values(ids)
        .push(") RETURNING id");
    let halted = tx.rows(update.build(false)).await?.iter().map(id_of).collect::<Result<_>>();
    let halted: Vec<RefreshId> = halted?;
    if halted.is_empty() {
        return Ok(());
    }
    let update = tx
        .build("UPDATE refresh_parts SET lease_until = NULL WHERE state = 'pending' AND (holder = ")
        .values(holder)
        .push(" OR holder LIKE ")
        .values(format!("{holder}#%"))
        .push(") AND refresh IN (")
        .values(halted.as_slice())
        .push(")");
    tx.execute_built(update.build(false)).await?;
    Ok(())
}

#[async_trait]
impl<B: Backend> RefreshGroupLedger for SqlLedger<B> {
    async fn schedule_refreshes(
        &self,
        audiences: &[AudienceName],
        trigger: RefreshTrigger,
        now: Timestamp,
    ) -> Result<u64> {
        // Schedules are polled often, and mostly nothing is due.
        if audiences.is_empty() {
            return Ok(0);
        }
        let names: Vec<&AudienceName> = audiences.iter().collect();
        write_tx!(self, Relaxed, "queueing refreshes", |tx| {
            let mut queued = 0;
            for chunk in names.chunks(ROWS_PER_STATEMENT) {
                let insert = tx
                    .build("INSERT INTO audiences (name) VALUES ")
                    .rows(chunk.iter().copied())
                    .push(" ON CONFLICT (name) DO NOTHING");
                tx.execute_built(insert.build(false)).await?;
                queued += queue(tx, chunk, trigger, now).await?;
            }
            queued
        })
    }

    async fn fire_schedules(
        &self,
        firings: &[(AudienceName, Timestamp)],
        now: Timestamp,
    ) -> Result<u64> {
        if firings.is_empty() {
            return Ok(0);
        }
        write_tx!(self, Relaxed, "firing schedules", |tx| {
            let mut fired = 0;
            for chunk in firings.chunks(ROWS_PER_STATEMENT) {
                fired += fire(tx, chunk, now).await?;
            }
            fired
        })
    }

    async fn claim_refreshes_of(
        &self,
        audiences: &[AudienceName],
        holder: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Vec<Refresh>> {
        let names: Vec<&AudienceName> = audiences.iter().collect();
        write_tx!(self, Relaxed, "claiming refreshes", |tx| {
            let mut claimed = Vec::new();
            for chunk in names.chunks(ROWS_PER_STATEMENT) {
                claimed.extend(claim(tx, chunk, holder, now, lease_until).await?);
            }
            claimed
        })
    }

    async fn record_group_progress(
        &self,
        ids: &[RefreshId],
        holder: &str,
        lease_until: Timestamp,
        rows_read: u64,
        null_keys: u64,
        rows_expected: Option<u64>,
    ) -> Result<()> {
        write_tx!(self, Relaxed, "recording the progress of refreshes", |tx| {
            for chunk in ids.chunks(ROWS_PER_STATEMENT) {
                let update =
                    tx.build("UPDATE refreshes SET (lease_until, rows_read, null_keys) = (");
                let update = update
                    .values((lease_until, rows_read, null_keys))
                    .push("), rows_expected = coalesce(")
                    .values(rows_expected)
                    .push(", rows_expected) WHERE holder = ")
                    .values(holder)
                    .push(" AND id IN (")
                    .values(chunk)
                    .push(")");
                tx.execute_built(update.build(false)).await?;
            }
        })
    }

    async fn halt_refreshes(&self, ids: &[RefreshId], holder: &str, now: Timestamp) -> Result<()> {
        write_tx!(self, Relaxed, "halting refreshes", |tx| {
            for chunk in ids.chunks(ROWS_PER_STATEMENT) {
                halt(tx, chunk, holder, 1, now).await?;
            }
        })
    }

    async fn refreshes_with_parts(&self, ids: &[RefreshId]) -> Result<Vec<RefreshId>> {
        read_tx!(self, "reading which refreshes have parts", |tx| {
            let text = "SELECT id FROM refreshes WHERE EXISTS
                    (SELECT 1 FROM refresh_parts p WHERE p.refresh = refreshes.id) AND id IN (";
            let mut found = Vec::new();
            for chunk in ids.chunks(ROWS_PER_STATEMENT) {
                let of_chunk: Vec<RefreshId> = rows_in!(tx, text, chunk, ")", id_of);
                found.extend(of_chunk);
            }
            found
        })
    }

    async fn snapshot_bases(&self, audiences: &[AudienceName]) -> Result<Vec<SnapshotBase>> {
        let names: Vec<&AudienceName> = audiences.iter().collect();
        read_tx!(self, "reading the versions of audiences", |tx| {
            let text = concat!(
                "SELECT ",
                snapshot_columns!(),
                " FROM audiences a
                 JOIN snapshots s ON s.audience = a.name AND s.version = a.current_version
                 WHERE a.name IN ("
            );
            let mut bases = Vec::with_capacity(names.len());
            for chunk in names.chunks(ROWS_PER_STATEMENT) {
                let current: Vec<Snapshot> = rows_in!(tx, text, chunk, ")", snapshot_of);
                let mut current: HashMap<AudienceName, Snapshot> =
                    current.into_iter().map(|served| (served.audience.clone(), served)).collect();
                bases.extend(versions(tx, chunk).await?.into_iter().map(|(audience, found)| {
                    let current = current.remove(&audience);
                    SnapshotBase { audience, last_version: found.last, current }
                }));
            }
            bases
        })
    }

    async fn record_snapshots(
        &self,
        snapshots: &[NewSnapshot],
        holder: &str,
        now: Timestamp,
    ) -> Result<Vec<Result<()>>> {
        let all = snapshots.iter().map(|NewSnapshot { snapshot, held }| {
            let held = held.as_deref();
            Recorded { snapshot, held }
        });
        let all: Vec<Recorded<'_>> = all.collect();
        write_tx!(self, Full, "publishing snapshots", |tx| {
            let mut results = Vec::with_capacity(all.len());
            for chunk in all.chunks(ROWS_PER_STATEMENT) {
                results.extend(record(tx, chunk, holder, now).await?);
            }
            results
        })
    }

    async fn confirm_unchanged_refreshes(
        &self,
        served: &[(RefreshId, u64)],
        holder: &str,
        now: Timestamp,
    ) -> Result<Vec<Result<bool>>> {
        write_tx!(self, Full, "completing unchanged refreshes", |tx| {
            let mut results = Vec::with_capacity(served.len());
            for chunk in served.chunks(ROWS_PER_STATEMENT) {
                results.extend(confirm(tx, chunk, holder, now).await?);
            }
            results
        })
    }

    async fn snapshots_of(&self, audiences: &[AudienceName]) -> Result<Vec<Snapshot>> {
        let names: Vec<&AudienceName> = audiences.iter().collect();
        read_tx!(self, "reading the snapshots of audiences", |tx| {
            let text =
                concat!("SELECT ", snapshot_columns!(), " FROM snapshots WHERE audience IN (");
            let mut found = Vec::new();
            for chunk in names.chunks(ROWS_PER_STATEMENT) {
                let order = ") ORDER BY audience, version DESC";
                let of_chunk: Vec<Snapshot> = rows_in!(tx, text, chunk, order, snapshot_of);
                found.extend(of_chunk);
            }
            found
        })
    }

    async fn delete_snapshots(
        &self,
        versions: &[(AudienceName, u64)],
    ) -> Result<Vec<(AudienceName, u64)>> {
        if versions.is_empty() {
            return Ok(Vec::new());
        }
        write_tx!(self, Full, "deleting snapshots", |tx| {
            let mut deleted = Vec::with_capacity(versions.len());
            for chunk in versions.chunks(ROWS_PER_STATEMENT) {
                // By the audiences too: SQLite finds the rows by an index then.
                let names: Vec<&AudienceName> =
                    chunk.iter().map(|(audience, _)| audience).collect();
                let delete = tx
                    .build("DELETE FROM snapshots WHERE audience IN (")
                    .values(names.as_slice())
                    .push(") AND (audience, version) IN (VALUES ")
                    .rows(chunk.iter().map(|(audience, version)| (audience, *version)))
                    .push(
                        ") AND NOT EXISTS
                            (SELECT 1 FROM audiences a WHERE a.name = snapshots.audience
                                AND a.current_version = snapshots.version)
                         RETURNING audience, version",
                    );
                let rows = tx.rows(delete.build(false)).await?;
                let of_chunk: Vec<_> = rows.iter().map(version_of).collect::<Result<_>>()?;
                deleted.extend(of_chunk);
            }
            deleted
        })
    }
}
