//! One signed HTTP request to a receiver of alerts.

use std::time::Duration;

use serde::Serialize;
use throng_model::{Secret, Timestamp};
use throng_spec::WebhookSettings;

use super::event::{Payload, signature};
use super::outcome::Answer;

/// The whole request: a receiver that hangs holds up its own events only.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of an answer's body so much is shown, in bytes.
const SHOWN_BYTES: usize = 512;

/// Sends requests to receivers. Redirects are not followed: a signed alert goes to the configured
/// server alone.
#[derive(Debug, Clone)]
pub(super) struct Webhooks {
    /// By the machine's proxy, if it has one.
    outside: reqwest::Client,
    /// Straight to a receiver on this machine.
    here: reqwest::Client,
}

impl Webhooks {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        // Another part of the process may have installed the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(REQUEST_TIMEOUT)
                .user_agent(concat!("throng/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Self { outside: builder().build()?, here: builder().no_proxy().build()? })
    }

    /// Sends a payload, and reads the beginning of the answer. `now` is the time that is signed.
    pub(super) async fn send(
        &self,
        settings: &WebhookSettings,
        secret: &Secret,
        payload: &Payload,
        now: Timestamp,
    ) -> (Answer, String) {
        // The spec allows http:// on this machine only.
        let client = if settings.url.starts_with("http://") { &self.here } else { &self.outside };
        let request = client
            .post(&settings.url)
            .header("content-type", "application/json")
            .header("throng-event-id", &payload.event_id)
            .header("throng-signature", signature(secret, now, &payload.body))
            .body(payload.body.clone());
        match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                (Answer::Status(status), beginning(response).await)
            }
            Err(error) => (Answer::Nothing(in_words(error)), String::new()),
        }
    }
}

/// Why there was no answer. The URL is left out: its path may be a secret.
fn in_words(error: reqwest::Error) -> String {
    let what = if error.is_timeout() {
        "the receiver did not answer in time"
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
    while bytes.len() < SHOWN_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(SHOWN_BYTES);
    let text = String::from_utf8_lossy(&bytes);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// How a test went at one receiver.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TestAnswer {
    /// The receiver's name.
    pub(crate) receiver: String,
    /// Whether it accepted the test: any status from 200 to 299.
    pub(crate) accepted: bool,
    /// The status of its answer; `None` if there was none.
    pub(crate) status: Option<u16>,
    /// The beginning of its answer.
    pub(crate) answer: String,
    /// Why there was none.
    pub(crate) error: Option<String>,
}
