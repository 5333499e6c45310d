//! Disks that are full, that fail, and that do not confirm writes.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use throng_log::{
    Disk, DiskSpace, EventLog, FileLog, FileLogOptions, LogError, MinFreeDisk, Retention,
    SystemDisk,
};
use throng_model::Timestamp;
use throng_sim::SmallDisk;

use crate::options;

/// A disk with limited space, which fails on request.
#[derive(Debug)]
struct Faulty {
    free: AtomicU64,
    sync_fails: AtomicBool,
    truncate_fails: AtomicBool,
}

impl Default for Faulty {
    fn default() -> Self {
        let off = || AtomicBool::new(false);
        Self { free: AtomicU64::new(u64::MAX), sync_fails: off(), truncate_fails: off() }
    }
}

impl Disk for Faulty {
    fn write_all_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        let free = self.free.load(Ordering::SeqCst);
        let fits = usize::try_from(free).unwrap_or(usize::MAX).min(bytes.len());
        // A full disk writes the part that fits.
        SystemDisk.write_all_at(file, &bytes[..fits], position)?;
        self.free.fetch_sub(fits as u64, Ordering::SeqCst);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        match self.truncate_fails.load(Ordering::SeqCst) {
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
        Ok(DiskSpace { available: self.free.load(Ordering::SeqCst), total: 100 << 30 })
    }
}

fn open(dir: &Path, disk: &Arc<Faulty>, min_free_disk: MinFreeDisk) -> FileLog {
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    FileLog::open_with(dir, FileLogOptions { disk, min_free_disk, ..options(1, 4_000) }).unwrap()
}

async fn append(log: &FileLog, value: u8) -> Result<u64, LogError> {
    log.append(0, Timestamp(value.into()), vec![Bytes::from(vec![value; 100])]).await
}

async fn values(log: &FileLog) -> Vec<u8> {
    log.read(0, 0, usize::MAX).await.unwrap().iter().map(|record| record.value[0]).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_appends_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, MinFreeDisk::Bytes(0));
    assert_eq!(append(&log, 1).await.unwrap(), 0);
    for free in [0, 1, 30, 123] {
        disk.free.store(free, Ordering::SeqCst);
        let refused = append(&log, 9).await;
        assert!(matches!(refused, Err(LogError::Io { .. })), "{free}: {refused:?}");
        disk.free.store(u64::MAX, Ordering::SeqCst);
        append(&log, 2).await.unwrap();
    }
    assert_eq!(values(&log).await, [1, 2, 2, 2, 2]);
    drop(log);
    let log = open(dir.path(), &disk, MinFreeDisk::Bytes(0));
    assert_eq!(values(&log).await, [1, 2, 2, 2, 2], "nothing that was refused is read later");
}

#[tokio::test]
async fn an_append_of_nothing_is_refused_until_there_is_room_for_what_had_none() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, MinFreeDisk::Bytes(0));
    let nothing = async || log.append(0, Timestamp(0), Vec::new()).await;
    append(&log, 1).await.unwrap();
    assert_eq!(nothing().await.unwrap(), 1);
    for _ in 0..2 {
        disk.free.store(100, Ordering::SeqCst);
        assert!(append(&log, 9).await.is_err());
        for free in [0, 100] {
            disk.free.store(free, Ordering::SeqCst);
            let refused = nothing().await;
            assert!(matches!(refused, Err(LogError::Io { .. })), "{free}: {refused:?}");
        }
        disk.free.store(u64::MAX, Ordering::SeqCst);
        assert_eq!(nothing().await.unwrap(), 1);
        // There was room.
        disk.free.store(0, Ordering::SeqCst);
        assert_eq!(nothing().await.unwrap(), 1);
    }
    disk.free.store(u64::MAX, Ordering::SeqCst);
    append(&log, 2).await.unwrap();
    assert_eq!(values(&log).await, [1, 2]);
    drop(log);
    assert_eq!(values(&open(dir.path(), &disk, MinFreeDisk::Bytes(0))).await, [1, 2]);
}

#[tokio::test]
async fn a_test_for_room_that_a_crash_interrupts_is_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, MinFreeDisk::Bytes(0));
    append(&log, 1).await.unwrap();
    disk.free.store(0, Ordering::SeqCst);
    assert!(append(&log, 9).await.is_err());
    // All of it is written, and none of it is taken back.
    disk.free.store(u64::MAX, Ordering::SeqCst);
    disk.truncate_fails.store(true, Ordering::SeqCst);
    let unconfirmed = log.append(0, Timestamp(0), Vec::new()).await;
    assert!(matches!(unconfirmed, Err(LogError::UnconfirmedWrite { .. })), "{unconfirmed:?}");
    drop(log);
    disk.truncate_fails.store(false, Ordering::SeqCst);
    let log = open(dir.path(), &disk, MinFreeDisk::Bytes(0));
    assert_eq!(append(&log, 2).await.unwrap(), 1);
    assert_eq!(values(&log).await, [1, 2]);
}

