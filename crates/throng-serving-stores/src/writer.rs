//! Writes the users of one write, batch by batch.

use std::time::Duration;

use throng_model::Timestamp;
use throng_store::{StoreLease, StoreProgress, StoreWrite};
use tokio_util::sync::CancellationToken;

use crate::changes::Changes;
use crate::error::WriteError;
use crate::{Change, MemberStore, StoresDeps};

/// Users of a batch, after which the progress of a write is recorded.
pub const BATCH_USERS: usize = 10_000;
/// How long the lease of a write lasts. Half of it is longer than a request to a store may take.
const LEASE: Duration = Duration::from_secs(30);

/// One try of a write.
pub(crate) struct Writer<'a> {
    pub(crate) deps: &'a StoresDeps,
    pub(crate) store: &'a mut dyn MemberStore,
    pub(crate) row: &'a StoreWrite,
    pub(crate) max_writes_per_second: u32,
    pub(crate) shutdown: &'a CancellationToken,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All users are written.
    Done,
    /// Another process has the write, or this one ends.
    Stopped,
}

impl Writer<'_> {
    /// Writes what is missing. The lease is checked before each request, so that a process that was paused does
    /// not write over what another one has written in the meantime.
    pub(crate) async fn run(mut self) -> Result<Outcome, WriteError> {
        let Some(mut until) = self.claim().await? else { return Ok(Outcome::Stopped) };
        let mut changes = Changes::of(self.deps, &self.row.write).await?;
        let users = changes.users();
        let mut progress = StoreProgress { users, batches: 0, added: 0, removed: 0 };
        // With another number of users the dictionary has grown since the last try of a rewrite: the order is
        // another one.
        if self.row.users == Some(users) {
            let StoreWrite { batches, added, removed, .. } = *self.row;
            progress = StoreProgress { users, batches, added, removed };
        }
        changes.skip(progress.added + progress.removed);
        loop {
            let batch = changes.next(BATCH_USERS).await?;
            for chunk in batch.chunks(self.chunk_users()) {
                if self.shutdown.is_cancelled() {
                    return Ok(Outcome::Stopped);
                }
                if self.deps.clock.now().plus(LEASE / 2) >= until {
                    let Some(renewed) = self.claim().await? else { return Ok(Outcome::Stopped) };
                    until = renewed;
                }
                self.write(chunk).await?;
            }
            let added = batch.iter().filter(|change| change.added).count() as u64;
            progress.batches += u64::from(!batch.is_empty());
            progress.added += added;
            progress.removed += batch.len() as u64 - added;
            let lease = self.lease();
            self.deps.ledger.record_store_progress(lease, progress).await?;
            until = lease.until;
            if progress.added + progress.removed >= users {
                return Ok(Outcome::Done);
            }
        }
    }

    fn lease(&self) -> StoreLease<'_> {
        let now = self.deps.clock.now();
        StoreLease { id: self.row.id, holder: &self.deps.holder, now, until: now.plus(LEASE) }
    }

    /// Claims the write or renews the lease, and returns its end; `None` if another process has it.
    async fn claim(&self) -> Result<Option<Timestamp>, WriteError> {
        let lease = self.lease();
        let claimed = self.deps.ledger.claim_store_write(lease).await?;
        Ok(claimed.then_some(lease.until))
    }

    /// Users of a request: those of a second if that are few, so that the rate is even.
    fn chunk_users(&self) -> usize {
        let most = self.store.request_users().max(1);
        self.max_writes_per_second.clamp(1, most) as usize
    }

    /// Writes users, and waits until as much time has passed as they may take.
    async fn write(&mut self, chunk: &[Change]) -> Result<(), WriteError> {
        let rate = f64::from(self.max_writes_per_second.max(1));
        let pause = tokio::time::sleep(Duration::from_secs_f64(chunk.len() as f64 / rate));
        self.store.write(&self.row.write.audience, chunk).await?;
        pause.await;
        Ok(())
    }
}
