//! The feed inside one process: frames are handed over as they are, without being encoded.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use throng_feed::{Frame, FrameKind};
use throng_log::LogError;
use throng_model::Timestamp;
use tokio::sync::Notify;

use super::feed::{Feed, FrameStream};

/// Frames after the newest keyframe that are kept of a partition; a leader publishes a keyframe long before.
const MAX_FRAMES: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct LocalFeed {
    partitions: Vec<Arc<LocalPartition>>,
}

#[derive(Debug, Default)]
struct LocalPartition {
    recent: Mutex<RecentFrames>,
    published: Notify,
}

/// The newest keyframe, and what was published after it: all that a reader needs, however far it lags.
#[derive(Debug, Default)]
struct RecentFrames {
    frames: VecDeque<Arc<Frame>>,
    /// How many frames were published.
    end: u64,
}

impl RecentFrames {
    fn push(&mut self, frame: Arc<Frame>) {
        if frame.kind == FrameKind::Keyframe {
            self.frames.clear();
        } else if self.frames.len() >= MAX_FRAMES {
            // The next keyframe repairs this gap too.
            self.frames.pop_front();
        }
        self.frames.push_back(frame);
        self.end += 1;
    }

    /// The frames from `position` on.
    fn since(&self, position: u64) -> Vec<Arc<Frame>> {
        let start = self.end - self.frames.len() as u64;
        // A reader that lags further gets all that is kept: it begins with a keyframe, or the
        // versions show the gap.
        let skip = usize::try_from(position.saturating_sub(start)).unwrap_or(usize::MAX);
        self.frames.iter().skip(skip).map(Arc::clone).collect()
    }
}

impl LocalFeed {
    /// A feed without frames.
    pub fn new(partitions: u32) -> Self {
        Self { partitions: (0..partitions).map(|_| Arc::default()).collect() }
    }

    fn partition(&self, partition: u32) -> Result<&Arc<LocalPartition>, LogError> {
        let partitions = self.partitions.len() as u32;
        let found = self.partitions.get(partition as usize);
        found.ok_or(LogError::NoSuchPartition { partition, partitions })
    }
}

#[async_trait]
impl Feed for LocalFeed {
    async fn publish(&self, frame: Arc<Frame>, _now: Timestamp) -> Result<(), LogError> {
        let partition = self.partition(frame.partition)?;
        partition.recent.lock().push(frame);
        partition.published.notify_waiters();
        Ok(())
    }

    async fn latest_keyframes(&self) -> Result<Vec<Arc<Frame>>, LogError> {
        let first = |partition: &Arc<LocalPartition>| {
            partition.recent.lock().frames.front().map(Arc::clone)
        };
        let first = self.partitions.iter().filter_map(first);
        // The first frame is a delta if there were too many after the keyframe: without its base
        // nobody can apply it.
        Ok(first.filter(|frame| frame.kind == FrameKind::Keyframe).collect())
    }

    async fn end(&self, partition: u32) -> Result<u64, LogError> {
        Ok(self.partition(partition)?.recent.lock().end)
    }

    async fn follow(&self, partition: u32) -> Result<Box<dyn FrameStream>, LogError> {
        let partition = Arc::clone(self.partition(partition)?);
        Ok(Box::new(LocalFrames { partition, position: 0 }))
    }
}

struct LocalFrames {
    partition: Arc<LocalPartition>,
    /// How many frames were published before the next one.
    position: u64,
}

#[async_trait]
impl FrameStream for LocalFrames {
    async fn next(&mut self) -> Result<Vec<Arc<Frame>>, LogError> {
        loop {
            let published = self.partition.published.notified();
            tokio::pin!(published);
            // Registered before the read: a frame between the read and the wait would be missed otherwise.
            published.as_mut().enable();
            let (frames, end) = {
                let recent = self.partition.recent.lock();
                (recent.since(self.position), recent.end)
            };
            if !frames.is_empty() {
                self.position = end;
                return Ok(frames);
            }
            published.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(version: u64, is_keyframe: bool) -> Arc<Frame> {
        let kind = match is_keyframe {
            true => FrameKind::Keyframe,
            false => FrameKind::Delta { base_version: version - 1 },
        };
        let at = Timestamp(version as i64);
        Arc::new(Frame {
            partition: 1,
            epoch: 5,
            version,
            kind,
            at,
            catalog_version: 1,
            log_position: None,
            entries: Vec::new(),
        })
    }

    fn versions(frames: &[Arc<Frame>]) -> Vec<u64> {
        frames.iter().map(|frame| frame.version).collect()
    }

    async fn publish(feed: &LocalFeed, frame: Arc<Frame>) {
        feed.publish(frame, Timestamp(0)).await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_gets_the_newest_keyframe_and_every_frame_after_it() {
        let feed = LocalFeed::new(2);
        assert!(feed.latest_keyframes().await.unwrap().is_empty());
        let mut early = feed.follow(1).await.unwrap();
        publish(&feed, frame(1, true)).await;
        publish(&feed, frame(2, false)).await;
        assert_eq!(versions(&early.next().await.unwrap()), [1, 2]);
        let mut late = feed.follow(1).await.unwrap();
        publish(&feed, frame(3, false)).await;
        assert_eq!(versions(&late.next().await.unwrap()), [1, 2, 3]);
        assert_eq!(versions(&early.next().await.unwrap()), [3]);
        assert_eq!(feed.end(1).await.unwrap(), 3);
        assert_eq!(feed.end(0).await.unwrap(), 0);
        assert_eq!(versions(&feed.latest_keyframes().await.unwrap()), [1]);
        // A reader that lags continues with the keyframe.
        for version in 4..10 {
            publish(&feed, frame(version, version == 8)).await;
        }
        assert_eq!(versions(&early.next().await.unwrap()), [8, 9]);
        assert_eq!(versions(&late.next().await.unwrap()), [8, 9]);
        assert!(matches!(feed.end(2).await, Err(LogError::NoSuchPartition { .. })));
    }

    #[tokio::test]
    async fn a_reader_waits_for_the_next_frame() {
        let feed = Arc::new(LocalFeed::new(2));
        let mut frames = feed.follow(1).await.unwrap();
        let reading = tokio::spawn(async move { versions(&frames.next().await.unwrap()) });
        tokio::task::yield_now().await;
        publish(&feed, frame(7, true)).await;
        assert_eq!(reading.await.unwrap(), [7]);
    }

    #[tokio::test]
    async fn frames_without_a_keyframe_are_bounded() {
        let feed = LocalFeed::new(2);
        let mut frames = feed.follow(1).await.unwrap();
        for version in 1..=1_000 {
            publish(&feed, frame(version, false)).await;
        }
        let kept = versions(&frames.next().await.unwrap());
        assert_eq!(kept, (937..=1_000).collect::<Vec<u64>>());
    }
}
