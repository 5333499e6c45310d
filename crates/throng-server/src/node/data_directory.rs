//! Whether the data directory is still the one that was opened. A node whose directory was removed
//! or replaced goes on writing into files that no longer have a name: all of it would be lost at its
//! end. So it takes no more work from the moment that it sees this.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{Health, ProblemClass};

/// How often to look.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The directory and its lock file as they were when the node took them.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    directory: FileId,
    lock: FileId,
}

/// What a file is known by, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(facts: &Metadata) -> Self {
        Self { device: facts.dev(), inode: facts.ino() }
    }

    fn at(path: &Path) -> std::io::Result<Self> {
        std::fs::metadata(path).map(|facts| Self::of(&facts))
    }
}

/// What a look at the directory says.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// It is the one that was opened.
    Same,
    /// It is not: for good, whatever lies there later.
    Lost(String),
    /// The system does not tell. It may in a moment.
    Unknown(String),
}

impl DataDirectory {
    /// Remembers the directory whose lock was just taken.
    pub(super) fn opened(path: &Path) -> std::io::Result<Self> {
        let directory = FileId::at(path)?;
        let lock = FileId::at(&lock_file(path))?;
        Ok(Self { path: path.to_owned(), directory, lock })
    }

    fn look(&self) -> Finding {
        let lock = lock_file(&self.path);
        for (path, opened) in [(&self.path, self.directory), (&lock, self.lock)] {
            match FileId::at(path) {
                Ok(found) if found == opened => {}
                Ok(_) => return Finding::Lost(format!("{} was replaced", path.display())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Finding::Lost(format!("{} was removed", path.display()));
                }
                Err(error) => {
                    return Finding::Unknown(format!("cannot look at {}: {error}", path.display()));
                }
            }
        }
        Finding::Same
    }

    /// Looks until `stop`, or until the directory is lost: reports that and cancels `lost`.
    pub(super) async fn watch(
        self,
        health: &Health,
        lost: &CancellationToken,
        stop: &CancellationToken,
    ) {
        loop {
            match self.look() {
                Finding::Same => health.clear(ProblemClass::DataDirectory, ""),
                Finding::Unknown(why) => health.report(ProblemClass::DataDirectory, "", why),
                Finding::Lost(why) => {
                    tracing::error!(why, "the data directory is lost: the node takes no more work");
                    let detail = format!(
                        "{why} while the node was up: it takes no more work. Stop it, put the \
                         directory back or restore it from a backup, and start it again"
                    );
                    health.report(ProblemClass::DataDirectory, "", detail);
                    lost.cancel();
                    return;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }
}

fn lock_file(directory: &Path) -> PathBuf {
    directory.join(super::lock::LOCK_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_removed_or_replaced_is_lost() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let make = || {
            std::fs::create_dir(&path).unwrap();
            std::fs::write(lock_file(&path), "").unwrap();
        };
        make();
        let opened = DataDirectory::opened(&path).unwrap();
        assert_eq!(opened.look(), Finding::Same);
        std::fs::rename(&path, parent.path().join("aside")).unwrap();
        assert!(matches!(opened.look(), Finding::Lost(why) if why.ends_with("was removed")));
        make();
        assert!(matches!(opened.look(), Finding::Lost(why) if why.ends_with("was replaced")));

        let opened = DataDirectory::opened(&path).unwrap();
        std::fs::remove_file(lock_file(&path)).unwrap();
        assert!(matches!(opened.look(), Finding::Lost(_)));
    }
}
