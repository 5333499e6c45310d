//! Refreshes, parts and the dictionary.

use serde_json::json;
use throng_model::{RefreshId, SyncRunId, TaskId};

use super::*;
use crate::{NewPart, PartKind, PartState, RefreshState};

pub(super) async fn unknown_objects_are_not_found(ledger: &dyn Ledger) {
    let name = audience("nobody");
    assert_eq!(ledger.audience(&name).await.unwrap(), None);
    assert!(ledger.audiences().await.unwrap().is_empty());
    assert_eq!(ledger.next_version(&name).await.unwrap(), 1);
    assert!(ledger.snapshots(&name).await.unwrap().is_empty());
    assert_not_found(ledger.refresh(RefreshId(99)).await);
    assert_not_found(ledger.snapshot(&name, 1).await);
    assert_not_found(ledger.approve(&name, 1, at(0)).await);
    assert_not_found(ledger.reject(&name, 1, "no", at(0)).await);
    assert_not_found(ledger.rollback(&name, 1, at(0)).await);
    assert!(ledger.delete_snapshots(&[(name.clone(), 1)]).await.unwrap().is_empty());
    assert_not_found(ledger.recover_refresh(RefreshId(99), "b", at(0)).await);
    assert_not_found(ledger.finish_part(RefreshId(99), 0, &json!({})).await);
    assert_not_found(ledger.run(SyncRunId(99)).await);
    assert_not_found(ledger.approve_run(SyncRunId(99), false, at(0)).await);
    assert_not_found(ledger.task(TaskId(99)).await);
    assert_not_found(ledger.renew_task_lease(TaskId(99), "w", at(9)).await);
    assert_not_found(ledger.requeue_task(TaskId(99), at(0)).await);
    let none = ledger.platform_audience(&sync_name("none")).await.unwrap();
    assert_eq!(none, None);
    assert_eq!(ledger.claim_refresh("b", at(0), at(1)).await.unwrap(), None);
    assert_eq!(claim(ledger, "w", 0).await, None);
}

pub(super) async fn refreshes_of_one_audience_do_not_run_concurrently(ledger: &dyn Ledger) {
    let name = audience("buyers");
    let queue =
        async |n| ledger.schedule_refresh(&name, RefreshTrigger::Apply, at(n)).await.unwrap();
    let first = queue(1).await;
    assert_eq!(queue(2).await, first, "scheduled");
    ledger.claim_refresh("b", at(3), at(60)).await.unwrap();
    assert_eq!(queue(4).await, first, "processing");
    ledger.halt_refreshes(&[first], "b", at(5)).await.unwrap();
    assert_eq!(queue(6).await, first, "halted");
    let refresh = ledger.refresh(first).await.unwrap();
    assert_eq!(refresh.state, RefreshState::Halted);
    assert_eq!(refresh.trigger, RefreshTrigger::Apply);
    assert_eq!(refresh.scheduled_at, at(1));
    let other = audience("others");
    let second = ledger.schedule_refresh(&other, RefreshTrigger::Manual, at(7)).await.unwrap();
    assert_ne!(second, first);
    let all: Vec<_> = ledger.refreshes(None, 10).await.unwrap();
    assert_eq!(all.iter().map(|r| r.id).collect::<Vec<_>>(), [second, first]);
    let one = ledger.refreshes(Some(&name), 10).await.unwrap();
    assert_eq!(one.iter().map(|r| r.id).collect::<Vec<_>>(), [first]);
    assert_eq!(ledger.refreshes(None, 1).await.unwrap().len(), 1);
    let names: Vec<_> = ledger.audiences().await.unwrap();
    assert_eq!(names.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["buyers", "others"]);
}

