//! Activation: syncs, runs and tasks; one task, and one sync.

use axum::extract::{Path, Query, State};
use throng_api::{BulkOperation, ListQuery};
use throng_model::TaskId;
use throng_operations::mapping::activation as mapping;
use throng_operations::{alerts, bulk, history, lists, removals, runs, syncs};
use throng_page::activation::{ActivationView, MAX_RUNS, TaskView};
use throng_page::alerts::OTHER_PAGES_ROWS;
use throng_page::one_page;
use throng_page::syncs::{OpenRemoval, SyncView};
use throng_store::SubjectKind;

use super::{Context, OperationsOf, Page, PageError, html};

/// Tasks and checks that are read for the runs of the page.
const MAX_TASKS: u32 = 1_000;
/// The entries of the history of a sync.
const HISTORY_ROWS: u32 = 50;

pub(super) async fn list(State(ctx): Context, OperationsOf(node): OperationsOf) -> Page {
    let checks = runs::checks(&node, MAX_TASKS).await?;
    let removals = removals::list(&node).await?.into_iter();
    let open = |(removal, refused_retry_at)| OpenRemoval { removal, refused_retry_at };
    let view = ActivationView {
        tasks: runs::tasks(&node, MAX_TASKS).await?,
        alerts: alerts::newest(&node, OTHER_PAGES_ROWS).await?,
        removals: removals.map(open).collect(),
        syncs: syncs::list(&node).await?.syncs,
        runs: runs::list(&node, MAX_RUNS).await?,
        checks: checks.into_iter().map(mapping::check).collect(),
    };
    html(throng_page::activation::list(&view, ctx.clock.now()))
}

pub(super) async fn syncs(
    State(ctx): Context,
    OperationsOf(node): OperationsOf,
    Query(query): Query<ListQuery>,
) -> Page {
    let list = lists::syncs(&node, &one_page(&query)).await?;
    html(throng_page::work::syncs(list, query, ctx.clock.now()))
}

pub(super) async fn runs(OperationsOf(node): OperationsOf, Query(query): Query<ListQuery>) -> Page {
    let (list, tasks) = lists::runs_with_tasks(&node, &one_page(&query)).await?;
    let offers = bulk::offers(&node, &[BulkOperation::ApproveRuns], &query).await?;
    html(throng_page::work::runs(list, &tasks, query, &offers))
}

pub(super) async fn tasks(
    State(ctx): Context,
    OperationsOf(node): OperationsOf,
    Query(query): Query<ListQuery>,
) -> Page {
    // In an order that has pages.
    let sort = query.sort.clone().filter(|sort| !sort.is_empty());
    let query = ListQuery { sort: sort.or_else(|| Some("-id".to_owned())), ..query };
    let list = lists::tasks(&node, &one_page(&query)).await?;
    let listed: Vec<_> = list.tasks.iter().map(|of| &of.task).collect();
    let replaced = runs::replaced_tasks(&node, &listed).await?;
    let offers = bulk::offers(&node, &[BulkOperation::RequeueTasks], &query).await?;
    html(throng_page::work::tasks(list, query, &offers, &replaced, ctx.clock.now()))
}

pub(super) async fn task(
    State(ctx): Context,
    OperationsOf(node): OperationsOf,
    Path(id): Path<String>,
) -> Page {
    let number = id.parse().map_err(|_| {
        PageError::Missing(format!("There is no task {id}: the id of a task is a number."))
    })?;
    // Without the batches, which the page does not show.
    let task = mapping::task(runs::visible_task(&node, TaskId(number)).await?);
    let run = ctx.ledger.run(task.run).await?;
    let receipts = ctx.ledger.receipts(task.id).await?;
    let check = ctx.ledger.check_of(task.id).await?;
    let view = TaskView {
        is_replaced: !runs::replaced_tasks(&node, &[&task]).await?.is_empty(),
        task,
        run: mapping::run(run),
        receipts: receipts.into_iter().map(mapping::receipt).collect(),
        check: check.map(mapping::check),
    };
    html(throng_page::activation::task(&view, ctx.clock.now()))
}

pub(super) async fn sync(
    State(ctx): Context,
    OperationsOf(node): OperationsOf,
    Path(name): Path<String>,
) -> Page {
    let wanted = node.qualified(&name);
    let mut all = syncs::list(&node).await?.syncs.into_iter();
    let sync = all.find(|sync| sync.name.as_str() == wanted).ok_or_else(|| {
        PageError::Missing(format!("There is no sync {name} in the applied spec."))
    })?;
    let subject = (SubjectKind::Sync, sync.name.as_str());
    let view = SyncView {
        sizes: syncs::sizes(&node, sync.name.clone()).await?,
        history: history::newest(&node, Some(subject), HISTORY_ROWS).await?,
        sync,
    };
    html(throng_page::syncs::one(view, ctx.clock.now()))
}
