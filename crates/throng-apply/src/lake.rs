//! SQL over the sources of a spec.

use std::path::Path;

use throng_lake::{Lake, LakeLimits, WorkerCommand};
use throng_spec::Spec;

use crate::error::ApplyError;

/// Opens the sources of a spec, and the folder for temporary files of its queries.
///
/// # Errors
/// [`ApplyError`] if the folder cannot be created, or a source is invalid.
pub fn open_lake(data_dir: &Path, spec: &Spec, worker: &WorkerCommand) -> Result<Lake, ApplyError> {
    let spill_dir = spec.node.spill_dir.clone().unwrap_or_else(|| data_dir.join("spill"));
    std::fs::create_dir_all(&spill_dir)
        .map_err(ApplyError::io("create the folder", spill_dir.display()))?;
    if spec.node.spill_dir.is_none() {
        remove_old_spill(&spill_dir);
    }
    let limits = LakeLimits::of(&spec.node, spill_dir, worker.clone());
    Ok(Lake::new(&spec.sources, limits)?)
}

/// Removes spill folders of DataFusion that versions left which ran queries in the node itself and
/// were killed. They hold user keys.
fn remove_old_spill(spill_dir: &Path) {
    for entry in std::fs::read_dir(spill_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("datafusion-")
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, path = %entry.path().display(), "failed to remove old spill folder");
        }
    }
}
