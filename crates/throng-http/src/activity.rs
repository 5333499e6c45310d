//! The activity of a connection, and when it is closed because of a timeout.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::BodyLimits;

/// The timeouts of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// The TLS handshake.
    pub(super) handshake: Duration,
    /// The head of a request, from its first byte; of the first request, from the handshake.
    pub(super) head: Duration,
    /// The body of a request.
    pub(super) body: BodyLimits,
    /// A peer that reads nothing of what is written to it.
    pub(super) write: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
    /// From the graceful shutdown of a connection until it is aborted.
    pub(super) grace: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body: BodyLimits::default(),
            write: Duration::from_secs(30),
            // Longer than the 60 s that load balancers usually have: the side that closes an idle
            // connection must be the one that sends requests, or a request meets a closed
            // connection.
            idle: Duration::from_secs(75),
            grace: Duration::from_secs(5),
        }
    }
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// The head of a request did not arrive in time.
    SlowHead,
    /// There was no request within the idle timeout.
    Idle,
    /// The peer does not read a response.
    SlowReader,
}

impl CloseReason {
    /// Its name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SlowHead => "head_timeout",
            Self::Idle => "idle",
            Self::SlowReader => "write_timeout",
        }
    }
}

/// What the server does with a connection now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConnectionAction {
    /// Nothing; the next check is due after this.
    Keep(Duration),
    /// Close it after its open requests.
    Close(CloseReason),
    /// Drop it at once.
    Drop(CloseReason),
}

/// The state of a connection. Shared by its stream, its requests and the task that checks its
/// timeouts.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    /// Cancelled to close the connection at once.
    pub(super) abort: CancellationToken,
    state: Mutex<State>,
}

/// When the open activities began.
struct State {
    /// Since when the first request is awaited.
    opened: Instant,
    /// Whether a request has arrived.
    served: bool,
    http2: bool,
    /// Requests whose responses are not complete, or not read by the peer.
    in_flight: usize,
    /// When `in_flight` became 0.
    idle_since: Instant,
    /// When the first byte of an incomplete head arrived (HTTP/1).
    head_since: Option<Instant>,
    /// Since when the socket accepts no more bytes.
    blocked_since: Option<Instant>,
    last_write: Instant,
    /// Responses with a frame that the peer has not read yet, and since when. With HTTP/2 a peer
    /// can stop one response by flow control while the socket stays writable, so the socket alone
    /// does not show it.
    unread_frames: BTreeMap<u64, Instant>,
    next_request: u64,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, now: Instant) -> Self {
        let state = State {
            opened: now,
            served: false,
            http2: false,
            in_flight: 0,
            idle_since: now,
            head_since: None,
            blocked_since: None,
            last_write: now,
            unread_frames: BTreeMap::new(),
            next_request: 0,
        };
        Self { peer, abort: CancellationToken::new(), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The TLS handshake is complete: the timeout of the first head begins.
    pub(super) fn handshake_done(&self, now: Instant) {
        let mut state = self.lock();
        state.opened = now;
        state.head_since = None;
    }

    /// Bytes of the peer arrived.
    pub(super) fn bytes_read(&self, now: Instant) {
        let mut state = self.lock();
        if state.in_flight == 0 && state.head_since.is_none() {
            state.head_since = Some(now);
        }
    }

    /// The socket accepted bytes.
    pub(super) fn bytes_written(&self, now: Instant) {
        let mut state = self.lock();
        state.last_write = now;
        state.blocked_since = None;
    }

    /// The socket accepts no bytes now.
    pub(super) fn write_blocked(&self, now: Instant) {
        self.lock().blocked_since.get_or_insert(now);
    }

    /// The head of a request is complete.
    pub(super) fn begin_request(self: &Arc<Self>, http2: bool) -> InFlightRequest {
        let mut state = self.lock();
        state.served = true;
        state.http2 = http2;
        state.in_flight += 1;
        state.head_since = None;
        state.next_request += 1;
        InFlightRequest { connection: Arc::clone(self), number: state.next_request }
    }

    /// Whether the first request has not arrived yet.
    pub(super) fn is_half_open(&self) -> bool {
        !self.lock().served
    }

    /// Since when no request is open; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.served && state.in_flight == 0).then_some(state.idle_since)
    }

    /// Applies the timeouts.
    pub(super) fn next_action(&self, now: Instant, limits: &Timeouts) -> ConnectionAction {
        self.lock().next_action(now, limits)
    }
}