#[tokio::test]
async fn appends_are_refused_below_the_required_free_space() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, MinFreeDisk::Default);
    append(&log, 1).await.unwrap();
    let gib = 1u64 << 30;
    for (free, accepted) in
        [(gib - 1, false), (gib + 5, false), (gib + gib / 10, true), (gib, true)]
    {
        // A commit takes some of it.
        disk.free.store(free, Ordering::SeqCst);
        match append(&log, 2).await {
            Ok(_) => assert!(accepted, "{free}"),
            Err(LogError::DiskLow { min_free, .. }) => {
                assert!(!accepted && min_free == gib, "{free}")
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(values(&log).await, [1, 2, 2]);
}

#[tokio::test]
async fn an_unconfirmed_write_is_not_read_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, MinFreeDisk::Bytes(0));
    append(&log, 1).await.unwrap();
    disk.sync_fails.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(matches!(append(&log, 9).await, Err(LogError::UnconfirmedWrite { .. })));
        assert_eq!(values(&log).await, [1], "a reader does not see it");
    }
    disk.sync_fails.store(false, Ordering::SeqCst);
    assert_eq!(append(&log, 2).await.unwrap(), 1);
    assert_eq!(values(&log).await, [1, 2]);
    let files = std::fs::read_dir(dir.path().join("0")).unwrap().count();
    assert_eq!(files, 2, "the file with the failed sync is no longer written");
    drop(log);
    assert_eq!(values(&open(dir.path(), &disk, MinFreeDisk::Bytes(0))).await, [1, 2]);
}

#[tokio::test]
async fn a_write_that_cannot_be_truncated_is_truncated_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, MinFreeDisk::Bytes(0));
    append(&log, 1).await.unwrap();
    disk.free.store(50, Ordering::SeqCst);
    disk.truncate_fails.store(true, Ordering::SeqCst);
    assert!(matches!(append(&log, 9).await, Err(LogError::UnconfirmedWrite { .. })));
    disk.free.store(u64::MAX, Ordering::SeqCst);
    assert!(matches!(append(&log, 9).await, Err(LogError::UnconfirmedWrite { .. })));
    disk.truncate_fails.store(false, Ordering::SeqCst);
    append(&log, 2).await.unwrap();
    assert_eq!(values(&log).await, [1, 2]);
}

#[tokio::test]
async fn a_confirmed_record_that_has_changed_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, MinFreeDisk::Bytes(0));
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
async fn appends_to_a_removed_or_replaced_segment_are_refused_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let log = open(dir.path(), &disk, MinFreeDisk::Bytes(0));
    append(&log, 1).await.unwrap();
    let path = dir.path().join("0/00000000000000000000.log");
    let aside = dir.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    let removed = append(&log, 9).await;
    assert!(matches!(removed, Err(LogError::Io { .. })), "{removed:?}");
    // With the same records, but not the file that is open.
    std::fs::copy(&aside, &path).unwrap();
    let replaced = append(&log, 9).await;
    assert!(matches!(replaced, Err(LogError::Io { .. })), "{replaced:?}");
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(append(&log, 2).await.unwrap(), 1);
    assert_eq!(values(&log).await, [1, 2]);
}

#[tokio::test]
async fn old_segments_are_deleted_by_size_and_age_unless_a_restart_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(dir.path(), options(1, 1_000)).unwrap();
    for value in 0..100 {
        append(&log, value).await.unwrap();
    }
    let retention = |bytes, age| Retention { bytes, age: std::time::Duration::from_micros(age) };
    let all = u64::MAX;
    log.retain(0, retention(all, all), 100, Timestamp(100)).await.unwrap();
    log.retain(0, retention(0, 0), 0, Timestamp(100)).await.unwrap();
    assert_eq!(
        log.start(0).await.unwrap(),
        0,
        "nothing exceeds the limits, or nothing may be deleted"
    );
    log.retain(0, retention(6_000, all), 100, Timestamp(100)).await.unwrap();
    let by_bytes = log.start(0).await.unwrap();
    assert!((48..=60).contains(&by_bytes), "{by_bytes}");
    // A segment is deleted when the first record of the next one is too old.
    log.retain(0, retention(all, 20), 100, Timestamp(100)).await.unwrap();
    let by_age = log.start(0).await.unwrap();
    assert!((70..=80).contains(&by_age), "{by_age}");
    log.retain(0, retention(0, 0), 90, Timestamp(1_000)).await.unwrap();
    let needed = log.start(0).await.unwrap();
    assert!((81..=90).contains(&needed), "{needed}");
    assert_eq!(log.read(0, 90, 1).await.unwrap()[0].offset, 90);
}

/// On a small file system of its own, if this process may mount one.
#[tokio::test]
async fn a_small_file_system_fills_and_empties() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(dir.path(), 1) else { return };
    let log = FileLog::open_with(&dir.path().join("log"), options(1, 100_000)).unwrap();
    let value = |n: u64| vec![Bytes::from(n.to_le_bytes().repeat(1_000))];
    let mut accepted = 0;
    let refused = loop {
        match log.append(0, Timestamp(0), value(accepted)).await {
            Ok(offset) => assert_eq!(offset, accepted),
            Err(error) => break error,
        }
        accepted += 1;
    };
    assert!(refused.is_disk_error() && accepted > 50, "{accepted}: {refused}");
    assert!(log.append(0, Timestamp(0), value(9_999)).await.is_err());
    // The retention frees space.
    let everything = Retention { bytes: 0, age: std::time::Duration::ZERO };
    log.retain(0, everything, accepted / 2, Timestamp(0)).await.unwrap();
    for n in accepted..accepted + 20 {
        assert_eq!(log.append(0, Timestamp(0), value(n)).await.unwrap(), n);
    }
    drop(log);
    let log = FileLog::open_with(&dir.path().join("log"), options(1, 100_000)).unwrap();
    let first = log.start(0).await.unwrap();
    let records = log.read(0, first, usize::MAX).await.unwrap();
    assert!((first..accepted + 20).eq(records.iter().map(|record| record.offset)));
    assert!(records.iter().all(|record| record.value == value(record.offset)[0]));
}
