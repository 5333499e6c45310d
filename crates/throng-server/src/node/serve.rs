//! The HTTP server: accepts connections, bounds their number and what each may take, and hands their
//! requests to the router.

mod activity;
mod body;
mod handles;
mod requests;
mod stream;
mod table;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use throng_spec::ConnectionSettings;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use activity::{Reason, Timeouts, Verdict};
pub(crate) use body::{BodyWait, SlowBody};
use requests::Requests;
pub(crate) use requests::Transport;
use stream::Observed;
use table::{Caps, Full, Table};
pub(super) use tls::Certificates;
pub use tls::TlsError;

/// After an error of `accept` that does not go away by itself: the handles of the process, or the
/// machine's memory, are used up.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// The longest head of an HTTP/1 request, and the most that is buffered of a connection.
const BUFFER: usize = 64 << 10;
/// The longest head of an HTTP/2 request.
const HEADERS: u32 = 32 << 10;
/// Requests in hand on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// Requests that a peer reset before they were taken up (rapid reset).
const RESET_STREAMS: usize = 20;
/// How often an HTTP/2 peer is asked whether it is there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// When the server stops, how long a connection may take for the head that is on its way.
const LAST_HEAD: Duration = Duration::from_secs(1);
/// Refused connections are logged once in so long.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Everything that the server needs.
pub(super) struct Server {
    router: Router,
    certificates: Option<Arc<Certificates>>,
    caps: Caps,
    timeouts: Timeouts,
    stop: CancellationToken,
}

impl Server {
    /// A server for a node: raises the process's limit of open files, and keeps some of them back
    /// for the node's own work.
    pub(super) fn new(
        router: Router,
        settings: &ConnectionSettings,
        certificates: Option<Arc<Certificates>>,
        stop: CancellationToken,
    ) -> Self {
        let wanted =
            Caps { total: settings.total as usize, per_address: settings.per_address as usize };
        let open_files = handles::raise();
        let caps = handles::caps(wanted, open_files);
        let Caps { total, per_address } = caps;
        if caps == wanted {
            tracing::info!(total, per_address, open_files, "the caps of connections");
        } else {
            tracing::warn!(
                total,
                per_address,
                open_files,
                "the limit of open files leaves fewer connections than node.connections allows: raise it (ulimit -n, LimitNOFILE)"
            );
        }
        Self { router, certificates, caps, timeouts: Timeouts::default(), stop }
    }

    /// Serves until it is stopped, then lets requests in hand end. Dropping it ends them.
    pub(super) async fn serve(self, listener: TcpListener) {
        let table = Arc::new(Table::new(self.caps));
        let service = TowerToHyperService::new(self.router);
        let mut connections = JoinSet::new();
        let mut refusals = Refusals::default();
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    ended_well(ended);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if is_of_one_connection(&error) {
                        continue;
                    }
                    metrics::counter!("throng_accept_errors_total").increment(1);
                    refusals.error(&error);
                    tokio::select! {
                        () = self.stop.cancelled() => break,
                        () = tokio::time::sleep(ACCEPT_BACKOFF) => {}
                    }
                    continue;
                }
            };
            match table.admit(peer, Instant::now()) {
                Ok(entry) => {
                    if entry.evicted {
                        // Its task gives the handle back before the next one is accepted.
                        tokio::task::yield_now().await;
                    }
                    let requests = Requests {
                        router: service.clone(),
                        entry: Arc::new(entry),
                        transport: match self.certificates {
                            Some(_) => Transport::Tls,
                            None => Transport::Plain,
                        },
                        body_limits: self.timeouts.body,
                    };
                    let acceptor = self.certificates.as_ref().map(|c| c.acceptor());
                    let stop = self.stop.clone();
                    let timeouts = self.timeouts;
                    connections.spawn(connection(stream, acceptor, requests, timeouts, stop));
                }
                Err(full) => refusals.full(full, peer),
            }
        }
        drop(listener);
        while let Some(ended) = connections.join_next().await {
            ended_well(ended);
        }
    }
}

fn ended_well(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection's task panicked");
    }
}

/// Whether only the connection that was to be accepted is concerned, and the next may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Logs connections that were not taken, some lines a minute at most.
#[derive(Default)]
struct Refusals {
    since_line: u64,
    last_line: Option<Instant>,
}

impl Refusals {
    fn full(&mut self, full: Full, peer: SocketAddr) {
        metrics::counter!("throng_connections_refused_total", "reason" => full.name()).increment(1);
        if let Some(refused) = self.line() {
            let cap = full.name();
            tracing::warn!(
                refused,
                cap,
                last = %peer.ip(),
                "connections are refused: as many as node.connections allows are in use"
            );
        }
    }

