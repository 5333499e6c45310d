//! Runs, tasks, receipts and checks, one caller at a time.

use throng_model::TaskId;

use super::*;
use crate::{
    BatchOutcome, BatchState, Check, DeliveredRecord, ForeignAudience, Hold, HoldCause, Receipt,
    RunState, TaskState, Verdict,
};

fn all_sent(rows: u64) -> BatchOutcome {
    BatchOutcome { sent: rows, ..BatchOutcome::default() }
}

pub(super) async fn a_sync_has_one_open_run(ledger: &dyn Ledger) {
    let run = new_run("ads", 3, &[10, 5]);
    let id = ledger.plan_run(&run, at(1)).await.unwrap().unwrap();
    assert_eq!(ledger.plan_run(&run, at(2)).await.unwrap(), None);
    let other = ledger.plan_run(&new_run("more", 3, &[]), at(3)).await;
    let other = other.unwrap().unwrap();
    let found = ledger.run(id).await.unwrap();
    assert_eq!(found.state, RunState::Active);
    assert_eq!((found.read, found.adds, found.pending), (15, 15, 15));
    assert_eq!((found.from_version, found.to_version), (None, 3));
    assert_eq!((found.created_at, found.finished_at), (at(1), None));
    let ids = |runs: Vec<crate::SyncRun>| runs.iter().map(|r| r.id).collect::<Vec<_>>();
    assert_eq!(ids(ledger.runs(None, 9).await.unwrap()), [other, id]);
    assert_eq!(ids(ledger.runs(None, 1).await.unwrap()), [other]);
    let of_one = ledger.runs(Some(&run.sync), 9).await.unwrap();
    assert_eq!(ids(of_one), [id]);
    assert_eq!(ledger.tasks(9).await.unwrap().len(), 2);
    let mut wrong = new_run("wrong", 1, &[10]);
    wrong.removes = 1;
    assert_refused(ledger.plan_run(&wrong, at(4)).await);
    assert_eq!(ledger.runs(None, 9).await.unwrap().len(), 2);
}

pub(super) async fn batches_are_ranked_per_operation(ledger: &dyn Ledger) {
    let mut run = new_run("ads", 2, &[]);
    run.from_version = Some(1);
    (run.adds, run.removes, run.users_removed) = (25, 12, 11);
    run.batches = vec![
        (Operation::Remove, 10),
        (Operation::Remove, 2),
        (Operation::Add, 10),
        (Operation::Add, 15),
    ];
    let task = running(ledger, &run, "w").await;
    assert_eq!((task.batches, task.batches_done), (4, 0));
    assert_eq!(ledger.run(task.run).await.unwrap().users_removed, 11);
    let found = ledger.batches(task.id).await.unwrap();
    let shown: Vec<_> =
        found.iter().map(|b| (b.number, b.operation, b.first_rank, b.rows)).collect();
    assert_eq!(
        shown,
        [
            (0, Operation::Remove, 0, 10),
            (1, Operation::Remove, 10, 2),
            (2, Operation::Add, 0, 10),
            (3, Operation::Add, 10, 15),
        ]
    );
    assert!(found.iter().all(|b| b.state == BatchState::Pending && b.outcome.is_none()));
}

pub(super) async fn hundreds_of_batches_are_planned(ledger: &dyn Ledger) {
    let rows = vec![10_000; 2_345];
    let task = running(ledger, &new_run("ads", 1, &rows), "w").await;
    let found = ledger.batches(task.id).await.unwrap();
    assert_eq!(found.len(), 2_345);
    assert!(
        found.iter().zip(0u32..).all(|(b, number)| {
            b.number == number && b.first_rank == u64::from(number) * 10_000
        })
    );
    assert_eq!(ledger.run(task.run).await.unwrap().pending, 23_450_000);
}

pub(super) async fn a_held_run_waits_for_approval(ledger: &dyn Ledger) {
    let mut run = new_run("ads", 1, &[10]);
    run.held = Some(Hold::new(HoldCause::Guard, "removes 90%"));
    let id = ledger.plan_run(&run, at(1)).await.unwrap().unwrap();
    let found = ledger.run(id).await.unwrap();
    assert_eq!(found.state, RunState::Held);
    assert_eq!(found.reason.as_deref(), Some("removes 90%"));
    assert_eq!(claim(ledger, "w", 9).await, None);
    assert_eq!(ledger.plan_run(&run, at(2)).await.unwrap(), None);
    assert_wrong_state(ledger.approve_run(id, true, at(10)).await);
    ledger.approve_run(id, false, at(10)).await.unwrap();
    assert_wrong_state(ledger.approve_run(id, false, at(11)).await);
    assert_eq!(ledger.run(id).await.unwrap().state, RunState::Active);
    let task = claim(ledger, "w", 10).await.unwrap();
    assert_eq!((task.run, task.not_before), (id, at(10)));
}

