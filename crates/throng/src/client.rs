//! The client of a node's HTTP API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
pub(crate) use throng_api::escaped as segment;
use throng_model::{Secret, host_of, is_plain_remote};
use throng_spec::Problem;

use crate::answers::{error_of, problems_of};
use crate::args::NodeArgs;
use crate::failure::Failure;
use crate::out::{self, Output};
use crate::secret_input;

/// The URL of a node unless --url or --dir is given.
const DEFAULT_URL: &str = "http://127.0.0.1:7077";

/// A node's HTTP API.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<Secret>,
}

impl Client {
    /// With a timeout of a minute.
    pub(crate) fn new(node: &NodeArgs) -> Result<Self> {
        Self::with_timeout(node, Duration::from_secs(60))
    }

    /// With a timeout of an hour, for requests that make the node read much data.
    pub(crate) fn with_long_timeout(node: &NodeArgs) -> Result<Self> {
        Self::with_timeout(node, Duration::from_secs(3_700))
    }

    /// With a timeout of a week, for requests that send as much as there is.
    pub(crate) fn without_timeout(node: &NodeArgs) -> Result<Self> {
        Self::with_timeout(node, Duration::from_secs(7 * 86_400))
    }

    fn with_timeout(node: &NodeArgs, timeout: Duration) -> Result<Self> {
        let url = match (&node.url, &node.dir) {
            (Some(url), _) => url.clone(),
            (None, Some(dir)) => throng_access::url_of(dir)?,
            (None, None) => DEFAULT_URL.to_owned(),
        };
        let url = url.trim_end_matches('/').to_owned();
        if !url.contains("://") {
            let message = format!("`{url}` is not the URL of a node");
            let help = "write http://HOST:PORT, or https:// where the node has a certificate";
            return Err(Failure::wrong_input(message).help(help).into());
        }
        let given = secret_input::read(node.token_file.as_deref(), "THRONG_TOKEN")?;
        let is_given = given.is_some();
        let token = match given {
            Some(_) if node.url.is_some() && !node.insecure && is_plain_remote(&url) => {
                let host = host_of(&url);
                let message = format!("the token would be sent unencrypted to {host}");
                let help = "write https://, or add --insecure if the network is trusted";
                return Err(Failure::wrong_input(message).help(help).into());
            }
            Some(token) => Some(token),
            // A token that is found is sent only to a node on this machine.
            None => match &node.dir {
                Some(dir) => throng_access::token_of(dir, &url)?,
                None => throng_access::token_at(&url),
            },
        };
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(timeout)
            // The token is for the node that was named. A redirect would send it elsewhere.
            .redirect(reqwest::redirect::Policy::none());
        if throng_access::is_loopback(&url) {
            builder = builder.no_proxy();
        }
        if token.is_some() && !is_given {
            // A token is found for `localhost` only if its node listens on 127.0.0.1. The name may also be [::1], where
            // another process can listen.
            builder = builder.resolve("localhost", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        }
        if let Some(path) = &node.ca_file {
            builder = builder.tls_certs_merge(authorities(path)?);
        }
        let http = builder.build().context("cannot create an HTTP client")?;
        Ok(Self { http, url, token })
    }

    /// Sends a GET; a refusal of the node is an error.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        self.send(self.http.get(format!("{}{path}", self.url)), path).await
    }

    /// Sends a POST; a refusal of the node is an error.
    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer> {
        self.send(self.http.post(format!("{}{path}", self.url)).json(body), path).await
    }

    /// Sends a POST with a body of any content type.
    pub(crate) async fn post_body(
        &self,
        path: &str,
        content_type: &str,
        encoding: Option<&str>,
        body: reqwest::Body,
    ) -> Result<Answer> {
        let request = self.http.post(format!("{}{path}", self.url)).body(body);
        let request = request.header(reqwest::header::CONTENT_TYPE, content_type);
        let request = match encoding {
            Some(encoding) => request.header(reqwest::header::CONTENT_ENCODING, encoding),
            None => request,
        };
        self.send(request, path).await
    }

