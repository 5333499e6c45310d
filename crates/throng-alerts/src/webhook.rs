//! One signed HTTP request to a receiver of alerts.

use std::time::Duration;

use throng_model::{Secret, Timestamp};
use throng_spec::WebhookSettings;

use crate::event::{Payload, signature};
use crate::outcome::WebhookResponse;

/// The timeout of the whole request: a receiver that hangs delays its own events only.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of bytes of a response body that are shown.
const MAX_SHOWN_BYTES: usize = 512;

/// Sends requests to receivers. Redirects are not followed: a signed alert is sent to the configured server only.
#[derive(Debug, Clone)]
pub(crate) struct WebhookClient {
    /// Uses the machine's proxy, if it has one.
    remote: reqwest::Client,
    /// Without a proxy, for a receiver on this machine.
    local: reqwest::Client,
}

impl WebhookClient {
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        // Another part of the process may have installed the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(REQUEST_TIMEOUT)
                .user_agent(concat!("throng/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Self { remote: builder().build()?, local: builder().no_proxy().build()? })
    }

    /// Sends a payload, and reads the beginning of the response. `now` is the time that is signed.
    pub(crate) async fn send(
        &self,
        settings: &WebhookSettings,
        secret: &Secret,
        payload: &Payload,
        now: Timestamp,
    ) -> (WebhookResponse, String) {
        // The spec allows http:// on this machine only.
        let client = if settings.url.starts_with("http://") { &self.local } else { &self.remote };
        let request = client
            .post(&settings.url)
            .header("content-type", "application/json")
            .header("throng-event-id", &payload.event_id)
            .header("throng-signature", signature(secret, now, &payload.body))
            .body(payload.body.clone());
        match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                (WebhookResponse::Status(status), beginning(response).await)
            }
            Err(error) => (WebhookResponse::NoResponse(error_text(error)), String::new()),
        }
    }
}

/// The reason of a missing response. Without the URL, because its path may be a secret.
fn error_text(error: reqwest::Error) -> String {
    let what = if error.is_timeout() {
        "the request to the receiver timed out"
    } else if error.is_connect() {
        "no connection to the receiver"
    } else {
        "the request to the receiver failed"
    };
    format!("{what}: {}", throng_model::with_causes(&error.without_url()))
}

/// The first bytes of a body as text in one line; empty if it cannot be read.
async fn beginning(mut response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_SHOWN_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(MAX_SHOWN_BYTES);
    let text = String::from_utf8_lossy(&bytes);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}
