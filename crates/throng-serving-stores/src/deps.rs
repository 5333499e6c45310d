//! What serving stores need from the process that runs them, and from an engine.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use throng_membership::MembershipIndex;
use throng_model::{AudienceName, Clock, HashSeed, UserHash};
use throng_objects::Objects;
use throng_spec::{ServingStore, Spec};
use throng_store::Ledger;

use crate::{CheckBackoff, StoreError};

/// A user who is added to an audience or removed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The user.
    pub user: UserHash,
    /// Whether the user is added.
    pub added: bool,
}

/// A connection to a store. Its requests keep to the rate of the store: they wait until they may be sent.
#[async_trait]
pub trait MemberStore: Send + Sync {
    /// Users of a write or a question, at most.
    fn request_users(&self) -> u32;

    /// Adds users to an audience and removes others. Safe to repeat, also after an error.
    ///
    /// # Errors
    /// [`StoreError`]; some of the changes may be in the store.
    async fn write(
        &mut self,
        audience: &AudienceName,
        changes: &[Change],
    ) -> Result<(), StoreError>;

    /// Whether each of these users is in an audience, in the same order.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn contains(
        &mut self,
        audience: &AudienceName,
        users: &[UserHash],
    ) -> Result<Vec<bool>, StoreError>;
}

/// Connects to stores.
#[async_trait]
pub trait Connector: Send + Sync {
    /// A new connection.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be reached or refuses the connection.
    async fn connect(&self, store: &ServingStore) -> Result<Box<dyn MemberStore>, StoreError>;
}

/// What this crate works with. Cheap to clone.
#[derive(Clone)]
pub struct StoresDeps {
    /// Writes, snapshots and the dictionary.
    pub ledger: Arc<dyn Ledger>,
    /// Snapshots.
    pub objects: Arc<dyn Objects>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The applied spec, shared with the process, which swaps it when another one is applied.
    pub spec: Arc<ArcSwap<Spec>>,
    /// The dictionaries that the process has open, if it answers lookups.
    pub membership: Arc<ArcSwap<MembershipIndex>>,
    /// The deployment's hash seed.
    pub seed: HashSeed,
    /// The name of this process in leases.
    pub holder: String,
    /// The shortest time between two polls.
    pub min_poll_interval: Duration,
    /// Connects to the stores.
    pub connector: Arc<dyn Connector>,
    /// Checks that could not be made.
    pub check_backoff: Arc<CheckBackoff>,
}

impl std::fmt::Debug for StoresDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoresDeps").finish_non_exhaustive()
    }
}
