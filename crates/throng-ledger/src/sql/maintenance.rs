//! Stamps, probes and referenced objects in SQL.

use async_trait::async_trait;

use crate::backend::{Backend, SqlLedger, read_one, read_tx, write_one};
use crate::rows::{Cells, DbRow};
use crate::{MaintenanceLedger, ReferencedObject, ReferencedObjects, Result, StoreStamp};

fn stamp_of(row: &DbRow) -> Result<StoreStamp> {
    let cells = Cells::new(row, "stamp");
    Ok(StoreStamp { instance: cells.text("instance")?, sequence: cells.number("sequence")? })
}

/// The file of a snapshot.
fn snapshot_of(row: &DbRow) -> Result<ReferencedObject> {
    let cells = Cells::new(row, "snapshot");
    Ok(ReferencedObject { name: cells.text("path")?, bytes: Some(cells.number("bytes")?) })
}

/// The object that a part has written, if it has written one.
fn output_of(row: &DbRow) -> Result<Option<String>> {
    let output: serde_json::Value = Cells::new(row, "part").json("output")?;
    Ok(output["object"].as_str().map(str::to_owned))
}

#[async_trait]
impl<B: Backend> MaintenanceLedger for SqlLedger<B> {
    async fn stamp(&self) -> Result<Option<StoreStamp>> {
        read_one!(self, "reading the stamp", |tx| {
            tx.optional("SELECT instance, sequence FROM store_stamp", (), stamp_of).await?
        })
    }

    async fn put_stamp(&self, stamp: &StoreStamp) -> Result<()> {
        write_one!(self, Full, "writing the stamp", |tx| {
            tx.execute(
                "INSERT INTO store_stamp (only_row, instance, sequence) VALUES (1, $1, $2)
                 ON CONFLICT (only_row) DO UPDATE
                 SET instance = excluded.instance, sequence = excluded.sequence,
                     writes = store_stamp.writes + 1",
                (&stamp.instance, stamp.sequence),
            )
            .await?;
        })
    }

    async fn probe(&self) -> Result<()> {
        write_one!(self, Full, "probing a write", |tx| {
            tx.execute(
                "INSERT INTO write_probe (only_row, writes) VALUES (1, 1)
                 ON CONFLICT (only_row) DO UPDATE SET writes = write_probe.writes + 1",
                (),
            )
            .await?;
        })
    }

    async fn referenced_objects(&self) -> Result<ReferencedObjects> {
        read_tx!(self, "reading the referenced objects", |tx| {
            let text = "SELECT path, bytes FROM snapshots ORDER BY path";
            let mut objects = tx.all(text, (), snapshot_of).await?;
            let text = "SELECT p.output AS output
                 FROM refresh_parts p JOIN refreshes r ON r.id = p.refresh
                 WHERE r.state IN ('scheduled', 'processing', 'halted') AND p.output IS NOT NULL";
            let outputs = tx.all(text, (), output_of).await?;
            let text = "SELECT state FROM delivered_states WHERE state IS NOT NULL
                 UNION ALL SELECT plan FROM sync_runs WHERE plan IS NOT NULL ORDER BY 1";
            let files: Vec<String> = tx.scalars(text, ()).await?;
            let names = outputs.into_iter().flatten().chain(files);
            objects.extend(names.map(|name| ReferencedObject { name, bytes: None }));
            let text = "SELECT manifest FROM dictionary_shards ORDER BY shard";
            ReferencedObjects { objects, manifests: tx.scalars(text, ()).await? }
        })
    }

    async fn check_structure(&self) -> Result<()> {
        self.backend.check_structure().await
    }

    async fn close(&self) -> Result<()> {
        self.backend.close().await
    }
}
