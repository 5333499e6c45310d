//! The requests to a node.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use throng_api::{
    AppliedVersions, DEPLOYMENT_HEADER, ErrorBody, EventsAccepted, PublishedMembership,
};
use throng_gate::Catalog;
use throng_model::{AdGroupName, Secret, Timestamp, host_of, is_loopback_host, is_plain_remote};

use crate::error::{SidecarError, SyncError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause between two parts of a response.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time of a request for a small document.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an insertion may take: the node answers when its event is durable.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest message of a node that is repeated in an error.
const MAX_MESSAGE_CHARS: usize = 300;
/// The longest response with an error: what is longer is not a node's.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// The longest document: a catalog of a million ad groups is shorter.
const MAX_DOCUMENT_BYTES: usize = 512 << 20;

/// Which node to read from.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// The URL of a node with the role `api`, or with the role `lookup` and a `feed_url`.
    pub url: String,
    /// The URL of the feed and the catalog, if that is another node: a relay.
    pub feed_url: Option<String>,
    /// Its token, with the scopes `feed` and `lookup`; `events` to record insertions.
    pub token: Option<Secret>,
    /// Whether the token may be sent unencrypted to another machine.
    pub insecure: bool,
    /// Certificates of authorities to trust besides those of the system, in PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// The longest pause between two frames of the feed, after which the connection is made again; at least 30 s.
    pub feed_timeout: Duration,
}

/// Reads from a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeClient {
    http: Client,
    /// For the feed, which may have longer pauses.
    feed_http: Client,
    node: String,
    feed: String,
    token: Option<Secret>,
}

/// A file, or the rest of it.
pub(crate) struct Download {
    /// Whether it begins where the earlier part ended.
    pub(crate) is_rest: bool,
    /// Identifies the contents.
    pub(crate) etag: Option<String>,
    /// The length of this part, if the node said so.
    pub(crate) length: Option<u64>,
    /// The part.
    pub(crate) response: Response,
}

impl NodeClient {
    /// A client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`SidecarError::Options`] for a URL or certificates that cannot be used, or if the token would be sent
    /// unencrypted to another machine.
    pub fn new(options: &NodeOptions) -> Result<Self, SidecarError> {
        let node = checked_url(&options.url)?;
        let feed = match &options.feed_url {
            Some(url) => checked_url(url)?,
            None => node.clone(),
        };
        check_encrypted(options)?;
        let is_local = [&node, &feed].into_iter().all(|url| is_loopback(url));
        let http = http_client(options, is_local, READ_TIMEOUT)?;
        let feed_http = http_client(options, is_local, options.feed_timeout.max(READ_TIMEOUT))?;
        Ok(Self { http, feed_http, node, feed, token: options.token.clone() })
    }