pub(super) async fn a_request_while_a_refresh_runs_is_another_refresh(ledger: &dyn Ledger) {
    let name = audience("buyers");
    let request = async |force, n| ledger.request_refresh(&name, force, at(n)).await.unwrap();
    let first = request(false, 1).await;
    assert_eq!(request(true, 2).await, first, "it has not started");
    let claimed = ledger.claim_refresh("b", at(3), at(60)).await.unwrap().unwrap();
    assert_eq!((claimed.id, claimed.trigger), (first, RefreshTrigger::Manual));
    assert!(claimed.forced);
    let second = request(false, 4).await;
    assert!(second > first);
    assert_eq!(request(true, 5).await, second, "one waits at most");
    assert_not_found(ledger.refresh(second).await);
    let newest = async || ledger.audience(&name).await.unwrap().unwrap().refresh.unwrap();
    assert_eq!(newest().await.id, first);
    assert_eq!(ledger.claim_refresh("c", at(6), at(60)).await.unwrap(), None);
    // What it has listed is kept over a halt and over a failed try.
    ledger.halt_refreshes(&[first], "b", at(7)).await.unwrap();
    assert_eq!(request(false, 8).await, second, "halted");
    ledger.claim_refresh("b", at(9), at(60)).await.unwrap().unwrap();
    let part = NewPart { kind: PartKind::Scan, number: 0, covers: json!({}) };
    ledger.add_parts(first, &[part], None).await.unwrap();
    ledger.fail_refresh(first, "b", "disk full", Some(at(10)), at(10)).await.unwrap();
    assert_eq!(request(false, 11).await, second, "tried again");
    ledger.claim_refresh("b", at(12), at(60)).await.unwrap().unwrap();
    ledger.publish(&snapshot("buyers", 1, first), "b", at(13)).await.unwrap();
    let queued = newest().await;
    assert_eq!((queued.id, queued.state), (second, RefreshState::Scheduled));
    assert_eq!((queued.scheduled_at, queued.not_before), (at(4), at(13)));
    assert!(queued.forced);
    assert_eq!(request(false, 14).await, second, "it has not started");
    let claimed = ledger.claim_refresh("b", at(15), at(60)).await.unwrap().unwrap();
    assert_eq!(claimed.id, second);
    ledger.publish(&snapshot("buyers", 2, second), "b", at(16)).await.unwrap();
    assert_eq!(newest().await.id, second, "none waits");
}

pub(super) async fn a_refresh_that_waits_for_one_without_parts_is_kept(ledger: &dyn Ledger) {
    let name = audience("buyers");
    let request = async |force, n| ledger.request_refresh(&name, force, at(n)).await.unwrap();
    let row = async || ledger.audience(&name).await.unwrap().unwrap();
    let queued = request(false, 1).await;
    assert_eq!(row().await.waiting_refresh, None);
    let first = ledger.claim_refresh("b", at(2), at(60)).await.unwrap().unwrap().id;
    assert_eq!(first, queued);
    let second = request(false, 3).await;
    assert_eq!(row().await.waiting_refresh, Some(second));
    let all = ledger.audiences().await.unwrap();
    assert_eq!(all.iter().map(|a| a.waiting_refresh).collect::<Vec<_>>(), [Some(second)]);
    // As refreshes of a template, which are built together and have no parts.
    ledger.fail_refresh(first, "b", "disk full", Some(at(5)), at(4)).await.unwrap();
    assert_eq!(request(true, 6).await, second, "somebody waits for it");
    assert!(!ledger.refresh(first).await.unwrap().forced);
    ledger.claim_refresh("b", at(7), at(60)).await.unwrap().unwrap();
    ledger.publish(&snapshot("buyers", 1, first), "b", at(8)).await.unwrap();
    let queued = ledger.refresh(second).await.unwrap();
    assert_eq!((queued.state, queued.forced), (RefreshState::Scheduled, true));
    assert_eq!(row().await.waiting_refresh, None);
}

