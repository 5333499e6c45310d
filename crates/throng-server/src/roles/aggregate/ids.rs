//! Runs of ids as objects: written once, named by their content, read by every owner of the partition.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use throng_budget::{Engine, IdFile, IdRun};
use throng_model::Timestamp;
use throng_objects::{Objects, ObjectsError};

use super::partition::State;
use super::{BudgetsError, locked};

/// Runs that no checkpoint names are removed when they are this old: one that is younger may be of a
/// checkpoint that is about to be written.
const ORPHANED_AFTER: Duration = Duration::from_secs(2 * 24 * 3600);

/// Runs that no checkpoint of this process names are removed after so long: another one that stands in for it
/// may be so far behind it and write a checkpoint with them, and a backup may be reading them.
const REMOVED_AFTER: Duration = Duration::from_secs(600);

/// Runs that the state does not need any longer, each with the time at which that was noticed.
#[derive(Debug, Default)]
pub(super) struct Unneeded(Vec<(Timestamp, String)>);

impl Unneeded {
    pub(super) fn add(&mut self, runs: Vec<String>, now: Timestamp) {
        self.0.extend(runs.into_iter().map(|run| (now, run)));
    }

    /// Those that can be removed, once.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<String> {
        let is_due = |(noticed, _): &mut (Timestamp, String)| now.since(*noticed) > REMOVED_AFTER;
        self.0.extract_if(.., is_due).map(|(_, run)| run).collect()
    }
}

/// A run's file. It stays readable while it is open, also when its name is gone.
#[derive(Debug)]
struct RunFile(File);

impl IdFile for RunFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

fn folder(partition: u32) -> String {
    format!("ids/{partition}")
}

pub(super) fn object(partition: u32, run: &str) -> String {
    format!("ids/{partition}/{run}")
}

fn failed(partition: u32) -> impl FnOnce(ObjectsError) -> BudgetsError {
    move |source| BudgetsError::Ids { partition, source: Box::new(source) }
}

/// The runs that a checkpoint needs.
pub(super) async fn load(
    objects: &dyn Objects,
    partition: u32,
    state: &[u8],
) -> Result<HashMap<String, IdRun>, BudgetsError> {
    let names = Engine::id_run_names(state);
    let names = names.map_err(|source| BudgetsError::State { partition, source })?;
    let mut runs = HashMap::with_capacity(names.len());
    for name in names {
        let object = object(partition, &name);
        let path = objects.fetch(&object).await.map_err(failed(partition))?;
        let run = match read(path).await {
            Ok(run) => run,
            // The local copy may be damaged, and the object be whole.
            Err(_) => {
                let path = objects.fetch_again(&object).await.map_err(failed(partition))?;
                let read = read(path).await;
                read.map_err(|source| BudgetsError::Ids { partition, source: source.into() })?
            }
        };
        if run.name() != name {
            let source = io::Error::new(io::ErrorKind::InvalidData, "it has other ids");
            return Err(BudgetsError::Ids { partition, source: source.into() });
        }
        runs.insert(name, run);
    }
    Ok(runs)
}

async fn read(path: std::path::PathBuf) -> io::Result<IdRun> {
    blocking(move || {
        let bytes = std::fs::read(&path)?;
        let file: Arc<dyn IdFile> = Arc::new(RunFile(File::open(&path)?));
        IdRun::read(&bytes, file).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Writes the runs that are not written yet, so that the next checkpoint names them. Returns those that
/// became a part of another one meanwhile.
pub(super) async fn save(
    objects: &dyn Objects,
    partition: u32,
    state: &Mutex<State>,
) -> Result<Vec<String>, BudgetsError> {
    let mut unneeded = Vec::new();
    let unsaved = locked(state).engine.unsaved_id_runs();
    for run in unsaved {
        let Some(content) = run.unsaved() else { continue };
        let name = object(partition, run.name());
        let path = objects.root().join(&name);
        let file = blocking(move || write(&path, &content)).await;
        let file = file.map_err(|source| BudgetsError::Ids { partition, source: source.into() })?;
        objects.keep(&name).await.map_err(failed(partition))?;
        let file: Arc<dyn IdFile> = Arc::new(RunFile(file));
        if !locked(state).engine.id_run_saved(run.name(), &file) {
            unneeded.push(run.name().to_owned());
        }
    }
    Ok(unneeded)
}

/// Writes a file aside, durable and whole, and opens it.
fn write(path: &Path, content: &[u8]) -> io::Result<File> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let aside = path.with_extension("aside");
    let mut file = File::create(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    File::open(folder)?.sync_all()?;
    File::open(path)
}

/// Removes the runs that no checkpoint needs any longer, after one without them was written. A failure
/// leaves a file behind, which [`remove_orphans`] finds.
pub(super) async fn remove_dropped(objects: &dyn Objects, partition: u32, names: Vec<String>) {
    for name in names {
        if let Err(error) = objects.remove(&object(partition, &name)).await {
            tracing::debug!(
                partition,
                error = &error as &dyn std::error::Error,
                "a run of ids was not removed"
            );
        }
    }
}

/// Removes old runs that the partition's state does not have: those of processes that ended before
/// they removed them.
pub(super) async fn remove_orphans(
    objects: &dyn Objects,
    partition: u32,
    needed: &HashSet<String>,
    now: Timestamp,
) {
    let Ok(listed) = objects.list(&folder(partition)).await else { return };
    for found in listed {
        let run = found.name.rsplit('/').next().unwrap_or_default();
        if !needed.contains(run) && now.since(found.modified) > ORPHANED_AFTER {
            remove_dropped(objects, partition, vec![run.to_owned()]).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unneeded_is_removed_later_and_once() {
        let mut unneeded = Unneeded::default();
        let at = |secs: i64| Timestamp(secs * 1_000_000);
        unneeded.add(vec!["a".into(), "b".into()], at(0));
        unneeded.add(vec!["c".into()], at(500));
        assert_eq!(unneeded.due(at(600)), Vec::<String>::new());
        assert_eq!(unneeded.due(at(601)), ["a", "b"]);
        assert_eq!(unneeded.due(at(1_100)), Vec::<String>::new());
        assert_eq!(unneeded.due(at(1_101)), ["c"]);
    }

    #[tokio::test]
    async fn a_run_is_read_as_it_was_written_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids/3/run");
        let content = Engine::new(3, 1, 1, Vec::new()).checkpoint(0);
        let file = write(&path, &content).unwrap();
        let mut start = [0; 4];
        RunFile(file).read_at(1, &mut start).unwrap();
        assert_eq!(start, content[1..5]);
        assert_eq!(std::fs::read(&path).unwrap(), content);
        let error = read(path).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "it is no run");
    }
}
