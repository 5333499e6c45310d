//! Alerts in pages, with the results of their deliveries.

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use throng_model::Timestamp;
use throng_store::{Alert, AlertEventKind, AlertTotals, Delivery, DeliveryState, Receiver};

use super::show::{self, count};
use super::{Context, Page, render};
use crate::NodeContext;
use crate::page::PageError;

/// The number of alerts on one page.
const PAGE_ROWS: u32 = 50;
/// The number of alerts that other pages show.
const OTHER_PAGES_ROWS: u32 = 20;

#[derive(Template)]
#[template(path = "alerts.html")]
struct List {
    summary: String,
    rows: Vec<Row>,
    receivers: Vec<ReceiverRow>,
    newer: Option<u32>,
    older: Option<u32>,
}

impl List {
    fn menu_path(&self) -> &'static str {
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
    last_error: String,
}

/// An alert on another page.
pub(super) struct AlertLine {
    pub(super) message: String,
    pub(super) when: String,
    pub(super) is_resolved: bool,
}

/// The newest alerts, and their total number.
pub(super) struct NewestAlerts {
    pub(super) lines: Vec<AlertLine>,
    pub(super) totals: AlertTotals,
    /// `20 of 1,950 open alerts` or `20 of 1,950 alerts, 3 open`; `None` if all are shown.
    pub(super) more: Option<String>,
}

/// The newest alerts for other pages: open ones, and resolved ones if wanted.
pub(super) async fn newest(
    ctx: &NodeContext,
    with_resolved: bool,
) -> Result<NewestAlerts, PageError> {
    let totals = ctx.ledger.alert_totals().await?;
    let alerts = ctx.ledger.alerts(OTHER_PAGES_ROWS).await?;
    let shown = alerts.into_iter().filter(|alert| with_resolved || alert.resolved_at.is_none());
    let lines: Vec<AlertLine> = shown.map(line).collect();
    let more = truncation_note(lines.len() as u64, totals, with_resolved);
    Ok(NewestAlerts { lines, totals, more })
}

/// The note below a list that does not show all alerts.
fn truncation_note(shown: u64, totals: AlertTotals, with_resolved: bool) -> Option<String> {
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
        is_resolved: alert.resolved_at.is_some(),
    }
}

/// The query of the page.
#[derive(Debug, Deserialize)]
pub(super) struct AlertsQuery {
    /// The number of alerts to skip first.
    #[serde(default)]
    from: u32,
}

pub(super) async fn page(
    State(ctx): Context,
    Query(AlertsQuery { from }): Query<AlertsQuery>,
) -> Page {
    let totals = ctx.ledger.alert_totals().await?;
    let alerts = ctx.ledger.alerts_page(PAGE_ROWS, from).await?;
    let ids: Vec<i64> = alerts.iter().map(|alert| alert.id).collect();
    let deliveries = ctx.ledger.deliveries_of(&ids).await?;
    let shown = u64::from(from) + alerts.len() as u64;
    let summary = format!(
        "{} to {} of {} alerts, {} open",
        count(u64::from(from).saturating_add(1).min(shown)),
        count(shown),
        count(totals.total),
        count(totals.open)
    );
    let receivers = ctx.ledger.receivers().await?;
    let now = ctx.clock.now();
    let list = List {
        summary,
        rows: alerts.into_iter().map(|alert| row(alert, &deliveries)).collect(),
        receivers: receivers.into_iter().map(|receiver| receiver_row(receiver, now)).collect(),
        newer: (from > 0).then(|| from.saturating_sub(PAGE_ROWS)),
        older: (shown < totals.total).then(|| from.saturating_add(PAGE_ROWS)),
    };
    render(&list)
}

fn row(alert: Alert, deliveries: &[Delivery]) -> Row {
    let of_this = deliveries.iter().filter(|delivery| delivery.alert == alert.id);
    Row {
        open: alert.resolved_at.is_none(),
        kind: alert.kind.name(),
        deliveries: of_this.map(delivery_text).collect(),
        subject: alert.subject,
        message: alert.message,
        count: count(alert.count),
        first: show::when(alert.raised_at),
        last: show::when(alert.last_at),
    }
}

fn delivery_text(delivery: &Delivery) -> String {
    let event = match delivery.event {
        AlertEventKind::Raised => "raised",
        AlertEventKind::Resolved => "resolved",
    };
    let (receiver, why) = (&delivery.receiver, delivery.why.as_deref().unwrap_or_default());
    match delivery.state {
        DeliveryState::Delivered => format!("{event}: delivered to {receiver}"),
        DeliveryState::Expired => format!("{event}: expired for {receiver}: {why}"),
        DeliveryState::Refused => format!("{event}: refused by {receiver}: {why}"),
    }
}

fn receiver_row(receiver: Receiver, now: Timestamp) -> ReceiverRow {
    let next = receiver.next_try_at.map(|at| format!("; {}", show::next_retry(at, now)));
    ReceiverRow {
        name: receiver.name,
        pending: count(receiver.pending),
        ok: receiver.last_ok_at.map_or_else(|| "–".to_owned(), show::when),
        last_error: match receiver.failures {
            0 => String::new(),
            failures => format!(
                "{failures} failed attempts, last error: {}{}",
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
    fn a_truncated_list_says_so() {
        let totals = |open, total| AlertTotals { open, total };
        assert_eq!(truncation_note(20, totals(20, 500), false), None);
        assert_eq!(
            truncation_note(20, totals(1_950, 2_000), false).as_deref(),
            Some("20 of 1,950 open alerts")
        );
        assert_eq!(truncation_note(20, totals(3, 20), true), None);
        let note = truncation_note(20, totals(3, 1_950), true);
        assert_eq!(note.as_deref(), Some("20 of 1,950 alerts, 3 open"));
    }
}
