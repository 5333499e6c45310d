//! Pauses, pins and backoffs that a person ended.

use super::*;
use crate::{RefreshState, TaskState};

pub(super) async fn a_paused_sync_plans_nothing_and_its_tasks_wait(ledger: &dyn Ledger) {
    let (paused, other) = (new_run("ads", 1, &[10]), new_run("other", 1, &[10]));
    ledger.plan_run(&paused, at(0)).await.unwrap().unwrap();
    assert!(ledger.pause_sync(&paused.sync, at(1)).await.unwrap());
    assert!(!ledger.pause_sync(&paused.sync, at(2)).await.unwrap());
    assert!(ledger.is_sync_paused(&paused.sync).await.unwrap());
    assert!(!ledger.is_sync_paused(&other.sync).await.unwrap());
    let listed = ledger.paused_syncs().await.unwrap();
    assert_eq!(listed, [(paused.sync.clone(), at(1))], "the first pause stays");
    let task = ledger.tasks(9).await.unwrap().remove(0);
    assert_eq!(claim(ledger, "w", 3).await, None);
    let one = ledger.claim_task(task.id, "w", 9, at(3), at(63)).await.unwrap();
    assert_eq!(one, None);
    let due = async |n| ledger.tasks_to_enqueue(at(0), at(n), 9, 9).await.unwrap();
    assert_eq!(due(3).await, []);
    ledger.plan_run(&other, at(3)).await.unwrap().unwrap();
    assert_eq!(claim(ledger, "w", 4).await.unwrap().sync, other.sync);

    assert!(ledger.resume_sync(&paused.sync).await.unwrap());
    assert!(!ledger.resume_sync(&paused.sync).await.unwrap());
    assert_eq!(ledger.paused_syncs().await.unwrap(), []);
    assert_eq!(claim(ledger, "w", 5).await.unwrap().id, task.id);
    // A running task keeps its lease during a pause, and is not claimed when the lease expires.
    ledger.pause_sync(&paused.sync, at(6)).await.unwrap();
    ledger.renew_task_lease(task.id, "w", at(70)).await.unwrap();
    assert_eq!(ledger.task(task.id).await.unwrap().state, TaskState::Running);
    let taken = claim(ledger, "v", 80).await.unwrap();
    assert_eq!(taken.sync, other.sync);
    assert_eq!(claim(ledger, "v", 80).await, None);
    ledger.fail_task(task.id, "w", "x", None, true, at(81)).await.unwrap();
    assert_eq!(ledger.plan_run(&paused, at(82)).await.unwrap(), None);
    ledger.resume_sync(&paused.sync).await.unwrap();
    assert!(ledger.plan_run(&paused, at(83)).await.unwrap().is_some());
}

pub(super) async fn resumed_tasks_are_enqueued_again(ledger: &dyn Ledger) {
    let run = new_run("ads", 1, &[10]);
    ledger.plan_run(&run, at(0)).await.unwrap().unwrap();
    let task = ledger.tasks(9).await.unwrap().remove(0);
    ledger.mark_tasks_enqueued(&[task.id], at(5)).await.unwrap();
    let due = async |n| ledger.tasks_to_enqueue(at(1), at(n), 9, 9).await.unwrap();
    assert_eq!(due(6).await, []);
    ledger.pause_sync(&run.sync, at(7)).await.unwrap();
    ledger.resume_sync(&run.sync).await.unwrap();
    assert_eq!(due(8).await, [task]);
}

