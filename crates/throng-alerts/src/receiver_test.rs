//! Tests of receivers, which a person requests.

use throng_model::{Entropy as _, SystemEntropy};
use throng_spec::WebhookSettings;

use crate::deps::AlertsDeps;
use crate::event;
use crate::outcome::WebhookResponse;
use crate::webhook::WebhookClient;

/// The result of a test of one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverTest {
    /// The receiver's name.
    pub receiver: String,
    /// Whether it accepted the test: any status from 200 to 299.
    pub accepted: bool,
    /// The status of its response; `None` if there was none.
    pub status: Option<u16>,
    /// The beginning of the response body.
    pub answer: String,
    /// The reason if there was no response.
    pub error: Option<String>,
}

/// Sends a test once to every receiver, or to the one of this name, and returns the responses. Does not write to the
/// ledger.
///
/// # Errors
/// If no HTTP client can be created.
pub async fn send_test(
    deps: &AlertsDeps,
    only: Option<&str>,
) -> Result<Vec<ReceiverTest>, reqwest::Error> {
    let client = WebhookClient::new()?;
    let settings = deps.spec.load().node.alerts.clone();
    let wanted = settings.iter().filter(|one| only.is_none_or(|name| name == one.name));
    let tests = wanted.map(|receiver| test(deps, &client, receiver));
    Ok(futures::future::join_all(tests).await)
}

async fn test(
    deps: &AlertsDeps,
    client: &WebhookClient,
    settings: &WebhookSettings,
) -> ReceiverTest {
    let now = deps.clock.now();
    let payload = event::test_payload(SystemEntropy.next_u64(), now);
    let (response, text) = match settings.secret.resolve(&*deps.env) {
        Ok(secret) => client.send(settings, &secret, &payload, now).await,
        Err(error) => {
            (WebhookResponse::NoResponse(throng_model::with_causes(&error)), String::new())
        }
    };
    let (status, error) = match response {
        WebhookResponse::Status(status) => (Some(status), None),
        WebhookResponse::NoResponse(why) => (None, Some(why)),
    };
    ReceiverTest {
        receiver: settings.name.clone(),
        accepted: status.is_some_and(|status| (200..300).contains(&status)),
        status,
        answer: text,
        error,
    }
}
