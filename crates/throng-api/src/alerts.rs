//! Alerts, their deliveries and their receivers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use throng_model::Timestamp;
use utoipa::ToSchema;

/// Which rows of a list to return.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageQuery {
    /// The number of rows: 200 by default, at most 1,000.
    pub limit: Option<u32>,
    /// The number of rows to skip first.
    #[serde(default)]
    pub offset: u32,
}

impl PageQuery {
    /// The number of rows of the answer.
    pub fn rows(self) -> u32 {
        self.limit.unwrap_or(200).min(1_000)
    }
}

/// Alerts, open ones first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "alerts": [
        {
            "id": 5, "kind": "snapshot_held", "subject": "buyers",
            "message": "version 4 has 80% fewer members", "count": 1,
            "raised_at": 1795536000000000_i64, "last_at": 1795536000000000_i64, "resolved_at": null,
            "severity": "warning", "deliveries": []
        }
    ],
    "open": 1, "total": 12,
    "receivers": [
        {
            "name": "pager", "since": 1795536000000000_i64, "last_event": 41, "failures": 0,
            "next_try_at": null, "last_error": null, "last_ok_at": 1795536000000000_i64,
            "pending": 0
        }
    ]
}))]
pub struct AlertList {
    /// The alerts.
    pub alerts: Vec<AlertItem>,
    /// The number of open alerts.
    pub open: u64,
    /// The number of stored alerts.
    pub total: u64,
    /// The receivers.
    pub receivers: Vec<AlertReceiver>,
    /// The cursor of the next page; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The cursor of the previous page; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_cursor: Option<String>,
}

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertSeverity {
    /// Something waits for a decision.
    Warning,
    /// Something does not work.
    Critical,
}

/// An alert. A cause has at most one open alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": 5, "kind": "snapshot_held", "subject": "buyers", "message": "version 4 has 80% fewer members",
    "count": 1, "raised_at": 1795536000000000_i64, "last_at": 1795536000000000_i64, "resolved_at": null,
    "severity": "warning", "deliveries": []
}))]
pub struct AlertItem {
    /// The id of the alert.
    pub id: i64,
    /// `refresh_failed`, `run_held`, …
    pub kind: String,
    /// The object.
    pub subject: String,
    /// What happened, and how to fix it.
    pub message: String,
    /// How often it was raised.
    pub count: u64,
    /// When it was raised first.
    #[schema(value_type = i64)]
    pub raised_at: Timestamp,
    /// When it was raised last.
    #[schema(value_type = i64)]
    pub last_at: Timestamp,
    /// Null while it is open.
    #[schema(value_type = Option<i64>)]
    pub resolved_at: Option<Timestamp>,
    /// How urgent it is.
    pub severity: AlertSeverity,
    /// Ended deliveries.
    pub deliveries: Vec<AlertDelivery>,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertDeliveryState {
    /// The receiver accepted it.
    Delivered,
    /// The receiver did not accept it in time.
    Expired,
    /// The receiver refused it.
    Refused,
}

/// The event of an alert that is sent to receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertEventName {
    /// The alert was raised.
    Raised,
    /// The alert was resolved.
    Resolved,
}

/// An ended delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "receiver": "pager", "event_id": "9f86d081884c7d65-41", "alert": 5, "event": "raised",
    "state": "delivered", "tries": 1, "http_status": 200, "why": null, "at": 1795536000000000_i64
}))]
pub struct AlertDelivery {
    /// The receiver.
    pub receiver: String,
    /// The id of the event, the same in every attempt.
    pub event_id: String,
    /// The id of the alert.
    pub alert: i64,
    /// The event.
    pub event: AlertEventName,
    /// How it ended.
    pub state: AlertDeliveryState,
    /// The number of attempts.
    pub tries: u64,
    /// The status of the last response.
    pub http_status: Option<u16>,
    /// Why it was not delivered.
    pub why: Option<String>,
    /// When it ended.
    #[schema(value_type = i64)]
    pub at: Timestamp,
}

/// Ended deliveries, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "deliveries": [
        {
            "receiver": "pager", "event_id": "9f86d081884c7d65-41", "alert": 5, "event": "raised",
            "state": "delivered", "tries": 1, "http_status": 200, "why": null,
            "at": 1795536000000000_i64
        }
    ]
}))]
pub struct AlertDeliveryList {
    /// The deliveries.
    pub deliveries: Vec<AlertDelivery>,
}

/// A receiver of alerts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "pager", "since": 1795536000000000_i64, "last_event": 41, "failures": 0,
    "next_try_at": null, "last_error": null, "last_ok_at": 1795536000000000_i64, "pending": 0
}))]
pub struct AlertReceiver {
    /// The name in the spec.
    pub name: String,
    /// When it was added. It gets no earlier events.
    #[schema(value_type = i64)]
    pub since: Timestamp,
    /// The number of the last event whose delivery has ended.
    pub last_event: i64,
    /// Failed attempts of the next event.
    pub failures: u32,
    /// When the next event is retried.
    #[schema(value_type = Option<i64>)]
    pub next_try_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When it accepted an event last.
    #[schema(value_type = Option<i64>)]
    pub last_ok_at: Option<Timestamp>,
    /// Events that wait for delivery.
    pub pending: u64,
}

