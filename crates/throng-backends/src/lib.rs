//! The one place that chooses backends: [`open()`] opens ledger, event log, feed, queues and objects as the
//! settings of a node say, and everybody else has traits of them.
//!
//! It also has what belongs to stores on this machine. One node at a time uses a data directory
//! ([`DataDirLock`]), and notices when it is removed ([`DataDirectory`]). The stores in it carry [`Stamps`], so
//! that copies of different moments are refused. Probes report a ledger or a disk that fails before a request
//! does ([`probe_writes`], [`probe_reads`]). [`check_backends`] connects to every backend without starting a
//! node, and compares shared ones with each other; [`check_spec_backends`] also tries the serving stores of a
//! spec. Topics of another deployment are refused. [`LocalStores`] gives the stores of a data directory to
//! backups. [`BucketCopies`] has the local copies of sources in buckets, [`open_lake`] opens the bucket of
//! ingested rows, [`IdentifierKeySource`] has the keys that delivered states are encrypted with.

mod backup;
mod connect;
mod consistency;
mod data_directory;
mod error;
mod finding;
mod identifier_keys;
mod ingested;
mod lock;
mod open;
mod probe;
mod reporter;
mod source_copies;
mod stamps;
mod stores;
mod topics;

pub use backup::LocalStores;
pub use connect::{check_backends, check_spec_backends, migrate};
pub use data_directory::{DataDirectory, create_data_dir};
pub use error::{BackendError, StampError};
pub use finding::Finding;
pub use identifier_keys::IdentifierKeySource;
pub use ingested::{open_lake, sources_for_check};
pub use lock::DataDirLock;
pub use open::{BackendConfig, Backends, check_log_partitions, open, secret};
pub use probe::{Probes, probe_reads, probe_writes};
pub use reporter::{BackendProblem, BackendReporter};
pub use source_copies::BucketCopies;
pub use stamps::{Recovery, Stamps};
