//! Numbers of users: those of a run are those of its batches, and those of a batch are in its outcome. Pure.

use crate::{BatchOutcome, LedgerError, NewRun, ReasonCounts, Result};

impl NewRun {
    /// The number of its users.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if its batches and its counts do not agree.
    pub fn users(&self) -> Result<u64> {
        let users = self.adds.checked_add(self.removes);
        let in_batches = self.batches.iter().fold(0u64, |sum, (_, rows)| sum.saturating_add(*rows));
        match users {
            Some(users) if users == in_batches && i64::try_from(users).is_ok() => Ok(users),
            _ => Err(LedgerError::refused(
                "run",
                format!(
                    "sync {}: its batches have {in_batches} users, but it has {} to add and {} to remove",
                    self.sync, self.adds, self.removes
                ),
            )),
        }
    }
}

impl BatchOutcome {
    /// The number of its users.
    pub fn users(&self) -> u64 {
        let others = sum_reasons(&self.skipped).saturating_add(sum_reasons(&self.rejected));
        self.sent.saturating_add(others)
    }
}

/// The sum of counts by reason.
pub fn sum_reasons(reasons: &ReasonCounts) -> u64 {
    reasons.values().fold(0, |sum, n| sum.saturating_add(*n))
}

/// Adds counts by reason to others.
pub fn add_reasons(into: &mut ReasonCounts, from: &ReasonCounts) {
    for (reason, n) in from {
        let sum = into.entry(reason.clone()).or_default();
        *sum = sum.saturating_add(*n);
    }
}
