//! Carries frames from the leaders of partitions to every process that shows or forwards them, the leader's
//! own among them.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use throng_feed::Frame;
use throng_log::LogError;
use throng_model::Timestamp;

/// See the module. Frames of one partition keep their order; partitions are independent of each other.
#[async_trait]
pub trait Feed: Send + Sync + Debug {
    /// Publishes a frame to all processes that follow the feed. After an error they may get it or not.
    async fn publish(&self, frame: Arc<Frame>, now: Timestamp) -> Result<(), LogError>;

    /// The newest keyframe of each partition that has one, however long ago it was published.
    async fn latest_keyframes(&self) -> Result<Vec<Arc<Frame>>, LogError>;

    /// A number that grows with each frame of a partition, and only then.
    async fn end(&self, partition: u32) -> Result<u64, LogError>;

    /// Follows a partition, from a recent keyframe on.
    async fn follow(&self, partition: u32) -> Result<Box<dyn FrameStream>, LogError>;
}

/// The frames of a partition as they are published.
#[async_trait]
pub trait FrameStream: Send {
    /// The next frames, in order. Waits until there is one; may be empty nevertheless. A keyframe replaces
    /// those before it: a reader that lags may not get them. Cancel safe. Not usable after an error.
    async fn next(&mut self) -> Result<Vec<Arc<Frame>>, LogError>;
}
