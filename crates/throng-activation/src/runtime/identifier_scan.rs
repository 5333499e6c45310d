//! One pass over the identifiers of a group of syncs with the same identifier query.

use std::sync::Arc;

use throng_delivered::SCAN_PREFIX;
use throng_membership::{MemberSet, SnapshotFile};
use throng_spec::Sync;
use throng_telemetry::metrics;

use super::context::Activation;
use super::delivered_objects::{random_hex, salt};
use super::errors::DeliveredError;
use crate::{IdentifierRow, Scan, ScanWriter, SendClass, SendError};

/// Bytes that are kept in memory; the rest is spilled to an encrypted file.
const MAX_BUFFERED_BYTES: usize = 256 << 20;

fn failed(error: &DeliveredError) -> SendError {
    SendError::local(SendClass::Retry, throng_model::with_causes(error))
}

/// Reads the identifiers of the users of all targets with the query of a sync. The query runs once.
pub(super) async fn read(
    ctx: &Activation,
    sync: &Sync,
    platform: &str,
    targets: Vec<Arc<SnapshotFile>>,
) -> Result<Arc<Scan>, SendError> {
    let union = tokio::task::spawn_blocking(move || {
        let mut union = MemberSet::default();
        for target in targets {
            union = union.union(&MemberSet::of_snapshot(&target));
        }
        union
    });
    let wanted = union.await.map_err(|_| failed(&DeliveredError::Interrupted))?;
    if wanted.is_empty() {
        return Ok(Arc::new(Scan::empty()));
    }
    let reasons = ctx
        .destinations
        .reasons(platform)
        .ok_or_else(|| SendError::local(SendClass::Stop, format!("unknown platform {platform}")))?;
    let name = random_hex().map_err(|error| failed(&error))?;
    let path = ctx.spill_folder.join(format!("{SCAN_PREFIX}{name}"));
    let keys = ctx.node.identifier_keys().await.map_err(|error| failed(&error))?;
    let salt = salt().map_err(|error| failed(&error))?;
    let cells = sync.identifiers.columns.len();
    let mut writer = ScanWriter::new(reasons, cells, MAX_BUFFERED_BYTES, &path, &keys, salt);
    let index = ctx.node.membership();
    let source = ctx.identifiers.query_of(sync, platform);
    metrics::counter!(metrics::IDENTIFIER_SCANS_TOTAL).increment(1);
    let mut rows = source.open().await?;
    while let Some(rows) = rows.next().await? {
        let found = rows.into_iter().filter_map(|row: IdentifierRow| {
            let at = index.locate(row.user)?;
            wanted.contains(at.shard, at.ordinal).then_some((at, row))
        });
        for (at, row) in found {
            writer
                .push(at.shard, at.ordinal, &row)
                .map_err(|error| failed(&DeliveredError::Sealed(error)))?;
        }
    }
    let scan = writer.finish().map_err(|error| failed(&DeliveredError::Sealed(error)))?;
    Ok(Arc::new(scan))
}
