//! The loop that removes rows from quarantine when their time has passed.

use std::sync::Arc;
use std::time::Duration;

use throng_schema::Schema;
use tokio_util::sync::CancellationToken;

use crate::ingest::Ingest;

/// Days are long: an hour late does not matter.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(3600);

/// Removes expired rows now and every hour, until `stop`. `schemas` has those of the applied spec.
pub async fn expire_until(
    ingest: Arc<Ingest>,
    schemas: impl Fn() -> Vec<Schema> + Send,
    stop: CancellationToken,
) {
    loop {
        let (remover, schemas) = (Arc::clone(&ingest), schemas());
        match tokio::task::spawn_blocking(move || remover.remove_expired(&schemas)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(files)) => tracing::info!(files, "removed rows from quarantine"),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to remove expired rows from quarantine"
                );
            }
            Err(error) => tracing::error!(%error, "removing expired rows panicked"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EXPIRY_INTERVAL) => {}
        }
    }
}
