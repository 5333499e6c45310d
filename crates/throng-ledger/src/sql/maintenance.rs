//! Stamps, probes and referenced objects in SQL.

use async_trait::async_trait;

use super::{Backend, read_one, read_tx, write_one};
use crate::rows::{Cells, count};
use crate::{MaintenanceLedger, ReferencedObject, ReferencedObjects, Result, StoreStamp};

#[async_trait]
impl MaintenanceLedger for Backend {
    async fn stamp(&self) -> Result<Option<StoreStamp>> {
        read_one!(self, "reading the stamp", |tx| {
            let row = sqlx::query("SELECT instance, sequence FROM store_stamp")
                .fetch_optional(tx)
                .await?;
            match row {
                Some(row) => {
                    let cells = Cells::new(&row, "stamp");
                    Some(StoreStamp {
                        instance: cells.text("instance")?,
                        sequence: cells.number("sequence")?,
                    })
                }
                None => None,
            }
        })
    }

    async fn put_stamp(&self, stamp: &StoreStamp) -> Result<()> {
        write_one!(self, Full, "writing the stamp", |tx| {
            sqlx::query(
                "INSERT INTO store_stamp (only_row, instance, sequence) VALUES (1, $1, $2)
                 ON CONFLICT (only_row) DO UPDATE
                 SET instance = excluded.instance, sequence = excluded.sequence,
                     writes = store_stamp.writes + 1",
            )
            .bind(&stamp.instance)
            .bind(count(stamp.sequence))
            .execute(tx)
            .await?;
        })
    }

    async fn probe(&self) -> Result<()> {
        write_one!(self, Full, "probing a write", |tx| {
            sqlx::query(
                "INSERT INTO write_probe (only_row, writes) VALUES (1, 1)
                 ON CONFLICT (only_row) DO UPDATE SET writes = write_probe.writes + 1",
            )
            .execute(tx)
            .await?;
        })
    }

    async fn referenced_objects(&self) -> Result<ReferencedObjects> {
        read_tx!(self, "reading the referenced objects", |tx| {
            let mut referenced = ReferencedObjects::default();
            let rows = sqlx::query("SELECT path, bytes FROM snapshots ORDER BY path")
                .fetch_all(&mut *tx)
                .await?;
            for row in &rows {
                let cells = Cells::new(row, "snapshot");
                let bytes = Some(cells.number("bytes")?);
                referenced.objects.push(ReferencedObject { name: cells.text("path")?, bytes });
            }
            let rows = sqlx::query(
                "SELECT p.output AS output FROM refresh_parts p JOIN refreshes r ON r.id = p.refresh
                 WHERE r.state IN ('scheduled', 'processing', 'halted') AND p.output IS NOT NULL",
            )
            .fetch_all(&mut *tx)
            .await?;
            for row in &rows {
                let output: serde_json::Value = Cells::new(row, "part").json("output")?;
                if let Some(name) = output["object"].as_str() {
                    referenced
                        .objects
                        .push(ReferencedObject { name: name.to_owned(), bytes: None });
                }
            }
            let names: Vec<String> = sqlx::query_scalar(
                "SELECT state FROM delivered_states WHERE state IS NOT NULL
                 UNION ALL SELECT plan FROM sync_runs WHERE plan IS NOT NULL ORDER BY 1",
            )
            .fetch_all(&mut *tx)
            .await?;
            referenced
                .objects
                .extend(names.into_iter().map(|name| ReferencedObject { name, bytes: None }));
            referenced.manifests =
                sqlx::query_scalar("SELECT manifest FROM dictionary_shards ORDER BY shard")
                    .fetch_all(&mut *tx)
                    .await?;
            referenced
        })
    }

    async fn check_structure(&self) -> Result<()> {
        self.backend_check_structure().await
    }

    async fn close(&self) -> Result<()> {
        self.backend_close().await
    }
}
