//! Audiences and refreshes in SQL. The rows of refreshes, snapshots, parts and the dictionary have
//! their own modules.

use std::collections::HashMap;

use async_trait::async_trait;
use throng_model::{AudienceName, RefreshId, Timestamp};

use super::refreshes::{get_leased_by, refresh_columns, refresh_of, select_refreshes};
use super::{dictionary, parts, pauses, publishing, refresh_groups, refreshes, snapshots, waiting};
use crate::backend::{Backend, SqlLedger, read_one, read_tx, write_one, write_tx};
use crate::conn::Conn;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow};
use crate::{
    AudienceLedger, AudienceRow, ClaimFilter, DictionaryShard, NewPart, Part, Refresh,
    RefreshState, RefreshTrigger, Result, Snapshot,
};

/// An audience, without its refresh and its snapshot.
fn audience_of(row: &DbRow) -> Result<AudienceRow> {
    let cells = Cells::new(row, "audience");
    Ok(AudienceRow {
        name: cells.name("name")?,
        current: None,
        refresh: None,
        waiting_refresh: cells.maybe_int("waiting_refresh")?.map(RefreshId),
        refreshed_at: cells.maybe_time("refreshed_at")?,
        last_fired: cells.maybe_time("last_fired")?,
        paused_at: cells.maybe_time("paused_at")?,
        pinned_at: cells.maybe_time("pinned_at")?,
        source_state: cells.maybe_text("source_state")?,
    })
}

/// All audiences, or one.
async fn list(tx: &mut Conn, only: Option<&str>) -> DbResult<Vec<AudienceRow>> {
    let text = "SELECT a.name, a.last_fired, a.paused_at, a.pinned_at, a.source_state,
            (SELECT r.finished_at FROM refreshes r
             WHERE r.audience = a.name AND r.state = 'completed'
             ORDER BY r.id DESC LIMIT 1) AS refreshed_at,
            (SELECT w.refresh FROM waiting_refreshes w WHERE w.audience = a.name) AS waiting_refresh
         FROM audiences a WHERE CAST($1 AS TEXT) IS NULL OR a.name = $1 ORDER BY a.name";
    let mut audiences = tx.all(text, only, audience_of).await?;
    let mut current = snapshots::current(tx, only).await?;
    let text = select_refreshes!(
        "WHERE id IN
            (SELECT (SELECT max(r.id) FROM refreshes r WHERE r.audience = a.name)
             FROM audiences a WHERE CAST($1 AS TEXT) IS NULL OR a.name = $1)"
    );
    let newest = tx.all(text, only, refresh_of).await?;
    let mut newest: HashMap<AudienceName, Refresh> =
        newest.into_iter().map(|refresh| (refresh.audience.clone(), refresh)).collect();
    for audience in &mut audiences {
        audience.current = current.remove(&audience.name);
        audience.refresh = newest.remove(&audience.name);
    }
    Ok(audiences)
}

/// Queues a refresh of an audience, which may be new, unless it is paused or pinned.
async fn queue_requested(
    tx: &mut Conn,
    audience: &AudienceName,
    trigger: RefreshTrigger,
    now: Timestamp,
) -> DbResult<RefreshId> {
    let text = "INSERT INTO audiences (name) VALUES ($1) ON CONFLICT (name) DO NOTHING";
    tx.execute(text, audience).await?;
    pauses::check_not_stopped(tx, audience).await?;
    refreshes::queue(tx, audience, trigger, now).await
}

