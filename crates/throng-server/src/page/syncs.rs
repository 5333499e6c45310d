//! Syncs on their platforms: what was delivered and what the platform shows, over time; refused removals;
//! removals of syncs.

use std::collections::HashMap;

use askama::Template;
use axum::extract::{Path, State};
use throng_activation::{
    MAX_KEPT_SIZES, RemovalDefinition, evaluate_sizes, size_in_words, size_series, users_of,
};
use throng_model::Timestamp;
use throng_store::{DeliveredRecord, Removal, RemovalRule, SizeRecord};

use super::show::{self, Card, Entry, card, count};
use super::{Context, Page, PageError, chart, render};
use crate::NodeContext;

/// Syncs that are listed.
const SHOWN: usize = 200;
/// Sizes of a sync that are listed below the chart.
const SHOWN_SIZES: usize = 100;

/// A sync of the applied spec and its audience on the platform.
pub(super) struct SyncRow {
    pub(super) name: String,
    pub(super) audience: String,
    pub(super) destination: String,
    pub(super) delivered: String,
    pub(super) shown: String,
    pub(super) read: String,
    /// Refused removals and when they are tried again; empty if there are none.
    pub(super) due: String,
}

/// The syncs that are listed, and how many there are.
pub(super) struct SyncRows {
    pub(super) rows: Vec<SyncRow>,
    pub(super) all: usize,
}

/// Lists the syncs of the applied spec.
pub(super) async fn rows(ctx: &NodeContext) -> Result<SyncRows, PageError> {
    let now = ctx.clock.now();
    let records = ctx.ledger.delivered_records().await?;
    let records: HashMap<_, _> = records.into_iter().map(|r| (r.sync.clone(), r)).collect();
    let sizes = ctx.ledger.newest_sizes().await?;
    let sizes: HashMap<_, _> = sizes.into_iter().map(|size| (size.sync.clone(), size)).collect();
    let delivered: HashMap<_, _> = ctx.ledger.delivered().await?.into_iter().collect();
    let spec = ctx.spec.load_full();
    let listed = spec.syncs.iter().take(SHOWN);
    let rows = listed.map(|sync| {
        let record = records.get(&sync.name);
        let there = delivered.get(&sync.name);
        let size = sizes.get(&sync.name);
        let size = size.filter(|s| there.is_some_and(|t| t.platform_id == s.platform_id));
        SyncRow {
            name: sync.name.to_string(),
            audience: sync.audience.to_string(),
            destination: sync.destination.to_string(),
            delivered: record.map_or_else(|| "–".to_owned(), |record| count(record.users)),
            shown: size.map_or_else(|| "–".to_owned(), shown),
            read: size.map(|size| show::when(size.at)).unwrap_or_default(),
            due: record.and_then(|record| due(record, now)).unwrap_or_default(),
        }
    });
    Ok(SyncRows { rows: rows.collect(), all: spec.syncs.len() })
}

/// What the platform shows, in words.
fn shown(size: &SizeRecord) -> String {
    let words = size_in_words(size.lower, size.upper);
    if size.settling { format!("{words} (at work on an upload)") } else { words }
}

/// Removals that the platform refused, and when they are tried again.
fn due(record: &DeliveredRecord, now: Timestamp) -> Option<String> {
    let removals = match record.due {
        0 => return None,
        1 => "1 refused removal".to_owned(),
        due => format!("{} refused removals", count(due)),
    };
    let next = show::next_try(record.retry_at.unwrap_or(now), now);
    Some(format!("{removals}; {next}"))
}

/// A sync that was removed from the spec, and whose audience on the platform is to be emptied or deleted.
pub(super) struct RemovalRow {
    pub(super) sync: String,
    /// The audience's name on the platform, its id and its destination.
    pub(super) audience: String,
    pub(super) what: &'static str,
    pub(super) users: String,
    pub(super) state: String,
    pub(super) tone: &'static str,
    /// It waits for a person.
    pub(super) waits: bool,
    /// When it is tried again; empty if no try has failed.
    pub(super) next: String,
    pub(super) last_error: String,
    pub(super) requested: String,
}

/// The removals that have not been carried out.
pub(super) async fn removals(ctx: &NodeContext) -> Result<Vec<RemovalRow>, PageError> {
    let removals = ctx.ledger.removals().await?;
    if removals.is_empty() {
        return Ok(Vec::new());
    }
    let now = ctx.clock.now();
    let there: HashMap<_, _> = ctx.ledger.delivered().await?.into_iter().collect();
    let records = ctx.ledger.delivered_records().await?;
    let records: HashMap<_, _> = records.into_iter().map(|r| (r.sync.clone(), r)).collect();
    let row = |removal: &Removal| {
        let id = there.get(&removal.sync).map(|there| there.platform_id.as_str());
        removal_row(removal, id, records.get(&removal.sync), now)
    };
    Ok(removals.iter().map(row).collect())
}

