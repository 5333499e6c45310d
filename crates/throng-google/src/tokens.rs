//! Access tokens: requested when needed, kept until shortly before they expire.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use throng_model::{Backoff, Clock, Secret, Timestamp, is_loopback_host};
use url::Url;
use url::form_urlencoded::Serializer;

use crate::account::ServiceAccount;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer of the token server.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Tries of a request.
const MAX_TRIES: u32 = 4;
/// An access token is replaced this long before it expires.
const MARGIN: Duration = Duration::from_secs(60);
/// An access token is replaced after this time, whatever the server promises.
const MAX_TOKEN_SECS: u64 = 43_200;
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
const REQUEST: &str = "the request for an access token";

/// Why there is no access token. Contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The key file of the service account.
    #[error("the credentials are not usable: {0}")]
    Credentials(&'static str),
    /// The server refuses the request, or the settings are wrong: another try fails in the same way.
    #[error("{0}")]
    Refused(String),
    /// The server does not answer, or is overloaded.
    #[error("{0}")]
    Unavailable(String),
}

/// For whom access tokens are, and from where.
#[derive(Clone)]
pub struct TokenOptions<'a> {
    /// The JSON key file of a service account; `None`: the identity of the machine or pod.
    pub credentials: Option<&'a Secret>,
    /// The URL to which a service account sends its requests, or the metadata server.
    pub url: &'a str,
    /// What a service account's tokens are for. Those of a metadata server have the scopes of the machine.
    pub scope: &'static str,
    /// Decides when a token expires.
    pub clock: Arc<dyn Clock>,
    /// The longest time of a request.
    pub timeout: Duration,
    /// The delays between tries of a request.
    pub retry: Backoff,
}

impl std::fmt::Debug for TokenOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenOptions").field("url", &self.url).finish_non_exhaustive()
    }
}

/// An access token.
struct Token {
    secret: Secret,
    until: Timestamp,
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    expires_in: u64,
}

/// The access tokens of one identity.
pub struct AccessTokens {
    http: reqwest::Client,
    url: Url,
    /// `None`: the machine or pod.
    account: Option<Box<ServiceAccount>>,
    scope: &'static str,
    clock: Arc<dyn Clock>,
    retry: Backoff,
    token: tokio::sync::Mutex<Option<Token>>,
}

impl std::fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessTokens").finish_non_exhaustive()
    }
}

impl AccessTokens {
    /// Makes no request.
    ///
    /// # Errors
    /// [`TokenError`] if the key file or the URL is not usable.
    pub fn new(options: TokenOptions<'_>) -> Result<Self, TokenError> {
        let TokenOptions { credentials, url, scope, clock, timeout, retry } = options;
        let account = credentials.map(ServiceAccount::read).transpose();
        let account = account.map_err(TokenError::Credentials)?.map(Box::new);
        let refused = |what: &str| TokenError::Refused(format!("{REQUEST} failed: {what}"));
        let mut url = Url::parse(url).map_err(|_| refused("the URL of its server is invalid"))?;
        if account.is_none() {
            url =
                url.join(METADATA_PATH).map_err(|_| refused("the URL is not that of a server"))?;
        }
        // Another part of the process may have installed a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            // A signed request is sent to the configured server only.
            .redirect(reqwest::redirect::Policy::none());
        // A proxy does not reach the metadata server of this machine, and would read the token.
        let is_direct = account.is_none() || url.host_str().is_some_and(is_loopback_host);
        let builder = if is_direct { builder.no_proxy() } else { builder };
        let http = builder.build().map_err(|_| refused("cannot create an HTTP client"))?;
        Ok(Self { http, url, account, scope, clock, retry, token: tokio::sync::Mutex::default() })
    }

