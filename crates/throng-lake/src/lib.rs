//! SQL over the lake. A [`Lake`] knows the tables of the spec's sources; a [`Model`] is a `SELECT`
//! that yields user keys. [`Lake::scan`] streams them as hashes, [`Lake::identifiers`] streams the
//! identifiers of users, normalized and hashed by the program's [`Hashers`]. The only crate that
//! names DataFusion.
//!
//! Statements are planned and run in query workers, the child processes of [`throng_worker`]: see
//! [`worker`].

mod amount;
mod bind;
mod decompose;
mod engine;
mod engine_failure;
mod error;
mod facts;
mod hashers;
mod identifiers;
mod keys;
mod lake;
mod limits;
mod listing;
mod misread;
mod model;
mod part;
mod plan;
mod rewrites;
mod scan;
mod select;
mod session;
mod sql_error;
mod statement;
mod tables;
mod template;
mod unchanged;
pub mod worker;

pub use engine_failure::EngineFailure;
pub use error::LakeError;
pub use facts::{ColumnFacts, TableFacts};
pub use hashers::{Hashers, RowHasher};
pub use identifiers::{HashedRow, IdentifierQuery, IdentifierStream};
pub use keys::KeyKind;
pub use lake::Lake;
pub use limits::LakeLimits;
pub use listing::{ColumnListing, FileListing, Refused, SourceListing, TableListing};
pub use model::{Model, ModelInfo, Shape};
pub use part::{PlannedFiles, ScanPart};
pub use scan::{KeyBatch, ScanStats, Sink};
pub use throng_files::{FileError, PassedOver};
pub use throng_statement::mask::without_values;
pub use throng_statement::position::Position;
pub use throng_statement::rule::{RowCountRange, Rule};
pub use throng_statement::sum::SumRange;
pub use throng_worker::{WorkerCommand, WorkerError, WorkerExit};
