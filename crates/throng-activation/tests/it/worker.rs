//! The outcomes of rows, batches and tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use throng_activation::{Advice, SendClass, TaskOutcome, Usage};
use throng_model::{Clock, DestinationName, Entropy, SplitMix64, SyncMode, SyncRunId};
use throng_store::{AlertKind, AlertLedger, PauseLedger, RunState, SyncLedger};

use crate::platform::Fault;
use crate::rig::Rig;

fn plain(user: u32) -> Vec<String> {
    vec![format!("id{user}")]
}

fn ids(users: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
    users.into_iter().map(|u| format!("id{u}")).collect()
}

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect()
}

#[tokio::test]
async fn a_mirror_follows_its_audience_through_versions() {
    let mut rig = Rig::new(SyncMode::Mirror, 100, plain).await;
    for users in [0..60, 30..100, 0..0, 5..6] {
        rig.plan(users.clone()).await;
        assert_eq!(rig.finish().await, 1);
        assert_eq!(rig.platform.members(), ids(users));
    }
    assert_eq!(rig.platform.created(), 1);
}

#[tokio::test]
async fn an_empty_difference_advances_the_delivered_version() {
    let mut rig = Rig::new(SyncMode::Mirror, 10, plain).await;
    rig.plan(0..10).await;
    rig.finish().await;
    let before = rig.platform.requests();
    rig.plan(0..10).await;
    rig.finish().await;
    assert_eq!(rig.platform.requests(), before);
    let sync = "s".parse().unwrap();
    let audience = rig.ledger.platform_audience(&sync).await.unwrap().unwrap();
    assert_eq!(audience.delivered_version, Some(2));
}

#[tokio::test]
async fn every_row_has_an_outcome_with_its_reason() {
    let value = |user: u32| match user {
        0..5 => vec![],
        5..8 => vec!["blank".to_owned()],
        8..10 => vec![format!("poison{user}")],
        10..13 => vec![format!("invalid{user}")],
        // Of several rows the smallest usable one counts.
        13 => vec!["z".to_owned(), "blank".to_owned(), "id13".to_owned()],
        _ => vec![format!("id{user}")],
    };
    let mut rig = Rig::new(SyncMode::Mirror, 50, value).await;
    let id = rig.plan(0..50).await;
    rig.finish().await;
    let run = rig.run(id).await;
    assert_eq!(run.skipped, counts(&[("no_identifiers", 5), ("no_usable_identifier", 3)]));
    assert_eq!(run.sent, 37);
    assert_eq!(run.rejected.get("refused"), Some(&2));
    let invalid = run.rejected.get("bad hash").unwrap()
        + run.rejected.get("invalid_unspecified").unwrap_or(&0);
    assert_eq!(invalid, 3);
    assert_eq!(rig.platform.members(), ids(13..50));
}

/// The numbers of rejected rows and of those of them that are known, of the run's only batch.
async fn rejected_and_known(rig: &Rig, run: SyncRunId) -> (u64, u64) {
    let task = rig.ledger.task_of_run(run).await.unwrap();
    let batch = rig.ledger.batches(task.id).await.unwrap().remove(0);
    let outcome = batch.outcome.unwrap();
    let known = outcome.refused.iter().map(|(from, to)| u64::from(to - from)).sum();
    (outcome.rejected.values().sum(), known)
}

#[tokio::test]
async fn additions_that_are_refused_without_a_name_are_found() {
    let value = |user: u32| match user {
        0..4 => vec![format!("invalid{user}")],
        _ => vec![format!("id{user}")],
    };
    // The platform names the first one only. A session is not bisected: of it one row is known.
    for (mode, known) in [(SyncMode::Mirror, 4), (SyncMode::Replace, 1)] {
        let mut rig = Rig::new(mode, 10, value).await;
        let id = rig.plan(0..10).await;
        rig.finish().await;
        assert_eq!(rejected_and_known(&rig, id).await, (4, known), "{mode:?}");
        assert_eq!(rig.run(id).await.sent, 6);
        assert_eq!(rig.platform.members(), ids(4..10));
    }
    // If all are refused, all are known.
    let mut rig = Rig::new(SyncMode::Mirror, 4, value).await;
    let id = rig.plan(0..4).await;
    rig.finish().await;
    assert_eq!(rejected_and_known(&rig, id).await, (4, 4));
    assert_eq!(rig.platform.requests(), 1);
}

