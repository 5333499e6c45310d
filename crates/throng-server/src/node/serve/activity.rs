//! What a connection is doing, and whether it has to be closed for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::BodyLimits;

/// How long a connection may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// The TLS handshake.
    pub(super) handshake: Duration,
    /// The head of a request, from its first byte (of the first one: from the handshake).
    pub(super) head: Duration,
    /// The body of a request.
    pub(super) body: BodyLimits,
    /// A peer that takes nothing of what is written to it.
    pub(super) write: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
    /// From asking a connection to end until it is dropped.
    pub(super) grace: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body: BodyLimits::default(),
            write: Duration::from_secs(30),
            // Longer than the 60 s of usual load balancers, which close first then.
            idle: Duration::from_secs(75),
            grace: Duration::from_secs(5),
        }
    }
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The head of a request did not come in time.
    SlowHead,
    /// There was no request for a while.
    Idle,
    /// The peer does not read what it asked for.
    SlowReader,
}

impl Reason {
    /// Its name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SlowHead => "head_timeout",
            Self::Idle => "idle",
            Self::SlowReader => "write_timeout",
        }
    }
}

/// What to do with a connection now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing; look again after this.
    Keep(Duration),
    /// End it after the request in hand.
    Close(Reason),
    /// Drop it.
    Drop(Reason),
}

/// A connection as the server sees it. Shared by its stream, its requests and its watcher.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    /// Cancelled to drop the connection at once.
    pub(super) dropped: CancellationToken,
    state: Mutex<State>,
}

/// Times of what has not ended yet.
struct State {
    /// Since when the first request is waited for.
    opened: Instant,
    /// Whether a request has come.
    served: bool,
    http2: bool,
    /// Requests whose answers are not made yet, or not taken by the peer.
    in_flight: usize,
    /// When `in_flight` became 0.
    idle_since: Instant,
    /// First byte of a head that is not there in whole (HTTP/1).
    head_since: Option<Instant>,
    /// Since when the socket takes no more bytes.
    blocked_since: Option<Instant>,
    last_write: Instant,
    /// Answers that gave out a piece which has not been taken yet, and since when. With HTTP/2 a peer
    /// can stop one of them without stopping the socket.
    untaken: BTreeMap<u64, Instant>,
    next_answer: u64,
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
            untaken: BTreeMap::new(),
            next_answer: 0,
        };
        Self { peer, dropped: CancellationToken::new(), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handshake is done: the time for the first head begins.
    pub(super) fn secured(&self, now: Instant) {
        let mut state = self.lock();
        state.opened = now;
        state.head_since = None;
    }

    /// The peer sent something.
    pub(super) fn read(&self, now: Instant) {
        let mut state = self.lock();
        if state.in_flight == 0 && state.head_since.is_none() {
            state.head_since = Some(now);
        }
    }

    /// The socket took something.
    pub(super) fn wrote(&self, now: Instant) {
        let mut state = self.lock();
        state.last_write = now;
        state.blocked_since = None;
    }

    /// The socket takes nothing now.
    pub(super) fn blocked(&self, now: Instant) {
        self.lock().blocked_since.get_or_insert(now);
    }

    /// A request's head is there.
    pub(super) fn begin(self: &Arc<Self>, http2: bool) -> Answer {
        let mut state = self.lock();
        state.served = true;
        state.http2 = http2;
        state.in_flight += 1;
        state.head_since = None;
        state.next_answer += 1;
        Answer { connection: Arc::clone(self), number: state.next_answer }
    }

    /// Whether the first request has not come yet.
    pub(super) fn is_half_open(&self) -> bool {
        !self.lock().served
    }

    /// Since when there is nothing to do; `None` while there is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.served && state.in_flight == 0).then_some(state.idle_since)
    }

    /// Whether it may stay.
    pub(super) fn verdict(&self, now: Instant, limits: &Timeouts) -> Verdict {
        self.lock().verdict(now, limits)
    }
}

