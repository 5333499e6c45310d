//! The log in segment files: `<folder>/<partition>/<first offset>.log`.

mod disk;
mod partition;
mod record;
mod repair;
mod segment;
mod tail;
mod tail_buffer;
mod writer;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use throng_model::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::{EventLog, LogError, Record, Result, Retention, Tail};
use partition::FilePartition;
use tail::FileTail;
use writer::{Append, Request, Writer};

pub use disk::{Disk, DiskSpace, MinFreeDisk, SystemDisk};
pub use repair::{RemovedRange, repair_log};

use record::SEGMENT_HEADER;

pub use record::MAX_RECORD_BYTES;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use record::fix_checksums as fix_segment_checksums;

/// A segment of this size is closed, and the next commit starts a new one.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// The largest number of partitions: each one has a thread.
const MAX_PARTITIONS: u32 = 256;

/// Appends that wait for the thread of a partition. When there are more, `append` waits.
const MAX_QUEUED_APPENDS: usize = 4096;

/// How a log is opened for writing.
#[derive(Debug, Clone)]
pub struct FileLogOptions {
    /// The number of partitions, 1 to 256; fixed when the log is created.
    pub partitions: u32,
    /// A segment of this size is closed, and the next commit starts a new one.
    pub segment_bytes: u64,
    /// The free space of the disk below which appends are refused.
    pub min_free_disk: MinFreeDisk,
    /// The disk.
    pub disk: Arc<dyn Disk>,
}

impl FileLogOptions {
    /// The defaults: segments of 64 MiB, and no required free space.
    pub fn new(partitions: u32) -> Self {
        Self {
            partitions,
            segment_bytes: SEGMENT_BYTES,
            min_free_disk: MinFreeDisk::Bytes(0),
            disk: Arc::new(SystemDisk),
        }
    }
}

/// A log in a folder of the local disk. One process writes it; others may open it for reading.
/// Drop blocks until queued appends are written.
#[derive(Debug)]
pub struct FileLog {
    partitions: Vec<PartitionHandle>,
    read_only: bool,
    // Declared last, so that it is released last: `drop` joins the writer threads first, and no other
    // process may write before they have ended.
    _lock: Option<LogLock>,
}

#[derive(Debug)]
struct PartitionHandle {
    partition: Arc<FilePartition>,
    /// `None` in a log that is open for reading.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl FileLog {
    /// Opens the log in `dir` for writing; creates it if there is none. Reads the newest segment of
    /// each partition (at most 64 MiB each), truncates the torn end of a write that was never
    /// acknowledged, and starts a thread for each partition. Blocks.
    ///
    /// # Errors
    /// [`LogError::Locked`] if another process writes it, [`LogError::Partitions`] if it has another
    /// number of partitions (or the requested number is not 1 to 256), [`LogError::Damaged`] if an
    /// acknowledged record is broken or a segment is missing, [`LogError::Io`].
    pub fn open(dir: &Path, partitions: u32) -> Result<Self> {
        Self::open_with(dir, FileLogOptions::new(partitions))
    }

