//! The spec that this process runs, with its version.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use throng_model::{Clock, poll_delay};
use throng_spec::{Plan, Spec};
use tokio::sync::{Mutex, MutexGuard};

/// The applied spec of this process.
#[derive(Debug)]
pub struct RunningSpec {
    /// Shared with the parts of the process that need no version.
    spec: Arc<ArcSwap<Spec>>,
    /// Its version in the ledger, or the previous version while the spec is swapped.
    version: AtomicU64,
    /// Two swaps at once could let an older spec replace a newer one.
    swapping: Mutex<()>,
    /// The shortest time between two polls of a role.
    min_poll_interval: Duration,
    /// See [`crate::SpecApplier::take_replaced`].
    pub(crate) replaced: ArcSwapOption<Plan>,
}

impl RunningSpec {
    /// The spec with which a process starts, and its version. `min_poll_interval`: see [`Self::poll_delay`].
    pub fn new(spec: Arc<ArcSwap<Spec>>, version: u64, min_poll_interval: Duration) -> Self {
        let (version, replaced) = (AtomicU64::new(version), ArcSwapOption::empty());
        Self { spec, version, swapping: Mutex::default(), min_poll_interval, replaced }
    }

    /// Held while the spec is swapped, and while what depends on it follows.
    pub(crate) async fn lock(&self) -> MutexGuard<'_, ()> {
        self.swapping.lock().await
    }

    /// Replaces the spec. The caller holds the lock.
    pub(crate) fn set(&self, spec: Spec, version: u64) {
        self.spec.store(Arc::new(spec));
        self.version.store(version, Ordering::Release);
    }

    /// The spec.
    pub fn load(&self) -> Arc<Spec> {
        self.spec.load_full()
    }

    /// The spec and its version. The spec is at least as new as the version.
    pub fn with_version(&self) -> (Arc<Spec>, u64) {
        // The version first: `set` stores it last, so that the spec is never older than it.
        let version = self.version.load(Ordering::Acquire);
        (self.load(), version)
    }

    /// The shortest time between two polls of a role of this process.
    pub fn min_poll_interval(&self) -> Duration {
        self.min_poll_interval
    }

    /// How long a role waits between two polls: `duration` of the node's clock in wall time, but
    /// not less than a minimum. Without the minimum a fast simulated clock would make the roles
    /// poll in a busy loop, and load a ledger that many processes share.
    pub fn poll_delay(&self, clock: &dyn Clock, duration: Duration) -> Duration {
        poll_delay(clock, duration, self.min_poll_interval)
    }
}
