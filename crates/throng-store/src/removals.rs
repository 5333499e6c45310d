//! Removals: what becomes of the audience on the platform of a sync that the spec no longer has.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throng_model::{SyncName, Timestamp};

use crate::Result;

/// What is to be done with the audience on the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalRule {
    /// Every row that it was given is removed; the audience stays, empty.
    Empty,
    /// The audience is deleted.
    Delete,
}

/// A removal to be recorded with the spec that no longer has the sync.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRemoval {
    /// The sync.
    pub sync: SyncName,
    /// What is to be done.
    pub rule: RemovalRule,
    /// The sync and its destination as they were declared last. The ledger does not look into it.
    pub definition: serde_json::Value,
    /// The alert that a person is to approve or discard it.
    pub message: String,
}

/// A spec to be applied, with what follows for removals.
#[derive(Debug, Clone, Copy)]
pub struct SpecUpdate<'a> {
    /// The version that it is made for; 0 if there is to be none.
    pub base: u64,
    /// The spec.
    pub spec: &'a serde_json::Value,
    /// Removals to be recorded. Those of syncs that have nothing on a platform are left out.
    pub removals: &'a [NewRemoval],
    /// Every sync of the spec: their removals are cancelled unless they are approved.
    pub declared: &'a [SyncName],
}

/// What applying a [`SpecUpdate`] brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecApplied {
    /// The version of the spec.
    pub version: u64,
    /// Syncs whose removal was recorded.
    pub recorded: Vec<SyncName>,
    /// Syncs whose removal was cancelled.
    pub cancelled: Vec<SyncName>,
}

/// A removal that has not been carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Removal {
    /// The sync.
    pub sync: SyncName,
    /// What is to be done.
    pub rule: RemovalRule,
    /// The sync and its destination as they were declared last.
    pub definition: serde_json::Value,
    /// When the spec without the sync was applied.
    pub requested_at: Timestamp,
    /// When a person approved it.
    pub approved_at: Option<Timestamp>,
    /// Who did.
    pub approved_by: Option<String>,
    /// Failed tries to delete the audience.
    pub tries: u32,
    /// When it is tried again.
    pub retry_at: Option<Timestamp>,
    /// Why the last try failed.
    pub last_error: Option<String>,
}

/// The subject of alerts about a removal. No sync is named so.
pub fn removal_subject(sync: &SyncName) -> String {
    format!("removal {sync}")
}

/// Removals. One that is recorded waits until a person approves or discards it, or its sync is declared
/// again; it ends when it is carried out.
#[async_trait]
pub trait RemovalLedger: Send + Sync {
    /// Applies a spec as [`crate::SpecLedger::apply_spec_over`] does. In the same transaction removals are
    /// recorded, each with an open alert of the kind `run_held`, and cancelled, which ends their alerts. A
    /// removal that is there already stays as it is. `None`, and nothing done, if another version than
    /// `base` is applied.
    async fn apply_spec_update(
        &self,
        update: SpecUpdate<'_>,
        now: Timestamp,
    ) -> Result<Option<SpecApplied>>;

    /// The removals that have not been carried out, by sync.
    async fn removals(&self) -> Result<Vec<Removal>>;

    /// The removal of a sync. Costs one look-up.
    async fn removal(&self, sync: &SyncName) -> Result<Option<Removal>>;

    /// A person approves a removal. Its alert, the sync's pause, and its runs that no worker has in hand
    /// end. `NotFound` if there is no such removal, `WrongState` if it is approved already.
    async fn approve_removal(&self, sync: &SyncName, by: &str, now: Timestamp) -> Result<()>;

    /// A person discards a removal: the audience stays on the platform as it is, and so does what is known
    /// of it. The alerts about the removal end, and so do runs of it that no worker has in hand; if it was
    /// approved, what the sync has to send is looked at once more when it is declared again. `NotFound` if
    /// there is no such removal, `WrongState` while one is being carried out.
    async fn discard_removal(&self, sync: &SyncName, now: Timestamp) -> Result<()>;

    /// Takes an approved removal that is due until `lease_until`. `false` if it is not due, or somebody
    /// else has it.
    async fn claim_removal(
        &self,
        sync: &SyncName,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<bool>;

    /// A try to carry out a removal failed; it is tried again at `retry_at`. Nothing if it is gone.
    async fn fail_removal(&self, sync: &SyncName, error: &str, retry_at: Timestamp) -> Result<()>;

    /// A removal is carried out: forgets it, the platform's audience of its sync, what it was given, and
    /// that it was ever let go of. The open alerts about the sync and its removal end. `NotFound` if there
    /// is no such removal, or it is not approved.
    async fn finish_removal(&self, sync: &SyncName, now: Timestamp) -> Result<()>;
}
