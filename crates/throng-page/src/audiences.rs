//! Audiences: the list, and one audience with its size over time, SQL, snapshots and history.

use std::collections::HashMap;

use askama::Template;
use throng_api::{
    AUDIENCE_STATES, AudienceDetail, AudienceList, AudienceRefresh, AudienceRefreshState,
    AudienceSnapshot, AudienceSnapshotState, AudienceSummary, BulkOffer, HistoryItem, ListQuery,
};
use throng_model::{AudienceName, Timestamp};

use crate::lists::Controls;
use crate::show::{self, Action, Card, Entry, card, count, text_card};
use crate::{Rendered, chart};

/// One audience, with what the spec says about it.
#[derive(Debug)]
pub struct AudienceView {
    /// The audience, its snapshots and its sizes.
    pub detail: AudienceDetail,
    /// Its description in the spec.
    pub description: Option<String>,
    /// The SQL of its model.
    pub sql: String,
    /// When it is refreshed, such as its cron expression, and the rest of it, such as the time zone;
    /// `None` if only people refresh it.
    pub schedule: Option<(String, String)>,
    /// Its history, newest first.
    pub history: Vec<HistoryItem>,
}

#[derive(Template)]
#[template(path = "audiences.html")]
struct List {
    controls: Controls,
    /// What a person can do with all audiences that match the filter.
    bulk: Vec<Action>,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    description: String,
    members: String,
    state: &'static str,
    tone: &'static str,
    /// Why it is not refreshed (paused or pinned); empty if it is.
    stopped: String,
    waiting: String,
    version: String,
    built: String,
    refreshed: String,
    progress: String,
}

impl List {
    fn menu_path(&self) -> &'static str {
        "/audiences"
    }
}

/// A page of the audiences. `descriptions`: those that the spec has. `offers`: the operations on all audiences that match
/// the query.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn list(
    list: AudienceList,
    descriptions: &HashMap<&AudienceName, &str>,
    query: ListQuery,
    offers: &[BulkOffer],
    now: Timestamp,
) -> Rendered {
    let AudienceList { audiences, next_cursor, previous_cursor } = list;
    let path = "/audiences";
    let controls = Controls::new(path, query, AUDIENCE_STATES, next_cursor, previous_cursor);
    let described = |name: &AudienceName| descriptions.get(name).copied().unwrap_or_default();
    let rows = audiences.iter().map(|summary| row(summary, described(&summary.name), now));
    List { controls, bulk: show::bulk(offers), rows: rows.collect() }.render()
}

fn row(summary: &AudienceSummary, description: &str, now: Timestamp) -> Row {
    let (state, tone) = state_of(summary);
    let (current, refresh) = (summary.current.as_ref(), summary.refresh.as_ref());
    Row {
        name: summary.name.to_string(),
        description: description.to_owned(),
        members: members(current),
        state,
        tone,
        stopped: stopped(summary),
        waiting: waiting(summary),
        version: current.map_or_else(|| "–".to_owned(), |s| s.version.to_string()),
        built: current.map_or_else(|| "never".to_owned(), |s| show::when(s.created_at)),
        refreshed: refreshed(summary),
        progress: refresh.map(|of| progress(&of.refresh, now)).unwrap_or_default(),
    }
}

/// When its last successful refresh was.
fn refreshed(summary: &AudienceSummary) -> String {
    summary.refreshed_at.map_or_else(|| "never".to_owned(), show::when)
}

fn members(current: Option<&AudienceSnapshot>) -> String {
    current.map_or_else(|| "–".to_owned(), |snapshot| count(snapshot.members))
}

fn state_of(summary: &AudienceSummary) -> (&'static str, &'static str) {
    match &summary.refresh {
        None => ("waiting", ""),
        Some(newest) if newest.refresh.unchanged => ("unchanged", "good"),
        Some(newest) => match newest.refresh.ended_by_person() {
            Some(word) => (word, "warn"),
            None => show::refresh(newest.refresh.state),
        },
    }
}

/// The refresh that follows the open one; empty if there is none.
fn waiting(summary: &AudienceSummary) -> String {
    summary.waiting_refresh.map(|id| format!("refresh {id} waits")).unwrap_or_default()
}

/// Why no refresh of the audience starts; empty if one can start.
fn stopped(summary: &AudienceSummary) -> String {
    let version = summary.current.as_ref().map_or(0, |current| current.version);
    match (summary.paused_at, summary.pinned_at) {
        (Some(_), Some(_)) => format!("paused and pinned to version {version}"),
        (Some(_), None) => "paused".to_owned(),
        (None, Some(_)) => format!("pinned to version {version}"),
        (None, None) => String::new(),
    }
}

