//! Backup and restore of a data directory: ledger, objects, checkpoints and event log of one node
//! with local storage, also while it runs.
//!
//! **Order.** The ledger is copied first, as one consistent state; then the objects that this copy
//! names; then the checkpoints are opened, then the log. So
//! * no object is missing that the copied ledger names: if retention removes one in between,
//!   another round starts with a newer copy of the ledger;
//! * no checkpoint is ahead of the copied log: the events of a checkpoint were in the log before
//!   the checkpoint was written, and the log is read after it;
//! * the log begins at or before every checkpoint: this is checked, and another round starts if
//!   retention has removed events since the checkpoint was opened;
//! * events were accepted under the spec in the copied ledger: the applied version is compared
//!   after the log was opened, and another round starts if another spec was applied.
//!
//! Files that were opened are read through their handles: a checkpoint that is replaced or a
//! segment that is deleted in the meantime stays readable. The log's last segment is copied up to
//! its length when it was opened; a record that was being written then is a torn write, which was
//! not acknowledged, and is cut off at the next start.
//!
//! Names no database: whoever opens ledgers passes [`Stores`].

mod archive;
mod backup;
mod error;
mod files;
mod manifest;
mod restore;
mod source;
mod stores;
mod target;

pub use backup::backup;
pub use error::BackupError;
pub use files::Progress;
pub use manifest::{FileEntry, Manifest, PartitionRange};
pub use restore::restore;
pub use stores::{LedgerFile, Stores};
