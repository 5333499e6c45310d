//! Reads the files of a data directory for a backup.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use throng_aggregator::{BudgetsError, checkpoint_objects, checkpoint_offset};
use throng_log::{EventLog as _, FileLog};
use throng_spec::{LogSettings, ObjectsSettings, Spec};
use throng_store::AppliedSpec;

use crate::archive::BackupWriter;
use crate::error::BackupError;
use crate::files::{LEDGER, LOG, OBJECTS, Progress, failed};
use crate::manifest::{FileEntry, PartitionRange};

/// The folder of checkpoints among the objects.
const CHECKPOINTS: &str = "checkpoints";
/// The folder of the lists of quarantined records among the objects.
const QUARANTINE: &str = "quarantine";

/// Refuses a node whose log or objects are not in the data directory: a copy of the rest could not
/// be restored.
pub(crate) fn refuse_shared(applied: Option<AppliedSpec>) -> Result<(), BackupError> {
    // With a spec that this version cannot read, the backup copies what the directory holds.
    let spec = applied.and_then(|applied| serde_json::from_value::<Spec>(applied.spec).ok());
    match spec {
        Some(spec) if !matches!(spec.node.objects, ObjectsSettings::Directory) => {
            Err(BackupError::Shared { what: "objects" })
        }
        Some(spec) if !matches!(spec.node.log, LogSettings::Files) => {
            Err(BackupError::Shared { what: "event log" })
        }
        _ => Ok(()),
    }
}

/// Removes a file if it exists.
pub(crate) fn remove(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Opens a file, and returns its length; `None` if it does not exist.
fn open(path: &Path) -> Result<Option<(File, u64)>, BackupError> {
    let opened = File::open(path).and_then(|file| {
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    });
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", path)(error)),
    }
}

/// The files that were copied so far, over all rounds. Objects are immutable, so the copy of an
/// earlier round stays valid.
pub(crate) struct CopiedFiles {
    data_dir: PathBuf,
    progress: Progress,
    done: u64,
    total: u64,
    copied: HashSet<String>,
    missing_last_round: HashSet<String>,
    pub(crate) entries: Vec<FileEntry>,
}

impl CopiedFiles {
    pub(crate) fn new(data_dir: &Path, progress: Progress) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            progress,
            done: 0,
            total: 0,
            copied: HashSet::new(),
            missing_last_round: HashSet::new(),
            entries: Vec::new(),
        }
    }

    fn add(
        &mut self,
        writer: &mut BackupWriter,
        name: &str,
        source: &Path,
        (file, bytes): (File, u64),
    ) -> Result<(), BackupError> {
        let (progress, mut done, total) = (self.progress.clone(), self.done, self.total);
        let mut on_read = |read: u64| {
            done += read;
            progress(done, total.max(done));
        };
        let entry = writer.add(name, source, file, bytes, &mut on_read)?;
        self.done = done;
        self.entries.push(entry);
        Ok(())
    }

    /// Copies the named objects that were not copied before. `false` if one does not exist:
    /// retention may have removed it, and a newer copy of the ledger does not name it then. An
    /// object that is missing in two consecutive rounds is lost.
    pub(crate) fn objects(
        &mut self,
        writer: &mut BackupWriter,
        names: &[String],
    ) -> Result<bool, BackupError> {
        let root = self.data_dir.join(OBJECTS);
        let wanted: Vec<&String> =
            names.iter().filter(|name| !self.copied.contains(*name)).collect();
        let sizes = wanted.iter().map(|name| fs::metadata(root.join(name)).map_or(0, |m| m.len()));
        self.total = self.done + sizes.sum::<u64>() + rest_bytes(&self.data_dir);
        let mut missing = HashSet::new();
        for name in wanted {
            let path = root.join(name);
            match open(&path)? {
                Some(opened) => {
                    self.add(writer, &format!("{OBJECTS}/{name}"), &path, opened)?;
                    self.copied.insert(name.clone());
                }
                None if self.missing_last_round.contains(name) => {
                    return Err(BackupError::Missing { name: name.clone(), dir: root });
                }
                None => {
                    missing.insert(name.clone());
                }
            }
        }
        let complete = missing.is_empty();
        self.missing_last_round = missing;
        Ok(complete)
    }

    /// Adds the copy of the ledger, and the captured files.
    pub(crate) fn rest(
        &mut self,
        writer: &mut BackupWriter,
        ledger: &Path,
        captured: CapturedFiles,
    ) -> Result<(), BackupError> {
        let copy =
            open(ledger)?.ok_or_else(|| BackupError::NoLedger { path: ledger.to_owned() })?;
        let captured_bytes: u64 = captured.files.iter().map(|(_, _, (_, bytes))| bytes).sum();
        self.total = self.done + copy.1 + captured_bytes;
        self.add(writer, LEDGER, ledger, copy)?;
        for (name, path, opened) in captured.files {
            self.add(writer, &name, &path, opened)?;
        }
        Ok(())
    }
}