pub(super) async fn tasks_are_claimed_by_priority_then_age(ledger: &dyn Ledger) {
    for (n, name, priority) in [(1, "a", 0), (2, "b", 5), (3, "c", 5), (4, "d", -1)] {
        let mut run = new_run(name, 1, &[1]);
        run.priority = priority;
        ledger.plan_run(&run, at(n)).await.unwrap();
    }
    assert_eq!(claim(ledger, "w", 0).await, None, "none is due yet");
    let mut order = Vec::new();
    while let Some(task) = claim(ledger, "w", 9).await {
        assert_eq!(task.state, TaskState::Running);
        assert_eq!(task.holder.as_deref(), Some("w"));
        assert_eq!(task.lease_until, Some(at(69)));
        order.push(task.sync.to_string());
    }
    assert_eq!(order, ["b", "c", "a", "d"]);
}

pub(super) async fn one_task_is_claimed_by_its_number(ledger: &dyn Ledger) {
    for name in ["a", "b", "c"] {
        ledger.plan_run(&new_run(name, 1, &[1]), at(0)).await.unwrap();
    }
    let ids: Vec<_> = ledger.tasks(9).await.unwrap().iter().map(|t| t.id).collect();
    let claim = async |place: usize, holder: &str, at_most: u32, n: u64| {
        ledger.claim_task(ids[place], holder, at_most, at(n), at(n + 60)).await.unwrap()
    };
    let first = claim(1, "w", 2, 1).await.unwrap();
    assert_eq!((first.id, first.holder.as_deref()), (ids[1], Some("w")));
    assert_eq!(claim(1, "x", 2, 2).await, None, "it is already claimed");
    assert!(claim(0, "x", 2, 2).await.is_some());
    assert_eq!(claim(2, "y", 2, 3).await, None, "two of this destination are running");
    assert!(claim(2, "y", 3, 3).await.is_some());
    // The first two leases end at 61 and 62.
    assert_eq!(claim(1, "z", 2, 60).await, None);
    assert_eq!(claim(1, "z", 3, 61).await.unwrap().holder.as_deref(), Some("z"));
    ledger.fail_task(ids[0], "x", "no", Some(at(100)), true, at(5)).await.unwrap();
    assert_eq!(claim(0, "x", 9, 99).await, None, "not before its time");
    assert!(claim(0, "x", 9, 100).await.is_some());
}

pub(super) async fn due_tasks_are_enqueued_again_after_a_while(ledger: &dyn Ledger) {
    for (name, priority) in [("a", 0), ("b", 7), ("c", 0)] {
        let mut run = new_run(name, 1, &[1]);
        run.priority = priority;
        ledger.plan_run(&run, at(0)).await.unwrap();
    }
    let due = async |before: u64, now: u64| -> Vec<String> {
        let tasks = ledger.tasks_to_enqueue(at(before), at(now), 9, 9).await.unwrap();
        tasks.iter().map(|task| task.sync.to_string()).collect()
    };
    assert_eq!(due(0, 1).await, ["b", "a", "c"]);
    let tasks = ledger.tasks_to_enqueue(at(0), at(1), 9, 2).await.unwrap();
    let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
    ledger.mark_tasks_enqueued(&ids, at(10)).await.unwrap();
    assert_eq!(due(5, 11).await, ["c"]);
    assert_eq!(due(11, 12).await, ["b", "a", "c"], "messages may be lost");
    let taken = ledger.claim_task(ids[0], "w", 9, at(12), at(72)).await.unwrap().unwrap();
    assert_eq!(due(11, 13).await, ["a", "c"], "a running task is not due");
    ledger.mark_tasks_enqueued(&ids, at(20)).await.unwrap();
    ledger.fail_task(taken.id, "w", "later", Some(at(30)), true, at(21)).await.unwrap();
    assert_eq!(due(15, 29).await, ["c"]);
    assert_eq!(due(15, 30).await, ["b", "c"], "a retry that becomes due is enqueued immediately");
}

