//! Alerts in pages, with the results of their deliveries.

use askama::Template;
use throng_api::{
    ALERT_STATES, AlertDelivery, AlertDeliveryState, AlertEventName, AlertItem, AlertList,
    AlertReceiver, ListQuery,
};
use throng_model::{Timestamp, counted};

use crate::Rendered;
use crate::lists::Controls;
use crate::show::{self, count};

/// The number of alerts on one page.
pub const PAGE_ROWS: u32 = 50;
/// The number of alerts that other pages show.
pub const OTHER_PAGES_ROWS: u32 = 20;

#[derive(Template)]
#[template(path = "alerts.html")]
struct List {
    summary: String,
    rows: Vec<Row>,
    receivers: Vec<ReceiverRow>,
    newer: Option<u32>,
    older: Option<u32>,
    controls: Controls,
}

impl List {
    fn menu_path(&self) -> &'static str {
        "/alerts"
    }
}

struct Row {
    open: bool,
    kind: String,
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
pub(crate) struct AlertLine {
    pub(crate) message: String,
    pub(crate) when: String,
}

/// The open alerts for another page. The page of the alerts has the resolved ones too.
pub(crate) fn lines(list: &AlertList) -> Vec<AlertLine> {
    shown(list).map(line).collect()
}

fn shown(list: &AlertList) -> impl Iterator<Item = &AlertItem> {
    list.alerts.iter().filter(|alert| alert.resolved_at.is_none())
}

/// The note below a list that does not show all open alerts, such as `20 of 1,950 open alerts`; `None` if all are shown.
pub(crate) fn truncation_note(list: &AlertList) -> Option<String> {
    let shown = shown(list).count() as u64;
    (shown < list.open).then(|| format!("{} of {} open alerts", count(shown), count(list.open)))
}

fn line(alert: &AlertItem) -> AlertLine {
    let times =
        if alert.count > 1 { format!(" ({} times)", count(alert.count)) } else { String::new() };
    AlertLine {
        // Most messages do not name it: `version 2 is held: …`.
        message: format!("{}: {}{times}", alert.subject, alert.message),
        when: show::when(alert.last_at),
    }
}

/// The page with the alerts of a query. Without a search, state, order and cursor: [`PAGE_ROWS`] at most after the
/// first `from`, open ones first.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn page(list: AlertList, from: u32, query: ListQuery, now: Timestamp) -> Rendered {
    let shown = u64::from(from) + list.alerts.len() as u64;
    let open = count(list.open);
    let (mut newer, mut older) = (None, None);
    let mut summary = format!("{}, {open} open", counted(list.total, "alert"));
    if query.is_unfiltered() && !list.alerts.is_empty() {
        let first = count(u64::from(from).saturating_add(1).min(shown));
        summary = format!("{first} to {} of {summary}", count(shown));
        older = (shown < list.total).then(|| from.saturating_add(PAGE_ROWS));
    }
    if query.is_unfiltered() {
        newer = (from > 0).then(|| from.saturating_sub(PAGE_ROWS));
    }
    let path = "/alerts";
    let page = List {
        summary,
        rows: list.alerts.into_iter().map(row).collect(),
        receivers: list.receivers.into_iter().map(|receiver| receiver_row(receiver, now)).collect(),
        newer,
        older,
        controls: Controls::new(path, query, ALERT_STATES, list.next_cursor, list.previous_cursor),
    };
    page.render()
}

fn row(alert: AlertItem) -> Row {
    Row {
        open: alert.resolved_at.is_none(),
        kind: alert.kind,
        deliveries: alert.deliveries.iter().map(delivery_text).collect(),
        subject: alert.subject,
        message: alert.message,
        count: count(alert.count),
        first: show::when(alert.raised_at),
        last: show::when(alert.last_at),
    }
}

fn delivery_text(delivery: &AlertDelivery) -> String {
    let event = match delivery.event {
        AlertEventName::Raised => "raised",
        AlertEventName::Resolved => "resolved",
    };
    let (receiver, why) = (&delivery.receiver, delivery.why.as_deref().unwrap_or_default());
    match delivery.state {
        AlertDeliveryState::Delivered => format!("{event}: delivered to {receiver}"),
        AlertDeliveryState::Expired => format!("{event}: expired for {receiver}: {why}"),
        AlertDeliveryState::Refused => format!("{event}: refused by {receiver}: {why}"),
    }
}