pub(super) async fn a_waiting_refresh_follows_every_end(ledger: &dyn Ledger) {
    let name = audience("buyers");
    let request = async |n| ledger.request_refresh(&name, false, at(n)).await.unwrap();
    let newest = async || ledger.audience(&name).await.unwrap().unwrap().refresh.unwrap();
    let first = building(ledger, "buyers", "b", 1).await.id;
    let second = request(2).await;
    ledger.fail_refresh(first, "b", "no such table", None, at(3)).await.unwrap();
    let queued = newest().await;
    assert_eq!((queued.id, queued.state), (second, RefreshState::Scheduled));
    ledger.claim_refresh("b", at(4), at(60)).await.unwrap().unwrap();
    let third = request(5).await;
    ledger.hold(&snapshot("buyers", 1, second), "b", "few members", at(6)).await.unwrap();
    ledger.approve(&name, 1, at(7)).await.unwrap();
    ledger.claim_refresh("b", at(8), at(60)).await.unwrap().unwrap();
    let fourth = request(9).await;
    assert!(ledger.confirm_unchanged(third, "b", 1, at(10)).await.unwrap());
    // An open one continues when its audience is paused, and so does the one that waits.
    ledger.claim_refresh("b", at(11), at(60)).await.unwrap().unwrap();
    let fifth = request(12).await;
    ledger.pause_audience(&name, at(13)).await.unwrap();
    assert_wrong_state(ledger.request_refresh(&name, false, at(14)).await);
    ledger.resume_audience(&name).await.unwrap();
    // A person who cancels ends both.
    let cancelled = ledger.cancel_refresh(&name, None, "cancelled by ann", at(15)).await.unwrap();
    assert_eq!(cancelled.unwrap().id, fourth);
    let ended = newest().await;
    assert_eq!((ended.id, ended.state), (fifth, RefreshState::Failed));
    assert_eq!(ended.reason.as_deref(), Some("cancelled by ann"));
    assert_eq!(ledger.claim_refresh("b", at(16), at(60)).await.unwrap(), None);
    let sixth = request(17).await;
    assert!(sixth > fifth);
    assert_eq!(newest().await.state, RefreshState::Scheduled);
}

pub(super) async fn a_state_of_the_source_queues_one_refresh(ledger: &dyn Ledger) {
    let name = audience("buyers");
    let record = async |state: &str, refresh: bool, n: u64| {
        ledger.record_source_state(&name, state, refresh, at(n)).await.unwrap()
    };
    let newest = async || ledger.audience(&name).await.unwrap().unwrap();
    assert!(!record("s1", true, 1).await, "the audience is unknown");
    let refresh = building(ledger, "buyers", "b", 2).await;
    // The open refresh may have read the files before they changed.
    assert!(!record("s1", true, 3).await);
    ledger.publish(&snapshot("buyers", 1, refresh.id), "b", at(4)).await.unwrap();
    assert!(record("s1", false, 5).await);
    assert_eq!(newest().await.source_state.as_deref(), Some("s1"));
    assert_eq!(newest().await.refresh.unwrap().id, refresh.id, "no refresh is queued");
    assert!(!record("s1", true, 6).await);
    assert!(record("s2", true, 7).await);
    let queued = newest().await.refresh.unwrap();
    assert_eq!((queued.trigger, queued.scheduled_at), (RefreshTrigger::SourceChanged, at(7)));
    ledger.cancel_refresh(&name, None, "stop", at(8)).await.unwrap();
    assert!(!record("s2", true, 9).await, "a refresh for it was queued");
    ledger.pause_audience(&name, at(10)).await.unwrap();
    assert!(!record("s3", true, 11).await);
    ledger.resume_audience(&name).await.unwrap();
    assert!(record("s3", true, 12).await);
}

pub(super) async fn a_schedule_fires_exactly_once(ledger: &dyn Ledger) {
    let name = audience("buyers");
    assert!(ledger.fire_schedule(&name, at(100), at(101)).await.unwrap());
    assert!(!ledger.fire_schedule(&name, at(100), at(102)).await.unwrap());
    assert!(!ledger.fire_schedule(&name, at(50), at(103)).await.unwrap());
    let row = ledger.audience(&name).await.unwrap().unwrap();
    assert_eq!(row.last_fired, Some(at(100)));
    let refresh = row.refresh.unwrap();
    assert_eq!(refresh.trigger, RefreshTrigger::Schedule);
    assert_eq!(refresh.scheduled_at, at(101));
    // The schedule fires again, but the refresh that is still open continues.
    assert!(ledger.fire_schedule(&name, at(200), at(201)).await.unwrap());
    assert_eq!(ledger.refreshes(None, 10).await.unwrap(), [refresh]);
    let row = ledger.audience(&name).await.unwrap().unwrap();
    assert_eq!(row.last_fired, Some(at(200)));
}