    /// Sends a POST whose body has no fields.
    pub(crate) async fn post_empty(&self, path: &str) -> Result<Answer> {
        #[derive(Serialize)]
        struct Empty {}
        self.post(path, &Empty {}).await
    }

    fn connection_error(&self, error: reqwest::Error) -> anyhow::Error {
        if error.is_builder() {
            return anyhow::Error::new(error).context("cannot write the request");
        }
        let untrusted = throng_model::with_causes(&error).contains("certificate");
        let failure = match untrusted {
            true => Failure::new(format!("the certificate of {} is not trusted", self.url)).help(
                "name its authority with --ca-file, or the node by a name that its certificate has",
            ),
            false => Failure::new(format!("no node answers at {}", self.url)).help(
                "start one with `throng up`, or name it with --url (with https:// where it has a \
                 certificate)",
            ),
        };
        anyhow::Error::new(error).context(failure)
    }

    /// The error of a web server or proxy that answers every path with a page.
    fn no_json(&self, path: &str) -> anyhow::Error {
        Failure::new(format!("the answer to {path} is not JSON"))
            .help(format!("is {} a Throng node? name the node with --url", self.url))
            .into()
    }

    /// The URL of the node, without a slash at its end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Like `post`, for callers that read the fields of a refusal.
    pub(crate) async fn try_post(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer, RequestError> {
        self.try_send(self.http.post(format!("{}{path}", self.url)).json(body), path).await
    }

    async fn send(&self, request: reqwest::RequestBuilder, path: &str) -> Result<Answer> {
        self.try_send(request, path).await.map_err(RequestError::into_error)
    }

    async fn try_send(
        &self,
        mut request: reqwest::RequestBuilder,
        path: &str,
    ) -> Result<Answer, RequestError> {
        if throng_api::has_empty_name(path) {
            let failure =
                Failure::wrong_input("a name is empty").help("give the name of the object");
            return Err(RequestError::Failed(failure.into()));
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let response = request.send().await.map_err(|error| self.connection_error(error))?;
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get("location").and_then(|to| to.to_str().ok());
            let to = to.unwrap_or("nowhere");
            let message = format!(
                "{} answers {status}, which redirects to {to}; the token is not sent there",
                self.url
            );
            let failure = Failure::new(message).help("name the node itself with --url");
            return Err(RequestError::Failed(failure.into()));
        }
        let body = response
            .text()
            .await
            .with_context(|| format!("the answer of the node to {path} was cut off"))?;
        if status.is_success() {
            let document = serde_json::from_str(&body).map_err(|_| self.no_json(path))?;
            return Ok(Answer { document, path: path.to_owned() });
        }
        let place = format!("HTTP {status} from {path}");
        Err(RequestError::Refused(Refused { body, place }))
    }
}

/// A node's answer to a request that succeeded.
pub(crate) struct Answer {
    /// As the node sent it.
    document: Value,
    path: String,
}

impl Answer {
    /// Prints the document as the node sent it, for `--json`.
    pub(crate) fn print(&self) {
        out::json(&self.document);
    }

    /// Prints what was done, or with `--json` the document.
    pub(crate) fn print_or(&self, done: impl std::fmt::Display, output: Output) {
        match output {
            Output::Text => out::line(done),
            Output::Json => self.print(),
        }
    }

    /// The document as [`Answer::read`] reads it, for people. With `--json` it is printed as the node sent it, and
    /// `None` is returned.
    pub(crate) fn for_people<T: DeserializeOwned>(&self, output: Output) -> Result<Option<T>> {
        match output {
            Output::Text => self.read().map(Some),
            Output::Json => {
                self.print();
                Ok(None)
            }
        }
    }

    /// The document, for commands that print more than the node sent.
    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    /// The cursor of the next page of a list; `None` if there is none.
    pub(crate) fn next_cursor(&self) -> Option<String> {
        self.document.get("next_cursor")?.as_str().map(str::to_owned)
    }

