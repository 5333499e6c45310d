//! Alerts and their delivery.

use super::*;
use crate::{
    AlertEventKind, AlertKind, AlertTotals, Delivery, DeliveryResult, DeliveryState, NewAlert,
};

fn alert(kind: AlertKind, subject: &str, message: &str) -> NewAlert {
    NewAlert { kind, subject: subject.to_owned(), message: message.to_owned() }
}

pub(super) async fn an_open_alert_is_raised_once(ledger: &dyn Ledger) {
    let kind = AlertKind::TaskFailed;
    let raise =
        async |message, n| ledger.raise_alert(&alert(kind, "ads", message), at(n)).await.unwrap();
    let first = raise("token expired", 1).await;
    assert_eq!(raise("token revoked", 2).await, first);
    let other = alert(AlertKind::CheckFailed, "ads", "size differs");
    assert_ne!(ledger.raise_alert(&other, at(3)).await.unwrap(), first);
    let open = ledger.alerts(10).await.unwrap();
    assert_eq!(open.len(), 2);
    assert_eq!(open[1].message, "token revoked");
    assert_eq!(open[1].raised_at, at(1), "open since the first time");
    let message = async |subject| ledger.open_alert(kind, subject).await.unwrap();
    assert_eq!(message("ads").await.as_deref(), Some("token revoked"));
    assert_eq!(message("other").await, None);
    assert_eq!(ledger.alert_resolved_at(kind, "ads").await.unwrap(), None);
    ledger.resolve_alert(kind, "ads", at(4)).await.unwrap();
    ledger.resolve_alert(kind, "ads", at(5)).await.unwrap();
    ledger.resolve_alert(kind, "unknown", at(5)).await.unwrap();
    let all = ledger.alerts(10).await.unwrap();
    let ended = all.iter().find(|a| a.id == first).unwrap();
    assert_eq!(ended.resolved_at, Some(at(4)));
    assert_eq!(message("ads").await, None);
    let again = raise("again", 6).await;
    assert_ne!(again, first);
    let newest = ledger.alerts(1).await.unwrap().remove(0);
    assert_eq!((newest.id, newest.count, newest.last_at), (again, 1, at(6)));
    assert_eq!(ledger.alert_resolved_at(kind, "ads").await.unwrap(), Some(at(4)));
}

pub(super) async fn open_alerts_come_first(ledger: &dyn Ledger) {
    for (n, subject) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        let raised = alert(AlertKind::RefreshFailed, subject, "x");
        ledger.raise_alert(&raised, at(n)).await.unwrap();
    }
    for subject in ["b", "d"] {
        ledger.resolve_alert(AlertKind::RefreshFailed, subject, at(9)).await.unwrap();
    }
    let all = ledger.alerts(10).await.unwrap();
    let subjects: Vec<_> = all.iter().map(|a| a.subject.as_str()).collect();
    assert_eq!(subjects, ["c", "a", "d", "b"]);
    assert_eq!(ledger.alerts(1).await.unwrap()[0].subject, "c");
}

pub(super) async fn an_alert_counts_how_often_it_was_raised(ledger: &dyn Ledger) {
    let cause = (AlertKind::RefreshFailed, "buyers");
    for n in 1..=1_000 {
        let message = format!("try {n}");
        ledger.raise_alert(&alert(cause.0, cause.1, &message), at(n)).await.unwrap();
    }
    let all = ledger.alerts(10).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].count, all[0].raised_at, all[0].last_at), (1_000, at(1), at(1_000)));
    assert_eq!(all[0].message, "try 1000");
    ledger.raise_alert(&alert(cause.0, "others", "x"), at(2)).await.unwrap();
    ledger.resolve_alert(cause.0, cause.1, at(1_001)).await.unwrap();
    assert_eq!(ledger.alert_totals().await.unwrap(), AlertTotals { open: 1, total: 2 });
    let page = ledger.alerts_page(1, 1).await.unwrap();
    assert_eq!((page.len(), page[0].subject.as_str()), (1, "buyers"));
}

