//! Alerts and their delivery in SQL.

use std::collections::BTreeMap;

use async_trait::async_trait;
use throng_model::Timestamp;

use crate::backend::{Backend, SqlLedger, read_one, write_one, write_tx};
use crate::conn::Conn;
use crate::dialect::ROWS_PER_STATEMENT;
use crate::failure::DbResult;
use crate::rows::{Cells, DbRow};
use crate::{
    Alert, AlertEvent, AlertEventKind, AlertKind, AlertLedger, AlertTotals, Delivery,
    DeliveryResult, DeliveryState, NewAlert, Receiver, Result, StoredEnum,
};

/// How many alerts have their events recorded in one transaction.
const MAX_ALERTS_PER_CALL: i64 = 1_000;

macro_rules! alert_columns {
    () => {
        "a.id, a.kind, a.cause, a.subject, a.message, a.occurrences, a.raised_at,
         coalesce(a.last_at, a.raised_at) AS last_at, a.resolved_at"
    };
}

/// The columns that [`alert_of`] reads, of a table `alerts a`.
pub(super) const COLUMNS: &str = alert_columns!();

/// The kind to store: one that the first version of Throng can read, because a process of that
/// version may share the ledger.
fn stored_kind(kind: AlertKind) -> AlertKind {
    match kind {
        AlertKind::RefreshFailed
        | AlertKind::SnapshotHeld
        | AlertKind::TaskFailed
        | AlertKind::RunHeld
        | AlertKind::CheckFailed => kind,
        AlertKind::DiskFull
        | AlertKind::StorageFailed
        | AlertKind::Damaged
        | AlertKind::PartitionFailed
        | AlertKind::NodeProblem
        | AlertKind::NullKeys
        | AlertKind::Overdue
        | AlertKind::BudgetNearlySpent
        | AlertKind::BudgetSpent
        | AlertKind::Overdelivery
        | AlertKind::GateSilent
        | AlertKind::FeedStale
        | AlertKind::RecordsQuarantined => AlertKind::CheckFailed,
    }
}

/// The kind, the cause and the subject to store. The subject of a kind that processes of the first
/// version cannot read begins with the name of the kind: otherwise two alerts of different kinds
/// would have the same stored kind and subject, and one would count as a repetition of the other.
fn stored(kind: AlertKind, subject: &str) -> (&'static str, Option<&'static str>, String) {
    match stored_kind(kind) {
        same if same == kind => (kind.stored_name(), None, subject.to_owned()),
        other => (
            other.stored_name(),
            Some(kind.stored_name()),
            format!("{}: {subject}", kind.stored_name()),
        ),
    }
}

/// The kind of a row: its cause, if it has one that this version knows.
fn kind_of(cells: &Cells<'_>) -> Result<AlertKind> {
    let cause = cells.maybe_text("cause")?;
    let known = cause.as_deref().and_then(AlertKind::of_stored_name);
    known.map_or_else(|| cells.variant("kind"), Ok)
}

pub(super) fn alert_of(row: &DbRow) -> Result<Alert> {
    let cells = Cells::new(row, "alert");
    let kind = kind_of(&cells)?;
    let subject = cells.text("subject")?;
    let subject = match stored(kind, "") {
        (_, Some(_), prefix) => subject.strip_prefix(&prefix).unwrap_or(&subject).to_owned(),
        _ => subject,
    };
    Ok(Alert {
        id: cells.int("id")?,
        kind,
        subject,
        message: cells.text("message")?,
        count: cells.number("occurrences")?,
        raised_at: cells.time("raised_at")?,
        last_at: cells.time("last_at")?,
        resolved_at: cells.maybe_time("resolved_at")?,
    })
}

fn event_of(row: &DbRow) -> Result<AlertEvent> {
    let alert = alert_of(row)?;
    let cells = Cells::new(row, "alert event");
    Ok(AlertEvent {
        id: cells.int("event_number")?,
        event_id: cells.text("event_id")?,
        event: cells.variant("event")?,
        at: cells.time("event_at")?,
        alert,
    })
}

