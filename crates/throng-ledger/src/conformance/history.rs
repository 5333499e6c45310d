//! Alerts and history.

use super::*;
use crate::{AlertKind, HistoryEntry, NewAlert, NodeRow};

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
    assert_eq!(ledger.alert_ended(kind, "ads").await.unwrap(), None);
    ledger.resolve_alert(kind, "ads", at(4)).await.unwrap();
    ledger.resolve_alert(kind, "ads", at(5)).await.unwrap();
    ledger.resolve_alert(kind, "unknown", at(5)).await.unwrap();
    let all = ledger.alerts(10).await.unwrap();
    let ended = all.iter().find(|a| a.id == first).unwrap();
    assert_eq!(ended.resolved_at, Some(at(4)));
    assert_eq!(message("ads").await, None);
    assert_ne!(raise("again", 6).await, first);
    assert_eq!(ledger.alert_ended(kind, "ads").await.unwrap(), Some(at(4)));
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

pub(super) async fn history_is_read_newest_first(ledger: &dyn Ledger) {
    let entry = |kind: &str, subject: &str, n| HistoryEntry {
        subject_kind: kind.to_owned(),
        subject: subject.to_owned(),
        what: format!("event {n}"),
        why: "because".to_owned(),
        at: at(n),
        actor: n.is_multiple_of(2).then(|| "ann".to_owned()),
    };
    ledger.record(&[]).await.unwrap();
    let first = entry("audience", "buyers", 1);
    let second = entry("sync", "buyers", 2);
    let third = entry("audience", "buyers", 3);
    ledger.record(&[first.clone(), second.clone()]).await.unwrap();
    ledger.record(std::slice::from_ref(&third)).await.unwrap();
    let of = ledger.history(Some(("audience", "buyers")), 10).await;
    assert_eq!(of.unwrap(), [third.clone(), first.clone()]);
    let all = ledger.history(None, 10).await.unwrap();
    assert_eq!(all, [third.clone(), second, first]);
    assert_eq!(ledger.history(None, 1).await.unwrap(), [third]);
    let many: Vec<_> = (0..2_500).map(|n| entry("ad_group", "a", n)).collect();
    ledger.record(&many).await.unwrap();
    let back = ledger.history(Some(("ad_group", "a")), 5_000).await.unwrap();
    assert!(back.iter().eq(many.iter().rev()));
}

pub(super) async fn nodes_are_seen_and_forgotten(ledger: &dyn Ledger) {
    let node = |name: &str, n: u64, status: i32| NodeRow {
        name: name.to_owned(),
        roles: "api,relay".to_owned(),
        url: "http://127.0.0.1:1".to_owned(),
        started_at: at(0),
        seen_at: at(n),
        status: serde_json::json!({ "gates": status }),
    };
    for (name, n, status) in [("b", 1, 1), ("a", 2, 2), ("b", 3, 3)] {
        ledger.put_node(&node(name, n, status)).await.unwrap();
    }
    assert_eq!(ledger.nodes(at(0)).await.unwrap(), [node("a", 2, 2), node("b", 3, 3)]);
    assert_eq!(ledger.nodes(at(3)).await.unwrap(), [node("b", 3, 3)]);
    ledger.put_node(&node("c", 90_000, 4)).await.unwrap();
    assert_eq!(ledger.nodes(at(0)).await.unwrap(), [node("c", 90_000, 4)]);
}
