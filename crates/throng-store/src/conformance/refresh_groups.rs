//! Calls for many refreshes have the effects of a call for each.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::{AudienceRow, NewPart, NewSnapshot, PartKind, RefreshState};

/// The audiences of a case: those whose refreshes are processed one by one, and those of one call.
const ALONE: &str = "alone";
const TOGETHER: &str = "together";

/// How the refresh of an audience ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Published,
    Held,
    /// Another builder has it.
    Lost,
    /// Its snapshot has a version that exists.
    Refused,
    /// Its audience is pinned.
    Pinned,
    /// It has never existed.
    Unknown,
}

const ENDS: [End; 9] = [
    End::Published,
    End::Lost,
    End::Held,
    End::Refused,
    End::Pinned,
    End::Unknown,
    End::Published,
    End::Held,
    End::Published,
];

fn named(kind: &str, number: usize) -> AudienceName {
    audience(&format!("{kind}-{number}"))
}

/// The second snapshot of an audience, whose refresh has a part.
async fn prepared(ledger: &dyn Ledger, kind: &str, number: usize, end: End) -> NewSnapshot {
    let name = named(kind, number);
    published(ledger, name.as_str()).await;
    let holder = if end == End::Lost { "other" } else { "b" };
    let refresh = building(ledger, name.as_str(), holder, 20).await;
    let part = NewPart { kind: PartKind::Scan, number: 0, covers: json!({}) };
    ledger.add_parts(refresh.id, &[part], None).await.unwrap();
    let (mut version, mut id) = (2, refresh.id);
    match end {
        End::Pinned => {
            ledger.rollback(&name, 1, at(21)).await.unwrap();
        }
        End::Refused => version = 1,
        End::Unknown => id = RefreshId(i64::MAX),
        End::Published | End::Held | End::Lost => {}
    }
    let held = (end == End::Held).then(|| "few members".to_owned());
    NewSnapshot { snapshot: snapshot(name.as_str(), version, id), held }
}

/// What is left of a result, without the ids in its text.
fn meaning<T: std::fmt::Debug>(result: &crate::Result<T>) -> String {
    match result {
        Ok(done) => format!("{done:?}"),
        Err(LedgerError::NotFound { what, .. }) => format!("no {what}"),
        Err(LedgerError::LeaseLost { what, .. }) => format!("lost {what}"),
        Err(LedgerError::WrongState { state, wanted, .. }) => format!("{state}, not {wanted}"),
        Err(LedgerError::Refused { what, .. }) => format!("refused {what}"),
        Err(error) => panic!("{error}"),
    }
}

/// Everything about an audience that a call may change, without names and ids.
async fn effects(ledger: &dyn Ledger, kind: &str, number: usize) -> String {
    let name = named(kind, number);
    let AudienceRow { current, refresh, refreshed_at, .. } =
        ledger.audience(&name).await.unwrap().unwrap();
    let newest = refresh.unwrap();
    let parts = ledger.parts(newest.id).await.unwrap().len();
    let snapshots = ledger.snapshots(&name).await.unwrap();
    let kept: Vec<_> = snapshots.iter().map(|s| (s.version, s.state, s.members, s.bytes)).collect();
    let sizes = ledger.size_history(&name, 10).await.unwrap();
    let next = ledger.next_version(&name).await.unwrap();
    let Refresh { state, finished_at, not_before, holder, lease_until, rows_read, .. } = newest;
    let Refresh { null_keys, rows_expected, reason, snapshot_version, unchanged, .. } =
        ledger.refresh(newest.id).await.unwrap();
    let current = current.map(|served| served.version);
    format!(
        "{current:?} {refreshed_at:?} {state:?} {finished_at:?} {not_before:?} {holder:?} {lease_until:?} {rows_read} \
         {null_keys} {rows_expected:?} {reason:?} {snapshot_version:?} {unchanged} {parts} {kept:?} {sizes:?} {next}"
    )
}

/// Asserts that both kinds of audiences are the same.
async fn assert_same_effects(ledger: &dyn Ledger, count: usize) {
    for number in 0..count {
        let (alone, together) =
            (effects(ledger, ALONE, number).await, effects(ledger, TOGETHER, number).await);
        assert_eq!(alone, together, "audience {number}");
    }
}