    /// Adds the rows of the next page of a list, which are in the field `rows`.
    pub(crate) fn append(&mut self, next: Self, rows: &str) {
        let (Value::Object(list), Value::Object(mut next)) = (&mut self.document, next.document)
        else {
            return;
        };
        if let (Some(Value::Array(all)), Some(Value::Array(more))) =
            (list.get_mut(rows), next.remove(rows))
        {
            all.extend(more);
        }
        match next.remove("next_cursor") {
            Some(cursor) => list.insert("next_cursor".to_owned(), cursor),
            None => list.remove("next_cursor"),
        };
    }

    /// Reads the document as one of the types of `throng-api` or [`crate::answers`].
    ///
    /// # Errors
    /// If the document lacks a field that the command needs, or it has another type.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let read: serde_json::Result<T> = serde::Deserialize::deserialize(&self.document);
        read.map_err(|error| {
            Failure::new(format!("cannot read the node's answer to {}: {error}", self.path))
                .help("use the command line of the node's version")
                .into()
        })
    }
}

/// Why a request has no answer.
pub(crate) enum RequestError {
    /// The node refused it.
    Refused(Refused),
    /// It could not be sent, or its answer could not be read.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for RequestError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl RequestError {
    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Refused(refused) => refused.into_error(),
            Self::Failed(error) => error,
        }
    }
}

/// A node's answer to a request that it refused.
pub(crate) struct Refused {
    /// The body, as the node sent it.
    body: String,
    /// Status and path, for errors without a message.
    place: String,
}

impl Refused {
    /// The problems of a spec, if it was refused because of these.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        problems_of(&self.body)
    }

    /// The error with the message, hint and code of the node.
    pub(crate) fn into_error(self) -> anyhow::Error {
        Failure::of_answer(error_of(&self.body), &self.place).into()
    }
}

/// The certificates of a PEM file.
fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if found.is_empty() {
        return Err(Failure::new(format!("{} holds no certificate", path.display()))
            .help("--ca-file takes a PEM file, which begins with -----BEGIN CERTIFICATE-----")
            .into());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with an empty object. Returns the request.
    fn answer_one(listener: &TcpListener) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut byte) = (Vec::new(), [0]);
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            request.push(byte[0]);
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        stream.write_all(head.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    }

    #[tokio::test]
    async fn a_token_that_is_found_goes_to_the_address_of_its_node() {
        // Fails if another test has installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let node = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = node.local_addr().unwrap().port();
        // Another process; not where the machine has no IPv6.
        let other = TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, port)).ok();
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(throng_access::ADDRESS_FILE, &format!("http://127.0.0.1:{port}\n"));
        write(throng_access::ADMIN_TOKEN_FILE, "throng_1\n");
        write("lock", "1");
        let lock = std::fs::File::open(dir.path().join("lock")).unwrap();
        lock.try_lock().unwrap();
        let client = Client::new(&NodeArgs {
            url: Some(format!("http://localhost:{port}")),
            ca_file: None,
            token_file: None,
            insecure: false,
            dir: Some(dir.path().to_owned()),
        });
        let answering = std::thread::spawn(move || answer_one(&node));
        client.unwrap().get("/v1/x").await.map(|_| ()).unwrap();
        let request = answering.join().unwrap();
        assert!(request.contains("Bearer throng_1"), "{request}");
        if let Some(other) = other {
            other.set_nonblocking(true).unwrap();
            assert!(other.accept().is_err(), "another process was asked");
        }
    }

    #[test]
    fn reserved_characters_are_escaped() {
        assert_eq!(super::segment("a b/ü"), "a%20b%2F%C3%BC");
    }

    #[test]
    fn an_address_without_a_scheme_is_no_url() {
        let node = NodeArgs {
            url: Some("127.0.0.1:7077".to_owned()),
            ca_file: None,
            token_file: None,
            insecure: false,
            dir: None,
        };
        let refused = Client::new(&node).map(|_| ()).unwrap_err();
        assert_eq!(refused.to_string(), "`127.0.0.1:7077` is not the URL of a node");
    }
}
