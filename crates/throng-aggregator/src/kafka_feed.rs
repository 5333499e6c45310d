//! The feed between processes: a topic of all frames, and a table with the newest keyframe of each
//! partition, from which a process that joins reads all figures.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use throng_feed::{FeedError, Frame, FrameKind};
use throng_log::{EventLog, KafkaTable, LogError, Tail};
use throng_model::Timestamp;

use super::feed::{Feed, FrameStream};

/// Records of the feed that are read before its end at a start: a keyframe is among them.
const STARTUP_RECORDS: u64 = 32;

/// See the module.
#[derive(Debug)]
pub struct KafkaFeed {
    frames: Arc<dyn EventLog>,
    keyframes: KafkaTable,
}

impl KafkaFeed {
    /// A feed on a log with one partition for each partition of the events, and a table of keyframes by
    /// partition number.
    pub fn new(frames: Arc<dyn EventLog>, keyframes: KafkaTable) -> Self {
        Self { frames, keyframes }
    }
}

#[async_trait]
impl Feed for KafkaFeed {
    async fn publish(&self, frame: Arc<Frame>, now: Timestamp) -> Result<(), LogError> {
        let bytes = Bytes::from(frame.encode());
        // In the topic first: followers read only there, and a table that fails must not keep the
        // frame from them.
        self.frames.append(frame.partition, now, vec![bytes.clone()]).await?;
        if frame.kind == FrameKind::Keyframe {
            // A leader that was replaced may overwrite a newer keyframe with its own for a moment. That is
            // safe: readers compare epochs, and the log has the newer one too.
            self.keyframes.put(&frame.partition.to_string(), &bytes).await?;
        }
        Ok(())
    }

    /// What cannot be decoded is skipped and logged: the next one replaces it.
    async fn latest_keyframes(&self) -> Result<Vec<Arc<Frame>>, LogError> {
        let mut all = self.keyframes.all().await?;
        // The table also says of which deployment the topics are.
        all.retain(|key, _| key.parse::<u32>().is_ok());
        let decoded = all.iter().filter_map(|(partition, bytes)| {
            let log_error = |error: &FeedError| {
                tracing::warn!(
                    partition = partition.as_str(),
                    error = error as &dyn std::error::Error,
                    "failed to decode a keyframe"
                );
            };
            Frame::decode(bytes).inspect_err(log_error).ok().map(Arc::new)
        });
        Ok(decoded.collect())
    }

    async fn end(&self, partition: u32) -> Result<u64, LogError> {
        self.frames.end(partition).await
    }

    async fn follow(&self, partition: u32) -> Result<Box<dyn FrameStream>, LogError> {
        let (start, end) = (self.frames.start(partition).await?, self.frames.end(partition).await?);
        let from = end.saturating_sub(STARTUP_RECORDS).max(start);
        let tail = self.frames.tail(partition, from).await?;
        Ok(Box::new(KafkaFrames { partition, tail }))
    }
}

struct KafkaFrames {
    partition: u32,
    tail: Box<dyn Tail>,
}

#[async_trait]
impl FrameStream for KafkaFrames {
    async fn next(&mut self) -> Result<Vec<Arc<Frame>>, LogError> {
        let records = self.tail.next().await?;
        let mut frames = Vec::with_capacity(records.len());
        for record in records {
            match Frame::decode(&record.value) {
                Ok(frame) => frames.push(Arc::new(frame)),
                // Skipped: a stream that ended here would begin before the same record again, and
                // never pass it. The next keyframe closes the gap.
                Err(error) => tracing::warn!(
                    partition = self.partition,
                    offset = record.offset,
                    error = &error as &dyn std::error::Error,
                    "failed to decode a frame"
                ),
            }
        }
        Ok(frames)
    }
}
