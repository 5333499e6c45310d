//! Disks that are full, that fail, and that do not say what became of a write.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use throng_log::{
    Disk, DiskFloor, DiskSpace, EventLog, FileLog, FileLogOptions, LogError, Retention, SystemDisk,
};
use throng_model::Timestamp;
use throng_sim::SmallDisk;

use crate::options;

/// A disk with so much room, which fails when it is told to.
#[derive(Debug)]
struct Faulty {
    room: AtomicU64,
    sync_fails: AtomicBool,
    cut_fails: AtomicBool,
}

impl Default for Faulty {
    fn default() -> Self {
        let off = || AtomicBool::new(false);
        Self { room: AtomicU64::new(u64::MAX), sync_fails: off(), cut_fails: off() }
    }
}

impl Disk for Faulty {
    fn write_all_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        let room = self.room.load(Ordering::SeqCst);
        let fits = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        // A full disk takes what still fits.
        SystemDisk.write_all_at(file, &bytes[..fits], position)?;
        self.room.fetch_sub(fits as u64, Ordering::SeqCst);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        match self.cut_fails.load(Ordering::SeqCst) {
            true => Err(io::Error::other("input/output error")),
            false => SystemDisk.set_len(file, length),
        }
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        match self.sync_fails.load(Ordering::SeqCst) {
            true => Err(io::Error::other("input/output error")),
            false => SystemDisk.sync_data(file),
        }
    }

    fn space(&self, _: &Path) -> io::Result<DiskSpace> {
        Ok(DiskSpace { available: self.room.load(Ordering::SeqCst), total: 100 << 30 })
    }
}

fn open(dir: &Path, disk: &Arc<Faulty>, floor: DiskFloor) -> FileLog {
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    FileLog::open_with(dir, FileLogOptions { disk, floor, ..options(1, 4_000) }).unwrap()
}

async fn append(log: &FileLog, value: u8) -> Result<u64, LogError> {
    log.append(0, Timestamp(value.into()), vec![Bytes::from(vec![value; 100])]).await
}

async fn values(log: &FileLog) -> Vec<u8> {
    log.read(0, 0, usize::MAX).await.unwrap().iter().map(|record| record.value[0]).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, DiskFloor::Bytes(0));
    assert_eq!(append(&log, 1).await.unwrap(), 0);
    for room in [0, 1, 30, 123] {
        disk.room.store(room, Ordering::SeqCst);
        let refused = append(&log, 9).await;
        assert!(matches!(refused, Err(LogError::Io { .. })), "{room}: {refused:?}");
        disk.room.store(u64::MAX, Ordering::SeqCst);
        append(&log, 2).await.unwrap();
    }
    assert_eq!(values(&log).await, [1, 2, 2, 2, 2]);
    drop(log);
    let log = open(dir.path(), &disk, DiskFloor::Bytes(0));
    assert_eq!(values(&log).await, [1, 2, 2, 2, 2], "nothing that was refused is read later");
}

#[tokio::test]
async fn below_the_floor_nothing_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, DiskFloor::Default);
    append(&log, 1).await.unwrap();
    let gib = 1u64 << 30;
    for (room, taken) in [(gib - 1, false), (gib + 5, false), (gib + gib / 10, true), (gib, true)] {
        // A commit takes some of it.
        disk.room.store(room, Ordering::SeqCst);
        match append(&log, 2).await {
            Ok(_) => assert!(taken, "{room}"),
            Err(LogError::DiskLow { floor, .. }) => assert!(!taken && floor == gib, "{room}"),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(values(&log).await, [1, 2, 2]);
}

#[tokio::test]
async fn a_write_that_is_not_confirmed_is_not_believed_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, DiskFloor::Bytes(0));
    append(&log, 1).await.unwrap();
    disk.sync_fails.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(matches!(append(&log, 9).await, Err(LogError::Unknown { .. })));
        assert_eq!(values(&log).await, [1], "a reader does not see it");
    }
    disk.sync_fails.store(false, Ordering::SeqCst);
    assert_eq!(append(&log, 2).await.unwrap(), 1);
    assert_eq!(values(&log).await, [1, 2]);
    let files = std::fs::read_dir(dir.path().join("0")).unwrap().count();
    assert_eq!(files, 2, "the file that the disk failed is not written any more");
    drop(log);
    assert_eq!(values(&open(dir.path(), &disk, DiskFloor::Bytes(0))).await, [1, 2]);
}

