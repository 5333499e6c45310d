//! Runs are recorded only if what they were planned from is current.

use std::collections::HashMap;

use super::*;
use crate::{
    AlertKind, BatchOutcome, DeliveredRecord, HistoryEvent, Hold, HoldCause, NewAlert, PlanBase,
    PlanOutcome, RunState, SubjectKind,
};

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

pub(super) async fn held_runs_to_versions_that_are_no_longer_served_are_discarded(
    ledger: &dyn Ledger,
) {
    let run = |name: &str, to: u64, cause: Option<HoldCause>| NewRun {
        held: cause.map(|cause| Hold::new(cause, "because")),
        plan: Some(format!("plans/{name}")),
        ..new_run(name, to, &[10])
    };
    let discarded = async |version: u64, n: u64| {
        let served = HashMap::from([(audience("buyers"), version)]);
        let runs = ledger.discard_outdated_runs(&served, at(n)).await.unwrap();
        runs.iter().map(|run| run.sync.to_string()).collect::<Vec<_>>()
    };
    published(ledger, "buyers").await;
    for (name, cause) in [
        ("guarded", Some(HoldCause::Guard)),
        ("adopts", Some(HoldCause::Adoption)),
        ("paused", Some(HoldCause::Guard)),
        ("account", Some(HoldCause::Account)),
        ("queued", None),
    ] {
        ledger.plan_run(&run(name, 1, cause), at(1)).await.unwrap().unwrap();
    }
    ledger.pause_sync(&sync_name("paused"), at(2)).await.unwrap();
    let (kind, subject) = (AlertKind::RunHeld, "guarded".to_owned());
    let alert = NewAlert { kind, subject, message: "because".to_owned() };
    ledger.raise_alert(&alert, at(2)).await.unwrap();
    assert!(discarded(1, 3).await.is_empty(), "their version is served");
    assert_eq!(published(ledger, "buyers").await.version, 2);
    assert!(discarded(1, 4).await.is_empty(), "the planner has an earlier version");
    assert_eq!(ledger.open_alert(kind, "guarded").await.unwrap().as_deref(), Some("because"));
    assert_eq!(discarded(2, 5).await, ["guarded", "adopts"]);
    assert_eq!(ledger.open_alert(kind, "guarded").await.unwrap(), None);
    let history = ledger.history(Some((&SubjectKind::Sync, "guarded")), 9).await.unwrap();
    assert_eq!((history.len(), &history[0].what), (1, &HistoryEvent::Cancelled));
    assert!(history[0].why.contains("version 2 is served now"), "{}", history[0].why);
    let newest = async |name| ledger.runs(Some(&sync_name(name)), 1).await.unwrap().pop();
    for name in ["guarded", "adopts"] {
        assert_eq!(newest(name).await, None, "{name}");
    }
    for name in ["paused", "account"] {
        assert_eq!(newest(name).await.unwrap().state, RunState::Held, "{name}");
    }
    assert_eq!(newest("queued").await.unwrap().state, RunState::Active);
    // The run to the served version stays held.
    let again = run("guarded", 2, Some(HoldCause::Guard));
    assert!(ledger.plan_run(&again, at(6)).await.unwrap().is_some());
    assert!(discarded(2, 7).await.is_empty());
    ledger.resume_sync(&sync_name("paused")).await.unwrap();
    assert_eq!(discarded(2, 8).await, ["paused"]);
}
