//! What ingests batches of records, and what keeps its quarantine in order.

use std::sync::Arc;

use throng_ingest::{BucketLake, Ingest, IngestError, IngestSettings, LakeStore};
use throng_spec::Role;
use tokio_util::sync::CancellationToken;

use super::NodeConfig;
use crate::NodeContext;

/// What ingests batches of records, if this process does. It touches no file before its first use.
/// `bucket`: that of ingested rows, if they are in one.
pub(super) fn of_node(
    config: &NodeConfig,
    roles: &[Role],
    bucket: Option<Arc<BucketLake>>,
) -> Option<Arc<Ingest>> {
    let folder = config.spec.node.lake.clone().filter(|_| roles.contains(&Role::Api))?;
    let lake = bucket.map_or(LakeStore::Folder(folder), LakeStore::Bucket);
    let settings = IngestSettings {
        lake,
        private: config.data_dir.join("ingest"),
        clock: Arc::clone(&config.clock),
        workers: std::thread::available_parallelism().map_or(2, usize::from).min(4),
    };
    Some(Arc::new(Ingest::new(settings)))
}

/// Removes what a crash has left of batches, then rows in quarantine whose time has passed, until `stop`.
pub(super) async fn expire_quarantine(ctx: Arc<NodeContext>, stop: CancellationToken) {
    let Some(ingest) = ctx.ingest.clone() else { return stop.cancelled().await };
    let opening = Arc::clone(&ingest);
    // A batch that arrives first does the same.
    let opened = tokio::task::spawn_blocking(move || opening.open()).await;
    if let Err(error) = opened.unwrap_or_else(|error| Err(IngestError::of_task(&error))) {
        tracing::error!(error = &error as &dyn std::error::Error, "failed to open the lake");
    }
    let schemas = move || ctx.spec.load().schemas.clone();
    throng_ingest::expire_until(ingest, schemas, stop).await;
}