impl State {
    fn next_action(&self, now: Instant, limits: &Timeouts) -> ConnectionAction {
        let unread = self.blocked_since.iter().chain(self.unread_frames.values()).min();
        if unread.is_some_and(|since| *since + limits.write <= now) {
            return ConnectionAction::Drop(CloseReason::SlowReader);
        }
        if self.in_flight > 0 {
            return ConnectionAction::Keep(limits.write / 4);
        }
        let head = match self.served {
            false => Some(self.opened),
            true => self.head_since.filter(|_| !self.http2),
        };
        if let Some(since) = head {
            let deadline = since + limits.head;
            return match deadline <= now {
                true => ConnectionAction::Drop(CloseReason::SlowHead),
                false => ConnectionAction::Keep(deadline - now),
            };
        }
        // A slow reader of a long response is not idle, so with HTTP/1 a write counts as activity.
        // With HTTP/2 it does not: pings are written to idle connections too.
        let since = match self.http2 {
            true => self.idle_since,
            false => self.idle_since.max(self.last_write),
        };
        let deadline = since + limits.idle;
        match deadline <= now {
            true => ConnectionAction::Close(CloseReason::Idle),
            // A head may begin before then, and has to be checked in time.
            false => ConnectionAction::Keep((deadline - now).min(limits.head)),
        }
    }
}

/// An open request, until its response is read or dropped, and its body is no longer read.
pub(super) struct InFlightRequest {
    connection: Arc<Connection>,
    number: u64,
}

impl InFlightRequest {
    /// A frame of the response was handed to the server, which requests the next when the peer has
    /// read it.
    pub(super) fn frame_sent(&self, now: Instant) {
        self.connection.lock().unread_frames.insert(self.number, now);
    }

    /// The server requests the next frame.
    pub(super) fn frame_requested(&self) {
        self.connection.lock().unread_frames.remove(&self.number);
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.connection.lock();
        state.unread_frames.remove(&self.number);
        state.in_flight = state.in_flight.saturating_sub(1);
        if state.in_flight == 0 {
            state.idle_since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn connection(now: Instant) -> Arc<Connection> {
        Arc::new(Connection::new(SocketAddr::from(([192, 0, 2, 1], 1)), now))
    }

    /// The time until the next check of a connection that is kept.
    fn remaining(action: ConnectionAction) -> Duration {
        match action {
            ConnectionAction::Keep(pause) => pause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_head_must_arrive_in_time() {
        let (start, limits) = (Instant::now(), Timeouts::default());
        let connection = connection(start);
        assert_eq!(connection.next_action(start, &limits), ConnectionAction::Keep(limits.head));
        // More bytes do not extend the timeout.
        connection.bytes_read(start + 9 * SECOND);
        let late = start + limits.head;
        assert_eq!(
            connection.next_action(late, &limits),
            ConnectionAction::Drop(CloseReason::SlowHead)
        );

        drop(connection.begin_request(false));
        remaining(connection.next_action(late, &limits));
        connection.bytes_read(late + 20 * SECOND);
        connection.bytes_read(late + 29 * SECOND);
        let second = late + 30 * SECOND;
        assert_eq!(
            connection.next_action(second, &limits),
            ConnectionAction::Drop(CloseReason::SlowHead)
        );
    }

    #[test]
    fn idle_connections_are_closed_and_busy_ones_are_not() {
        let (start, limits) = (Instant::now(), Timeouts::default());
        let connection = connection(start);
        let request = connection.begin_request(true);
        remaining(connection.next_action(start + 3600 * SECOND, &limits));
        drop(request);
        let ended = Instant::now();
        remaining(connection.next_action(ended, &limits));
        // Pings are not requests.
        connection.bytes_read(ended + 70 * SECOND);
        connection.bytes_written(ended + 70 * SECOND);
        let later = ended + limits.idle;
        assert_eq!(
            connection.next_action(later, &limits),
            ConnectionAction::Close(CloseReason::Idle)
        );
    }

    #[test]
    fn slow_readers_are_kept_and_peers_that_do_not_read_are_dropped() {
        let limits = Timeouts::default();
        let mut now = Instant::now();
        let connection = connection(now);
        drop(connection.begin_request(false));
        for _ in 0..10 {
            connection.write_blocked(now);
            now += limits.write - SECOND;
            remaining(connection.next_action(now, &limits));
            connection.bytes_written(now);
        }
        connection.write_blocked(now);
        now += limits.write;
        assert_eq!(
            connection.next_action(now, &limits),
            ConnectionAction::Drop(CloseReason::SlowReader)
        );
    }

    #[test]
    fn an_unread_stream_closes_the_connection_even_if_the_socket_is_writable() {
        let limits = Timeouts::default();
        let mut now = Instant::now();
        let connection = connection(now);
        let (read, unread) = (connection.begin_request(true), connection.begin_request(true));
        for _ in 0..4 {
            read.frame_sent(now);
            now += 10 * SECOND;
            read.frame_requested();
        }
        remaining(connection.next_action(now, &limits));
        unread.frame_sent(now);
        now += limits.write;
        assert_eq!(
            connection.next_action(now, &limits),
            ConnectionAction::Drop(CloseReason::SlowReader)
        );
        drop(unread);
        remaining(connection.next_action(now, &limits));
        drop(read);
    }
}