/// The rows read, the rows expected, and the remaining time at this speed.
fn progress(refresh: &AudienceRefresh, now: Timestamp) -> String {
    match refresh.state {
        AudienceRefreshState::Processing => {
            let read = format!("{} rows", count(refresh.rows_read));
            match (refresh.rows_expected, refresh.remaining_time(now)) {
                (Some(expected), Some(left)) => {
                    let (expected, left) = (count(expected), show::duration(left));
                    format!("{read} of about {expected}, {left} remaining")
                }
                _ => read,
            }
        }
        AudienceRefreshState::Failed | AudienceRefreshState::Held => {
            refresh.reason.clone().unwrap_or_default()
        }
        AudienceRefreshState::Scheduled if refresh.failures > 0 => {
            let reason = refresh.reason.as_deref().unwrap_or("no reason was recorded");
            format!("{}; last error: {reason}", show::next_retry(refresh.not_before, now))
        }
        _ => String::new(),
    }
}

#[derive(Template)]
#[template(path = "audience.html")]
struct One {
    name: String,
    description: String,
    state: &'static str,
    tone: &'static str,
    /// Why it is not refreshed (paused or pinned); empty if it is.
    stopped: String,
    waiting: String,
    reason: Option<String>,
    /// Cancels the refresh that is shown, if it is open.
    cancel: Option<Action>,
    /// What to confirm before a refresh is queued; `None` if one is open, or none can start.
    refresh: Option<String>,
    cards: Vec<Card>,
    sizes: String,
    sql: String,
    snapshots: Vec<SnapshotRow>,
    history: Vec<Entry>,
}

struct SnapshotRow {
    version: u64,
    current: bool,
    actions: Vec<Action>,
    state: &'static str,
    tone: &'static str,
    members: String,
    rows_read: String,
    null_keys: String,
    bytes: String,
    created: String,
}

impl One {
    fn menu_path(&self) -> &'static str {
        "/audiences"
    }
}

/// The page of one audience.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn one(view: AudienceView) -> Rendered {
    let AudienceView { detail, description, sql, schedule, history } = view;
    let AudienceDetail { audience, snapshots, sizes } = detail;
    let (state, tone) = state_of(&audience);
    let stopped = stopped(&audience);
    let current = audience.current.as_ref();
    let refresh = audience.refresh.as_ref().map(|of| &of.refresh);
    let points = sizes.iter().map(|(at, members)| (at.0 as f64, *members as f64)).collect();
    let size_line = chart::Line { class: "b", points };
    // Without a snapshot no figure is known, not even that it is zero.
    let of_current = |figure: &dyn Fn(&AudienceSnapshot) -> String| {
        current.map_or_else(|| "–".to_owned(), figure)
    };
    let (cron, time_zone) =
        schedule.unwrap_or_else(|| ("manual".to_owned(), "schedule".to_owned()));
    let open = refresh.filter(|refresh| {
        use AudienceRefreshState::{Halted, Processing, Scheduled};
        matches!(refresh.state, Scheduled | Processing | Halted)
    });
    let can_start = open.is_none() && stopped.is_empty();
    let page = One {
        name: audience.name.to_string(),
        description: description.unwrap_or_default(),
        state,
        tone,
        stopped,
        waiting: waiting(&audience),
        reason: refresh
            .filter(|refresh| refresh.state != AudienceRefreshState::Completed)
            .and_then(|refresh| refresh.reason.clone()),
        cancel: open.map(|open| {
            let (id, name, rows) = (open.id, &audience.name, count(open.rows_read));
            Action {
                label: "Cancel the refresh",
                // Another one that is open by then continues.
                post: format!("/v1/audiences/{name}/cancel?refresh={id}"),
                body: "{}".to_owned(),
                confirm: format!("Cancel refresh {id} of {name}? It has read {rows} rows."),
            }
        }),
        refresh: can_start.then(|| match current {
            Some(current) => format!(
                "Refresh {}? It has {} members; the last scan read {} rows.",
                audience.name,
                count(current.members),
                count(current.rows_read)
            ),
            None => format!("Refresh {}? It has no snapshot yet.", audience.name),
        }),
        cards: vec![
            card("members", members(current), "members"),
            card("version", of_current(&|s| s.version.to_string()), "version served"),
            card("rows-read", of_current(&|s| count(s.rows_read)), "rows read"),
            card("null-keys", of_current(&|s| count(s.null_keys)), "rows without a key"),
            card("schedule", cron, time_zone),
            text_card("refreshed", refreshed(&audience), "last refresh"),
        ],
        sizes: chart::lines(
            "Size over time",
            &[size_line],
            &|x| show::when(Timestamp(x as i64)),
            &|y| count(y as u64),
        ),
        sql,
        snapshots: snapshots.iter().map(|snapshot| snapshot_row(snapshot, current)).collect(),
        history: show::entries(&history),
    };
    page.render()
}