/// The current size of ledger, checkpoints and log, for the progress.
fn rest_bytes(data_dir: &Path) -> u64 {
    fn below(path: &Path) -> u64 {
        match fs::metadata(path) {
            Ok(facts) if facts.is_dir() => {
                let entries = fs::read_dir(path).into_iter().flatten().flatten();
                entries.map(|entry| below(&entry.path())).sum()
            }
            Ok(facts) => facts.len(),
            Err(_) => 0,
        }
    }
    below(&data_dir.join(LEDGER))
        + below(&data_dir.join(OBJECTS).join(CHECKPOINTS))
        + below(&data_dir.join(LOG))
}

/// Checkpoints and log of one moment, as open files: what the node deletes or replaces later stays
/// readable.
pub(crate) struct CapturedFiles {
    /// Name in the backup, path, open file with its length at that moment.
    files: Vec<(String, PathBuf, (File, u64))>,
    pub(crate) ranges: Vec<PartitionRange>,
}

impl CapturedFiles {
    /// Opens the checkpoints, then the log. In the other order a checkpoint could be ahead of the
    /// copied log, and a node refuses to start with that. `None` if the log was truncated past a
    /// checkpoint in between: the next round finds a newer checkpoint.
    pub(crate) fn open(data_dir: &Path) -> Result<Option<Self>, BackupError> {
        let log_dir = data_dir.join(LOG);
        let mut captured = Self { files: Vec::new(), ranges: Vec::new() };
        let Some(partitions) = FileLog::partitions_in(&log_dir)? else { return Ok(Some(captured)) };
        let folder = data_dir.join(OBJECTS).join(CHECKPOINTS);
        let mut offsets = Vec::new();
        for partition in 0..partitions {
            let path = folder.join(partition.to_string());
            let Some((mut file, bytes)) = open(&path)? else {
                offsets.push(None);
                continue;
            };
            let mut content = Vec::new();
            let read = file.read_to_end(&mut content).and_then(|_| file.rewind());
            read.map_err(failed("read", &path))?;
            let damaged = |error: BudgetsError| {
                let why = throng_model::with_causes(&error);
                BackupError::DamagedCheckpoint { partition, why }
            };
            let offset = checkpoint_offset(&content, partition).map_err(damaged)?;
            for object in checkpoint_objects(&content, partition).map_err(damaged)? {
                let name = format!("{OBJECTS}/{object}");
                let path = data_dir.join(&name);
                // Removed, so a later checkpoint that does not need it has been written.
                let Some(opened) = open(&path)? else { return Ok(None) };
                captured.files.push((name, path, opened));
            }
            offsets.push(Some(offset));
            let name = format!("{OBJECTS}/{CHECKPOINTS}/{partition}");
            captured.files.push((name, path, (file, bytes)));
        }
        // The quarantined records of a partition; usually there are none.
        for partition in 0..partitions {
            let name = format!("{OBJECTS}/{QUARANTINE}/{partition}");
            let path = data_dir.join(&name);
            if let Some(opened) = open(&path)? {
                captured.files.push((name, path, opened));
            }
        }
        let ends = ends(&log_dir, partitions)?;
        let count = log_dir.join("partitions");
        let opened = open(&count)?.ok_or_else(|| failed("open", &count)(not_found()))?;
        captured.files.push((format!("{LOG}/partitions"), count, opened));
        for ((partition, checkpoint), end) in (0..partitions).zip(offsets).zip(ends) {
            let Some(start) = captured.segments(&log_dir, partition)? else { return Ok(None) };
            let checkpointed = checkpoint.unwrap_or(0);
            if checkpointed < start {
                return Ok(None);
            }
            if checkpointed > end {
                let checkpoint = checkpointed;
                return Err(BackupError::Checkpoint { partition, checkpoint, start, end });
            }
            captured.ranges.push(PartitionRange { partition, start, end, checkpoint });
        }
        Ok(Some(captured))
    }

    /// Opens the segments of a partition, and returns its first offset. `None` if a segment was
    /// deleted after it was listed.
    fn segments(&mut self, log_dir: &Path, partition: u32) -> Result<Option<u64>, BackupError> {
        let folder = log_dir.join(partition.to_string());
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed("list", &folder))? {
            let entry = entry.map_err(failed("list", &folder))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let first = name.strip_suffix(".log").and_then(|digits| digits.parse::<u64>().ok());
            if let Some(first) = first {
                names.push((first, name));
            }
        }
        names.sort_unstable();
        let start = names.first().map_or(0, |(first, _)| *first);
        for (_, name) in names {
            let path = folder.join(&name);
            let Some(opened) = open(&path)? else { return Ok(None) };
            self.files.push((format!("{LOG}/{partition}/{name}"), path, opened));
        }
        Ok(Some(start))
    }
}

/// The next offset of each partition, read before the segments are opened: the copy has at least
/// the events before it.
fn ends(log_dir: &Path, partitions: u32) -> Result<Vec<u64>, BackupError> {
    let log = FileLog::open_read_only(log_dir)?;
    let handle = tokio::runtime::Handle::current();
    (0..partitions).map(|partition| Ok(handle.block_on(log.end(partition))?)).collect()
}

fn not_found() -> io::Error {
    io::Error::from(ErrorKind::NotFound)
}
