//! Removals: the spec no longer has a sync, and its audience on the platform is to be emptied or
//! deleted.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throng_model::{SyncName, Timestamp};

use crate::Result;

/// What is to be done with the audience on the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalRule {
    /// Every delivered row is removed; the audience stays, empty.
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
    /// The sync and its destination as they were last declared. The ledger does not parse it.
    pub definition: serde_json::Value,
    /// The message of the alert that asks a person to approve or discard it.
    pub message: String,
}

/// A spec to be applied, and what it changes about removals.
#[derive(Debug, Clone, Copy)]
pub struct SpecUpdate<'a> {
    /// The version that it replaces; 0 if there must be none.
    pub base: u64,
    /// The spec.
    pub spec: &'a serde_json::Value,
    /// Removals to be recorded. Those of syncs without an audience on a platform are left out.
    pub removals: &'a [NewRemoval],
    /// Every sync of the spec: their removals are cancelled unless they are approved.
    pub declared: &'a [SyncName],
}

/// The result of applying a [`SpecUpdate`].
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
    /// The sync and its destination as they were last declared.
    pub definition: serde_json::Value,
    /// When the spec without the sync was applied.
    pub requested_at: Timestamp,
    /// When a person approved it.
    pub approved_at: Option<Timestamp>,
    /// The name of the approver's token.
    pub approved_by: Option<String>,
    /// Failed tries to delete the audience.
    pub tries: u32,
    /// When it is tried again.
    pub retry_at: Option<Timestamp>,
    /// Why the last try failed.
    pub last_error: Option<String>,
}

/// The subject of alerts about a removal. It is not a valid name of a sync, so they do not collide
/// with alerts about syncs.
pub fn removal_subject(sync: &SyncName) -> String {
    format!("removal {sync}")
}

/// Removals. One that is recorded waits until a person approves or discards it, or its sync is
/// declared again; it ends when it is carried out.
#[async_trait]
pub trait RemovalLedger: Send + Sync {
    /// Applies a spec, if the newest one has the version `base`. An equal spec is not stored again,
    /// and its version is returned. In the same transaction removals are recorded, each with an
    /// open alert of the kind `run_held`, and cancelled, which resolves their alerts: in two
    /// transactions a crash between them would lose a removal forever. A removal that is already
    /// recorded stays as it is. `None`, and nothing is changed, if another version than `base` is
    /// applied.
    async fn apply_spec_update(
        &self,
        update: SpecUpdate<'_>,
        now: Timestamp,
    ) -> Result<Option<SpecApplied>>;

    /// The removals that have not been carried out, by sync.
    async fn removals(&self) -> Result<Vec<Removal>>;

    /// The removal of a sync. Costs one index lookup.
    async fn removal(&self, sync: &SyncName) -> Result<Option<Removal>>;

    /// A person approves a removal. Its alert is resolved, and the sync's pause and its runs that
    /// no worker has claimed end. `NotFound` if there is no such removal, `WrongState` if it is
    /// already approved.
    async fn approve_removal(&self, sync: &SyncName, by: &str, now: Timestamp) -> Result<()>;

    /// A person discards a removal: the audience stays on the platform as it is, and its delivered
    /// state stays recorded. The alerts about the removal are resolved, and runs of it that no
    /// worker has claimed end. If the removal was approved, the sync is compared with its delivered
    /// state again when it is declared again, because a part of its users may have been removed.
    /// `NotFound` if there is no such removal, `WrongState` while it is being carried out.
    async fn discard_removal(&self, sync: &SyncName, now: Timestamp) -> Result<()>;

    /// Claims an approved removal that is due, until `lease_until`. `false` if it is not due, or
    /// another process has it.
    async fn claim_removal(
        &self,
        sync: &SyncName,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<bool>;

    /// A try to carry out a removal ended without success; it is tried again at `retry_at`. `counts`: it is one of
    /// [`Removal::tries`]. Does nothing if the removal no longer exists.
    async fn fail_removal(
        &self,
        sync: &SyncName,
        error: &str,
        retry_at: Timestamp,
        counts: bool,
    ) -> Result<()>;

    /// A removal is carried out: deletes it, the platform's audience of its sync, its delivered
    /// state, and its foreign audience. The open alerts about the sync and its removal are
    /// resolved. `NotFound` if there is no such removal, or it is not approved.
    async fn finish_removal(&self, sync: &SyncName, now: Timestamp) -> Result<()>;
}
