//! Receivers of alerts, as people write them.

use schemars::JsonSchema;
use serde::Deserialize;

/// A receiver of alerts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawAlertReceiver {
    /// A server that accepts signed HTTP POST requests.
    pub webhook: RawWebhook,
}

/// A server that alerts are sent to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawWebhook {
    /// `https://…`, or `http://…` on this machine.
    pub url: String,
    /// `env:NAME` or `file:PATH` of the secret that requests are signed with.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub secret: String,
    /// Its name in the ledger, in metrics and in messages (the host of the URL).
    pub name: Option<String>,
    /// The lowest severity of alerts that it receives (warning).
    pub min_severity: Option<RawAlertSeverity>,
    /// How long an event that it does not accept is retried, in hours (24).
    #[schemars(range(min = 1, max = 168))]
    pub retry_hours: Option<u32>,
}

/// The severity of an alert.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawAlertSeverity {
    /// Something waits for a person's decision.
    Warning,
    /// Something does not work.
    Critical,
}
