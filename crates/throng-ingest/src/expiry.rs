//! The loop that removes rows from quarantine when their time has passed, and objects that crashes have left.

use std::sync::Arc;
use std::time::Duration;

use throng_schema::Schema;
use tokio_util::sync::CancellationToken;

use crate::error::IngestError;
use crate::ingest::Ingest;

/// Days are long: an hour late does not matter.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(3600);
/// Objects that crashes have left are looked for every so many intervals: that lists the bucket. After an error, at the
/// next one.
const LEFTOVERS_INTERVALS: u32 = 24;

/// Removes expired rows now and every hour, and objects that crashes have left now and every day, until `stop`. After an
/// error these are looked for again after an hour. `schemas` has those of the applied spec.
pub async fn expire_until(
    ingest: Arc<Ingest>,
    schemas: impl Fn() -> Vec<Schema> + Send,
    stop: CancellationToken,
) {
    let mut until_leftovers = 0;
    loop {
        let of_spec = schemas();
        remove(&ingest, of_spec.clone(), "rows from quarantine", Ingest::remove_expired).await;
        if until_leftovers == 0 {
            let what = "objects of batches that did not finish";
            let is_done = remove(&ingest, of_spec, what, Ingest::remove_leftovers).await;
            until_leftovers = if is_done { LEFTOVERS_INTERVALS } else { 1 };
        }
        until_leftovers -= 1;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EXPIRY_INTERVAL) => {}
        }
    }
}

/// Runs one kind of removal, which blocks. Whether it succeeded.
async fn remove(
    ingest: &Arc<Ingest>,
    schemas: Vec<Schema>,
    what: &'static str,
    work: fn(&Ingest, &[Schema]) -> Result<u64, IngestError>,
) -> bool {
    let remover = Arc::clone(ingest);
    let ended = tokio::task::spawn_blocking(move || work(&remover, &schemas)).await;
    let result = ended.unwrap_or_else(|error| Err(IngestError::of_task(&error)));
    match &result {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, what, "removed what is no longer needed"),
        Err(error) => {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                what,
                "failed to remove what is no longer needed"
            );
        }
    }
    result.is_ok()
}