#[tokio::test]
async fn additions_are_not_searched_for_many_rows_that_are_refused_without_a_name() {
    // One of the refused rows has a name, so four or five have none.
    for (refused, known, is_searched) in [(5, 5, true), (6, 1, false)] {
        let value = move |user: u32| match user < refused {
            true => vec![format!("invalid{user}")],
            false => vec![format!("id{user}")],
        };
        let mut rig = Rig::new(SyncMode::Mirror, 10, value).await;
        let id = rig.plan(0..10).await;
        rig.finish().await;
        assert_eq!(rejected_and_known(&rig, id).await, (u64::from(refused), known));
        assert_eq!(rig.platform.requests() > 1, is_searched);
        assert_eq!(rig.platform.members(), ids(refused..10));
    }
}

#[tokio::test]
async fn a_request_that_arrived_in_part_is_sent_again_in_halves() {
    let mut rig = Rig::new(SyncMode::Mirror, 10, plain).await;
    rig.platform.script(&[Fault::Short(7), Fault::Fine, Fault::Short(0)]);
    let id = rig.plan(0..10).await;
    rig.finish().await;
    assert_eq!(rig.run(id).await.sent, 10);
    assert_eq!(rig.platform.members(), ids(0..10));
}

#[tokio::test]
async fn a_row_that_may_have_arrived_is_not_known_to_be_refused() {
    let mut rig = Rig::new(SyncMode::Mirror, 10, plain).await;
    // Each request loses its last row: seven of eight rows arrive, and not one is ever reported on its own.
    rig.platform.script(&vec![Fault::Missing(1); 100]);
    let id = rig.plan(0..8).await;
    rig.finish().await;
    let run = rig.run(id).await;
    assert_eq!((run.sent, run.rejected), (0, counts(&[("not_confirmed", 8)])));
    assert_eq!(rig.platform.members().len(), 7);
    assert_eq!(rejected_and_known(&rig, id).await, (8, 0));

    // One row is refused on its own, after a request with it and the others arrived in part.
    let value = |user: u32| vec![format!("{}{user}", if user == 1 { "invalid" } else { "id" })];
    let mut rig = Rig::new(SyncMode::Mirror, 2, value).await;
    rig.platform.script(&[Fault::Missing(1)]);
    let id = rig.plan(0..2).await;
    rig.finish().await;
    assert_eq!(rig.run(id).await.sent, 1);
    assert_eq!(rejected_and_known(&rig, id).await, (1, 0));
}

#[tokio::test]
async fn removals_that_are_not_confirmed_are_known() {
    let mut rig = Rig::new(SyncMode::Mirror, 10, plain).await;
    rig.plan(0..10).await;
    rig.finish().await;
    // The fault is over before the last row of the bisected request.
    rig.platform.script(&vec![Fault::Missing(1); 6]);
    let id = rig.plan(4..10).await;
    rig.finish().await;
    let run = rig.run(id).await;
    assert_eq!((run.sent, run.rejected), (1, counts(&[("removal_not_confirmed", 3)])));
    assert_eq!(rejected_and_known(&rig, id).await, (4 - run.sent, 3));
}

#[tokio::test]
async fn a_lost_response_costs_a_second_request_and_no_row() {
    let mut rig = Rig::new(SyncMode::Mirror, 30, plain).await;
    rig.platform.script(&[Fault::Fine, Fault::CutAfter]);
    let id = rig.plan(0..30).await;
    assert_eq!(rig.finish().await, 2);
    assert_eq!((rig.run(id).await.sent, rig.platform.requests()), (30, 4));
    let task = rig.ledger.tasks(1).await.unwrap().remove(0);
    let statuses: Vec<u16> =
        rig.ledger.receipts(task.id).await.unwrap().iter().map(|r| r.http_status).collect();
    assert_eq!(statuses, [200, 0, 200, 200]);
}

