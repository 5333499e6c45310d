//! Talks to a running node.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::args::NodeAt;

/// A node's HTTP API.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
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
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(timeout)
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self { http, url: node.url.trim_end_matches('/').to_owned(), token: node.token.clone() })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.send(self.http.get(format!("{}{path}", self.url)), path).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(self.http.post(format!("{}{path}", self.url)).json(body), path).await
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
            request = request.bearer_auth(token);
        }
        let response = request.send().await.with_context(|| {
            format!(
                "no node answers at {}: start one with `throng up`, or name it with --url",
                self.url
            )
        })?;
        let status = response.status();
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
        let error = &self.body["error"];
        let message = error["message"].as_str().unwrap_or("the node gave no reason");
        match error["help"].as_str() {
            Some(help) => anyhow::anyhow!("{message}\n  help: {help}"),
            None => anyhow::anyhow!("{message} ({})", self.place),
        }
    }
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
