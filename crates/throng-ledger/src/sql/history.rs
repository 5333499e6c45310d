//! Alerts and history in SQL.

use async_trait::async_trait;
use sqlx::QueryBuilder;
use throng_model::Timestamp;

use super::{Backend, Db, DbRow, ROWS_PER_INSERT, read_one, write_one, write_tx};
use crate::rows::{Cells, Word, json};
use crate::{Alert, AlertKind, HistoryEntry, HistoryLedger, NewAlert, NodeRow, Result};

fn alert_of(row: &DbRow) -> Result<Alert> {
    let cells = Cells::new(row, "alert");
    Ok(Alert {
        id: cells.int("id")?,
        kind: cells.word("kind")?,
        subject: cells.text("subject")?,
        message: cells.text("message")?,
        raised_at: cells.time("raised_at")?,
        resolved_at: cells.maybe_time("resolved_at")?,
    })
}

fn entry_of(row: &DbRow) -> Result<HistoryEntry> {
    let cells = Cells::new(row, "history entry");
    Ok(HistoryEntry {
        subject_kind: cells.text("subject_kind")?,
        subject: cells.text("subject")?,
        what: cells.text("what")?,
        why: cells.text("why")?,
        at: cells.time("at")?,
        actor: cells.maybe_text("actor")?,
    })
}

/// A node that was not seen for so long is forgotten.
const FORGET_NODES_AFTER: std::time::Duration = std::time::Duration::from_secs(86_400);

fn node_of(row: &DbRow) -> Result<NodeRow> {
    let cells = Cells::new(row, "node");
    Ok(NodeRow {
        name: cells.text("name")?,
        roles: cells.text("roles")?,
        url: cells.text("url")?,
        started_at: cells.time("started_at")?,
        seen_at: cells.time("seen_at")?,
        status: cells.json("status")?,
    })
}

#[async_trait]
impl HistoryLedger for Backend {
    async fn raise_alert(&self, alert: &NewAlert, now: Timestamp) -> Result<i64> {
        write_tx!(self, Relaxed, "raising an alert", |tx| {
            sqlx::query_scalar(
                "INSERT INTO alerts (kind, subject, message, raised_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (kind, subject) WHERE resolved_at IS NULL
                 DO UPDATE SET message = excluded.message
                 RETURNING id",
            )
            .bind(alert.kind.word())
            .bind(&alert.subject)
            .bind(&alert.message)
            .bind(now.0)
            .fetch_one(tx)
            .await?
        })
    }

    async fn resolve_alert(&self, kind: AlertKind, subject: &str, now: Timestamp) -> Result<()> {
        write_one!(self, Relaxed, "ending an alert", |tx| {
            sqlx::query(
                "UPDATE alerts SET resolved_at = $3
                 WHERE kind = $1 AND subject = $2 AND resolved_at IS NULL",
            )
            .bind(kind.word())
            .bind(subject)
            .bind(now.0)
            .execute(tx)
            .await?;
        })
    }

    async fn open_alert(&self, kind: AlertKind, subject: &str) -> Result<Option<String>> {
        read_one!(self, "reading an alert", |tx| {
            let row = sqlx::query(
                "SELECT message FROM alerts
                 WHERE kind = $1 AND subject = $2 AND resolved_at IS NULL",
            )
            .bind(kind.word())
            .bind(subject)
            .fetch_optional(tx)
            .await?;
            row.map(|row| Cells::new(&row, "alert").text("message")).transpose()?
        })
    }

    async fn alert_ended(&self, kind: AlertKind, subject: &str) -> Result<Option<Timestamp>> {
        read_one!(self, "reading when an alert ended", |tx| {
            let ended: Option<i64> = sqlx::query_scalar(
                "SELECT max(resolved_at) FROM alerts WHERE kind = $1 AND subject = $2",
            )
            .bind(kind.word())
            .bind(subject)
            .fetch_one(tx)
            .await?;
            ended.map(Timestamp)
        })
    }

    async fn alerts(&self, limit: u32) -> Result<Vec<Alert>> {
        read_one!(self, "reading the alerts", |tx| {
            let rows = sqlx::query(
                "SELECT id, kind, subject, message, raised_at, resolved_at FROM alerts
                 ORDER BY (resolved_at IS NULL) DESC, raised_at DESC, id DESC LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await?;
            rows.iter().map(alert_of).collect::<Result<_>>()?
        })
    }

    async fn put_node(&self, node: &NodeRow) -> Result<()> {
        write_tx!(self, Relaxed, "noting a node", |tx| {
            sqlx::query(
                "INSERT INTO nodes (name, roles, url, started_at, seen_at, status)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (name) DO UPDATE SET roles = excluded.roles, url = excluded.url,
                    started_at = excluded.started_at, seen_at = excluded.seen_at,
                    status = excluded.status",
            )
            .bind(&node.name)
            .bind(&node.roles)
            .bind(&node.url)
            .bind(node.started_at.0)
            .bind(node.seen_at.0)
            .bind(json(&node.status)?)
            .execute(&mut *tx)
            .await?;
            sqlx::query("DELETE FROM nodes WHERE seen_at < $1")
                .bind(node.seen_at.minus(FORGET_NODES_AFTER).0)
                .execute(&mut *tx)
                .await?;
        })
    }

    async fn nodes(&self, since: Timestamp) -> Result<Vec<NodeRow>> {
        read_one!(self, "reading the nodes", |tx| {
            let rows = sqlx::query(
                "SELECT name, roles, url, started_at, seen_at, status FROM nodes
                 WHERE seen_at >= $1 ORDER BY name",
            )
            .bind(since.0)
            .fetch_all(tx)
            .await?;
            rows.iter().map(node_of).collect::<Result<_>>()?
        })
    }

    async fn record(&self, entries: &[HistoryEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        write_tx!(self, Relaxed, "adding to the history", |tx| {
            for chunk in entries.chunks(ROWS_PER_INSERT) {
                let mut insert = QueryBuilder::<Db>::new(
                    "INSERT INTO history (subject_kind, subject, what, why, at, actor) ",
                );
                insert.push_values(chunk, |mut values, entry| {
                    values
                        .push_bind(&entry.subject_kind)
                        .push_bind(&entry.subject)
                        .push_bind(&entry.what)
                        .push_bind(&entry.why)
                        .push_bind(entry.at.0)
                        .push_bind(&entry.actor);
                });
                let one = chunk.len() == 1;
                insert.build().persistent(one).execute(&mut *tx).await?;
            }
        })
    }

    async fn history(
        &self,
        subject: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>> {
        read_one!(self, "reading the history", |tx| {
            // Two texts, so that each finds its index.
            let rows = match subject {
                Some((kind, name)) => {
                    sqlx::query(
                        "SELECT subject_kind, subject, what, why, at, actor FROM history
                         WHERE subject_kind = $1 AND subject = $2
                         ORDER BY at DESC, id DESC LIMIT $3",
                    )
                    .bind(kind)
                    .bind(name)
                    .bind(i64::from(limit))
                    .fetch_all(tx)
                    .await?
                }
                None => {
                    sqlx::query(
                        "SELECT subject_kind, subject, what, why, at, actor FROM history
                         ORDER BY at DESC, id DESC LIMIT $1",
                    )
                    .bind(i64::from(limit))
                    .fetch_all(tx)
                    .await?
                }
            };
            rows.iter().map(entry_of).collect::<Result<_>>()?
        })
    }
}