pub(super) async fn snapshots_of_a_group_are_recorded_as_one_by_one(ledger: &dyn Ledger) {
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for (number, end) in ENDS.into_iter().enumerate() {
        alone.push(prepared(ledger, ALONE, number, end).await);
        together.push(prepared(ledger, TOGETHER, number, end).await);
    }
    // The first one again: its refresh has ended by then.
    alone.push(alone[0].clone());
    together.push(together[0].clone());
    let mut expected = Vec::new();
    for NewSnapshot { snapshot, held } in &alone {
        let recorded = match held {
            None => ledger.publish(snapshot, "b", at(30)).await,
            Some(reason) => ledger.hold(snapshot, "b", reason, at(30)).await,
        };
        expected.push(meaning(&recorded));
    }
    let results = ledger.record_snapshots(&together, "b", at(30)).await.unwrap();
    let results: Vec<String> = results.iter().map(meaning).collect();
    assert_eq!(results, expected);
    assert_eq!(results.iter().filter(|result| *result == "()").count(), 5, "{results:?}");
    assert_same_effects(ledger, ENDS.len()).await;
    assert!(ledger.record_snapshots(&[], "b", at(31)).await.unwrap().is_empty());
}

pub(super) async fn unchanged_refreshes_of_a_group_are_confirmed_as_one_by_one(
    ledger: &dyn Ledger,
) {
    // Confirmed, of another version, of another builder, forced, unknown.
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for (kind, served) in [(ALONE, &mut alone), (TOGETHER, &mut together)] {
        for number in 0..5 {
            let name = named(kind, number);
            published(ledger, name.as_str()).await;
            let holder = if number == 2 { "other" } else { "b" };
            let refresh = building(ledger, name.as_str(), holder, 20).await;
            if number == 3 {
                ledger.force_refresh(&name, RefreshTrigger::Manual, at(21)).await.unwrap();
            }
            let id = if number == 4 { RefreshId(i64::MAX) } else { refresh.id };
            served.push((id, if number == 1 { 2 } else { 1 }));
        }
        served.push(served[0]);
    }
    let mut expected = Vec::new();
    for (id, version) in alone {
        expected.push(meaning(&ledger.confirm_unchanged(id, "b", version, at(30)).await));
    }
    let results = ledger.confirm_unchanged_refreshes(&together, "b", at(30)).await.unwrap();
    let results: Vec<String> = results.iter().map(meaning).collect();
    assert_eq!(results, expected);
    assert_eq!(results[..2], ["true", "false"]);
    assert_same_effects(ledger, 5).await;
}

pub(super) async fn refreshes_of_a_group_are_queued_as_one_by_one(ledger: &dyn Ledger) {
    let trigger = RefreshTrigger::SourceChanged;
    let mut queued = 0;
    for kind in [ALONE, TOGETHER] {
        // New, with an open refresh, paused, pinned, fired already, with an ended refresh.
        building(ledger, named(kind, 1).as_str(), "b", 1).await;
        for number in 2..6 {
            published(ledger, named(kind, number).as_str()).await;
        }
        ledger.pause_audience(&named(kind, 2), at(2)).await.unwrap();
        ledger.rollback(&named(kind, 3), 1, at(2)).await.unwrap();
        let firings: Vec<_> =
            (0..6).map(|n| (named(kind, n), at(if n == 4 { 9 } else { 3 }))).collect();
        let names: Vec<AudienceName> = (0..6).map(|number| named(kind, number)).collect();
        ledger.fire_schedule(&names[4], at(9), at(9)).await.unwrap();
        if kind == TOGETHER {
            assert_eq!(ledger.fire_schedules(&firings, at(10)).await.unwrap(), 3);
            assert_eq!(ledger.fire_schedules(&firings, at(11)).await.unwrap(), 0);
            queued = ledger.schedule_refreshes(&names, trigger, at(12)).await.unwrap();
            continue;
        }
        let mut fired = 0;
        for (name, fire_at) in &firings {
            fired += u64::from(ledger.fire_schedule(name, *fire_at, at(10)).await.unwrap());
        }
        assert_eq!(fired, 3);
        for name in &names {
            let _ = ledger.schedule_refresh(name, trigger, at(12)).await;
        }
    }
    assert_eq!(queued, 0, "all that may be queued are open");
    for number in 0..6 {
        let mut rows = Vec::new();
        for kind in [ALONE, TOGETHER] {
            let row = ledger.audience(&named(kind, number)).await.unwrap().unwrap();
            let newest = row.refresh.map(|refresh| {
                (refresh.state, refresh.trigger, refresh.scheduled_at, refresh.not_before)
            });
            rows.push((row.last_fired, newest));
        }
        assert_eq!(rows[0], rows[1], "audience {number}");
    }
    let more: Vec<AudienceName> = (5..8).map(|number| named(TOGETHER, number)).collect();
    assert_eq!(ledger.schedule_refreshes(&more, trigger, at(13)).await.unwrap(), 2);
    let row = ledger.audience(&more[1]).await.unwrap().unwrap();
    let queued = row.refresh.unwrap();
    assert_eq!((queued.state, queued.trigger), (RefreshState::Scheduled, trigger));
    assert_eq!((queued.scheduled_at, queued.not_before), (at(13), at(13)));
    assert_eq!(ledger.schedule_refreshes(&[], trigger, at(14)).await.unwrap(), 0);
    assert_eq!(ledger.fire_schedules(&[], at(14)).await.unwrap(), 0);
}

