//! The tables of sources.

use throng_api::SourceTables;
use throng_lake::{Lake, LakeError, SourceListing};

use crate::Operations;
use crate::mapping::sources as mapping;

/// The sources that the caller may know of, with their tables and skipped files. `lake`: that of the default workspace.
///
/// # Errors
/// [`LakeError`].
pub async fn list(operations: &Operations, lake: &Lake) -> Result<Vec<SourceTables>, LakeError> {
    let Some(workspace) = &operations.workspace else {
        return Ok(lake.list().await?.into_iter().map(mapping::source).collect());
    };
    // The others are not read, so that no error names one of their files.
    let own = lake.in_workspace(Some(workspace.as_str())).list().await?.into_iter();
    let qualified = own.map(|source| {
        let name = format!("{workspace}:{}", source.name);
        mapping::source(SourceListing { name, ..source })
    });
    Ok(qualified.collect())
}