fn receiver_of(row: &DbRow) -> Result<Receiver> {
    let cells = Cells::new(row, "receiver of alerts");
    Ok(Receiver {
        name: cells.text("name")?,
        since: cells.time("since")?,
        last_event: cells.int("last_event")?,
        failures: cells.number("failures")?,
        next_try_at: cells.maybe_time("next_try_at")?,
        last_error: cells.maybe_text("last_error")?,
        last_ok_at: cells.maybe_time("last_ok_at")?,
        pending: cells.number("pending")?,
    })
}

pub(super) fn delivery_of(row: &DbRow) -> Result<Delivery> {
    let cells = Cells::new(row, "delivery of an alert");
    Ok(Delivery {
        receiver: cells.text("receiver")?,
        event_id: cells.text("event_id")?,
        alert: cells.int("alert")?,
        event: cells.variant("event")?,
        state: cells.variant("state")?,
        tries: cells.number("tries")?,
        http_status: cells.maybe_number("http_status")?,
        why: cells.maybe_text("why")?,
        at: cells.time("at")?,
    })
}

/// SELECT of deliveries, with these clauses.
macro_rules! deliveries {
    ($clauses:literal) => {
        concat!(
            "SELECT d.receiver, e.event_id, e.alert, e.event, d.state, d.tries, d.http_status, d.why,
                d.at
             FROM alert_deliveries d JOIN alert_events e ON e.id = d.event ",
            $clauses
        )
    };
}

/// SELECT of deliveries with their alerts, up to a condition.
pub(super) const DELIVERIES_OF_ALERTS: &str = deliveries!("JOIN alerts a ON a.id = e.alert WHERE ");

/// An alert that was raised or resolved without an event yet.
struct Unrecorded {
    id: i64,
    raised: Option<Timestamp>,
    resolved: Option<Timestamp>,
}

fn unrecorded_of(row: &DbRow, since: Timestamp) -> Result<Unrecorded> {
    let cells = Cells::new(row, "alert");
    let resolved = cells.maybe_time("resolved_at")?;
    let is_new = cells.int("recorded")? == 0;
    let is_old = is_new && resolved.is_some_and(|at| at < since);
    let raised = (is_new && !is_old).then_some(cells.time("raised_at")?);
    let resolved = resolved.filter(|_| !is_old);
    Ok(Unrecorded { id: cells.int("id")?, raised, resolved })
}

async fn unrecorded(tx: &mut Conn, since: Timestamp) -> DbResult<Vec<Unrecorded>> {
    let text = "SELECT id, recorded, raised_at, resolved_at FROM alerts
         WHERE recorded = 0 OR (recorded = 1 AND resolved_at IS NOT NULL)
         ORDER BY id LIMIT $1";
    tx.all(text, MAX_ALERTS_PER_CALL, |row| unrecorded_of(row, since)).await
}

/// Up to the values of alerts that are raised.
macro_rules! insert_alerts {
    () => {
        "INSERT INTO alerts (kind, cause, subject, message, raised_at, last_at) VALUES "
    };
}

/// After these values: the count of an open alert goes up.
macro_rules! count_open_alerts {
    () => {
        " ON CONFLICT (kind, subject) WHERE resolved_at IS NULL
         DO UPDATE SET message = excluded.message, last_at = excluded.last_at,
            occurrences = alerts.occurrences + 1"
    };
}

/// Raises an alert, or increments the count of an open one. Returns its number.
pub(super) async fn raise(tx: &mut Conn, alert: &NewAlert, now: Timestamp) -> DbResult<i64> {
    let (kind, cause, subject) = stored(alert.kind, &alert.subject);
    let text = concat!(
        insert_alerts!(),
        "($1, $2, $3, $4, $5, $5)",
        count_open_alerts!(),
        " RETURNING id"
    );
    tx.scalar(text, (kind, cause, subject, &alert.message, now)).await
}

/// [`raise`] for at most [`ROWS_PER_STATEMENT`] alerts.
async fn raise_all(tx: &mut Conn, alerts: &[NewAlert], now: Timestamp) -> DbResult<()> {
    let rows = alerts.iter().map(|alert| {
        let (kind, cause, subject) = stored(alert.kind, &alert.subject);
        (kind, cause, subject, &alert.message, now, now)
    });
    let insert = tx.build(insert_alerts!()).rows(rows).push(count_open_alerts!());
    tx.execute_built(insert.build(false)).await?;
    Ok(())
}

