//! What keeps a deployment's stores together: the stamp that ledger, log and objects share, the
//! objects that the ledger names, a write that only tries, and a clean end.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Which data directory a store belongs to, and how far it is. The stores of one directory are
/// stamped together, ledger first, at every start and every few seconds while a node runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStamp {
    /// The data directory's identity: 32 hexadecimal digits, chosen once.
    pub instance: String,
    /// Counts from 1, never back.
    pub sequence: u64,
}

/// An object that the ledger names: without it something that the ledger says cannot be served or
/// continued.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedObject {
    /// The object's name in the object storage, or the manifest that names several.
    pub name: String,
    /// Its length in bytes, where the ledger records it.
    pub bytes: Option<u64>,
}

/// Everything that the ledger names in the object storage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedObjects {
    /// Snapshots, and finished parts of open refreshes.
    pub objects: Vec<NamedObject>,
    /// Manifests of dictionary shards; each names files.
    pub manifests: Vec<String>,
}

/// Upkeep of a ledger.
#[async_trait]
pub trait MaintenanceLedger: Send + Sync {
    /// The stamp; `None` before the first one.
    async fn stamp(&self) -> Result<Option<StoreStamp>>;

    /// Replaces the stamp, durably. Always writes, also an equal one.
    async fn put_stamp(&self, stamp: &StoreStamp) -> Result<()>;

    /// Tries a durable write of no meaning. Fails as other writes would.
    async fn probe(&self) -> Result<()>;

    /// The objects that the ledger names now, in one consistent state.
    async fn named_objects(&self) -> Result<NamedObjects>;

    /// Checks the structure of a SQLite file that was too large to be checked when it was opened;
    /// does nothing for others. Two to three seconds per gigabyte, beside other calls.
    ///
    /// # Errors
    /// [`crate::LedgerError::Damaged`], [`crate::LedgerError::Database`].
    async fn check_structure(&self) -> Result<()>;

    /// Ends all connections. In SQLite, records the checksum of the file if no other process has it
    /// open, so that the next open notices any change to it. Later calls fail.
    async fn close(&self) -> Result<()>;
}
