//! The loop that removes rows from quarantine when their time has passed.

use std::sync::Arc;
use std::time::Duration;

use throng_schema::Schema;
use tokio_util::sync::CancellationToken;

use crate::ingest::Ingest;

/// Days are long: an hour late does not matter.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// Sweeps the quarantine now and every hour, until `stop`. `schemas` has those of the applied spec.
pub async fn sweep_until(
    ingest: Arc<Ingest>,
    schemas: impl Fn() -> Vec<Schema> + Send,
    stop: CancellationToken,
) {
    loop {
        let (sweeper, schemas) = (Arc::clone(&ingest), schemas());
        match tokio::task::spawn_blocking(move || sweeper.sweep(&schemas)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(files)) => tracing::info!(files, "removed rows from quarantine"),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to sweep the quarantine"
                );
            }
            Err(error) => tracing::error!(%error, "sweeping the quarantine panicked"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
    }
}
