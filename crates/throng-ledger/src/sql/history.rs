//! History and nodes in SQL.

use async_trait::async_trait;
use sqlx::QueryBuilder;
use throng_model::{Role, Timestamp};

use super::{Backend, Db, DbRow, ROWS_PER_INSERT, read_one, write_tx};
use crate::rows::{Cells, json};
use crate::{HistoryEntry, HistoryEvent, HistoryLedger, NodeRow, Result, SubjectKind};

fn entry_of(row: &DbRow) -> Result<HistoryEntry> {
    let cells = Cells::new(row, "history entry");
    Ok(HistoryEntry {
        subject_kind: SubjectKind::from(cells.text("subject_kind")?),
        subject: cells.text("subject")?,
        what: HistoryEvent::from(cells.text("what")?),
        why: cells.text("why")?,
        at: cells.time("at")?,
        actor: cells.maybe_text("actor")?,
    })
}

/// A node that has not reported for this long is deleted.
const NODE_RETENTION: std::time::Duration = std::time::Duration::from_secs(86_400);

/// The roles in a column, with commas between them. A role that a newer version has written is left
/// out: it must not hide the node.
fn roles_of(text: &str) -> Vec<Role> {
    text.split(',').filter_map(|name| name.trim().parse().ok()).collect()
}

fn node_of(row: &DbRow) -> Result<NodeRow> {
    let cells = Cells::new(row, "node");
    Ok(NodeRow {
        name: cells.text("name")?,
        roles: roles_of(&cells.text("roles")?),
        url: cells.text("url")?,
        started_at: cells.time("started_at")?,
        seen_at: cells.time("seen_at")?,
        status: cells.json("status")?,
    })
}

#[async_trait]
impl HistoryLedger for Backend {
    async fn put_node(&self, node: &NodeRow) -> Result<()> {
        let roles: Vec<&str> = node.roles.iter().map(|role| role.name()).collect();
        let roles = roles.join(", ");
        write_tx!(self, Relaxed, "recording the status of a node", |tx| {
            sqlx::query(
                "INSERT INTO nodes (name, roles, url, started_at, seen_at, status)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (name) DO UPDATE SET roles = excluded.roles, url = excluded.url,
                    started_at = excluded.started_at, seen_at = excluded.seen_at,
                    status = excluded.status",
            )
            .bind(&node.name)
            .bind(&roles)
            .bind(&node.url)
            .bind(node.started_at.0)
            .bind(node.seen_at.0)
            .bind(json(&node.status)?)
            .execute(&mut *tx)
            .await?;
            sqlx::query("DELETE FROM nodes WHERE seen_at < $1")
                .bind(node.seen_at.minus(NODE_RETENTION).0)
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

    async fn record_history(&self, entries: &[HistoryEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        write_tx!(self, Relaxed, "recording history", |tx| {
            for chunk in entries.chunks(ROWS_PER_INSERT) {
                let mut insert = QueryBuilder::<Db>::new(
                    "INSERT INTO history (subject_kind, subject, what, why, at, actor) ",
                );
                insert.push_values(chunk, |mut values, entry| {
                    values
                        .push_bind(entry.subject_kind.name())
                        .push_bind(&entry.subject)
                        .push_bind(entry.what.name())
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
        subject: Option<(&SubjectKind, &str)>,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>> {
        read_one!(self, "reading the history", |tx| {
            // Two statements, so that each uses its index.
            let rows = match subject {
                Some((kind, name)) => {
                    sqlx::query(
                        "SELECT subject_kind, subject, what, why, at, actor FROM history
                         WHERE subject_kind = $1 AND subject = $2
                         ORDER BY at DESC, id DESC LIMIT $3",
                    )
                    .bind(kind.name())
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