pub(super) async fn the_last_success_outlives_later_refreshes(ledger: &dyn Ledger) {
    let name = audience("buyers");
    let refreshed = async || ledger.audience(&name).await.unwrap().unwrap().refreshed_at;
    let first = building(ledger, "buyers", "b", 0).await;
    assert_eq!(refreshed().await, None);
    ledger.publish(&snapshot("buyers", 1, first.id), "b", at(9)).await.unwrap();
    assert_eq!(refreshed().await, Some(at(9)));
    let failed = building(ledger, "buyers", "b", 20).await;
    assert_eq!(refreshed().await, Some(at(9)), "another one is open");
    ledger.fail_refresh(failed.id, "b", "no such table", None, at(21)).await.unwrap();
    assert_eq!(refreshed().await, Some(at(9)), "it has failed");
    let same = building(ledger, "buyers", "b", 30).await;
    assert!(ledger.confirm_unchanged(same.id, "b", 1, at(31)).await.unwrap());
    assert_eq!(refreshed().await, Some(at(31)));
    let held = building(ledger, "buyers", "b", 40).await;
    ledger.hold(&snapshot("buyers", 2, held.id), "b", "80% fewer", at(41)).await.unwrap();
    assert_eq!(refreshed().await, Some(at(31)), "its snapshot is held");
    ledger.approve(&name, 2, at(50)).await.unwrap();
    assert_eq!(refreshed().await, Some(at(50)));
    building(ledger, "others", "b", 60).await;
    let all = ledger.audiences().await.unwrap();
    let all: Vec<_> = all.iter().map(|row| (row.name.as_str(), row.refreshed_at)).collect();
    assert_eq!(all, [("buyers", Some(at(50))), ("others", None)]);
}

pub(super) async fn refreshes_are_claimed_when_due_and_oldest_first(ledger: &dyn Ledger) {
    for (n, name) in [(1, "a"), (2, "b")] {
        ledger.schedule_refresh(&audience(name), RefreshTrigger::Manual, at(n)).await.unwrap();
    }
    assert_eq!(
        ledger.claim_refresh("x", at(0), at(9)).await.unwrap(),
        None,
        "nothing is due before it was queued"
    );
    let first = ledger.claim_refresh("x", at(5), at(9)).await.unwrap();
    let first = first.unwrap();
    assert_eq!(first.audience, audience("a"));
    assert_eq!(first.state, RefreshState::Processing);
    assert_eq!(first.holder.as_deref(), Some("x"));
    assert_eq!(first.lease_until, Some(at(9)));
    assert_eq!(first.started_at, Some(at(5)));
    let failed =
        ledger.fail_refresh(first.id, "x", "disk full", Some(at(30)), at(6)).await.unwrap();
    assert_eq!(failed.state, RefreshState::Scheduled);
    assert_eq!((failed.failures, failed.not_before), (1, at(30)));
    assert_eq!(failed.reason.as_deref(), Some("disk full"));
    let second = ledger.claim_refresh("y", at(29), at(99)).await.unwrap();
    assert_eq!(second.unwrap().audience, audience("b"));
    assert_eq!(ledger.claim_refresh("y", at(29), at(99)).await.unwrap(), None);
    let again = ledger.claim_refresh("y", at(30), at(99)).await.unwrap();
    let again = again.unwrap();
    assert_eq!(again.id, first.id);
    assert_eq!(again.started_at, Some(at(5)), "the first builder started it");
}

