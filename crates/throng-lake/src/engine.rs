//! The query engine in this process. Only the query worker runs it: see [`crate::worker`].

use std::path::PathBuf;
use std::sync::Arc;

use throng_spec::Source;

use crate::LakeError;
use crate::session::Session;

/// What the queries of one engine may use.
#[derive(Debug, Clone)]
pub(crate) struct EngineLimits {
    /// Memory that operators which can spill use together.
    pub(crate) memory_bytes: u64,
    /// Where queries spill; `None`: a query that would have to spill fails.
    pub(crate) spill_dir: Option<PathBuf>,
    /// Partitions of one query.
    pub(crate) threads: usize,
}

/// SQL over the sources of a spec, in this process.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) inner: Arc<Session>,
}

impl Engine {
    /// Prepares the engine. Opens no file of a source: tables are looked up when a query names
    /// them, so a source may change between queries.
    pub(crate) fn new(sources: &[Source], limits: &EngineLimits) -> Result<Self, LakeError> {
        Ok(Self { inner: Arc::new(Session::new(sources, limits)?) })
    }
}
