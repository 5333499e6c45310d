//! Crashes, damage, and a second process.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use throng_log::{EventLog, FileLog, LogError, Record};
use throng_model::Timestamp;

use crate::options;

const NOW: Timestamp = Timestamp(1_000);

async fn append(log: &FileLog, value: &'static str) -> u64 {
    log.append(0, NOW, vec![Bytes::from_static(value.as_bytes())]).await.unwrap()
}

async fn values(log: &FileLog) -> Vec<String> {
    let records: Vec<Record> = log.read(0, 0, 1 << 20).await.unwrap();
    records.into_iter().map(|r| String::from_utf8(r.value.to_vec()).unwrap()).collect()
}

fn only_segment(dir: &Path) -> PathBuf {
    dir.join("0/00000000000000000000.log")
}

/// Writes a log with three commits; returns the position of the last one.
async fn three_commits(dir: &Path) -> u64 {
    let log = FileLog::open(dir, 1).unwrap();
    append(&log, "one").await;
    append(&log, "two").await;
    let before = only_segment(dir).metadata().unwrap().len();
    append(&log, "three").await;
    before
}

#[tokio::test]
async fn a_record_that_is_cut_anywhere_is_truncated_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let last = three_commits(dir.path()).await;
    let whole = std::fs::read(only_segment(dir.path())).unwrap();
    for cut in usize::try_from(last).unwrap()..whole.len() {
        std::fs::write(only_segment(dir.path()), &whole[..cut]).unwrap();
        let log = FileLog::open(dir.path(), 1).unwrap();
        assert_eq!(values(&log).await, ["one", "two"], "cut at {cut}");
        assert_eq!(append(&log, "again").await, 2);
        drop(log);
        let log = FileLog::open(dir.path(), 1).unwrap();
        assert_eq!(values(&log).await, ["one", "two", "again"], "cut at {cut}");
    }
}

#[tokio::test]
async fn zeros_and_other_bytes_after_the_end_are_truncated() {
    let dir = tempfile::tempdir().unwrap();
    three_commits(dir.path()).await;
    let whole = std::fs::read(only_segment(dir.path())).unwrap();
    for tail in [vec![0; 4096], vec![255; 100], whole[32..60].to_vec(), whole[32..].to_vec()] {
        std::fs::write(only_segment(dir.path()), [whole.clone(), tail].concat()).unwrap();
        let log = FileLog::open(dir.path(), 1).unwrap();
        assert_eq!(values(&log).await, ["one", "two", "three"]);
        assert_eq!(log.end(0).await.unwrap(), 3);
    }
}

#[tokio::test]
async fn damage_to_an_acknowledged_record_is_an_error_and_nothing_is_truncated() {
    let dir = tempfile::tempdir().unwrap();
    three_commits(dir.path()).await;
    let whole = std::fs::read(only_segment(dir.path())).unwrap();
    // Also in the last record, although no later record proves that it was complete.
    for bit in 0..whole.len() * 8 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(only_segment(dir.path()), &bad).unwrap();
        let opened = FileLog::open(dir.path(), 1);
        assert!(matches!(opened, Err(LogError::Damaged { .. })), "bit {bit}: {opened:?}");
        assert_eq!(std::fs::read(only_segment(dir.path())).unwrap(), bad);
    }
}

#[tokio::test]
async fn damage_to_a_closed_segment_is_an_error_of_the_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(dir.path(), options(1, 60)).unwrap();
    append(&log, "one one one one").await;
    append(&log, "two").await;
    drop(log);
    let mut bytes = std::fs::read(only_segment(dir.path())).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(only_segment(dir.path()), bytes).unwrap();
    let log = FileLog::open(dir.path(), 1).unwrap();
    assert!(matches!(log.read(0, 0, 100).await, Err(LogError::Damaged { .. })));
    assert_eq!(log.read(0, 1, 100).await.unwrap()[0].value, "two");
}