/// Which receivers to test.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "receiver": "pager" }))]
pub struct AlertTest {
    /// The name of the receiver; all receivers if not set.
    pub receiver: Option<String>,
}

/// The responses of the receivers to a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "answers": [{ "receiver": "pager", "accepted": true, "status": 200, "answer": "ok", "error": null }]
}))]
pub struct AlertTestAnswers {
    /// The responses.
    pub answers: Vec<AlertTestAnswer>,
}

/// The response of a receiver to a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertTestAnswer {
    /// The receiver.
    pub receiver: String,
    /// Whether it accepted the test: any status from 200 to 299.
    pub accepted: bool,
    /// Null if there was no response.
    pub status: Option<u16>,
    /// The beginning of the response.
    pub answer: String,
    /// Why there was no response.
    pub error: Option<String>,
}

/// When something is tried again, for people. A time in the past means that the next try is due.
pub fn next_try(at: Option<Timestamp>, now: Timestamp) -> String {
    match at.filter(|at| *at > now) {
        Some(at) => format!("next try {at}"),
        None => "next try at once".to_owned(),
    }
}

impl AlertItem {
    /// The delivery of the newest event of the alert, for each receiver, for people. Callers of a workspace get no
    /// receivers: for them, of those that the alert was sent to.
    pub fn delivery_text(&self, receivers: &[AlertReceiver], now: Timestamp) -> String {
        let ended = |name: &str| {
            let delivery = self.deliveries.iter().rfind(|delivery| delivery.receiver == name)?;
            Some(match delivery.state {
                AlertDeliveryState::Delivered => format!("{name}: {} delivered", delivery.event),
                state => {
                    let why = delivery.why.as_deref().unwrap_or_default();
                    format!("{name}: {state}, {why}")
                }
            })
        };
        let describe = |receiver: &AlertReceiver| {
            let name = &receiver.name;
            match ended(name) {
                Some(text) => text,
                None if receiver.failures > 0 => {
                    let why = receiver.last_error.as_deref().unwrap_or_default();
                    format!("{name}: waiting, {why}, {}", next_try(receiver.next_try_at, now))
                }
                None if receiver.pending > 0 => format!("{name}: waiting"),
                None => format!("{name}: not sent"),
            }
        };
        match receivers {
            [] if self.deliveries.is_empty() => "no receiver".to_owned(),
            [] => {
                let names: BTreeSet<&str> =
                    self.deliveries.iter().map(|delivery| delivery.receiver.as_str()).collect();
                names.into_iter().filter_map(ended).collect::<Vec<_>>().join("; ")
            }
            all => all.iter().map(describe).collect::<Vec<_>>().join("; "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_try_lies_in_the_future_and_has_a_zone() {
        let now: Timestamp = "2026-11-25T18:40:00Z".parse().unwrap();
        let later = now.plus(std::time::Duration::from_secs(5));
        assert_eq!(next_try(Some(later), now), "next try 2026-11-25T18:40:05Z");
        for due in [Some(now), Some(Timestamp(now.0 - 1)), None] {
            assert_eq!(next_try(due, now), "next try at once", "{due:?}");
        }
    }

    #[test]
    fn a_delivery_is_described_for_each_receiver() {
        let ended = |event, state, why: Option<&str>| AlertDelivery {
            receiver: "x".to_owned(),
            event_id: "e".to_owned(),
            alert: 1,
            event,
            state,
            tries: 1,
            http_status: None,
            why: why.map(str::to_owned),
            at: Timestamp(0),
        };
        let alert = AlertItem {
            id: 1,
            kind: "run_held".to_owned(),
            subject: "a".to_owned(),
            message: "m".to_owned(),
            count: 1,
            raised_at: Timestamp(0),
            last_at: Timestamp(0),
            resolved_at: None,
            severity: AlertSeverity::Warning,
            deliveries: vec![
                ended(AlertEventName::Raised, AlertDeliveryState::Expired, Some("no")),
                ended(AlertEventName::Resolved, AlertDeliveryState::Delivered, None),
            ],
        };
        let receiver = |name: &str, pending, failures| AlertReceiver {
            name: name.to_owned(),
            since: Timestamp(0),
            last_event: 0,
            failures,
            next_try_at: None,
            last_error: None,
            last_ok_at: None,
            pending,
        };
        let receivers = [receiver("x", 0, 0), receiver("y", 2, 0), receiver("z", 0, 3)];
        assert_eq!(
            alert.delivery_text(&receivers, Timestamp(0)),
            "x: resolved delivered; y: waiting; z: waiting, , next try at once"
        );
        assert_eq!(alert.delivery_text(&[], Timestamp(0)), "x: resolved delivered", "not shown");
        let unsent = AlertItem { deliveries: Vec::new(), ..alert };
        assert_eq!(unsent.delivery_text(&[], Timestamp(0)), "no receiver");
    }
}
