//! The backoff of syncs that could not be planned.

use std::collections::HashMap;

use parking_lot::Mutex;
use throng_model::{Backoff, SyncName, Timestamp};

/// The backoff of syncs that could not be planned. In memory only: a new leader tries them at once.
#[derive(Debug, Default)]
pub(super) struct PlanBackoff {
    /// By sync: consecutive failures, and the time of the next try.
    failed: Mutex<HashMap<SyncName, (u32, Timestamp)>>,
}

impl PlanBackoff {
    /// Whether the next try of a sync is not due yet.
    pub(super) fn is_waiting(&self, sync: &SyncName, now: Timestamp) -> bool {
        let failed = self.failed.lock();
        failed.get(sync).is_some_and(|(_, until)| *until > now)
    }

    /// Records the result of a try.
    pub(super) fn record(&self, sync: &SyncName, ok: bool, now: Timestamp) {
        let mut failed = self.failed.lock();
        if ok {
            failed.remove(sync);
            return;
        }
        let failures = failed.get(sync).map_or(0, |(failures, _)| *failures).saturating_add(1);
        let until = now.plus(Backoff::WORK.delay(failures, failures.into()));
        failed.insert(sync.clone(), (failures, until));
    }
}
