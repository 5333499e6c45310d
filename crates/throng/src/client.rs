//! Talks to a running node.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
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
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(60))
            // The token goes to the node that was named, and nowhere else.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &node.ca_file {
            builder = builder.tls_certs_merge(authorities(path)?);
        }
        let http = builder.build().context("cannot make an HTTP client")?;
        Ok(Self { http, url: node.url.trim_end_matches('/').to_owned(), token: node.token.clone() })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.send(self.http.get(format!("{}{path}", self.url)), path).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(self.http.post(format!("{}{path}", self.url)).json(body), path).await
    }

    fn unanswered(&self, error: reqwest::Error) -> anyhow::Error {
        let untrusted = throng_model::with_causes(&error).contains("certificate");
        let message = match untrusted {
            true => format!(
                "the certificate of {} is not trusted: name its authority with --ca-file, or the \
                 node by a name that its certificate has",
                self.url
            ),
            false => format!(
                "no node answers at {}: start one with `throng up`, or name it with --url (with \
                 https:// where it has a certificate)",
                self.url
            ),
        };
        anyhow::Error::new(error).context(message)
    }

    async fn send(&self, mut request: reqwest::RequestBuilder, path: &str) -> Result<Value> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| self.unanswered(error))?;
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get("location").and_then(|to| to.to_str().ok());
            let to = to.unwrap_or("nowhere");
            bail!(
                "{} answers {status}, which leads to {to}; the token is not sent there\n  help: \
                 name the node itself with --url",
                self.url
            );
        }
        let body = response.text().await.with_context(|| format!("the node cut {path} short"))?;
        let value: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        let error = &value["error"];
        let message = error["message"].as_str().unwrap_or("the node gave no reason");
        match error["help"].as_str() {
            Some(help) => bail!("{message}\n  help: {help}"),
            None => bail!("{message} (HTTP {status} from {path})"),
        }
    }
}

/// The certificates of a PEM file.
fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if found.is_empty() {
        bail!(
            "{} holds no certificate\n  help: --ca-file wants a PEM file, which begins with \
             -----BEGIN CERTIFICATE-----",
            path.display()
        );
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
