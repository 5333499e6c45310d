//! The feed between processes: a topic of all frames, and a table with the newest keyframe of each
//! partition, from which a process that joins reads all figures.

use std::collections::BTreeMap;
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
        Ok(decode_keyframes(&self.keyframes.all().await?))
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

/// The keyframes of a table. It also says of which deployment the topics are.
fn decode_keyframes(table: &BTreeMap<String, Bytes>) -> Vec<Arc<Frame>> {
    let keyframes = table.iter().filter(|(key, _)| key.parse::<u32>().is_ok());
    let decoded = keyframes.filter_map(|(partition, bytes)| {
        let log_error = |error: &FeedError| {
            tracing::warn!(
                partition = partition.as_str(),
                error = error as &dyn std::error::Error,
                "failed to decode a keyframe"
            );
        };
        Frame::decode(bytes).inspect_err(log_error).ok().map(Arc::new)
    });
    decoded.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_no_partition_is_no_keyframe() {
        let frame = Frame {
            partition: 3,
            epoch: 5,
            version: 1,
            kind: FrameKind::Keyframe,
            at: Timestamp(1),
            catalog_version: 1,
            log_position: None,
            entries: Vec::new(),
        };
        let bytes = Bytes::from(frame.encode());
        let keys = ["3", "4", "deployment/0123456789abcdef"];
        let values = [bytes.clone(), Bytes::from_static(b"no frame"), bytes];
        let table: BTreeMap<String, Bytes> =
            keys.map(str::to_owned).into_iter().zip(values).collect();
        let found: Vec<u32> = decode_keyframes(&table).iter().map(|f| f.partition).collect();
        assert_eq!(found, [3]);
    }
}
