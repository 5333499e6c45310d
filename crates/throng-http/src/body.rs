//! Bodies of requests: how fast they must arrive, and how long the server has waited for one.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, Sleep};

/// The rest of a body that is read after the response, in bytes.
const MAX_DISCARDED: u64 = 64 << 20;

/// How fast the body of a request must arrive. Only time in which the server waits for the sender
/// counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BodyLimits {
    /// From one frame to the next.
    pub(super) idle: Duration,
    /// How long the server waits in total before the rate counts.
    pub(super) grace: Duration,
    /// Bytes per second, on average over the time that the server waits beyond `grace`.
    pub(super) min_rate: u32,
    /// How long the rest of a body is read that nobody wants.
    pub(super) discard: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(15),
            grace: Duration::from_secs(20),
            // A quarter of a slow link of 64 KiB/s: the server waits for a body of 8 MiB for nine
            // minutes at most.
            min_rate: 16 << 10,
            discard: Duration::from_secs(10),
        }
    }
}

impl BodyLimits {
    /// Until when the next frame must arrive, and the error if it does not. `received` bytes have
    /// arrived so far, for which the server has waited `waited` in total.
    fn deadline(&self, received: u64, waited: Duration, now: Instant) -> (Instant, SlowBody) {
        let earned = received.saturating_mul(1_000_000) / u64::from(self.min_rate.max(1));
        let allowed = self.grace.saturating_add(Duration::from_micros(earned));
        let left = allowed.saturating_sub(waited);
        match left < self.idle {
            true => (now + left, SlowBody::Rate { min_rate: self.min_rate }),
            false => (now + self.idle, SlowBody::Idle(self.idle)),
        }
    }
}

/// The body of a request did not arrive in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlowBody {
    /// No frame arrived within the idle timeout.
    #[error("nothing more of the request's body arrived within {} s", .0.as_secs())]
    Idle(Duration),
    /// It arrived too slowly.
    #[error("the request's body arrived at less than {min_rate} bytes per second")]
    Rate {
        /// The lowest rate that is accepted.
        min_rate: u32,
    },
}

/// How long the server has waited for the body of a request. That time is the sender's, and does not
/// count against the timeout of the request. In the extensions of every request.
#[derive(Debug, Clone, Default)]
pub struct BodyWait(Arc<Mutex<Wait>>);

#[derive(Debug, Default)]
struct Wait {
    /// The sum of completed waits.
    total: Duration,
    /// When the current wait began.
    since: Option<Instant>,
}

impl BodyWait {
    fn lock(&self) -> MutexGuard<'_, Wait> {
        self.0.lock()
    }

    /// How long the server has waited until now.
    pub fn total(&self, now: Instant) -> Duration {
        let wait = self.lock();
        let running =
            wait.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        wait.total.saturating_add(running)
    }

    fn begin(&self, now: Instant) {
        self.lock().since.get_or_insert(now);
    }

    fn end(&self, now: Instant) {
        let mut wait = self.lock();
        if let Some(since) = wait.since.take() {
            wait.total = wait.total.saturating_add(now.saturating_duration_since(since));
        }
    }
}

/// The rest of a body that the handler did not read, as of a request that is refused because of its length. Many clients,
/// such as `urllib` of Python, read the response only after they have sent the whole body: a connection that is closed
/// before is an error of the network to them, and its cause is lost.
pub(super) struct DiscardedRest {
    /// Whether the sender waits for `100 Continue`, which is not sent for a body that nobody reads.
    pub(super) awaits_continue: bool,
    /// Keeps the request open meanwhile.
    pub(super) request: Arc<dyn Send + Sync>,
}

impl DiscardedRest {
    async fn read(self, mut body: Incoming, limit: Duration) {
        let discarded = async {
            let mut bytes = 0_u64;
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                bytes = bytes.saturating_add(frame.data_ref().map_or(0, Bytes::len) as u64);
                if bytes > MAX_DISCARDED {
                    return;
                }
            }
        };
        // If it takes longer, the connection is closed.
        let _ = tokio::time::timeout(limit, discarded).await;
        drop(self.request);
    }
}

/// The body of a request, which fails if its sender is too slow.
pub(super) struct RequestBody {
    /// `None` after its end or an error.
    inner: Option<Incoming>,
    limits: BodyLimits,
    received: u64,
    wait: BodyWait,
    /// Set while the server waits.
    deadline: Option<(Pin<Box<Sleep>>, SlowBody)>,
    /// By whom the rest is read; `None`: by nobody.
    rest: Option<DiscardedRest>,
}

