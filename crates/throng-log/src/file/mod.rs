//! The log in segment files: `<folder>/<partition>/<first offset>.log`.

mod disk;
mod partition;
mod record;
mod repair;
mod segment;
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
use partition::Partition;
use writer::{Append, Request, Writer};

pub use disk::{Disk, DiskFloor, DiskSpace, SystemDisk};
pub use repair::{SetAside, set_damage_aside};

use record::SEGMENT_HEAD;

pub use record::MAX_RECORD_BYTES;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use record::seal as seal_segment;

/// A segment is closed once it has this many bytes.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// The most partitions: each has a thread.
const MAX_PARTITIONS: u32 = 256;
/// A tail reads so much at a time.
const TAIL_BYTES: usize = 1 << 20;
/// And looks so often for what other processes append.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(50);
/// Appends that wait for a partition before callers are held up.
const QUEUE: usize = 4096;

/// How a log is opened for writing.
#[derive(Debug, Clone)]
pub struct FileLogOptions {
    /// How many partitions it has, 1 to 256; fixed when the log is made.
    pub partitions: u32,
    /// A segment is closed once it has this many bytes.
    pub segment_bytes: u64,
    /// With less room than this on the disk, appends are refused.
    pub floor: DiskFloor,
    /// The disk.
    pub disk: Arc<dyn Disk>,
}

impl FileLogOptions {
    /// The usual ones: segments of 64 MiB, and no floor.
    pub fn new(partitions: u32) -> Self {
        Self {
            partitions,
            segment_bytes: SEGMENT_BYTES,
            floor: DiskFloor::Bytes(0),
            disk: Arc::new(SystemDisk),
        }
    }
}

/// A log in a folder of the local disk. One process writes it; others may open it for reading.
/// Dropping it waits until what was appended is written.
#[derive(Debug)]
pub struct FileLog {
    partitions: Vec<Handle>,
    read_only: bool,
    // Given up last: nobody else may write before the threads are gone.
    _lock: Option<LogLock>,
}

#[derive(Debug)]
struct Handle {
    partition: Arc<Partition>,
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl FileLog {
    /// Opens the log in `dir` for writing; makes it if there is none. Reads the newest segment of
    /// each partition (at most 64 MiB each), cuts off the torn end of a write that was never
    /// acknowledged, and starts a thread for each partition. Blocks.
    ///
    /// # Errors
    /// [`LogError::Locked`] if somebody else writes it, [`LogError::Partitions`] if it has another
    /// number of partitions (or none or more than 256 are asked for), [`LogError::Damaged`] if an
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
        std::fs::create_dir_all(dir).map_err(LogError::io("make the folder", dir))?;
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
            None => write_count(dir, partitions)?,
        }
        let mut handles = Vec::new();
        for number in 0..partitions {
            handles.push(open_partition(dir, number, &options)?);
        }
        Ok(Self { partitions: handles, read_only: false, _lock: Some(lock) })
    }

    /// Opens the log in `dir` for reading, also while another process writes it. Sees records once
    /// they are written, which may be shortly before they are durable.
    ///
    /// # Errors
    /// [`LogError::Io`] if there is no log; [`LogError::Damaged`].
    pub fn open_read_only(dir: &Path) -> Result<Self> {
        let count = Self::partitions_in(dir)?.ok_or_else(|| {
            LogError::io("find an event log in", dir)(io::Error::from(io::ErrorKind::NotFound))
        })?;
        let handles = (0..count)
            .map(|number| Handle {
                partition: Arc::new(Partition::new(dir, number)),
                queue: None,
                thread: None,
            })
            .collect();
        Ok(Self { partitions: handles, read_only: true, _lock: None })
    }

    /// How many partitions the log in `dir` has; `None` if there is no log.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Damaged`].
    pub fn partitions_in(dir: &Path) -> Result<Option<u32>> {
        let path = dir.join("partitions");
        match std::fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(count) if (1..=MAX_PARTITIONS).contains(&count) => Ok(Some(count)),
                _ => Err(LogError::Damaged { path, position: 0, why: "it is not a number" }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io("read", &path)(error)),
        }
    }

    fn handle(&self, partition: u32) -> Result<&Handle> {
        self.partitions.get(partition as usize).ok_or(LogError::NoSuchPartition {
            partition,
            partitions: self.partitions.len() as u32,
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        partition: u32,
        work: impl FnOnce(&Partition) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let partition = Arc::clone(&self.handle(partition)?.partition);
        let read_only = self.read_only;
        tokio::task::spawn_blocking(move || {
            if read_only {
                partition.look_again()?;
            }
            work(&partition)
        })
        .await
        .map_err(|_| LogError::Closed)?
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        for handle in &mut self.partitions {
            handle.queue = None;
        }
        for thread in self.partitions.iter_mut().filter_map(|h| h.thread.take()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the event log panicked");
            }
        }
    }
}