    /// [`FileLog::open`] with other options.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with(dir: &Path, options: FileLogOptions) -> Result<Self> {
        let partitions = options.partitions;
        std::fs::create_dir_all(dir).map_err(LogError::io("create the folder", dir))?;
        // Before anything is read: another writer would append while the end of the log is determined, and
        // its unfinished write would be truncated as a torn one.
        let lock = lock(dir)?;
        match Self::partitions_in(dir)? {
            Some(found) if found != partitions => {
                return Err(LogError::Partitions {
                    dir: dir.to_owned(),
                    found,
                    wanted: partitions,
                });
            }
            None if partitions == 0 || partitions > MAX_PARTITIONS => {
                return Err(LogError::Partitions {
                    dir: dir.to_owned(),
                    found: partitions.clamp(1, MAX_PARTITIONS),
                    wanted: partitions,
                });
            }
            Some(found) => check_folders(dir, found)?,
            None => write_partition_count(dir, partitions)?,
        }
        let mut handles = Vec::new();
        for number in 0..partitions {
            handles.push(open_partition(dir, number, &options)?);
        }
        Ok(Self { partitions: handles, read_only: false, _lock: Some(lock) })
    }

    /// Opens the log in `dir` for reading, also while another process writes it. Records can be read
    /// as soon as they are written, which may be shortly before they are durable.
    ///
    /// # Errors
    /// [`LogError::Io`] if there is no log; [`LogError::Damaged`].
    pub fn open_read_only(dir: &Path) -> Result<Self> {
        let count = Self::partitions_in(dir)?.ok_or_else(|| {
            LogError::io("find an event log in", dir)(io::Error::from(io::ErrorKind::NotFound))
        })?;
        let handles = (0..count)
            .map(|number| PartitionHandle {
                partition: Arc::new(FilePartition::new(dir, number)),
                requests: None,
                thread: None,
            })
            .collect();
        Ok(Self { partitions: handles, read_only: true, _lock: None })
    }

    /// The number of partitions of the log in `dir`; `None` if there is no log.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Damaged`].
    pub fn partitions_in(dir: &Path) -> Result<Option<u32>> {
        let path = dir.join("partitions");
        match throng_fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(count) if (1..=MAX_PARTITIONS).contains(&count) => Ok(Some(count)),
                _ => Err(LogError::Damaged { path, position: 0, why: "it is not a number" }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io("read", &path)(error)),
        }
    }

    fn handle(&self, partition: u32) -> Result<&PartitionHandle> {
        self.partitions.get(partition as usize).ok_or(LogError::NoSuchPartition {
            partition,
            partitions: self.partitions.len() as u32,
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        partition: u32,
        call: impl FnOnce(&FilePartition) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let partition = Arc::clone(&self.handle(partition)?.partition);
        let read_only = self.read_only;
        tokio::task::spawn_blocking(move || {
            // Another process appends, and its changes are only in the files.
            if read_only {
                partition.reload()?;
            }
            call(&partition)
        })
        .await
        .map_err(|_| LogError::Closed)?
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        for handle in &mut self.partitions {
            // The writer thread ends when the channel is closed and empty. All channels are closed before
            // the first join, so that the threads finish their appends concurrently.
            handle.requests = None;
        }
        for thread in self.partitions.iter_mut().filter_map(|h| h.thread.take()) {
            if thread.join().is_err() {
                tracing::error!("event log thread panicked");
            }
        }
    }
}

#[async_trait]
impl EventLog for FileLog {
    fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    fn is_exclusive(&self) -> bool {
        // By the lock of the folder.
        !self.read_only
    }

    async fn append(&self, partition: u32, at: Timestamp, values: Vec<Bytes>) -> Result<u64> {
        let handle = self.handle(partition)?;
        if let Some(large) = values.iter().find(|v| v.len() > MAX_RECORD_BYTES) {
            return Err(LogError::RecordTooLarge { bytes: large.len(), limit: MAX_RECORD_BYTES });
        }
        let requests = handle.requests.as_ref().ok_or(LogError::ReadOnly)?;
        // Through the thread of the partition: it orders the appends, and one sync makes all of them durable
        // that wait at the same time. With a sync for each, the disk would limit their number per second.
        let (reply, result) = oneshot::channel();
        let append = Request::Append(Append { at, values, reply });
        requests.send(append).await.map_err(|_| LogError::Closed)?;
        result.await.map_err(|_| LogError::Closed)?
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Record>> {
        self.blocking(partition, move |p| p.read(from, max_bytes)).await
    }

    async fn tail(&self, partition: u32, from: u64) -> Result<Box<dyn Tail>> {
        let first = self.start(partition).await?;
        if from < first {
            return Err(LogError::OffsetOutOfRange { partition, wanted: from, first });
        }
        let partition = Arc::clone(&self.handle(partition)?.partition);
        Ok(Box::new(FileTail::new(partition, self.read_only, from)))
    }

    async fn start(&self, partition: u32) -> Result<u64> {
        self.blocking(partition, |p| Ok(p.view().segments.first().map_or(0, |s| s.base))).await
    }

    async fn end(&self, partition: u32) -> Result<u64> {
        self.blocking(partition, |p| Ok(p.view().segments.last().map_or(0, |s| s.end))).await
    }

    async fn truncate_before(&self, partition: u32, offset: u64) -> Result<()> {
        if self.read_only {
            return Err(LogError::ReadOnly);
        }
        self.blocking(partition, move |p| p.truncate_before(offset)).await
    }

    async fn retain(
        &self,
        partition: u32,
        retention: Retention,
        before: u64,
        now: Timestamp,
    ) -> Result<()> {
        if self.read_only {
            return Err(LogError::ReadOnly);
        }
        self.blocking(partition, move |p| p.retain(retention, before, now)).await
    }

    async fn skip_to(&self, partition: u32, offset: u64) -> Result<bool> {
        // Through the same channel as appends: an append before it keeps the lower offset.
        let requests = self.handle(partition)?.requests.as_ref().ok_or(LogError::ReadOnly)?;
        let (reply, result) = oneshot::channel();
        requests.send(Request::SkipTo { offset, reply }).await.map_err(|_| LogError::Closed)?;
        result.await.map_err(|_| LogError::Closed)?.map(|()| true)
    }
}

fn open_partition(dir: &Path, number: u32, options: &FileLogOptions) -> Result<PartitionHandle> {
    let partition = Arc::new(FilePartition::new(dir, number));
    let file = partition.open(dir, &*options.disk)?;
    let (sender, receiver) = mpsc::channel(MAX_QUEUED_APPENDS);
    let writer = Writer {
        partition: Arc::clone(&partition),
        file,
        segment_bytes: options.segment_bytes,
        disk: Arc::clone(&options.disk),
        min_free_disk: options.min_free_disk,
        is_unverified: false,
        is_disk_low: false,
        refused_bytes: 0,
    };
    let thread = std::thread::Builder::new()
        .name(format!("log-{number}"))
        .spawn(move || writer.run(receiver))
        .map_err(LogError::io("start a thread for", &partition.folder))?;
    Ok(PartitionHandle { partition, requests: Some(sender), thread: Some(thread) })
}

/// The exclusive lock of the writing process.
#[derive(Debug)]
struct LogLock(File);

impl Drop for LogLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process between fork and exec has the descriptor too,
        // and the lock stays until the last copy is closed.
        let _ = self.0.unlock();
    }
}