pub(super) async fn each_destination_has_few_tasks_enqueued_the_urgent_ones(ledger: &dyn Ledger) {
    for (name, to, priority) in
        [("a", "x", 0), ("b", "x", 0), ("c", "x", 0), ("d", "y", 0), ("e", "x", 5)]
    {
        let mut run = new_run(name, 1, &[1]);
        (run.destination, run.priority) = (destination(to), priority);
        ledger.plan_run(&run, at(0)).await.unwrap();
    }
    let due = async |before: u64| {
        let tasks = ledger.tasks_to_enqueue(at(before), at(1), 2, 9).await.unwrap();
        ledger
            .mark_tasks_enqueued(&tasks.iter().map(|t| t.id).collect::<Vec<_>>(), at(5))
            .await
            .unwrap();
        tasks.into_iter().map(|task| (task.sync.to_string(), task.id)).collect::<Vec<_>>()
    };
    let names = |due: &[(String, TaskId)]| due.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
    let first = due(2).await;
    assert_eq!(names(&first), ["e", "a", "d"], "two of x and one of y");
    assert_eq!(due(2).await, [], "the others wait until one is claimed");
    ledger.claim_task(first[0].1, "w", 9, at(6), at(66)).await.unwrap().unwrap();
    assert_eq!(names(&due(2).await), ["b"]);
    let mut urgent = new_run("f", 1, &[1]);
    (urgent.destination, urgent.priority) = (destination("x"), 9);
    ledger.plan_run(&urgent, at(0)).await.unwrap();
    assert_eq!(names(&due(2).await), ["f"], "an urgent task does not wait");
}

pub(super) async fn checks_are_enqueued(ledger: &dyn Ledger) {
    let task = running(ledger, &new_run("ads", 1, &[]), "w").await;
    assert_eq!(ledger.checks_to_enqueue(at(99), 9).await.unwrap(), []);
    assert_eq!(ledger.unchecked_task(task.id).await.unwrap(), None);
    ledger.put_platform_audience(&task.sync, "1").await.unwrap();
    ledger.complete_task(task.id, "w", at(5)).await.unwrap();
    let waiting = async |before: u64| ledger.checks_to_enqueue(at(before), 9).await.unwrap().len();
    assert_eq!(waiting(0).await, 1);
    ledger.mark_checks_enqueued(&[task.id], at(6)).await.unwrap();
    assert_eq!((waiting(6).await, waiting(7).await), (0, 1));
    assert_eq!(ledger.unchecked_task(task.id).await.unwrap().unwrap().id, task.id);
    let (run, verdict) = (task.run, crate::Verdict::Passed);
    let check = crate::Check { run, task: task.id, verdict, reasons: vec![], at: at(8) };
    ledger.put_check(&check).await.unwrap();
    assert_eq!(ledger.unchecked_task(task.id).await.unwrap(), None);
}

pub(super) async fn an_accounts_queue_is_held_and_approved(ledger: &dyn Ledger) {
    for (name, to) in [("a", "x"), ("b", "x"), ("c", "x"), ("d", "y")] {
        let mut run = new_run(name, 1, &[]);
        run.destination = destination(to);
        ledger.plan_run(&run, at(0)).await.unwrap();
    }
    let (x, y) = (destination("x"), destination("y"));
    for (n, verdict) in [(2, crate::Verdict::Passed), (4, crate::Verdict::Failed)] {
        let task = claim(ledger, "w", n).await.unwrap();
        ledger.put_platform_audience(&task.sync, "1").await.unwrap();
        ledger.complete_task(task.id, "w", at(n)).await.unwrap();
        let (run, reasons) = (task.run, vec!["because".to_owned()]);
        let check = crate::Check { run, task: task.id, verdict, reasons, at: at(n + 1) };
        ledger.put_check(&check).await.unwrap();
    }
    assert_eq!(
        ledger.verdicts(&x, at(0), 9).await.unwrap(),
        [crate::Verdict::Failed, crate::Verdict::Passed]
    );
    assert_eq!(ledger.verdicts(&x, at(0), 1).await.unwrap(), [crate::Verdict::Failed]);
    // Those were at 3 and 5.
    assert_eq!(ledger.verdicts(&x, at(3), 9).await.unwrap(), [crate::Verdict::Failed]);
    assert_eq!(ledger.verdicts(&x, at(5), 9).await.unwrap(), []);
    assert_eq!(ledger.verdicts(&y, at(0), 9).await.unwrap(), []);

    assert_eq!(ledger.hold_destination(&x, "checks fail").await.unwrap(), 1);
    assert_eq!(ledger.hold_destination(&x, "again").await.unwrap(), 0);
    let task = claim(ledger, "w", 9).await.unwrap();
    assert_eq!(task.sync, sync_name("d"), "the other account continues");
    assert_eq!(claim(ledger, "w", 9).await, None);
    let held = ledger.runs(Some(&sync_name("c")), 1).await.unwrap().remove(0);
    assert_eq!((held.state, held.reason.as_deref()), (RunState::Held, Some("checks fail")));
    assert_eq!(ledger.approve_destination(&x, None, at(10)).await.unwrap(), 1);
    let approved = ledger.run(held.id).await.unwrap();
    assert_eq!((approved.state, approved.reason), (RunState::Active, None));
    assert_eq!(ledger.approve_destination(&x, None, at(10)).await.unwrap(), 0);
    assert_eq!(claim(ledger, "w", 11).await.unwrap().sync, sync_name("c"));
}

