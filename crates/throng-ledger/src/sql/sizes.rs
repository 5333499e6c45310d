//! Sizes of audiences on platforms in SQL.

use async_trait::async_trait;
use throng_model::{SyncName, Timestamp};

use super::{Backend, DbRow, read_one, write_one, write_tx};
use crate::rows::{Cells, count};
use crate::{Result, SizeLedger, SizeRecord, SizeRetention};

fn size_of(row: &DbRow) -> Result<SizeRecord> {
    let cells = Cells::new(row, "size");
    Ok(SizeRecord {
        sync: cells.name("sync")?,
        account: cells.text("account")?,
        platform_id: cells.text("platform_id")?,
        at: cells.time("at")?,
        lower: cells.maybe_number("lower_bound")?,
        upper: cells.maybe_number("upper_bound")?,
        delivered: cells.number("delivered")?,
        settling: cells.int("settling")? != 0,
        removed: cells.maybe_number("removed")?,
    })
}

#[async_trait]
impl SizeLedger for Backend {
    async fn put_size(&self, size: &SizeRecord, keep: SizeRetention) -> Result<()> {
        write_tx!(self, Relaxed, "recording a size", |tx| {
            sqlx::query(
                "DELETE FROM platform_sizes WHERE platform_id = $2
                   AND id = (SELECT max(id) FROM platform_sizes WHERE sync = $1)
                   AND at < $3 + (SELECT max(earlier.at) FROM platform_sizes earlier
                        WHERE earlier.sync = $1 AND earlier.platform_id = $2
                          AND earlier.id < platform_sizes.id)",
            )
            .bind(size.sync.as_str())
            .bind(size.platform_id.as_str())
            .bind(i64::try_from(keep.min_interval.as_micros()).unwrap_or(i64::MAX / 2))
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "INSERT INTO platform_sizes (sync, account, platform_id, at, lower_bound,
                    upper_bound, delivered, settling, removed)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(size.sync.as_str())
            .bind(size.account.as_str())
            .bind(size.platform_id.as_str())
            .bind(size.at.0)
            .bind(size.lower.map(count))
            .bind(size.upper.map(count))
            .bind(count(size.delivered))
            .bind(i64::from(size.settling))
            .bind(size.removed.map(count))
            .execute(&mut *tx)
            .await?;
            sqlx::query("UPDATE platform_audiences SET size_read_at = $2 WHERE sync = $1")
                .bind(size.sync.as_str())
                .bind(size.at.0)
                .execute(&mut *tx)
                .await?;
            sqlx::query("DELETE FROM platform_sizes WHERE at < $1")
                .bind(keep.since.0)
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "DELETE FROM platform_sizes WHERE sync = $1 AND id NOT IN
                    (SELECT id FROM platform_sizes WHERE sync = $1 ORDER BY id DESC LIMIT $2)",
            )
            .bind(size.sync.as_str())
            .bind(i64::from(keep.rows))
            .execute(tx)
            .await?;
        })
    }

    async fn sizes(&self, sync: &SyncName, limit: u32) -> Result<Vec<SizeRecord>> {
        read_one!(self, "reading the sizes of a sync", |tx| {
            let rows = sqlx::query(
                "SELECT sync, account, platform_id, at, lower_bound, upper_bound, delivered, settling,
                    removed
                 FROM platform_sizes WHERE sync = $1 ORDER BY id DESC LIMIT $2",
            )
            .bind(sync.as_str())
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await?;
            rows.iter().rev().map(size_of).collect::<Result<_>>()?
        })
    }

    async fn newest_sizes(&self) -> Result<Vec<SizeRecord>> {
        read_one!(self, "reading the newest sizes", |tx| {
            let rows = sqlx::query(
                "SELECT s.sync, s.account, s.platform_id, s.at, s.lower_bound, s.upper_bound,
                    s.delivered, s.settling, s.removed
                 FROM platform_audiences p JOIN platform_sizes s ON s.id =
                    (SELECT max(newest.id) FROM platform_sizes newest WHERE newest.sync = p.sync)
                 ORDER BY s.sync",
            )
            .fetch_all(tx)
            .await?;
            rows.iter().map(size_of).collect::<Result<_>>()?
        })
    }

    async fn sizes_due(&self, before: Timestamp) -> Result<Vec<SyncName>> {
        read_one!(self, "selecting sizes to read", |tx| {
            let rows = sqlx::query(
                "SELECT sync FROM platform_audiences
                 WHERE delivered_at IS NOT NULL AND coalesce(size_read_at, delivered_at) <= $1
                 ORDER BY coalesce(size_read_at, delivered_at), sync",
            )
            .bind(before.0)
            .fetch_all(tx)
            .await?;
            let mut due = Vec::with_capacity(rows.len());
            for row in &rows {
                due.push(Cells::new(row, "platform audience").name("sync")?);
            }
            due
        })
    }

    async fn claim_size(&self, sync: &SyncName, before: Timestamp, now: Timestamp) -> Result<bool> {
        write_one!(self, Relaxed, "claiming the reading of a size", |tx| {
            let claimed = sqlx::query(
                "UPDATE platform_audiences SET size_read_at = $3
                 WHERE sync = $1 AND delivered_at IS NOT NULL
                   AND coalesce(size_read_at, delivered_at) <= $2",
            )
            .bind(sync.as_str())
            .bind(before.0)
            .bind(now.0)
            .execute(tx)
            .await?;
            claimed.rows_affected() == 1
        })
    }
}
