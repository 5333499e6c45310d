//! Maintenance: the stamp that ledger, log and objects share, the objects that the ledger refers
//! to, a probe write, and a clean shutdown.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Which data directory a store belongs to, and its age. The stores of one directory are stamped
/// together, ledger first, at every start and every few seconds while a node runs, so that copies
/// of different times are recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStamp {
    /// The data directory's identity: 32 hexadecimal digits, chosen once.
    pub instance: String,
    /// Counts from 1 and never decreases.
    pub sequence: u64,
}

/// An object that the ledger refers to: without it a row of the ledger cannot be served or
/// continued.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReferencedObject {
    /// The object's name in the object storage.
    pub name: String,
    /// Its length in bytes, where the ledger records it.
    pub bytes: Option<u64>,
}

/// Everything in the object storage that the ledger refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReferencedObjects {
    /// Snapshots, finished parts of open refreshes, delivered states, plans of runs.
    pub objects: Vec<ReferencedObject>,
    /// Manifests of dictionary shards; each names files.
    pub manifests: Vec<String>,
}

/// The ledger as one store, besides its rows: for the start and the end of a node, backups, and probes of its health.
#[async_trait]
pub trait MaintenanceLedger: Send + Sync {
    /// The stamp. `None` before the first one.
    async fn stamp(&self) -> Result<Option<StoreStamp>>;

    /// Replaces the stamp, durably. Writes even if the stamp is the same.
    async fn put_stamp(&self, stamp: &StoreStamp) -> Result<()>;

    /// Makes a durable write that changes nothing else. Fails as other writes would.
    async fn probe(&self) -> Result<()>;

    /// The objects that the ledger refers to, in one consistent state of it.
    async fn referenced_objects(&self) -> Result<ReferencedObjects>;

    /// Checks the structure of a SQLite file that was too large to be checked when it was opened;
    /// does nothing for others. Two to three seconds per gigabyte; other calls continue meanwhile.
    ///
    /// # Errors
    /// [`crate::LedgerError::Damaged`], [`crate::LedgerError::Database`].
    async fn check_structure(&self) -> Result<()>;

    /// Closes all connections. In SQLite, records the checksum of the file if no other process has
    /// it open, so that the next open detects any change to it. Later calls fail.
    async fn close(&self) -> Result<()>;
}