    fn error(&mut self, error: &io::Error) {
        if let Some(errors) = self.line() {
            tracing::error!(
                error = error as &dyn std::error::Error,
                errors,
                "connections cannot be accepted"
            );
        }
    }

    /// How many there were since the last line, if it is time for another one.
    fn line(&mut self) -> Option<u64> {
        self.since_line += 1;
        let now = Instant::now();
        if self.last_line.is_some_and(|at| now < at + LOG_INTERVAL) {
            return None;
        }
        self.last_line = Some(now);
        Some(std::mem::take(&mut self.since_line))
    }
}

/// One connection, from its first byte to its last.
async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    requests: Requests,
    timeouts: Timeouts,
    stop: CancellationToken,
) {
    // Answers are small and wanted at once; a peer whose machine is gone is noticed by what it does
    // not acknowledge.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = &error as &dyn std::error::Error, "no TCP_NODELAY");
    }
    let unacknowledged = u32::try_from(timeouts.write.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, unacknowledged) {
        tracing::debug!(error = &error as &dyn std::error::Error, "no TCP_USER_TIMEOUT");
    }
    let connection = Arc::clone(&requests.entry.connection);
    let dropped = connection.dropped.clone();
    let stream = Observed { stream, connection };
    let served = async {
        match acceptor {
            None => requests_of(stream, requests, &timeouts, &stop).await,
            Some(acceptor) => {
                if let Some(stream) = handshake(acceptor, stream, &timeouts, &stop).await {
                    requests.entry.connection.secured(Instant::now());
                    requests_of(stream, requests, &timeouts, &stop).await;
                }
            }
        }
    };
    tokio::select! {
        () = dropped.cancelled() => {}
        () = served => {}
    }
}

/// `None` if the peer does not agree on TLS in time.
async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    acceptor: TlsAcceptor,
    stream: S,
    timeouts: &Timeouts,
    stop: &CancellationToken,
) -> Option<TlsStream<S>> {
    let done = tokio::select! {
        () = stop.cancelled() => return None,
        done = tokio::time::timeout(timeouts.handshake, acceptor.accept(stream)) => done,
    };
    match done {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "no TLS handshake");
        }
        Err(_) => {}
    }
    metrics::counter!("throng_connections_closed_total", "reason" => "handshake").increment(1);
    None
}

/// Answers the requests of a connection until it ends, or has to.
async fn requests_of<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    requests: Requests,
    timeouts: &Timeouts,
    stop: &CancellationToken,
) {
    let connection = Arc::clone(&requests.entry.connection);
    let builder = builder();
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), requests));
    let mut ending: Option<Instant> = None;
    // Once the server stops: until when the first request may still come in whole.
    let mut last_head: Option<Instant> = None;
    let mut look_at = Instant::now() + timeouts.head;
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = &*error as &dyn std::error::Error, "a connection ended");
                }
                return;
            }
            () = stop.cancelled(), if ending.is_none() && last_head.is_none() => {
                if connection.is_half_open() {
                    // What was sent before the stop is answered.
                    last_head = Some(Instant::now() + LAST_HEAD);
                    look_at = Instant::now() + LAST_HEAD / 20;
                    continue;
                }
                // Requests in hand may take what they need: the node's shutdown bounds it.
                ending = Some(Instant::now() + Duration::from_secs(3600));
                serving.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep_until(look_at) => {
                let now = Instant::now();
                if let Some(deadline) = last_head {
                    if connection.is_half_open() {
                        if deadline <= now {
                            return;
                        }
                        look_at = now + LAST_HEAD / 20;
                        continue;
                    }
                    last_head = None;
                    continue;
                }
                if ending.is_some_and(|deadline| deadline <= now) {
                    return;
                }
                match connection.verdict(now, timeouts) {
                    Verdict::Keep(pause) => look_at = now + pause,
                    Verdict::Drop(reason) => {
                        closed(reason);
                        return;
                    }
                    Verdict::Close(reason) if ending.is_none() => {
                        closed(reason);
                        ending = Some(now + timeouts.grace);
                        look_at = now + timeouts.grace;
                        serving.as_mut().graceful_shutdown();
                    }
                    Verdict::Close(_) => look_at = now + timeouts.grace,
                }
            }
        }
    }
}

fn closed(reason: Reason) {
    metrics::counter!("throng_connections_closed_total", "reason" => reason.name()).increment(1);
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Our own timeouts see both versions of HTTP, and the time before the first byte.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_send_buf_size(BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

#[cfg(test)]
mod tests;