/// A process of the first version can read five kinds only; the others are stored as one of these.
pub(super) async fn alerts_of_each_kind_are_separate(ledger: &dyn Ledger) {
    for kind in AlertKind::ALL {
        for subject in ["a", "b: c"] {
            ledger.raise_alert(&alert(kind, subject, kind.name()), at(1)).await.unwrap();
        }
    }
    let all = ledger.alerts(100).await.unwrap();
    assert_eq!(all.len(), 2 * AlertKind::ALL.len());
    for kind in AlertKind::ALL {
        for subject in ["a", "b: c"] {
            let found = all.iter().find(|a| a.kind == kind && a.subject == subject).unwrap();
            assert_eq!((found.message.as_str(), found.count), (kind.name(), 1));
            assert_eq!(ledger.open_alert(kind, subject).await.unwrap().unwrap(), kind.name());
        }
        ledger.resolve_alert(kind, "a", at(2)).await.unwrap();
        assert_eq!(ledger.alert_resolved_at(kind, "a").await.unwrap(), Some(at(2)));
        assert_eq!(ledger.alert_resolved_at(kind, "b: c").await.unwrap(), None);
    }
    let open = ledger.open_alerts_by_kind().await.unwrap();
    assert_eq!(open, AlertKind::ALL.map(|kind| (kind, 1)));
}

async fn delivered(
    ledger: &dyn Ledger,
    receiver: &str,
    n: u64,
) -> Option<(String, AlertEventKind)> {
    let event = ledger.next_alert_event(receiver).await.unwrap()?;
    let result =
        DeliveryResult { state: DeliveryState::Delivered, http_status: Some(204), why: None };
    ledger.record_delivery_result(receiver, event.id, &result, at(n)).await.unwrap();
    // A repeated call, as after a crash, changes nothing.
    ledger.record_delivery_result(receiver, event.id, &result, at(n + 1)).await.unwrap();
    Some((event.alert.subject, event.event))
}

pub(super) async fn events_are_recorded_once_in_order_of_time(ledger: &dyn Ledger) {
    use AlertEventKind::{Raised, Resolved};
    let kind = AlertKind::TaskFailed;
    ledger.add_receiver("pager", at(0)).await.unwrap();
    for (subject, n) in [("a", 3), ("b", 1), ("c", 2)] {
        ledger.raise_alert(&alert(kind, subject, "x"), at(n)).await.unwrap();
    }
    ledger.resolve_alert(kind, "b", at(2)).await.unwrap();
    // Resolved before the time from which events are recorded.
    ledger.raise_alert(&alert(kind, "old", "x"), at(0)).await.unwrap();
    ledger.resolve_alert(kind, "old", at(0)).await.unwrap();
    assert_eq!(ledger.record_alert_events(1, at(1)).await.unwrap(), 4);
    assert_eq!(ledger.record_alert_events(2, at(1)).await.unwrap(), 0);
    ledger.raise_alert(&alert(kind, "a", "again"), at(5)).await.unwrap();
    ledger.resolve_alert(kind, "a", at(6)).await.unwrap();
    assert_eq!(ledger.record_alert_events(3, at(1)).await.unwrap(), 1);
    let mut seen = Vec::new();
    while let Some((subject, event)) = delivered(ledger, "pager", 7).await {
        seen.push((subject, event));
    }
    let expected = [("b", Raised), ("b", Resolved), ("c", Raised), ("a", Raised), ("a", Resolved)];
    let expected = expected.map(|(subject, event)| (subject.to_owned(), event));
    assert_eq!(seen, expected);
}

