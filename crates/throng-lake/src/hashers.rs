//! What normalises and hashes identifiers in a query worker. This crate knows no platform: the program
//! that is the worker brings it along.

use throng_model::Personal;

/// Makes hashers. Given to [`worker::main`](crate::worker::main).
pub trait Hashers: Sync {
    /// A hasher by the settings of an [`IdentifierQuery`](crate::IdentifierQuery).
    ///
    /// # Errors
    /// What is wrong with the settings.
    fn open(&self, settings: &serde_json::Value) -> Result<Box<dyn RowHasher>, String>;
}

/// Normalises and hashes rows of one query.
pub trait RowHasher: Send {
    /// Appends to `out` what may leave the worker of a row with these cells; no raw identifier may.
    fn hash(&mut self, cells: &[Option<Personal>], out: &mut Vec<u8>);
}

/// No hashers: for programs that read no identifiers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHashers;

impl Hashers for NoHashers {
    fn open(&self, _: &serde_json::Value) -> Result<Box<dyn RowHasher>, String> {
        Err("this program hashes no identifiers".to_owned())
    }
}