#[tokio::test]
async fn three_failures_raise_an_alert_and_success_resolves_it() {
    let mut rig = Rig::new(SyncMode::Mirror, 5, plain).await;
    rig.platform.script(&vec![Fault::Refuse(SendClass::Retry); 3]);
    rig.plan(0..5).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        rig.step().await.unwrap();
        let alerts = rig.ledger.alerts(10).await.unwrap();
        open.push(alerts.iter().filter(|a| a.resolved_at.is_none()).count());
        rig.clock.advance(Duration::from_secs(700));
    }
    assert_eq!(open, [0, 0, 1, 0]);
    assert_eq!(rig.ledger.alerts(1).await.unwrap()[0].kind, AlertKind::TaskFailed);
}

#[tokio::test]
async fn eight_consecutive_failures_fail_the_run_and_a_requeue_continues_it() {
    let mut rig = Rig::new(SyncMode::Mirror, 25, plain).await;
    rig.platform.script(&[Fault::Fine]);
    rig.platform.script(&vec![Fault::Refuse(SendClass::Retry); 8]);
    let id = rig.plan(0..25).await;
    let mut end = None;
    for _ in 0..8 {
        end = rig.step().await;
        rig.clock.advance(Duration::from_secs(800));
    }
    assert_eq!(end, Some(TaskOutcome::Failed));
    let run = rig.run(id).await;
    assert_eq!((run.state, run.sent, run.pending), (RunState::Failed, 10, 15));
    let task = rig.ledger.tasks(1).await.unwrap().remove(0);
    rig.ledger.requeue_task(task.id, rig.clock.now()).await.unwrap();
    rig.finish().await;
    assert_eq!((rig.run(id).await.sent, rig.platform.members()), (25, ids(0..25)));
}

#[tokio::test]
async fn a_throttle_pauses_the_account_and_counts_no_failure() {
    let mut rig = Rig::new(SyncMode::Mirror, 5, plain).await;
    rig.platform.script(&[Fault::Refuse(SendClass::Throttled(Duration::from_secs(90)))]);
    rig.plan(0..5).await;
    assert_eq!(rig.step().await, Some(TaskOutcome::Rescheduled));
    assert_eq!(rig.ledger.tasks(1).await.unwrap()[0].failures, 0);
    rig.clock.advance(Duration::from_secs(89));
    assert_eq!(rig.step().await, None);
    rig.clock.advance(Duration::from_secs(2));
    assert_eq!(rig.step().await, Some(TaskOutcome::Completed));
}

#[tokio::test]
async fn an_invalid_token_fails_one_task_and_suspends_the_account() {
    let mut rig = Rig::new(SyncMode::Mirror, 5, plain).await;
    rig.platform.script(&[Fault::Refuse(SendClass::StopAccount)]);
    let id = rig.plan(0..5).await;
    assert_eq!(rig.step().await, Some(TaskOutcome::Failed));
    assert_eq!(rig.run(id).await.pending, 5);
    assert_eq!(rig.ledger.alerts(1).await.unwrap().len(), 1);
    let destination = "d".parse().unwrap();
    let (quotas, now) = (&rig.worker.quotas, rig.clock.now());
    assert!(!quotas.suspended(now).is_empty() && !quotas.wait(&destination, now).is_zero());
    assert!(quotas.resume(&destination, now) && quotas.wait(&destination, now).is_zero());
    assert!(quotas.suspended(now).is_empty() && !quotas.resume(&destination, now));
}

#[tokio::test]
async fn an_alert_names_the_command_that_continues_the_work() {
    for (advice, ends) in [
        (Advice::Requeue, "the last: refused. Fix the cause, then run `throng sync requeue 1`."),
        (Advice::Recreate, "the last: refused; `throng sync recreate s` creates a new audience."),
        (Advice::None, "the last: refused."),
    ] {
        let mut rig = Rig::new(SyncMode::Mirror, 5, plain).await;
        rig.platform.script(&[Fault::Advise(advice)]);
        let id = rig.plan(0..5).await;
        assert_eq!(rig.step().await, Some(TaskOutcome::Failed));
        let alert = rig.ledger.alerts(1).await.unwrap().remove(0);
        assert!(alert.message.ends_with(ends), "{}", alert.message);
        let reason = rig.run(id).await.reason.unwrap();
        assert_eq!(reason.contains("throng sync recreate s"), advice == Advice::Recreate);
    }
}

