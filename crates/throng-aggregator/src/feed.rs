//! Carries frames between processes: a log of all frames, and a table with the newest keyframe of each
//! partition, from which a process that joins reads all figures, however long ago they were published.

use std::sync::Arc;

use bytes::Bytes;
use throng_feed::{FeedError, Frame, FrameKind};
use throng_log::{EventLog, KafkaTable, LogError};
use throng_model::Timestamp;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    /// Every frame; one partition for each partition of the events.
    pub frames: Arc<dyn EventLog>,
    /// The newest keyframe by partition number.
    pub keyframes: Arc<KafkaTable>,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("keyframes", &self.keyframes).finish_non_exhaustive()
    }
}

impl Feed {
    /// Publishes a frame to all processes that follow the feed.
    pub(super) async fn send(&self, frame: &Frame, now: Timestamp) -> Result<(), LogError> {
        let bytes = Bytes::from(frame.encode());
        self.frames.append(frame.partition, now, vec![bytes.clone()]).await?;
        if frame.kind == FrameKind::Keyframe {
            // A leader that was replaced may overwrite a newer keyframe with its own for a moment. That is
            // safe: readers compare epochs, and the log has the newer one too.
            self.keyframes.put(&frame.partition.to_string(), &bytes).await?;
        }
        Ok(())
    }

    /// The newest keyframes. What cannot be decoded is skipped and logged: the next one replaces it.
    pub(super) async fn latest_keyframes(&self) -> Result<Vec<Frame>, LogError> {
        let all = self.keyframes.all().await?;
        let decoded = all.iter().filter_map(|(partition, bytes)| {
            let log_error = |error: &FeedError| {
                tracing::warn!(
                    partition = partition.as_str(),
                    error = error as &dyn std::error::Error,
                    "failed to decode a keyframe"
                );
            };
            Frame::decode(bytes).inspect_err(log_error).ok()
        });
        Ok(decoded.collect())
    }
}
