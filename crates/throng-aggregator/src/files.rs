//! Files that a checkpoint names, as objects: written once, named by their content, and removed some time
//! after the last checkpoint that names them was replaced.

use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use throng_model::Timestamp;
use throng_objects::{ObjectMeta, Objects};

/// Files that no checkpoint names are removed at this age: a younger one may belong to a checkpoint that is
/// about to be written.
const ORPHAN_AGE: Duration = Duration::from_secs(2 * 24 * 3600);

/// Files that no checkpoint of this process names any longer are removed after this delay: a standby
/// replica that lags may be promoted and write a checkpoint that names them, and a backup may be reading
/// them.
const REMOVAL_DELAY: Duration = Duration::from_secs(600);

/// An error of the object storage or of the disk.
pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Objects that the state no longer needs, each with the time since when.
#[derive(Debug, Default)]
pub(super) struct UnneededFiles(Vec<(Timestamp, String)>);

impl UnneededFiles {
    pub(super) fn add(&mut self, objects: impl IntoIterator<Item = String>, now: Timestamp) {
        self.0.extend(objects.into_iter().map(|object| (now, object)));
    }

    /// Takes those whose removal is due.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<String> {
        let is_due = |(since, _): &mut (Timestamp, String)| now.since(*since) > REMOVAL_DELAY;
        self.0.extract_if(.., is_due).map(|(_, object)| object).collect()
    }
}

/// Runs disk I/O outside of the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Reads an object through its local copy.
pub(super) async fn load<T: Send + 'static>(
    objects: &dyn Objects,
    object: &str,
    read: fn(&Path) -> io::Result<T>,
) -> Result<T, BoxError> {
    let path = objects.download(object).await?;
    match blocking(move || read(&path)).await {
        Ok(content) => Ok(content),
        // The local copy may be damaged while the object is intact.
        Err(_) => {
            let path = objects.download_again(object).await?;
            Ok(blocking(move || read(&path)).await?)
        }
    }
}

/// Writes an object, and opens its file.
pub(super) async fn store(
    objects: &dyn Objects,
    object: &str,
    content: Arc<Vec<u8>>,
) -> Result<File, BoxError> {
    let path = objects.root().join(object);
    let file = blocking(move || write(&path, &content)).await?;
    // Before any checkpoint names it: a file that only this disk has could not be read by the next
    // leader.
    objects.upload(object).await?;
    Ok(file)
}

/// Writes a file under another name, syncs it, renames it and opens it, so that a crash leaves no part of
/// it under its own name.
fn write(path: &Path, content: &[u8]) -> io::Result<File> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let aside = path.with_extension("aside");
    let mut file = File::create(&aside)?;
    file.write_all(content)?;
    // Before the rename: after a loss of power the name could refer to a file without contents.
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    // The entry of the folder too: otherwise the file may be missing after a loss of power,
    // although a checkpoint names it.
    File::open(folder)?.sync_all()?;
    File::open(path)
}

/// Removes objects that no checkpoint names any longer. To be called after a checkpoint without them was
/// written. If it fails, the file is left to [`remove_orphans`].
pub(super) async fn remove(objects: &dyn Objects, names: Vec<String>) {
    for name in names {
        if let Err(error) = objects.remove(&name).await {
            tracing::debug!(
                object = name.as_str(),
                error = &error as &dyn Error,
                "failed to remove an unneeded file"
            );
        }
    }
}

/// Removes old files of a folder that the partition's state does not need: those that a process left which
/// ended before it removed them.
pub(super) async fn remove_orphans(
    objects: &dyn Objects,
    folder: &str,
    needed: &HashSet<String>,
    now: Timestamp,
) {
    // Only a clean-up: a store that cannot list its objects must not keep the partition from being
    // opened.
    let Ok(listed) = objects.list(folder).await else { return };
    let is_old = |found: &ObjectMeta| now.since(found.modified) > ORPHAN_AGE;
    let orphans = listed.into_iter().filter(|found| !needed.contains(&found.name) && is_old(found));
    remove(objects, orphans.map(|found| found.name).collect()).await;
}

#[cfg(test)]
mod tests {
    use throng_objects::DirectoryObjects;

    use super::*;

    #[test]
    fn unneeded_files_are_removed_once_and_after_a_delay() {
        let mut unneeded = UnneededFiles::default();
        let at = |secs: i64| Timestamp(secs * 1_000_000);
        unneeded.add(["a".to_owned(), "b".to_owned()], at(0));
        unneeded.add(["c".to_owned()], at(500));
        assert_eq!(unneeded.due(at(600)), Vec::<String>::new());
        assert_eq!(unneeded.due(at(601)), ["a", "b"]);
        assert_eq!(unneeded.due(at(1_100)), Vec::<String>::new());
        assert_eq!(unneeded.due(at(1_101)), ["c"]);
    }

    #[tokio::test]
    async fn a_file_is_read_as_it_was_written_and_removed_when_unneeded() {
        let dir = tempfile::tempdir().unwrap();
        let objects = DirectoryObjects::open(dir.path().to_owned()).unwrap();
        let stored = store(&objects, "ids/3/a", Arc::new(b"content".to_vec())).await;
        stored.unwrap();
        store(&objects, "ids/3/b", Arc::new(b"other".to_vec())).await.unwrap();
        let read = |path: &Path| std::fs::read(path);
        assert_eq!(load(&objects, "ids/3/a", read).await.unwrap(), b"content");
        let missing = load(&objects, "ids/3/c", read).await.unwrap_err();
        assert!(missing.is::<throng_objects::ObjectsError>(), "{missing}");
        let needed = HashSet::from(["ids/3/a".to_owned()]);
        let written = objects.list("ids/3").await.unwrap()[1].modified;
        remove_orphans(&objects, "ids/3", &needed, written.plus(ORPHAN_AGE)).await;
        assert_eq!(objects.list("ids/3").await.unwrap().len(), 2);
        let later = written.plus(ORPHAN_AGE + Duration::from_secs(1));
        remove_orphans(&objects, "ids/3", &needed, later).await;
        let left = objects.list("ids/3").await.unwrap();
        assert_eq!(left.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["ids/3/a"]);
    }
}
