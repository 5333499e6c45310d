//! The server with timeouts that are so short that a test can wait for them.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::body::BodyLimits;
use crate::{BodyError, decoded, read_body, within};

/// No test waits longer than this, however busy the machine is.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long a busy machine may pause this process between two lines of a case. For timeouts that are not to expire
/// before the case has written or read something.
const MAX_PAUSE: Duration = Duration::from_secs(5);

fn short() -> Timeouts {
    Timeouts {
        handshake: Duration::from_millis(200),
        head: Duration::from_millis(200),
        body: BodyLimits {
            idle: Duration::from_millis(200),
            grace: TIMEOUT,
            min_rate: 1,
            discard: Duration::from_millis(200),
        },
        write: Duration::from_millis(400),
        idle: Duration::from_millis(300),
        grace: Duration::from_millis(100),
    }
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(timeouts: Timeouts, caps: ConnectionLimits) -> Self {
        let router = Router::new()
            .route("/hello", get(async || "hello"))
            .route("/read", post(read))
            .route("/endless", get(endless));
        Self::with(router, timeouts, caps).await
    }

    async fn with(router: Router, timeouts: Timeouts, caps: ConnectionLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = Server { router, certificates: None, caps, timeouts, stop: stop.clone() };
        let server = tokio::spawn(server.serve(listener));
        Self { address, stop, server }
    }

    async fn connect(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(TIMEOUT, self.server).await.unwrap().unwrap();
    }
}

async fn read(
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> (StatusCode, String) {
    match body {
        Ok(bytes) => (StatusCode::OK, format!("{} bytes", bytes.len())),
        Err(error) => (StatusCode::REQUEST_TIMEOUT, throng_model::with_causes(&error)),
    }
}

async fn endless() -> Body {
    let chunk = Bytes::from(vec![b'x'; 64 << 10]);
    let chunks = futures::stream::repeat(chunk).map(Ok::<_, std::convert::Infallible>);
    Body::from_stream(chunks)
}

/// What arrives until the peer closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset closes it too.
    let _ = tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut bytes))
        .await
        .expect("the connection is closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

const CAPS: ConnectionLimits = ConnectionLimits { total: 100, per_address: 100 };

#[tokio::test]
async fn silent_half_open_and_idle_connections_are_closed() {
    // Complete requests are answered, however long this process waits between connect and write.
    let server = Running::start(Timeouts { head: MAX_PAUSE, ..short() }, CAPS).await;
    let cases = [
        ("", ""),
        ("GET /hello HTTP/1.1\r\nhost: x\r\n", ""),
        ("PRI * HTTP/2.0\r\n\r\n", ""),
        ("GET /hello HTTP/1.1\r\nhost: x\r\n\r\n", "hello"),
        ("GET /hello HTTP/1.1\r\nhost: x\r\n\r\nGET /hel", "hello"),
    ];
    let running = &server;
    let received = cases.map(|(sent, _)| async move { rest(running.connect(sent).await).await });
    let received = futures::future::join_all(received).await;
    for ((sent, expected), received) in cases.into_iter().zip(received) {
        assert!(received.ends_with(expected), "{sent:?}: {received}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_stops_fails() {
    let server = Running::start(Timeouts { head: TIMEOUT, idle: TIMEOUT, ..short() }, CAPS).await;
    let head = "POST /read HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\n";
    let whole = rest(server.connect(&format!("{head}12345")).await).await;
    assert!(whole.ends_with("5 bytes"), "{whole}");
    let cut = rest(server.connect(&format!("{head}123")).await).await;
    assert!(cut.starts_with("HTTP/1.1 408") && cut.contains("nothing more"), "{cut}");
    server.stop().await;
}

/// Reads a body and decodes it. A body that does not arrive in time is answered with 408 and the reason.
async fn read_decoded(request: Request) -> Result<String, (StatusCode, String)> {
    let headers = request.headers().clone();
    let body = read_body(request).await.map_err(|error| match error {
        BodyError::Slow(slow) => (StatusCode::REQUEST_TIMEOUT, slow.to_string()),
        other => (StatusCode::BAD_REQUEST, other.to_string()),
    })?;
    let body = decoded(&headers, body, 1 << 20);
    let body = body.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(format!("{} bytes", body.len()))
}

const CHUNKED: &str =
    "POST /read HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n";

/// A client that sends a byte of its body as soon as the previous one has arrived is never idle. It
/// is slower than the lowest rate of this test on any machine: the rate is that of memory.
#[tokio::test]
async fn a_slow_body_fails_also_if_it_is_compressed() {
    let router = Router::new().route("/read", post(read_decoded));
    let grace = Duration::from_millis(200);
    let body = BodyLimits { idle: TIMEOUT, grace, min_rate: u32::MAX, discard: TIMEOUT };
    let server = Running::with(router, Timeouts { body, ..Timeouts::default() }, CAPS).await;
    for encoding in ["", "content-encoding: gzip\r\n"] {
        let mut stream = server.connect(&format!("{CHUNKED}{encoding}\r\n")).await;
        let sent = async {
            // Until the server has answered and closed: a write fails then.
            while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
                let mut first = [0; 1];
                let answered = stream.peek(&mut first);
                if tokio::time::timeout(Duration::from_millis(1), answered).await.is_ok() {
                    return;
                }
            }
        };
        tokio::time::timeout(TIMEOUT, sent).await.expect("the body is refused");
        let answer = rest(stream).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("arrived at less than 4294967295 bytes per second"), "{answer}");
    }
    server.stop().await;
}

/// The time that a sender takes is limited by the rate, and does not count against the request's
/// timeout.
#[tokio::test]
async fn a_body_may_take_longer_than_its_request() {
    let limit = MAX_PAUSE / 2;
    let router = Router::new()
        .route("/read", post(read_decoded))
        .route("/stuck", post(async || std::future::pending::<()>().await))
        .layer(from_fn_with_state(limit, within));
    let server = Running::with(router, Timeouts::default(), CAPS).await;
    let mut slow = server.connect(&format!("{CHUNKED}\r\n1\r\nx\r\n")).await;
    let mut first = [0; 1];
    let early = tokio::time::timeout(limit * 2, slow.peek(&mut first)).await;
    assert!(early.is_err(), "responded before the body was complete: {early:?}");
    slow.write_all(b"2\r\nyz\r\n0\r\n\r\n").await.unwrap();
    let answer = rest(slow).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("3 bytes"), "{answer}");

    let stuck = "POST /stuck HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let answer = rest(server.connect(stuck).await).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    server.stop().await;
}