impl RequestBody {
    pub(super) fn new(
        inner: Incoming,
        limits: BodyLimits,
        wait: BodyWait,
        rest: Option<DiscardedRest>,
    ) -> Self {
        Self { inner: Some(inner), limits, received: 0, wait, deadline: None, rest }
    }

    fn end_wait(&mut self) {
        if self.deadline.take().is_some() {
            self.wait.end(Instant::now());
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.end_wait();
        let (Some(inner), Some(rest)) = (self.inner.take(), self.rest.take()) else { return };
        let is_short = inner.size_hint().lower() <= MAX_DISCARDED;
        let is_sent = self.received > 0 || !rest.awaits_continue;
        if inner.is_end_stream() || !is_short || !is_sent {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(rest.read(inner, self.limits.discard));
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            this.end_wait();
            if let Some(Ok(frame)) = &frame {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.received = this.received.saturating_add(bytes as u64);
            } else {
                this.inner = None;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if this.deadline.is_none() {
            let now = Instant::now();
            let waited = this.wait.total(now);
            let (at, slow) = this.limits.deadline(this.received, waited, now);
            this.wait.begin(now);
            this.deadline = Some((Box::pin(tokio::time::sleep_until(at)), slow));
        }
        let Some((sleep, slow)) = &mut this.deadline else { return Poll::Pending };
        ready!(sleep.as_mut().poll(cx));
        let slow = *slow;
        this.end_wait();
        this.inner = None;
        Poll::Ready(Some(Err(slow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `frames` frames of `bytes` bytes, one each `pause`. Returns the bytes that arrived,
    /// and the error if a frame was too late.
    fn send(bytes: u64, pause: Duration, frames: u64) -> (u64, Option<SlowBody>) {
        let limits = BodyLimits::default();
        let wait = BodyWait::default();
        let mut now = Instant::now();
        let mut received = 0;
        for _ in 0..frames {
            let (deadline, slow) = limits.deadline(received, wait.total(now), now);
            wait.begin(now);
            now += pause;
            if deadline < now {
                return (received, Some(slow));
            }
            wait.end(now);
            received += bytes;
        }
        (received, None)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_slow_link_passes_and_a_byte_per_second_does_not() {
        // 16 MiB at 64 KiB/s, and at exactly the lowest rate.
        assert_eq!(send(64 << 10, SECOND, 256), (16 << 20, None));
        assert_eq!(send(16 << 10, SECOND, 1024), (16 << 20, None));
        // A link that is repeatedly idle for 14 seconds, but fast in between.
        assert_eq!(send(1 << 20, 14 * SECOND, 16), (16 << 20, None));

        let rate = SlowBody::Rate { min_rate: 16 << 10 };
        assert_eq!(send(1, SECOND, 16 << 20), (20, Some(rate)));
        assert_eq!(
            rate.to_string(),
            "the request's body arrived at less than 16384 bytes per second"
        );
        // At half the lowest rate the server waits for twice the grace; later frames are too late.
        assert_eq!(send(8 << 10, SECOND, 4096), (39 * (8 << 10), Some(rate)));
    }

    #[test]
    fn a_body_that_stops_fails_after_the_idle_timeout() {
        let idle = SlowBody::Idle(15 * SECOND);
        assert_eq!(send(1 << 20, 16 * SECOND, 2), (0, Some(idle)));
        assert_eq!(idle.to_string(), "nothing more of the request's body arrived within 15 s");
    }

    #[test]
    fn time_in_which_the_server_does_not_wait_is_not_counted() {
        let wait = BodyWait::default();
        let start = Instant::now();
        assert_eq!(wait.total(start + SECOND), Duration::ZERO);
        wait.begin(start + SECOND);
        assert_eq!(wait.total(start + 3 * SECOND), 2 * SECOND);
        wait.end(start + 4 * SECOND);
        // The next frame is not requested.
        assert_eq!(wait.total(start + 60 * SECOND), 3 * SECOND);
        wait.begin(start + 60 * SECOND);
        wait.end(start + 61 * SECOND);
        assert_eq!(wait.total(start + 100 * SECOND), 4 * SECOND);
    }
}
