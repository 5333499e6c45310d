//! Talks to a running node.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use throng_model::Secret;

use crate::args::NodeAt;
use crate::failure::Failure;
use crate::{local, secret_input};

/// Where a node answers unless something else is said.
const DEFAULT_URL: &str = "http://127.0.0.1:7077";

/// A node's HTTP API.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<Secret>,
}

impl Client {
    pub(crate) fn new(node: &NodeAt) -> Result<Self> {
        Self::with_timeout(node, Duration::from_secs(60))
    }

    /// For answers that a node has to look at much data for.
    pub(crate) fn patient(node: &NodeAt) -> Result<Self> {
        Self::with_timeout(node, Duration::from_secs(3_700))
    }

    fn with_timeout(node: &NodeAt, timeout: Duration) -> Result<Self> {
        let url = match (&node.url, &node.dir) {
            (Some(url), _) => url.clone(),
            (None, Some(dir)) => local::url_of(dir)?,
            (None, None) => DEFAULT_URL.to_owned(),
        };
        let url = url.trim_end_matches('/').to_owned();
        let token = match secret_input::read(node.token_file.as_deref(), "THRONG_TOKEN")? {
            Some(token) => Some(token),
            None => match &node.dir {
                Some(dir) => local::token_of(dir, &url)?,
                None => local::token_at(&url),
            },
        };
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(timeout)
            // A token goes to the node that was named, and nowhere else.
            .redirect(reqwest::redirect::Policy::none());
        if local::is_loopback(&url) {
            builder = builder.no_proxy();
        }
        if let Some(path) = &node.ca_file {
            builder = builder.tls_certs_merge(authorities(path)?);
        }
        let http = builder.build().context("cannot make an HTTP client")?;
        Ok(Self { http, url, token })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.send(self.http.get(format!("{}{path}", self.url)), path).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(self.http.post(format!("{}{path}", self.url)).json(body), path).await
    }

    fn unanswered(&self, error: reqwest::Error) -> anyhow::Error {
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

    /// Where the node answers, without a slash at its end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Like `post`, with the node's refusal for callers that look into it.
    pub(crate) async fn try_post(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<std::result::Result<Value, Refused>> {
        self.try_send(self.http.post(format!("{}{path}", self.url)).json(body), path).await
    }

    async fn send(&self, request: reqwest::RequestBuilder, path: &str) -> Result<Value> {
        self.try_send(request, path).await?.map_err(Refused::into_error)
    }

    async fn try_send(
        &self,
        mut request: reqwest::RequestBuilder,
        path: &str,
    ) -> Result<std::result::Result<Value, Refused>> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let response = request.send().await.map_err(|error| self.unanswered(error))?;
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get("location").and_then(|to| to.to_str().ok());
            let to = to.unwrap_or("nowhere");
            let message = format!(
                "{} answers {status}, which leads to {to}; the token is not sent there",
                self.url
            );
            return Err(Failure::new(message).help("name the node itself with --url").into());
        }
        let body = response.text().await.with_context(|| format!("the node cut {path} short"))?;
        let value: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(Ok(value));
        }
        Ok(Err(Refused { body: value, place: format!("HTTP {status} from {path}") }))
    }
}

/// A node's answer to a request that it refused.
pub(crate) struct Refused {
    /// As the node sent it.
    pub(crate) body: Value,
    /// Status and path.
    place: String,
}

impl Refused {
    /// The node's words for people.
    pub(crate) fn into_error(self) -> anyhow::Error {
        Failure::of_answer(&self.body["error"], &self.place).into()
    }
}

/// The certificates of a PEM file.
fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if found.is_empty() {
        return Err(Failure::new(format!("{} holds no certificate", path.display()))
            .help("--ca-file wants a PEM file, which begins with -----BEGIN CERTIFICATE-----")
            .into());
    }
    Ok(found)
}

/// A name as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn odd_characters_are_escaped() {
        assert_eq!(super::segment("a b/ü"), "a%20b%2F%C3%BC");
    }
}
