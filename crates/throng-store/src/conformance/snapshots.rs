//! Which snapshots can become current, and which can be deleted.

use serde_json::json;

use super::*;
use crate::{NewPart, PartKind, RefreshState};

/// Deletes a snapshot. Returns whether it was deleted.
async fn deleted(ledger: &dyn Ledger, name: &AudienceName, version: u64) -> bool {
    let version = (name.clone(), version);
    ledger.delete_snapshots(std::slice::from_ref(&version)).await.unwrap() == [version]
}

pub(super) async fn publishing_is_one_step(ledger: &dyn Ledger) {
    let refresh = building(ledger, "buyers", "b", 0).await;
    let part = NewPart { kind: PartKind::Scan, number: 0, covers: json!({}) };
    ledger.add_parts(refresh.id, &[part], None).await.unwrap();
    let made = snapshot("buyers", 1, refresh.id);
    ledger.publish(&made, "b", at(9)).await.unwrap();
    let row = ledger.audience(&audience("buyers")).await.unwrap().unwrap();
    assert_eq!(row.current, Some(made.clone()));
    let refresh = row.refresh.unwrap();
    assert_eq!(refresh.state, RefreshState::Completed);
    assert_eq!(refresh.finished_at, Some(at(9)));
    assert_eq!(refresh.snapshot_version, Some(1));
    assert_eq!(refresh.rows_read, made.rows_read);
    assert_eq!((refresh.holder, refresh.lease_until), (None, None));
    assert!(ledger.parts(refresh.id).await.unwrap().is_empty());
    let sizes = ledger.size_history(&made.audience, 10).await.unwrap();
    assert_eq!(sizes, [(made.created_at, made.members)]);
    assert_eq!(ledger.next_version(&made.audience).await.unwrap(), 2);
    assert_lease_lost(ledger.publish(&made, "b", at(10)).await);
}

pub(super) async fn an_unchanged_refresh_confirms_the_served_version(ledger: &dyn Ledger) {
    let made = published(ledger, "buyers").await;
    let refresh = building(ledger, "buyers", "b", 20).await;
    assert!(!ledger.confirm_unchanged(refresh.id, "b", 2, at(21)).await.unwrap());
    assert_lease_lost(ledger.confirm_unchanged(refresh.id, "other", 1, at(21)).await);
    assert!(ledger.confirm_unchanged(refresh.id, "b", 1, at(22)).await.unwrap());
    let row = ledger.audience(&made.audience).await.unwrap().unwrap();
    assert_eq!(row.current, Some(made.clone()));
    let refresh = row.refresh.unwrap();
    assert_eq!((refresh.state, refresh.unchanged), (RefreshState::Completed, true));
    assert_eq!((refresh.snapshot_version, refresh.rows_read), (Some(1), 0));
    assert_eq!((refresh.finished_at, refresh.holder), (Some(at(22)), None));
    // It has ended, and the next one can start.
    assert_lease_lost(ledger.confirm_unchanged(refresh.id, "b", 1, at(23)).await);
    assert_eq!(ledger.snapshots(&made.audience).await.unwrap().len(), 1);
    building(ledger, "buyers", "b", 30).await;
}

pub(super) async fn a_forced_refresh_is_not_confirmed(ledger: &dyn Ledger) {
    let made = published(ledger, "buyers").await;
    let refresh = building(ledger, "buyers", "b", 20).await;
    assert!(!refresh.forced);
    // It is open already, and becomes a forced one.
    let manual = RefreshTrigger::Manual;
    let id = ledger.force_refresh(&made.audience, manual, at(21)).await.unwrap();
    assert_eq!(id, refresh.id);
    assert!(ledger.refresh(id).await.unwrap().forced);
    assert!(!ledger.confirm_unchanged(id, "b", 1, at(22)).await.unwrap());
    let next = snapshot("buyers", 2, id);
    ledger.publish(&next, "b", at(23)).await.unwrap();
    assert!(!ledger.refresh(id).await.unwrap().unchanged);
    ledger.pause_audience(&made.audience, at(24)).await.unwrap();
    assert_wrong_state(ledger.force_refresh(&made.audience, manual, at(25)).await);
}