#[tokio::test]
async fn a_pause_ends_the_work_before_the_next_batch() {
    let mut rig = Rig::new(SyncMode::Mirror, 25, plain).await;
    let id = rig.plan(0..25).await;
    let task = rig.claim().await.unwrap();
    let sync = "s".parse().unwrap();
    rig.ledger.pause_sync(&sync, rig.clock.now()).await.unwrap();
    assert_eq!(rig.work(&task).await, TaskOutcome::Rescheduled);
    assert_eq!((rig.run(id).await.pending, rig.platform.members()), (25, ids(0..0)));
    assert_eq!(rig.step().await, None);
    rig.ledger.resume_sync(&sync).await.unwrap();
    assert_eq!(rig.step().await, Some(TaskOutcome::Completed));
    assert_eq!(rig.platform.members(), ids(0..25));
}

#[tokio::test]
async fn a_request_that_is_refused_for_every_row_stops_instead_of_rejecting_all() {
    let mut rig = Rig::new(SyncMode::Mirror, 10, |u| vec![format!("poison{u}")]).await;
    let id = rig.plan(0..10).await;
    assert_eq!(rig.step().await, Some(TaskOutcome::Failed));
    assert_eq!(rig.run(id).await.pending, 10);
}

#[tokio::test]
async fn a_task_without_quota_waits_in_the_queue_and_has_no_failure() {
    let mut rig = Rig::new(SyncMode::Mirror, 25, plain).await;
    // A short wait is one of the worker; the second batch would have to wait for half an hour.
    let paced = |secs| Fault::Refuse(SendClass::Paced(Duration::from_secs(secs)));
    rig.platform.script(&[paced(5), paced(30), Fault::Fine, paced(1_800)]);
    let id = rig.plan(0..25).await;
    let task = rig.claim().await.unwrap();
    assert_eq!(rig.work(&task).await, TaskOutcome::Rescheduled);
    assert_eq!((rig.run(id).await.pending, rig.platform.members().len()), (15, 10));
    assert_eq!(rig.ledger.task(task.id).await.unwrap().failures, 0);
    assert_eq!(rig.ledger.receipts(task.id).await.unwrap().len(), 1, "only of the request");
    assert!(rig.ledger.alerts(1).await.unwrap().is_empty());
    // Its account starts no task, and may be read.
    let destination: DestinationName = "d".parse().unwrap();
    let (quotas, now) = (&rig.worker.quotas, rig.clock.now());
    assert!(quotas.wait(&destination, now).is_zero());
    assert_eq!(quotas.unavailable(now, |_| 8), [destination]);
    rig.clock.advance(Duration::from_secs(1_700));
    assert_eq!(rig.step().await, None);
    rig.clock.advance(Duration::from_secs(90));
    assert_eq!(rig.step().await, Some(TaskOutcome::Completed));
    assert_eq!(rig.platform.members(), ids(0..25));
}

#[tokio::test]
async fn a_session_waits_for_quota_and_is_not_started_over() {
    let mut rig = Rig::new(SyncMode::Replace, 25, plain).await;
    let long = Fault::Refuse(SendClass::Paced(Duration::from_secs(1_800)));
    rig.platform.script(&[Fault::Fine, long]);
    rig.plan(0..25).await;
    let task = rig.claim().await.unwrap();
    assert_eq!(rig.work(&task).await, TaskOutcome::Completed);
    assert_eq!(rig.ledger.receipts(task.id).await.unwrap().len(), 3);
    assert_eq!(rig.platform.members(), ids(0..25));
}

#[tokio::test]
async fn a_session_that_is_not_open_leaves_its_worker_to_other_accounts() {
    let mut rig = Rig::new(SyncMode::Replace, 25, plain).await;
    let long = Fault::Refuse(SendClass::Paced(Duration::from_secs(1_800)));
    rig.platform.script(&[long]);
    rig.plan(0..25).await;
    let task = rig.claim().await.unwrap();
    assert_eq!(rig.work(&task).await, TaskOutcome::Rescheduled);
    rig.clock.advance(Duration::from_secs(1_790));
    assert_eq!(rig.step().await, Some(TaskOutcome::Completed));
    assert_eq!(rig.platform.members(), ids(0..25));
}