pub(super) async fn what_an_account_held_is_planned_again(ledger: &dyn Ledger) {
    let account = destination("shop");
    let run = |name: &str, held: Option<HoldCause>, plan: Option<&str>| NewRun {
        // The reason is not used where the cause is recorded.
        held: held.map(|cause| Hold::new(cause, "checks fail")),
        plan: plan.map(str::to_owned),
        ..new_run(name, 1, &[10])
    };
    for run in [
        run("planned", Some(HoldCause::Account), Some("plans/a")),
        run("guarded", Some(HoldCause::Guard), Some("plans/b")),
        run("adopts", Some(HoldCause::Adoption), Some("plans/c")),
        run("earlier", Some(HoldCause::Account), None),
        run("queued", None, Some("plans/d")),
    ] {
        ledger.plan_run(&run, at(1)).await.unwrap().unwrap();
    }
    assert_eq!(ledger.hold_destination(&account, "many checks failed").await.unwrap(), 1);
    assert_eq!(ledger.approve_destination(&account, Some("checks fail"), at(2)).await.unwrap(), 3);
    let newest = async |name| ledger.runs(Some(&sync_name(name)), 1).await.unwrap().pop();
    for name in ["planned", "queued"] {
        assert_eq!(newest(name).await, None, "{name}");
    }
    assert_eq!(newest("earlier").await.unwrap().state, RunState::Active);
    // Each of these causes is approved by itself.
    for name in ["guarded", "adopts"] {
        assert_eq!(newest(name).await.unwrap().state, RunState::Held, "{name}");
    }
    let again = run("planned", None, Some("plans/e"));
    assert!(ledger.plan_run(&again, at(3)).await.unwrap().is_some());
}

pub(super) async fn a_task_with_an_expired_lease_can_be_claimed(ledger: &dyn Ledger) {
    let task = running(ledger, &new_run("ads", 1, &[10]), "old").await;
    assert_eq!(claim(ledger, "new", 60).await, None);
    ledger.renew_task_lease(task.id, "old", at(90)).await.unwrap();
    assert_eq!(claim(ledger, "new", 89).await, None);
    let taken = claim(ledger, "new", 90).await.unwrap();
    assert_eq!((taken.id, taken.failures), (task.id, 0));
    let id = task.id;
    assert_lease_lost(ledger.renew_task_lease(id, "old", at(200)).await);
    assert_lease_lost(ledger.finish_batch(id, "old", 0, &all_sent(10)).await);
    assert_lease_lost(ledger.fail_task(id, "old", "x", None, true, at(91)).await);
    assert_lease_lost(ledger.release_task(id, "old", at(91)).await);
    assert_lease_lost(ledger.complete_task(id, "old", at(91)).await);
    assert_eq!(ledger.task(id).await.unwrap(), taken);
    assert_eq!(ledger.run(task.run).await.unwrap().pending, 10);
}

