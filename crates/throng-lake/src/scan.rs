//! Scans: a model's keys as hashes, in parts that can be repeated.

use std::path::PathBuf;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use throng_model::{HashSeed, UserHash};

use crate::amount::{Kind, values};
use crate::engine::Engine;
use crate::facts::TableFacts;
use crate::files::FilePlan;
use crate::keys::{for_each_key, hash_column};
use crate::model::Planned;
pub use crate::seen::Seen;
use crate::{LakeError, Model, ModelInfo, Shape};

/// A piece of a scan. The same part of an unchanged source yields the same keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanPart {
    /// The one file that it covers; the whole query if there is none.
    pub file: Option<PathBuf>,
    /// What its files were when it was planned; `None` in parts that an older version planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
}

/// Some of the keys of a scan, hashed.
#[derive(Debug, Default)]
pub struct KeyBatch {
    /// Rows that it comes from.
    pub rows: u64,
    /// The hashes, in no order, with duplicates.
    pub hashes: Vec<UserHash>,
    /// Where the model's rule is a sum: a value for each hash, as [`crate::Sum::allows`] takes it.
    /// Rows whose value is NULL are left out, as SQL leaves them out of sums.
    pub values: Option<Vec<u64>>,
    /// Rows whose key was NULL.
    pub null_keys: u64,
}

/// What a scan read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanStats {
    /// Rows that were scanned: those that the model returns, or those that it counts.
    pub rows_read: u64,
    /// Rows of them whose key was NULL.
    pub null_keys: u64,
}

/// Where the keys of a scan go.
pub type Sink<'a> =
    dyn FnMut(KeyBatch) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + 'a;

impl Engine {
    /// Plans a model and cuts its scan: one part per file if every row is looked at alone, else one
    /// part.
    pub(crate) async fn plan(
        &self,
        model: &Model,
        served: &[TableFacts],
    ) -> Result<(ModelInfo, Vec<ScanPart>), LakeError> {
        let Planned { info, opened, .. } = self.planned(model, None).await?;
        self.hold_to(served, &info.tables, &opened).await?;
        let parts = match (info.shape, opened.tables.as_slice()) {
            (Shape::FilterOnly, [table]) if table.layout.files.len() > 1 => {
                let part = |plan: &FilePlan| ScanPart {
                    file: Some(plan.file.path().to_owned()),
                    seen: Some(Seen::of_file(&table.layout, plan)),
                };
                table.layout.files.iter().map(part).collect()
            }
            _ => vec![ScanPart { file: None, seen: Some(Seen::of_tables(&opened.tables)) }],
        };
        Ok((info, parts))
    }

    /// Runs one part and hands its keys over as they come.
    pub(crate) async fn scan(
        &self,
        model: &Model,
        part: &ScanPart,
        seed: HashSeed,
        sink: &mut Sink<'_>,
    ) -> Result<ScanStats, LakeError> {
        let planned = self.planned(model, Some(part)).await?;
        let doing = "scanning the keys";
        let mut stream = planned
            .frame
            .clone()
            .execute_stream()
            .await
            .map_err(|e| LakeError::engine(doing, e))?;
        let mut stats = ScanStats::default();
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|e| LakeError::engine(doing, e))?;
            let rows = batch.num_rows() as u64;
            let keys = match planned.values {
                None => {
                    let keys = planned.key_column(batch.column(0))?;
                    let (hashes, null_keys) = hash_column(&keys, seed)?;
                    KeyBatch { rows, hashes, values: None, null_keys }
                }
                Some(kind) => {
                    let keys = planned.key_column(batch.column(0))?;
                    with_values(&batch, &keys, kind, seed)?
                }
            };
            stats.rows_read += rows;
            stats.null_keys += keys.null_keys;
            sink(keys).map_err(LakeError::Sink)?;
            // Between batches other work of the runtime gets its turn.
            tokio::task::yield_now().await;
        }
        // A file that changed meanwhile was read in part as it was and in part as it is.
        planned.opened.compare_files()?;
        Ok(stats)
    }
}

/// The keys of a batch with their values.
fn with_values(
    batch: &RecordBatch,
    keys: &ArrayRef,
    kind: Kind,
    seed: HashSeed,
) -> Result<KeyBatch, LakeError> {
    let rows = batch.num_rows() as u64;
    let mut found = values(batch.column(1), kind)?.into_iter();
    let mut hashes = Vec::with_capacity(batch.num_rows());
    let mut kept = Vec::with_capacity(batch.num_rows());
    let mut null_keys = 0;
    for_each_key(keys, &mut |key| match (key, found.next().flatten()) {
        (Some(key), Some(value)) => {
            hashes.push(UserHash::of_canonical(key, seed));
            kept.push(value);
        }
        (Some(_), None) => {}
        (None, _) => null_keys += 1,
    })?;
    Ok(KeyBatch { rows, hashes, values: Some(kept), null_keys })
}
