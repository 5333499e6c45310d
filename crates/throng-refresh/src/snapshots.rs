//! Opening the snapshot of a ledger row.

use std::sync::Arc;

use throng_membership::{SnapshotFile, SnapshotIdentity};
use throng_objects::Objects;
use throng_store::Snapshot;

use super::dictionaries::damaged_object;
use super::error::RefreshError;
use super::pool::blocking;

/// Opens the snapshot of a ledger row and compares it with the row. Downloads it where the local
/// copy is missing, and again where it is damaged or another file. Reads all of it.
///
/// # Errors
/// [`RefreshError::Objects`] if it cannot be downloaded, [`RefreshError::Membership`] if it is
/// damaged or another snapshot.
pub async fn open_snapshot(
    objects: &Arc<dyn Objects>,
    row: &Snapshot,
) -> Result<SnapshotFile, RefreshError> {
    let path = objects.download(&row.path).await?;
    let error = match open_checked(path, row).await {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    // Where the file is the object, or the error is another one, a second download gives the same.
    if !objects.has_copies() || damaged_object(objects.root(), &error).is_none() {
        return Err(error);
    }
    tracing::warn!(object = row.path, "local copy is damaged, downloading it again");
    open_checked(objects.download_again(&row.path).await?, row).await
}

async fn open_checked(
    path: std::path::PathBuf,
    row: &Snapshot,
) -> Result<SnapshotFile, RefreshError> {
    let identity = SnapshotIdentity {
        audience: row.audience.clone(),
        version: row.version,
        model_fingerprint: row.model_fingerprint.clone(),
        members: row.members,
        bytes: row.bytes,
        checksum: row.checksum.clone(),
    };
    blocking(move || Ok(SnapshotFile::open_as(&path, &identity)?)).await
}
