//! Follows feed and catalog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use throng_api::AppliedVersions;
use throng_gate::feed::{Frame, FrameKind};
use throng_gate::{FrameOutcome, Gate};
use throng_model::{Backoff, Clock as _, SystemClock};
use tokio_util::sync::CancellationToken;

use crate::client::{NodeClient, connection, deployment_of};
use crate::error::SyncError;

/// The delays after a connection that failed. Short: while there is none, the figures get older.
const RETRY: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };
/// The catalog is not read more often than this: a relay may have an older one than the frames need.
const CATALOG_INTERVAL: Duration = Duration::from_millis(500);
/// Versions that have not changed are reported in this interval, so that a node knows that the gate runs.
const UNCHANGED_REPORT_INTERVAL: Duration = Duration::from_secs(30);
/// A longer frame is not one: the length is that of other bytes.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// What is reported while the feed is followed.
pub trait FeedObserver: Send + Sync {
    /// The feed or the catalog says of which deployment it is, by the `seed_check` of its snapshots. `false`: it is
    /// another one than the node's, and nothing of it may be applied.
    fn is_of(&self, deployment: u64) -> bool {
        let _ = deployment;
        true
    }
    /// The catalog was read.
    fn catalog_read(&self);
    /// A connection is open; keyframes follow.
    fn connected(&self);
    /// The gate has this frame now.
    fn applied(&self, frame: &Frame);
    /// The connection ended; the next one is made after a delay.
    fn failed(&self, error: &SyncError);
    /// The node has the applied versions.
    fn reported(&self);
    /// They could not be reported; they are again after the interval.
    fn not_reported(&self, error: &SyncError);
}

/// The connections since the feed was last followed beyond its keyframes. Why not since the last frame: every
/// connection begins with keyframes, so that a node that closes each of them would be asked ten times a second.
#[derive(Debug, Default)]
struct Attempts(u32);

impl Attempts {
    /// A frame was applied.
    fn applied(&mut self, kind: FrameKind) {
        if matches!(kind, FrameKind::Delta { .. }) {
            self.0 = 0;
        }
    }

    /// The delay before the next connection.
    fn next_delay(&mut self, jitter: u64) -> Duration {
        self.0 = self.0.saturating_add(1);
        RETRY.delay(self.0, jitter)
    }
}

/// Why a connection ended.
enum Ended {
    /// The gate needs keyframes, with which a connection begins.
    NeedKeyframes,
    /// The node ended it: it stops, or the gate was too slow.
    ByNode,
}

impl Ended {
    /// What is reported of it.
    fn error(&self, url: String) -> Option<SyncError> {
        match self {
            Self::NeedKeyframes => None,
            Self::ByNode => Some(SyncError::Closed { url }),
        }
    }
}

/// Keeps a gate current with feed and catalog of a node.
#[derive(Debug, Clone)]
pub struct FeedFollower {
    client: NodeClient,
    gate: Arc<Gate>,
    id: String,
}

impl FeedFollower {
    /// `id`: the name of the gate in the list of gates, with letters, digits, `-`, `_`, `.` and `:`.
    pub fn new(client: NodeClient, gate: Arc<Gate>, id: String) -> Self {
        Self { client, gate, id }
    }

    /// Reads the catalog and gives it to the gate.
    async fn read_catalog(&self, observer: &dyn FeedObserver) -> Result<(), SyncError> {
        let (catalog, deployment) = self.client.catalog_of().await?;
        self.check_deployment(observer, deployment)?;
        self.gate.set_catalog(catalog);
        observer.catalog_read();
        Ok(())
    }

    /// Refuses the feed of another deployment: its ad groups may have the same names, and its frames do not say it.
    fn check_deployment(
        &self,
        observer: &dyn FeedObserver,
        deployment: Option<u64>,
    ) -> Result<(), SyncError> {
        match deployment.is_none_or(|deployment| observer.is_of(deployment)) {
            true => Ok(()),
            false => Err(SyncError::OtherFeed { url: self.client.feed_url() }),
        }
    }

