//! Downloads of objects, several at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use throng_objects::{ObjectsError, SourceBucket};
use tokio::time::interval;

use crate::CopyError;
use crate::local::Download;

/// Downloads at a time.
const CONCURRENT: usize = 4;
/// How often the progress of long downloads is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

static TEMPORARY_FILES: AtomicU64 = AtomicU64::new(0);

/// What was downloaded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Downloaded {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    /// Planned files that are markers of folders.
    pub(crate) markers: HashSet<usize>,
}

/// Downloads objects to their files. After an error, complete files stay for the next update.
pub(crate) async fn download(
    bucket: &Arc<SourceBucket>,
    name: &str,
    downloads: Vec<Download>,
) -> Result<Downloaded, CopyError> {
    let all = downloads.len();
    let mut done = Downloaded::default();
    let bucket = Arc::clone(bucket);
    let started = downloads.into_iter().map(move |due| one(Arc::clone(&bucket), due));
    let mut ended = stream::iter(started).buffer_unordered(CONCURRENT);
    let mut log = interval(LOG_INTERVAL);
    // The first tick would be at once.
    log.reset();
    loop {
        tokio::select! {
            result = ended.next() => match result {
                None => return Ok(done),
                Some(result) => {
                    let (due, is_marker) = result.map_err(CopyError::of_bucket(name))?;
                    if is_marker {
                        done.markers.insert(due.at);
                    } else {
                        done.objects += 1;
                        done.bytes += due.object.bytes;
                    }
                }
            },
            _ = log.tick() => {
                tracing::info!(
                    bucket = name,
                    objects = done.objects,
                    of_objects = all,
                    bytes = done.bytes,
                    "copying objects of a source"
                );
            }
        }
    }
}

/// Downloads one object aside, and renames it when it is complete. Returns whether it is the marker of a folder.
async fn one(bucket: Arc<SourceBucket>, due: Download) -> Result<(Download, bool), ObjectsError> {
    // A write of an update that was dropped may still be running: it never has the name of a later one.
    let number = TEMPORARY_FILES.fetch_add(1, Ordering::Relaxed);
    let temporary = due.to.with_added_extension(format!("{}-{number}.tmp", std::process::id()));
    match bucket.download(&due.object, &temporary).await {
        Ok(()) => {}
        // The listing has the key of a marker without the `/` at its end, so it names no object.
        Err(ObjectsError::Missing { .. }) if due.object.bytes == 0 => return Ok((due, true)),
        Err(error) => return Err(error),
    }
    tokio::fs::rename(&temporary, &due.to).await.map_err(|source| ObjectsError::Io {
        doing: "create",
        path: due.to.clone(),
        source,
    })?;
    Ok((due, false))
}
