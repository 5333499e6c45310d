//! Runs are recorded only if what they were planned from is current.

use super::*;
use crate::{BatchOutcome, DeliveredRecord, PlanBase, PlanOutcome, RunState};

/// What a planner reads of a sync.
async fn base_of(ledger: &dyn Ledger, sync: &SyncName) -> PlanBase {
    PlanBase {
        record: ledger.delivered_record(sync).await.unwrap(),
        audience: ledger.platform_audience(sync).await.unwrap(),
        newest: ledger.runs(Some(sync), 1).await.unwrap().pop(),
    }
}

async fn planned(
    ledger: &dyn Ledger,
    to: u64,
    base: &PlanBase,
    n: u64,
) -> Option<throng_model::SyncRunId> {
    match ledger.plan_run_from(&new_run("ads", to, &[10]), base, at(n)).await.unwrap() {
        PlanOutcome::Planned(id) => Some(id),
        PlanOutcome::Superseded => None,
        PlanOutcome::Blocked => panic!("no run is open"),
    }
}

/// Delivers the open run of the sync at second `n`.
async fn deliver(ledger: &dyn Ledger, n: u64) {
    let task = claim(ledger, "w", n).await.expect("a task is due");
    ledger.put_platform_audience(&task.sync, "77").await.unwrap();
    let outcome = BatchOutcome { sent: 10, ..BatchOutcome::default() };
    ledger.finish_batch(task.id, "w", 0, &outcome).await.unwrap();
    ledger.complete_task(task.id, "w", at(n)).await.unwrap();
}

pub(super) async fn a_run_is_recorded_only_if_its_base_is_current(ledger: &dyn Ledger) {
    let sync = sync_name("ads");
    let empty = base_of(ledger, &sync).await;
    assert_eq!(empty, PlanBase::default());
    let first = planned(ledger, 1, &empty, 1).await.expect("nothing has changed");
    let run = new_run("ads", 2, &[10]);
    let open = base_of(ledger, &sync).await;
    let outcome = ledger.plan_run_from(&run, &open, at(2)).await.unwrap();
    assert_eq!(outcome, PlanOutcome::Blocked, "its run is open");
    deliver(ledger, 3).await;

    // Another process has planned and delivered version 3, while this one has planned version 2.
    let slow = base_of(ledger, &sync).await;
    let third = planned(ledger, 3, &slow, 4).await.expect("nothing has changed");
    deliver(ledger, 5).await;
    for base in [&empty, &open, &slow] {
        assert_eq!(planned(ledger, 2, base, 6).await, None);
    }
    let runs = ledger.runs(Some(&sync), 9).await.unwrap();
    let shown: Vec<_> = runs.iter().map(|run| (run.id, run.to_version, run.state)).collect();
    assert_eq!(shown, [(third, 3, RunState::Completed), (first, 1, RunState::Completed)]);

    // A result was recorded, a run was requested, a version was recorded as delivered.
    let record = DeliveredRecord {
        sync: sync.clone(),
        account: "meta 1".to_owned(),
        columns: "EMAIL".to_owned(),
        identifiers: "0a".to_owned(),
        state: Some("delivered/b".to_owned()),
        users: 10,
        run: third,
        due: 0,
        retry_at: None,
        tries: 0,
        replace: false,
        requested: false,
        tables: None,
    };
    let before = base_of(ledger, &sync).await;
    ledger.put_delivered_record(&record, &[third]).await.unwrap();
    assert_eq!(planned(ledger, 4, &before, 7).await, None);
    let before = base_of(ledger, &sync).await;
    let requested = DeliveredRecord { requested: true, ..record.clone() };
    assert!(ledger.replace_delivered_record(Some(&record), &requested, &[]).await.unwrap());
    assert_eq!(planned(ledger, 4, &before, 8).await, None);
    let known = ledger.delivered_record(&sync).await.unwrap();
    assert!(known.is_some_and(|record| record.requested), "the request is not lost");
    let before = base_of(ledger, &sync).await;
    ledger.record_delivered_version(&sync, 4, at(9)).await.unwrap();
    assert_eq!(planned(ledger, 4, &before, 10).await, None);
    assert_eq!(ledger.tasks(9).await.unwrap().len(), 2);

    // From the current base the request gives a run.
    let current = base_of(ledger, &sync).await;
    assert!(planned(ledger, 4, &current, 11).await.is_some());
    let known = ledger.delivered_record(&sync).await.unwrap();
    assert!(known.is_some_and(|record| !record.requested));

    let paused = sync_name("paused");
    ledger.pause_sync(&paused, at(12)).await.unwrap();
    let base = base_of(ledger, &paused).await;
    let outcome = ledger.plan_run_from(&new_run("paused", 1, &[10]), &base, at(12)).await.unwrap();
    assert_eq!(outcome, PlanOutcome::Blocked);
}

pub(super) async fn of_two_runs_from_one_base_one_is_recorded(ledger: &dyn Ledger) {
    let base = PlanBase::default();
    let (older, newer) = (new_run("ads", 1, &[10]), new_run("ads", 2, &[10]));
    let (older, newer) = futures::future::join(
        ledger.plan_run_from(&older, &base, at(1)),
        ledger.plan_run_from(&newer, &base, at(1)),
    )
    .await;
    let outcomes = [older.unwrap(), newer.unwrap()];
    let is_planned = |outcome: &&PlanOutcome| matches!(outcome, PlanOutcome::Planned(_));
    assert_eq!(outcomes.iter().filter(is_planned).count(), 1, "{outcomes:?}");
    assert!(outcomes.contains(&PlanOutcome::Superseded), "{outcomes:?}");
    assert_eq!(ledger.runs(None, 9).await.unwrap().len(), 1);
}