    /// Applies frames until `stop`, and reconnects.
    pub async fn follow(&self, observer: &dyn FeedObserver, stop: &CancellationToken) {
        let mut attempts = Attempts::default();
        let jitter = u64::from(std::process::id());
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.follow_once(observer, &mut attempts) => ended,
            };
            match ended {
                Ok(ended) => {
                    let error = ended.error(self.client.feed_url());
                    error.iter().for_each(|error| observer.failed(error));
                }
                Err(error) => observer.failed(&error),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(attempts.next_delay(jitter)) => {}
            }
        }
    }

    async fn follow_once(
        &self,
        observer: &dyn FeedObserver,
        attempts: &mut Attempts,
    ) -> Result<Ended, SyncError> {
        // Before the frames: they name ad groups by the indexes of the catalog.
        self.read_catalog(observer).await?;
        let mut catalog_read_at = SystemClock.elapsed();
        let url = self.client.feed_url();
        let mut response = self.client.feed(&self.id).await?;
        let deployment = deployment_of(&response);
        observer.connected();
        let mut frames = FrameBuffer::default();
        loop {
            let chunk = response.chunk().await.map_err(|error| connection(&url, error))?;
            let Some(chunk) = chunk else { return Ok(Ended::ByNode) };
            frames.push(&chunk);
            let invalid = |problem: String| SyncError::Response { url: url.clone(), problem };
            while let Some(bytes) = frames.take().map_err(invalid)? {
                let frame = Frame::decode(&bytes).map_err(|error| SyncError::Response {
                    url: url.clone(),
                    problem: error.to_string(),
                })?;
                // Of each frame: it may become known later which one the node's is.
                self.check_deployment(observer, deployment)?;
                match self.gate.apply(&frame) {
                    FrameOutcome::NeedKeyframe => return Ok(Ended::NeedKeyframes),
                    FrameOutcome::Applied { unknown, catalog_behind, .. }
                        if (catalog_behind || unknown > 0)
                            && elapsed_since(catalog_read_at) >= CATALOG_INTERVAL =>
                    {
                        self.read_catalog(observer).await?;
                        catalog_read_at = SystemClock.elapsed();
                    }
                    FrameOutcome::Applied { .. } | FrameOutcome::Ignored => {}
                }
                attempts.applied(frame.kind);
                observer.applied(&frame);
            }
        }
    }

    /// Reports the applied versions in this interval until `stop`.
    pub async fn report(
        &self,
        interval: Duration,
        observer: &dyn FeedObserver,
        stop: &CancellationToken,
    ) {
        let mut reported: Option<(BTreeMap<u32, u64>, Duration)> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            let versions = self.gate.versions().into_iter();
            let versions: BTreeMap<u32, u64> =
                versions.map(|version| (version.partition, version.version)).collect();
            let is_due = reported.as_ref().is_none_or(|(last, at)| {
                *last != versions || elapsed_since(*at) >= UNCHANGED_REPORT_INTERVAL
            });
            if versions.is_empty() || !is_due {
                continue;
            }
            let applied = AppliedVersions { versions };
            let sent = tokio::select! {
                () = stop.cancelled() => return,
                sent = self.client.report(&self.id, &applied) => sent,
            };
            match sent {
                Ok(()) => {
                    reported = Some((applied.versions, SystemClock.elapsed()));
                    observer.reported();
                }
                Err(error) => observer.not_reported(&error),
            }
        }
    }
}

/// The time since `at`, which is of the system's clock as the delays are: the clock of decisions may be a simulated
/// one, which stops.
fn elapsed_since(at: Duration) -> Duration {
    SystemClock.elapsed().saturating_sub(at)
}

/// The bytes of the feed: each frame has its length before it.
#[derive(Debug, Default)]
struct FrameBuffer {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
}

impl FrameBuffer {
    fn push(&mut self, chunk: &[u8]) {
        // Once for each chunk, and not for each frame: a chunk may have many small ones.
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(chunk);
    }

    /// The next frame, if it is complete.
    fn take(&mut self) -> Result<Option<Vec<u8>>, String> {
        let rest = &self.bytes[self.start..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(format!("a frame of {length} bytes is not valid"));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let frame = frame.to_vec();
        self.start += 4 + length;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that stops has sent nothing wrong.
    #[test]
    fn a_feed_that_the_node_has_ended_is_not_an_invalid_response() {
        let error = |ended: Ended| ended.error("http://node/v1/feed".to_owned());
        assert!(error(Ended::NeedKeyframes).is_none());
        let closed = error(Ended::ByNode).unwrap();
        assert_eq!(closed.class(), "connection_closed");
        assert_eq!(closed.to_string(), "http://node/v1/feed has closed the connection");
        assert_eq!(closed.retry(), throng_model::Retry::Backoff);
    }

    #[test]
    fn only_complete_frames_are_taken() {
        let mut frames = FrameBuffer::default();
        frames.push(&[2, 0, 0, 0, 7, 8, 1, 0, 0, 0, 9, 1, 0]);
        assert_eq!(frames.take(), Ok(Some(vec![7, 8])));
        assert_eq!(frames.take(), Ok(Some(vec![9])));
        assert_eq!(frames.take(), Ok(None));
        frames.push(&[0, 0]);
        assert_eq!(frames.take(), Ok(None));
        frames.push(&[5]);
        assert_eq!(frames.take(), Ok(Some(vec![5])));
        assert_eq!(frames.take(), Ok(None));
        frames.push(&u32::MAX.to_le_bytes());
        assert!(frames.take().is_err());
    }

    #[test]
    fn connections_that_bring_only_keyframes_become_rarer() {
        let mut attempts = Attempts::default();
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            attempts.applied(FrameKind::Keyframe);
            last = attempts.next_delay(1);
        }
        assert!(last >= RETRY.longest.mul_f64(0.8), "{last:?}");
        attempts.applied(FrameKind::Delta { base_version: 1 });
        assert!(attempts.next_delay(1) <= RETRY.first.mul_f64(1.2));
    }
}
