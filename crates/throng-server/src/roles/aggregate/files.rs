//! Files that a checkpoint needs besides itself, as objects: written once, named by their content, and removed
//! some time after no checkpoint names them.

use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use throng_model::Timestamp;
use throng_objects::{ObjectMeta, Objects};

/// Files that no checkpoint names are removed when they are this old: one that is younger may be of a
/// checkpoint that is about to be written.
const ORPHANED_AFTER: Duration = Duration::from_secs(2 * 24 * 3600);

/// Files that no checkpoint of this process names are removed after so long: another one that stands in for it
/// may be so far behind it and write a checkpoint with them, and a backup may be reading them.
const REMOVED_AFTER: Duration = Duration::from_secs(600);

/// What a store or a disk says.
pub(super) type Source = Box<dyn Error + Send + Sync>;

/// Objects that the state does not need any longer, each with the time at which that was noticed.
#[derive(Debug, Default)]
pub(super) struct Unneeded(Vec<(Timestamp, String)>);

impl Unneeded {
    pub(super) fn add(&mut self, objects: impl IntoIterator<Item = String>, now: Timestamp) {
        self.0.extend(objects.into_iter().map(|object| (now, object)));
    }

    /// Those that can be removed, once.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<String> {
        let is_due = |(noticed, _): &mut (Timestamp, String)| now.since(*noticed) > REMOVED_AFTER;
        self.0.extract_if(.., is_due).map(|(_, object)| object).collect()
    }
}

/// Does what waits for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Reads an object by way of its local copy.
pub(super) async fn load<T: Send + 'static>(
    objects: &dyn Objects,
    object: &str,
    read: fn(&Path) -> io::Result<T>,
) -> Result<T, Source> {
    let path = objects.download(object).await?;
    match blocking(move || read(&path)).await {
        Ok(content) => Ok(content),
        // The local copy may be damaged, and the object be whole.
        Err(_) => {
            let path = objects.fetch_again(object).await?;
            Ok(blocking(move || read(&path)).await?)
        }
    }
}

/// Writes an object, and opens its file.
pub(super) async fn store(
    objects: &dyn Objects,
    object: &str,
    content: Arc<Vec<u8>>,
) -> Result<File, Source> {
    let path = objects.root().join(object);
    let file = blocking(move || write(&path, &content)).await?;
    objects.upload(object).await?;
    Ok(file)
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

/// Removes objects that no checkpoint needs any longer, after one without them was written. A failure leaves
/// a file behind, which [`remove_orphans`] finds.
pub(super) async fn remove(objects: &dyn Objects, names: Vec<String>) {
    for name in names {
        if let Err(error) = objects.remove(&name).await {
            tracing::debug!(
                object = name.as_str(),
                error = &error as &dyn Error,
                "a file that no checkpoint needs was not removed"
            );
        }
    }
}

/// Removes old files of a folder that the partition's state does not need: those of processes that ended
/// before they removed them.
pub(super) async fn remove_orphans(
    objects: &dyn Objects,
    folder: &str,
    needed: &HashSet<String>,
    now: Timestamp,
) {
    let Ok(listed) = objects.list(folder).await else { return };
    let is_old = |found: &ObjectMeta| now.since(found.modified) > ORPHANED_AFTER;
    let orphans = listed.into_iter().filter(|found| !needed.contains(&found.name) && is_old(found));
    remove(objects, orphans.map(|found| found.name).collect()).await;
}

#[cfg(test)]
mod tests {
    use throng_objects::DirectoryObjects;

    use super::*;

    #[test]
    fn what_is_unneeded_is_removed_later_and_once() {
        let mut unneeded = Unneeded::default();
        let at = |secs: i64| Timestamp(secs * 1_000_000);
        unneeded.add(["a".to_owned(), "b".to_owned()], at(0));
        unneeded.add(["c".to_owned()], at(500));
        assert_eq!(unneeded.due(at(600)), Vec::<String>::new());
        assert_eq!(unneeded.due(at(601)), ["a", "b"]);
        assert_eq!(unneeded.due(at(1_100)), Vec::<String>::new());
        assert_eq!(unneeded.due(at(1_101)), ["c"]);
    }

    #[tokio::test]
    async fn a_file_is_read_as_it_was_written_and_removed_when_nobody_needs_it() {
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
        remove_orphans(&objects, "ids/3", &needed, written.plus(ORPHANED_AFTER)).await;
        assert_eq!(objects.list("ids/3").await.unwrap().len(), 2);
        let later = written.plus(ORPHANED_AFTER + Duration::from_secs(1));
        remove_orphans(&objects, "ids/3", &needed, later).await;
        let left = objects.list("ids/3").await.unwrap();
        assert_eq!(left.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["ids/3/a"]);
    }
}