pub(super) async fn tries_that_end_without_a_result_are_counted(ledger: &dyn Ledger) {
    let id = building(ledger, "buyers", "b", 0).await.id;
    // Killed twice: the first time its lease expired, the second time it was recovered at a start.
    let second = ledger.claim_refresh("c", at(100), at(110)).await.unwrap().unwrap();
    assert_eq!(second.crashes, 1);
    ledger.recover_refresh(id, "c", at(111)).await.unwrap();
    assert_eq!(ledger.refresh(id).await.unwrap().crashes, 2);
    // Halted, and failed with a reason: no crashes.
    ledger.claim_refresh("d", at(112), at(120)).await.unwrap();
    ledger.halt_refreshes(&[id], "d", at(113)).await.unwrap();
    ledger.claim_refresh("e", at(114), at(120)).await.unwrap();
    let failed = ledger.fail_refresh(id, "e", "x", Some(at(115)), at(115)).await.unwrap();
    assert_eq!((failed.crashes, failed.failures), (2, 1));
    // A part that is finished shows that the refresh makes progress.
    let third = ledger.claim_refresh("f", at(116), at(120)).await.unwrap().unwrap();
    assert_eq!(third.crashes, 2);
    let part = NewPart { kind: PartKind::Scan, number: 0, covers: serde_json::json!({}) };
    ledger.add_parts(id, &[part], None).await.unwrap();
    ledger.finish_part(id, 0, &serde_json::json!({})).await.unwrap();
    assert_eq!(ledger.refresh(id).await.unwrap().crashes, 0);
    ledger.recover_refresh(id, "f", at(121)).await.unwrap();
    assert_eq!(ledger.refresh(id).await.unwrap().crashes, 1);
}

pub(super) async fn a_cancelled_refresh_has_ended_for_its_holder(ledger: &dyn Ledger) {
    let name = audience("buyers");
    assert_eq!(ledger.cancel_refresh(&name, None, "cancelled", at(0)).await.unwrap(), None);
    let id = building(ledger, "buyers", "b", 0).await.id;
    let part = NewPart { kind: PartKind::Scan, number: 0, covers: serde_json::json!({}) };
    ledger.add_parts(id, &[part], None).await.unwrap();
    let other = Some(RefreshId(id.0 + 1));
    assert_eq!(ledger.cancel_refresh(&name, other, "cancelled", at(4)).await.unwrap(), None);
    assert_eq!(ledger.refresh(id).await.unwrap().state, RefreshState::Processing);
    let reason = "cancelled by ann";
    let cancelled = ledger.cancel_refresh(&name, Some(id), reason, at(5)).await.unwrap().unwrap();
    assert_eq!((cancelled.id, cancelled.state), (id, RefreshState::Failed));
    assert_eq!((cancelled.failures, cancelled.finished_at), (0, Some(at(5))));
    assert_eq!(cancelled.reason.as_deref(), Some(reason));
    assert_eq!(ledger.parts(id).await.unwrap(), []);
    assert_lease_lost(ledger.record_refresh_progress(id, "b", at(99), 1, 0, None).await);
    assert_eq!(ledger.cancel_refresh(&name, None, "again", at(6)).await.unwrap(), None);
    // The next one is another refresh.
    let next = ledger.schedule_refresh(&name, RefreshTrigger::Manual, at(7)).await.unwrap();
    assert_ne!(next, id);
}

pub(super) async fn a_lost_refresh_lease_is_reported(ledger: &dyn Ledger) {
    let refresh = building(ledger, "buyers", "old", 0).await;
    let id = refresh.id;
    let early = ledger.claim_refresh("new", at(59), at(200)).await.unwrap();
    assert_eq!(early, None, "the lease is still valid");
    // Expired, but not claimed by another process: the holder may continue.
    ledger.record_refresh_progress(id, "old", at(70), 1, 0, None).await.unwrap();
    let taken = ledger.claim_refresh("new", at(70), at(200)).await.unwrap();
    assert_eq!(taken.unwrap().holder.as_deref(), Some("new"));
    assert_lease_lost(ledger.record_refresh_progress(id, "old", at(300), 5, 0, None).await);
    assert_lease_lost(ledger.recover_refresh(id, "old", at(71)).await);
    ledger.halt_refreshes(&[id], "old", at(71)).await.unwrap();
    let failed = ledger.fail_refresh(id, "old", "x", None, at(71)).await;
    assert_lease_lost(failed);
    let kept = ledger.refresh(id).await.unwrap();
    assert_eq!(kept.holder.as_deref(), Some("new"));
    assert_eq!(kept.rows_read, 1);
}

