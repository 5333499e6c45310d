//! Writes of serving stores in SQL.

use async_trait::async_trait;
use throng_model::{AudienceName, ServingStoreName, Timestamp};

use crate::backend::{Backend, SqlLedger, read_one, write_one, write_tx};
use crate::rows::{Cells, DbRow, json};
use crate::{
    LedgerError, NewStoreWrite, Result, StoreCheck, StoreLease, StoreProgress, StoreWrite,
};
use crate::{StoreWriteLedger, StoreWriteState, StoredEnum as _};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, store, audience, place, from_version, to_version, rewrite, state, users,
                batches, added, removed, tries, retry_at, error, started_at, updated_at, checked
             FROM store_writes ",
            $rest
        )
    };
}

fn write_of(row: &DbRow) -> Result<StoreWrite> {
    let cells = Cells::new(row, "write of a serving store");
    Ok(StoreWrite {
        id: cells.int("id")?,
        write: NewStoreWrite {
            store: cells.name("store")?,
            audience: cells.name("audience")?,
            place: cells.text("place")?,
            from_version: cells.maybe_number("from_version")?,
            to_version: cells.maybe_number("to_version")?,
            rewrite: cells.flag("rewrite")?,
        },
        state: cells.variant("state")?,
        users: cells.maybe_number("users")?,
        batches: cells.number("batches")?,
        added: cells.number("added")?,
        removed: cells.number("removed")?,
        tries: cells.number("tries")?,
        retry_at: cells.maybe_time("retry_at")?,
        error: cells.maybe_text("error")?,
        started_at: cells.time("started_at")?,
        updated_at: cells.time("updated_at")?,
        check: cells.maybe_json("checked")?,
    })
}

#[async_trait]
impl<B: Backend> StoreWriteLedger for SqlLedger<B> {
    async fn begin_store_write(
        &self,
        write: &NewStoreWrite,
        newest: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<i64>> {
        write_tx!(self, Full, "beginning a write to a serving store", |tx| {
            let of = (&write.store, &write.audience);
            let text = "SELECT max(id) FROM store_writes WHERE store = $1 AND audience = $2";
            if tx.scalar::<Option<i64>>(text, of).await? == newest {
                let text = "UPDATE store_writes SET state = 'replaced'
                     WHERE store = $1 AND audience = $2 AND state = 'open'";
                tx.execute(text, of).await?;
                let text = "DELETE FROM store_writes
                     WHERE store = $1 AND audience = $2 AND id NOT IN (SELECT id FROM store_writes
                        WHERE store = $1 AND audience = $2 ORDER BY id DESC LIMIT 20)";
                tx.execute(text, of).await?;
                let text =
                    "INSERT INTO store_writes (store, audience, place, from_version, to_version,
                        rewrite, state, started_at, updated_at)
                     VALUES ($1, $2, $3, $4, $5, $6, 'open', $7, $7) RETURNING id";
                let (from, to) = (write.from_version, write.to_version);
                let values = (of.0, of.1, &write.place, from, to, write.rewrite, now);
                Some(tx.scalar::<i64>(text, values).await?)
            } else {
                None
            }
        })
    }

    async fn newest_store_writes(&self) -> Result<Vec<StoreWrite>> {
        read_one!(self, "reading the newest writes of serving stores", |tx| {
            let text = select!(
                "WHERE id IN (SELECT max(id) FROM store_writes GROUP BY store, audience)
                 ORDER BY store, audience"
            );
            tx.all(text, (), write_of).await?
        })
    }

    async fn newest_store_write(
        &self,
        store: &ServingStoreName,
        audience: &AudienceName,
    ) -> Result<Option<StoreWrite>> {
        read_one!(self, "reading the newest write of a serving store", |tx| {
            let text = select!("WHERE store = $1 AND audience = $2 ORDER BY id DESC LIMIT 1");
            tx.optional(text, (store, audience), write_of).await?
        })
    }

    async fn store_writes(&self, store: &ServingStoreName, limit: u32) -> Result<Vec<StoreWrite>> {
        read_one!(self, "reading the writes of a serving store", |tx| {
            let text = select!("WHERE store = $1 ORDER BY id DESC LIMIT $2");
            tx.all(text, (store, limit), write_of).await?
        })
    }

    async fn claim_store_write(&self, lease: StoreLease<'_>) -> Result<bool> {
        write_one!(self, Full, "claiming a write to a serving store", |tx| {
            // The holder of a write that was replaced finds that out at the end of its batch, or when
            // it renews its lease; until then it still writes users of the same audience.
            let text = "UPDATE store_writes SET holder = $2, lease_until = $4
                 WHERE id = $1 AND state = 'open' AND (retry_at IS NULL OR retry_at <= $3)
                   AND (holder = $2 OR lease_until IS NULL OR lease_until <= $3)
                   AND NOT EXISTS (SELECT 1 FROM store_writes AS earlier
                      WHERE earlier.store = store_writes.store
                        AND earlier.audience = store_writes.audience
                        AND earlier.state = 'replaced' AND earlier.holder <> $2
                        AND earlier.lease_until > $3)";
            tx.execute(text, (lease.id, lease.holder, lease.now, lease.until)).await? == 1
        })
    }

    async fn record_store_progress(&self, lease: StoreLease<'_>, now: StoreProgress) -> Result<()> {
        write_one!(self, Full, "recording a batch of a serving store", |tx| {
            let StoreLease { id, holder, .. } = lease;
            let is_done = now.added + now.removed >= now.users;
            let state = if is_done { StoreWriteState::Done } else { StoreWriteState::Open };
            let (state, at, until) = (state.stored_name(), lease.now, lease.until);
            let text = "UPDATE store_writes SET users = $3, batches = $4, added = $5, removed = $6,
                    updated_at = $7, lease_until = $8, state = $9, tries = 0, retry_at = NULL,
                    error = NULL
                 WHERE id = $1 AND holder = $2 AND state = 'open'";
            let StoreProgress { users, batches, added, removed } = now;
            let values = (id, holder, users, batches, added, removed, at, until, state);
            if tx.execute(text, values).await? == 0 {
                return Err(LedgerError::lease_lost("write of a serving store", id).into());
            }
        })
    }

    async fn fail_store_write(&self, lease: StoreLease<'_>, error: &str) -> Result<()> {
        write_one!(self, Relaxed, "recording a failed write to a serving store", |tx| {
            let text = "UPDATE store_writes SET tries = tries + 1, error = $3, updated_at = $4,
                    retry_at = $5, holder = NULL, lease_until = NULL
                 WHERE id = $1 AND holder = $2 AND state = 'open'";
            let values = (lease.id, lease.holder, error, lease.now, lease.until);
            tx.execute(text, values).await?;
        })
    }

    async fn record_store_check(&self, id: i64, check: StoreCheck) -> Result<()> {
        write_one!(self, Relaxed, "recording a check of a serving store", |tx| {
            let text = "UPDATE store_writes SET checked = $2 WHERE id = $1 AND state = 'done'";
            tx.execute(text, (id, json(&check)?)).await?;
        })
    }
}
