//! The data directory: its mode, and checks that it is still the one that was opened. A node whose directory was
//! removed or replaced keeps writing to files that no longer have a name: everything would be lost
//! when it stops. So it accepts no more work as soon as it detects this.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use throng_spec::{LedgerSettings, LogSettings, NodeSettings, ObjectsSettings};
use tokio_util::sync::CancellationToken;

use crate::error::BackendError;
use crate::lock::LOCK_FILE;
use crate::reporter::{BackendProblem, BackendReporter};

/// How often the directory is inspected.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Creates the data directory, readable by its owner only: it holds the admin token and data about
/// users.
///
/// # Errors
/// [`BackendError::Io`].
pub fn create_data_dir(dir: &Path) -> Result<(), BackendError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| match error.kind() {
            // Of a file: the system says only that it exists.
            ErrorKind::AlreadyExists => std::io::Error::from(ErrorKind::NotADirectory),
            _ => error,
        })
        .map_err(BackendError::io("create the data directory", dir.display()))?;
    let mode = std::fs::metadata(dir)
        .map_err(BackendError::io("read the mode of the data directory", dir.display()))?
        .permissions()
        .mode();
    if mode & 0o077 != 0
        && let Err(error) = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
    {
        // A volume of Kubernetes may belong to another user; the files in it are this node's.
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            dir = %dir.display(),
            "data directory is accessible to other users, and its mode cannot be changed"
        );
    }
    Ok(())
}

/// The directory and its lock file as they were when the node took them, and the files that stay open while it runs.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    directory: FileId,
    lock: FileId,
    /// The ledger, the lock of the event log and the folder of objects, if they are in the directory: the node may have
    /// yet to create them.
    kept: Vec<PathBuf>,
    /// Those of them that exist since the directory is watched.
    parts: Vec<(PathBuf, FileId)>,
    /// The write-ahead log of the ledger, if that is in the directory.
    wal: Option<PathBuf>,
    /// The file that this was at the last inspection.
    wal_file: Option<OpenedFile>,
}

/// The identity of a file, independent of its name.
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

/// The identity of a file that may no longer have a name. A file system gives the number of a removed file to another
/// one, so the time of creation belongs to it, where the system knows that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OpenedFile {
    id: FileId,
    created: Option<SystemTime>,
}

impl OpenedFile {
    fn at(path: &Path) -> std::io::Result<Self> {
        let facts = std::fs::metadata(path)?;
        Ok(Self { id: FileId::of(&facts), created: facts.created().ok() })
    }

    /// Whether this process has it open, whatever its name is now. `false` on a system that does not tell.
    fn is_open(self) -> bool {
        let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else { return false };
        // The metadata of such an entry are those of the file, also if it was removed.
        descriptors.flatten().any(|entry| Self::at(&entry.path()).is_ok_and(|open| open == self))
    }
}

/// The state of the directory, compared with the opened one.
#[derive(Debug, PartialEq, Eq)]
enum DirectoryState {
    /// It is the one that was opened.
    Same,
    /// It was removed or replaced. This is final, even if the directory is put back: what was
    /// written in between is not in it.
    Lost(String),
    /// It cannot be inspected now; the next inspection may succeed.
    Unknown(String),
}

impl DataDirectory {
    /// Remembers the directory whose lock was just taken. `node`: where its ledger, its event log and its objects are.
    ///
    /// # Errors
    /// [`BackendError::Io`].
    pub fn opened(path: &Path, node: &NodeSettings) -> Result<Self, BackendError> {
        let failed = || BackendError::io("read the data directory", path.display());
        let directory = FileId::at(path).map_err(failed())?;
        let lock = FileId::at(&lock_file(path)).map_err(failed())?;
        let ledger = (node.ledger == LedgerSettings::Sqlite).then(|| path.join("ledger.db"));
        let log = (node.log == LogSettings::Files).then(|| lock_file(&path.join("log")));
        let objects = (node.objects == ObjectsSettings::Directory).then(|| path.join("objects"));
        let wal = ledger.as_ref().map(|_| path.join("ledger.db-wal"));
        let kept = ledger.into_iter().chain(log).chain(objects).collect();
        let path = path.to_owned();
        Ok(Self { path, directory, lock, kept, parts: Vec::new(), wal, wal_file: None })
    }

    /// Remembers the files that the node has opened since.
    fn remember_parts(&mut self) {
        let found =
            self.kept.iter().filter_map(|path| Some((path.clone(), FileId::at(path).ok()?)));
        self.parts = found.collect();
    }

    fn inspect(&mut self) -> DirectoryState {
        let lock = lock_file(&self.path);
        let own = [(&self.path, self.directory), (&lock, self.lock)];
        for (path, opened) in own.into_iter().chain(self.parts.iter().map(|(path, id)| (path, *id)))
        {
            match FileId::at(path) {
                Ok(found) if found == opened => {}
                Ok(_) => return DirectoryState::Lost(format!("{} was replaced", path.display())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return DirectoryState::Lost(format!("{} was removed", path.display()));
                }
                Err(error) => {
                    let reason = format!("cannot inspect {}: {error}", path.display());
                    return DirectoryState::Unknown(reason);
                }
            }
        }
        self.inspect_wal()
    }

