//! Batches as files in a local folder: one folder per audience, one file per batch, hashed as for Meta.
//!
//! The contents of a folder, and how a consumer reads it: `docs/specs/file-destination.md`.

mod audience;
mod config;
mod destination;
mod folder;
mod manifest;
mod marks;
mod names;
mod request;
mod response;

use std::sync::Arc;

use throng_activation::{Destination, SizeLimits};

use crate::{Preparation, RegistryError};

pub use config::FileAccount;
pub use destination::FileDestination;

/// Rows are prepared as for Meta, so that one file serves every consumer that takes Meta's hashes.
pub(crate) const PREPARATION: Preparation = crate::meta::PREPARATION;

/// Sizes are numbers of rows, and are compared with the manifest.
pub(crate) const SIZES: Option<SizeLimits> = None;

/// Opens a folder as a destination. Does not access the file system.
///
/// # Errors
/// [`RegistryError::Account`] if the settings are invalid.
pub fn open(account: &FileAccount) -> Result<Arc<dyn Destination>, RegistryError> {
    Ok(Arc::new(FileDestination::new(account)?))
}