pub(super) async fn failures_are_counted_and_reset(ledger: &dyn Ledger) {
    let task = running(ledger, &new_run("ads", 1, &[10, 20]), "w").await;
    let retried =
        ledger.fail_task(task.id, "w", "HTTP 500", Some(at(10)), true, at(2)).await.unwrap();
    assert_eq!(retried.state, TaskState::Queued);
    assert_eq!((retried.failures, retried.not_before), (1, at(10)));
    assert_eq!(retried.last_error.as_deref(), Some("HTTP 500"));
    assert_eq!(claim(ledger, "w", 9).await, None, "not before its time");
    claim(ledger, "w", 10).await.unwrap();
    let throttled =
        ledger.fail_task(task.id, "w", "throttled", Some(at(20)), false, at(11)).await.unwrap();
    assert_eq!(throttled.failures, 1, "a throttled request is not a failure");
    claim(ledger, "w", 20).await.unwrap();
    let finished = ledger.finish_batch(task.id, "w", 1, &all_sent(20)).await;
    finished.unwrap();
    let found = ledger.task(task.id).await.unwrap();
    assert_eq!((found.failures, found.batches_done), (0, 1));
}

pub(super) async fn a_failed_task_fails_its_run_and_can_be_requeued(ledger: &dyn Ledger) {
    let task = running(ledger, &new_run("ads", 1, &[10, 20]), "w").await;
    assert_wrong_state(ledger.requeue_task(task.id, at(2)).await);
    ledger.finish_batch(task.id, "w", 0, &all_sent(10)).await.unwrap();
    let failed = ledger.fail_task(task.id, "w", "token revoked", None, true, at(3)).await.unwrap();
    assert_eq!(failed.state, TaskState::Failed);
    assert_eq!((failed.failures, failed.finished_at), (1, Some(at(3))));
    let run = ledger.run(task.run).await.unwrap();
    assert_eq!(run.state, RunState::Failed);
    assert_eq!((run.sent, run.pending), (10, 20));
    assert_eq!(run.reason.as_deref(), Some("token revoked"));
    assert_eq!(run.finished_at, Some(at(3)));
    assert_eq!(claim(ledger, "w", 500).await, None);

    ledger.requeue_task(task.id, at(600)).await.unwrap();
    assert_wrong_state(ledger.requeue_task(task.id, at(600)).await);
    let run = ledger.run(task.run).await.unwrap();
    assert_eq!((run.state, run.finished_at), (RunState::Active, None));
    let again = claim(ledger, "w", 600).await.unwrap();
    assert_eq!((again.id, again.failures), (task.id, 0));
    assert_eq!(again.batches_done, 1, "finished batches are not repeated");
}

pub(super) async fn a_sync_is_incomplete_until_its_newest_run_completes(ledger: &dyn Ledger) {
    let incomplete_syncs = async || {
        let found = ledger.incomplete_syncs().await.unwrap();
        found.into_iter().map(|(sync, state)| (sync.to_string(), state)).collect::<Vec<_>>()
    };
    let entry = |sync: &str, state| (sync.to_owned(), state);
    assert_eq!(incomplete_syncs().await, []);
    let failing = running(ledger, &new_run("ads", 1, &[10]), "w").await;
    let mut held = new_run("more", 1, &[10]);
    held.held = Some(Hold::new(HoldCause::Guard, "removes 90%"));
    ledger.plan_run(&held, at(1)).await.unwrap().unwrap();
    let both = [entry("ads", RunState::Active), entry("more", RunState::Held)];
    assert_eq!(incomplete_syncs().await, both);
    ledger.fail_task(failing.id, "w", "x", None, true, at(2)).await.unwrap();
    assert_eq!(incomplete_syncs().await[0], entry("ads", RunState::Failed));
    let next = running(ledger, &new_run("ads", 2, &[]), "w").await;
    assert_eq!(incomplete_syncs().await[0], entry("ads", RunState::Active));
    ledger.put_platform_audience(&next.sync, "p1").await.unwrap();
    ledger.complete_task(next.id, "w", at(3)).await.unwrap();
    let only_held = [entry("more", RunState::Held)];
    assert_eq!(incomplete_syncs().await, only_held, "the failed run is not the newest");
}

pub(super) async fn a_replaced_run_is_not_requeued(ledger: &dyn Ledger) {
    let old = running(ledger, &new_run("ads", 1, &[10]), "w").await;
    ledger.fail_task(old.id, "w", "x", None, true, at(2)).await.unwrap();
    running(ledger, &new_run("ads", 2, &[10]), "w").await;
    assert_wrong_state(ledger.requeue_task(old.id, at(3)).await);
}

