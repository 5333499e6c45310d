//! Scans: a model's keys as hashes, in parts that can be repeated.

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use futures::StreamExt;
use throng_model::{HashSeed, UserHash};
use throng_query::keys::{KeyBatch, ScanStats, is_padded};
use throng_query::model::{Model, ModelInfo, Shape, TableFacts};
use throng_tables::FilePlan;

use crate::amount::{NumberKind, values};
use crate::cluster::OnCluster;
use crate::conversions::explained;
use crate::engine::Engine;
use crate::error::LakeError;
use crate::keys::{for_each_key, hash_column};
use crate::part::{PlannedFiles, ScanPart};
use crate::plan::Planned;
use crate::session::Opened;
use crate::stage_error::query_error;

/// Receives the keys of a scan.
pub type Sink<'a> =
    dyn FnMut(KeyBatch) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + 'a;

impl Engine {
    /// Plans a model and divides its scan: one part per file if each row is evaluated by itself,
    /// else one part.
    pub(crate) async fn plan(
        &self,
        model: &Model,
        served: &[TableFacts],
    ) -> Result<(ModelInfo, Vec<ScanPart>), LakeError> {
        let Planned { info, opened, .. } = self.planned(model, None).await?;
        self.check_unchanged(served, &info.tables, &opened).await?;
        let parts = parts(info.shape, &opened);
        Ok((info, parts))
    }

    /// Runs one part, on the cluster if there is one, and passes its keys to `sink` as they arrive.
    pub(crate) async fn scan(
        &self,
        model: &Model,
        part: &ScanPart,
        seed: HashSeed,
        on: Option<OnCluster<'_>>,
        sink: &mut Sink<'_>,
    ) -> Result<ScanStats, LakeError> {
        let planned = self.planned(model, Some(part)).await?;
        let doing = "scanning the keys";
        let query = planned.frame.clone();
        let mut stream = self.execute(doing, query, planned.info.shape, on).await?;
        let mut stats = ScanStats::default();
        while let Some(batch) = stream.next().await {
            let batch = batch
                .map_err(|e| explained(query_error(doing, e), &planned.frame, &planned.opened))?;
            let rows = batch.num_rows() as u64;
            let keys = planned.key_column(batch.column(0))?;
            let padded = &mut stats.padded_keys;
            let keys = match planned.values {
                None => {
                    let (hashes, null_keys) = hash_column(&keys, seed, padded)?;
                    KeyBatch { rows, hashes, values: None, null_keys }
                }
                Some(kind) => with_values(&batch, &keys, kind, seed, padded)?,
            };
            stats.rows_read += rows;
            stats.null_keys += keys.null_keys;
            sink(keys).map_err(LakeError::Sink)?;
            // Lets other tasks of the runtime run between batches.
            tokio::task::yield_now().await;
        }
        // If a file has changed meanwhile, some rows are from before and some from after the
        // change.
        planned.opened.compare_files()?;
        Ok(stats)
    }
}

/// The parts of a scan of these tables.
pub(crate) fn parts(shape: Shape, opened: &Opened) -> Vec<ScanPart> {
    match (shape, opened.tables.as_slice()) {
        (Shape::FilterOnly, [table]) if table.layout.files.len() > 1 => {
            let part = |plan: &FilePlan| ScanPart {
                file: Some(plan.file.path().to_owned()),
                planned_files: Some(PlannedFiles::of_file(&table.layout, plan)),
            };
            table.layout.files.iter().map(part).collect()
        }
        _ => vec![ScanPart {
            file: None,
            planned_files: Some(PlannedFiles::of_tables(&opened.tables)),
        }],
    }
}

/// The keys of a batch with their values. Adds those with white space around them to `padded`.
fn with_values(
    batch: &RecordBatch,
    keys: &ArrayRef,
    kind: NumberKind,
    seed: HashSeed,
    padded: &mut u64,
) -> Result<KeyBatch, LakeError> {
    let rows = batch.num_rows() as u64;
    let mut found = values(batch.column(1), kind)?.into_iter();
    let mut hashes = Vec::with_capacity(batch.num_rows());
    let mut kept = Vec::with_capacity(batch.num_rows());
    let mut null_keys = 0;
    for_each_key(keys, &mut |key| match (key, found.next().flatten()) {
        (Some(key), Some(value)) => {
            *padded += u64::from(is_padded(key));
            hashes.push(UserHash::of_canonical(key, seed));
            kept.push(value);
        }
        (Some(_), None) => {}
        (None, _) => null_keys += 1,
    })?;
    Ok(KeyBatch { rows, hashes, values: Some(kept), null_keys })
}