#[async_trait]
impl EventLog for FileLog {
    fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    async fn append(&self, partition: u32, at: Timestamp, values: Vec<Bytes>) -> Result<u64> {
        let handle = self.handle(partition)?;
        if let Some(long) = values.iter().find(|v| v.len() > MAX_RECORD_BYTES) {
            return Err(LogError::TooLong { bytes: long.len(), limit: MAX_RECORD_BYTES });
        }
        let queue = handle.queue.as_ref().ok_or(LogError::ReadOnly)?;
        let (done, answer) = oneshot::channel();
        let append = Request::Append(Append { at, values, done });
        queue.send(append).await.map_err(|_| LogError::Closed)?;
        answer.await.map_err(|_| LogError::Closed)?
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Record>> {
        self.blocking(partition, move |p| p.read(from, max_bytes)).await
    }

    async fn tail(&self, partition: u32, from: u64) -> Result<Box<dyn Tail>> {
        let first = self.start(partition).await?;
        if from < first {
            return Err(LogError::Gone { partition, wanted: from, first });
        }
        let partition = Arc::clone(&self.handle(partition)?.partition);
        Ok(Box::new(FileTail { partition, read_only: self.read_only, next: from }))
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
        rule: Retention,
        before: u64,
        now: Timestamp,
    ) -> Result<()> {
        if self.read_only {
            return Err(LogError::ReadOnly);
        }
        self.blocking(partition, move |p| p.retain(rule, before, now)).await
    }

    async fn skip_to(&self, partition: u32, offset: u64) -> Result<bool> {
        let queue = self.handle(partition)?.queue.as_ref().ok_or(LogError::ReadOnly)?;
        let (done, answer) = oneshot::channel();
        queue.send(Request::SkipTo { offset, done }).await.map_err(|_| LogError::Closed)?;
        answer.await.map_err(|_| LogError::Closed)?.map(|()| true)
    }
}

/// Follows a partition.
struct FileTail {
    partition: Arc<Partition>,
    read_only: bool,
    next: u64,
}

#[async_trait]
impl Tail for FileTail {
    async fn next(&mut self) -> Result<Vec<Record>> {
        loop {
            let partition = Arc::clone(&self.partition);
            let grown = self.partition.grown.notified();
            tokio::pin!(grown);
            // Registered before reading, so that what comes in between is not slept through.
            grown.as_mut().enable();
            let (read_only, from) = (self.read_only, self.next);
            let read = tokio::task::spawn_blocking(move || {
                if read_only {
                    partition.look_again()?;
                }
                partition.read(from, TAIL_BYTES)
            });
            let records = read.await.map_err(|_| LogError::Closed)??;
            if let Some(last) = records.last() {
                self.next = last.offset + 1;
                return Ok(records);
            }
            let next = self.partition.after_gap(self.next);
            if next > self.next {
                // Records that were set aside, and none behind them yet.
                self.next = next;
                return Ok(records);
            }
            // Another process's appends are told to nobody: look now and then.
            let _ = tokio::time::timeout(LOOK_AGAIN, grown).await;
        }
    }

    fn position(&self) -> u64 {
        self.next
    }
}

fn open_partition(dir: &Path, number: u32, options: &FileLogOptions) -> Result<Handle> {
    let partition = Arc::new(Partition::new(dir, number));
    let file = partition.open(dir, &*options.disk)?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let writer = Writer {
        partition: Arc::clone(&partition),
        file,
        segment_bytes: options.segment_bytes,
        disk: Arc::clone(&options.disk),
        floor: options.floor,
        suspect: false,
        low: false,
    };
    let thread = std::thread::Builder::new()
        .name(format!("log-{number}"))
        .spawn(move || writer.run(receiver))
        .map_err(LogError::io("start a thread for", &partition.folder))?;
    Ok(Handle { partition, queue: Some(sender), thread: Some(thread) })
}

/// The right to write a log.
#[derive(Debug)]
struct LogLock(File);

impl Drop for LogLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that is just being started has the handle for a moment too.
        let _ = self.0.unlock();
    }
}

fn lock(dir: &Path) -> Result<LogLock> {
    let path = dir.join("lock");
    let open = File::options().write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(LogError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(LogLock(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(LogError::Locked { dir: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(error)) => Err(LogError::io("lock", &path)(error)),
    }
}

/// Makes sure that a log whose number of partitions was read has as many folders: one flipped bit of
/// that file would send ad groups to other partitions.
fn check_folders(dir: &Path, partitions: u32) -> Result<()> {
    let is_there = |number: u32| dir.join(number.to_string()).is_dir();
    let found = (0..MAX_PARTITIONS).rfind(|number| is_there(*number)).map_or(0, |n| n + 1);
    // Fewer are a first start that was cut off, unless there are records already.
    let has_records = || {
        let all = (0..found).map(|number| partition::segments_in(&dir.join(number.to_string())));
        let lengths = all.map(|segments| {
            let segments = segments?;
            let long = |path: &Path| path.metadata().is_ok_and(|f| f.len() > SEGMENT_HEAD as u64);
            Ok(segments.len() > 1 || segments.iter().any(|segment| long(&segment.path)))
        });
        lengths.collect::<Result<Vec<bool>>>().map(|all| all.contains(&true))
    };
    if found > partitions || (found < partitions && found > 0 && has_records()?) {
        let why = "it does not fit the folders beside it, one for each partition";
        return Err(LogError::Damaged { path: dir.join("partitions"), position: 0, why });
    }
    Ok(())
}

fn write_count(dir: &Path, partitions: u32) -> Result<()> {
    let (path, aside) = (dir.join("partitions"), dir.join("partitions.tmp"));
    let write = || -> io::Result<()> {
        std::fs::write(&aside, format!("{partitions}\n"))?;
        File::open(&aside)?.sync_all()?;
        std::fs::rename(&aside, &path)
    };
    write().map_err(LogError::io("make", &path))?;
    sync_folder(dir)
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(LogError::io("sync", folder))
}