#[tokio::test]
async fn a_write_that_can_not_be_cut_off_is_cut_off_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, DiskFloor::Bytes(0));
    append(&log, 1).await.unwrap();
    disk.room.store(50, Ordering::SeqCst);
    disk.cut_fails.store(true, Ordering::SeqCst);
    assert!(matches!(append(&log, 9).await, Err(LogError::Unknown { .. })));
    disk.room.store(u64::MAX, Ordering::SeqCst);
    assert!(matches!(append(&log, 9).await, Err(LogError::Unknown { .. })));
    disk.cut_fails.store(false, Ordering::SeqCst);
    append(&log, 2).await.unwrap();
    assert_eq!(values(&log).await, [1, 2]);
}

#[tokio::test]
async fn what_was_confirmed_and_changed_since_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, DiskFloor::Bytes(0));
    append(&log, 1).await.unwrap();
    disk.sync_fails.store(true, Ordering::SeqCst);
    assert!(append(&log, 9).await.is_err());
    let path = dir.path().join("0/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    disk.sync_fails.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        assert!(matches!(append(&log, 2).await, Err(LogError::Damaged { .. })));
    }
}

#[tokio::test]
async fn old_segments_go_by_bytes_and_by_age_and_never_what_a_restart_needs() {
    let dir = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(dir.path(), options(1, 1_000)).unwrap();
    for value in 0..100 {
        append(&log, value).await.unwrap();
    }
    let rule = |bytes, age| Retention { bytes, age: std::time::Duration::from_micros(age) };
    let all = u64::MAX;
    log.retain(0, rule(all, all), 100, Timestamp(100)).await.unwrap();
    log.retain(0, rule(0, 0), 0, Timestamp(100)).await.unwrap();
    assert_eq!(log.start(0).await.unwrap(), 0, "nothing is too much, or nothing may go");
    log.retain(0, rule(6_000, all), 100, Timestamp(100)).await.unwrap();
    let by_bytes = log.start(0).await.unwrap();
    assert!((48..=60).contains(&by_bytes), "{by_bytes}");
    // A segment goes when the next one's first record is too old.
    log.retain(0, rule(all, 20), 100, Timestamp(100)).await.unwrap();
    let by_age = log.start(0).await.unwrap();
    assert!((70..=80).contains(&by_age), "{by_age}");
    log.retain(0, rule(0, 0), 90, Timestamp(1_000)).await.unwrap();
    let needed = log.start(0).await.unwrap();
    assert!((81..=90).contains(&needed), "{needed}");
    assert_eq!(log.read(0, 90, 1).await.unwrap()[0].offset, 90);
}

/// On a file system of its own, where mounting one is allowed.
#[tokio::test]
async fn a_small_file_system_fills_and_empties() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(dir.path(), 1) else { return };
    let log = FileLog::open_with(&dir.path().join("log"), options(1, 100_000)).unwrap();
    let value = |n: u64| vec![Bytes::from(n.to_le_bytes().repeat(1_000))];
    let mut taken = 0;
    let refused = loop {
        match log.append(0, Timestamp(0), value(taken)).await {
            Ok(offset) => assert_eq!(offset, taken),
            Err(error) => break error,
        }
        taken += 1;
    };
    assert!(refused.is_of_disk() && taken > 50, "{taken}: {refused}");
    assert!(log.append(0, Timestamp(0), value(9_999)).await.is_err());
    // Room comes from what is not needed any more.
    let everything = Retention { bytes: 0, age: std::time::Duration::ZERO };
    log.retain(0, everything, taken / 2, Timestamp(0)).await.unwrap();
    for n in taken..taken + 20 {
        assert_eq!(log.append(0, Timestamp(0), value(n)).await.unwrap(), n);
    }
    drop(log);
    let log = FileLog::open_with(&dir.path().join("log"), options(1, 100_000)).unwrap();
    let first = log.start(0).await.unwrap();
    let records = log.read(0, first, usize::MAX).await.unwrap();
    assert!((first..taken + 20).eq(records.iter().map(|record| record.offset)));
    assert!(records.iter().all(|record| record.value == value(record.offset)[0]));
}