pub(super) async fn refreshes_of_a_group_are_claimed_renewed_and_halted(ledger: &dyn Ledger) {
    for number in 0..4 {
        let name = named(TOGETHER, number);
        let n = if number == 3 { 90 } else { 1 };
        ledger.schedule_refresh(&name, RefreshTrigger::Manual, at(n)).await.unwrap();
    }
    // One that another builder has, one that is not due, and one that has never existed.
    let taken = named(TOGETHER, 2);
    ledger.claim_refresh_of(&taken, "other", at(2), at(60)).await.unwrap().unwrap();
    let names: Vec<AudienceName> = (0..5).map(|number| named(TOGETHER, number)).collect();
    let claim = async |holder: &str, n: u64| -> BTreeSet<AudienceName> {
        let claimed = ledger.claim_refreshes_of(&names, holder, at(n), at(n + 60)).await.unwrap();
        let holds = |refresh: &Refresh| {
            refresh.holder.as_deref() == Some(holder) && refresh.lease_until == Some(at(n + 60))
        };
        assert!(claimed.iter().all(holds), "{claimed:?}");
        claimed.into_iter().map(|refresh| refresh.audience).collect()
    };
    let first = BTreeSet::from([names[0].clone(), names[1].clone()]);
    assert_eq!(claim("b", 3).await, first);
    assert_eq!(claim("c", 4).await, BTreeSet::new(), "all are claimed, or not due");
    let mut ids = Vec::new();
    for name in &names[..3] {
        ids.push(ledger.audience(name).await.unwrap().unwrap().refresh.unwrap().id);
    }
    let part = NewPart { kind: PartKind::Scan, number: 0, covers: json!({}) };
    ledger.add_parts(ids[1], &[part], None).await.unwrap();
    assert_eq!(ledger.refreshes_with_parts(&ids).await.unwrap(), [ids[1]]);
    ledger.claim_part(ids[1], "b#1", at(5), at(70)).await.unwrap().unwrap();

    ledger.record_group_progress(&ids, "b", at(80), 9, 2, Some(40)).await.unwrap();
    ledger.record_group_progress(&ids, "b", at(90), 10, 3, None).await.unwrap();
    for (id, is_own) in ids.iter().zip([true, true, false]) {
        let found = ledger.refresh(*id).await.unwrap();
        let progress = (found.lease_until, found.rows_read, found.null_keys, found.rows_expected);
        let expected = match is_own {
            true => (Some(at(90)), 10, 3, Some(40)),
            false => (Some(at(60)), 0, 0, None),
        };
        assert_eq!(progress, expected);
    }

    ledger.halt_refreshes(&ids, "b", at(7)).await.unwrap();
    for (id, is_own) in ids.iter().zip([true, true, false]) {
        let found = ledger.refresh(*id).await.unwrap();
        let state = if is_own { RefreshState::Halted } else { RefreshState::Processing };
        assert_eq!((found.state, found.crashes), (state, 0));
    }
    assert_eq!(claim("c", 8).await, first, "at once");
    assert!(
        ledger.claim_part(ids[1], "c#1", at(8), at(70)).await.unwrap().is_some(),
        "its part is free"
    );
    assert_eq!(claim("d", 61).await, BTreeSet::from([taken]), "the lease has expired");
}

