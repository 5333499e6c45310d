//! The overview: key figures, open alerts, nodes, and recent activity.

use askama::Template;
use throng_api::{
    ActivationRun, ActivationTaskState, AlertList, AudienceSummary, BudgetState, HistoryItem,
    NodeSummary,
};
use throng_model::Timestamp;

use crate::activation::count_of;
use crate::alerts::{self, AlertLine};
use crate::budgets::{share_of_budgets, sums_of_spend};
use crate::show::{self, Card, Entry, card, count, linked, text_card};
use crate::{Rendered, chart};

/// The number of runs whose users are added up.
pub const SUMMED_RUNS: u32 = 1_000;
/// The number of history entries.
pub const HISTORY_ROWS: u32 = 15;

/// What the overview shows.
#[derive(Debug)]
pub struct OverviewView {
    /// The audiences of the applied spec.
    pub audiences: Vec<AudienceSummary>,
    /// The number of tasks by state.
    pub tasks: Vec<(ActivationTaskState, u64)>,
    /// The newest [`SUMMED_RUNS`] runs.
    pub runs: Vec<ActivationRun>,
    /// All ad groups; `None` in the view of a workspace, which has none.
    pub budgets: Option<Vec<BudgetState>>,
    /// The newest alerts, open ones first.
    pub alerts: AlertList,
    /// The nodes of the cluster.
    pub nodes: Vec<NodeSummary>,
    /// The newest history entries of all objects.
    pub history: Vec<HistoryItem>,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    cards: Vec<Card>,
    alerts: Vec<AlertLine>,
    more_alerts: Option<String>,
    spend: Option<String>,
    nodes: Vec<NodeRow>,
    history: Vec<Entry>,
}

/// A node of the cluster.
struct NodeRow {
    roles: String,
    url: String,
    uptime: String,
    last_seen: String,
    partitions: String,
    standby_partitions: String,
    gates: String,
}

impl NodeRow {
    fn of(node: NodeSummary, now: Timestamp) -> Self {
        let list = |numbers: &[u32]| {
            numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        Self {
            roles: node.roles,
            url: node.url,
            uptime: show::duration(now.since(node.started_at)),
            last_seen: show::duration(now.since(node.seen_at)),
            partitions: list(&node.partitions),
            standby_partitions: list(&node.stands_by),
            gates: count(node.gates),
        }
    }
}

impl Overview {
    fn menu_path(&self) -> &'static str {
        "/"
    }
}

/// The label of the sum over the newest runs.
fn users_sent_label(runs: usize) -> String {
    match runs < SUMMED_RUNS as usize {
        true => "users sent to platforms".to_owned(),
        false => format!("users sent in the newest {} runs", count(u64::from(SUMMED_RUNS))),
    }
}

/// The key figures of all ad groups.
fn budget_figures(budgets: &[BudgetState]) -> [Card; 2] {
    let open = budgets.iter().filter(|budget| budget.open).count();
    let spend = match budgets.is_empty() {
        true => text_card("spend-today", "no ad groups".to_owned(), "actual spend today"),
        false => card(
            "spend-today",
            sums_of_spend(budgets, &|s| s.actual_micros.0),
            "actual spend today",
        ),
    };
    [card("ad-groups-open", format!("{open} of {}", budgets.len()), "ad groups open"), spend]
}

/// The overview.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn page(view: OverviewView, now: Timestamp) -> Rendered {
    let OverviewView { audiences, tasks, runs, budgets, alerts, nodes, history } = view;
    let published = audiences.iter().filter_map(|audience| audience.current.as_ref());
    let members: u64 = published.clone().map(|snapshot| snapshot.members).sum();
    let sent: u64 = runs.iter().map(|run| run.sent).sum();
    let of = |state| count_of(&tasks, state);
    let open_tasks = of(ActivationTaskState::Queued) + of(ActivationTaskState::Running);
    let mut figures = vec![
        card(
            "audiences",
            format!("{} of {}", published.count(), audiences.len()),
            "audiences published",
        ),
        card("memberships", count(members), "memberships served"),
        card("users-sent", count(sent), users_sent_label(runs.len())),
        card("tasks-open", count(open_tasks), "tasks running or queued"),
    ];
    figures.extend(budgets.iter().flat_map(|budgets| budget_figures(budgets)));
    let pages = ["/audiences", "/audiences", "/activation", "/activation", "/budgets", "/budgets"];
    let page = Overview {
        cards: figures.into_iter().zip(pages).map(|(card, link)| linked(card, link)).collect(),
        more_alerts: alerts::truncation_note(&alerts),
        alerts: alerts::lines(&alerts),
        spend: budgets.as_ref().map(|budgets| {
            chart::meter(&[
                ("actual", share_of_budgets(budgets, &|s| s.actual_micros.0)),
                ("flight", share_of_budgets(budgets, &|s| s.in_flight_micros.0)),
            ])
        }),
        nodes: nodes.into_iter().map(|node| NodeRow::of(node, now)).collect(),
        history: show::entries(&history),
    };
    page.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_that_is_not_over_all_runs_says_so() {
        assert_eq!(users_sent_label(999), "users sent to platforms");
        assert_eq!(users_sent_label(1_000), "users sent in the newest 1,000 runs");
    }

    #[test]
    fn a_node_without_data_has_an_overview() {
        let view = OverviewView {
            audiences: Vec::new(),
            tasks: vec![(ActivationTaskState::Queued, 2), (ActivationTaskState::Running, 1)],
            runs: Vec::new(),
            budgets: Some(Vec::new()),
            alerts: AlertList {
                alerts: Vec::new(),
                open: 0,
                total: 0,
                receivers: Vec::new(),
                next_cursor: None,
                previous_cursor: None,
            },
            nodes: Vec::new(),
            history: Vec::new(),
        };
        let html = page(view, Timestamp(0)).unwrap();
        assert!(html.contains("0 of 0") && html.contains("No activity yet."), "{html}");
        assert!(html.contains("<b>3</b><span>tasks running or queued"), "{html}");
        assert!(html.contains("<b>no ad groups</b><span>actual spend today"), "{html}");
        for (path, name) in crate::MENU {
            assert!(html.contains(&format!("<a href=\"{path}\"")) && html.contains(name), "{name}");
        }
    }
}
