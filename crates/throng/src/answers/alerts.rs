//! Alerts, their deliveries and receivers.

use serde::Deserialize;
use throng_model::Timestamp;

/// `GET /v1/alerts`.
#[derive(Debug, Deserialize)]
pub(crate) struct AlertList {
    pub(crate) alerts: Vec<Alert>,
    #[serde(default)]
    pub(crate) open: u64,
    #[serde(default)]
    pub(crate) total: u64,
    #[serde(default)]
    pub(crate) receivers: Vec<Receiver>,
}

/// An alert.
#[derive(Debug, Deserialize)]
pub(crate) struct Alert {
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) severity: String,
    pub(crate) subject: String,
    pub(crate) message: String,
    pub(crate) count: u64,
    pub(crate) last_at: Option<Timestamp>,
    /// Absent while it is open.
    pub(crate) resolved_at: Option<Timestamp>,
    /// Deliveries that have ended.
    #[serde(default)]
    pub(crate) deliveries: Vec<Delivery>,
}

/// `GET /v1/alerts/deliveries`.
#[derive(Debug, Deserialize)]
pub(crate) struct DeliveryList {
    pub(crate) deliveries: Vec<Delivery>,
}

/// A delivery that has ended.
#[derive(Debug, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) receiver: String,
    pub(crate) alert: i64,
    pub(crate) event: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) tries: u64,
    pub(crate) http_status: Option<u16>,
    pub(crate) why: Option<String>,
    pub(crate) at: Option<Timestamp>,
}

/// A receiver of alerts.
#[derive(Debug, Deserialize)]
pub(crate) struct Receiver {
    pub(crate) name: String,
    /// Failed tries of its next event.
    #[serde(default)]
    pub(crate) failures: u32,
    pub(crate) next_try_at: Option<Timestamp>,
    pub(crate) last_error: Option<String>,
    /// Events that are not delivered yet.
    #[serde(default)]
    pub(crate) pending: u64,
}

/// `POST /v1/alerts/test`.
#[derive(Debug, Deserialize)]
pub(crate) struct TestAnswers {
    pub(crate) answers: Vec<TestAnswer>,
}

/// The answer of a receiver to a test.
#[derive(Debug, Deserialize)]
pub(crate) struct TestAnswer {
    pub(crate) receiver: String,
    #[serde(default)]
    pub(crate) accepted: bool,
    /// Absent if there was no answer.
    pub(crate) status: Option<u16>,
    #[serde(default)]
    pub(crate) answer: String,
    pub(crate) error: Option<String>,
}
