//! The tables of sources.

use throng_api::SourceTables;
use throng_lake::{Lake, LakeError};

use crate::Operations;
use crate::mapping::sources as mapping;

/// The sources that the caller may know of, with their tables and skipped files.
///
/// # Errors
/// [`LakeError`], which can name files of any source.
pub async fn list(operations: &Operations, lake: &Lake) -> Result<Vec<SourceTables>, LakeError> {
    let sources = lake.list().await?.into_iter();
    let visible = sources.filter(|source| operations.sees_name(&source.name));
    Ok(visible.map(mapping::source).collect())
}

/// Why the sources could not be listed. A caller that is limited to a workspace is not given the causes, which can name
/// files of others.
pub fn failure(operations: &Operations, error: &LakeError) -> String {
    match operations.workspace {
        Some(_) => "the tables cannot be listed now".to_owned(),
        None => throng_model::with_causes(error),
    }
}