/// Publishes or rejects a held snapshot.
fn actions(snapshot: &AudienceSnapshot, current: Option<&AudienceSnapshot>) -> Vec<Action> {
    if snapshot.state != AudienceSnapshotState::Held {
        return Vec::new();
    }
    let (name, version) = (&snapshot.audience, snapshot.version);
    let members = count(snapshot.members);
    let served = count(current.map_or(0, |current| current.members));
    let action = |label, operation: &str, question: &str| Action {
        label,
        post: format!("/v1/audiences/{name}/{operation}"),
        body: format!("{{\"version\":{version}}}"),
        confirm: format!(
            "{question} version {version} of {name}? It has {members} members; {served} are served."
        ),
    };
    vec![action("Approve", "approve", "Publish"), action("Reject", "reject", "Reject")]
}

fn snapshot_row(snapshot: &AudienceSnapshot, current: Option<&AudienceSnapshot>) -> SnapshotRow {
    let (state, tone) = show::snapshot(snapshot.state);
    SnapshotRow {
        version: snapshot.version,
        current: current.is_some_and(|current| current.version == snapshot.version),
        actions: actions(snapshot, current),
        state,
        tone,
        members: count(snapshot.members),
        rows_read: count(snapshot.rows_read),
        null_keys: count(snapshot.null_keys),
        bytes: count(snapshot.bytes),
        created: show::when(snapshot.created_at),
    }
}

#[cfg(test)]
mod tests {
    use throng_api::AudienceRefreshProgress;
    use throng_model::RefreshId;

    use super::*;

    fn summary(refresh: Option<AudienceRefresh>) -> AudienceSummary {
        AudienceSummary {
            name: "buyers".parse().unwrap(),
            current: None,
            refresh: refresh.map(|refresh| AudienceRefreshProgress { refresh, eta_seconds: None }),
            waiting_refresh: None,
            refreshed_at: None,
            last_fired: None,
            paused_at: None,
            pinned_at: None,
        }
    }

    fn processing() -> AudienceRefresh {
        AudienceRefresh {
            id: RefreshId(1),
            audience: "buyers".parse().unwrap(),
            state: AudienceRefreshState::Processing,
            trigger: throng_api::AudienceRefreshTrigger::Manual,
            scheduled_at: Timestamp(0),
            started_at: Some(Timestamp(0)),
            finished_at: None,
            not_before: Timestamp(0),
            failures: 0,
            crashes: 0,
            holder: None,
            lease_until: None,
            rows_read: 1_000,
            null_keys: 0,
            rows_expected: Some(4_000),
            reason: None,
            snapshot_version: None,
            forced: false,
            unchanged: false,
        }
    }

    #[test]
    fn a_running_refresh_shows_its_remaining_time() {
        let now = Timestamp(10_000_000);
        assert_eq!(progress(&processing(), now), "1,000 rows of about 4,000, 30 s remaining");
        let unknown = AudienceRefresh { rows_expected: None, ..processing() };
        assert_eq!(progress(&unknown, now), "1,000 rows");
        let failed = AudienceRefresh {
            state: AudienceRefreshState::Failed,
            reason: Some("no such column".to_owned()),
            ..processing()
        };
        assert_eq!(progress(&failed, now), "no such column");
    }

    #[test]
    fn an_unchanged_refresh_is_shown_as_such() {
        let state = AudienceRefreshState::Completed;
        let completed = AudienceRefresh { state, ..processing() };
        let unchanged = AudienceRefresh { unchanged: true, ..completed.clone() };
        assert_eq!(state_of(&summary(Some(completed))), ("completed", "good"));
        assert_eq!(state_of(&summary(Some(unchanged))), ("unchanged", "good"));
    }

    #[test]
    fn a_refresh_that_a_person_has_ended_is_shown_as_such() {
        let state = AudienceRefreshState::Failed;
        let failed = |reason: &str, snapshot_version| {
            let reason = Some(reason.to_owned());
            let refresh = AudienceRefresh { state, reason, snapshot_version, ..processing() };
            state_of(&summary(Some(refresh)))
        };
        assert_eq!(failed("no such column", None), ("failed", "bad"));
        assert_eq!(failed("cancelled by ann", None), ("cancelled", "warn"));
        assert_eq!(failed("rejected by ann; held: 80% fewer", Some(2)), ("rejected", "warn"));
        let held = AudienceRefreshState::Held;
        let held = AudienceRefresh { state: held, snapshot_version: Some(2), ..processing() };
        assert_eq!(state_of(&summary(Some(held))), ("held", "warn"));
    }