/// The try of a refresh has failed: it is scheduled again at `retry_at`, or has failed for good.
async fn record_failed_attempt(
    tx: &mut Conn,
    id: RefreshId,
    reason: &str,
    retry_at: Option<Timestamp>,
    now: Timestamp,
) -> DbResult<Refresh> {
    let (state, finished_at) = match retry_at {
        Some(_) => (RefreshState::Scheduled, None),
        None => (RefreshState::Failed, Some(now)),
    };
    let text = concat!(
        "UPDATE refreshes SET state = $2, finished_at = $3, not_before = $4, reason = $5,
            failures = failures + 1, holder = NULL, lease_until = NULL,
            claims = CASE WHEN claims > 0 THEN claims - 1 ELSE 0 END
         WHERE id = $1 RETURNING ",
        refresh_columns!()
    );
    let values = (id, state, finished_at, retry_at.unwrap_or(now), reason);
    let refresh = tx.one(text, values, refresh_of).await?;
    match retry_at {
        None => {
            parts::delete_all(tx, id).await?;
            waiting::follow(tx, &[id], now).await?;
        }
        // The next try need not wait for the leases of this one.
        Some(_) => {
            let text = "UPDATE refresh_parts SET lease_until = NULL WHERE refresh = $1";
            tx.execute(text, id).await?;
        }
    }
    Ok(refresh)
}

fn served_of(row: &DbRow) -> Result<(AudienceName, u64)> {
    let cells = Cells::new(row, "audience");
    Ok((cells.name("name")?, cells.number("current_version")?))
}

#[async_trait]
impl<B: Backend> AudienceLedger for SqlLedger<B> {
    async fn audiences(&self) -> Result<Vec<AudienceRow>> {
        read_tx!(self, "reading the audiences", |tx| list(tx, None).await?)
    }

    async fn served_versions(&self) -> Result<Vec<(AudienceName, u64)>> {
        read_one!(self, "reading the served versions", |tx| {
            let text = "SELECT name, current_version FROM audiences
                 WHERE current_version IS NOT NULL ORDER BY name";
            tx.all(text, (), served_of).await?
        })
    }

    async fn audience(&self, name: &AudienceName) -> Result<Option<AudienceRow>> {
        read_tx!(self, "reading an audience", |tx| { list(tx, Some(name.as_str())).await?.pop() })
    }

    async fn schedule_refresh(
        &self,
        audience: &AudienceName,
        trigger: RefreshTrigger,
        now: Timestamp,
    ) -> Result<RefreshId> {
        write_tx!(self, Relaxed, "queueing a refresh", |tx| {
            queue_requested(tx, audience, trigger, now).await?
        })
    }

    async fn force_refresh(
        &self,
        audience: &AudienceName,
        trigger: RefreshTrigger,
        now: Timestamp,
    ) -> Result<RefreshId> {
        write_tx!(self, Relaxed, "queueing a refresh", |tx| {
            let id = queue_requested(tx, audience, trigger, now).await?;
            tx.execute("UPDATE refreshes SET forced = 1 WHERE id = $1", id).await?;
            id
        })
    }

    async fn request_refresh(
        &self,
        audience: &AudienceName,
        force: bool,
        now: Timestamp,
    ) -> Result<RefreshId> {
        write_tx!(self, Relaxed, "queueing a refresh", |tx| {
            waiting::request(tx, audience, force, now).await?
        })
    }

    async fn record_source_state(
        &self,
        audience: &AudienceName,
        state: &str,
        refresh: bool,
        now: Timestamp,
    ) -> Result<bool> {
        write_tx!(self, Relaxed, "recording the state of a source", |tx| {
            let text = "UPDATE audiences SET source_state = $2
                 WHERE name = $1 AND paused_at IS NULL AND pinned_at IS NULL
                   AND (source_state IS NULL OR source_state <> $2)
                   AND NOT EXISTS (SELECT 1 FROM refreshes WHERE audience = $1
                                   AND state IN ('scheduled', 'processing', 'halted'))";
            let first = tx.execute(text, (audience, state)).await? == 1;
            if first && refresh {
                refreshes::queue(tx, audience, RefreshTrigger::SourceChanged, now).await?;
            }
            first
        })
    }

