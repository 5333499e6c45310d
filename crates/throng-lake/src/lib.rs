//! SQL over the lake. A [`Lake`] knows the tables of the spec's sources; a [`Model`] is a `SELECT`
//! that yields user keys. [`Lake::scan`] streams them as hashes, [`Lake::identifiers`] streams the
//! identifiers of users for the worker that hashes them. The only crate that names DataFusion.

mod amount;
mod canonical;
mod columns;
mod error;
mod identifiers;
mod keys;
mod mask;
mod misread;
mod model;
mod position;
mod rewrites;
mod rule;
mod scan;
mod session;
mod tables;

pub use amount::Sum;
pub use error::LakeError;
pub use identifiers::{IdentifierRow, IdentifierStream};
pub use keys::KeyKind;
pub use mask::without_values;
pub use model::{Model, ModelInfo, Shape};
pub use position::Position;
pub use rule::{Occurs, Rule};
pub use scan::{KeyBatch, ScanPart, ScanStats, Sink};

use std::path::PathBuf;
use std::sync::Arc;

use throng_spec::Source;

/// Limits on what queries may use.
#[derive(Debug, Clone)]
pub struct LakeLimits {
    /// Memory of all queries of this lake together; what does not fit is spilled. The process needs
    /// up to 1.6 times this while it sorts.
    pub memory_bytes: u64,
    /// Where queries spill.
    pub spill_dir: PathBuf,
    /// Partitions of one query.
    pub threads: usize,
}

/// SQL over the sources of a spec. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lake {
    inner: Arc<session::Session>,
}

impl Lake {
    /// Prepares the engine. Touches no file of a source: tables are looked for when a query names
    /// them, so a source may change between queries.
    ///
    /// # Errors
    /// [`LakeError::Engine`] if the spill directory cannot be used.
    pub fn new(sources: &[Source], limits: LakeLimits) -> Result<Self, LakeError> {
        Ok(Self { inner: Arc::new(session::Session::new(sources, limits)?) })
    }
}