    fn with_token(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// Sends a request; a refusal is an error.
    async fn send(&self, url: &str, request: RequestBuilder) -> Result<Response, SyncError> {
        checked(url, self.send_any(url, request).await?).await
    }

    /// Sends a request, and returns any response.
    async fn send_any(&self, url: &str, request: RequestBuilder) -> Result<Response, SyncError> {
        self.with_token(request).send().await.map_err(|error| connection(url, error))
    }

    /// The ad groups.
    ///
    /// # Errors
    /// [`SyncError`].
    pub async fn catalog(&self) -> Result<Catalog, SyncError> {
        self.catalog_of().await.map(|(catalog, _)| catalog)
    }

    /// The ad groups, and of which deployment they are, if the node says so.
    pub(crate) async fn catalog_of(&self) -> Result<(Catalog, Option<u64>), SyncError> {
        let url = format!("{}/v1/catalog", self.feed);
        let response = self.send(&url, self.http.get(&url).timeout(REQUEST_TIMEOUT)).await?;
        let deployment = deployment_of(&response);
        Ok((read_json(&url, response).await?, deployment))
    }

    /// What the node serves of dictionaries and snapshots; `None` if it is `known`.
    pub(crate) async fn membership(
        &self,
        known: Option<&str>,
    ) -> Result<Option<PublishedMembership>, SyncError> {
        let url = format!("{}/v1/membership", self.node);
        let mut request = self.http.get(&url).timeout(REQUEST_TIMEOUT);
        if let Some(version) = known {
            request = request.header(header::IF_NONE_MATCH, format!("\"{version}\""));
        }
        let response = self.send(&url, request).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        read_json(&url, response).await.map(Some)
    }

    /// A file below `/v1/membership/`, from `offset` if it is still the one of `etag`.
    pub(crate) async fn file(
        &self,
        path: &str,
        offset: u64,
        etag: Option<&str>,
    ) -> Result<Download, SyncError> {
        let url = format!("{}/v1/membership/{path}", self.node);
        let mut request = self.http.get(&url);
        if let Some(etag) = etag.filter(|_| offset > 0) {
            request = request
                .header(header::RANGE, format!("bytes={offset}-"))
                .header(header::IF_RANGE, etag);
        }
        let response = match self.send(&url, request).await {
            Err(SyncError::Refused { url, status: 404, .. }) => {
                return Err(SyncError::NotServed { url });
            }
            other => other?,
        };
        let etag = response.headers().get(header::ETAG).and_then(|value| value.to_str().ok());
        Ok(Download {
            is_rest: response.status() == StatusCode::PARTIAL_CONTENT,
            etag: etag.map(str::to_owned),
            length: response.content_length(),
            response,
        })
    }

    /// The feed, which begins with a keyframe of every partition.
    pub(crate) async fn feed(&self, gate: &str) -> Result<Response, SyncError> {
        let url = format!("{}/v1/feed", self.feed);
        self.send(&url, self.feed_http.get(format!("{url}?format=3&gate={gate}"))).await
    }

    /// The address of the feed, for errors.
    pub(crate) fn feed_url(&self) -> String {
        format!("{}/v1/feed", self.feed)
    }

    /// Reports which versions of the feed a gate has applied.
    pub(crate) async fn report(
        &self,
        gate: &str,
        versions: &AppliedVersions,
    ) -> Result<(), SyncError> {
        let url = format!("{}/v1/gates/{gate}/applied", self.feed);
        let request = self.http.post(&url).timeout(REQUEST_TIMEOUT).json(versions);
        self.send(&url, request).await.map(drop)
    }

    /// Records an insertion. The node counts an id once, so the call can be repeated.
    pub(crate) async fn insertion(
        &self,
        id: &str,
        ad_group: &AdGroupName,
        at: Timestamp,
    ) -> Result<EventsAccepted, SyncError> {
        #[derive(Serialize)]
        struct Insertion<'a> {
            id: &'a str,
            kind: &'static str,
            ad_group: &'a AdGroupName,
            insertion_id: &'a str,
            at: String,
        }
        let url = format!("{}/v1/events", self.node);
        let event =
            Insertion { id, kind: "insertion", ad_group, insertion_id: id, at: at.to_string() };
        let line = serde_json::to_string(&event).map_err(|error| unusable(&url, &error))?;
        let request = self
            .http
            .post(&url)
            .timeout(EVENT_TIMEOUT)
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(line + "\n");
        let response = self.send_any(&url, request).await?;
        // None of the events counts: the body says why.
        if response.status() == StatusCode::UNPROCESSABLE_ENTITY {
            return read_json(&url, response).await;
        }
        read_json(&url, checked(&url, response).await?).await
    }
}

/// A client for one kind of requests: `read_timeout` is a setting of a client.
fn http_client(
    options: &NodeOptions,
    is_local: bool,
    read_timeout: Duration,
) -> Result<Client, SidecarError> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(read_timeout)
        // The token is for the node that was named. A redirect would send it elsewhere.
        .redirect(reqwest::redirect::Policy::none());
    if is_local {
        builder = builder.no_proxy();
    }
    if let Some(pem) = &options.ca_pem {
        let found = reqwest::Certificate::from_pem_bundle(pem).unwrap_or_default();
        if found.is_empty() {
            let message = "the file of authorities has no certificate in PEM";
            return Err(SidecarError::Options(message.to_owned()));
        }
        builder = builder.tls_certs_merge(found);
    }
    builder
        .build()
        .map_err(|error| SidecarError::Options(format!("cannot create an HTTP client: {error}")))
}

