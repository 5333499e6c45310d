//! A server with the API of S3, as far as a copy uses it, whose objects and answers a test chooses: keys and failures
//! that no real server gives when a test needs them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_model::Secret;
use throng_objects::{BucketOptions, Service};
use throng_source_copies::{SourceCopies, SourceOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server answers to a request for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The content of the listing, whatever the condition of the request.
    Content,
    /// Content with another ETag.
    OtherContent,
    /// A failure.
    Status(u16),
}

/// An object of the listing.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) key: &'static str,
    pub(crate) content: &'static str,
    pub(crate) etag: &'static str,
    pub(crate) answer: Answer,
}

/// An object that can be read.
pub(crate) fn object(key: &'static str, content: &'static str, etag: &'static str) -> Object {
    Object { key, content, etag, answer: Answer::Content }
}

#[derive(Debug, Default)]
struct State {
    objects: Vec<Object>,
    /// The keys of all requests for objects.
    read: Vec<String>,
}

/// The server, and the copies of a node.
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    pub(crate) copies: SourceCopies,
    _dir: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let served = Arc::clone(&state);
        // Ends with the runtime of the test.
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&served)));
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let copies = SourceCopies::new(dir.path().join("copies"));
        Self { state, address, copies, _dir: dir }
    }

    /// The objects of the following listings.
    pub(crate) fn set(&self, objects: Vec<Object>) {
        self.state.lock().objects = objects;
    }

    /// The keys that were read since the last call, in their order.
    pub(crate) fn read(&self) -> Vec<String> {
        let mut read = std::mem::take(&mut self.state.lock().read);
        read.sort();
        read
    }

    /// The source of the prefix `e`.
    pub(crate) fn source(&self) -> SourceOptions {
        let bucket = BucketOptions {
            service: Service::S3 {
                endpoint: Some(format!("http://{}", self.address)),
                region: "us-east-1".to_owned(),
                keys: Some((Secret::new("key"), Secret::new("not a secret"))),
                ca_file: None,
            },
            bucket: "lake".to_owned(),
            prefix: "e".to_owned(),
            cache_bytes: 0,
        };
        SourceOptions { bucket, max_bytes: 1 << 20 }
    }
}

/// Answers the requests of a connection. None of them has a body.
async fn serve(mut connection: TcpStream, state: Arc<Mutex<State>>) {
    let mut received = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            let mut chunk = [0; 4_096];
            match connection.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(length) => received.extend_from_slice(&chunk[..length]),
            }
        };
        let head: Vec<u8> = received.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let response = state.lock().respond(head.split(' ').nth(1).unwrap());
        if connection.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

impl State {
    fn respond(&mut self, target: &str) -> String {
        let path = decoded(target.split('?').next().unwrap());
        let Some(key) = path.strip_prefix("/lake/").filter(|key| !key.is_empty()) else {
            return response(200, "", &self.listing());
        };
        self.read.push(key.to_owned());
        // A marker of a folder has another key than the one that is read.
        let Some(object) = self.objects.iter().find(|object| object.key == key) else {
            return failure(404, "NoSuchKey");
        };
        let etag = match object.answer {
            Answer::Content => object.etag,
            Answer::OtherContent => "other",
            Answer::Status(status) => return failure(status, "Chosen"),
        };
        let headers =
            format!("ETag: \"{etag}\"\r\nLast-Modified: Fri, 27 Nov 2026 10:00:00 GMT\r\n");
        response(200, &headers, object.content)
    }

    fn listing(&self) -> String {
        let mut listing = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
        for Object { key, content, etag, .. } in &self.objects {
            write!(
                listing,
                "<Contents><Key>{key}</Key><LastModified>2026-11-27T10:00:00.000Z</LastModified>\
                 <ETag>&quot;{etag}&quot;</ETag><Size>{}</Size></Contents>",
                content.len()
            )
            .unwrap();
        }
        listing + "</ListBucketResult>"
    }
}

fn failure(status: u16, code: &str) -> String {
    let body = format!("<Error><Code>{code}</Code><Message>chosen by the test</Message></Error>");
    response(status, "", &body)
}

fn response(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} Chosen\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Decodes `%3D` and others.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        decoded.push(u8::from_str_radix(&part[..2], 16).unwrap());
        decoded.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(decoded).unwrap()
}