    /// A valid access token. Requests one if none is kept, at most four times.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn token(&self) -> Result<Secret, TokenError> {
        let mut token = self.token.lock().await;
        let now = self.clock.now();
        if let Some(valid) = token.as_ref().filter(|token| now.plus(MARGIN) < token.until) {
            return Ok(valid.secret.clone());
        }
        let mut tries = 1;
        let issued = loop {
            match self.request(now).await {
                Err(TokenError::Unavailable(_)) if tries < MAX_TRIES => {}
                result => break result?,
            }
            tokio::time::sleep(self.retry.delay(tries, now.0.unsigned_abs())).await;
            tries += 1;
        };
        let until = now.plus(Duration::from_secs(issued.expires_in.min(MAX_TOKEN_SECS)));
        let secret = Secret::new(issued.access_token);
        *token = Some(Token { secret: secret.clone(), until });
        Ok(secret)
    }

    /// Forgets the token that is kept: a server has refused it.
    pub async fn forget(&self) {
        *self.token.lock().await = None;
    }

    async fn request(&self, now: Timestamp) -> Result<TokenBody, TokenError> {
        let refused = |what: &str| TokenError::Refused(format!("{REQUEST} failed: {what}"));
        let request = match &self.account {
            Some(account) => {
                let assertion = account.assertion(self.scope, self.url.as_str(), now);
                let assertion = assertion.ok_or_else(|| refused("it cannot be signed"))?;
                let mut form = Serializer::new(String::new());
                form.append_pair("grant_type", GRANT).append_pair("assertion", &assertion);
                let form = form.finish();
                let kind = "application/x-www-form-urlencoded";
                self.http.post(self.url.clone()).header("content-type", kind).body(form)
            }
            None => self.http.get(self.url.clone()).header("Metadata-Flavor", "Google"),
        };
        let response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        let body = read_body(response).await?;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        // The parser's message may contain the token.
        serde_json::from_slice(&body).map_err(|_| refused("the answer has no access token"))
    }
}

fn no_answer(error: reqwest::Error) -> TokenError {
    let how = if error.is_timeout() {
        "the response timed out"
    } else if error.is_connect() {
        "the connection failed"
    } else {
        "the connection was closed"
    };
    TokenError::Unavailable(format!("{REQUEST} failed: {how}"))
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, TokenError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(TokenError::Refused(format!("{REQUEST} failed: the answer is too large")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The error of an answer: `{"error": "invalid_grant", "error_description": "…"}` of the token server, or
/// `{"error": {"message": "…", "errors": [{"reason": "…"}]}}` of an API. A proxy's error has another body.
fn refusal(status: StatusCode, body: &[u8]) -> TokenError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &body["error"];
    let reason = error.as_str().or_else(|| error["errors"][0]["reason"].as_str());
    let message = body["error_description"].as_str().or_else(|| error["message"].as_str());
    let mut text = format!("the server responded to {REQUEST} with status {}", status.as_u16());
    if let Some(reason) = reason {
        text.push_str(&format!(" ({})", plain(reason, 60)));
    }
    if let Some(message) = message {
        text.push_str(&format!(": {}", plain(message, 400)));
    }
    let is_busy = |reason: &str| {
        ["rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "backendError"]
            .contains(&reason)
    };
    let is_temporary =
        matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504) || reason.is_some_and(is_busy);
    if is_temporary { TokenError::Unavailable(text) } else { TokenError::Refused(text) }
}

/// At most so many characters of a text, without control characters.
fn plain(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> TokenError {
        refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn errors_of_both_forms_are_read() {
        let text = "the server responded to the request for an access token with status";
        let grant = r#"{"error": "invalid_grant", "error_description": "Invalid\nJWT"}"#;
        let expected = TokenError::Refused(format!("{text} 400 (invalid_grant): InvalidJWT"));
        assert_eq!(of(400, grant), expected);
        let api = r#"{"error": {"message": "Busy", "errors": [{"reason": "rateLimitExceeded"}]}}"#;
        let expected = TokenError::Unavailable(format!("{text} 403 (rateLimitExceeded): Busy"));
        assert_eq!(of(403, api), expected);
        assert_eq!(of(502, "<html>"), TokenError::Unavailable(format!("{text} 502")));
        assert_eq!(of(404, "[]"), TokenError::Refused(format!("{text} 404")));
    }
}