    #[test]
    fn a_refresh_that_waits_for_the_open_one_is_shown() {
        let mut summary = summary(Some(processing()));
        assert_eq!(waiting(&summary), "");
        summary.waiting_refresh = Some(RefreshId(2));
        assert_eq!(waiting(&summary), "refresh 2 waits");
        let audiences = vec![summary.clone()];
        let list_of = AudienceList { audiences, next_cursor: None, previous_cursor: None };
        let query = ListQuery::default();
        let page = list(list_of, &HashMap::new(), query, &[], Timestamp(0)).unwrap();
        assert!(page.contains("refresh 2 waits"), "{page}");
        let view = AudienceView {
            detail: AudienceDetail { audience: summary, snapshots: Vec::new(), sizes: Vec::new() },
            description: None,
            sql: "SELECT 1".to_owned(),
            schedule: None,
            history: Vec::new(),
        };
        let page = one(view).unwrap();
        assert!(page.contains("refresh 2 waits"), "{page}");
        // The one that the question names, and no other.
        let cancel = "data-post=\"/v1/audiences/buyers/cancel?refresh=1\"";
        assert!(page.contains(cancel) && page.contains("Cancel refresh 1 of buyers?"), "{page}");
        for figure in ["members", "version served", "rows read", "rows without a key"] {
            assert!(page.contains(&format!("<b>–</b><span>{figure}</span>")), "{figure}: {page}");
        }
    }

    #[test]
    fn an_audience_that_is_not_refreshed_says_why() {
        assert_eq!(stopped(&summary(None)), "");
        let paused = AudienceSummary { paused_at: Some(Timestamp(1)), ..summary(None) };
        assert_eq!(stopped(&paused), "paused");
        let both = AudienceSummary { pinned_at: Some(Timestamp(1)), ..paused };
        assert_eq!(stopped(&both), "paused and pinned to version 0");
    }

    #[test]
    fn the_list_shows_audiences_without_a_snapshot() {
        let render = |audiences, next_cursor| {
            let query = ListQuery { sort: Some("-members".to_owned()), ..ListQuery::default() };
            let page = AudienceList { audiences, next_cursor, previous_cursor: None };
            list(page, &HashMap::new(), query, &[], Timestamp(0)).unwrap()
        };
        let html = render(vec![summary(None)], Some("0b".to_owned()));
        assert!(html.contains("data-name=\"buyers\""), "{html}");
        assert!(html.contains("<time>never</time></td><td><time>never</time>"), "{html}");
        let refreshed_at = Some(Timestamp(1_795_536_061_000_000));
        let refreshed = AudienceSummary { refreshed_at, ..summary(None) };
        let shown = render(vec![refreshed], None);
        assert!(shown.contains("<time>2026-11-24 16:01:01</time>"), "{shown}");
        assert!(html.contains("id=\"next\"") && html.contains("cursor=0b"), "{html}");
        assert!(html.contains("href=\"/audiences?sort=members\""), "{html}");
        let html = render(Vec::new(), None);
        assert!(html.contains("has no audiences") && !html.contains("id=\"next\""), "{html}");
    }

    #[test]
    fn a_held_snapshot_is_approved_or_rejected_with_its_numbers() {
        let snapshot = |version, state, members| AudienceSnapshot {
            audience: "buyers".parse().unwrap(),
            version,
            state,
            path: String::new(),
            members,
            rows_read: 0,
            null_keys: 0,
            bytes: 0,
            checksum: None,
            tables: None,
            model_fingerprint: String::new(),
            refresh: RefreshId(1),
            created_at: Timestamp(0),
        };
        let served = snapshot(3, AudienceSnapshotState::Published, 5_000);
        assert!(actions(&served, Some(&served)).is_empty());
        let held = snapshot(4, AudienceSnapshotState::Held, 1_234);
        let offered = actions(&held, Some(&served));
        let posts: Vec<&str> = offered.iter().map(|action| action.post.as_str()).collect();
        assert_eq!(posts, ["/v1/audiences/buyers/approve", "/v1/audiences/buyers/reject"]);
        assert!(offered.iter().all(|action| action.body == "{\"version\":4}"));
        let question = "Publish version 4 of buyers? It has 1,234 members; 5,000 are served.";
        assert_eq!(offered[0].confirm, question);
    }
}
