//! SQL over the sources of a spec.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use throng_ingest::IngestError;
use throng_lake::{ClusterOptions, Lake, LakeLimits, WorkerCommand};
use throng_spec::{EngineSettings, Problem, Spec};

use crate::error::{ApplyError, Refusal};

/// Opens the sources of a spec, creates the tables of its schemas, and the folder for temporary files of its queries.
///
/// # Errors
/// [`ApplyError`] if the folder cannot be created, a source is invalid, or a certificate of the cluster that the node
/// uses cannot be read.
pub fn open_lake(data_dir: &Path, spec: &Spec, worker: &WorkerCommand) -> Result<Lake, ApplyError> {
    let spill_dir = spec.node.spill_dir.clone().unwrap_or_else(|| data_dir.join("spill"));
    std::fs::create_dir_all(&spill_dir)
        .map_err(ApplyError::io("create the folder", spill_dir.display()))?;
    if spec.node.spill_dir.is_none() {
        remove_old_spill(&spill_dir);
    }
    throng_ingest::create_tables(spec)?;
    let limits = LakeLimits::of(&spec.node, spill_dir, worker.clone());
    let lake = Lake::new(&spec.sources, limits)?;
    match &spec.node.engine {
        EngineSettings::Process => Ok(lake),
        EngineSettings::Ballista(cluster) => Ok(lake.on_cluster(ClusterOptions::of(cluster)?)),
    }
}

/// Creates the tables of the schemas of a spec that was sent.
///
/// # Errors
/// [`Refusal::Problems`] if a table has other columns; [`Refusal::Failed`] if a folder cannot be written.
pub(crate) fn create_tables(spec: &Spec) -> Result<(), Refusal> {
    throng_ingest::create_tables(spec).map_err(refusal)
}

/// The spec with the tables of its schemas as they would be, without rows, in a temporary folder; `None` if they
/// exist already. A column keeps its type, so a spec that is only planned must not create one.
///
/// # Errors
/// As [`create_tables`].
pub(crate) fn preview_tables(spec: &Spec) -> Result<Option<(Spec, TempDir)>, Refusal> {
    let Some(lake) = &spec.node.lake else { return Ok(None) };
    let folder = tempfile::tempdir().map_err(ApplyError::io("create", "a temporary folder"))?;
    if !throng_ingest::preview_tables(spec, folder.path()).map_err(refusal)? {
        return Ok(None);
    }
    let mut shown = spec.clone();
    for source in &mut shown.sources {
        if let Ok(within) = source.path.strip_prefix(lake) {
            source.path = folder.path().join(within);
        }
    }
    shown.node.lake = None;
    Ok(Some((shown, folder)))
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
