//! The overview: the figures of all four jobs, open alerts, and what happened last.

use askama::Template;
use axum::extract::State;
use throng_ledger::TaskState;
use throng_model::Timestamp;

use crate::roles::follow::{Peer, deployment};

use super::alerts::{AlertLine, newest};
use super::budgets::{share_of_budgets, sums};
use super::show::{self, Card, Entry, card, count, linked};
use super::{Context, Page, chart, render};

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    cards: Vec<Card>,
    alerts: Vec<AlertLine>,
    more_alerts: Option<String>,
    spend: String,
    nodes: Vec<NodeLine>,
    history: Vec<Entry>,
}

/// A process of the deployment.
struct NodeLine {
    roles: String,
    url: String,
    up: String,
    heard: String,
    partitions: String,
    stands_by: String,
    gates: String,
}

impl NodeLine {
    fn of(peer: Peer, now: Timestamp) -> Self {
        let list = |numbers: &[u32]| {
            numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        Self {
            roles: peer.roles,
            url: peer.url,
            up: show::duration(now.since(peer.started_at)),
            heard: show::duration(now.since(peer.seen_at)),
            partitions: list(&peer.partitions),
            stands_by: list(&peer.stands_by),
            gates: count(peer.gates as u64),
        }
    }
}

impl Overview {
    fn place(&self) -> &'static str {
        "/"
    }
}

pub(super) async fn page(State(ctx): Context) -> Page {
    let audiences = ctx.ledger.audiences().await?;
    let published = audiences.iter().filter(|a| a.current.is_some()).count();
    let members: u64 = audiences.iter().filter_map(|a| a.current.as_ref()).map(|s| s.members).sum();
    let tasks = ctx.ledger.task_counts().await?;
    let of = |state| tasks.iter().find(|(s, _)| *s == state).map_or(0, |(_, n)| *n);
    let runs = ctx.ledger.runs(None, 1_000).await?;
    let sent: u64 = runs.iter().map(|r| r.sent).sum();
    let states = ctx.budgets.states();
    let open = states.iter().filter(|s| s.open).count();
    let declared = ctx.spec.load().audiences.len();
    let alerts = newest(&ctx, false).await?;
    let history = ctx.ledger.history(None, 15).await?;
    let now = ctx.clock.now();
    let (peers, _) = deployment(&ctx).await?;
    let overview = Overview {
        cards: vec![
            linked(
                card("audiences", format!("{published} of {declared}"), "audiences published"),
                "/audiences",
            ),
            linked(card("memberships", count(members), "memberships served"), "/audiences"),
            linked(card("users-sent", count(sent), "users sent to platforms"), "/activation"),
            linked(
                card(
                    "tasks-open",
                    count(of(TaskState::Queued) + of(TaskState::Running)),
                    "tasks at work or queued",
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
        nodes: peers.into_iter().map(|peer| NodeLine::of(peer, now)).collect(),
        history: show::entries(history),
    };
    render(&overview)
}