    async fn claim_filtered_refresh(
        &self,
        filter: ClaimFilter<'_>,
        holder: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<Refresh>> {
        write_one!(self, Relaxed, "claiming a refresh", |tx| {
            refreshes::claim(tx, filter, holder, now, lease_until).await?
        })
    }

    async fn claim_refresh_of(
        &self,
        audience: &AudienceName,
        holder: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<Refresh>> {
        write_one!(self, Relaxed, "claiming a refresh", |tx| {
            // An audience has at most one open refresh, so no inner SELECT is needed.
            let text = concat!(
                "UPDATE refreshes SET state = 'processing', holder = $1, lease_until = $3,
                    claims = claims + 1, started_at = coalesce(started_at, $2)
                 WHERE audience = $4 AND due_at IS NOT NULL AND due_at <= $2
                 RETURNING ",
                refresh_columns!()
            );
            tx.all(text, (holder, now, lease_until, audience), refresh_of).await?.pop()
        })
    }

    async fn record_refresh_progress(
        &self,
        id: RefreshId,
        holder: &str,
        lease_until: Timestamp,
        rows_read: u64,
        null_keys: u64,
        rows_expected: Option<u64>,
    ) -> Result<()> {
        write_tx!(self, Relaxed, "recording a refresh's progress", |tx| {
            get_leased_by(tx, id, holder).await?;
            tx.execute(
                "UPDATE refreshes SET lease_until = $2, rows_read = $3, null_keys = $4,
                    rows_expected = coalesce($5, rows_expected)
                 WHERE id = $1",
                (id, lease_until, rows_read, null_keys, rows_expected),
            )
            .await?;
        })
    }

    async fn refresh(&self, id: RefreshId) -> Result<Refresh> {
        read_one!(self, "reading a refresh", |tx| refreshes::get(tx, id).await?)
    }

    async fn refreshes(&self, audience: Option<&AudienceName>, limit: u32) -> Result<Vec<Refresh>> {
        read_one!(self, "reading the refreshes", |tx| {
            // Two statements, so that each uses its index.
            match audience {
                Some(name) => {
                    let text = select_refreshes!("WHERE audience = $1 ORDER BY id DESC LIMIT $2");
                    tx.all(text, (name, limit), refresh_of).await?
                }
                None => {
                    tx.all(select_refreshes!("ORDER BY id DESC LIMIT $1"), limit, refresh_of)
                        .await?
                }
            }
        })
    }

    async fn add_parts(&self, id: RefreshId, parts: &[NewPart], by: Option<&str>) -> Result<()> {
        write_tx!(self, Relaxed, "recording the parts of a refresh", |tx| {
            parts::insert(tx, id, parts, by).await?
        })
    }

    async fn parts(&self, id: RefreshId) -> Result<Vec<Part>> {
        read_one!(self, "reading the parts of a refresh", |tx| { parts::all(tx, id).await? })
    }

    async fn claim_part(
        &self,
        of: RefreshId,
        holder: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<Part>> {
        write_one!(self, Relaxed, "claiming a part", |tx| {
            parts::claim(tx, of, holder, now, lease_until).await?
        })
    }

    async fn claim_filtered_part(
        &self,
        filter: ClaimFilter<'_>,
        holder: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<(RefreshId, Part)>> {
        let refreshes = read_one!(self, "finding a part to claim", |tx| {
            parts::refreshes_with_claimable(tx, filter, now).await?
        })?;
        for id in refreshes {
            // By one statement with all conditions: others may have claimed the part that was found.
            if let Some(part) = self.claim_part(id, holder, now, lease_until).await? {
                return Ok(Some((id, part)));
            }
        }
        Ok(None)
    }

    async fn renew_part_leases(&self, holder: &str, lease_until: Timestamp) -> Result<()> {
        write_one!(self, Relaxed, "renewing the leases of parts", |tx| {
            parts::renew_leases(tx, holder, lease_until).await?
        })
    }

    async fn release_part(&self, id: RefreshId, number: u32, holder: &str) -> Result<()> {
        write_one!(self, Relaxed, "releasing a part", |tx| {
            parts::release(tx, id, number, holder).await?
        })
    }

    async fn finish_part(
        &self,
        id: RefreshId,
        number: u32,
        output: &serde_json::Value,
    ) -> Result<()> {
        write_tx!(self, Relaxed, "finishing a part", |tx| {
            parts::finish(tx, id, number, output).await?
        })
    }

    async fn recover_refresh(&self, id: RefreshId, holder: &str, now: Timestamp) -> Result<()> {
        write_tx!(self, Relaxed, "recovering a refresh", |tx| {
            get_leased_by(tx, id, holder).await?;
            refresh_groups::halt(tx, &[id], holder, 0, now).await?
        })
    }

    async fn cancel_refresh(
        &self,
        audience: &AudienceName,
        id: Option<RefreshId>,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<Refresh>> {
        write_tx!(self, Full, "cancelling a refresh", |tx| {
            let text = concat!(
                "UPDATE refreshes SET state = 'failed', finished_at = $2, reason = $3,
                    holder = NULL, lease_until = NULL
                 WHERE audience = $1 AND id = coalesce($4, id) AND state IN ('scheduled', 'processing', 'halted')
                 RETURNING ",
                refresh_columns!()
            );
            let cancelled = tx.optional(text, (audience, now, reason, id), refresh_of).await?;
            if let Some(refresh) = &cancelled {
                parts::delete_all(tx, refresh.id).await?;
                waiting::cancel(tx, audience, reason, now).await?;
            }
            cancelled
        })
    }

    async fn fail_refresh(
        &self,
        id: RefreshId,
        holder: &str,
        reason: &str,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Refresh> {
        write_tx!(self, Relaxed, "recording a failed refresh", |tx| {
            get_leased_by(tx, id, holder).await?;
            record_failed_attempt(tx, id, reason, retry_at, now).await?
        })
    }

    async fn confirm_unchanged(
        &self,
        id: RefreshId,
        holder: &str,
        version: u64,
        now: Timestamp,
    ) -> Result<bool> {
        write_tx!(self, Full, "completing an unchanged refresh", |tx| {
            publishing::confirm_one(tx, id, holder, version, now).await?
        })
    }

    async fn approve(
        &self,
        audience: &AudienceName,
        version: u64,
        now: Timestamp,
    ) -> Result<Snapshot> {
        write_tx!(self, Full, "approving a snapshot", |tx| {
            snapshots::approve(tx, audience, version, now).await?
        })
    }

    async fn reject(
        &self,
        audience: &AudienceName,
        version: u64,
        reason: &str,
        now: Timestamp,
    ) -> Result<Snapshot> {
        write_tx!(self, Full, "rejecting a snapshot", |tx| {
            snapshots::reject(tx, audience, version, reason, now).await?
        })
    }

    async fn rollback(
        &self,
        audience: &AudienceName,
        version: u64,
        now: Timestamp,
    ) -> Result<Snapshot> {
        write_tx!(self, Full, "rolling an audience back", |tx| {
            snapshots::roll_back(tx, audience, version, now).await?
        })
    }

    async fn snapshots(&self, audience: &AudienceName) -> Result<Vec<Snapshot>> {
        read_one!(self, "reading the snapshots", |tx| { snapshots::list(tx, audience).await? })
    }

    async fn snapshot(&self, audience: &AudienceName, version: u64) -> Result<Snapshot> {
        read_one!(self, "reading a snapshot", |tx| { snapshots::get(tx, audience, version).await? })
    }

    async fn size_history(
        &self,
        audience: &AudienceName,
        limit: u32,
    ) -> Result<Vec<(Timestamp, u64)>> {
        read_one!(self, "reading an audience's sizes", |tx| {
            snapshots::sizes(tx, audience, limit).await?
        })
    }

    async fn dictionary(&self) -> Result<Vec<DictionaryShard>> {
        read_one!(self, "reading the dictionary", |tx| { dictionary::all(tx).await? })
    }

    async fn dictionary_shard(&self, shard: u8) -> Result<DictionaryShard> {
        read_one!(self, "reading a dictionary shard", |tx| { dictionary::shard(tx, shard).await? })
    }

    async fn compare_and_swap_dictionary(
        &self,
        shard: u8,
        expected: u64,
        manifest: &str,
    ) -> Result<bool> {
        write_one!(self, Full, "replacing a dictionary shard", |tx| {
            dictionary::compare_and_swap(tx, shard, expected, manifest).await?
        })
    }
}