pub(super) async fn a_task_completes_only_when_every_batch_is_done(ledger: &dyn Ledger) {
    let task = running(ledger, &new_run("ads", 7, &[10, 20]), "w").await;
    let id = task.id;
    let first = ledger.finish_batch(id, "w", 0, &all_sent(10)).await;
    first.unwrap();
    assert_wrong_state(ledger.complete_task(id, "w", at(2)).await);
    let second = ledger.finish_batch(id, "w", 1, &all_sent(20)).await;
    second.unwrap();
    assert_wrong_state(ledger.complete_task(id, "w", at(2)).await);
    ledger.put_platform_audience(&task.sync, "p1").await.unwrap();
    ledger.complete_task(id, "w", at(3)).await.unwrap();
    let done = ledger.task(id).await.unwrap();
    assert_eq!((done.state, done.holder), (TaskState::Done, None));
    let run = ledger.run(task.run).await.unwrap();
    assert_eq!((run.state, run.sent), (RunState::Completed, 30));
    assert_eq!(run.finished_at, Some(at(3)));
    let audience = ledger.platform_audience(&task.sync).await.unwrap().unwrap();
    assert_eq!(audience.delivered_version, Some(7));
    assert_eq!(audience.delivered_at, Some(at(3)));
    assert_lease_lost(ledger.complete_task(id, "w", at(4)).await);
    // A next run can be planned. It has no batches, so it can be completed immediately.
    let next = running(ledger, &new_run("ads", 8, &[]), "w").await;
    ledger.complete_task(next.id, "w", at(5)).await.unwrap();
    let delivered = ledger.delivered().await.unwrap();
    assert_eq!(delivered.len(), 1);
    assert_eq!(delivered[0].1.delivered_version, Some(8));
}

pub(super) async fn a_released_task_is_due_immediately(ledger: &dyn Ledger) {
    let task = running(ledger, &new_run("ads", 1, &[10]), "w").await;
    ledger.release_task(task.id, "w", at(2)).await.unwrap();
    let found = ledger.task(task.id).await.unwrap();
    assert_eq!((found.state, found.failures), (TaskState::Queued, 0));
    assert_eq!(claim(ledger, "x", 2).await.unwrap().id, task.id);
}

pub(super) async fn tasks_are_listed_and_counted_by_state(ledger: &dyn Ledger) {
    let mut held = new_run("held", 1, &[1]);
    held.held = Some(Hold::new(HoldCause::Guard, "guard"));
    for name in ["f1", "f2", "r"] {
        let task = running(ledger, &new_run(name, 1, &[1]), "w").await;
        if name != "r" {
            ledger.fail_task(task.id, "w", "x", None, true, at(3)).await.unwrap();
        }
    }
    let mut urgent = new_run("urgent", 1, &[1]);
    urgent.priority = 9;
    for run in [&held, &new_run("q", 1, &[1]), &urgent] {
        ledger.plan_run(run, at(5)).await.unwrap();
    }
    let all = ledger.tasks(10).await.unwrap();
    let names: Vec<_> = all.iter().map(|t| t.sync.as_str()).collect();
    assert_eq!(names, ["r", "urgent", "held", "q", "f2", "f1"]);
    let five = ledger.tasks(5).await.unwrap();
    assert_eq!(five, all[..5]);
    assert_eq!(ledger.tasks(1).await.unwrap(), all[..1]);
    let counts = ledger.task_counts().await.unwrap();
    for (state, expected) in [
        (TaskState::Queued, 2),
        (TaskState::Running, 1),
        (TaskState::Failed, 2),
        (TaskState::Held, 1),
    ] {
        assert!(counts.contains(&(state, expected)), "{counts:?}");
    }
}

pub(super) async fn receipts_are_listed_in_order(ledger: &dyn Ledger) {
    let task = running(ledger, &new_run("ads", 1, &[10]), "w").await;
    let receipt = |status, n| Receipt {
        task: task.id,
        batch: 0,
        operation: Operation::Add,
        rows: 10,
        received: 10,
        invalid: 1,
        invalid_reasons: [("bad hash".to_owned(), 1)].into(),
        http_status: status,
        error_code: (status != 200).then_some(-17),
        platform_ref: Some(format!("session-{n}")),
        at: at(n),
    };
    // The clock may go back; the order is the order of the calls.
    for (status, n) in [(0, 5), (500, 4), (200, 6)] {
        ledger.add_receipt(&receipt(status, n)).await.unwrap();
    }
    let found = ledger.receipts(task.id).await.unwrap();
    assert_eq!(found, [receipt(0, 5), receipt(500, 4), receipt(200, 6)]);
    let mut stray = receipt(200, 7);
    stray.batch = 1;
    assert_not_found(ledger.add_receipt(&stray).await);
    assert_eq!(ledger.run(task.run).await.unwrap().pending, 10);
}

