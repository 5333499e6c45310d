//! Sizes of audiences on platforms in SQL.

use async_trait::async_trait;
use throng_model::{SyncName, SyncRunId, Timestamp};

use crate::backend::{Backend, SqlLedger, read_one, write_one, write_tx};
use crate::rows::{Cells, DbRow};
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
        settling: cells.flag("settling")?,
        removed: cells.maybe_number("removed")?,
        removed_run: cells.maybe_int("removed_run")?.map(SyncRunId),
    })
}

#[async_trait]
impl<B: Backend> SizeLedger for SqlLedger<B> {
    async fn put_size(&self, size: &SizeRecord, keep: SizeRetention) -> Result<()> {
        write_tx!(self, Relaxed, "recording a size", |tx| {
            let min_interval = i64::try_from(keep.min_interval.as_micros()).unwrap_or(i64::MAX / 2);
            tx.execute(
                "DELETE FROM platform_sizes WHERE platform_id = $2
                   AND id = (SELECT max(id) FROM platform_sizes WHERE sync = $1)
                   AND at < $3 + (SELECT max(earlier.at) FROM platform_sizes earlier
                        WHERE earlier.sync = $1 AND earlier.platform_id = $2
                          AND earlier.id < platform_sizes.id)",
                (&size.sync, &size.platform_id, min_interval),
            )
            .await?;
            tx.execute(
                "INSERT INTO platform_sizes (sync, account, platform_id, at, lower_bound,
                    upper_bound, delivered, settling, removed, removed_run)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                (
                    &size.sync,
                    &size.account,
                    &size.platform_id,
                    size.at,
                    size.lower,
                    size.upper,
                    size.delivered,
                    size.settling,
                    size.removed,
                    size.removed_run,
                ),
            )
            .await?;
            let text = "UPDATE platform_audiences SET size_read_at = $2 WHERE sync = $1";
            tx.execute(text, (&size.sync, size.at)).await?;
            tx.execute("DELETE FROM platform_sizes WHERE at < $1", keep.since).await?;
            tx.execute(
                "DELETE FROM platform_sizes WHERE sync = $1 AND id NOT IN
                    (SELECT id FROM platform_sizes WHERE sync = $1 ORDER BY id DESC LIMIT $2)",
                (&size.sync, keep.rows),
            )
            .await?;
        })
    }

    async fn sizes(&self, sync: &SyncName, limit: u32) -> Result<Vec<SizeRecord>> {
        read_one!(self, "reading the sizes of a sync", |tx| {
            let text =
                "SELECT sync, account, platform_id, at, lower_bound, upper_bound, delivered, settling,
                    removed, removed_run
                 FROM platform_sizes WHERE sync = $1 ORDER BY id DESC LIMIT $2";
            let mut sizes = tx.all(text, (sync, limit), size_of).await?;
            sizes.reverse();
            sizes
        })
    }

    async fn newest_sizes(&self) -> Result<Vec<SizeRecord>> {
        read_one!(self, "reading the newest sizes", |tx| {
            let text =
                "SELECT s.sync, s.account, s.platform_id, s.at, s.lower_bound, s.upper_bound,
                    s.delivered, s.settling, s.removed, s.removed_run
                 FROM platform_audiences p JOIN platform_sizes s ON s.id =
                    (SELECT max(newest.id) FROM platform_sizes newest WHERE newest.sync = p.sync)
                 ORDER BY s.sync";
            tx.all(text, (), size_of).await?
        })
    }

    async fn sizes_due(&self, before: Timestamp) -> Result<Vec<SyncName>> {
        read_one!(self, "selecting sizes to read", |tx| {
            let text = "SELECT sync FROM platform_audiences
                 WHERE delivered_at IS NOT NULL AND coalesce(size_read_at, delivered_at) <= $1
                 ORDER BY coalesce(size_read_at, delivered_at), sync";
            tx.all(text, before, |row| Cells::new(row, "platform audience").name("sync")).await?
        })
    }

    async fn claim_size(&self, sync: &SyncName, before: Timestamp, now: Timestamp) -> Result<bool> {
        write_one!(self, Relaxed, "claiming the reading of a size", |tx| {
            let text = "UPDATE platform_audiences SET size_read_at = $3
                 WHERE sync = $1 AND delivered_at IS NOT NULL
                   AND coalesce(size_read_at, delivered_at) <= $2";
            tx.execute(text, (sync, before, now)).await? == 1
        })
    }
}
