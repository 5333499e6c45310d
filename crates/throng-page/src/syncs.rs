//! Syncs: delivered users and the size on the platform over time, refused removals, and removals of syncs.

use askama::Template;
use throng_api::{
    HistoryItem, NO_MEMBERS, SyncRemoval, SyncRemovalRule, SyncSize, SyncSizes, SyncSummary,
};
use throng_model::{Timestamp, people_text};

use crate::show::{self, Card, Entry, card, count};
use crate::{Rendered, chart};

/// The maximum number of listed syncs.
const MAX_SYNCS: usize = 200;
/// The maximum number of sizes below the chart.
const MAX_SIZES: usize = 100;

/// A removal of a sync that is not finished.
#[derive(Debug)]
pub struct OpenRemoval {
    /// The removal.
    pub removal: SyncRemoval,
    /// When removals of users that the platform refused are retried; `None` if there are none.
    pub refused_retry_at: Option<Timestamp>,
}

/// One sync of the applied spec.
#[derive(Debug)]
pub struct SyncView {
    /// The sync and its audience on the platform.
    pub sync: SyncSummary,
    /// The sizes of its audience on the platform.
    pub sizes: SyncSizes,
    /// Its history, newest first.
    pub history: Vec<HistoryItem>,
}

/// A sync of the applied spec and its audience on the platform.
pub(crate) struct SyncRow {
    pub(crate) name: String,
    pub(crate) audience: String,
    pub(crate) destination: String,
    pub(crate) delivered: String,
    pub(crate) size: String,
    pub(crate) read_at: String,
    /// Refused removals and when they are retried; empty if there are none.
    pub(crate) due: String,
    /// Why nothing is sent; empty if the sync does not wait for members.
    pub(crate) waiting: &'static str,
}

/// The listed syncs, and the number of all syncs.
pub(crate) struct SyncRows {
    pub(crate) rows: Vec<SyncRow>,
    pub(crate) total: usize,
}

/// The first syncs of the applied spec.
pub(crate) fn rows(syncs: &[SyncSummary], now: Timestamp) -> SyncRows {
    let rows = syncs.iter().take(MAX_SYNCS).map(|sync| row(sync, now));
    SyncRows { rows: rows.collect(), total: syncs.len() }
}

/// A sync and its audience on the platform.
pub(crate) fn row(sync: &SyncSummary, now: Timestamp) -> SyncRow {
    SyncRow {
        name: sync.name.to_string(),
        audience: sync.audience.to_string(),
        destination: sync.destination.to_string(),
        delivered: sync.delivered_users.map_or_else(|| "–".to_owned(), count),
        size: sync.size.as_ref().map_or_else(|| "–".to_owned(), size_text),
        read_at: sync.size.as_ref().map(|size| show::when(size.at)).unwrap_or_default(),
        due: removals_due(sync.removals_due, sync.removals_retry_at, now).unwrap_or_default(),
        waiting: if sync.waits_for_members { NO_MEMBERS } else { "" },
    }
}

/// The size on the platform as text.
fn size_text(size: &SyncSize) -> String {
    let text = people_text(size.lower, size.upper, count);
    if size.settling { format!("{text} (processing an upload)") } else { text }
}

/// Removals that the platform refused, and when they are retried.
fn removals_due(due: u64, retry_at: Option<Timestamp>, now: Timestamp) -> Option<String> {
    let removals = match due {
        0 => return None,
        1 => "1 refused removal".to_owned(),
        due => format!("{} refused removals", count(due)),
    };
    Some(format!("{removals}; {}", show::next_retry(retry_at.unwrap_or(now), now)))
}

/// A sync that was removed from the spec, and whose audience on the platform is to be emptied or deleted.
pub(crate) struct RemovalRow {
    pub(crate) sync: String,
    /// The name of the audience on the platform, its id and its destination.
    pub(crate) audience: String,
    pub(crate) action: &'static str,
    pub(crate) users: String,
    pub(crate) state: String,
    pub(crate) tone: &'static str,
    /// Whether it waits for approval.
    pub(crate) needs_approval: bool,
    /// What to confirm before it is approved.
    pub(crate) confirm: String,
    /// When it is retried; empty if no attempt has failed.
    pub(crate) next_retry: String,
    pub(crate) last_error: String,
    pub(crate) requested: String,
}

pub(crate) fn removal_row(open: &OpenRemoval, now: Timestamp) -> RemovalRow {
    let removal = &open.removal;
    let id = removal.platform_id.as_deref().unwrap_or("not on the platform");
    let audience = match (&removal.audience, &removal.destination) {
        (Some(name), Some(destination)) => format!("{name} ({id}) at {destination}"),
        // Another version of this program wrote it; the id is enough to identify the audience.
        _ => id.to_owned(),
    };
    let (state, tone) = match &removal.approved_by {
        None => ("waits for approval".to_owned(), "warn"),
        Some(by) => (format!("approved by {by}"), "busy"),
    };
    let retry_at = removal.retry_at.or(open.refused_retry_at);
    let retry_at = retry_at.filter(|_| removal.approved_at.is_some());
    let action = match removal.rule {
        SyncRemovalRule::Empty => "is emptied",
        SyncRemovalRule::Delete => "is deleted",
    };
    let users = removal.users.map_or_else(|| "unknown".to_owned(), count);
    RemovalRow {
        sync: removal.sync.to_string(),
        confirm: format!("Approve that {audience} {action}? Delivered users: {users}."),
        audience,
        action,
        users,
        state,
        tone,
        needs_approval: removal.approved_at.is_none(),
        next_retry: retry_at.map(|at| show::next_retry(at, now)).unwrap_or_default(),
        last_error: removal.last_error.clone().unwrap_or_default(),
        requested: show::when(removal.requested_at),
    }
}

