//! Calls of the API: access tokens, retries, and bodies of bounded size.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use throng_google::{AccessTokens, TokenError};
use throng_model::{Backoff, Clock, Timestamp, is_loopback_host};
use throng_refresh::WarehouseError;
use url::Url;

use crate::response::{Class, ErrorBody, class_of, help_of};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body of a page that the API returns, and some more.
const MAX_BODY_BYTES: usize = 64 << 20;
/// Tries of a call that changes nothing.
const MAX_TRIES: u32 = 4;
/// A quota of the day is tried again after this time.
const QUOTA_DELAY: Duration = Duration::from_secs(900);

/// Why a call has no answer that has not reached the server.
pub(crate) const NOT_CONNECTED: &str = "the connection failed";

/// The delays of calls.
#[derive(Debug, Clone, Copy)]
pub struct CallOptions {
    /// The longest time of a call.
    pub timeout: Duration,
    /// The delays between tries of a call.
    pub retry: Backoff,
    /// The delays between two polls of a job that runs.
    pub poll: Backoff,
}

impl Default for CallOptions {
    fn default() -> Self {
        let backoff = |first, longest| Backoff {
            first: Duration::from_secs(first),
            longest: Duration::from_secs(longest),
        };
        Self { timeout: Duration::from_secs(120), retry: backoff(1, 30), poll: backoff(1, 30) }
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The server's answer is an error.
    Answer {
        class: Class,
        status: u16,
        reason: Option<String>,
        /// As the server wrote it.
        message: String,
    },
    /// There is no answer: the server may have done what was asked for, or not.
    NoAnswer(&'static str),
    /// The call was not made.
    NotMade(WarehouseError),
}

impl CallError {
    /// Whether another try may succeed at once.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Answer { class, .. } => *class == Class::Retry,
            Self::NoAnswer(_) => true,
            Self::NotMade(_) => false,
        }
    }

    pub(crate) fn class(&self) -> Option<Class> {
        match self {
            Self::Answer { class, .. } => Some(*class),
            Self::NoAnswer(_) | Self::NotMade(_) => None,
        }
    }

    /// The error of a refresh. `shows_message`: whether the server's message is shown; not if it may
    /// contain a value of the data.
    pub(crate) fn into_error(self, doing: &str, shows_message: bool) -> WarehouseError {
        let (class, status, reason, message) = match self {
            Self::NotMade(error) => return error,
            Self::NoAnswer(how) => {
                let message = format!("{doing} at BigQuery failed: {how}");
                return WarehouseError::Unavailable { message, after: None };
            }
            Self::Answer { class, status, reason, message } => (class, status, reason, message),
        };
        let mut text = format!("BigQuery responded to {doing} with status {status}");
        if let Some(reason) = &reason {
            text.push_str(&format!(" ({reason})"));
        }
        if shows_message && !message.is_empty() {
            text.push_str(": ");
            text.push_str(&message);
        }
        match class {
            Class::Retry => WarehouseError::Unavailable { message: text, after: None },
            Class::Quota => WarehouseError::Unavailable { message: text, after: Some(QUOTA_DELAY) },
            Class::Token | Class::Exists | Class::NotFound | Class::Refused => {
                let help = reason.as_deref().and_then(help_of).map(str::to_owned);
                WarehouseError::Refused { message: text, help }
            }
        }
    }
}

/// Calls the API as one identity.
pub(crate) struct Client {
    http: reqwest::Client,
    api: Url,
    tokens: AccessTokens,
    clock: Arc<dyn Clock>,
    options: CallOptions,
}

impl Client {
    /// Makes no call.
    pub(crate) fn new(
        api: &str,
        tokens: AccessTokens,
        clock: Arc<dyn Clock>,
        options: CallOptions,
    ) -> Result<Self, WarehouseError> {
        let refused = |message: &str| WarehouseError::Refused {
            message: message.to_owned(),
            help: Some("write https://HOST or http://HOST:PORT".to_owned()),
        };
        let api = Url::parse(api).map_err(|_| refused("a URL of the source is invalid"))?;
        // Another part of the process may have installed a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(options.timeout)
            // A token is sent to the configured server only.
            .redirect(reqwest::redirect::Policy::none());
        let builder = if is_local(&api) { builder.no_proxy() } else { builder };
        let http = builder.build().map_err(|_| refused("cannot create an HTTP client"))?;
        Ok(Self { http, api, tokens, clock, options })
    }