pub(super) async fn checks_replace_each_other(ledger: &dyn Ledger) {
    let mut done = Vec::new();
    for (n, name) in [(3, "a"), (4, "b")] {
        let task = running(ledger, &new_run(name, 1, &[]), "w").await;
        assert!(!ledger.unchecked_tasks(9).await.unwrap().contains(&task));
        ledger.put_platform_audience(&task.sync, "p").await.unwrap();
        ledger.complete_task(task.id, "w", at(n)).await.unwrap();
        done.push(ledger.task(task.id).await.unwrap());
    }
    assert_eq!(ledger.unchecked_tasks(9).await.unwrap(), done);
    assert_eq!(ledger.unchecked_tasks(1).await.unwrap(), done[..1]);
    let check = |task: &Task, verdict, n| Check {
        run: task.run,
        task: task.id,
        verdict,
        reasons: vec!["size differs".to_owned(), "by 4%".to_owned()],
        at: at(n),
    };
    for (task, verdict, n) in
        [(0, Verdict::Suspect, 5), (1, Verdict::Failed, 6), (0, Verdict::Passed, 7)]
    {
        let verdict = check(&done[task], verdict, n);
        ledger.put_check(&verdict).await.unwrap();
    }
    assert!(ledger.unchecked_tasks(9).await.unwrap().is_empty());
    let newest = check(&done[0], Verdict::Passed, 7);
    let found = ledger.checks(9).await.unwrap();
    assert_eq!(found, [newest, check(&done[1], Verdict::Failed, 6)]);
    assert_eq!(ledger.checks(1).await.unwrap().len(), 1);
    assert_eq!(ledger.check_of(done[1].id).await.unwrap(), Some(found[1].clone()));
    assert_eq!(ledger.check_of(TaskId(999)).await.unwrap(), None);
    let mut stray = check(&done[0], Verdict::Passed, 8);
    stray.task = throng_model::TaskId(999);
    assert_not_found(ledger.put_check(&stray).await);
}

pub(super) async fn a_platform_audience_keeps_its_first_id(ledger: &dyn Ledger) {
    let sync = sync_name("ads");
    let put = async |id| ledger.put_platform_audience(&sync, id).await.unwrap();
    let first = put("1").await;
    assert_eq!(first.platform_id, "1");
    assert_eq!((first.delivered_version, first.delivered_at), (None, None));
    assert_eq!(put("2").await, first);
    assert_eq!(ledger.platform_audience(&sync).await.unwrap(), Some(first));
}

