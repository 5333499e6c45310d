//! Alerts, their deliveries and their receivers.

use throng_api::{
    AlertDelivery, AlertDeliveryState, AlertEventName, AlertItem, AlertReceiver, AlertSeverity,
};
use throng_store::{Alert, AlertEventKind, Delivery, DeliveryState, Receiver, Severity};

/// An alert with those of the deliveries that are its own.
pub fn item(alert: Alert, deliveries: &[Delivery]) -> AlertItem {
    let own = deliveries.iter().filter(|delivery| delivery.alert == alert.id);
    AlertItem {
        deliveries: own.cloned().map(delivery).collect(),
        severity: match alert.kind.severity() {
            Severity::Warning => AlertSeverity::Warning,
            Severity::Critical => AlertSeverity::Critical,
        },
        id: alert.id,
        kind: alert.kind.name().to_owned(),
        subject: alert.subject,
        message: alert.message,
        count: alert.count,
        raised_at: alert.raised_at,
        last_at: alert.last_at,
        resolved_at: alert.resolved_at,
    }
}

/// An ended delivery.
pub fn delivery(row: Delivery) -> AlertDelivery {
    AlertDelivery {
        receiver: row.receiver,
        event_id: row.event_id,
        alert: row.alert,
        event: match row.event {
            AlertEventKind::Raised => AlertEventName::Raised,
            AlertEventKind::Resolved => AlertEventName::Resolved,
        },
        state: match row.state {
            DeliveryState::Delivered => AlertDeliveryState::Delivered,
            DeliveryState::Expired => AlertDeliveryState::Expired,
            DeliveryState::Refused => AlertDeliveryState::Refused,
        },
        tries: row.tries,
        http_status: row.http_status,
        why: row.why,
        at: row.at,
    }
}

/// A receiver and the state of its deliveries.
pub fn receiver(row: Receiver) -> AlertReceiver {
    AlertReceiver {
        name: row.name,
        since: row.since,
        last_event: row.last_event,
        failures: row.failures,
        next_try_at: row.next_try_at,
        last_error: row.last_error,
        last_ok_at: row.last_ok_at,
        pending: row.pending,
    }
}