pub(super) async fn a_stale_builder_publishes_nothing(ledger: &dyn Ledger) {
    let refresh = building(ledger, "buyers", "old", 0).await;
    ledger.claim_refresh("new", at(60), at(200)).await.unwrap();
    let made = snapshot("buyers", 1, refresh.id);
    assert_lease_lost(ledger.publish(&made, "old", at(61)).await);
    assert_lease_lost(ledger.hold(&made, "old", "small", at(61)).await);
    let row = ledger.audience(&made.audience).await.unwrap().unwrap();
    assert_eq!(row.current, None);
    assert!(ledger.snapshots(&made.audience).await.unwrap().is_empty());
    ledger.publish(&made, "new", at(62)).await.unwrap();
}

pub(super) async fn contradictions_are_refused(ledger: &dyn Ledger) {
    published(ledger, "buyers").await;
    let refresh = building(ledger, "buyers", "b", 20).await;
    let taken = snapshot("buyers", 1, refresh.id);
    assert_refused(ledger.publish(&taken, "b", at(21)).await);
    let foreign = snapshot("others", 1, refresh.id);
    assert_refused(ledger.publish(&foreign, "b", at(21)).await);
    let mut nulls = snapshot("buyers", 2, refresh.id);
    nulls.null_keys = nulls.rows_read + 1;
    assert_refused(ledger.hold(&nulls, "b", "odd", at(21)).await);
    let row = ledger.audience(&audience("buyers")).await.unwrap().unwrap();
    assert_eq!(row.current.unwrap().version, 1);
    assert_eq!(row.refresh.unwrap().state, RefreshState::Processing);
}

/// Version 1 of `buyers` is published, version 2 held.
async fn with_held(ledger: &dyn Ledger) -> (Snapshot, Snapshot) {
    let first = published(ledger, "buyers").await;
    let refresh = building(ledger, "buyers", "b", 20).await;
    let mut held = snapshot("buyers", 2, refresh.id);
    ledger.hold(&held, "b", "80% fewer", at(21)).await.unwrap();
    held.state = SnapshotState::Held;
    (first, held)
}

pub(super) async fn a_held_snapshot_waits_for_approval(ledger: &dyn Ledger) {
    let (first, mut held) = with_held(ledger).await;
    let name = first.audience.clone();
    let row = ledger.audience(&name).await.unwrap().unwrap();
    assert_eq!(row.current, Some(first.clone()), "unchanged");
    let refresh = row.refresh.unwrap();
    assert_eq!(refresh.state, RefreshState::Held);
    assert_eq!(refresh.reason.as_deref(), Some("80% fewer"));
    assert_eq!(ledger.snapshot(&name, 2).await.unwrap(), held);
    assert_eq!(ledger.size_history(&name, 10).await.unwrap().len(), 1);
    assert_eq!(ledger.next_version(&name).await.unwrap(), 3);
    assert_wrong_state(ledger.approve(&name, 1, at(22)).await);

    held.state = SnapshotState::Published;
    assert_eq!(ledger.approve(&name, 2, at(23)).await.unwrap(), held);
    let row = ledger.audience(&name).await.unwrap().unwrap();
    assert_eq!(row.current, Some(held.clone()));
    let refresh = row.refresh.unwrap();
    assert_eq!(refresh.state, RefreshState::Completed);
    assert_eq!((refresh.finished_at, refresh.reason), (Some(at(23)), None));
    assert_eq!(ledger.snapshots(&name).await.unwrap(), [held, first]);
    assert_eq!(ledger.size_history(&name, 10).await.unwrap().len(), 2);
    assert_wrong_state(ledger.approve(&name, 2, at(24)).await);

    // A newer version is published before it is approved.
    let refresh = building(ledger, "buyers", "b", 30).await;
    ledger.hold(&snapshot("buyers", 3, refresh.id), "b", "80% fewer", at(31)).await.unwrap();
    let newer = published(ledger, "buyers").await;
    assert_wrong_state(ledger.approve(&name, 3, at(32)).await);
    assert_eq!(ledger.audience(&name).await.unwrap().unwrap().current, Some(newer));
}

