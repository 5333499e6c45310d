//! Audiences: the list, and one audience with its size over time, SQL, snapshots and history.

use askama::Template;
use axum::extract::{Path, State};
use throng_model::{AudienceName, Timestamp};
use throng_store::{AudienceRow, Refresh, RefreshState};

use super::show::{self, Card, Entry, card, count};
use super::{Context, Page, PageError, chart, render};

#[derive(Template)]
#[template(path = "audiences.html")]
struct List {
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
    version: String,
    built: String,
    progress: String,
}

impl List {
    fn menu_path(&self) -> &'static str {
        "/audiences"
    }
}

pub(super) async fn list(State(ctx): Context) -> Page {
    let stored = ctx.ledger.audiences().await?;
    let spec = ctx.spec.load_full();
    let now = ctx.clock.now();
    let rows = spec
        .audiences
        .iter()
        .map(|declared| {
            let row = stored.iter().find(|row| row.name == declared.name);
            let (state, tone) = state_of(row);
            let current = row.and_then(|r| r.current.as_ref());
            Row {
                name: declared.name.to_string(),
                description: declared.description.clone().unwrap_or_default(),
                members: current.map_or_else(|| "–".to_owned(), |s| count(s.members)),
                state,
                tone,
                stopped: row.and_then(AudienceRow::stopped).unwrap_or_default(),
                version: current.map_or_else(|| "–".to_owned(), |s| s.version.to_string()),
                built: current.map_or_else(|| "never".to_owned(), |s| show::when(s.created_at)),
                progress: row
                    .and_then(|r| r.refresh.as_ref())
                    .map(|r| progress(r, now))
                    .unwrap_or_default(),
            }
        })
        .collect();
    render(&List { rows })
}

fn state_of(row: Option<&AudienceRow>) -> (&'static str, &'static str) {
    row.and_then(|r| r.refresh.as_ref()).map_or(("waiting", ""), |r| show::refresh(r.state))
}

/// The rows read, the rows expected, and the remaining time at this speed.
fn progress(refresh: &Refresh, now: Timestamp) -> String {
    match refresh.state {
        RefreshState::Processing => {
            let read = format!("{} rows", count(refresh.rows_read));
            let Some((expected, started)) = refresh.rows_expected.zip(refresh.started_at) else {
                return read;
            };
            if refresh.rows_read == 0 || expected <= refresh.rows_read {
                return read;
            }
            let left = (expected - refresh.rows_read) as f64 / refresh.rows_read as f64;
            let eta = now.since(started).mul_f64(left);
            format!("{read} of about {}, {} remaining", count(expected), show::duration(eta))
        }
        RefreshState::Failed | RefreshState::Held => refresh.reason.clone().unwrap_or_default(),
        RefreshState::Scheduled if refresh.failures > 0 => {
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
    reason: Option<String>,
    /// Whether a refresh is waiting or running.
    is_refreshing: bool,
    cards: Vec<Card>,
    sizes: String,
    sql: String,
    snapshots: Vec<SnapshotRow>,
    history: Vec<Entry>,
}

struct SnapshotRow {
    version: u64,
    current: bool,
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

pub(super) async fn one(State(ctx): Context, Path(name): Path<String>) -> Page {
    let missing =
        || PageError::Missing(format!("There is no audience {name} in the applied spec."));
    let name_checked = AudienceName::new(name.clone()).map_err(|_| missing())?;
    let spec = ctx.spec.load_full();
    let declared = spec.audiences.iter().find(|a| a.name == name_checked).ok_or_else(missing)?;
    let row = ctx.ledger.audience(&name_checked).await?;
    let snapshots = ctx.ledger.snapshots(&name_checked).await?;
    let sizes = ctx.ledger.size_history(&name_checked, 400).await?;
    let history = ctx
        .ledger
        .history(Some((&throng_store::SubjectKind::Audience, name_checked.as_str())), 50)
        .await?;
    let (state, tone) = state_of(row.as_ref());
    let current = row.as_ref().and_then(|r| r.current.as_ref());
    let size_line = chart::Line {
        class: "b",
        points: sizes.iter().map(|(at, members)| (at.0 as f64, *members as f64)).collect(),
    };
    let page = One {
        name,
        description: declared.description.clone().unwrap_or_default(),
        state,
        tone,
        stopped: row.as_ref().and_then(AudienceRow::stopped).unwrap_or_default(),
        reason: row
            .as_ref()
            .and_then(|r| r.refresh.as_ref())
            .filter(|r| r.state != RefreshState::Completed)
            .and_then(|r| r.reason.clone()),
        is_refreshing: row.as_ref().and_then(|r| r.refresh.as_ref()).is_some_and(|refresh| {
            use RefreshState::{Halted, Processing, Scheduled};
            matches!(refresh.state, Scheduled | Processing | Halted)
        }),
        cards: vec![
            card("members", current.map_or_else(|| "–".into(), |s| count(s.members)), "members"),
            card("version", current.map_or(0, |s| s.version), "version served"),
            card("rows-read", count(current.map_or(0, |s| s.rows_read)), "rows read"),
            card("null-keys", count(current.map_or(0, |s| s.null_keys)), "rows without a key"),
            card(
                "schedule",
                declared.schedule.as_ref().map_or("manual", |s| s.cron.as_str()),
                declared
                    .schedule
                    .as_ref()
                    .map_or_else(|| "schedule".to_owned(), |s| s.time_zone.as_str().to_owned()),
            ),
        ],
        sizes: chart::lines(&[size_line], &|x| show::when(Timestamp(x as i64)), &|y| {
            count(y as u64)
        }),
        sql: declared.sql.clone(),
        snapshots: snapshots
            .iter()
            .map(|s| {
                let (state, tone) = show::snapshot(s.state);
                SnapshotRow {
                    version: s.version,
                    current: current.is_some_and(|c| c.version == s.version),
                    state,
                    tone,
                    members: count(s.members),
                    rows_read: count(s.rows_read),
                    null_keys: count(s.null_keys),
                    bytes: count(s.bytes),
                    created: show::when(s.created_at),
                }
            })
            .collect(),
        history: show::entries(history),
    };
    render(&page)
}