impl State {
    fn verdict(&self, now: Instant, limits: &Timeouts) -> Verdict {
        let unread = self.blocked_since.iter().chain(self.untaken.values()).min();
        if unread.is_some_and(|since| *since + limits.write <= now) {
            return Verdict::Drop(Reason::SlowReader);
        }
        if self.in_flight > 0 {
            return Verdict::Keep(limits.write / 4);
        }
        let head = match self.served {
            false => Some(self.opened),
            true => self.head_since.filter(|_| !self.http2),
        };
        if let Some(since) = head {
            let deadline = since + limits.head;
            return match deadline <= now {
                true => Verdict::Drop(Reason::SlowHead),
                false => Verdict::Keep(deadline - now),
            };
        }
        // A slow reader of a long answer is not idle. HTTP/2 writes pings while it is.
        let since = match self.http2 {
            true => self.idle_since,
            false => self.idle_since.max(self.last_write),
        };
        let deadline = since + limits.idle;
        match deadline <= now {
            true => Verdict::Close(Reason::Idle),
            // A head may begin before then.
            false => Verdict::Keep((deadline - now).min(limits.head)),
        }
    }
}

/// A request in hand, until its answer is taken or dropped.
pub(super) struct Answer {
    connection: Arc<Connection>,
    number: u64,
}

impl Answer {
    /// A piece of the answer was given out. The next is asked for when the peer took it.
    pub(super) fn gave(&self, now: Instant) {
        self.connection.lock().untaken.insert(self.number, now);
    }

    /// The next piece is asked for.
    pub(super) fn asked(&self) {
        self.connection.lock().untaken.remove(&self.number);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.connection.lock();
        state.untaken.remove(&self.number);
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

    /// What is left of a time while the test runs.
    fn left(verdict: Verdict) -> Duration {
        match verdict {
            Verdict::Keep(pause) => pause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_head_has_to_come_in_time() {
        let (start, limits) = (Instant::now(), Timeouts::default());
        let connection = connection(start);
        assert_eq!(connection.verdict(start, &limits), Verdict::Keep(limits.head));
        // Bytes do not buy time.
        connection.read(start + 9 * SECOND);
        let late = start + limits.head;
        assert_eq!(connection.verdict(late, &limits), Verdict::Drop(Reason::SlowHead));

        drop(connection.begin(false));
        left(connection.verdict(late, &limits));
        connection.read(late + 20 * SECOND);
        connection.read(late + 29 * SECOND);
        let second = late + 30 * SECOND;
        assert_eq!(connection.verdict(second, &limits), Verdict::Drop(Reason::SlowHead));
    }

    #[test]
    fn idle_connections_are_closed_and_busy_ones_are_not() {
        let (start, limits) = (Instant::now(), Timeouts::default());
        let connection = connection(start);
        let answer = connection.begin(true);
        left(connection.verdict(start + 3600 * SECOND, &limits));
        drop(answer);
        let ended = Instant::now();
        left(connection.verdict(ended, &limits));
        // Pings are no requests.
        connection.read(ended + 70 * SECOND);
        connection.wrote(ended + 70 * SECOND);
        let later = ended + limits.idle;
        assert_eq!(connection.verdict(later, &limits), Verdict::Close(Reason::Idle));
    }

    #[test]
    fn who_reads_slowly_stays_and_who_does_not_read_goes() {
        let limits = Timeouts::default();
        let mut now = Instant::now();
        let connection = connection(now);
        drop(connection.begin(false));
        for _ in 0..10 {
            connection.blocked(now);
            now += limits.write - SECOND;
            left(connection.verdict(now, &limits));
            connection.wrote(now);
        }
        connection.blocked(now);
        now += limits.write;
        assert_eq!(connection.verdict(now, &limits), Verdict::Drop(Reason::SlowReader));
    }

    #[test]
    fn a_stream_that_is_not_read_ends_the_connection_even_if_the_socket_is_free() {
        let limits = Timeouts::default();
        let mut now = Instant::now();
        let connection = connection(now);
        let (read, unread) = (connection.begin(true), connection.begin(true));
        for _ in 0..4 {
            read.gave(now);
            now += 10 * SECOND;
            read.asked();
        }
        left(connection.verdict(now, &limits));
        unread.gave(now);
        now += limits.write;
        assert_eq!(connection.verdict(now, &limits), Verdict::Drop(Reason::SlowReader));
        drop(unread);
        left(connection.verdict(now, &limits));
        drop(read);
    }
}
