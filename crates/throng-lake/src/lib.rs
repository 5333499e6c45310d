//! SQL over the lake. A [`Lake`] knows the tables of the spec's sources; a [`Model`] is a `SELECT`
//! that yields user keys. [`Lake::scan`] streams them as hashes, [`Lake::identifiers`] streams the
//! identifiers of users, normalized and hashed by the program's [`Hashers`]. The tables themselves
//! are those of [`throng_tables`].
//!
//! Statements are planned and run in query workers, the child processes of [`throng_worker`]: see
//! [`worker`].

mod amount;
mod bind;
mod cluster;
mod conversions;
mod decompose;
mod doubts;
mod engine;
mod engine_failure;
mod engine_help;
mod error;
mod facts;
mod failure;
mod identifiers;
mod inputs;
mod keys;
mod lake;
mod listing;
mod part;
mod plan;
mod rewrites;
mod scan;
mod select;
mod session;
mod shared;
mod sql_error;
mod stage_error;
mod statement;
mod template;
mod tuples;
mod type_fault;
mod unchanged;
mod volatility;
pub mod worker;

pub use cluster::{Cluster, ClusterClient, ClusterOptions, ClusterQuery, ClusterTls};
pub use engine_failure::EngineFailure;
pub use error::LakeError;
pub use identifiers::{IdentifierQuery, IdentifierStream};
pub use lake::Lake;
pub use part::{PlannedFiles, ScanPart};
pub use scan::Sink;
pub use shared::{SharedPlan, SharedScan, SharedSink};
pub use stage_error::{stage_error, stage_file_error};
pub use throng_files::{FileError, PassedOver};
pub use throng_query::copies::{CopiedFolder, CopiedObject, Copies, CopyFailure, Wait};
pub use throng_query::hashers::{Hashers, RowHasher};
pub use throng_query::inputs::{InputQuery, InputState, Inputs};
pub use throng_query::keys::{HashedRow, KeyBatch, ScanStats, SharedBatch, SharedStats, is_padded};
pub use throng_query::limits::LakeLimits;
pub use throng_query::listing::{ColumnListing, FileListing, Refused, SourceListing, TableListing};
pub use throng_query::mask::without_values;
pub use throng_query::members::{MemberBuffers, MemberLayout, members};
pub use throng_query::model::{
    ColumnFacts, KeyKind, Model, ModelInfo, Shape, TableFacts, column_index,
};
pub use throng_query::position::Position;
pub use throng_query::rule::{RowCountRange, Rule};
pub use throng_query::sum::SumRange;
pub use throng_query::warehouse;
pub use throng_worker::{WorkerCommand, WorkerError, WorkerExit};
