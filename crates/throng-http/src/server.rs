//! The HTTP server: accepts connections, limits their number and their time, and passes their
//! requests to the router.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use throng_telemetry::metrics;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::activity::{CloseReason, ConnectionAction, Timeouts};
use crate::handles;
use crate::requests::Requests;
use crate::stream::Observed;
use crate::table::{ConnectionLimits, ConnectionTable, Full};
use crate::tls::Certificates;

/// The delay after an error of `accept` that concerns every connection: the process has no more
/// file handles, or the machine no more memory. Without it the loop would use a whole processor.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// The longest head of an HTTP/1 request, and the buffer of a connection.
const MAX_BUFFER_BYTES: usize = 64 << 10;
/// The longest head of an HTTP/2 request.
const MAX_HEADER_BYTES: u32 = 32 << 10;
/// Open requests of one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// Requests that a peer may reset before they are accepted (rapid reset attack).
const MAX_RESET_STREAMS: usize = 20;
/// How often an HTTP/2 peer is pinged, and how long it may take to respond.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a stopping server waits for the first request of a connection, whose head may be on its
/// way.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Refused connections are logged at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// An HTTP server.
pub struct Server {
    router: Router,
    certificates: Option<Arc<Certificates>>,
    caps: ConnectionLimits,
    timeouts: Timeouts,
    stop: CancellationToken,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tls = self.certificates.is_some();
        f.debug_struct("Server")
            .field("caps", &self.caps)
            .field("tls", &tls)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server that passes requests to `router`; over TLS if there are certificates. Raises the
    /// process's limit of open files, and lowers the caps of connections so that some file handles
    /// are left for the rest of the process.
    pub fn new(
        router: Router,
        configured: ConnectionLimits,
        certificates: Option<Arc<Certificates>>,
        stop: CancellationToken,
    ) -> Self {
        let open_files = handles::raise();
        let caps = handles::caps(configured, open_files);
        let ConnectionLimits { total, per_address } = caps;
        if caps == configured {
            tracing::info!(total, per_address, open_files, "connection caps set");
        } else {
            tracing::warn!(
                total,
                per_address,
                open_files,
                "connection caps lowered because of the limit of open files, raise it (ulimit -n, LimitNOFILE)"
            );
        }
        Self { router, certificates, caps, timeouts: Timeouts::default(), stop }
    }

    /// Serves until it is stopped, then lets open requests end. Dropping the future aborts them.
    pub async fn serve(self, listener: TcpListener) {
        let table = Arc::new(ConnectionTable::new(self.caps));
        let service = TowerToHyperService::new(self.router);
        let mut connections = JoinSet::new();
        let mut refusals = Refusals::default();
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    log_panic(ended);
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
                    metrics::counter!(metrics::ACCEPT_ERRORS_TOTAL).increment(1);
                    refusals.accept_failed(&error);
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
                        // Lets the task of the evicted connection release its file handle before
                        // the next connection is accepted.
                        tokio::task::yield_now().await;
                    }
                    let requests = Requests {
                        router: service.clone(),
                        entry: Arc::new(entry),
                        body_limits: self.timeouts.body,
                    };
                    let acceptor = self.certificates.as_ref().map(|c| c.acceptor());
                    let stop = self.stop.clone();
                    let timeouts = self.timeouts;
                    connections.spawn(serve_connection(stream, acceptor, requests, timeouts, stop));
                }
                Err(full) => refusals.connection_refused(full, peer),
            }
        }
        drop(listener);
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("connection task panicked");
    }
}

/// Whether an error of `accept` concerns only that connection, so that the next one can be accepted
/// at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Logs refused connections, a few lines a minute at most.
#[derive(Default)]
struct Refusals {
    unlogged: u64,
    last_logged: Option<Instant>,
}

impl Refusals {
    fn connection_refused(&mut self, full: Full, peer: SocketAddr) {
        metrics::counter!(metrics::CONNECTIONS_REFUSED_TOTAL, "reason" => full.name()).increment(1);
        if let Some(refused) = self.due() {
            let cap = full.name();
            tracing::warn!(
                refused,
                cap,
                last = %peer.ip(),
                "connections refused: the cap of node.connections is reached"
            );
        }
    }

    fn accept_failed(&mut self, error: &io::Error) {
        if let Some(errors) = self.due() {
            tracing::error!(
                error = error as &dyn std::error::Error,
                errors,
                "failed to accept connections"
            );
        }
    }