    pub(crate) fn options(&self) -> &CallOptions {
        &self.options
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The URL of a path of a project. Each segment is encoded, so that none can lead elsewhere.
    pub(crate) fn url(&self, project: &str, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.api.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["bigquery", "v2", "projects", project]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query.iter().copied());
        }
        url
    }

    /// A call that changes nothing: repeated while its errors are temporary.
    pub(crate) async fn read(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, CallError> {
        let mut tries = 1;
        loop {
            match self.call(method.clone(), url.clone(), body).await {
                Err(error) if error.is_temporary() && tries < MAX_TRIES => {
                    tracing::debug!(class = ?error.class(), "failed to read from BigQuery, will retry");
                }
                result => return result,
            }
            self.pause(&self.options.retry, tries).await;
            tries += 1;
        }
    }

    /// Waits after failure or poll number `attempt`.
    pub(crate) async fn pause(&self, backoff: &Backoff, attempt: u32) {
        tokio::time::sleep(backoff.delay(attempt, self.clock.now().0.unsigned_abs())).await;
    }

    /// One call. An access token that is refused is replaced once.
    pub(crate) async fn call(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, CallError> {
        let first = self.call_once(&method, &url, body).await;
        match first {
            Err(CallError::Answer { class: Class::Token, .. }) => {
                self.tokens.forget().await;
                self.call_once(&method, &url, body).await
            }
            other => other,
        }
    }

    async fn call_once(
        &self,
        method: &Method,
        url: &Url,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, CallError> {
        // Not the API's answer: a job that the API has is not lost, and a token that cannot be issued
        // does not become valid by another one.
        let token = self.tokens.token().await.map_err(|e| CallError::NotMade(no_token(e)))?;
        let request = self.http.request(method.clone(), url.clone()).bearer_auth(token.expose());
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        answer(status, read_body(response).await?)
    }
}

/// Whether a server is on this machine, so that no proxy is asked for it.
fn is_local(url: &Url) -> bool {
    url.host_str().is_some_and(is_loopback_host)
}

/// The error of a refresh that gets no access token.
pub(crate) fn no_token(error: TokenError) -> WarehouseError {
    match error {
        TokenError::Credentials(what) => WarehouseError::Refused {
            message: format!("the credentials of the source are not usable: {what}"),
            help: Some("create a JSON key of the service account, and refer to that file".into()),
        },
        TokenError::Refused(message) => WarehouseError::Refused { message, help: None },
        TokenError::Unavailable(message) => WarehouseError::Unavailable { message, after: None },
    }
}

fn no_answer(error: reqwest::Error) -> CallError {
    CallError::NoAnswer(if error.is_connect() {
        NOT_CONNECTED
    } else if error.is_timeout() {
        "the response timed out"
    } else {
        "the connection was closed"
    })
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, CallError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            let message = "BigQuery responded with more than 64 MiB".to_owned();
            let help = Some("set a smaller `page_rows` of the source".to_owned());
            return Err(CallError::NotMade(WarehouseError::Refused { message, help }));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The body of a success, or the error.
fn answer(status: StatusCode, body: Vec<u8>) -> Result<Vec<u8>, CallError> {
    if status.is_success() {
        return Ok(body);
    }
    // A proxy's error has another body.
    let error: ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
    let (status, reason) = (status.as_u16(), error.reason().map(str::to_owned));
    let class = class_of(status, reason.as_deref());
    Err(CallError::Answer { class, status, reason, message: error.message() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_this_machine_need_no_proxy() {
        let local = |url: &str| is_local(&Url::parse(url).unwrap());
        assert!(local("http://127.0.0.1:9050") && local("http://[::1]:9050/token"));
        assert!(local("http://localhost:9050"));
        assert!(!local("https://bigquery.googleapis.com") && !local("http://10.0.0.1:80"));
    }
}