/// A server that responds before it has read the body, as to one that is too large.
async fn refusing(discard: Duration) -> Running {
    let router = Router::new()
        .route("/hello", get(async || "hello"))
        .route("/read", post(async || StatusCode::PAYLOAD_TOO_LARGE));
    let body = BodyLimits { discard, ..BodyLimits::default() };
    Running::with(router, Timeouts { body, ..Timeouts::default() }, CAPS).await
}

/// As `urllib` of Python.
#[tokio::test]
async fn a_client_that_sends_its_whole_body_first_reads_why_it_was_refused() {
    let server = refusing(TIMEOUT).await;
    // More than the buffers of a connection hold.
    let bytes = vec![b'x'; 48 << 20];
    let head = format!("POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", bytes.len());
    let mut stream = server.connect(&head).await;
    tokio::time::timeout(TIMEOUT, stream.write_all(&bytes)).await.unwrap().unwrap();
    // The connection can be used again.
    let next = b"GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(next).await.unwrap();
    let answers = rest(stream).await;
    assert!(answers.starts_with("HTTP/1.1 413"), "{answers}");
    assert!(answers.ends_with("hello"), "{answers}");
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_nobody_reads_does_not_go_on_for_ever() {
    let server = refusing(TIMEOUT).await;
    let mut stream = server.connect(&format!("{CHUNKED}\r\n")).await;
    let mut chunk = b"100000\r\n".to_vec();
    chunk.resize(chunk.len() + (1 << 20), b'x');
    chunk.extend(b"\r\n");
    let sent = async { while stream.write_all(&chunk).await.is_ok() {} };
    tokio::time::timeout(TIMEOUT, sent).await.expect("the connection is closed");
    // A length that is too much to read.
    let head = "POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000000\r\n\r\n";
    let answer = rest(server.connect(head).await).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_waits_for_continue_is_not_asked_for_a_body_that_nobody_reads() {
    let server = refusing(TIMEOUT).await;
    let head =
        "POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    let answer = rest(server.connect(head).await).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn an_unread_stream_is_closed_and_one_that_is_read_continues() {
    let timeouts = Timeouts { head: TIMEOUT, write: MAX_PAUSE, ..short() };
    let server = Running::start(timeouts, CAPS).await;
    let request = "GET /endless HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut read = server.connect(request).await;
    let unread = server.connect(request).await;
    // It was closed if a read returns an end or a reset after what was in the buffers.
    let mut buffer = vec![0; 64 << 10];
    let outlived = async {
        let ended = rest(unread);
        tokio::pin!(ended);
        // Long enough for it to be closed before anything of it is read.
        let begun = Instant::now();
        while begun.elapsed() < MAX_PAUSE * 2 {
            assert!(read.read(&mut buffer).await.unwrap() > 0);
        }
        // Also after a pause of the whole process, the server gets to run first.
        for _ in 0..1_000 {
            assert!(read.read(&mut buffer).await.unwrap() > 0);
        }
        loop {
            tokio::select! {
                _ = &mut ended => break,
                bytes = read.read(&mut buffer) => assert!(bytes.unwrap() > 0),
            }
        }
        assert!(read.read(&mut buffer).await.unwrap() > 0, "the other one is open");
    };
    tokio::time::timeout(TIMEOUT, outlived).await.unwrap();
    drop(read);
    server.stop().await;
}

/// An HTTP/2 peer that never opens its flow-control window: the socket stays writable.
#[tokio::test]
async fn an_http2_stream_without_a_window_is_closed() {
    let server = Running::start(Timeouts { head: MAX_PAUSE, ..short() }, CAPS).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // The preface, SETTINGS with INITIAL_WINDOW_SIZE 0, and HEADERS: GET /endless by literals.
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    let mut block = vec![0x82, 0x86, 0x04, 8];
    block.extend(b"/endless");
    block.extend([0x01, 1, b'x']);
    bytes.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
    bytes.extend(block);
    stream.write_all(&bytes).await.unwrap();
    let mut received = Vec::new();
    // Reads everything, so that TCP never blocks.
    let _ = tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut received))
        .await
        .expect("the connection is closed");
    assert!(received.len() > 9, "settings at least");
    server.stop().await;
}