fn removal_row(
    removal: &Removal,
    platform_id: Option<&str>,
    record: Option<&DeliveredRecord>,
    now: Timestamp,
) -> RemovalRow {
    let id = platform_id.unwrap_or("not on the platform");
    let audience = match RemovalDefinition::of(removal) {
        Ok(definition) => {
            format!("{} ({id}) at {}", definition.platform_name(), definition.destination.name)
        }
        // Of another version of this program; its id says which it is.
        Err(_) => id.to_owned(),
    };
    let (state, tone) = match &removal.approved_by {
        None => ("waits for approval".to_owned(), "warn"),
        Some(by) => (format!("approved by {by}"), "busy"),
    };
    let refused = record.filter(|record| record.due > 0).and_then(|record| record.retry_at);
    let retry_at = removal.retry_at.or(refused).filter(|_| removal.approved_at.is_some());
    RemovalRow {
        sync: removal.sync.to_string(),
        audience,
        what: match removal.rule {
            RemovalRule::Empty => "is emptied",
            RemovalRule::Delete => "is deleted",
        },
        users: users_of(record).map_or_else(|| "unknown".to_owned(), count),
        state,
        tone,
        waits: removal.approved_at.is_none(),
        next: retry_at.map(|at| show::next_try(at, now)).unwrap_or_default(),
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
    /// What is wrong with the sizes; empty if nothing is.
    finding: String,
    chart: String,
    sizes: Vec<SizeRow>,
    history: Vec<Entry>,
}

struct SizeRow {
    when: String,
    audience: String,
    delivered: String,
    shown: String,
}

impl One {
    fn place(&self) -> &'static str {
        "/activation"
    }
}

/// What was delivered and what the platform shows, by time.
fn draw(sizes: &[&SizeRecord]) -> String {
    let line = |class, value: fn(&SizeRecord) -> Option<u64>| chart::Line {
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
    chart::lines(&lines, &|x| show::when(Timestamp(x as i64)), &|y| count(y as u64))
}

/// The page of one sync.
pub(super) async fn one(State(ctx): Context, Path(name): Path<String>) -> Page {
    let missing = || PageError::Missing(format!("There is no sync {name} in the applied spec."));
    let spec = ctx.spec.load_full();
    let declared = spec.syncs.iter().find(|s| s.name.as_str() == name).ok_or_else(missing)?;
    let sizes = ctx.ledger.sizes(&declared.name, MAX_KEPT_SIZES).await?;
    let platform = ctx.ledger.platform_audience(&declared.name).await?;
    let id = platform.map(|platform| platform.platform_id).unwrap_or_default();
    let records = ctx.ledger.delivered_records().await?;
    let record = records.iter().find(|record| record.sync == declared.name);
    let history = ctx.ledger.history(Some(("sync", declared.name.as_str())), 50).await?;
    let of_audience: Vec<&SizeRecord> = sizes.iter().filter(|s| s.platform_id == id).collect();
    let newest = of_audience.last().copied();
    let now = ctx.clock.now();
    let delivered = record.map_or_else(|| "–".to_owned(), |record| count(record.users));
    let due = record.and_then(|record| due(record, now));
    let page = One {
        name: declared.name.to_string(),
        audience: declared.audience.to_string(),
        destination: declared.destination.to_string(),
        cards: vec![
            card("delivered", delivered, "users delivered"),
            card("shown", newest.map_or_else(|| "–".to_owned(), shown), "on the platform"),
            card("removals-due", due.unwrap_or_else(|| "none".to_owned()), "removals due"),
        ],
        finding: evaluate_sizes(&size_series(&sizes, &id)).map(|f| f.reason).unwrap_or_default(),
        chart: draw(&of_audience),
        sizes: sizes
            .iter()
            .rev()
            .take(SHOWN_SIZES)
            .map(|size| SizeRow {
                when: show::when(size.at),
                audience: size.platform_id.clone(),
                delivered: count(size.delivered),
                shown: shown(size),
            })
            .collect(),
        history: show::entries(history),
    };
    render(&page)
}

#[cfg(test)]
mod tests {
    use throng_model::SyncRunId;

    use super::*;

    fn removal(approved: bool) -> Removal {
        Removal {
            sync: "s".parse().unwrap(),
            rule: RemovalRule::Delete,
            definition: serde_json::Value::Null,
            requested_at: Timestamp(0),
            approved_at: approved.then_some(Timestamp(1)),
            approved_by: approved.then(|| "ann".to_owned()),
            tries: 1,
            retry_at: approved.then_some(Timestamp(60_000_000)),
            last_error: None,
        }
    }

    #[test]
    fn a_removal_says_whom_it_waits_for_and_when_it_is_tried_again() {
        let record = DeliveredRecord {
            sync: "s".parse().unwrap(),
            account: "meta/1".to_owned(),
            columns: "EMAIL".to_owned(),
            identifiers: String::new(),
            state: Some("delivered/a".to_owned()),
            users: 1_234,
            run: SyncRunId(1),
            due: 2,
            retry_at: Some(Timestamp(120_000_000)),
            tries: 1,
            replace: false,
        };
        let row = removal_row(&removal(false), Some("77"), Some(&record), Timestamp(0));
        assert_eq!(
            (row.state.as_str(), row.waits, row.next.as_str()),
            ("waits for approval", true, "")
        );
        assert_eq!((row.audience.as_str(), row.users.as_str()), ("77", "1,234"));
        let row = removal_row(&removal(true), None, None, Timestamp(0));
        assert_eq!((row.state.as_str(), row.waits), ("approved by ann", false));
        assert!(row.next.starts_with("next try at 1970-01-01 00:01:00"), "{}", row.next);
        assert_eq!(row.users, "unknown");

        let due = due(&record, Timestamp(0)).unwrap();
        assert!(due.starts_with("2 refused removals; next try at"), "{due}");
    }
}