pub(super) async fn a_paused_audience_starts_no_refresh(ledger: &dyn Ledger) {
    let name = audience("buyers");
    let open = building(ledger, "buyers", "b", 1).await;
    assert!(ledger.pause_audience(&name, at(2)).await.unwrap());
    assert!(!ledger.pause_audience(&name, at(3)).await.unwrap());
    let row = ledger.audience(&name).await.unwrap().unwrap();
    assert_eq!((row.paused_at, row.stopped()), (Some(at(2)), Some("paused".to_owned())));
    // The one that is open continues.
    let made = snapshot("buyers", 1, open.id);
    ledger.publish(&made, "b", at(4)).await.unwrap();
    let refresh = ledger.refresh(open.id).await.unwrap();
    assert_eq!(refresh.state, RefreshState::Completed);
    for trigger in [RefreshTrigger::Manual, RefreshTrigger::Apply] {
        assert_wrong_state(ledger.schedule_refresh(&name, trigger, at(5)).await);
    }
    assert!(!ledger.fire_schedule(&name, at(100), at(101)).await.unwrap());
    assert!(ledger.skip_schedule(&name, at(100)).await.unwrap(), "the first");
    assert!(!ledger.skip_schedule(&name, at(100)).await.unwrap(), "recorded already");
    assert!(!ledger.skip_schedule(&name, at(200)).await.unwrap(), "not the first");
    assert_eq!(ledger.refreshes(Some(&name), 9).await.unwrap().len(), 1);

    assert!(ledger.resume_audience(&name).await.unwrap());
    assert!(!ledger.resume_audience(&name).await.unwrap());
    let row = ledger.audience(&name).await.unwrap().unwrap();
    assert_eq!((row.last_fired, row.stopped()), (Some(at(200)), None));
    assert!(!ledger.skip_schedule(&name, at(300)).await.unwrap(), "not paused or pinned");
    assert!(!ledger.fire_schedule(&name, at(200), at(301)).await.unwrap());
    assert!(ledger.fire_schedule(&name, at(300), at(302)).await.unwrap());
    assert_eq!(ledger.refreshes(Some(&name), 9).await.unwrap().len(), 2);
    // Also one that never had a refresh.
    let new = audience("new");
    assert!(ledger.pause_audience(&new, at(1)).await.unwrap());
    assert_wrong_state(ledger.schedule_refresh(&new, RefreshTrigger::Apply, at(2)).await);
    assert!(!ledger.resume_audience(&audience("nobody")).await.unwrap());
}

pub(super) async fn a_pinned_version_stays_until_it_is_unpinned(ledger: &dyn Ledger) {
    let name = audience("buyers");
    for _ in 0..2 {
        published(ledger, "buyers").await;
    }
    let refresh = building(ledger, "buyers", "b", 6).await;
    let held = snapshot("buyers", 3, refresh.id);
    ledger.hold(&held, "b", "small", at(7)).await.unwrap();
    // A refresh that is processing when a person rolls back.
    let open = building(ledger, "buyers", "b", 8).await;
    ledger.rollback(&name, 1, at(9)).await.unwrap();
    let made = snapshot("buyers", 4, open.id);
    assert_wrong_state(ledger.publish(&made, "b", at(10)).await);
    assert_wrong_state(ledger.approve(&name, 3, at(10)).await);
    ledger.cancel_refresh(&name, None, "cancelled", at(10)).await.unwrap().unwrap();
    for trigger in [RefreshTrigger::Manual, RefreshTrigger::Apply] {
        assert_wrong_state(ledger.schedule_refresh(&name, trigger, at(11)).await);
    }
    assert!(!ledger.fire_schedule(&name, at(100), at(101)).await.unwrap());
    assert!(ledger.skip_schedule(&name, at(100)).await.unwrap());
    assert_eq!(ledger.served_versions().await.unwrap(), [(name.clone(), 1)]);
    // Another rollback pins another version.
    ledger.rollback(&name, 2, at(102)).await.unwrap();
    assert!(ledger.skip_schedule(&name, at(200)).await.unwrap(), "the first of this pin");
    ledger.pause_audience(&name, at(201)).await.unwrap();
    let row = ledger.audience(&name).await.unwrap().unwrap();
    assert_eq!(row.stopped().unwrap(), "paused and pinned to version 2");
    ledger.resume_audience(&name).await.unwrap();
    assert!(ledger.unpin_audience(&name).await.unwrap());
    assert!(!ledger.unpin_audience(&name).await.unwrap());
    ledger.approve(&name, 3, at(202)).await.unwrap();
    assert!(ledger.fire_schedule(&name, at(300), at(301)).await.unwrap());
}

pub(super) async fn the_last_end_of_a_backoff_counts(ledger: &dyn Ledger) {
    assert_eq!(ledger.ended_backoffs().await.unwrap(), []);
    let (shop, other) = (destination("shop"), destination("other"));
    for n in [5, 7, 6] {
        ledger.end_backoff(&shop, at(n)).await.unwrap();
    }
    ledger.end_backoff(&other, at(1)).await.unwrap();
    assert_eq!(ledger.ended_backoffs().await.unwrap(), [(other, at(1)), (shop, at(7))]);
}