pub(super) async fn receivers_are_independent(ledger: &dyn Ledger) {
    let kind = AlertKind::TaskFailed;
    for name in ["one", "two"] {
        ledger.add_receiver(name, at(0)).await.unwrap();
    }
    let id = ledger.raise_alert(&alert(kind, "ads", "x"), at(1)).await.unwrap();
    ledger.record_alert_events(9, at(0)).await.unwrap();
    ledger.record_delivery_failure("two", "no route", at(4)).await.unwrap();
    ledger.record_delivery_failure("two", "HTTP 503", at(9)).await.unwrap();
    let event = ledger.next_alert_event("one").await.unwrap().unwrap();
    assert_eq!(ledger.next_alert_event("two").await.unwrap().unwrap(), event);
    assert_eq!((event.alert.id, event.at), (id, at(1)));
    assert!(delivered(ledger, "one", 5).await.is_some());
    assert!(delivered(ledger, "one", 5).await.is_none());
    let state = ledger.receivers().await.unwrap();
    assert_eq!((state[0].pending, state[0].last_ok_at), (0, Some(at(5))));
    assert_eq!((state[1].pending, state[1].failures), (1, 2));
    assert_eq!(state[1].last_error.as_deref(), Some("HTTP 503"));
    assert_eq!(state[1].next_try_at, Some(at(9)));
    // The delivery expires.
    let why = Some("not accepted within an hour".to_owned());
    let expired =
        DeliveryResult { state: DeliveryState::Expired, http_status: Some(503), why: why.clone() };
    ledger.record_delivery_result("two", event.id, &expired, at(8)).await.unwrap();
    assert!(ledger.next_alert_event("two").await.unwrap().is_none());
    let entry = |receiver: &str, state, tries, status, why, n| Delivery {
        receiver: receiver.to_owned(),
        event_id: event.event_id.clone(),
        alert: id,
        event: AlertEventKind::Raised,
        state,
        tries,
        http_status: Some(status),
        why,
        at: at(n),
    };
    let one = entry("one", DeliveryState::Delivered, 1, 204, None, 5);
    let two = entry("two", DeliveryState::Expired, 2, 503, why, 8);
    assert_eq!(ledger.deliveries(10).await.unwrap(), [two.clone(), one.clone()]);
    assert_eq!(ledger.deliveries_of(&[id, 77]).await.unwrap(), [one, two]);
    assert!(ledger.deliveries_of(&[]).await.unwrap().is_empty());
    // After a success the next failure is the first.
    ledger.resolve_alert(kind, "ads", at(9)).await.unwrap();
    ledger.record_alert_events(10, at(0)).await.unwrap();
    ledger.record_delivery_failure("two", "no route", at(12)).await.unwrap();
    assert_eq!(ledger.receivers().await.unwrap()[1].failures, 1);
}

pub(super) async fn a_new_receiver_gets_the_open_alerts(ledger: &dyn Ledger) {
    let kind = AlertKind::RunHeld;
    for (subject, n) in [("ended", 1), ("open", 2), ("later", 3)] {
        ledger.raise_alert(&alert(kind, subject, "x"), at(n)).await.unwrap();
    }
    ledger.resolve_alert(kind, "ended", at(4)).await.unwrap();
    ledger.record_alert_events(1, at(0)).await.unwrap();
    ledger.add_receiver("new", at(10)).await.unwrap();
    ledger.add_receiver("new", at(11)).await.unwrap();
    let event = ledger.next_alert_event("new").await.unwrap().unwrap();
    assert_eq!(event.alert.subject, "open");
    ledger.skip_alert_event("new", event.id).await.unwrap();
    assert_eq!(ledger.next_alert_event("new").await.unwrap().unwrap().alert.subject, "later");
    assert_eq!(ledger.receivers().await.unwrap()[0].since, at(10));
    assert!(ledger.deliveries(10).await.unwrap().is_empty());
}