fn receiver_row(receiver: AlertReceiver, now: Timestamp) -> ReceiverRow {
    let next = receiver.next_try_at.map(|at| format!("; {}", show::next_retry(at, now)));
    ReceiverRow {
        name: receiver.name,
        pending: count(receiver.pending),
        ok: receiver.last_ok_at.map_or_else(|| "–".to_owned(), show::when),
        last_error: match receiver.failures {
            0 => String::new(),
            failures => format!(
                "{}, last error: {}{}",
                counted(u64::from(failures), "failed attempt"),
                receiver.last_error.unwrap_or_default(),
                next.unwrap_or_default()
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use throng_api::AlertSeverity;

    use super::*;

    /// A list of this many alerts, of which the first `open` are open, out of more.
    fn list(alerts: u64, open_shown: u64, open: u64, total: u64) -> AlertList {
        let alert = |number: u64| AlertItem {
            id: number as i64,
            kind: "run_held".to_owned(),
            subject: "s".to_owned(),
            message: "held".to_owned(),
            count: 1,
            raised_at: Timestamp(0),
            last_at: Timestamp(0),
            resolved_at: (number >= open_shown).then_some(Timestamp(1)),
            severity: AlertSeverity::Warning,
            deliveries: Vec::new(),
        };
        let alerts = (0..alerts).map(alert).collect();
        AlertList {
            alerts,
            open,
            total,
            receivers: Vec::new(),
            next_cursor: None,
            previous_cursor: None,
        }
    }

    #[test]
    fn a_truncated_list_says_so() {
        assert_eq!(truncation_note(&list(20, 20, 20, 500)), None);
        let note = truncation_note(&list(20, 20, 1_950, 2_000));
        assert_eq!(note.as_deref(), Some("20 of 1,950 open alerts"));
        assert_eq!(truncation_note(&list(20, 3, 3, 1_950)), None);
        assert_eq!(lines(&list(20, 3, 3, 1_950)).len(), 3);
    }

    #[test]
    fn an_alert_on_another_page_names_its_object() {
        let mut list = list(1, 1, 1, 1);
        list.alerts[0].subject = "buyers-on-meta".to_owned();
        assert_eq!(lines(&list)[0].message, "buyers-on-meta: held");
        list.alerts[0].count = 3;
        assert_eq!(lines(&list)[0].message, "buyers-on-meta: held (3 times)");
    }

    #[test]
    fn a_page_links_to_its_neighbours() {
        let html = page(list(50, 3, 3, 120), 50, ListQuery::default(), Timestamp(0)).unwrap();
        assert!(html.contains("51 to 100 of 120 alerts, 3 open"), "{html}");
        assert!(html.contains("/alerts?from=0\"") && html.contains("/alerts?from=100\""), "{html}");
        let html = page(list(0, 0, 0, 0), 0, ListQuery::default(), Timestamp(0)).unwrap();
        assert!(html.contains(">0 alerts, 0 open<"), "{html}");
        let html = page(list(1, 1, 1, 1), 0, ListQuery::default(), Timestamp(0)).unwrap();
        assert!(html.contains(">1 to 1 of 1 alert, 1 open<"), "{html}");
        assert!(html.contains("data-label=\"Count\">1</td>"), "{html}");
        // Alerts were deleted meanwhile, or the address is made up.
        let html = page(list(0, 0, 3, 15), 100, ListQuery::default(), Timestamp(0)).unwrap();
        assert!(html.contains(">15 alerts, 3 open<") && html.contains("id=\"newer\""), "{html}");
    }

    #[test]
    fn matching_alerts_have_links_to_other_pages() {
        let next_cursor = Some("0b".to_owned());
        let list = AlertList { next_cursor, ..list(2, 2, 3, 120) };
        let query = ListQuery { state: Some("open".to_owned()), ..ListQuery::default() };
        let html = page(list, 0, query, Timestamp(0)).unwrap();
        assert!(html.contains("state=open") && html.contains("cursor=0b"), "{html}");
        assert!(html.contains("120 alerts, 3 open") && !html.contains("id=\"older\""), "{html}");
    }
}
