//! `read = sent + skipped + rejected + pending`, at any time.

use std::collections::BTreeMap;

use throng_model::{Entropy, SplitMix64};

use super::*;
use crate::{BatchOutcome, BatchState, ReasonCounts, RunState, SyncRun};

fn counts(list: &[(&str, u64)]) -> ReasonCounts {
    list.iter().map(|(r, n)| ((*r).to_owned(), *n)).collect()
}

fn total(reasons: &ReasonCounts) -> u64 {
    reasons.values().sum()
}

fn users_in(run: &SyncRun) -> u64 {
    run.sent + total(&run.skipped) + total(&run.rejected) + run.pending
}

pub(super) async fn finishing_a_batch_twice_counts_once(ledger: &dyn Ledger) {
    let task = running(ledger, &new_run("ads", 1, &[10, 10]), "w").await;
    let outcome = BatchOutcome {
        sent: 5,
        skipped: counts(&[("no identifier", 2), ("no consent", 1)]),
        rejected: counts(&[("bad hash", 2)]),
        refused: vec![(3, 4), (7, 8)],
    };
    for _ in 0..3 {
        ledger.finish_batch(task.id, "w", 0, &outcome).await.unwrap();
    }
    // Another outcome of a batch that has one does nothing either.
    let other = BatchOutcome { sent: 10, ..BatchOutcome::default() };
    ledger.finish_batch(task.id, "w", 0, &other).await.unwrap();
    let more = BatchOutcome {
        sent: 8,
        skipped: counts(&[("no identifier", 1)]),
        rejected: counts(&[("too old", 1)]),
        ..BatchOutcome::default()
    };
    ledger.finish_batch(task.id, "w", 1, &more).await.unwrap();
    let run = ledger.run(task.run).await.unwrap();
    assert_eq!((run.sent, run.pending, run.read), (13, 0, 20));
    assert_eq!(run.skipped, counts(&[("no consent", 1), ("no identifier", 3)]));
    assert_eq!(run.rejected, counts(&[("bad hash", 2), ("too old", 1)]));
    let batches = ledger.batches(task.id).await.unwrap();
    assert_eq!(batches[0].outcome, Some(outcome));
    assert_eq!(ledger.task(task.id).await.unwrap().batches_done, 2);
}

pub(super) async fn outcomes_that_do_not_add_up_are_refused(ledger: &dyn Ledger) {
    let task = running(ledger, &new_run("ads", 1, &[10]), "w").await;
    for sent in [0, 9, 11, u64::MAX] {
        let outcome = BatchOutcome { sent, ..BatchOutcome::default() };
        assert_refused(ledger.finish_batch(task.id, "w", 0, &outcome).await);
    }
    let outcome = BatchOutcome::default();
    assert_not_found(ledger.finish_batch(task.id, "w", 1, &outcome).await);
    let run = ledger.run(task.run).await.unwrap();
    assert_eq!((run.sent, run.pending), (0, 10));
    let batches = ledger.batches(task.id).await.unwrap();
    assert_eq!(batches[0].state, BatchState::Pending);
}

/// A random outcome of a batch of `rows` users.
fn random_outcome(random: &mut SplitMix64, rows: u64) -> BatchOutcome {
    let sent = random.below(rows + 1);
    let skipped = random.below(rows - sent + 1);
    let rejected = rows - sent - skipped;
    let one = |kind: &str, pick: u64, n: u64| {
        if n == 0 { BTreeMap::new() } else { counts(&[(format!("{kind} {pick}").as_str(), n)]) }
    };
    BatchOutcome {
        sent,
        skipped: one("skipped", random.below(3), skipped),
        rejected: one("rejected", random.below(3), rejected),
        ..BatchOutcome::default()
    }
}

pub(super) async fn no_sequence_of_calls_loses_a_user(ledger: &dyn Ledger) {
    for seed in 0..12 {
        let mut random = SplitMix64::new(seed);
        let rows: Vec<u64> = (0..1 + random.below(8)).map(|_| random.below(50)).collect();
        random_calls(ledger, &mut random, &new_run(&format!("s{seed}"), 1, &rows)).await;
    }
}

/// Two workers, expiring leases, failures, repeated calls and requeues in random order, until the
/// run is completed. After each call the counts must be those of a model.
async fn random_calls(ledger: &dyn Ledger, random: &mut SplitMix64, plan: &NewRun) {
    let id = ledger.plan_run(plan, at(0)).await.unwrap().unwrap();
    ledger.put_platform_audience(&plan.sync, "p").await.unwrap();
    let task = ledger.tasks(1).await.unwrap()[0].clone();
    assert_eq!(task.run, id);
    let mut finished: BTreeMap<u32, BatchOutcome> = BTreeMap::new();
    let mut now = 1;
    for step in 0..500 {
        now += random.below(40);
        let worker = if random.below(2) == 0 { "w0" } else { "w1" };
        let holds = ledger.task(task.id).await.unwrap().holder.as_deref() == Some(worker);
        match random.below(8) {
            0..=4 if holds && !plan.batches.is_empty() => {
                let number = random.below(plan.batches.len() as u64) as u32;
                let outcome = random_outcome(random, plan.batches[number as usize].1);
                ledger.finish_batch(task.id, worker, number, &outcome).await.unwrap();
                finished.entry(number).or_insert(outcome);
            }
            5 if holds => {
                let retry_at = (random.below(4) > 0).then(|| at(now + random.below(30)));
                ledger.fail_task(task.id, worker, "x", retry_at, true, at(now)).await.unwrap();
            }
            6 if holds && finished.len() == plan.batches.len() => {
                ledger.complete_task(task.id, worker, at(now)).await.unwrap();
            }
            7 => {
                let failed = ledger.task(task.id).await.unwrap().state == crate::TaskState::Failed;
                let requeued = ledger.requeue_task(task.id, at(now)).await;
                assert_eq!(requeued.is_ok(), failed);
            }
            _ => {
                claim(ledger, worker, now).await;
            }
        }
        let run = ledger.run(id).await.unwrap();
        assert_eq!(users_in(&run), run.read, "step {step}");
        let sent: u64 = finished.values().map(|o| o.sent).sum();
        let skipped: u64 = finished.values().map(|o| total(&o.skipped)).sum();
        let rejected: u64 = finished.values().map(|o| total(&o.rejected)).sum();
        assert_eq!(
            (run.sent, total(&run.skipped), total(&run.rejected)),
            (sent, skipped, rejected),
            "step {step}"
        );
        if run.state == RunState::Completed {
            assert_eq!(run.pending, 0);
            return;
        }
    }
    panic!("500 steps did not complete the run of {}", plan.sync);
}