pub(super) async fn a_rejected_snapshot_never_becomes_current(ledger: &dyn Ledger) {
    let (first, mut held) = with_held(ledger).await;
    let name = first.audience.clone();
    assert_wrong_state(ledger.reject(&name, 1, "no", at(22)).await);
    held.state = SnapshotState::Rejected;
    let rejected = ledger.reject(&name, 2, "rejected by ann", at(23)).await;
    assert_eq!(rejected.unwrap(), held);
    assert_wrong_state(ledger.approve(&name, 2, at(24)).await);
    assert_wrong_state(ledger.rollback(&name, 2, at(24)).await);
    let row = ledger.audience(&name).await.unwrap().unwrap();
    assert_eq!(row.current, Some(first));
    let refresh = row.refresh.unwrap();
    assert_eq!(refresh.state, RefreshState::Failed);
    assert_eq!(refresh.reason.as_deref(), Some("rejected by ann; held: 80% fewer"));
    assert_eq!(ledger.next_version(&name).await.unwrap(), 3);
    assert!(deleted(ledger, &name, 2).await);
}

pub(super) async fn rolling_back_takes_published_snapshots_only(ledger: &dyn Ledger) {
    let first = published(ledger, "buyers").await;
    let second = published(ledger, "buyers").await;
    let name = first.audience.clone();
    assert_eq!(ledger.rollback(&name, 1, at(9)).await.unwrap(), first);
    let row = ledger.audience(&name).await.unwrap().unwrap();
    assert_eq!(row.current, Some(first.clone()));
    assert_eq!(ledger.next_version(&name).await.unwrap(), 3);
    assert_eq!((row.pinned_at, row.stopped()), (Some(at(9)), Some("pinned to version 1".into())));
    assert!(ledger.unpin_audience(&name).await.unwrap());
    let third = published(ledger, "buyers").await;
    let row = ledger.audience(&name).await.unwrap().unwrap();
    assert_eq!(row.current, Some(third.clone()));
    let kept = ledger.snapshots(&name).await.unwrap();
    assert_eq!(kept, [third, second, first]);
    assert_not_found(ledger.rollback(&name, 4, at(10)).await);
}

pub(super) async fn deleting_snapshots_keeps_the_current_one_and_the_sizes(ledger: &dyn Ledger) {
    let mut sizes = Vec::new();
    for _ in 0..4 {
        let made = published(ledger, "buyers").await;
        sizes.push((made.created_at, made.members));
    }
    let name = audience("buyers");
    assert!(!deleted(ledger, &name, 4).await, "it is served");
    for version in 1..=3 {
        assert!(deleted(ledger, &name, version).await);
    }
    assert!(!deleted(ledger, &name, 2).await, "it is deleted already");
    assert_not_found(ledger.rollback(&name, 2, at(9)).await);
    assert_eq!(ledger.snapshots(&name).await.unwrap().len(), 1);
    assert_eq!(ledger.size_history(&name, 10).await.unwrap(), sizes);
    assert_eq!(ledger.size_history(&name, 2).await.unwrap(), sizes[2..]);
    assert_eq!(ledger.next_version(&name).await.unwrap(), 5);
}

pub(super) async fn served_versions_follow_what_is_published(ledger: &dyn Ledger) {
    assert_eq!(ledger.served_versions().await.unwrap(), []);
    building(ledger, "a", "w", 0).await;
    assert_eq!(ledger.served_versions().await.unwrap(), [], "nothing is published yet");
    for version in 1..=2 {
        published(ledger, "b").await;
        assert_eq!(ledger.served_versions().await.unwrap(), [(audience("b"), version)]);
    }
    ledger.rollback(&audience("b"), 1, at(9)).await.unwrap();
    assert_eq!(ledger.served_versions().await.unwrap(), [(audience("b"), 1)]);
}