/// Resolves the open alert of this kind and subject, if there is one.
pub(super) async fn resolve(
    tx: &mut Conn,
    kind: AlertKind,
    subject: &str,
    now: Timestamp,
) -> DbResult<()> {
    let (kind, _, subject) = stored(kind, subject);
    tx.execute(
        "UPDATE alerts SET resolved_at = $3
         WHERE kind = $1 AND subject = $2 AND resolved_at IS NULL",
        (kind, subject, now),
    )
    .await?;
    Ok(())
}

pub(super) fn totals_of(row: &DbRow) -> Result<AlertTotals> {
    let cells = Cells::new(row, "count of alerts");
    Ok(AlertTotals { open: cells.number("still_open")?, total: cells.number("total")? })
}

fn count_of(row: &DbRow) -> Result<(AlertKind, u64)> {
    let cells = Cells::new(row, "count of alerts");
    Ok((kind_of(&cells)?, cells.number("n")?))
}

#[async_trait]
impl<B: Backend> AlertLedger for SqlLedger<B> {
    async fn raise_alert(&self, alert: &NewAlert, now: Timestamp) -> Result<i64> {
        write_tx!(self, Relaxed, "raising an alert", |tx| raise(tx, alert, now).await?)
    }

    async fn raise_alerts(&self, alerts: &[NewAlert], now: Timestamp) -> Result<()> {
        if alerts.is_empty() {
            return Ok(());
        }
        write_tx!(self, Relaxed, "raising alerts", |tx| {
            for chunk in alerts.chunks(ROWS_PER_STATEMENT) {
                raise_all(tx, chunk, now).await?;
            }
        })
    }

    async fn resolve_alert(&self, kind: AlertKind, subject: &str, now: Timestamp) -> Result<()> {
        write_one!(self, Relaxed, "resolving an alert", |tx| {
            resolve(tx, kind, subject, now).await?
        })
    }

    async fn resolve_alerts(&self, alerts: &[(AlertKind, &str)], now: Timestamp) -> Result<()> {
        if alerts.is_empty() {
            return Ok(());
        }
        let stored: Vec<(&str, String)> = alerts
            .iter()
            .map(|(kind, subject)| {
                let (kind, _, subject) = stored(*kind, subject);
                (kind, subject)
            })
            .collect();
        write_tx!(self, Relaxed, "resolving alerts", |tx| {
            for chunk in stored.chunks(ROWS_PER_STATEMENT) {
                let update = tx
                    .build("UPDATE alerts SET resolved_at = ")
                    .values(now)
                    .push(" WHERE resolved_at IS NULL AND (kind, subject) IN (VALUES ")
                    .rows(chunk.iter().map(|(kind, subject)| (*kind, subject)))
                    .push(")");
                tx.execute_built(update.build(false)).await?;
            }
        })
    }

    async fn open_alert(&self, kind: AlertKind, subject: &str) -> Result<Option<String>> {
        let (kind, _, subject) = stored(kind, subject);
        read_one!(self, "reading an alert", |tx| {
            let text = "SELECT message FROM alerts
                 WHERE kind = $1 AND subject = $2 AND resolved_at IS NULL";
            tx.optional(text, (kind, &subject), |row| Cells::new(row, "alert").text("message"))
                .await?
        })
    }

    async fn alert_resolved_at(&self, kind: AlertKind, subject: &str) -> Result<Option<Timestamp>> {
        let (kind, _, subject) = stored(kind, subject);
        read_one!(self, "reading when an alert was resolved", |tx| {
            let text = "SELECT max(resolved_at) FROM alerts WHERE kind = $1 AND subject = $2";
            let resolved: Option<i64> = tx.scalar(text, (kind, &subject)).await?;
            resolved.map(Timestamp)
        })
    }

    async fn alerts_page(&self, limit: u32, offset: u32) -> Result<Vec<Alert>> {
        read_one!(self, "reading the alerts", |tx| {
            let text = concat!(
                "SELECT ",
                alert_columns!(),
                " FROM alerts a
                 ORDER BY (a.resolved_at IS NULL) DESC, a.raised_at DESC, a.id DESC
                 LIMIT $1 OFFSET $2"
            );
            tx.all(text, (limit, offset), alert_of).await?
        })
    }

