//! Many concurrent callers.

use std::collections::HashSet;

use futures::future::{join_all, select};
use throng_model::TaskId;

use super::*;
use crate::{NewPart, PartKind, RefreshState};

const CLAIMERS: usize = 8;

async fn task_ids(ledger: &dyn Ledger) -> Vec<TaskId> {
    ledger.tasks(100).await.unwrap().iter().map(|task| task.id).collect()
}

/// Claims every task that has no holder, as a claimer whose queue delivers all of them, each
/// claimer from another position on: a queue may deliver a message to several consumers.
async fn claim_each(ledger: &dyn Ledger, ids: &[TaskId], claimer: usize) -> Vec<TaskId> {
    let holder = format!("w{claimer}");
    let start = claimer * ids.len() / CLAIMERS;
    let mut mine = Vec::new();
    for id in ids[start..].iter().chain(&ids[..start]) {
        let claimed = ledger.claim_task(*id, &holder, u32::MAX, at(1), at(61)).await.unwrap();
        mine.extend(claimed.map(|task| task.id));
    }
    mine
}

pub(super) async fn each_task_is_claimed_by_one_of_many(ledger: &dyn Ledger) {
    for n in 0..100 {
        let run = new_run(&format!("s{n}"), 1, &[1]);
        ledger.plan_run(&run, at(0)).await.unwrap();
    }
    let ids = task_ids(ledger).await;
    let claimers = (0..CLAIMERS).map(|claimer| claim_each(ledger, &ids, claimer));
    let claimed: Vec<_> = join_all(claimers).await.into_iter().flatten().collect();
    let distinct: HashSet<_> = claimed.iter().collect();
    assert_eq!((claimed.len(), distinct.len()), (100, 100));
}

/// Like the case above, but each claimer has its own handle, as processes have.
pub(super) async fn processes_share_one_queue(backend: &dyn Backend) {
    // Concurrently, so that they also create the tables concurrently.
    let name = "processes_share_one_queue";
    let ledgers = join_all((0..CLAIMERS).map(|_| backend.open(name))).await;
    for n in 0..100 {
        let run = new_run(&format!("s{n}"), 1, &[1]);
        ledgers[n % CLAIMERS].plan_run(&run, at(0)).await.unwrap();
    }
    let ids = task_ids(&*ledgers[0]).await;
    let claimers = ledgers.into_iter().enumerate().map(|(claimer, ledger)| {
        let ids = ids.clone();
        tokio::spawn(async move { claim_each(&*ledger, &ids, claimer).await })
    });
    let claimed: Vec<_> =
        join_all(claimers).await.into_iter().flat_map(|mine| mine.unwrap()).collect();
    let distinct: HashSet<_> = claimed.iter().collect();
    assert_eq!((claimed.len(), distinct.len()), (100, 100));
}

/// The limit is counted over all processes, also when they claim different tasks at the same time.
pub(super) async fn no_account_has_more_running_tasks_than_allowed(backend: &dyn Backend) {
    let name = "no_account_has_more_running_tasks_than_allowed";
    let ledgers = join_all((0..8).map(|_| backend.open(name))).await;
    for n in 0..32 {
        ledgers[0].plan_run(&new_run(&format!("s{n}"), 1, &[1]), at(0)).await.unwrap();
    }
    let ids = task_ids(&*ledgers[0]).await;
    let claimers = ids.into_iter().enumerate().map(|(n, id)| {
        let ledger = ledgers[n % 8].clone();
        tokio::spawn(async move {
            ledger.claim_task(id, &format!("w{n}"), 3, at(1), at(61)).await.unwrap().is_some()
        })
    });
    let claimed = join_all(claimers).await.into_iter().filter(|one| *one.as_ref().unwrap());
    assert_eq!(claimed.count(), 3);
}

/// What a dead process had claimed is due immediately, and the dead process has lost it.
pub(super) async fn expired_leases_release_the_work(ledger: &dyn Ledger) {
    let task = running(ledger, &new_run("s", 1, &[1]), "dead").await;
    let refresh = building(ledger, "a", "dead", 1).await;
    assert!(claim(ledger, "alive", 2).await.is_none());
    assert_eq!(ledger.expire_leases(at(2)).await.unwrap(), 2);
    assert_eq!(claim(ledger, "alive", 3).await.unwrap().id, task.id);
    let taken = ledger.claim_refresh("alive", at(3), at(100)).await.unwrap().unwrap();
    assert_eq!(taken.id, refresh.id);
    let lost = ledger.renew_task_lease(task.id, "dead", at(200)).await;
    assert!(matches!(lost, Err(crate::LedgerError::LeaseLost { .. })), "{lost:?}");
}

