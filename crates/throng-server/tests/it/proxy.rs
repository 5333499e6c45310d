//! A proxy between a sidecar and its node, which damages, cuts or holds back files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::http;

/// What a [`Proxy`] does with responses that have a file.
#[derive(Clone, Copy)]
pub(crate) enum Transfer {
    Whole,
    FlipAByte,
    CutInHalf,
    /// No file is answered.
    Never,
}

/// A proxy between sidecar and node.
pub(crate) struct Proxy {
    pub(crate) url: String,
    transfer: Arc<AtomicU8>,
    /// Requests for the rest of a file while files are sent whole.
    rests: Arc<AtomicU64>,
    /// Requests for files that were not answered until the client ended them.
    given_up: Arc<AtomicU64>,
    serving: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(node: &str) -> Self {
        let transfer = Arc::new(AtomicU8::new(Transfer::Whole as u8));
        let rests = Arc::new(AtomicU64::new(0));
        let given_up = Arc::new(AtomicU64::new(0));
        let state = (
            node.to_owned(),
            http(None),
            Arc::clone(&transfer),
            Arc::clone(&rests),
            Arc::clone(&given_up),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(forward).with_state(state);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, transfer, rests, given_up, serving }
    }

    pub(crate) fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::SeqCst)
    }

    pub(crate) fn rests(&self) -> u64 {
        self.rests.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, transfer: Transfer) {
        self.transfer.store(transfer as u8, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

type Forwarded = (String, reqwest::Client, Arc<AtomicU8>, Arc<AtomicU64>, Arc<AtomicU64>);

/// Counts a request that is dropped.
struct GivenUp(Arc<AtomicU64>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

async fn forward(
    State((node, http, transfer, rests, given_up)): State<Forwarded>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let target = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = parts.headers;
    headers.remove("host");
    if transfer.load(Ordering::SeqCst) == Transfer::Whole as u8 && headers.contains_key("range") {
        rests.fetch_add(1, Ordering::SeqCst);
    }
    let sent = http.request(parts.method, format!("{node}{target}")).headers(headers).body(body);
    let Ok(answer) = sent.send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (status, headers) = (answer.status(), answer.headers().clone());
    let is_file = target.starts_with("/v1/membership/");
    let transfer = transfer.load(Ordering::SeqCst);
    if is_file && transfer == Transfer::Never as u8 {
        let _given_up = GivenUp(given_up);
        std::future::pending::<()>().await;
    }
    let body = if is_file && transfer != Transfer::Whole as u8 {
        let mut bytes = answer.bytes().await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        if transfer == Transfer::FlipAByte as u8 {
            bytes[middle] ^= 1;
            axum::body::Body::from(bytes)
        } else {
            // The length in the head stays, so the client knows that something is missing.
            bytes.truncate(middle);
            // The server sends what it has when it has to wait, and not if an error follows at once.
            let end = futures::stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            });
            let begin = futures::stream::once(async { Ok(Bytes::from(bytes)) });
            axum::body::Body::from_stream(futures::StreamExt::chain(begin, end))
        }
    } else {
        axum::body::Body::from_stream(answer.bytes_stream())
    };
    let mut response = (status, body).into_response();
    *response.headers_mut() = headers;
    response.headers_mut().remove("transfer-encoding");
    response
}