#[tokio::test]
async fn a_batch_that_is_sent_in_parts_waits_for_quota_and_is_not_started_over() {
    let mut rig = Rig::new(SyncMode::Mirror, 25, plain).await;
    let minute = Fault::Refuse(SendClass::Paced(Duration::from_secs(60)));
    rig.platform.script(&[Fault::Refuse(SendClass::InvalidRows), minute]);
    rig.plan(0..25).await;
    let task = rig.claim().await.unwrap();
    assert_eq!(rig.work(&task).await, TaskOutcome::Completed);
    let receipts = rig.ledger.receipts(task.id).await.unwrap();
    assert_eq!(receipts.len(), 5, "of three batches and two parts");
    assert_eq!(rig.platform.members(), ids(0..25));
}

#[tokio::test]
async fn an_account_that_refuses_calls_is_paused() {
    let mut rig = Rig::new(SyncMode::Mirror, 5, plain).await;
    let usage = Usage { regain: Some(Duration::from_secs(60)), ..Usage::default() };
    rig.platform.script(&[Fault::Usage(usage)]);
    rig.plan(0..5).await;
    rig.finish().await;
    let destination = "d".parse().unwrap();
    assert_eq!(rig.worker.quotas.wait(&destination, rig.clock.now()).as_secs(), 60);
}

#[tokio::test]
async fn a_replace_session_is_closed_whatever_its_last_rows_are() {
    let value = |user: u32| match user {
        20..40 => vec![],
        _ => vec![format!("id{user}")],
    };
    let mut rig = Rig::new(SyncMode::Replace, 60, value).await;
    for (users, expected) in [
        ((0..60).collect::<Vec<_>>(), ids((0..20).chain(40..60))),
        ((5..35).collect(), ids(5..20)),
        (vec![], BTreeSet::new()),
    ] {
        rig.plan(users).await;
        rig.finish().await;
        assert_eq!(rig.platform.members(), expected);
    }
}

#[tokio::test]
async fn a_list_is_not_replaced_without_a_row() {
    let value = |user: u32| match user {
        0..20 => vec![format!("id{user}")],
        20..30 => vec![],
        _ => vec![format!("poison{user}")],
    };
    let mut rig = Rig::new(SyncMode::Replace, 40, value).await;
    rig.plan(0..20).await;
    rig.finish().await;
    // Every user is skipped, and every row is refused.
    for users in [20..30, 30..33] {
        let id = rig.plan(users).await;
        assert_eq!(rig.step().await, Some(TaskOutcome::Failed));
        let run = rig.run(id).await;
        assert!(run.reason.unwrap().contains("was not replaced"));
        assert!(run.pending > 0);
        assert_eq!(rig.platform.members(), ids(0..20));
        // A requeue does not complete it either.
        let task = rig.ledger.task_of_run(id).await.unwrap();
        rig.ledger.requeue_task(task.id, rig.clock.now()).await.unwrap();
        assert_eq!(rig.step().await, Some(TaskOutcome::Failed));
    }
}

#[tokio::test]
async fn a_lost_replace_session_is_sent_again_whole() {
    let mut rig = Rig::new(SyncMode::Replace, 45, plain).await;
    rig.platform.script(&[
        Fault::Fine,
        Fault::Fine,
        Fault::Refuse(SendClass::Restart),
        Fault::Fine,
        Fault::CutAfter,
    ]);
    let id = rig.plan(0..45).await;
    rig.finish().await;
    assert_eq!(rig.platform.members(), ids(0..45));
    assert_eq!(rig.run(id).await.sent, 45);
}

#[tokio::test]
async fn a_foreign_list_is_not_changed() {
    let mut rig = Rig::new(SyncMode::Mirror, 20, plain).await;
    rig.platform.create_foreign(ids(10..15));
    let id = rig.plan(0..5).await;
    assert_eq!(rig.step().await, Some(TaskOutcome::Failed));
    assert!(rig.run(id).await.reason.unwrap().contains("adopt: replace"));
    // A run that adds cannot adopt it, and a run that was planned before it was found cannot either.
    rig.adopt = true;
    let task = rig.ledger.tasks(1).await.unwrap().remove(0);
    rig.ledger.requeue_task(task.id, rig.clock.now()).await.unwrap();
    assert_eq!(rig.step().await, Some(TaskOutcome::Failed));
    assert_eq!((rig.platform.members(), rig.platform.requests()), (ids(10..15), 0));
    let sync = "s".parse().unwrap();
    assert_eq!(rig.ledger.platform_audience(&sync).await.unwrap(), None);
}