#[tokio::test]
async fn one_process_writes_and_others_can_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(dir.path(), options(1, 80)).unwrap();
    assert!(matches!(FileLog::open(dir.path(), 1), Err(LogError::Locked { .. })));
    let reader = FileLog::open_read_only(dir.path()).unwrap();
    for n in 0..5 {
        assert_eq!(append(&log, "value of some length").await, n);
        assert_eq!(reader.end(0).await.unwrap(), n + 1);
        assert_eq!(values(&reader).await.len() as u64, n + 1);
    }
    let refused = reader.append(0, NOW, vec![Bytes::new()]).await;
    assert!(matches!(refused, Err(LogError::ReadOnly)));
    assert!(matches!(reader.truncate_before(0, 1).await, Err(LogError::ReadOnly)));
    log.truncate_before(0, 4).await.unwrap();
    let first = reader.start(0).await.unwrap();
    assert_eq!(first, log.start(0).await.unwrap());
    assert!(first > 0);
}

#[tokio::test]
async fn the_number_of_partitions_stays() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(FileLog::partitions_in(dir.path()).unwrap(), None);
    drop(FileLog::open(dir.path(), 2).unwrap());
    assert_eq!(FileLog::partitions_in(dir.path()).unwrap(), Some(2));
    let other = FileLog::open(dir.path(), 3).unwrap_err();
    assert!(other.to_string().contains("has 2 partitions, not 3"), "{other}");
    // With the file changed: the folders do not match it.
    let log = FileLog::open(dir.path(), 2).unwrap();
    append(&log, "one").await;
    drop(log);
    for changed in [1, 3] {
        std::fs::write(dir.path().join("partitions"), format!("{changed}\n")).unwrap();
        let opened = FileLog::open(dir.path(), changed);
        assert!(matches!(opened, Err(LogError::Damaged { .. })), "{changed}: {opened:?}");
    }
    let none = tempfile::tempdir().unwrap();
    assert!(matches!(FileLog::open(none.path(), 0), Err(LogError::Partitions { .. })));
}

#[tokio::test]
async fn an_incomplete_segment_file_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    three_commits(dir.path()).await;
    std::fs::write(dir.path().join("0/00000000000000000003.log.tmp"), b"THRN").unwrap();
    let log = FileLog::open_with(dir.path(), options(1, 10)).unwrap();
    assert_eq!(append(&log, "four").await, 3);
    assert_eq!(values(&log).await, ["one", "two", "three", "four"]);
}

/// After a loss of power, sectors of an unacknowledged commit may be missing while later ones are there.
#[tokio::test]
async fn a_commit_with_a_hole_is_a_torn_write() {
    let dir = tempfile::tempdir().unwrap();
    let log = FileLog::open(dir.path(), 1).unwrap();
    append(&log, "one").await;
    let before = usize::try_from(only_segment(dir.path()).metadata().unwrap().len()).unwrap();
    let values = [vec![1; 3_000], vec![2; 3_000]].map(Bytes::from).to_vec();
    log.append(0, NOW, values).await.unwrap();
    drop(log);
    let whole = std::fs::read(only_segment(dir.path())).unwrap();
    let mut torn = whole.clone();
    torn[1_024..1_536].fill(0);
    std::fs::write(only_segment(dir.path()), &torn).unwrap();
    let log = FileLog::open(dir.path(), 1).unwrap();
    assert_eq!(log.end(0).await.unwrap(), 1);
    assert_eq!(only_segment(dir.path()).metadata().unwrap().len() as usize, before);
    drop(log);
    // The same sector changed instead: a loss of power does not do that.
    let mut changed = whole;
    changed[1_100] ^= 1;
    std::fs::write(only_segment(dir.path()), &changed).unwrap();
    assert!(matches!(FileLog::open(dir.path(), 1), Err(LogError::Damaged { .. })));
}

/// Earlier versions wrote segments without a link.
#[tokio::test]
async fn a_log_of_an_earlier_version_can_be_opened_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = FileLog::open_with(dir.path(), options(1, 60)).unwrap();
    for value in ["one one one one", "two two two two", "three"] {
        append(&log, value).await;
    }
    drop(log);
    for base in 1..3 {
        let path = dir.path().join(format!("0/{base:020}.log"));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[24..28].fill(0);
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
    }
    let log = FileLog::open_with(dir.path(), options(1, 60)).unwrap();
    assert_eq!(values(&log).await, ["one one one one", "two two two two", "three"]);
    drop(log);
    std::fs::remove_file(dir.path().join("0/00000000000000000001.log")).unwrap();
    assert!(matches!(FileLog::open(dir.path(), 1), Err(LogError::Damaged { .. })));
}