fn lock(dir: &Path) -> Result<LogLock> {
    let path = dir.join("lock");
    // A lock of the operating system: it ends with the process, so that a crash leaves none behind.
    let open = throng_fs::open_lock(&path);
    let file = open.map_err(LogError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(LogLock(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(LogError::Locked { dir: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(error)) => Err(LogError::io("lock", &path)(error)),
    }
}

/// Checks that the number in the file `partitions` agrees with the folders. One flipped bit in that
/// file would assign ad groups to other partitions.
fn check_folders(dir: &Path, partitions: u32) -> Result<()> {
    let exists = |number: u32| dir.join(number.to_string()).is_dir();
    let found = (0..MAX_PARTITIONS).rfind(|number| exists(*number)).map_or(0, |n| n + 1);
    // Fewer folders without a record: the first start was interrupted.
    let has_records = || {
        let all = (0..found).map(|number| partition::segments_in(&dir.join(number.to_string())));
        let filled = all.map(|segments| {
            let segments = segments?;
            let has_record =
                |path: &Path| path.metadata().is_ok_and(|f| f.len() > SEGMENT_HEADER as u64);
            Ok(segments.len() > 1 || segments.iter().any(|segment| has_record(&segment.path)))
        });
        filled.collect::<Result<Vec<bool>>>().map(|all| all.contains(&true))
    };
    if found > partitions || (found < partitions && found > 0 && has_records()?) {
        let why = "it does not match the folders next to it, one for each partition";
        return Err(LogError::Damaged { path: dir.join("partitions"), position: 0, why });
    }
    Ok(())
}

fn write_partition_count(dir: &Path, partitions: u32) -> Result<()> {
    let (path, temporary) = (dir.join("partitions"), dir.join("partitions.tmp"));
    // Renamed when it is durable: after a crash the file must have the number or not exist. An empty one
    // would be damage, although the log is only new.
    let write = || -> io::Result<()> {
        std::fs::write(&temporary, format!("{partitions}\n"))?;
        File::open(&temporary)?.sync_all()?;
        std::fs::rename(&temporary, &path)
    };
    write().map_err(LogError::io("create", &path))?;
    sync_folder(dir)
}

fn sync_folder(folder: &Path) -> Result<()> {
    // fsync of a file does not make its entry in the folder durable (fsync(2)): after a loss of power a new
    // or renamed file may not be there.
    File::open(folder).and_then(|f| f.sync_all()).map_err(LogError::io("sync", folder))
}
