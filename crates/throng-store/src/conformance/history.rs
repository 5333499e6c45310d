//! History and nodes.

use throng_model::Role;

use super::*;
use crate::{HistoryEntry, HistoryEvent, NodeRow, SubjectKind};

pub(super) async fn history_is_read_newest_first(ledger: &dyn Ledger) {
    let (audience, ad_group) = (SubjectKind::Audience, SubjectKind::AdGroup);
    let entry = |kind: &SubjectKind, subject: &str, n: u64| HistoryEntry {
        subject_kind: kind.clone(),
        subject: subject.to_owned(),
        // Every third one of this version.
        what: match n.is_multiple_of(3) {
            true => HistoryEvent::RefreshRequested,
            false => HistoryEvent::from(format!("event {n}")),
        },
        why: "because".to_owned(),
        at: at(n),
        actor: n.is_multiple_of(2).then(|| "ann".to_owned()),
    };
    ledger.record_history(&[]).await.unwrap();
    let first = entry(&audience, "buyers", 1);
    // Of a newer version.
    let second = entry(&SubjectKind::Other("list".to_owned()), "buyers", 2);
    let third = entry(&audience, "buyers", 3);
    ledger.record_history(&[first.clone(), second.clone()]).await.unwrap();
    ledger.record_history(std::slice::from_ref(&third)).await.unwrap();
    let of_one = ledger.history(Some((&audience, "buyers")), 10).await;
    assert_eq!(of_one.unwrap(), [third.clone(), first.clone()]);
    let all = ledger.history(None, 10).await.unwrap();
    assert_eq!(all, [third.clone(), second, first]);
    assert_eq!(ledger.history(None, 1).await.unwrap(), [third]);
    let many: Vec<_> = (0..2_500).map(|n| entry(&ad_group, "a", n)).collect();
    ledger.record_history(&many).await.unwrap();
    let back = ledger.history(Some((&ad_group, "a")), 5_000).await.unwrap();
    assert!(back.iter().eq(many.iter().rev()));
}

pub(super) async fn nodes_are_listed_and_deleted(ledger: &dyn Ledger) {
    let node = |name: &str, n: u64, status: i32| NodeRow {
        name: name.to_owned(),
        roles: vec![Role::Api, Role::Relay],
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
