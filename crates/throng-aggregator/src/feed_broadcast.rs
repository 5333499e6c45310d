//! The feed's subscribers: keyframes first, then deltas, and keyframes again for a subscriber that lags.
//! A slow subscriber costs the others nothing: the channel is bounded, and frames that it missed are
//! replaced by keyframes of the current figures.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use throng_feed::Frame;
use throng_telemetry::metrics;
use tokio::sync::broadcast;

use super::Budgets;

/// Frames that a subscriber may lag behind before it gets keyframes instead.
pub(super) const CHANNEL_CAPACITY: usize = 256;

/// The format of the frames that a subscriber reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedFormat {
    /// Without log positions, for gates of versions that do not know them.
    V1,
    /// With log positions, without pass-through rates.
    V2,
    /// The newest: with pass-through rates.
    V3,
}

/// A frame as subscribers get it: encoded, with its length before it, little-endian. Encoded once; all
/// subscribers share the bytes.
#[derive(Debug, Clone)]
pub(super) struct EncodedFrame {
    v1: Bytes,
    v2: Bytes,
    pub(super) newest: Bytes,
}

impl EncodedFrame {
    pub(super) fn new(frame: &Frame) -> Self {
        let newest = with_length(&frame.encode());
        // Where formats have the same bytes, another encoding would only cost time.
        let v1 = match frame.log_position {
            Some(_) => with_length(&frame.encode_format_1()),
            None => newest.clone(),
        };
        let v2 = match frame.needs_format_3() {
            true => with_length(&frame.encode_format_2()),
            false => newest.clone(),
        };
        Self { v1, v2, newest }
    }

    fn in_format(self, format: FeedFormat) -> Bytes {
        match format {
            FeedFormat::V1 => self.v1,
            FeedFormat::V2 => self.v2,
            FeedFormat::V3 => self.newest,
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
    frames: broadcast::Receiver<EncodedFrame>,
    format: FeedFormat,
    /// Keyframes to send before the next frame of the channel.
    pending: VecDeque<EncodedFrame>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Subscription {
    pub(super) fn new(
        budgets: Arc<Budgets>,
        frames: broadcast::Receiver<EncodedFrame>,
        format: FeedFormat,
    ) -> Self {
        let pending = budgets.keyframes().into();
        Self { budgets, frames, format, pending }
    }

    /// The next frame with its length before it: first a keyframe of every partition, then deltas as they
    /// are published; keyframes again after a lag. `None` when the node stops.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.pending.pop_front() {
                return Some(frame.in_format(self.format));
            }
            match self.frames.recv().await {
                Ok(frame) => return Some(frame.in_format(self.format)),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "feed subscriber lagged");
                    metrics::counter!(metrics::FEED_LAGGED_TOTAL).increment(1);
                    // In this order: a frame between the two is then in the channel and in the keyframes,
                    // and a gate ignores it the second time. The other way round it would be in neither.
                    self.frames = self.frames.resubscribe();
                    self.pending = self.budgets.keyframes().into();
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