    async fn alert_totals(&self) -> Result<AlertTotals> {
        read_one!(self, "counting the alerts", |tx| {
            let text = "SELECT count(*) AS total,
                    count(CASE WHEN resolved_at IS NULL THEN 1 END) AS still_open FROM alerts";
            tx.one(text, (), totals_of).await?
        })
    }

    async fn open_alerts_by_kind(&self) -> Result<Vec<(AlertKind, u64)>> {
        read_one!(self, "counting the open alerts", |tx| {
            let text = "SELECT kind, cause, count(*) AS n FROM alerts WHERE resolved_at IS NULL
                 GROUP BY kind, cause";
            let mut counts = BTreeMap::<AlertKind, u64>::new();
            for (kind, n) in tx.all(text, (), count_of).await? {
                let sum = counts.entry(kind).or_default();
                *sum = sum.saturating_add(n);
            }
            counts.into_iter().collect()
        })
    }

    async fn record_alert_events(&self, nonce: u64, since: Timestamp) -> Result<u64> {
        write_tx!(self, Relaxed, "recording the events of alerts", |tx| {
            let found = unrecorded(tx, since).await?;
            let mut events: Vec<(Timestamp, i64, AlertEventKind)> = Vec::new();
            for alert in &found {
                let raised = alert.raised.map(|at| (at, alert.id, AlertEventKind::Raised));
                let resolved = alert.resolved.map(|at| (at, alert.id, AlertEventKind::Resolved));
                events.extend(raised.into_iter().chain(resolved));
            }
            // A stable sort: an alert that was raised and resolved at the same time is raised
            // first.
            events.sort_by_key(|(at, alert, _)| (*at, *alert));
            for (number, (at, alert, event)) in events.into_iter().enumerate() {
                let event_id = format!("{nonce:016x}-{number}");
                let text = "INSERT INTO alert_events (event_id, alert, event, at)
                     VALUES ($1, $2, $3, $4)";
                tx.execute(text, (event_id, alert, event, at)).await?;
            }
            for alert in &found {
                tx.execute(
                    "UPDATE alerts SET recorded = CASE WHEN resolved_at IS NULL THEN 1 ELSE 2 END
                     WHERE id = $1",
                    alert.id,
                )
                .await?;
            }
            found.len() as u64
        })
    }

    async fn add_receiver(&self, name: &str, now: Timestamp) -> Result<()> {
        write_tx!(self, Relaxed, "adding a receiver of alerts", |tx| {
            tx.execute(
                "INSERT INTO alert_receivers (name, since, last_event)
                 SELECT $1, $2, coalesce(
                    (SELECT min(e.id) - 1 FROM alert_events e JOIN alerts a ON a.id = e.alert
                     WHERE a.resolved_at IS NULL),
                    (SELECT max(id) FROM alert_events),
                    0)
                 WHERE NOT EXISTS (SELECT 1 FROM alert_receivers WHERE name = $1)",
                (name, now),
            )
            .await?;
        })
    }

    async fn receivers(&self) -> Result<Vec<Receiver>> {
        read_one!(self, "reading the receivers of alerts", |tx| {
            let text =
                "SELECT r.name, r.since, r.last_event, r.failures, r.next_try_at, r.last_error,
                    r.last_ok_at,
                    (SELECT count(*) FROM alert_events e WHERE e.id > r.last_event) AS pending
                 FROM alert_receivers r ORDER BY r.name";
            tx.all(text, (), receiver_of).await?
        })
    }

    async fn next_alert_event(&self, receiver: &str) -> Result<Option<AlertEvent>> {
        read_one!(self, "reading the next event of a receiver", |tx| {
            let text = concat!(
                "SELECT e.id AS event_number, e.event_id, e.event, e.at AS event_at, ",
                alert_columns!(),
                " FROM alert_events e JOIN alerts a ON a.id = e.alert
                 WHERE e.id > (SELECT last_event FROM alert_receivers WHERE name = $1)
                 ORDER BY e.id LIMIT 1"
            );
            tx.optional(text, receiver, event_of).await?
        })
    }

