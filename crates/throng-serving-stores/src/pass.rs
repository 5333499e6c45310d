//! What a pass over a store works with, and when it has to end.

use throng_spec::ServingStore;
use throng_store::NewStoreWrite;
use tokio_util::sync::CancellationToken;

use crate::{MemberStore, StoresDeps};

/// A pass over a store with the settings that the spec had when it began.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) deps: &'a StoresDeps,
    pub(crate) store: &'a ServingStore,
    /// Cancelled when the process ends, or no longer leads.
    pub(crate) shutdown: &'a CancellationToken,
}

impl Pass<'_> {
    /// Whether no further request may be sent: the process ends or no longer leads, or the applied spec has the store
    /// with other settings, or not at all.
    pub(crate) fn has_ended(&self) -> bool {
        self.shutdown.is_cancelled() || !self.deps.spec.load().serving_stores.contains(self.store)
    }

    /// Whether no further request of this write may be sent: the pass has ended, or the applied spec no longer has
    /// the audience. A removal, which a person has requested, does not need it.
    pub(crate) fn has_stopped(&self, write: &NewStoreWrite) -> bool {
        let is_declared = || {
            let spec = self.deps.spec.load();
            spec.audiences.iter().any(|audience| audience.name == write.audience)
        };
        self.has_ended() || (write.to_version.is_some() && !is_declared())
    }

    /// Users of a request, at most: those of a second if that are few, so that the rate is even.
    pub(crate) fn request_users(&self, connection: &dyn MemberStore) -> usize {
        let most = connection.request_users().max(1);
        self.store.max_writes_per_second.clamp(1, most) as usize
    }
}
