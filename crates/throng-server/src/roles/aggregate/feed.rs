//! The way of frames between processes: a log of all of them, and a table of the newest keyframe of
//! each partition, from which a process that joins knows all at once, however long nothing was told.

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
    /// Sends a frame to all followers.
    pub(super) async fn send(&self, frame: &Frame, now: Timestamp) -> Result<(), LogError> {
        let bytes = Bytes::from(frame.encode());
        self.frames.append(frame.partition, now, vec![bytes.clone()]).await?;
        if frame.kind == FrameKind::Keyframe {
            // An owner that was replaced may put an old one over a new one for a moment; followers
            // go by the epochs.
            self.keyframes.put(&frame.partition.to_string(), &bytes).await?;
        }
        Ok(())
    }

    /// The newest keyframes. What is no frame, or one of another format, is passed over and logged: the
    /// next one replaces it.
    pub(super) async fn newest(&self) -> Result<Vec<Frame>, LogError> {
        let all = self.keyframes.all().await?;
        let decoded = all.iter().filter_map(|(partition, bytes)| {
            let passed_over = |error: &FeedError| {
                tracing::warn!(
                    partition = partition.as_str(),
                    error = error as &dyn std::error::Error,
                    "a keyframe of the feed cannot be read"
                );
            };
            Frame::decode(bytes).inspect_err(passed_over).ok()
        });
        Ok(decoded.collect())
    }
}