    async fn skip_alert_event(&self, receiver: &str, event: i64) -> Result<()> {
        write_one!(self, Relaxed, "skipping an event", |tx| {
            tx.execute(
                "UPDATE alert_receivers SET last_event = $2, failures = 0, next_try_at = NULL
                 WHERE name = $1 AND last_event < $2",
                (receiver, event),
            )
            .await?;
        })
    }

    async fn record_delivery_failure(
        &self,
        receiver: &str,
        why: &str,
        next_try_at: Timestamp,
    ) -> Result<()> {
        write_one!(self, Relaxed, "recording a failed delivery", |tx| {
            tx.execute(
                "UPDATE alert_receivers
                 SET failures = failures + 1, last_error = $2, next_try_at = $3 WHERE name = $1",
                (receiver, why, next_try_at),
            )
            .await?;
        })
    }

    async fn record_delivery_result(
        &self,
        receiver: &str,
        event: i64,
        result: &DeliveryResult,
        now: Timestamp,
    ) -> Result<()> {
        write_tx!(self, Relaxed, "recording the end of a delivery", |tx| {
            let text = "SELECT failures FROM alert_receivers WHERE name = $1 AND last_event < $2";
            let failures: Option<i64> = tx.maybe_scalar(text, (receiver, event)).await?;
            if let Some(failures) = failures {
                // A delivery that expired made no further request.
                let last = i64::from(result.state != DeliveryState::Expired);
                let tries = failures.saturating_add(last);
                let ok_at = (result.state == DeliveryState::Delivered).then_some(now);
                let why = result.why.as_deref();
                tx.execute(
                    "UPDATE alert_receivers SET last_event = $2, failures = 0, next_try_at = NULL,
                        last_error = $3, last_ok_at = coalesce($4, last_ok_at)
                     WHERE name = $1",
                    (receiver, event, why, ok_at),
                )
                .await?;
                tx.execute(
                    "INSERT INTO alert_deliveries
                        (receiver, event, state, tries, http_status, why, at)
                     VALUES ($1, $2, $3, $4, $5, $6, $7)
                     ON CONFLICT (receiver, event) DO NOTHING",
                    (receiver, event, result.state, tries, result.http_status, why, now),
                )
                .await?;
            }
        })
    }

    async fn deliveries(&self, limit: u32) -> Result<Vec<Delivery>> {
        read_one!(self, "reading the deliveries of alerts", |tx| {
            let text = deliveries!("ORDER BY d.at DESC, d.event DESC, d.receiver LIMIT $1");
            tx.all(text, limit, delivery_of).await?
        })
    }

    async fn deliveries_of(&self, alerts: &[i64]) -> Result<Vec<Delivery>> {
        if alerts.is_empty() {
            return Ok(Vec::new());
        }
        read_one!(self, "reading the deliveries of alerts", |tx| {
            let select = tx.build(deliveries!("WHERE e.alert IN (")).values(alerts);
            let select = select.push(") ORDER BY d.event, d.receiver").build(false);
            let rows = tx.rows(select).await?;
            rows.iter().map(delivery_of).collect::<Result<_>>()?
        })
    }

    async fn delete_alert_events(&self, before: Timestamp, receivers: &[String]) -> Result<u64> {
        write_tx!(self, Relaxed, "deleting old events of alerts", |tx| {
            let known: Vec<String> = tx.scalars("SELECT name FROM alert_receivers", ()).await?;
            for removed in known.iter().filter(|name| !receivers.contains(name)) {
                tx.execute("DELETE FROM alert_receivers WHERE name = $1", removed).await?;
            }
            let text = "SELECT coalesce(
                    (SELECT min(last_event) FROM alert_receivers),
                    (SELECT max(id) FROM alert_events),
                    0)";
            let done_up_to: i64 = tx.scalar(text, ()).await?;
            tx.execute(
                "DELETE FROM alert_deliveries WHERE event IN
                    (SELECT id FROM alert_events WHERE at < $1 AND id <= $2)",
                (before, done_up_to),
            )
            .await?;
            let text = "DELETE FROM alert_events WHERE at < $1 AND id <= $2";
            tx.execute(text, (before, done_up_to)).await?
        })
    }
}