#[tokio::test]
async fn a_foreign_list_is_replaced_by_a_run_that_was_planned_after_it_was_found() {
    let mut rig = Rig::new(SyncMode::Replace, 20, plain).await;
    rig.adopt = true;
    rig.platform.create_foreign(ids(10..15));
    rig.plan(0..5).await;
    assert_eq!(rig.step().await, Some(TaskOutcome::Failed));
    assert_eq!(rig.platform.members(), ids(10..15));
    rig.plan(0..5).await;
    rig.adopts = Some("77".to_owned());
    rig.finish().await;
    assert_eq!(rig.platform.members(), ids(0..5));
    assert_eq!(rig.ledger.foreign_audiences().await.unwrap(), []);
}

#[tokio::test]
async fn a_foreign_list_is_not_replaced_by_a_run_that_was_planned_before_the_spec_said_so() {
    let mut rig = Rig::new(SyncMode::Replace, 20, plain).await;
    rig.platform.create_foreign(ids(10..15));
    rig.plan(0..5).await;
    assert_eq!(rig.step().await, Some(TaskOutcome::Failed));
    // It has found the audience. The next run was planned with `adopt: fail`, so that nobody had to approve it.
    for planned_for in [None, Some("78".to_owned())] {
        let id = rig.plan(0..5).await;
        rig.adopt = true;
        rig.adopts = planned_for;
        assert_eq!(rig.step().await, Some(TaskOutcome::Failed));
        let reason = rig.run(id).await.reason.unwrap();
        assert!(reason.contains("is planned, and waits for approval"), "{reason}");
        assert_eq!((rig.platform.members(), rig.platform.requests()), (ids(10..15), 0));
        let found = rig.ledger.foreign_audiences().await.unwrap().remove(0);
        assert_eq!((found.run, found.found), (id, true), "the planner plans a run that adopts it");
    }
}

#[tokio::test]
async fn an_earlier_audience_of_the_sync_is_a_foreign_one_also_after_another_one() {
    let mut rig = Rig::new(SyncMode::Mirror, 20, plain).await;
    rig.plan(0..5).await;
    rig.finish().await;
    // The sync moves to another account and back. The audience still has its mark.
    let sync = "s".parse().unwrap();
    rig.ledger.forget_delivered(&sync, "moved", rig.clock.now()).await.unwrap();
    rig.ledger.put_platform_audience(&sync, "88").await.unwrap();
    rig.ledger.forget_delivered(&sync, "moved back", rig.clock.now()).await.unwrap();
    let requests = rig.platform.requests();
    let id = rig.plan(1..6).await;
    assert_eq!(rig.step().await, Some(TaskOutcome::Failed));
    let reason = rig.run(id).await.reason.unwrap();
    assert!(reason.contains("or added before `throng sync recreate`"), "{reason}");
    assert!(reason.contains("delete or rename it there"), "{reason}");
    assert_eq!((rig.platform.members(), rig.platform.requests()), (ids(0..5), requests));
    assert_eq!(rig.ledger.platform_audience(&sync).await.unwrap(), None);
}

/// Drops the worker at a random point, repeatedly: the effect of kill -9.
#[tokio::test]
async fn work_that_is_interrupted_anywhere_ends_with_the_right_list() {
    let mut random = SplitMix64::new(5);
    for mode in [SyncMode::Mirror, SyncMode::Replace] {
        let mut rig = Rig::new(mode, 90, plain).await;
        for users in [0..60, 30..90] {
            let id = rig.plan(users.clone()).await;
            for _ in 0..10 {
                let polls = random.below(60);
                if interrupted(rig.step(), polls).await {
                    rig.assert_conserved(id).await;
                    let task = rig.ledger.tasks(1).await.unwrap().remove(0);
                    let _ = rig.ledger.release_task(task.id, "w", rig.clock.now()).await;
                } else {
                    break;
                }
            }
            if rig.run(id).await.state == RunState::Active {
                rig.finish().await;
            }
            rig.update_delivered(id).await;
            assert_eq!(rig.platform.members(), ids(users));
        }
    }
}

/// Polls at most `polls` times. Returns whether the future was dropped before its end.
async fn interrupted<F: Future>(future: F, polls: u64) -> bool {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return std::task::Poll::Ready(true);
        }
        left -= 1;
        future.as_mut().poll(cx).map(|_| false)
    })
    .await
}
