//! Normalizing and hashing identifiers in a query worker. The engine knows no platform: the program that runs as the
//! worker supplies the hashers.

use throng_model::Personal;

/// Makes hashers. Given to `throng_lake::worker::main`.
pub trait Hashers: Sync {
    /// Makes a hasher from the settings of a `throng_lake::IdentifierQuery`.
    ///
    /// # Errors
    /// Why the settings are invalid.
    fn open(&self, settings: &serde_json::Value) -> Result<Box<dyn RowHasher>, String>;
}

/// Normalizes and hashes the rows of one query.
pub trait RowHasher: Send {
    /// Appends to `out` what leaves the worker for a row with these cells. It must not contain a
    /// raw identifier.
    fn hash(&mut self, cells: &[Option<Personal>], out: &mut Vec<u8>);
}
