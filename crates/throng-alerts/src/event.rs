//! The request to a receiver of alerts, and its signature. Pure.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use throng_model::{Secret, Timestamp, to_hex};
use throng_store::{Alert, AlertEvent, AlertEventKind};

/// The version of the body. A receiver ignores unknown fields.
const BODY_VERSION: u32 = 1;
/// The maximum length of a message, in characters: receivers limit the size of bodies.
const MAX_MESSAGE_CHARS: usize = 4_000;

/// A body with the id by which receivers detect duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) event_id: String,
    pub(crate) body: String,
}

/// The body of an event. It has only the fields of the alert: messages name objects of the spec, files and columns,
/// never a value of the data.
pub(crate) fn payload(event: &AlertEvent) -> Payload {
    let what = match event.event {
        AlertEventKind::Raised => "raised",
        AlertEventKind::Resolved => "resolved",
    };
    let body = body(&event.event_id, what, event.at, &alert(&event.alert));
    Payload { event_id: event.event_id.clone(), body }
}

/// The body of a test: an event of the kind `test` about no alert.
pub(crate) fn test_payload(nonce: u64, now: Timestamp) -> Payload {
    let event_id = format!("test-{nonce:016x}");
    let alert = json!({
        "kind": "test",
        "severity": "warning",
        "subject": "throng alerts test",
        "message": "A person sent this to see whether alerts arrive.",
        "count": 1,
        "first_at": now.to_string(),
        "last_at": now.to_string(),
        "resolved_at": null,
    });
    Payload { body: body(&event_id, "test", now, &alert), event_id }
}

/// The fields of an alert. Times are RFC 3339.
fn alert(alert: &Alert) -> Value {
    let message: String = alert.message.chars().take(MAX_MESSAGE_CHARS).collect();
    json!({
        "id": alert.id,
        "kind": alert.kind,
        "severity": alert.kind.severity(),
        "subject": alert.subject,
        "message": message,
        "count": alert.count,
        "first_at": alert.raised_at.to_string(),
        "last_at": alert.last_at.to_string(),
        "resolved_at": alert.resolved_at.map(|at| at.to_string()),
    })
}

fn body(event_id: &str, event: &str, at: Timestamp, alert: &Value) -> String {
    let body = json!({
        "version": BODY_VERSION,
        "id": event_id,
        "event": event,
        "at": at.to_string(),
        "alert": alert,
    });
    body.to_string()
}

/// The header `Throng-Signature`: `t=` the time of the request in seconds since 1970, `v1=` the
/// HMAC-SHA256 of that number, a dot and the body, in hexadecimal. The time is that of the try, so that
/// a receiver can refuse old requests.
pub(crate) fn signature(secret: &Secret, now: Timestamp, body: &str) -> String {
    let seconds = now.0.div_euclid(1_000_000);
    let digest = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).map(|mut mac| {
        mac.update(format!("{seconds}.").as_bytes());
        mac.update(body.as_bytes());
        mac.finalize().into_bytes()
    });
    let hex = match digest {
        Ok(digest) => to_hex(&digest),
        // Cannot happen, because an HMAC key may have any length; a receiver would refuse the request.
        Err(_) => String::new(),
    };
    format!("t={seconds},v1={hex}")
}

#[cfg(test)]
mod tests {
    use throng_store::AlertKind;

    use super::*;

    #[test]
    fn the_signature_is_the_documented_one() {
        // printf '1764028800.{"a":1}' | openssl dgst -sha256 -hmac whsec
        let signed =
            signature(&Secret::new("whsec"), Timestamp(1_764_028_800_999_999), "{\"a\":1}");
        assert_eq!(
            signed,
            "t=1764028800,v1=8a0f6e63f52401e6375778ebbeb5a9b7941d2bac07c99833384905bbe77cc157"
        );
    }

    #[test]
    fn a_body_has_the_fields_of_the_alert() {
        let alert = Alert {
            id: 7,
            kind: AlertKind::RefreshFailed,
            subject: "buyers".to_owned(),
            message: "x".repeat(10_000),
            count: 3,
            raised_at: Timestamp(0),
            last_at: Timestamp(2_000_000),
            resolved_at: None,
        };
        let event = AlertEvent {
            id: 1,
            event_id: "a-0".to_owned(),
            event: AlertEventKind::Raised,
            at: Timestamp(0),
            alert,
        };
        let body: Value = serde_json::from_str(&payload(&event).body).unwrap();
        assert_eq!(
            (&body["version"], &body["id"], &body["event"]),
            (&json!(1), &json!("a-0"), &json!("raised"))
        );
        let alert = &body["alert"];
        assert_eq!(
            (&alert["kind"], &alert["severity"]),
            (&json!("refresh_failed"), &json!("critical"))
        );
        assert_eq!(
            (&alert["count"], &alert["last_at"]),
            (&json!(3), &json!("1970-01-01T00:00:02Z"))
        );
        assert_eq!(alert["message"].as_str().map(str::len), Some(MAX_MESSAGE_CHARS));
    }
}