pub(super) async fn progress_is_recorded(ledger: &dyn Ledger) {
    let id = building(ledger, "buyers", "b", 0).await.id;
    ledger.record_refresh_progress(id, "b", at(120), 1_000, 3, Some(9_000)).await.unwrap();
    ledger.record_refresh_progress(id, "b", at(180), 2_000, 4, None).await.unwrap();
    let refresh = ledger.refresh(id).await.unwrap();
    assert_eq!((refresh.rows_read, refresh.null_keys), (2_000, 4));
    assert_eq!(refresh.rows_expected, Some(9_000), "still known");
    assert_eq!(refresh.lease_until, Some(at(180)));
}

fn parts(numbers: std::ops::Range<u32>) -> Vec<NewPart> {
    numbers
        .map(|number| NewPart {
            kind: if number % 2 == 0 { PartKind::Scan } else { PartKind::Shards },
            number,
            covers: json!({"file": format!("{number}.parquet")}),
        })
        .collect()
}

pub(super) async fn parts_survive_a_halt_and_a_retry(ledger: &dyn Ledger) {
    let id = building(ledger, "buyers", "b", 0).await.id;
    ledger.add_parts(id, &parts(0..3), None).await.unwrap();
    let output = json!({"rows": 5});
    ledger.finish_part(id, 1, &output).await.unwrap();
    ledger.halt_refreshes(&[id], "b", at(1)).await.unwrap();
    ledger.claim_refresh("c", at(1), at(60)).await.unwrap();
    ledger.fail_refresh(id, "c", "lake away", Some(at(2)), at(2)).await.unwrap();
    ledger.claim_refresh("d", at(2), at(60)).await.unwrap();
    let found = ledger.parts(id).await.unwrap();
    let states: Vec<_> = found.iter().map(|p| (p.number, p.state)).collect();
    assert_eq!(states, [(0, PartState::Pending), (1, PartState::Done), (2, PartState::Pending)]);
    assert_eq!(found[1].output, Some(output));
    assert_eq!(found[1].kind, PartKind::Shards);
    assert_eq!(found[2].covers, json!({"file": "2.parquet"}));
}

pub(super) async fn a_part_is_claimed_by_one_builder_and_scans_come_first(ledger: &dyn Ledger) {
    let id = building(ledger, "buyers", "b", 0).await.id;
    ledger.add_parts(id, &parts(0..3), None).await.unwrap();
    let claim = async |of, holder: &str, now, until| {
        claim_part(ledger, of, holder, now, until).await.map(|(refresh, part)| {
            assert_eq!((refresh, part.holder.as_deref()), (id, Some(holder)));
            part.number
        })
    };
    let done = json!({});
    assert_eq!(claim(Some(id), "b", 1, 10).await, Some(0));
    assert_eq!(claim(None, "helper", 1, 10).await, Some(2), "a scan before the shards");
    assert_eq!(claim(None, "late", 9, 20).await, None, "shards wait for all scans");
    ledger.finish_part(id, 0, &done).await.unwrap();
    ledger.renew_part_leases("helper", at(30)).await.unwrap();
    assert_eq!(claim(Some(id), "b", 29, 40).await, None, "the lease was renewed");
    assert_eq!(claim(Some(id), "b", 30, 40).await, Some(2), "it has expired");
    // A part that another builder has cannot be released.
    ledger.release_part(id, 2, "helper").await.unwrap();
    assert_eq!(claim(None, "late", 31, 40).await, None);
    // The old holder can still finish it: parts are safe to repeat.
    ledger.finish_part(id, 2, &done).await.unwrap();
    assert_eq!(claim(Some(RefreshId(id.0 + 1)), "x", 32, 40).await, None, "of another refresh");
    assert_eq!(claim(None, "x", 32, 40).await, Some(1));
    ledger.release_part(id, 1, "x").await.unwrap();
    ledger.halt_refreshes(&[id], "b", at(33)).await.unwrap();
    assert_eq!(claim(None, "x", 34, 40).await, None, "the refresh has no holder");
    ledger.claim_refresh("c", at(34), at(60)).await.unwrap();
    assert_eq!(claim(None, "x", 35, 90).await, Some(1));
    ledger.fail_refresh(id, "c", "lake away", Some(at(36)), at(36)).await.unwrap();
    ledger.claim_refresh("d", at(36), at(60)).await.unwrap();
    assert_eq!(claim(None, "d", 37, 60).await, Some(1), "a new try does not wait for old leases");
    ledger.finish_part(id, 1, &done).await.unwrap();
    assert_eq!(claim(None, "x", 99, 100).await, None);
}

