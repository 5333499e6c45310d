//! What refreshes need of the process that runs them, and what they report to it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use throng_lake::Lake;
use throng_membership::MembershipIndex;
use throng_model::{AudienceName, Clock, HashSeed, poll_delay};
use throng_objects::Objects;
use throng_spec::Spec;
use throng_store::{Ledger, Snapshot};
use tokio::sync::Notify;

use crate::builders::Builders;
use crate::dictionaries::Dictionaries;
use crate::faults::OpenProblems;
use crate::warehouse::Warehouses;

/// Receives what refreshes report. The methods are called between steps of a refresh, so they must
/// not block.
pub trait Observer: Send + Sync {
    /// The state of an audience, a refresh or a snapshot has changed in the ledger.
    fn audiences_changed(&self);

    /// A snapshot was published or held: syncs may have to be planned.
    fn snapshot_recorded(&self);

    /// Another index is used for lookups from now on.
    fn membership_loaded(&self, index: &Arc<MembershipIndex>);

    /// A snapshot or a dictionary cannot be served as it was published. Reported again while it is
    /// open, with the same key.
    fn report_problem(&self, key: &str, detail: &str);

    /// The problem with this key is resolved.
    fn clear_problem(&self, key: &str);

    /// A refresh failed; a disk may be the cause. `part` names the refresh.
    fn report_error(&self, part: &str, error: &(dyn std::error::Error + 'static));
}

/// What refreshes need of their process. What is in an `ArcSwap` is shared with the process, which
/// swaps spec and lake when another spec is applied.
pub struct RefreshDeps {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Durable state.
    pub ledger: Arc<dyn Ledger>,
    /// Snapshots, dictionaries and the outputs of parts.
    pub objects: Arc<dyn Objects>,
    /// The deployment's hash seed.
    pub seed: HashSeed,
    /// The name of this process in leases: no other process may have it.
    pub holder: String,
    /// Whether this process serves lookups, and so loads every published snapshot.
    pub serves_membership: bool,
    /// Whether a worker without a refresh runs parts of refreshes that other processes lead. Not where
    /// there are none: a single process uses all of its threads for the refresh already.
    pub helps_others: bool,
    /// The shortest time between two polls: see [`poll_delay`].
    pub min_poll_interval: Duration,
    /// The applied spec.
    pub spec: Arc<ArcSwap<Spec>>,
    /// SQL over the sources of the applied spec.
    pub lake: Arc<ArcSwap<Lake>>,
    /// Opens the warehouses of the applied spec.
    pub warehouses: Arc<dyn Warehouses>,
    /// The published snapshots and dictionaries. Swapped by [`crate::reload_membership`] only.
    pub membership: Arc<ArcSwap<MembershipIndex>>,
    /// Notified by whoever queues a refresh; builders of this process poll then.
    pub wake: Arc<Notify>,
    /// Receives what refreshes report.
    pub observer: Arc<dyn Observer>,
}

/// The refresh runtime of a process. Every function of this crate that changes something takes it.
pub struct RefreshContext {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) seed: HashSeed,
    pub(crate) holder: String,
    pub(crate) serves_membership: bool,
    pub(crate) helps_others: bool,
    min_poll_interval: Duration,
    pub(crate) spec: Arc<ArcSwap<Spec>>,
    pub(crate) lake: Arc<ArcSwap<Lake>>,
    pub(crate) warehouses: Arc<dyn Warehouses>,
    pub(crate) membership: Arc<ArcSwap<MembershipIndex>>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) observer: Arc<dyn Observer>,
    /// Notified when a refresh was cancelled.
    pub(crate) cancelled: Notify,
    /// The dictionaries that builders opened last, if this process serves no lookups.
    pub(crate) dictionaries: Dictionaries,
    /// What the builders of this process share about templates.
    pub(crate) builders: Builders,
    /// What is not served as it was published.
    pub(crate) faults: OpenProblems,
    /// Served files that have changed on the disk.
    pub(crate) changed_files: OpenProblems,
    /// The rows that the last reload read. Its lock serializes reloads: without it, a reload that read
    /// the ledger earlier could store its index later and bring back an older version.
    pub(crate) served_rows: tokio::sync::Mutex<Vec<Snapshot>>,
}

impl std::fmt::Debug for RefreshContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RefreshContext").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl RefreshContext {
    /// A runtime that does nothing yet: see [`crate::run`].
    pub fn new(parts: RefreshDeps) -> Self {
        Self {
            clock: parts.clock,
            ledger: parts.ledger,
            objects: parts.objects,
            seed: parts.seed,
            holder: parts.holder,
            serves_membership: parts.serves_membership,
            helps_others: parts.helps_others,
            min_poll_interval: parts.min_poll_interval,
            spec: parts.spec,
            lake: parts.lake,
            warehouses: parts.warehouses,
            membership: parts.membership,
            wake: parts.wake,
            observer: parts.observer,
            cancelled: Notify::new(),
            dictionaries: Dictionaries::default(),
            builders: Builders::default(),
            faults: OpenProblems::default(),
            changed_files: OpenProblems::default(),
            served_rows: tokio::sync::Mutex::default(),
        }
    }

    /// Opens the warehouses of the applied spec.
    pub fn warehouses(&self) -> &dyn Warehouses {
        &*self.warehouses
    }

    /// SQL over the sources of an audience's workspace.
    pub(crate) fn lake_of(&self, audience: &AudienceName) -> Lake {
        self.lake.load().in_workspace(audience.workspace())
    }

    /// See [`poll_delay`].
    pub(crate) fn poll_delay(&self, interval: Duration) -> Duration {
        poll_delay(&*self.clock, interval, self.min_poll_interval)
    }
}