pub(super) async fn what_was_delivered_is_recorded_with_its_runs(ledger: &dyn Ledger) {
    let mut run = new_run("ads", 1, &[10]);
    run.plan = Some("plans/a".to_owned());
    run.normalised = ReasonCounts::from([("EMAIL.mailto_removed".to_owned(), 2)]);
    let task = running(ledger, &run, "w").await;
    ledger.put_platform_audience(&run.sync, "77").await.unwrap();
    let outcome = BatchOutcome { refused: vec![(2, 4)], ..all_sent(10) };
    ledger.finish_batch(task.id, "w", 0, &outcome).await.unwrap();
    assert!(ledger.unrecorded_runs().await.unwrap().is_empty(), "it has not ended");
    ledger.complete_task(task.id, "w", at(5)).await.unwrap();
    let ended = ledger.unrecorded_runs().await.unwrap();
    assert_eq!((ended[0].id, &ended[0].plan), (task.run, &run.plan));
    assert_eq!(ended[0].normalised, run.normalised);
    assert_eq!(ledger.batches(task.id).await.unwrap()[0].outcome, Some(outcome));
    let record = DeliveredRecord {
        sync: run.sync.clone(),
        account: "meta 1".to_owned(),
        columns: "EMAIL,PHONE".to_owned(),
        identifiers: "0a".to_owned(),
        state: Some("delivered/b".to_owned()),
        users: 8,
        run: task.run,
        due: 2,
        retry_at: Some(at(9)),
        tries: 1,
        replace: true,
        requested: true,
        tables: Some("[]".to_owned()),
    };
    for record in [record.clone(), DeliveredRecord { due: 0, retry_at: None, ..record }] {
        ledger.put_delivered_record(&record, &[task.run]).await.unwrap();
        assert_eq!(ledger.delivered_record(&run.sync).await.unwrap(), Some(record.clone()));
        assert_eq!(ledger.delivered_records().await.unwrap(), [record]);
    }
    assert_eq!(ledger.delivered_record(&sync_name("other")).await.unwrap(), None);
    // Only who has read the newest record replaces it: otherwise a request would be lost.
    let known = ledger.delivered_record(&run.sync).await.unwrap().unwrap();
    let requested = DeliveredRecord { tries: 5, ..known.clone() };
    let replaced = ledger.replace_delivered_record(Some(&known), &requested, &[]).await;
    assert!(replaced.unwrap());
    let late = DeliveredRecord { requested: false, ..known.clone() };
    for before in [Some(&known), None] {
        let replaced = ledger.replace_delivered_record(before, &late, &[]).await;
        assert!(!replaced.unwrap(), "{before:?}");
    }
    assert_eq!(ledger.delivered_record(&run.sync).await.unwrap(), Some(requested));
    // The run that is planned for a request ends the request, whatever becomes of the run.
    let next = ledger.plan_run(&new_run("ads", 1, &[10]), at(10)).await.unwrap().unwrap();
    let known = ledger.delivered_records().await.unwrap().remove(0);
    assert_eq!((known.replace, known.requested), (true, false), "{next}");
    assert!(ledger.unrecorded_runs().await.unwrap().is_empty());
    let named = ledger.referenced_objects().await.unwrap();
    assert_eq!(named.objects.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["delivered/b"]);
    ledger.record_delivered_version(&run.sync, 4, at(20)).await.unwrap();
    let there = ledger.platform_audience(&run.sync).await.unwrap().unwrap();
    assert_eq!((there.delivered_version, there.delivered_at), (Some(4), Some(at(20))));
    assert_not_found(ledger.record_delivered_version(&sync_name("other"), 4, at(20)).await);
}

pub(super) async fn what_was_delivered_is_forgotten(ledger: &dyn Ledger) {
    let mut run = new_run("ads", 1, &[10]);
    run.plan = Some("plans/a".to_owned());
    let task = running(ledger, &run, "w").await;
    ledger.put_platform_audience(&run.sync, "77").await.unwrap();
    for _ in 0..2 {
        ledger.forget_delivered(&run.sync, "recreated", at(9)).await.unwrap();
    }
    assert_eq!(ledger.platform_audience(&run.sync).await.unwrap(), None);
    let ended = ledger.run(task.run).await.unwrap();
    assert_eq!((ended.state, ended.plan), (RunState::Failed, None));
    assert_eq!(ledger.task(task.id).await.unwrap().state, TaskState::Failed);
    assert!(ledger.plan_run(&run, at(10)).await.unwrap().is_some());
}

pub(super) async fn foreign_audiences_are_recorded_until_the_sync_has_its_own(ledger: &dyn Ledger) {
    let run = new_run("ads", 1, &[10]);
    assert_eq!(ledger.foreign_audiences().await.unwrap(), []);
    let task = running(ledger, &run, "w").await;
    for id in ["5", "6"] {
        ledger.put_foreign_audience(&run.sync, id, task.run).await.unwrap();
    }
    let found = ForeignAudience {
        sync: run.sync.clone(),
        platform_id: "6".to_owned(),
        run: task.run,
        found: true,
    };
    assert_eq!(ledger.foreign_audiences().await.unwrap(), std::slice::from_ref(&found));
    ledger.put_platform_audience(&run.sync, "7").await.unwrap();
    assert_eq!(ledger.foreign_audiences().await.unwrap(), []);
    // The forgotten audience of a sync has the users that the sync has sent.
    for _ in 0..2 {
        ledger.forget_delivered(&run.sync, "recreated", at(9)).await.unwrap();
        let left = ForeignAudience { platform_id: "7".to_owned(), found: false, ..found.clone() };
        assert_eq!(ledger.foreign_audiences().await.unwrap(), [left]);
    }
}