pub(super) async fn refreshes_and_parts_of_some_audiences_are_claimed(ledger: &dyn Ledger) {
    // `w1` and `w2` are listed, in another order, with one that has no refresh; `l` is not.
    for (n, name) in [(1, "w1"), (2, "l:1"), (3, "w2"), (4, "l2")] {
        ledger.schedule_refresh(&audience(name), RefreshTrigger::Manual, at(n)).await.unwrap();
    }
    let listed = ["none", "w2", "w1"].map(audience);
    let (only, except) = (ClaimFilter::Only(&listed), ClaimFilter::Except(&listed));
    let claim = async |filter, holder: &str, now| {
        let claimed = ledger.claim_filtered_refresh(filter, holder, at(now), at(now + 60)).await;
        claimed.unwrap().map(|refresh| refresh.audience.to_string())
    };
    assert_eq!(claim(ClaimFilter::Only(&[]), "w", 5).await, None);
    assert_eq!(claim(only, "w", 0).await, None, "not due yet");
    // The oldest of the filter's audiences, whichever is the oldest of all.
    assert_eq!(claim(except, "b", 5).await.as_deref(), Some("l:1"));
    assert_eq!(claim(only, "w", 5).await.as_deref(), Some("w1"));
    assert_eq!(claim(only, "x", 5).await.as_deref(), Some("w2"));
    assert_eq!(claim(only, "y", 6).await, None, "all are claimed");
    assert_eq!(claim(ClaimFilter::Except(&[]), "c", 6).await.as_deref(), Some("l2"));
    assert_eq!(claim(except, "d", 65).await.as_deref(), Some("l:1"), "its lease has expired");
    let newest = async |name: &str| {
        let row = ledger.audience(&audience(name)).await.unwrap().unwrap();
        row.refresh.unwrap().id
    };
    let (w1, local) = (newest("w1").await, newest("l:1").await);
    for id in [w1, local] {
        ledger.add_parts(id, &parts(0..1), None).await.unwrap();
    }
    let part_of = async |filter, holder: &str, now| {
        let claimed = ledger.claim_filtered_part(filter, holder, at(now), at(now + 60)).await;
        claimed.unwrap().map(|(refresh, _)| refresh)
    };
    assert_eq!(part_of(ClaimFilter::Only(&[]), "h", 66).await, None);
    // Of the older refresh, were it not for the filter.
    assert_eq!(part_of(except, "h", 66).await, Some(local));
    assert_eq!(part_of(except, "i", 67).await, None, "that of the other one is left out");
    assert_eq!(part_of(only, "j", 67).await, Some(w1));
    assert_eq!(part_of(only, "k", 68).await, None);
}

pub(super) async fn parts_are_recorded_once(ledger: &dyn Ledger) {
    let id = building(ledger, "buyers", "b", 0).await.id;
    ledger.add_parts(id, &[], None).await.unwrap();
    ledger.add_parts(id, &parts(0..2_500), None).await.unwrap();
    ledger.finish_part(id, 7, &json!({"rows": 1})).await.unwrap();
    ledger.finish_part(id, 7, &json!({"rows": 1})).await.unwrap();
    ledger.add_parts(id, &parts(0..2_501), None).await.unwrap();
    let found = ledger.parts(id).await.unwrap();
    assert_eq!(found.len(), 2_501);
    assert_eq!(found[7].state, PartState::Done, "done stays done");
    let numbers: Vec<u32> = found.iter().map(|p| p.number).collect();
    assert!(numbers.is_sorted());
    assert_not_found(ledger.finish_part(id, 2_501, &json!({})).await);
}

