//! The overview: key figures, open alerts, nodes, and recent activity.

use axum::extract::State;
use throng_operations::members::members;
use throng_operations::{alerts, audiences, history, mapping, runs};
use throng_page::alerts::OTHER_PAGES_ROWS;
use throng_page::overview::{HISTORY_ROWS, OverviewView, SUMMED_RUNS};

use super::{Context, OperationsOf, Page, html};

pub(super) async fn page(State(ctx): Context, OperationsOf(node): OperationsOf) -> Page {
    // Nodes and budgets are in no workspace.
    let (nodes, budgets) = match node.workspace {
        Some(_) => (Vec::new(), None),
        None => {
            let gates = ctx.budgets.gates();
            let (nodes, _) = members(&*ctx.ledger, ctx.clock.now(), gates).await?;
            let states = ctx.budgets.states();
            (nodes, Some(states.iter().map(mapping::budgets::state).collect()))
        }
    };
    let view = OverviewView {
        audiences: audiences::list(&node).await?.audiences,
        tasks: runs::task_counts(&node).await?,
        runs: runs::list(&node, SUMMED_RUNS).await?,
        budgets,
        alerts: alerts::newest(&node, OTHER_PAGES_ROWS).await?,
        nodes,
        history: history::newest(&node, None, HISTORY_ROWS).await?,
    };
    html(throng_page::overview::page(view, ctx.clock.now()))
}