pub(super) async fn snapshots_of_a_group_are_listed_and_deleted(ledger: &dyn Ledger) {
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(published(ledger, "a").await);
    }
    made.push(published(ledger, "b").await);
    let refresh = building(ledger, "c", "w", 0).await;
    let names = ["a", "b", "c", "d"].map(audience);
    let bases = async || {
        let mut bases = ledger.snapshot_bases(&names).await.unwrap();
        bases.sort_by(|a, b| a.audience.cmp(&b.audience));
        bases.into_iter().map(|base| (base.audience, base.last_version, base.current))
    };
    let found: Vec<_> = bases().await.collect();
    let expected = [
        (audience("a"), 3, Some(made[2].clone())),
        (audience("b"), 1, Some(made[3].clone())),
        (audience("c"), 0, None),
    ];
    assert_eq!(found, expected);
    let listed = async || {
        let mut listed = ledger.snapshots_of(&names).await.unwrap();
        listed.sort_by(|a, b| a.audience.cmp(&b.audience));
        listed
    };
    let all = [&made[2], &made[1], &made[0], &made[3]].map(Clone::clone);
    assert_eq!(listed().await, all, "of each the newest first");

    // Version 1 of `b` is served, and there is none of `c`. Another audience has a version of the same number.
    let versions = [("a", 1), ("b", 1), ("c", 1), ("a", 2)].map(|(name, v)| (audience(name), v));
    let mut deleted = ledger.delete_snapshots(&versions).await.unwrap();
    deleted.sort();
    assert_eq!(deleted, [(audience("a"), 1), (audience("a"), 2)]);
    assert_eq!(listed().await, [made[2].clone(), made[3].clone()]);
    assert!(ledger.delete_snapshots(&versions).await.unwrap().is_empty());
    assert_eq!(bases().await.next().unwrap().1, 3, "numbers are not used again");
    assert_eq!(ledger.refresh(refresh.id).await.unwrap().state, RefreshState::Processing);
}

/// More refreshes than one statement has rows.
pub(super) async fn a_group_is_as_large_as_a_template(ledger: &dyn Ledger) {
    const COUNT: usize = 1_100;
    let names: Vec<AudienceName> = (0..COUNT).map(|number| named(TOGETHER, number)).collect();
    let manual = RefreshTrigger::Manual;
    let queued = ledger.schedule_refreshes(&names, manual, at(1)).await.unwrap();
    let firings: Vec<_> = names.iter().map(|name| (name.clone(), at(1))).collect();
    let fired = ledger.fire_schedules(&firings, at(1)).await.unwrap();
    assert_eq!((queued, fired), (COUNT as u64, COUNT as u64));
    let claimed = ledger.claim_refreshes_of(&names, "b", at(2), at(60)).await.unwrap();
    assert_eq!(claimed.len(), COUNT);
    let ids: Vec<RefreshId> = claimed.iter().map(|refresh| refresh.id).collect();
    ledger.record_group_progress(&ids, "b", at(90), 1, 0, None).await.unwrap();
    let new = claimed.iter().map(|refresh| {
        let snapshot = snapshot(refresh.audience.as_str(), 1, refresh.id);
        NewSnapshot { snapshot, held: None }
    });
    let new: Vec<NewSnapshot> = new.collect();
    let results = ledger.record_snapshots(&new, "b", at(61)).await.unwrap();
    assert!(results.len() == COUNT && results.iter().all(Result::is_ok));
    assert_eq!(ledger.served_versions().await.unwrap().len(), COUNT);
    assert_eq!(ledger.snapshots_of(&names).await.unwrap().len(), COUNT);
    assert_eq!(ledger.snapshot_bases(&names).await.unwrap().len(), COUNT);
}
