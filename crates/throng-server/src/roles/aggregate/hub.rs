//! The feed's way out: keyframes for newcomers, deltas for all, and a fresh keyframe for whoever
//! fell behind. A slow subscriber costs nobody else anything: the channel is bounded, and what it
//! missed is replaced by what is true now.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use throng_feed::Frame;
use throng_telemetry::metrics;
use tokio::sync::broadcast;

use super::Budgets;

/// Frames that a subscriber may be behind before it gets keyframes instead.
pub(super) const BACKLOG: usize = 256;

/// The format of the frames that a subscriber reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedFormat {
    /// Without log positions: what gates of before them read.
    One,
    /// The newest.
    Two,
}

/// A frame as subscribers get it: encoded, with its length before it, little-endian. Made once; all
/// of them share the bytes.
#[derive(Debug, Clone)]
pub(super) struct Framed {
    one: Bytes,
    pub(super) newest: Bytes,
}

impl Framed {
    pub(super) fn new(frame: &Frame) -> Self {
        let newest = with_length(&frame.encode());
        let one = match frame.log_position {
            Some(_) => with_length(&frame.encode_format_1()),
            None => newest.clone(),
        };
        Self { one, newest }
    }

    fn of(self, format: FeedFormat) -> Bytes {
        match format {
            FeedFormat::One => self.one,
            FeedFormat::Two => self.newest,
        }
    }
}

fn with_length(frame: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + frame.len());
    out.put_u32_le(u32::try_from(frame.len()).unwrap_or(u32::MAX));
    out.put_slice(frame);
    out.freeze()
}

/// A subscriber's end of the feed.
pub struct Subscription {
    budgets: Arc<Budgets>,
    frames: broadcast::Receiver<Framed>,
    format: FeedFormat,
    /// Keyframes that go out first.
    waiting: VecDeque<Framed>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Subscription {
    pub(super) fn new(
        budgets: Arc<Budgets>,
        frames: broadcast::Receiver<Framed>,
        format: FeedFormat,
    ) -> Self {
        let waiting = budgets.keyframes().into();
        Self { budgets, frames, format, waiting }
    }

    /// The next frame with its length before it: first a keyframe of every partition, then deltas as they are made;
    /// keyframes again after a lag. `None` when the node stops.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.waiting.pop_front() {
                return Some(frame.of(self.format));
            }
            match self.frames.recv().await {
                Ok(frame) => return Some(frame.of(self.format)),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "a subscriber of the feed lagged");
                    metrics::counter!(metrics::FEED_LAGGED_TOTAL).increment(1);
                    // Deltas from here on, behind keyframes that include what was missed.
                    self.frames = self.frames.resubscribe();
                    self.waiting = self.budgets.keyframes().into();
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