    /// How many there were since the last log line, if the next one is due.
    fn due(&mut self) -> Option<u64> {
        self.unlogged += 1;
        let now = Instant::now();
        if self.last_logged.is_some_and(|at| now < at + LOG_INTERVAL) {
            return None;
        }
        self.last_logged = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

/// Serves one connection from its first byte to its last.
async fn serve_connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    requests: Requests,
    timeouts: Timeouts,
    stop: CancellationToken,
) {
    // Responses are small and must not wait for more bytes. A peer whose machine has disappeared is
    // detected by the bytes that it does not acknowledge.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = &error as &dyn std::error::Error, "failed to set TCP_NODELAY");
    }
    let unacknowledged = u32::try_from(timeouts.write.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, unacknowledged) {
        tracing::debug!(error = &error as &dyn std::error::Error, "failed to set TCP_USER_TIMEOUT");
    }
    let connection = Arc::clone(&requests.entry.connection);
    let abort = connection.abort.clone();
    let stream = Observed { stream, connection };
    let served = async {
        match acceptor {
            None => serve_requests(stream, requests, &timeouts, &stop).await,
            Some(acceptor) => {
                if let Some(stream) = handshake(acceptor, stream, &timeouts, &stop).await {
                    requests.entry.connection.handshake_done(Instant::now());
                    serve_requests(stream, requests, &timeouts, &stop).await;
                }
            }
        }
    };
    tokio::select! {
        () = abort.cancelled() => {}
        () = served => {}
    }
}

/// Accepts TLS; `None` if the handshake fails or takes too long.
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
            tracing::debug!(error = &error as &dyn std::error::Error, "TLS handshake failed");
        }
        Err(_) => {}
    }
    metrics::counter!(metrics::CONNECTIONS_CLOSED_TOTAL, "reason" => "handshake").increment(1);
    None
}

/// Serves the requests of a connection until the peer closes it, a timeout expires or the server
/// stops.
async fn serve_requests<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    requests: Requests,
    timeouts: &Timeouts,
    stop: &CancellationToken,
) {
    let connection = Arc::clone(&requests.entry.connection);
    let http_builder = http_builder();
    let mut serving = pin!(http_builder.serve_connection(TokioIo::new(stream), requests));
    let mut shutdown_deadline: Option<Instant> = None;
    // Set when the server stops before the connection's first request.
    let mut head_deadline: Option<Instant> = None;
    let mut next_check = Instant::now() + timeouts.head;
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(
                        error = &*error as &dyn std::error::Error,
                        "connection closed with an error"
                    );
                }
                return;
            }
            () = stop.cancelled(), if shutdown_deadline.is_none() && head_deadline.is_none() => {
                if connection.is_half_open() {
                    // A request that was sent before the stop is served.
                    head_deadline = Some(Instant::now() + FIRST_REQUEST_TIMEOUT);
                    next_check = Instant::now() + FIRST_REQUEST_TIMEOUT / 20;
                    continue;
                }
                // Open requests may take their time here: the caller bounds it.
                shutdown_deadline = Some(Instant::now() + Duration::from_secs(3600));
                serving.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep_until(next_check) => {
                let now = Instant::now();
                if let Some(deadline) = head_deadline {
                    if connection.is_half_open() {
                        if deadline <= now {
                            return;
                        }
                        next_check = now + FIRST_REQUEST_TIMEOUT / 20;
                        continue;
                    }
                    head_deadline = None;
                    continue;
                }
                if shutdown_deadline.is_some_and(|deadline| deadline <= now) {
                    return;
                }
                match connection.next_action(now, timeouts) {
                    ConnectionAction::Keep(pause) => next_check = now + pause,
                    ConnectionAction::Drop(reason) => {
                        count_closed(reason);
                        return;
                    }
                    ConnectionAction::Close(reason) if shutdown_deadline.is_none() => {
                        count_closed(reason);
                        shutdown_deadline = Some(now + timeouts.grace);
                        next_check = now + timeouts.grace;
                        serving.as_mut().graceful_shutdown();
                    }
                    ConnectionAction::Close(_) => next_check = now + timeouts.grace,
                }
            }
        }
    }
}

fn count_closed(reason: CloseReason) {
    metrics::counter!(metrics::CONNECTIONS_CLOSED_TOTAL, "reason" => reason.name()).increment(1);
}

fn http_builder() -> Builder<TokioExecutor> {
    let mut http_builder = Builder::new(TokioExecutor::new());
    // hyper's own timeout would cover HTTP/1 only, and not the time before the first byte.
    http_builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER_BYTES);
    http_builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_send_buf_size(MAX_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    http_builder
}

#[cfg(test)]
mod tests;
