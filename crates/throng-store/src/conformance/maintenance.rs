//! Stamps, probes and the objects that a ledger refers to.

use serde_json::json;
use throng_model::HashSeed;

use super::*;
use crate::{NewPart, PartKind, ReferencedObject, StoreStamp};

pub(super) async fn the_newest_stamp_counts(ledger: &dyn Ledger) {
    assert_eq!(ledger.stamp().await.unwrap(), None);
    for sequence in [1, 2, 2, 9] {
        let stamp = StoreStamp { instance: "a".repeat(32), sequence };
        ledger.put_stamp(&stamp).await.unwrap();
        assert_eq!(ledger.stamp().await.unwrap(), Some(stamp));
    }
}

pub(super) async fn a_probe_changes_nothing(ledger: &dyn Ledger) {
    ledger.probe().await.unwrap();
    ledger.hash_seed(HashSeed(7)).await.unwrap();
    ledger.probe().await.unwrap();
    ledger.check_structure().await.unwrap();
    assert_eq!(ledger.hash_seed(HashSeed(8)).await.unwrap(), HashSeed(7));
}

pub(super) async fn objects_are_referenced_as_long_as_they_are_needed(ledger: &dyn Ledger) {
    let first = published(ledger, "buyers").await;
    ledger.compare_and_swap_dictionary(3, 0, "a manifest").await.unwrap();
    let refresh = building(ledger, "buyers", "b", 20).await;
    let part = NewPart { kind: PartKind::Scan, number: 0, covers: json!({}) };
    ledger.add_parts(refresh.id, &[part], None).await.unwrap();
    let named = ledger.referenced_objects().await.unwrap();
    let snapshot = ReferencedObject { name: first.path.clone(), bytes: Some(first.bytes) };
    assert_eq!(named.objects, std::slice::from_ref(&snapshot));
    assert_eq!(named.manifests, ["a manifest"]);

    let output = json!({ "object": "refreshes/2/scan-0.keys", "rows_read": 1, "null_keys": 0 });
    ledger.claim_part(refresh.id, "b", at(21), at(60)).await.unwrap();
    ledger.finish_part(refresh.id, 0, &output).await.unwrap();
    let named = ledger.referenced_objects().await.unwrap();
    let part = ReferencedObject { name: "refreshes/2/scan-0.keys".to_owned(), bytes: None };
    assert_eq!(named.objects, [snapshot, part]);

    // The parts of a refresh that has ended are not needed.
    let second = super::snapshot("buyers", 2, refresh.id);
    ledger.publish(&second, "b", at(30)).await.unwrap();
    ledger.delete_snapshots(&[(first.audience.clone(), 1)]).await.unwrap();
    let named = ledger.referenced_objects().await.unwrap();
    let names: Vec<&str> = named.objects.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, [second.path.as_str()]);
}
