//! Pages of long lists.

use std::cell::Cell;

use throng_model::WorkspaceName;

use super::*;
use crate::{
    AlertKind, AlertSort, AlertState, AlertTotals, BatchOutcome, HistoryEntry, HistoryEvent, Hold,
    HoldCause, ListPage, NewAlert, ReasonCounts, RowKey, RowPlace, RunFilter, RunState,
    SubjectKind, SyncRun, TaskCount, TaskState, WorkSort,
};

/// Rows that are inserted while a list is read.
const INSERTED: u64 = 10;

/// The next pseudo-random number, below `limit`.
fn random(state: &Cell<u64>, limit: u64) -> u64 {
    state.set(state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    (state.get() >> 33) % limit
}

fn page<O, S>(order: O, descending: bool, limit: u32, after: Option<RowPlace>) -> ListPage<O, S> {
    ListPage { workspace: None, search: None, state: None, order, descending, after, limit }
}

/// Reads a list page by page and inserts a row after each page. The rows that existed before come once, in order,
/// and so do the inserted ones that come at all.
async fn check_pages(
    what: &str,
    mut before: Vec<RowPlace>,
    descending: bool,
    read: impl AsyncFn(Option<RowPlace>) -> Vec<RowPlace>,
    insert: impl AsyncFn(),
) {
    let sort = |rows: &mut Vec<RowPlace>| {
        rows.sort();
        if descending {
            rows.reverse();
        }
    };
    sort(&mut before);
    let (mut seen, mut after, mut inserted) = (Vec::new(), None, 0);
    loop {
        let rows = read(after.clone()).await;
        let Some(last) = rows.last() else { break };
        after = Some(last.clone());
        seen.extend(rows);
        if inserted < INSERTED {
            insert().await;
            inserted += 1;
        }
    }
    let mut sorted = seen.clone();
    sort(&mut sorted);
    sorted.dedup();
    assert_eq!(seen, sorted, "{what}");
    seen.retain(|row| before.contains(row));
    assert_eq!(seen, before, "{what}");
}

/// Plans a run of a new sync. Many have the same audience.
async fn plan(ledger: &dyn Ledger, names: &Cell<u64>, number: &Cell<u64>) {
    number.set(number.get() + 1);
    let mut run = new_run(&format!("s{:03}n{}", random(names, 1_000), number.get()), 1, &[1]);
    run.audience = audience(&format!("a{}", random(names, 4)));
    ledger.plan_run(&run, at(number.get())).await.unwrap().expect("its sync is new");
}

fn place(order: WorkSort, id: i64, sync: &SyncName, audience: &AudienceName) -> RowPlace {
    let key = match order {
        WorkSort::Id => RowKey::Number(id),
        WorkSort::Sync => RowKey::Text(sync.to_string()),
        WorkSort::Audience => RowKey::Text(audience.to_string()),
    };
    RowPlace { key, id }
}

fn run_place(order: WorkSort, run: &SyncRun) -> RowPlace {
    place(order, run.id.0, &run.sync, &run.audience)
}

fn task_place(order: WorkSort, task: &Task) -> RowPlace {
    place(order, task.id.0, &task.sync, &task.audience)
}

pub(super) async fn pages_of_runs_and_tasks_are_the_sorted_list_despite_inserts(
    ledger: &dyn Ledger,
) {
    let (names, number) = (Cell::new(7), Cell::new(0));
    for _ in 0..40 {
        plan(ledger, &names, &number).await;
    }
    let insert = async || plan(ledger, &names, &number).await;
    for order in [WorkSort::Id, WorkSort::Sync, WorkSort::Audience] {
        for descending in [false, true] {
            let limit = 1 + u32::try_from(random(&names, 12)).unwrap();
            let what = format!("{order:?}, descending: {descending}, {limit} rows a page");
            let all = ledger.runs(None, 10_000).await.unwrap();
            let before = all.iter().map(|run| run_place(order, run)).collect();
            let read = async |after: Option<RowPlace>| {
                let runs = ledger.list_runs(&page(order, descending, limit, after)).await.unwrap();
                assert!(runs.len() <= limit as usize);
                runs.iter().map(|run| run_place(order, run)).collect::<Vec<_>>()
            };
            check_pages(&what, before, descending, read, &insert).await;

            let all = ledger.tasks(10_000).await.unwrap();
            let before = all.iter().map(|task| task_place(order, task)).collect();
            let read = async |after: Option<RowPlace>| {
                let page = page(order, descending, limit, after);
                let tasks = ledger.list_tasks(&page).await.unwrap();
                tasks.iter().map(|task| task_place(order, task)).collect::<Vec<_>>()
            };
            check_pages(&what, before, descending, read, &insert).await;
        }
    }
}

pub(super) async fn pages_of_alerts_are_the_sorted_list_despite_inserts(ledger: &dyn Ledger) {
    let (times, number) = (Cell::new(3), Cell::new(0));
    let insert = async || {
        number.set(number.get() + 1);
        let subject = format!("a{}", number.get());
        let kind = AlertKind::ALL[number.get() as usize % AlertKind::ALL.len()];
        let alert = NewAlert { kind, subject, message: "m".to_owned() };
        ledger.raise_alert(&alert, at(random(&times, 9))).await.unwrap();
    };
    for _ in 0..30 {
        insert().await;
    }
    for order in [AlertSort::Id, AlertSort::LastAt] {
        for descending in [false, true] {
            let place = |alert: &crate::Alert| {
                let key = match order {
                    AlertSort::Id => alert.id,
                    AlertSort::LastAt => alert.last_at.0,
                };
                RowPlace { key: RowKey::Number(key), id: alert.id }
            };
            let all = ledger.alerts(10_000).await.unwrap();
            let before = all.iter().map(&place).collect();
            let read = async |after: Option<RowPlace>| {
                let alerts = ledger.list_alerts(&page(order, descending, 7, after)).await.unwrap();
                alerts.iter().map(&place).collect::<Vec<_>>()
            };
            let what = format!("{order:?}, descending: {descending}");
            check_pages(&what, before, descending, read, &insert).await;
        }
    }
}

pub(super) async fn lists_are_filtered_by_state_and_search(ledger: &dyn Ledger) {
    let mut held = new_run("on_hold", 1, &[1]);
    held.held = Some(Hold::new(HoldCause::Guard, "guard"));
    let held = ledger.plan_run(&held, at(0)).await.unwrap().unwrap();
    let other = ledger.plan_run(&new_run("other", 1, &[1]), at(0)).await.unwrap().unwrap();
    let all = || page::<_, RunFilter>(WorkSort::Id, false, 9, None);
    let runs = async |search: Option<&str>, state| {
        let page = ListPage { search: search.map(str::to_owned), state, ..all() };
        let runs = ledger.list_runs(&page).await.unwrap();
        runs.iter().map(|run| run.id).collect::<Vec<_>>()
    };
    assert_eq!(runs(None, None).await, [held, other]);
    assert_eq!(runs(None, Some(RunFilter::State(RunState::Held))).await, [held]);
    assert_eq!(runs(Some("OTH"), None).await, [other], "in upper or lower case");
    assert_eq!(runs(Some("n_h"), None).await, [held], "an underscore matches itself");
    assert_eq!(runs(Some("o_h"), None).await, [], "an underscore matches only itself");
    assert_eq!(runs(Some("%"), None).await, []);
    assert_eq!(runs(Some("buyers"), None).await, [held, other], "the audience");
    let active = RunFilter::State(RunState::Active);
    assert_eq!(runs(Some("shop"), Some(active)).await, [other], "the destination");
    assert_eq!(runs(None, Some(RunFilter::Rejected)).await, []);

    let queued = ListPage { state: Some(TaskState::Queued), ..page(WorkSort::Id, false, 9, None) };
    let tasks = ledger.list_tasks(&queued).await.unwrap();
    assert_eq!(tasks.iter().map(|task| task.run).collect::<Vec<_>>(), [other]);
    assert_eq!(ledger.tasks_of_runs(&[other]).await.unwrap(), tasks);
    assert_eq!(ledger.tasks_of_runs(&[]).await.unwrap(), []);

    for (kind, subject) in [(AlertKind::DiskFull, "node"), (AlertKind::RunHeld, "ads")] {
        let (subject, message) = (subject.to_owned(), "50% full".to_owned());
        ledger.raise_alert(&NewAlert { kind, subject, message }, at(1)).await.unwrap();
    }
    ledger.resolve_alert(AlertKind::RunHeld, "ads", at(2)).await.unwrap();
    let alerts = async |search: Option<&str>, state| {
        let page = page(AlertSort::Id, false, 9, None);
        let page = ListPage { search: search.map(str::to_owned), state, ..page };
        let alerts = ledger.list_alerts(&page).await.unwrap();
        alerts.into_iter().map(|alert| alert.subject).collect::<Vec<_>>()
    };
    assert_eq!(alerts(None, Some(AlertState::Open)).await, ["node"]);
    assert_eq!(alerts(None, Some(AlertState::Resolved)).await, ["ads"]);
    assert_eq!(alerts(Some("disk_full"), None).await, ["node"]);
    assert_eq!(alerts(Some("50%"), None).await, ["node", "ads"]);

    // Of one run a row is accepted, of the other one none.
    let partly = ledger.plan_run(&new_run("partly", 1, &[2]), at(0)).await.unwrap().unwrap();
    for (run, sent) in [(other, 0), (partly, 1)] {
        let task = ledger.task_of_run(run).await.unwrap();
        ledger.claim_task(task.id, "w", u32::MAX, at(1), at(61)).await.unwrap().unwrap();
        ledger.put_platform_audience(&task.sync, "77").await.unwrap();
        let rejected = ReasonCounts::from([("bad hash".to_owned(), 1)]);
        let outcome = BatchOutcome { sent, rejected, ..BatchOutcome::default() };
        ledger.finish_batch(task.id, "w", 0, &outcome).await.unwrap();
        ledger.complete_task(task.id, "w", at(2)).await.unwrap();
    }
    assert_eq!(runs(None, Some(RunFilter::Rejected)).await, [other]);

    let counts = async |search: Option<&str>, state: Option<TaskState>| {
        let page =
            ListPage { search: search.map(str::to_owned), ..page(WorkSort::Id, false, 1, None) };
        let mut counts = ledger.count_tasks(&ListPage { state, ..page }).await.unwrap();
        counts.sort_by_key(|count| count.tasks);
        counts.iter().map(|one| (one.state, one.tasks, one.batches_left)).collect::<Vec<_>>()
    };
    let (held, done) = ((TaskState::Held, 1, 1), (TaskState::Done, 2, 0));
    assert_eq!(counts(None, None).await, [held, done], "whatever the limit is");
    assert_eq!(counts(None, Some(TaskState::Held)).await, [held]);
    assert_eq!(counts(Some("ON_"), None).await, [held]);
    assert_eq!(counts(Some("none"), None).await, []);
}

/// A task of an earlier run is not queued again: its run would undo the newer one.
pub(super) async fn failed_tasks_of_newest_runs_can_be_queued_again(ledger: &dyn Ledger) {
    let mut failed = Vec::new();
    for sync in ["acme:a", "acme:b", "c"] {
        let task = running(ledger, &new_run(sync, 1, &[1]), "w").await;
        ledger.fail_task(task.id, "w", "no", None, true, at(2)).await.unwrap();
        failed.push(task.id);
    }
    ledger.plan_run(&new_run("acme:b", 2, &[1]), at(3)).await.unwrap().unwrap();
    let listed = async |page: ListPage<WorkSort, TaskState>| {
        let tasks = ledger.list_requeueable_tasks(&page).await.unwrap();
        tasks.iter().map(|task| task.id).collect::<Vec<_>>()
    };
    let all = || page(WorkSort::Id, true, 9, None);
    assert_eq!(listed(all()).await, [failed[2], failed[0]]);
    let after = Some(RowPlace { key: RowKey::Number(failed[2].0), id: failed[2].0 });
    assert_eq!(listed(ListPage { after, ..all() }).await, [failed[0]]);
    assert_eq!(listed(ListPage { search: Some("ACME".to_owned()), ..all() }).await, [failed[0]]);
    let acme: WorkspaceName = "acme".parse().unwrap();
    assert_eq!(listed(own_tasks(WorkSort::Id, &acme)).await, [failed[0]]);
}

pub(super) async fn lists_are_limited_to_a_workspace(ledger: &dyn Ledger) {
    let acme: WorkspaceName = "acme".parse().unwrap();
    let mut planned = Vec::new();
    // Names that begin alike, and a store whose alerts begin like those of a workspace.
    for sync in ["acme:a", "acme", "acmes:a", "acme:b", "a:acme"] {
        planned.push(ledger.plan_run(&new_run(sync, 1, &[1]), at(0)).await.unwrap().unwrap());
        let subject = sync.to_owned();
        let (kind, message) = (AlertKind::NullKeys, "m".to_owned());
        ledger.raise_alert(&NewAlert { kind, subject, message }, at(1)).await.unwrap();
        let subject_kind = SubjectKind::Sync;
        let (subject, what, why) = (sync.to_owned(), HistoryEvent::Planned, "w".to_owned());
        let entry = HistoryEntry { subject_kind, subject, what, why, at: at(1), actor: None };
        ledger.record_history(&[entry]).await.unwrap();
    }
    for subject in ["destination acme:x", "serving store acme: buyers", "removal acme:a", "acme"] {
        let (kind, message) = (AlertKind::RunHeld, "m".to_owned());
        let alert = NewAlert { kind, subject: subject.to_owned(), message };
        ledger.raise_alert(&alert, at(2)).await.unwrap();
    }
    ledger.resolve_alert(AlertKind::RunHeld, "removal acme:a", at(3)).await.unwrap();
    let node = NewAlert {
        kind: AlertKind::Damaged,
        subject: "acme:a".to_owned(),
        message: "m".to_owned(),
    };
    ledger.raise_alert(&node, at(2)).await.unwrap();

    let own =
        |after| ListPage { workspace: Some(acme.clone()), ..page(WorkSort::Id, false, 1, after) };
    let first = ledger.list_runs(&own(None)).await.unwrap();
    let after = first.last().map(|run| run_place(WorkSort::Id, run));
    let second = ledger.list_runs(&own(after)).await.unwrap();
    let ids: Vec<_> = first.iter().chain(&second).map(|run| run.id).collect();
    assert_eq!(ids, [planned[0], planned[3]]);
    for order in [WorkSort::Id, WorkSort::Sync, WorkSort::Audience] {
        let tasks = ledger.list_tasks(&own_tasks(order, &acme)).await.unwrap();
        assert_eq!(tasks.iter().map(|task| task.run).collect::<Vec<_>>(), [planned[0], planned[3]]);
    }
    let counted = ledger.count_tasks(&own_tasks(WorkSort::Id, &acme)).await.unwrap();
    let (destination, state) = (destination("shop"), TaskState::Queued);
    assert_eq!(counted, [TaskCount { destination, state, tasks: 2, batches_left: 2 }]);
    let counts = ledger.workspace_task_counts(&acme).await.unwrap();
    let queued = counts.iter().find(|(state, _)| *state == TaskState::Queued);
    assert_eq!((counts.len(), queued), (5, Some(&(TaskState::Queued, 2))));
    let alerts = ListPage {
        workspace: Some(acme.clone()),
        ..page::<_, AlertState>(AlertSort::Id, false, 9, None)
    };
    let alerts = ledger.list_alerts(&alerts).await.unwrap();
    let subjects: Vec<_> = alerts.iter().map(|alert| alert.subject.as_str()).collect();
    assert_eq!(subjects, ["acme:a", "acme:b", "destination acme:x", "removal acme:a"]);
    let totals = ledger.workspace_alert_totals(&acme).await.unwrap();
    assert_eq!(totals, AlertTotals { open: 3, total: 4 });
    let history = ledger.workspace_history(&acme, 9).await.unwrap();
    let subjects: Vec<_> = history.iter().map(|entry| entry.subject.as_str()).collect();
    assert_eq!(subjects, ["acme:b", "acme:a"]);
    assert_eq!(ledger.workspace_checks(&acme, 9).await.unwrap(), []);
    assert_eq!(ledger.workspace_deliveries(&acme, 9).await.unwrap(), []);
}

fn own_tasks(order: WorkSort, workspace: &WorkspaceName) -> ListPage<WorkSort, TaskState> {
    ListPage { workspace: Some(workspace.clone()), ..page(order, false, 9, None) }
}
