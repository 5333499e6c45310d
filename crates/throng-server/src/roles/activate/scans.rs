//! One pass over the identifiers of a group of syncs with the same identifier query.

use std::sync::Arc;

use throng_activation::{IdentifierRow, IdentifierSource, Scan, ScanWriter, SendClass, SendError};
use throng_membership::MemberSet;

use super::delivered::{self, DeliveredError};
use super::planner::PlanRequest;
use super::task_input::lake_identifiers;
use crate::NodeContext;

/// Bytes that are kept in memory; the rest is spilled to an encrypted file.
const MAX_BUFFERED_BYTES: usize = 256 << 20;

fn failed(error: &DeliveredError) -> SendError {
    SendError::local(SendClass::Retry, throng_model::with_causes(error))
}

/// Reads the identifiers of the users that any sync of the group delivers. The query runs once.
pub(super) async fn read(
    ctx: &NodeContext,
    group: &[PlanRequest<'_>],
) -> Result<Arc<Scan>, SendError> {
    let Some(first) = group.first() else { return Ok(Arc::new(Scan::empty())) };
    let targets: Vec<_> = group.iter().map(|sync| Arc::clone(&sync.target)).collect();
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
    let source = lake_identifiers(ctx, first.sync, first.platform.clone());
    let reasons = source.settings.reasons().ok_or_else(|| {
        SendError::local(SendClass::Stop, format!("unknown platform {}", first.platform))
    })?;
    let name = delivered::new_object("scan").map_err(|error| failed(&error))?;
    let path = ctx.data_dir.join("spill").join(name.replace('/', "-"));
    let keys = delivered::keys(ctx).await.map_err(|error| failed(&error))?;
    let salt = delivered::salt().map_err(|error| failed(&error))?;
    let cells = source.settings.keys.len();
    let mut writer = ScanWriter::new(reasons, cells, MAX_BUFFERED_BYTES, &path, &keys, salt);
    let index = ctx.membership.load_full();
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
