//! The overview: key figures, open alerts, nodes, and recent activity.

use std::collections::HashSet;

use askama::Template;
use axum::extract::State;
use throng_model::{AudienceName, Timestamp};
use throng_store::{Snapshot, TaskState};

use crate::roles::cluster::{Member, cluster_members};

use super::alerts::{AlertLine, newest};
use super::budgets::{share_of_budgets, sums};
use super::show::{self, Card, Entry, card, count, linked};
use super::{Context, Page, chart, render};

/// The number of runs whose users are added up.
const SUMMED_RUNS: u32 = 1_000;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    cards: Vec<Card>,
    alerts: Vec<AlertLine>,
    more_alerts: Option<String>,
    spend: String,
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
    fn of(peer: Member, now: Timestamp) -> Self {
        let list = |numbers: &[u32]| {
            numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        Self {
            roles: peer.roles,
            url: peer.url,
            uptime: show::duration(now.since(peer.started_at)),
            last_seen: show::duration(now.since(peer.seen_at)),
            partitions: list(&peer.partitions),
            standby_partitions: list(&peer.stands_by),
            gates: count(peer.gates as u64),
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

pub(super) async fn page(State(ctx): Context) -> Page {
    let spec = ctx.spec.load_full();
    let audiences = ctx.ledger.audiences().await?;
    // The ledger also has audiences that are no longer declared.
    let declared: HashSet<&AudienceName> = spec.audiences.iter().map(|a| &a.name).collect();
    let published: Vec<&Snapshot> = audiences
        .iter()
        .filter(|row| declared.contains(&row.name))
        .filter_map(|row| row.current.as_ref())
        .collect();
    let members: u64 = published.iter().map(|snapshot| snapshot.members).sum();
    let tasks = ctx.ledger.task_counts().await?;
    let of = |state| tasks.iter().find(|(s, _)| *s == state).map_or(0, |(_, n)| *n);
    let runs = ctx.ledger.runs(None, SUMMED_RUNS).await?;
    let sent: u64 = runs.iter().map(|r| r.sent).sum();
    let states = ctx.budgets.states();
    let open = states.iter().filter(|s| s.open).count();
    let alerts = newest(&ctx, false).await?;
    let history = ctx.ledger.history(None, 15).await?;
    let now = ctx.clock.now();
    let (peers, _) = cluster_members(&ctx).await?;
    let overview = Overview {
        cards: vec![
            linked(
                card(
                    "audiences",
                    format!("{} of {}", published.len(), declared.len()),
                    "audiences published",
                ),
                "/audiences",
            ),
            linked(card("memberships", count(members), "memberships served"), "/audiences"),
            linked(card("users-sent", count(sent), users_sent_label(runs.len())), "/activation"),
            linked(
                card(
                    "tasks-open",
                    count(of(TaskState::Queued) + of(TaskState::Running)),
                    "tasks running or queued",
                ),
                "/activation",
            ),
            linked(
                card("ad-groups-open", format!("{open} of {}", states.len()), "ad groups open"),
                "/budgets",
            ),
            linked(
                card("spend-today", sums(&states, &|s| s.actual.0), "actual spend today"),
                "/budgets",
            ),
        ],
        alerts: alerts.lines,
        more_alerts: alerts.more,
        spend: chart::meter(&[
            ("actual", share_of_budgets(&states, &|s| s.actual.0)),
            ("flight", share_of_budgets(&states, &|s| s.in_flight.0)),
        ]),
        nodes: peers.into_iter().map(|peer| NodeRow::of(peer, now)).collect(),
        history: show::entries(history),
    };
    render(&overview)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_sum_that_is_not_over_all_runs_says_so() {
        assert_eq!(super::users_sent_label(999), "users sent to platforms");
        assert_eq!(super::users_sent_label(1_000), "users sent in the newest 1,000 runs");
    }
}
