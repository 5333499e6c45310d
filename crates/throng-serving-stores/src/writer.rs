//! Writes the users of one write, batch by batch.

use std::time::Duration;

use throng_model::Timestamp;
use throng_store::{StoreLease, StoreProgress, StoreWrite};

use crate::MemberStore;
use crate::changes::Changes;
use crate::error::WriteError;
use crate::pass::Pass;

/// Users of a batch, after which the progress of a write is recorded.
pub const BATCH_USERS: usize = 10_000;
/// How long the lease of a write lasts. Half of it is longer than a request to a store may take.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// One try of a write.
pub(crate) struct Writer<'a> {
    pub(crate) pass: Pass<'a>,
    pub(crate) connection: &'a mut dyn MemberStore,
    pub(crate) row: &'a StoreWrite,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All users are written.
    Done,
    /// Another process has the write, this one ends, or the spec no longer has it.
    Stopped,
}

impl Writer<'_> {
    /// Writes what is missing. The lease is checked before each request, so that a process that was paused does
    /// not write over what another one has written in the meantime; and the applied spec, so that nothing is written
    /// to a place that is no longer declared.
    pub(crate) async fn run(self) -> Result<Outcome, WriteError> {
        let Some(mut until) = self.claim().await? else { return Ok(Outcome::Stopped) };
        let mut changes = Changes::of(self.pass.deps, &self.row.write).await?;
        let users = changes.users();
        let mut progress = StoreProgress { users, batches: 0, added: 0, removed: 0 };
        // With another number of users the dictionary has grown since the last try of a rewrite: the order is
        // another one.
        if self.row.users == Some(users) {
            let StoreWrite { batches, added, removed, .. } = *self.row;
            progress = StoreProgress { users, batches, added, removed };
        }
        changes.skip(progress.added + progress.removed);
        let request_users = self.pass.request_users(&*self.connection);
        loop {
            let batch = changes.next(BATCH_USERS).await?;
            for chunk in batch.chunks(request_users) {
                if !self.may_send(&mut until).await? {
                    return Ok(Outcome::Stopped);
                }
                self.connection.write(&self.row.write.audience, chunk).await?;
            }
            // Only whole batches are recorded. One of which a stopped pass has written a part is written again from its
            // first user, by the next pass: a set of Redis and a cell of Bigtable are the same when they are written
            // twice, and the order of the users is the same, so that the counts are those of one pass. The users of
            // that part are in the store before they are in the counts, at most `BATCH_USERS`.
            let added = batch.iter().filter(|change| change.added).count() as u64;
            progress.batches += u64::from(!batch.is_empty());
            progress.added += added;
            progress.removed += batch.len() as u64 - added;
            let lease = self.lease();
            self.pass.deps.ledger.record_store_progress(lease, progress).await?;
            until = lease.until;
            if progress.added + progress.removed >= users {
                return Ok(Outcome::Done);
            }
        }
    }

    /// Whether the next request may be sent: the applied spec has the write, and this process the lease, which ends at
    /// `until` and is renewed if a request may take longer. A renewal can take long as well: then it is renewed again.
    async fn may_send(&self, until: &mut Timestamp) -> Result<bool, WriteError> {
        loop {
            if self.pass.has_stopped(&self.row.write) {
                return Ok(false);
            }
            if lasts(*until, self.pass.deps.clock.now()) {
                return Ok(true);
            }
            let Some(renewed) = self.claim().await? else { return Ok(false) };
            *until = renewed;
        }
    }

    fn lease(&self) -> StoreLease<'_> {
        let deps = self.pass.deps;
        let now = deps.clock.now();
        StoreLease { id: self.row.id, holder: &deps.holder, now, until: now.plus(LEASE) }
    }

    /// Claims the write or renews the lease, and returns its end; `None` if another process has it.
    async fn claim(&self) -> Result<Option<Timestamp>, WriteError> {
        let lease = self.lease();
        let claimed = self.pass.deps.ledger.claim_store_write(lease).await?;
        Ok(claimed.then_some(lease.until))
    }
}

/// Whether a lease that ends at `until` lasts longer than a request may take. One that ends later than a new one would
/// is not kept: the clock has stepped back, and another process would have to wait for as long as the step.
fn lasts(until: Timestamp, now: Timestamp) -> bool {
    now.plus(LEASE / 2) < until && until <= now.plus(LEASE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lasts_for_its_first_half_and_not_after_the_clock_has_stepped_back() {
        let at = |seconds: u64| Timestamp(0).plus(Duration::from_secs(seconds));
        let until = at(100).plus(LEASE);
        assert!(lasts(until, at(100)) && lasts(until, at(114)));
        for now in [99, 0, 115, 130, 200] {
            assert!(!lasts(until, at(now)), "{now}");
        }
    }
}