    /// Commits since the last checkpoint are in the write-ahead log only. SQLite removes it itself when the last
    /// connection of this process is closed, and the next one makes another: so one that is no longer at its path is
    /// lost only if this process still has it open.
    fn inspect_wal(&mut self) -> DirectoryState {
        let Some(path) = &self.wal else { return DirectoryState::Same };
        let (found, what) = match OpenedFile::at(path) {
            Ok(found) => (Some(found), "replaced"),
            Err(error) if error.kind() == ErrorKind::NotFound => (None, "removed"),
            Err(error) => {
                let reason = format!("cannot inspect {}: {error}", path.display());
                return DirectoryState::Unknown(reason);
            }
        };
        match self.wal_file {
            Some(before) if found != self.wal_file && before.is_open() => {
                DirectoryState::Lost(format!("{} was {what}", path.display()))
            }
            _ => {
                self.wal_file = found;
                DirectoryState::Same
            }
        }
    }

    /// Inspects the directory until `stop`, or until it is lost: then reports that and cancels
    /// `lost`. Called when ledger and log are open.
    pub async fn watch(
        mut self,
        reporter: &dyn BackendReporter,
        lost: &CancellationToken,
        stop: &CancellationToken,
    ) {
        self.remember_parts();
        loop {
            match self.inspect() {
                DirectoryState::Same => reporter.clear(BackendProblem::DataDirectory, ""),
                DirectoryState::Unknown(reason) => {
                    reporter.report(BackendProblem::DataDirectory, "", reason);
                }
                DirectoryState::Lost(reason) => {
                    tracing::error!(reason, "data directory lost; no more work is accepted");
                    let detail = format!(
                        "{reason} while the node was running: it accepts no more work. Stop it, put \
                         the directory back or restore it from a backup, and start it again"
                    );
                    reporter.report(BackendProblem::DataDirectory, "", detail);
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
    directory.join(LOCK_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_no_data_directory() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("throng.yaml");
        std::fs::write(&file, "").unwrap();
        let refused = create_data_dir(&file).unwrap_err();
        let text = throng_model::with_causes(&refused);
        assert!(text.ends_with("not a directory"), "{text}");
        create_data_dir(&parent.path().join("data")).unwrap();
        create_data_dir(&parent.path().join("data")).unwrap();
    }

    #[test]
    fn a_directory_that_is_removed_or_replaced_is_lost() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let make = || {
            std::fs::create_dir(&path).unwrap();
            std::fs::write(lock_file(&path), "").unwrap();
        };
        make();
        let node = NodeSettings::default();
        let mut opened = DataDirectory::opened(&path, &node).unwrap();
        assert_eq!(opened.inspect(), DirectoryState::Same);
        std::fs::rename(&path, parent.path().join("aside")).unwrap();
        let lost = |state: DirectoryState, end: &str| match state {
            DirectoryState::Lost(reason) => reason.ends_with(end),
            _ => false,
        };
        assert!(lost(opened.inspect(), "was removed"));
        make();
        assert!(lost(opened.inspect(), "was replaced"));

        let mut opened = DataDirectory::opened(&path, &node).unwrap();
        std::fs::remove_file(lock_file(&path)).unwrap();
        assert!(matches!(opened.inspect(), DirectoryState::Lost(_)));
    }

    #[test]
    fn a_ledger_a_log_or_objects_that_are_removed_while_they_are_open_are_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, log) = (dir.path().join("ledger.db"), dir.path().join("log"));
        let objects = dir.path().join("objects");
        std::fs::write(lock_file(dir.path()), "").unwrap();
        let node = NodeSettings::default();
        for removed in [&ledger, &log, &objects] {
            let mut opened = DataDirectory::opened(dir.path(), &node).unwrap();
            std::fs::create_dir_all(&log).unwrap();
            std::fs::create_dir_all(&objects).unwrap();
            std::fs::write(&ledger, "").unwrap();
            std::fs::write(lock_file(&log), "").unwrap();
            opened.remember_parts();
            assert_eq!(opened.inspect(), DirectoryState::Same);
            std::fs::rename(removed, dir.path().join("aside")).unwrap();
            assert!(matches!(opened.inspect(), DirectoryState::Lost(_)), "{}", removed.display());
            std::fs::rename(dir.path().join("aside"), removed).unwrap();
            assert_eq!(opened.inspect(), DirectoryState::Same, "a rename and back loses nothing");
        }
        let secret = "env:LEDGER".parse().unwrap();
        let ledger_settings =
            LedgerSettings::Postgres { url: secret, connections: 1, insecure: false };
        let shared = NodeSettings { ledger: ledger_settings, ..node };
        let mut opened = DataDirectory::opened(dir.path(), &shared).unwrap();
        opened.remember_parts();
        std::fs::remove_file(&ledger).unwrap();
        assert_eq!(opened.inspect(), DirectoryState::Same, "it is not the ledger of this node");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_write_ahead_log_that_is_removed_is_lost_while_it_is_open_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(lock_file(dir.path()), "").unwrap();
        let wal = dir.path().join("ledger.db-wal");
        let open = std::fs::File::create(&wal).unwrap();
        let mut opened = DataDirectory::opened(dir.path(), &NodeSettings::default()).unwrap();
        assert_eq!(opened.inspect(), DirectoryState::Same);
        // As SQLite does when its last connection is closed.
        drop(open);
        std::fs::remove_file(&wal).unwrap();
        assert_eq!(opened.inspect(), DirectoryState::Same);

        let open = std::fs::File::create(&wal).unwrap();
        assert_eq!(opened.inspect(), DirectoryState::Same);
        std::fs::remove_file(&wal).unwrap();
        let removed = DirectoryState::Lost(format!("{} was removed", wal.display()));
        assert_eq!(opened.inspect(), removed);
        std::fs::write(&wal, "").unwrap();
        let replaced = DirectoryState::Lost(format!("{} was replaced", wal.display()));
        assert_eq!(opened.inspect(), replaced);
        drop(open);
    }
}
