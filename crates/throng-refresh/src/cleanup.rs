//! Removing the files of refreshes that have ended.

use std::path::Path;

use throng_model::RefreshId;
use throng_objects::ObjectsError;

use super::parts;
use crate::RefreshContext;

/// Removes the parts of a refresh that has ended.
pub(super) async fn remove_parts(ctx: &RefreshContext, refresh: RefreshId) {
    let name = parts::folder(refresh);
    let removed = async {
        for object in ctx.objects.list(&name).await? {
            ctx.objects.remove(&object.name).await?;
        }
        Ok::<(), ObjectsError>(())
    };
    // Only logged: the refresh has ended, and files that stay cost nothing but space.
    if let Err(error) = removed.await {
        tracing::warn!(error = &error as &dyn std::error::Error, %refresh, "failed to remove the parts of a refresh");
    }
    // Local copies, and temporary files.
    let folder = ctx.objects.root().join(name);
    match tokio::fs::remove_dir_all(&folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            log_failure(&folder, Err(error));
        }
        _ => {}
    }
}

/// Logs a file or folder that could not be removed.
pub(super) fn log_failure(path: &Path, removed: std::io::Result<()>) {
    if let Err(error) = removed {
        tracing::warn!(%error, path = %path.display(), "failed to remove an unreferenced file");
    }
}