pub(super) async fn old_events_are_deleted(ledger: &dyn Ledger) {
    let kind = AlertKind::CheckFailed;
    for name in ["gone", "slow"] {
        ledger.add_receiver(name, at(0)).await.unwrap();
    }
    for (subject, n) in [("a", 1), ("b", 2), ("c", 30)] {
        ledger.raise_alert(&alert(kind, subject, "x"), at(n)).await.unwrap();
    }
    ledger.record_alert_events(1, at(0)).await.unwrap();
    delivered(ledger, "slow", 40).await.unwrap();
    let slow = ["slow".to_owned()];
    // The second one still waits for a receiver, the third one is recent.
    assert_eq!(ledger.delete_alert_events(at(20), &slow).await.unwrap(), 1);
    assert_eq!(ledger.receivers().await.unwrap().len(), 1);
    assert!(ledger.deliveries(10).await.unwrap().is_empty());
    delivered(ledger, "slow", 41).await.unwrap();
    delivered(ledger, "slow", 42).await.unwrap();
    assert_eq!(ledger.delete_alert_events(at(20), &slow).await.unwrap(), 1);
    assert_eq!(ledger.deliveries(10).await.unwrap().len(), 1);
    assert_eq!(ledger.alerts(10).await.unwrap().len(), 3, "alerts are kept");
}

pub(super) async fn several_alerts_are_resolved_together(ledger: &dyn Ledger) {
    // Kinds that are stored under their own names, and one that is not.
    let (failed, held) = (AlertKind::RefreshFailed, AlertKind::SnapshotHeld);
    let raised = [(failed, "a"), (held, "a"), (failed, "b"), (AlertKind::NullKeys, "b")];
    for (kind, subject) in raised {
        ledger.raise_alert(&alert(kind, subject, "x"), at(1)).await.unwrap();
    }
    let resolved = [(failed, "a"), (held, "b"), (AlertKind::NullKeys, "b"), (failed, "c")];
    ledger.resolve_alerts(&resolved, at(2)).await.unwrap();
    ledger.resolve_alerts(&resolved, at(3)).await.unwrap();
    ledger.resolve_alerts(&[], at(3)).await.unwrap();
    let mut all = Vec::new();
    for found in ledger.alerts(10).await.unwrap() {
        all.push((found.kind, found.subject, found.resolved_at));
    }
    for (kind, subject) in raised {
        let is_resolved = resolved.contains(&(kind, subject));
        let expected = (kind, subject.to_owned(), is_resolved.then(|| at(2)));
        assert!(all.contains(&expected), "{expected:?} in {all:?}");
    }
    assert_eq!(all.len(), raised.len());
}

pub(super) async fn several_alerts_are_raised_together(ledger: &dyn Ledger) {
    // Kinds that are stored under their own names, and one that is not.
    let (failed, null_keys) = (AlertKind::RefreshFailed, AlertKind::NullKeys);
    ledger.raise_alert(&alert(failed, "a", "old"), at(1)).await.unwrap();
    ledger.raise_alert(&alert(null_keys, "b", "old"), at(1)).await.unwrap();
    ledger.resolve_alert(null_keys, "b", at(2)).await.unwrap();
    let raised = [(failed, "a"), (failed, "b"), (null_keys, "a"), (null_keys, "b")];
    let raised = raised.map(|(kind, subject)| alert(kind, subject, "new"));
    ledger.raise_alerts(&raised, at(3)).await.unwrap();
    ledger.raise_alerts(&[], at(4)).await.unwrap();
    let mut all = Vec::new();
    for found in ledger.alerts(10).await.unwrap() {
        let times = (found.raised_at, found.resolved_at);
        all.push((found.kind, found.subject, found.message, found.count, times));
    }
    let expected = |kind, subject: &str, message: &str, count, times| {
        (kind, subject.to_owned(), message.to_owned(), count, times)
    };
    for found in [
        expected(failed, "a", "new", 2, (at(1), None)),
        expected(failed, "b", "new", 1, (at(3), None)),
        expected(null_keys, "a", "new", 1, (at(3), None)),
        expected(null_keys, "b", "new", 1, (at(3), None)),
        expected(null_keys, "b", "old", 1, (at(1), Some(at(2)))),
    ] {
        assert!(all.contains(&found), "{found:?} in {all:?}");
    }
    assert_eq!(all.len(), 5);
    // More than one statement has rows.
    let many: Vec<NewAlert> =
        (0..1_001).map(|number| alert(failed, &format!("many-{number}"), "x")).collect();
    ledger.raise_alerts(&many, at(5)).await.unwrap();
    assert_eq!(ledger.alert_totals().await.unwrap().total, 5 + 1_001);
}