#[derive(Template)]
#[template(path = "sync.html")]
struct One {
    name: String,
    audience: String,
    destination: String,
    cards: Vec<Card>,
    /// The problem of the sizes; empty if there is none.
    finding: String,
    /// Why nothing is sent; empty if the sync does not wait for members.
    waiting: &'static str,
    chart: String,
    sizes: Vec<SizeRow>,
    /// Whether the sizes have a verdict.
    is_evaluated: bool,
    history: Vec<Entry>,
}

struct SizeRow {
    when: String,
    audience: String,
    delivered: String,
    size: String,
}

impl One {
    fn menu_path(&self) -> &'static str {
        "/activation"
    }
}

/// The chart of delivered users and sizes on the platform over time.
fn size_chart(sizes: &[&SyncSize]) -> String {
    let line = |class, value: fn(&SyncSize) -> Option<u64>| chart::Line {
        class,
        points: sizes
            .iter()
            .filter_map(|size| value(size).map(|value| (size.at.0 as f64, value as f64)))
            .collect(),
    };
    let lines = [
        line("b", |size| Some(size.delivered)),
        line("a", |size| size.lower),
        line("c", |size| size.upper),
    ];
    let title = "Users delivered and on the platform";
    chart::lines(title, &lines, &|x| show::when(Timestamp(x as i64)), &|y| count(y as u64))
}

/// The page of one sync.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn one(view: SyncView, now: Timestamp) -> Rendered {
    let SyncSizes { platform_id, verdict, reason, sizes, .. } = view.sizes;
    let shown = row(&view.sync, now);
    let id = platform_id.unwrap_or_default();
    let of_audience: Vec<&SyncSize> = sizes.iter().filter(|s| s.platform_id == id).collect();
    let newest = of_audience.last().copied();
    let due = if shown.due.is_empty() { "none".to_owned() } else { shown.due };
    let size_row = |size: &SyncSize| SizeRow {
        when: show::when(size.at),
        audience: size.platform_id.clone(),
        delivered: count(size.delivered),
        size: size_text(size),
    };
    let page = One {
        name: shown.name,
        audience: shown.audience,
        destination: shown.destination,
        cards: vec![
            card("delivered", shown.delivered, "users delivered"),
            card("shown", newest.map_or_else(|| "–".to_owned(), size_text), "on the platform"),
            card("removals-due", due, "removals due"),
        ],
        finding: reason.unwrap_or_default(),
        waiting: shown.waiting,
        chart: size_chart(&of_audience),
        sizes: sizes.iter().rev().take(MAX_SIZES).map(size_row).collect(),
        is_evaluated: verdict.is_some(),
        history: show::entries(&view.history),
    };
    page.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal(approved: bool) -> OpenRemoval {
        let removal = SyncRemoval {
            sync: "s".parse().unwrap(),
            rule: SyncRemovalRule::Delete,
            audience: None,
            destination: None,
            platform_id: Some("77".to_owned()),
            users: Some(1_234),
            requested_at: Timestamp(0),
            approved_at: approved.then_some(Timestamp(1)),
            approved_by: approved.then(|| "ann".to_owned()),
            tries: 1,
            retry_at: approved.then_some(Timestamp(60_000_000)),
            last_error: None,
        };
        OpenRemoval { removal, refused_retry_at: Some(Timestamp(120_000_000)) }
    }

    #[test]
    fn a_removal_shows_its_approval_and_its_next_retry() {
        let row = removal_row(&removal(false), Timestamp(0));
        assert_eq!(
            (row.state.as_str(), row.needs_approval, row.next_retry.as_str()),
            ("waits for approval", true, "")
        );
        assert_eq!((row.audience.as_str(), row.users.as_str()), ("77", "1,234"));

        let mut approved = removal(true);
        approved.removal.users = None;
        let row = removal_row(&approved, Timestamp(0));
        assert_eq!((row.state.as_str(), row.needs_approval), ("approved by ann", false));
        assert_eq!(row.next_retry, "next retry at 1970-01-01 00:01:00 UTC");
        assert_eq!(row.users, "unknown");

        approved.removal.retry_at = None;
        let row = removal_row(&approved, Timestamp(0));
        assert_eq!(row.next_retry, "next retry at 1970-01-01 00:02:00 UTC");

        let due = removals_due(2, Some(Timestamp(120_000_000)), Timestamp(0)).unwrap();
        assert!(due.starts_with("2 refused removals; next retry at"), "{due}");
        assert_eq!(removals_due(0, None, Timestamp(0)), None);
    }
}
