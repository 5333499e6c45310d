//! Alerts and history in SQL.

use async_trait::async_trait;
use sqlx::QueryBuilder;
use throng_model::Timestamp;

use super::{Backend, Db, DbRow, ROWS_PER_INSERT, read_one, write_one, write_tx};
use crate::rows::{Cells, Word};
use crate::{Alert, AlertKind, HistoryEntry, HistoryLedger, NewAlert, Result};

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

    async fn record(&self, entries: &[HistoryEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        write_tx!(self, Relaxed, "adding to the history", |tx| {
            for chunk in entries.chunks(ROWS_PER_INSERT) {
                let mut insert = QueryBuilder::<Db>::new(
                    "INSERT INTO history (subject_kind, subject, what, why, at) ",
                );
                insert.push_values(chunk, |mut values, entry| {
                    values
                        .push_bind(&entry.subject_kind)
                        .push_bind(&entry.subject)
                        .push_bind(&entry.what)
                        .push_bind(&entry.why)
                        .push_bind(entry.at.0);
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
                        "SELECT subject_kind, subject, what, why, at FROM history
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
                        "SELECT subject_kind, subject, what, why, at FROM history
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