pub(super) async fn a_refresh_is_planned_again_by_its_holder(ledger: &dyn Ledger) {
    let id = building(ledger, "buyers", "b", 0).await.id;
    ledger.add_parts(id, &parts(0..3), None).await.unwrap();
    ledger.finish_part(id, 0, &json!({"rows": 1})).await.unwrap();
    assert_lease_lost(ledger.add_parts(id, &parts(3..5), Some("a")).await);
    assert_eq!(ledger.parts(id).await.unwrap().len(), 3);
    ledger.add_parts(id, &parts(3..5), Some("b")).await.unwrap();
    let found = ledger.parts(id).await.unwrap();
    let states: Vec<_> = found.iter().map(|p| (p.number, p.state)).collect();
    assert_eq!(states, [(3, PartState::Pending), (4, PartState::Pending)]);
    // The output of a part of the old plan is refused.
    assert_not_found(ledger.finish_part(id, 1, &json!({})).await);
}

pub(super) async fn the_next_refresh_can_start_after_a_failed_one(ledger: &dyn Ledger) {
    let id = building(ledger, "buyers", "b", 0).await.id;
    let failed = ledger.fail_refresh(id, "b", "no such table", None, at(3)).await.unwrap();
    assert_eq!(failed.state, RefreshState::Failed);
    assert_eq!(failed.finished_at, Some(at(3)));
    assert_eq!((failed.failures, failed.holder), (1, None));
    assert_wrong_state(ledger.add_parts(id, &parts(0..1), None).await);
    assert_lease_lost(ledger.recover_refresh(id, "b", at(4)).await);
    let next = building(ledger, "buyers", "b", 5).await;
    assert_ne!(next.id, id);
    let row = ledger.audience(&audience("buyers")).await.unwrap().unwrap();
    assert_eq!(row.refresh, Some(next), "the newest refresh is shown");
}

pub(super) async fn the_dictionary_is_swapped_only_from_the_expected_version(ledger: &dyn Ledger) {
    assert!(ledger.dictionary().await.unwrap().is_empty());
    let empty = ledger.dictionary_shard(200).await.unwrap();
    assert_eq!((empty.version, empty.manifest.as_str()), (0, ""));
    assert!(!ledger.compare_and_swap_dictionary(200, 1, "x").await.unwrap());
    assert!(ledger.compare_and_swap_dictionary(200, 0, "one").await.unwrap());
    assert!(!ledger.compare_and_swap_dictionary(200, 0, "other").await.unwrap());
    assert!(ledger.compare_and_swap_dictionary(200, 1, "two").await.unwrap());
    assert!(!ledger.compare_and_swap_dictionary(200, 1, "late").await.unwrap());
    assert!(ledger.compare_and_swap_dictionary(0, 0, "zero").await.unwrap());
    let shards: Vec<_> = ledger.dictionary().await.unwrap();
    let shown: Vec<_> = shards.iter().map(|s| (s.shard, s.version, s.manifest.as_str())).collect();
    assert_eq!(shown, [(0, 1, "zero"), (200, 2, "two")]);
}

pub(super) async fn the_refresh_of_one_audience_is_claimed(ledger: &dyn Ledger) {
    let claim = async |name: &str, holder: &str, n: u64| {
        ledger.claim_refresh_of(&audience(name), holder, at(n), at(n + 60)).await.unwrap()
    };
    for name in ["a", "b"] {
        ledger.schedule_refresh(&audience(name), RefreshTrigger::Manual, at(1)).await.unwrap();
    }
    assert_eq!(claim("b", "w", 0).await, None, "not due yet");
    assert_eq!(claim("c", "w", 2).await, None, "there is none");
    let claimed = claim("b", "w", 2).await.unwrap();
    assert_eq!((claimed.audience, claimed.holder.as_deref()), (audience("b"), Some("w")));
    assert_eq!(claim("b", "x", 3).await, None, "it is already claimed");
    assert_eq!(
        claim("b", "x", 62).await.unwrap().holder.as_deref(),
        Some("x"),
        "the lease has expired"
    );
}
