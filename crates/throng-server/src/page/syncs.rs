//! Syncs: delivered users and the size on the platform over time, refused removals, and removals of syncs.

use std::collections::HashMap;

use askama::Template;
use axum::extract::{Path, State};
use throng_activation::{MAX_KEPT_SIZES, RemovalDefinition, size_in_words, users_of};
use throng_model::Timestamp;
use throng_store::{DeliveredRecord, Removal, RemovalRule, SizeRecord};

use super::show::{self, Card, Entry, card, count};
use super::{Context, Page, PageError, chart, render};
use crate::NodeContext;
use crate::operations::syncs::size_finding;

/// The maximum number of listed syncs.
const MAX_SYNCS: usize = 200;
/// The maximum number of sizes below the chart.
const MAX_SIZES: usize = 100;

/// A sync of the applied spec and its audience on the platform.
pub(super) struct SyncRow {
    pub(super) name: String,
    pub(super) audience: String,
    pub(super) destination: String,
    pub(super) delivered: String,
    pub(super) size: String,
    pub(super) read_at: String,
    /// Refused removals and when they are retried; empty if there are none.
    pub(super) due: String,
}

/// The listed syncs, and the number of all syncs.
pub(super) struct SyncRows {
    pub(super) rows: Vec<SyncRow>,
    pub(super) total: usize,
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
    let listed = spec.syncs.iter().take(MAX_SYNCS);
    let rows = listed.map(|sync| {
        let record = records.get(&sync.name);
        let platform = delivered.get(&sync.name);
        let size = sizes.get(&sync.name);
        let size = size.filter(|s| platform.is_some_and(|p| p.platform_id == s.platform_id));
        SyncRow {
            name: sync.name.to_string(),
            audience: sync.audience.to_string(),
            destination: sync.destination.to_string(),
            delivered: record.map_or_else(|| "–".to_owned(), |record| count(record.users)),
            size: size.map_or_else(|| "–".to_owned(), size_text),
            read_at: size.map(|size| show::when(size.at)).unwrap_or_default(),
            due: record.and_then(|record| removals_due(record, now)).unwrap_or_default(),
        }
    });
    Ok(SyncRows { rows: rows.collect(), total: spec.syncs.len() })
}

/// The size on the platform as text.
fn size_text(size: &SizeRecord) -> String {
    let text = size_in_words(size.lower, size.upper);
    if size.settling { format!("{text} (processing an upload)") } else { text }
}

/// Removals that the platform refused, and when they are retried.
fn removals_due(record: &DeliveredRecord, now: Timestamp) -> Option<String> {
    let removals = match record.due {
        0 => return None,
        1 => "1 refused removal".to_owned(),
        due => format!("{} refused removals", count(due)),
    };
    let next = show::next_retry(record.retry_at.unwrap_or(now), now);
    Some(format!("{removals}; {next}"))
}

/// A sync that was removed from the spec, and whose audience on the platform is to be emptied or deleted.
pub(super) struct RemovalRow {
    pub(super) sync: String,
    /// The name of the audience on the platform, its id and its destination.
    pub(super) audience: String,
    pub(super) action: &'static str,
    pub(super) users: String,
    pub(super) state: String,
    pub(super) tone: &'static str,
    /// Whether it waits for approval.
    pub(super) needs_approval: bool,
    /// When it is retried; empty if no attempt has failed.
    pub(super) next_retry: String,
    pub(super) last_error: String,
    pub(super) requested: String,
}

/// The removals that are not finished.
pub(super) async fn removals(ctx: &NodeContext) -> Result<Vec<RemovalRow>, PageError> {
    let removals = ctx.ledger.removals().await?;
    if removals.is_empty() {
        return Ok(Vec::new());
    }
    let now = ctx.clock.now();
    let platforms: HashMap<_, _> = ctx.ledger.delivered().await?.into_iter().collect();
    let records = ctx.ledger.delivered_records().await?;
    let records: HashMap<_, _> = records.into_iter().map(|r| (r.sync.clone(), r)).collect();
    let row = |removal: &Removal| {
        let id = platforms.get(&removal.sync).map(|platform| platform.platform_id.as_str());
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
        // Another version of this program wrote it; the id is enough to identify the audience.
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
        action: match removal.rule {
            RemovalRule::Empty => "is emptied",
            RemovalRule::Delete => "is deleted",
        },
        users: users_of(record).map_or_else(|| "unknown".to_owned(), count),
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
    chart: String,
    sizes: Vec<SizeRow>,
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
fn size_chart(sizes: &[&SizeRecord]) -> String {
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
    let history = ctx
        .ledger
        .history(Some((&throng_store::SubjectKind::Sync, declared.name.as_str())), 50)
        .await?;
    let of_audience: Vec<&SizeRecord> = sizes.iter().filter(|s| s.platform_id == id).collect();
    let newest = of_audience.last().copied();
    let now = ctx.clock.now();
    let delivered = record.map_or_else(|| "–".to_owned(), |record| count(record.users));
    let due = record.and_then(|record| removals_due(record, now));
    let page = One {
        name: declared.name.to_string(),
        audience: declared.audience.to_string(),
        destination: declared.destination.to_string(),
        cards: vec![
            card("delivered", delivered, "users delivered"),
            card("shown", newest.map_or_else(|| "–".to_owned(), size_text), "on the platform"),
            card("removals-due", due.unwrap_or_else(|| "none".to_owned()), "removals due"),
        ],
        finding: size_finding(&spec, &declared.name, &sizes, &id)
            .map(|finding| finding.reason)
            .unwrap_or_default(),
        chart: size_chart(&of_audience),
        sizes: sizes
            .iter()
            .rev()
            .take(MAX_SIZES)
            .map(|size| SizeRow {
                when: show::when(size.at),
                audience: size.platform_id.clone(),
                delivered: count(size.delivered),
                size: size_text(size),
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
    fn a_removal_shows_its_approval_and_its_next_retry() {
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
            (row.state.as_str(), row.needs_approval, row.next_retry.as_str()),
            ("waits for approval", true, "")
        );
        assert_eq!((row.audience.as_str(), row.users.as_str()), ("77", "1,234"));
        let row = removal_row(&removal(true), None, None, Timestamp(0));
        assert_eq!((row.state.as_str(), row.needs_approval), ("approved by ann", false));
        assert!(
            row.next_retry.starts_with("next retry at 1970-01-01 00:01:00"),
            "{}",
            row.next_retry
        );
        assert_eq!(row.users, "unknown");

        let due = removals_due(&record, Timestamp(0)).unwrap();
        assert!(due.starts_with("2 refused removals; next retry at"), "{due}");
    }
}
