//! Which files a source may read.

use std::path::Path;

use crate::error::FileError;

/// Refuses a file or folder that is not beneath `root`, after links are resolved.
///
/// # Errors
/// [`FileError::LeadsOut`]; [`FileError::Source`] if one of them does not exist.
pub fn check_beneath(file: &Path, root: &Path) -> Result<(), FileError> {
    let real = |path: &Path| {
        path.canonicalize().map_err(|source| FileError::Source { path: path.to_owned(), source })
    };
    let root = real(root)?;
    if real(file)?.starts_with(&root) {
        Ok(())
    } else {
        Err(FileError::LeadsOut { path: file.to_owned(), root })
    }
}
