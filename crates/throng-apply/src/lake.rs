//! SQL over the sources of a spec.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use throng_ingest::{BucketLake, IngestError};
use throng_lake::{ClusterOptions, Copies, Lake, LakeLimits, WorkerCommand};
use throng_model::Retry;
use throng_spec::{EngineSettings, NodeSettings, Problem, Spec};

use crate::error::{ApplyError, Refusal};

/// Where a node with these settings spills.
pub fn spill_dir(data_dir: &Path, settings: &NodeSettings) -> PathBuf {
    settings.spill_dir.clone().unwrap_or_else(|| data_dir.join("spill"))
}

/// What the lakes of a process are opened with.
#[derive(Debug, Clone)]
pub struct LakeOpener {
    /// Queries have their temporary files below it.
    pub data_dir: PathBuf,
    /// How query workers are started.
    pub worker: WorkerCommand,
    /// The copies of sources in buckets.
    pub copies: Arc<dyn Copies>,
    /// The bucket of ingested rows, if they are in one and this process writes tables.
    pub bucket: Option<Arc<BucketLake>>,
}

impl LakeOpener {
    /// Opens the sources of a spec, creates the tables of its schemas, and the folder for temporary files of its
    /// queries.
    ///
    /// # Errors
    /// [`ApplyError`] if the folder cannot be created, a source is invalid, or a certificate of the cluster that the
    /// node uses cannot be read.
    pub async fn open(&self, spec: &Spec) -> Result<Lake, ApplyError> {
        let spill_dir = spill_dir(&self.data_dir, &spec.node);
        std::fs::create_dir_all(&spill_dir)
            .map_err(ApplyError::io("create the folder", spill_dir.display()))?;
        if spec.node.spill_dir.is_none() {
            remove_old_spill(&spill_dir);
        }
        // A node whose roles write no table has not opened the bucket.
        let writes_tables = self.bucket.is_some() || spec.node.lake_bucket.is_none();
        match self.create_if(writes_tables, spec).await {
            // They were created when their schemas were applied, and a batch creates its own. A node starts also while
            // the bucket cannot be reached.
            Err(IngestError::Bucket(error)) if error.retry() == Retry::Backoff => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to create the tables of the schemas"
                );
            }
            created => created?,
        }
        let limits = LakeLimits::of(&spec.node, spill_dir, self.worker.clone());
        let lake = Lake::new(&spec.sources, limits, Some(&self.copies))?;
        match &spec.node.engine {
            EngineSettings::Process => Ok(lake),
            EngineSettings::Ballista(cluster) => Ok(lake.on_cluster(ClusterOptions::of(cluster)?)),
        }
    }

    /// Creates the tables of the schemas of a spec, if this process does that.
    async fn create_if(&self, writes_tables: bool, spec: &Spec) -> Result<(), IngestError> {
        match writes_tables {
            true => self.with_tables(spec, throng_ingest::create_tables).await,
            false => Ok(()),
        }
    }

    /// As [`LakeOpener::open`], of the spec that the process starts with. Removes the copies of buckets that it does
    /// not have. Needs a Tokio runtime.
    ///
    /// # Errors
    /// As [`LakeOpener::open`].
    pub async fn open_first(&self, spec: &Spec) -> Result<Lake, ApplyError> {
        let lake = self.open(spec).await?;
        self.retain_copies(spec);
        Ok(lake)
    }

    /// Removes the copies of buckets that the spec does not have.
    pub(crate) fn retain_copies(&self, spec: &Spec) {
        let buckets = spec.sources.iter().filter_map(|source| source.bucket.as_ref());
        self.copies.retain(&buckets.collect::<Vec<_>>());
    }

    /// Creates the tables of the schemas of a spec that was sent.
    ///
    /// # Errors
    /// [`Refusal::Problems`] if a table has other columns; [`Refusal::Failed`] if a folder or a bucket cannot be
    /// written.
    pub(crate) async fn create_tables(&self, spec: &Spec) -> Result<(), Refusal> {
        self.with_tables(spec, throng_ingest::create_tables).await.map_err(refusal)
    }

    /// The spec with the tables of its schemas as they would be, without rows, in a temporary folder; `None` if they
    /// exist already. A column keeps its type, so a spec that is only planned must not create one.
    ///
    /// # Errors
    /// As [`LakeOpener::create_tables`].
    pub(crate) async fn preview_tables(
        &self,
        spec: &Spec,
    ) -> Result<Option<(Spec, TempDir)>, Refusal> {
        let Some(lake) = &spec.node.lake else { return Ok(None) };
        let folder = tempfile::tempdir().map_err(ApplyError::io("create", "a temporary folder"))?;
        let path = folder.path().to_owned();
        let changes = self
            .with_tables(spec, move |spec, bucket| {
                throng_ingest::preview_tables(spec, bucket, &path)
            })
            .await;
        if !changes.map_err(refusal)? {
            return Ok(None);
        }
        let mut shown = spec.clone();
        for source in &mut shown.sources {
            // Also that of a bucket: it is a URL that begins with that of the lake.
            if let Ok(within) = source.path.strip_prefix(lake) {
                source.path = folder.path().join(within);
                source.bucket = None;
            }
        }
        (shown.node.lake, shown.node.lake_bucket) = (None, None);
        Ok(Some((shown, folder)))
    }

    /// Works with the tables of the schemas. Requests to a bucket may take long: then in a thread that may block.
    async fn with_tables<T: Send + 'static>(
        &self,
        spec: &Spec,
        work: impl FnOnce(&Spec, Option<&BucketLake>) -> Result<T, IngestError> + Send + 'static,
    ) -> Result<T, IngestError> {
        let Some(bucket) = self.bucket.clone() else { return work(spec, None) };
        let spec = spec.clone();
        let ended = tokio::task::spawn_blocking(move || work(&spec, Some(&*bucket))).await;
        ended.unwrap_or_else(|error| Err(IngestError::of_task(&error)))
    }
}

fn refusal(error: IngestError) -> Refusal {
    match error {
        IngestError::Refused { message, help } => Refusal::Problems(vec![Problem {
            file: PathBuf::from("the spec"),
            line: 0,
            column: 0,
            path: "schemas".to_owned(),
            message,
            help: Some(help),
        }]),
        error => Refusal::Failed(error.into()),
    }
}

/// Removes spill folders of DataFusion that versions left which ran queries in the node itself and
/// were killed. They hold user keys.
fn remove_old_spill(spill_dir: &Path) {
    for entry in std::fs::read_dir(spill_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("datafusion-")
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, path = %entry.path().display(), "failed to remove old spill folder");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_spills_to_the_folder_that_is_set() {
        let (data_dir, mut settings) = (Path::new("/data"), NodeSettings::default());
        assert_eq!(spill_dir(data_dir, &settings), Path::new("/data/spill"));
        settings.spill_dir = Some("/scratch".into());
        assert_eq!(spill_dir(data_dir, &settings), Path::new("/scratch"));
    }
}
