//! The query engine in this process. Only the query worker runs it: see [`crate::worker`].

use std::sync::Arc;

use throng_spec::Source;

use crate::error::LakeError;
use crate::session::{EngineLimits, Session};

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