pub(super) async fn each_refresh_is_claimed_by_one_of_many(ledger: &dyn Ledger) {
    for n in 0..40 {
        ledger
            .schedule_refresh(&audience(&format!("a{n}")), RefreshTrigger::Manual, at(0))
            .await
            .unwrap();
    }
    let claimers = (0..32).map(|n| async move {
        let mut mine = Vec::new();
        let holder = format!("b{n}");
        while let Some(refresh) = ledger.claim_refresh(&holder, at(1), at(60)).await.unwrap() {
            assert_eq!(refresh.state, RefreshState::Processing);
            mine.push(refresh.id);
        }
        mine
    });
    let claimed: Vec<_> = join_all(claimers).await.into_iter().flatten().collect();
    let distinct: HashSet<_> = claimed.iter().collect();
    assert_eq!((claimed.len(), distinct.len()), (40, 40));
}

/// Half of the claimers name the refresh, as its leader does, the others take parts of any.
pub(super) async fn each_part_is_claimed_by_one_of_many(ledger: &dyn Ledger) {
    let id = building(ledger, "a", "b", 0).await.id;
    let covers = serde_json::json!({});
    let part = |number| NewPart { kind: PartKind::Scan, number, covers: covers.clone() };
    ledger.add_parts(id, &(0..2_000).map(part).collect::<Vec<_>>(), None).await.unwrap();
    let covers = &covers;
    let claimers = (0..CLAIMERS).map(|claimer| async move {
        let (mut mine, holder) = (Vec::new(), format!("b{claimer}"));
        let of = (claimer % 2 == 0).then_some(id);
        while let Some(claimed) = claim_part(ledger, of, &holder, 1, 60).await {
            assert_eq!((claimed.0, claimed.1.holder.as_deref()), (id, Some(holder.as_str())));
            ledger.finish_part(id, claimed.1.number, covers).await.unwrap();
            mine.push(claimed.1.number);
        }
        mine
    });
    let mut claimed: Vec<_> = join_all(claimers).await.into_iter().flatten().collect();
    claimed.sort_unstable();
    assert!(claimed.into_iter().eq(0..2_000), "each part is claimed once");
}

/// Half of the claimers leave out what the others claim.
pub(super) async fn filtered_refreshes_are_claimed_by_one_of_many(ledger: &dyn Ledger) {
    let (listed, others): (Vec<_>, Vec<_>) =
        (0..40).map(|n| audience(&format!("a{n}"))).partition(|name| name.as_str().len() % 2 == 0);
    for name in listed.iter().chain(&others) {
        ledger.schedule_refresh(name, RefreshTrigger::Manual, at(0)).await.unwrap();
    }
    let listed = &listed;
    let claimers = (0..16).map(|n| async move {
        let (mut mine, holder) = (Vec::new(), format!("b{n}"));
        let filter = match n % 2 {
            0 => ClaimFilter::Only(listed),
            _ => ClaimFilter::Except(listed),
        };
        let claim = || ledger.claim_filtered_refresh(filter, &holder, at(1), at(60));
        while let Some(refresh) = claim().await.unwrap() {
            assert_eq!(listed.contains(&refresh.audience), n % 2 == 0);
            mine.push(refresh.id);
        }
        mine
    });
    let claimed: Vec<_> = join_all(claimers).await.into_iter().flatten().collect();
    let distinct: HashSet<_> = claimed.iter().collect();
    assert_eq!((claimed.len(), distinct.len()), (40, 40));
}

pub(super) async fn many_firings_queue_one_refresh(ledger: &dyn Ledger) {
    let name = audience("buyers");
    let firings = (0..32).map(|_| ledger.fire_schedule(&name, at(100), at(101)));
    let fired = join_all(firings).await;
    let first = fired.into_iter().filter(|f| *f.as_ref().unwrap()).count();
    assert_eq!(first, 1);
    assert_eq!(ledger.refreshes(None, 10).await.unwrap().len(), 1);
}

/// A call that is dropped before its end (a request that was cancelled, a worker that is stopped)
/// leaves no transaction open, and its changes are stored completely or not at all.
pub(super) async fn abandoned_calls_leave_the_ledger_usable(ledger: &dyn Ledger) {
    for n in 0..60u32 {
        let run = new_run(&format!("s{n}"), 1, &[1, 1, 1]);
        let call = ledger.plan_run(&run, at(0));
        let polls = Box::pin(async {
            for _ in 0..n {
                tokio::task::yield_now().await;
            }
        });
        select(call, polls).await;
    }
    let tasks = ledger.tasks(1_000).await.unwrap();
    let runs = ledger.runs(None, 1_000).await.unwrap();
    assert_eq!(tasks.len(), runs.len());
    for task in &tasks {
        assert_eq!(ledger.batches(task.id).await.unwrap().len(), 3);
    }
    let after = ledger.plan_run(&new_run("after", 1, &[1]), at(0)).await;
    assert!(after.unwrap().is_some());
}
