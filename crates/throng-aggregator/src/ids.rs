//! Runs of event ids as objects, read by every replica of the partition.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use throng_budget::{IdFile, IdRun};
use throng_objects::Objects;

use super::BudgetsError;
use super::files::{self, BoxError};
use super::state::PartitionState;

/// A run's file. It stays readable while it is open, also after it was removed.
#[derive(Debug)]
struct RunFile(File);

impl IdFile for RunFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

pub(super) fn folder(partition: u32) -> String {
    format!("ids/{partition}")
}

pub(super) fn object(partition: u32, run: &str) -> String {
    format!("ids/{partition}/{run}")
}

fn failed(partition: u32) -> impl FnOnce(BoxError) -> BudgetsError {
    move |source| BudgetsError::Ids { partition, source }
}

/// Reads the runs of these names.
pub(super) async fn load(
    objects: &dyn Objects,
    partition: u32,
    names: Vec<String>,
) -> Result<HashMap<String, IdRun>, BudgetsError> {
    let mut runs = HashMap::with_capacity(names.len());
    for name in names {
        let run = files::load(objects, &object(partition, &name), read).await;
        let run = run.map_err(failed(partition))?;
        // The name follows from the contents. With a run of other ids, duplicates would count, and
        // events that are new would not.
        if run.name() != name {
            let source =
                io::Error::new(io::ErrorKind::InvalidData, "its contents do not match its name");
            return Err(failed(partition)(source.into()));
        }
        runs.insert(name, run);
    }
    Ok(runs)
}

fn read(path: &Path) -> io::Result<IdRun> {
    let bytes = throng_fs::read(path)?;
    let file: Arc<dyn IdFile> = Arc::new(RunFile(throng_fs::open(path)?));
    IdRun::read(&bytes, file).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}

/// Writes the runs that are not written yet, so that the next checkpoint names them. Returns the objects of
/// those that were merged into another run meanwhile.
pub(super) async fn save(
    objects: &dyn Objects,
    partition: u32,
    state: &Mutex<PartitionState>,
) -> Result<Vec<String>, BudgetsError> {
    let mut unneeded = Vec::new();
    // A copy of the list: the lock is not held during the writes, so that events are applied
    // meanwhile.
    let unsaved = state.lock().engine.unsaved_id_runs();
    for run in unsaved {
        let Some(content) = run.unsaved() else { continue };
        let object = object(partition, run.name());
        let file = files::store(objects, &object, content).await.map_err(failed(partition))?;
        let file: Arc<dyn IdFile> = Arc::new(RunFile(file));
        if !state.lock().engine.id_run_saved(run.name(), &file) {
            unneeded.push(object);
        }
    }
    Ok(unneeded)
}

#[cfg(test)]
mod tests {
    use throng_budget::Engine;

    use super::*;

    #[test]
    fn another_file_is_not_read_as_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let content = Engine::new(3, 1, 1, Vec::new()).checkpoint(0);
        std::fs::write(&path, &content).unwrap();
        let mut start = [0; 4];
        RunFile(File::open(&path).unwrap()).read_at(1, &mut start).unwrap();
        assert_eq!(start, content[1..5]);
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
