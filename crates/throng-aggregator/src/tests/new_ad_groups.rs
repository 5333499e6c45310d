//! Events of an ad group that the leader of its partition, another process, does not have yet.

use std::collections::HashSet;

use throng_budget::EventRef;
use throng_feed::{FLAG_CLOSED, FLAG_REMOVED, FeedEntry, PassThroughRate};
use throng_spec::AdGroup;

use super::*;

struct NoGate;

impl FrameSink for NoGate {
    fn apply_frame(&self, _: &Frame) -> bool {
        true
    }
}

/// The spec with another ad group, and the numbers of both.
fn spec_with_hats() -> (Spec, [(AdGroupName, AdGroupIndex); 2]) {
    let mut spec = spec();
    let (shoes, hats) = (AdGroupName::new("shoes").unwrap(), AdGroupName::new("hats").unwrap());
    spec.ad_groups.push(AdGroup { name: hats.clone(), ..spec.ad_groups[0].clone() });
    (spec, [(shoes, AdGroupIndex(0)), (hats, AdGroupIndex(1))])
}

fn hats(fixture: &Fixture, id: &str) -> Event {
    let ad_group = AdGroupName::new("hats").unwrap();
    Event { ad_group, ..fixture.event(id, EventKind::Impression) }
}

/// Applies a keyframe after `last`, as the leader publishes it under a version of the spec: with the flags of
/// shoes, and of hats if it has them. Returns it.
fn lead_elsewhere(budgets: &Budgets, last: &Frame, catalog_version: u64, flags: &[u8]) -> Frame {
    let entry = |(index, flags): (u32, &u8)| FeedEntry {
        index: AdGroupIndex(index),
        actual: Micros(0),
        in_flight: Micros(0),
        flags: *flags,
        pass_through_rate: PassThroughRate::ALL,
    };
    let entries = (0..).zip(flags).map(entry).collect();
    let frame = Frame { version: last.version + 1, catalog_version, entries, ..last.clone() };
    budgets.apply_frame(&frame, &NoGate);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_an_ad_group_that_the_leader_lacks_are_refused_before_the_append() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let last = budgets.led.load()[0].keyframe();
    // From here on another process leads the partition.
    budgets.set_assignment(&[]).await.unwrap();
    let last = lead_elsewhere(&budgets, &last, 1, &[0]);
    let (spec, indexes) = spec_with_hats();
    budgets.apply_spec(&spec, &indexes, 2);

    let batch = vec![fixture.event("a", EventKind::Impression), hats(&fixture, "b")];
    let refused = budgets.accept(batch.clone()).await;
    assert!(matches!(refused, Err(BudgetsError::CatalogBehind { partition: 0 })), "{refused:?}");
    assert_eq!(budgets.log.end(0).await.unwrap(), 0, "nothing of the batch is in the log");
    // The leader has their ad group.
    assert_eq!(fixture.impressions(&budgets, 0..1).await.positions, [(0, 1)]);

    // An earlier version had it, and the leader still has the one that removed it.
    let last = lead_elsewhere(&budgets, &last, 1, &[0, FLAG_CLOSED | FLAG_REMOVED]);
    let refused = budgets.accept(batch.clone()).await;
    assert!(matches!(refused, Err(BudgetsError::CatalogBehind { partition: 0 })), "{refused:?}");
    // The leader has it, although another spec was applied since.
    lead_elsewhere(&budgets, &last, 1, &[0, 0]);
    let answer = budgets.accept(batch).await.unwrap();
    assert_eq!((answer.accepted, answer.positions), (2, vec![(0, 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_lacks_an_ad_group_does_not_affect_events_of_other_partitions() {
    let (fixture, dir) =
        (Fixture { partitions: 2, ..Fixture::new() }, tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let last = budgets.led.load()[0].keyframe();
    budgets.set_assignment(&[]).await.unwrap();
    // A new ad group in each partition.
    let mut names = (0..).map(|n| AdGroupName::new(format!("hats-{n}")).unwrap());
    let new = [0, 1]
        .map(|partition| names.find(|name| partition_of(name.as_str(), 2) == partition).unwrap());
    let (mut spec, shoes) = (spec(), AdGroupName::new("shoes").unwrap());
    for name in &new {
        spec.ad_groups.push(AdGroup { name: name.clone(), ..spec.ad_groups[0].clone() });
    }
    let names = [&shoes, &new[0], &new[1]].map(AdGroupName::clone);
    let indexes: Vec<(AdGroupName, AdGroupIndex)> =
        names.into_iter().zip((0..).map(AdGroupIndex)).collect();
    budgets.apply_spec(&spec, &indexes, 2);
    // The leader of the first partition has switched to the spec, and that of the second one has not.
    lead_elsewhere(&budgets, &last, 2, &[0, 0]);
    lead_elsewhere(&budgets, &Frame { partition: 1, ..last }, 1, &[0]);

    let event = |ad_group: &AdGroupName| {
        let event = fixture.event(ad_group.as_str(), EventKind::Impression);
        Event { ad_group: ad_group.clone(), ..event }
    };
    let answer = budgets.accept(vec![event(&new[0])]).await.unwrap();
    assert_eq!((answer.accepted, answer.positions), (1, vec![(0, 1)]));
    let refused = budgets.accept(vec![event(&new[0]), event(&new[1])]).await;
    assert!(matches!(refused, Err(BudgetsError::CatalogBehind { partition: 1 })), "{refused:?}");
    assert_eq!(budgets.log.end(0).await.unwrap(), 1, "nothing of the batch is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_moves_while_the_ledger_is_read_is_checked_under_its_new_leader() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let last = budgets.led.load()[0].keyframe();
    let (spec, indexes) = spec_with_hats();
    budgets.apply_spec(&spec, &indexes, 2);
    let gloves = AdGroupName::new("gloves").unwrap();
    let unknown = Event { ad_group: gloves, ..fixture.event("b", EventKind::Impression) };
    let batch = [hats(&fixture, "a"), unknown];
    let mut events = (1..).zip(batch.iter().map(EventRef::from));
    let checked = budgets.check(batch.len(), &mut events);
    let next = Frame { epoch: last.epoch + 1, ..last };
    let is_declared_later = |_: u64, _: HashSet<AdGroupName>| async {
        budgets.set_assignment(&[]).await.unwrap();
        lead_elsewhere(&budgets, &next, 1, &[0]);
        false
    };
    let refused = budgets.accept_checked(checked, is_declared_later).await;
    assert!(matches!(refused, Err(BudgetsError::CatalogBehind { partition: 0 })), "{refused:?}");
    assert_eq!(budgets.log.end(0).await.unwrap(), 0, "nothing of the batch is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_new_ad_group_are_accepted_once_the_leader_has_switched() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let last = budgets.led.load()[0].keyframe();
    budgets.set_assignment(&[]).await.unwrap();
    let (spec, indexes) = spec_with_hats();
    budgets.apply_spec(&spec, &indexes, 2);
    // Nothing is known of the leader: the log accepts events without one.
    assert_eq!(budgets.accept(vec![hats(&fixture, "a")]).await.unwrap().accepted, 1);
    let last = lead_elsewhere(&budgets, &last, 1, &[0]);
    assert!(budgets.accept(vec![hats(&fixture, "b")]).await.is_err());
    lead_elsewhere(&budgets, &last, 2, &[0, 0]);
    assert_eq!(budgets.accept(vec![hats(&fixture, "b")]).await.unwrap().accepted, 1);

    // The next leader, this process, counts all that were accepted.
    budgets.set_assignment(&[0]).await.unwrap();
    let spent: Vec<Micros> = budgets.states().iter().map(|state| state.actual).collect();
    assert_eq!(spent, [Micros(200_000), Micros(0)], "of hats and of shoes");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_an_ad_group_of_a_later_spec_are_refused_before_the_append() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let version = budgets.catalog().version;
    let batch = [fixture.event("a", EventKind::Impression), hats(&fixture, "b")];
    let accept = async |is_declared| {
        let is_declared_later = |of: u64, unknown: HashSet<AdGroupName>| {
            let names: Vec<&str> = unknown.iter().map(AdGroupName::as_str).collect();
            assert_eq!((of, names), (version, vec!["hats"]));
            std::future::ready(is_declared)
        };
        // As the lines of a request, of which others have no event.
        let mut events = [3, 7].into_iter().zip(batch.iter().map(EventRef::from));
        let checked = budgets.check(batch.len(), &mut events);
        budgets.accept_checked(checked, is_declared_later).await
    };
    let refused = accept(true).await;
    assert!(matches!(refused, Err(BudgetsError::SpecBehind)), "{refused:?}");
    assert_eq!(budgets.log.end(0).await.unwrap(), 0, "nothing of the batch is in the log");
    // No spec has it: the other event counts.
    let answer = accept(false).await.unwrap();
    assert_eq!((answer.accepted, answer.rejected_count), (1, 1));
    assert_eq!((answer.rejected[0].0, &*answer.rejected[0].1.field), (7, "ad_group"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_leads_the_partition_does_not_ask_the_feed() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let last = budgets.led.load()[0].keyframe();
    budgets.set_assignment(&[]).await.unwrap();
    lead_elsewhere(&budgets, &last, 1, &[0]);
    let (spec, indexes) = spec_with_hats();
    budgets.apply_spec(&spec, &indexes, 2);
    assert!(budgets.accept(vec![hats(&fixture, "a")]).await.is_err());
    // The newest frame is still that of the previous leader.
    budgets.set_assignment(&[0]).await.unwrap();
    assert_eq!(budgets.accept(vec![hats(&fixture, "a")]).await.unwrap().accepted, 1);
    assert_eq!(actual(&budgets), 100_000);
}
