//! Ingested records: each row is checked against a declared [`Schema`](throng_schema::Schema), its identifiers are
//! hashed or dropped before anything is stored, and the rest is written as Parquet, sorted by key, in a folder for
//! each day. A batch is visible whole or not at all: see `commit.rs` for the steps, and `throng_files` for how
//! readers know the files of finished batches. Rows that fail a check go to quarantine.
//!
//! The rows are in a folder, or in a bucket with the same paths: [`LakeStore`]. There a manifest that is created last
//! makes a batch visible too (`bucket_commit.rs`), several nodes may ingest, and readers have copies of the objects.
//!
//! [`create_tables`] makes the tables of a spec before their first rows; [`preview_tables`] makes them in another folder,
//! for checks. [`Ingest::run`] ingests one batch; it blocks, and reads the body of a request with [`BodyReader`].

mod bucket_commit;
mod bucket_lake;
mod bucket_leftovers;
mod bucket_tables;
mod cells;
mod columns;
mod commit;
mod csv;
mod error;
mod expiry;
mod find;
mod header;
mod ingest;
mod json;
mod manifest;
mod normalise;
mod paths;
mod pipeline;
mod preview;
mod quarantine;
mod reason;
mod row_check;
mod source;
mod split;
mod table_columns;
mod tables;
mod tally;
mod unreadable;
mod worker;
mod write;

pub use bucket_lake::{BucketLake, CommitHook};
pub use commit::StepHook;
pub use error::IngestError;
pub use expiry::expire_until;
pub use find::find_schema;
pub use ingest::{Ingest, IngestRequest, IngestSettings, LakeStore};
pub use preview::{CheckedSources, sources_for_check, sources_without_lake};
pub use source::{BodyPart, BodyReader, Encoding};
pub use tables::{create_tables, preview_tables};
