//! History and nodes in SQL.

use async_trait::async_trait;
use throng_model::{Role, Timestamp};

use crate::backend::{Backend, SqlLedger, read_one, write_tx};
use crate::dialect::ROWS_PER_STATEMENT;
use crate::rows::{Cells, DbRow, json};
use crate::{HistoryEntry, HistoryEvent, HistoryLedger, NodeRow, Result, SubjectKind};

/// The columns that [`entry_of`] reads.
pub(super) const COLUMNS: &str = "subject_kind, subject, what, why, at, actor";

pub(super) fn entry_of(row: &DbRow) -> Result<HistoryEntry> {
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
impl<B: Backend> HistoryLedger for SqlLedger<B> {
    async fn put_node(&self, node: &NodeRow) -> Result<()> {
        let roles: Vec<&str> = node.roles.iter().map(|role| role.name()).collect();
        let roles = roles.join(", ");
        write_tx!(self, Relaxed, "recording the status of a node", |tx| {
            let status = json(&node.status)?;
            tx.execute(
                "INSERT INTO nodes (name, roles, url, started_at, seen_at, status)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (name) DO UPDATE SET roles = excluded.roles, url = excluded.url,
                    started_at = excluded.started_at, seen_at = excluded.seen_at,
                    status = excluded.status",
                (&node.name, &roles, &node.url, node.started_at, node.seen_at, status),
            )
            .await?;
            let before = node.seen_at.minus(NODE_RETENTION);
            tx.execute("DELETE FROM nodes WHERE seen_at < $1", before).await?;
        })
    }

    async fn nodes(&self, since: Timestamp) -> Result<Vec<NodeRow>> {
        read_one!(self, "reading the nodes", |tx| {
            let text = "SELECT name, roles, url, started_at, seen_at, status FROM nodes
                 WHERE seen_at >= $1 ORDER BY name";
            tx.all(text, since, node_of).await?
        })
    }

    async fn record_history(&self, entries: &[HistoryEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        write_tx!(self, Relaxed, "recording history", |tx| {
            for chunk in entries.chunks(ROWS_PER_STATEMENT) {
                let rows = chunk.iter().map(|entry| {
                    let HistoryEntry { subject_kind, subject, what, why, at, actor } = entry;
                    (subject_kind.name(), subject, what.name(), why, *at, actor.as_deref())
                });
                let insert = tx.build(
                    "INSERT INTO history (subject_kind, subject, what, why, at, actor) VALUES ",
                );
                let insert = insert.rows(rows).build(chunk.len() == 1);
                tx.execute_built(insert).await?;
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
            match subject {
                Some((kind, name)) => {
                    let text = "SELECT subject_kind, subject, what, why, at, actor FROM history
                         WHERE subject_kind = $1 AND subject = $2
                         ORDER BY at DESC, id DESC LIMIT $3";
                    tx.all(text, (kind.name(), name, limit), entry_of).await?
                }
                None => {
                    let text = "SELECT subject_kind, subject, what, why, at, actor FROM history
                         ORDER BY at DESC, id DESC LIMIT $1";
                    tx.all(text, limit, entry_of).await?
                }
            }
        })
    }
}
