//! Alerts, and their delivery to receivers outside of the deployment.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throng_model::{AlertKind, Timestamp};

use crate::Result;

/// An alert to be raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewAlert {
    /// What it is about.
    pub kind: AlertKind,
    /// The object: an audience's or a sync's name, or its kind and name, such as `destination
    /// NAME`.
    pub subject: String,
    /// What happened and what to do, in plain words.
    pub message: String,
}

/// An alert. While it is open, there is no other one of the same kind and subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Its number.
    pub id: i64,
    /// What it is about.
    pub kind: AlertKind,
    /// The object.
    pub subject: String,
    /// What happened, the last time.
    pub message: String,
    /// How many times it was raised.
    pub count: u64,
    /// When it was raised for the first time.
    pub raised_at: Timestamp,
    /// When it was raised for the last time.
    pub last_at: Timestamp,
    /// When it was resolved.
    pub resolved_at: Option<Timestamp>,
}

/// How many alerts there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertTotals {
    /// Not resolved.
    pub open: u64,
    /// All that are kept.
    pub total: u64,
}

/// A change of an alert that is delivered to receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertEventKind {
    /// It was raised.
    Raised,
    /// It was resolved.
    Resolved,
}

/// One event, with the alert as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertEvent {
    /// Its number: events are delivered in this order.
    pub id: i64,
    /// Its id in requests to receivers; the same in every try.
    pub event_id: String,
    /// What happened.
    pub event: AlertEventKind,
    /// When it happened.
    pub at: Timestamp,
    /// The alert.
    pub alert: Alert,
}

/// How the delivery of an event ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// The receiver accepted it.
    Delivered,
    /// It was not accepted in time.
    Expired,
    /// The receiver answered that it will not accept it.
    Refused,
}

/// The end of a delivery, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryResult {
    /// How it ended.
    pub state: DeliveryState,
    /// The status of the last answer, if there was one.
    pub http_status: Option<u16>,
    /// Why it was not delivered, in plain words.
    pub why: Option<String>,
}

/// A delivery that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The receiver.
    pub receiver: String,
    /// The event's id in requests to the receiver.
    pub event_id: String,
    /// The alert.
    pub alert: i64,
    /// What happened.
    pub event: AlertEventKind,
    /// How it ended.
    pub state: DeliveryState,
    /// Requests that were made for it.
    pub tries: u64,
    /// The status of the last answer.
    pub http_status: Option<u16>,
    /// Why it was not delivered.
    pub why: Option<String>,
    /// When it ended.
    pub at: Timestamp,
}

/// A receiver of alerts, and the last event that it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// Its name in the spec.
    pub name: String,
    /// Since when it is known. It gets no event of alerts that were resolved earlier.
    pub since: Timestamp,
    /// The number of the last event whose delivery has ended.
    pub last_event: i64,
    /// Failed tries of the next event.
    pub failures: u32,
    /// When the next event is tried again.
    pub next_try_at: Option<Timestamp>,
    /// Why the last try failed.
    pub last_error: Option<String>,
    /// When it last accepted an event.
    pub last_ok_at: Option<Timestamp>,
    /// Events that wait for it.
    pub pending: u64,
}

/// Alerts and their delivery.
#[async_trait]
pub trait AlertLedger: Send + Sync {
    /// Raises an alert. Returns its number. If one of the same kind and subject is open, its count
    /// goes up by one and it gets the new message.
    async fn raise_alert(&self, alert: &NewAlert, now: Timestamp) -> Result<i64>;

    /// [`raise_alert`](Self::raise_alert) for each of these alerts, of which no two have the same kind and subject, in one
    /// transaction.
    async fn raise_alerts(&self, alerts: &[NewAlert], now: Timestamp) -> Result<()>;

    /// Resolves the open alert of this kind and subject, if there is one.
    async fn resolve_alert(&self, kind: AlertKind, subject: &str, now: Timestamp) -> Result<()>;

    /// [`resolve_alert`](Self::resolve_alert) for each of these kinds and subjects, in one transaction.
    async fn resolve_alerts(&self, alerts: &[(AlertKind, &str)], now: Timestamp) -> Result<()>;

    /// The message of the open alert of this kind and subject, if there is one.
    async fn open_alert(&self, kind: AlertKind, subject: &str) -> Result<Option<String>>;

    /// When an alert of this kind and subject was last resolved; `None` if none ever was.
    async fn alert_resolved_at(&self, kind: AlertKind, subject: &str) -> Result<Option<Timestamp>>;

    /// Alerts, open ones first, then newest first.
    async fn alerts(&self, limit: u32) -> Result<Vec<Alert>> {
        self.alerts_page(limit, 0).await
    }

    /// A page of [`AlertLedger::alerts`]: without the first `offset`.
    async fn alerts_page(&self, limit: u32, offset: u32) -> Result<Vec<Alert>>;

    /// How many alerts there are.
    async fn alert_totals(&self) -> Result<AlertTotals>;

    /// Open alerts by kind; kinds without one are left out.
    async fn open_alerts_by_kind(&self) -> Result<Vec<(AlertKind, u64)>>;

    /// Records events of the alerts that were raised or resolved since the last call, the oldest
    /// first, of at most 1,000 alerts. Returns the number of alerts. `nonce` makes the ids of the
    /// events unique. Alerts that were resolved before `since` without an event get none.
    async fn record_alert_events(&self, nonce: u64, since: Timestamp) -> Result<u64>;

    /// Adds a receiver, if it is new: it gets the events of open alerts, and all later ones.
    async fn add_receiver(&self, name: &str, now: Timestamp) -> Result<()>;

    /// The receivers, by name.
    async fn receivers(&self) -> Result<Vec<Receiver>>;

    /// The first event that is still to be delivered to a receiver.
    async fn next_alert_event(&self, receiver: &str) -> Result<Option<AlertEvent>>;

    /// Skips an event that needs no delivery to this receiver.
    async fn skip_alert_event(&self, receiver: &str, event: i64) -> Result<()>;

    /// A try of the next event failed; it is tried again at `next_try_at`.
    async fn record_delivery_failure(
        &self,
        receiver: &str,
        why: &str,
        next_try_at: Timestamp,
    ) -> Result<()>;

    /// The delivery of an event ended. A repeated call for the same event changes nothing.
    async fn record_delivery_result(
        &self,
        receiver: &str,
        event: i64,
        result: &DeliveryResult,
        now: Timestamp,
    ) -> Result<()>;

    /// Deliveries that have ended, the newest first.
    async fn deliveries(&self, limit: u32) -> Result<Vec<Delivery>>;

    /// Deliveries of these alerts that have ended, in the order of their events.
    async fn deliveries_of(&self, alerts: &[i64]) -> Result<Vec<Delivery>>;

    /// Deletes events that are older than `before` and that none of these receivers waits for, with
    /// their deliveries, and all receivers except these. Returns the number of events.
    async fn delete_alert_events(&self, before: Timestamp, receivers: &[String]) -> Result<u64>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_name_everywhere() {
        for kind in AlertKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