#[tokio::test]
async fn clients_that_hold_connections_do_not_shut_out_others() {
    let caps = ConnectionLimits { total: 4, per_address: 4 };
    // Its streams are not read, and have to be open until the last connection is refused.
    let slow = Timeouts { head: TIMEOUT, write: TIMEOUT, idle: TIMEOUT, ..short() };
    let server = Running::start(slow, caps).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(server.connect("GET /hello HTTP/1.1\r\n").await);
    }
    let close = "GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    for _ in 0..20 {
        let received = rest(server.connect(close).await).await;
        assert!(received.ends_with("hello"), "{received}");
    }
    // Streams in use are never closed for new connections: these are refused.
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = server.connect("GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        streams.push(stream);
    }
    assert_eq!(rest(server.connect(close).await).await, "");
    drop(held);
    drop(streams);
    server.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_open_requests_only() {
    let server = Running::start(Timeouts::default(), CAPS).await;
    let idle = server.connect("GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut half = server.connect("GET /hel").await;
    let busy = server
        .connect(
            "POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n",
        )
        .await;
    let mut first = [0; 12];
    let (mut idle, mut busy) = (idle, busy);
    idle.read_exact(&mut first).await.unwrap();
    // `100 Continue`: the request is open.
    busy.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100");
    let Running { stop, server, address } = server;
    stop.cancel();
    assert!(tokio::time::timeout(TIMEOUT, idle.read_to_end(&mut Vec::new())).await.is_ok());
    assert!(tokio::time::timeout(TIMEOUT, half.read_to_end(&mut Vec::new())).await.is_ok());
    busy.write_all(b"12345").await.unwrap();
    let received = rest(busy).await;
    assert!(received.ends_with("5 bytes"), "{received}");
    tokio::time::timeout(TIMEOUT, server).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