fn checked_url(text: &str) -> Result<String, SidecarError> {
    // The text is not repeated: it may have a password in it.
    let invalid =
        |why: &str| SidecarError::Options(format!("the URL of the node is invalid: {why}"));
    let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(invalid("it has to begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(SidecarError::Options(
            "the URL of the node has a name or password: use a token".to_owned(),
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("it has a query or a fragment"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Refuses a token that others on the network could read.
fn check_encrypted(options: &NodeOptions) -> Result<(), SidecarError> {
    let mut urls = std::iter::once(&options.url).chain(&options.feed_url);
    if options.insecure || options.token.is_none() || !urls.any(|url| is_plain_remote(url)) {
        return Ok(());
    }
    let message = "the token would be sent unencrypted to another machine: write https://, or add --insecure if the \
                   network is trusted";
    Err(SidecarError::Options(message.to_owned()))
}

fn is_loopback(url: &str) -> bool {
    is_loopback_host(host_of(url))
}

/// The deployment that a response with the feed or the catalog names; `None` from a node of an earlier version.
pub(crate) fn deployment_of(response: &Response) -> Option<u64> {
    let value = response.headers().get(DEPLOYMENT_HEADER)?.to_str().ok()?;
    u64::from_str_radix(value, 16).ok()
}

pub(crate) fn connection(url: &str, error: reqwest::Error) -> SyncError {
    // The query has the id of the gate, and the address is in the message already.
    SyncError::Connection { url: url.to_owned(), source: error.without_url() }
}

fn unusable(url: &str, error: &dyn std::error::Error) -> SyncError {
    SyncError::Response { url: url.to_owned(), problem: throng_model::with_causes(error) }
}

async fn read_json<T: DeserializeOwned>(url: &str, response: Response) -> Result<T, SyncError> {
    let bytes = read_at_most(url, response, MAX_DOCUMENT_BYTES).await?;
    serde_json::from_slice(&bytes).map_err(|error| unusable(url, &error))
}

/// A response that is not a refusal.
async fn checked(url: &str, response: Response) -> Result<Response, SyncError> {
    let status = response.status();
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    let message = message_of(url, response).await;
    let url = url.to_owned();
    Err(match status {
        StatusCode::UNAUTHORIZED => SyncError::WrongToken { url, message },
        StatusCode::FORBIDDEN => SyncError::Forbidden { url, message },
        _ => SyncError::Refused { url, status: status.as_u16(), message },
    })
}

/// The body of a response, which must not be longer than `limit`.
async fn read_at_most(
    url: &str,
    mut response: Response,
    limit: usize,
) -> Result<Vec<u8>, SyncError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| connection(url, error))? {
        if bytes.len() + chunk.len() > limit {
            let problem = format!("it is longer than {limit} bytes");
            return Err(SyncError::Response { url: url.to_owned(), problem });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The message of a refusal in one line, as it is logged: a proxy before the node answers with a page. Empty if it is not
/// that of a node and cannot be repeated.
async fn message_of(url: &str, response: Response) -> String {
    let bytes = read_at_most(url, response, MAX_ERROR_BYTES).await.unwrap_or_default();
    let text = match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => body.error.message,
        Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_nodes_are_checked() {
        for (text, expected) in [
            ("http://127.0.0.1:7077", Some("http://127.0.0.1:7077")),
            ("https://ads.example.com/", Some("https://ads.example.com")),
            ("https://example.com/throng/", Some("https://example.com/throng")),
            ("127.0.0.1:7077", None),
            ("ftp://example.com", None),
            ("http://example.com?a=1", None),
            ("http://user:s3cret@example.com", None),
        ] {
            let checked = checked_url(text);
            assert_eq!(checked.as_deref().ok(), expected, "{text}");
            if let Err(error) = checked {
                assert!(!error.to_string().contains("s3cret"), "{error}");
            }
        }
        for (url, expected) in [
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("http://127.0.0.9", true),
            ("http://[::ffff:127.0.0.1]:1", true),
            ("http://127.0.0.1.example.com", false),
        ] {
            assert_eq!(is_loopback(url), expected, "{url}");
        }
    }

    #[test]
    fn a_token_is_not_sent_unencrypted_to_another_machine() {
        let allowed = |url: &str, feed: Option<&str>, token: Option<&str>, insecure: bool| {
            let options = NodeOptions {
                url: url.to_owned(),
                feed_url: feed.map(str::to_owned),
                token: token.map(Secret::new),
                insecure,
                ..NodeOptions::default()
            };
            let checked = check_encrypted(&options);
            if let Err(error) = &checked {
                let message = error.to_string();
                assert!(message.contains("--insecure") && !message.contains("s3cret"), "{message}");
            }
            checked.is_ok()
        };
        let (local, remote, encrypted) =
            ("http://localhost:1", "http://node.example:1", "https://node.example:1");
        let token = Some("s3cret");
        assert!(allowed(local, None, token, false) && allowed(encrypted, None, token, false));
        assert!(!allowed(remote, None, token, false));
        assert!(!allowed(encrypted, Some(remote), token, false), "the feed has the same token");
        assert!(allowed(remote, Some(remote), token, true));
        assert!(allowed(remote, None, None, false), "there is no token");
    }

    fn response_of(body: Vec<u8>) -> Response {
        axum::http::Response::new(body).into()
    }

    #[tokio::test]
    async fn a_longer_response_than_a_node_sends_is_not_read() {
        let read = read_at_most("http://node", response_of(vec![b'a'; 100]), 100).await;
        assert_eq!(read.unwrap().len(), 100);
        let error = read_at_most("http://node", response_of(vec![b'a'; 101]), 100).await;
        assert!(matches!(error, Err(SyncError::Response { .. })));
        let long = response_of(vec![b'a'; MAX_ERROR_BYTES + 1]);
        assert_eq!(message_of("http://node", long).await, "");
        let page = response_of(vec![b'a'; 5_000]);
        assert_eq!(message_of("http://node", page).await.len(), MAX_MESSAGE_CHARS);
    }

    #[tokio::test]
    async fn the_page_of_a_proxy_is_one_line_of_the_log() {
        let page = response_of(b"<html>\r\n  <h1>502 Bad\x1b[2J Gateway</h1>\n</html>\n".to_vec());
        let message = message_of("http://node", page).await;
        assert_eq!(message, "<html> <h1>502 Bad[2J Gateway</h1> </html>");
    }
}
