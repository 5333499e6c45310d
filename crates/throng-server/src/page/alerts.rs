//! Alerts, a page at a time, with what became of their delivery.

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use throng_model::Timestamp;
use throng_store::{Alert, AlertEventKind, AlertTotals, Delivery, DeliveryState, Receiver};

use super::show::{self, count};
use super::{Context, Page, render};
use crate::NodeContext;
use crate::page::PageError;

/// Alerts of one page.
const ROWS: u32 = 50;
/// Open alerts that other pages show.
const SHOWN_ELSEWHERE: u32 = 20;

#[derive(Template)]
#[template(path = "alerts.html")]
struct List {
    said: String,
    rows: Vec<Row>,
    receivers: Vec<ReceiverRow>,
    newer: Option<u32>,
    older: Option<u32>,
}

impl List {
    fn place(&self) -> &'static str {
        "/alerts"
    }
}

struct Row {
    open: bool,
    kind: &'static str,
    subject: String,
    message: String,
    count: String,
    first: String,
    last: String,
    deliveries: Vec<String>,
}

struct ReceiverRow {
    name: String,
    pending: String,
    ok: String,
    trouble: String,
}

/// An alert on the pages about other things.
pub(super) struct AlertLine {
    pub(super) message: String,
    pub(super) when: String,
    pub(super) done: bool,
}

/// The newest alerts, and how many there are.
pub(super) struct Newest {
    pub(super) lines: Vec<AlertLine>,
    pub(super) totals: AlertTotals,
    /// `20 of 1,950 open alerts` or `20 of 1,950 alerts, 3 open`, if not all are here.
    pub(super) more: Option<String>,
}

/// The first alerts for the other pages: the open ones, or resolved ones too.
pub(super) async fn newest(ctx: &NodeContext, with_resolved: bool) -> Result<Newest, PageError> {
    let totals = ctx.ledger.alert_totals().await?;
    let alerts = ctx.ledger.alerts(SHOWN_ELSEWHERE).await?;
    let shown = alerts.into_iter().filter(|alert| with_resolved || alert.resolved_at.is_none());
    let lines: Vec<AlertLine> = shown.map(line).collect();
    let more = cut_off(lines.len() as u64, totals, with_resolved);
    Ok(Newest { lines, totals, more })
}

/// What is said where not all alerts are shown.
fn cut_off(shown: u64, totals: AlertTotals, with_resolved: bool) -> Option<String> {
    let (shown_text, open) = (count(shown), count(totals.open));
    match with_resolved {
        true => (shown < totals.total)
            .then(|| format!("{shown_text} of {} alerts, {open} open", count(totals.total))),
        false => (shown < totals.open).then(|| format!("{shown_text} of {open} open alerts")),
    }
}

fn line(alert: Alert) -> AlertLine {
    let times =
        if alert.count > 1 { format!(" ({} times)", count(alert.count)) } else { String::new() };
    AlertLine {
        message: format!("{}{times}", alert.message),
        when: show::when(alert.last_at),
        done: alert.resolved_at.is_some(),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct From {
    #[serde(default)]
    from: u32,
}

pub(super) async fn page(State(ctx): Context, Query(From { from }): Query<From>) -> Page {
    let totals = ctx.ledger.alert_totals().await?;
    let alerts = ctx.ledger.alerts_page(ROWS, from).await?;
    let ids: Vec<i64> = alerts.iter().map(|alert| alert.id).collect();
    let deliveries = ctx.ledger.deliveries_of(&ids).await?;
    let shown = u64::from(from) + alerts.len() as u64;
    let said = format!(
        "{} to {} of {} alerts, {} open",
        count(u64::from(from).saturating_add(1).min(shown)),
        count(shown),
        count(totals.total),
        count(totals.open)
    );
    let receivers = ctx.ledger.receivers().await?;
    let now = ctx.clock.now();
    let list = List {
        said,
        rows: alerts.into_iter().map(|alert| row(alert, &deliveries)).collect(),
        receivers: receivers.into_iter().map(|receiver| receiver_row(receiver, now)).collect(),
        newer: (from > 0).then(|| from.saturating_sub(ROWS)),
        older: (shown < totals.total).then(|| from.saturating_add(ROWS)),
    };
    render(&list)
}

fn row(alert: Alert, deliveries: &[Delivery]) -> Row {
    let of_this = deliveries.iter().filter(|delivery| delivery.alert == alert.id);
    Row {
        open: alert.resolved_at.is_none(),
        kind: alert.kind.name(),
        deliveries: of_this.map(delivered).collect(),
        subject: alert.subject,
        message: alert.message,
        count: count(alert.count),
        first: show::when(alert.raised_at),
        last: show::when(alert.last_at),
    }
}

fn delivered(delivery: &Delivery) -> String {
    let event = match delivery.event {
        AlertEventKind::Raised => "raised",
        AlertEventKind::Resolved => "resolved",
    };
    let (receiver, why) = (&delivery.receiver, delivery.why.as_deref().unwrap_or_default());
    match delivery.state {
        DeliveryState::Delivered => format!("{event}: delivered to {receiver}"),
        DeliveryState::Expired => format!("{event}: given up for {receiver}: {why}"),
        DeliveryState::Refused => format!("{event}: refused by {receiver}: {why}"),
    }
}

fn receiver_row(receiver: Receiver, now: Timestamp) -> ReceiverRow {
    let next = receiver.next_try_at.map(|at| format!("; {}", show::next_try(at, now)));
    ReceiverRow {
        name: receiver.name,
        pending: count(receiver.pending),
        ok: receiver.last_ok_at.map_or_else(|| "–".to_owned(), show::when),
        trouble: match receiver.failures {
            0 => String::new(),
            failures => format!(
                "{failures} failed tries, the last: {}{}",
                receiver.last_error.unwrap_or_default(),
                next.unwrap_or_default()
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_cut_off_says_so() {
        let totals = |open, total| AlertTotals { open, total };
        assert_eq!(cut_off(20, totals(20, 500), false), None);
        assert_eq!(
            cut_off(20, totals(1_950, 2_000), false).as_deref(),
            Some("20 of 1,950 open alerts")
        );
        assert_eq!(cut_off(20, totals(3, 20), true), None);
        let said = cut_off(20, totals(3, 1_950), true);
        assert_eq!(said.as_deref(), Some("20 of 1,950 alerts, 3 open"));
    }
}
