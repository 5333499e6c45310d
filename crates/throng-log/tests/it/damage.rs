//! Random damage to a log, compared with a list of the appended records: no wrong record is read, no
//! acknowledged record is missing without an error, and a repair reports what is lost.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use throng_log::{EventLog, FileLog, LogError, RemovedRange, repair_log};
use throng_model::Timestamp;

use crate::options;

#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, Index, u8),
    Cut(Index, Index),
    Delete(Index),
    Exchange(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let any = any::<Index>;
    prop_oneof![
        4 => (any(), any(), 0u8..8).prop_map(|(file, byte, bit)| Damage::Flip(file, byte, bit)),
        2 => (any(), any()).prop_map(|(file, at)| Damage::Cut(file, at)),
        1 => any().prop_map(Damage::Delete),
        1 => (any(), any()).prop_map(|(one, other)| Damage::Exchange(one, other)),
    ]
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir.join("0")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Records that may be missing without an error.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Undetected {
    Nothing,
    /// Those of the oldest segment: as if the retention had deleted it.
    Oldest,
    /// The last ones: only a checkpoint has their offsets.
    Newest,
}

/// The files of a partition by name, each with the number of its segment in the order of writing: after an
/// exchange the newest segment is not in the file with the last name.
struct Files {
    all: Vec<(PathBuf, usize)>,
    /// Bits flipped in the newest segment.
    flips_of_newest: u32,
}

impl Files {
    fn of(dir: &Path) -> Self {
        Self { all: segments(dir).into_iter().zip(0..).collect(), flips_of_newest: 0 }
    }

    fn newest(&self) -> Option<usize> {
        self.all.iter().map(|(_, number)| *number).max()
    }

    fn oldest(&self) -> Option<usize> {
        self.all.iter().map(|(_, number)| *number).min()
    }

    fn apply(&mut self, damage: &Damage) -> Undetected {
        if self.all.is_empty() {
            return Undetected::Nothing;
        }
        let (oldest, newest) = (self.oldest(), self.newest());
        match damage {
            Damage::Flip(file, byte, bit) => {
                let (path, number) = file.get(&self.all);
                let mut bytes = std::fs::read(path).unwrap();
                if !bytes.is_empty() {
                    let byte = byte.index(bytes.len());
                    bytes[byte] ^= 1 << bit;
                    std::fs::write(path, bytes).unwrap();
                }
                self.flips_of_newest += u32::from(Some(*number) == newest);
                // One bit is always detected. Two, in the last record or the last two, may look like a
                // torn write.
                if self.flips_of_newest > 1 { Undetected::Newest } else { Undetected::Nothing }
            }
            Damage::Cut(file, at) => {
                let (path, number) = file.get(&self.all);
                let bytes = std::fs::read(path).unwrap();
                if !bytes.is_empty() {
                    std::fs::write(path, &bytes[..at.index(bytes.len())]).unwrap();
                }
                if Some(*number) == newest { Undetected::Newest } else { Undetected::Nothing }
            }
            Damage::Delete(file) => {
                let (path, number) = self.all.remove(file.index(self.all.len()));
                std::fs::remove_file(path).unwrap();
                match Some(number) {
                    number if number == newest => Undetected::Newest,
                    number if number == oldest => Undetected::Oldest,
                    _ => Undetected::Nothing,
                }
            }
            Damage::Exchange(one, other) => {
                let (one, other) = (one.index(self.all.len()), other.index(self.all.len()));
                if one != other {
                    let (path, with) = (self.all[one].0.clone(), self.all[other].0.clone());
                    let temporary = path.with_extension("temporary");
                    std::fs::rename(&path, &temporary).unwrap();
                    std::fs::rename(&with, &path).unwrap();
                    std::fs::rename(&temporary, &with).unwrap();
                    (self.all[one].1, self.all[other].1) = (self.all[other].1, self.all[one].1);
                }
                Undetected::Nothing
            }
        }
    }
}

/// In memory where possible: a log syncs every commit, which is slow on a disk.
fn fast_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

type Records = BTreeMap<u64, (Timestamp, Bytes)>;

async fn all(log: &FileLog) -> Result<Records, LogError> {
    let (mut from, end) = (log.start(0).await?, log.end(0).await?);
    let mut records = Records::new();
    while from < end {
        let read = log.read(0, from, 100).await?;
        if read.is_empty() {
            // No record after the removed ones yet: a tail passes over their offsets.
            let mut tail = log.tail(0, from).await?;
            assert!(
                tail.next().await?.is_empty() && tail.position() == end,
                "from {from} to {end}"
            );
            break;
        }
        for record in read {
            assert!(record.offset >= from);
            from = record.offset + 1;
            records.insert(record.offset, (record.at, record.value));
        }
    }
    Ok(records)
}

/// Appends commits, each at its own time. Returns the records.
async fn append_all(log: &FileLog, commits: Vec<Vec<Vec<u8>>>) -> Records {
    let mut model = Records::new();
    for (now, commit) in commits.into_iter().enumerate() {
        let at = Timestamp(now as i64);
        let values: Vec<Bytes> = commit.into_iter().map(Bytes::from).collect();
        let first = log.append(0, at, values.clone()).await.unwrap();
        model.extend((first..).zip(values.into_iter().map(|value| (at, value))));
    }
    model
}

/// What is read from a damaged log is right, and nothing is missing but what cannot be detected.
fn check_damaged(
    model: &Records,
    read: &Records,
    undetected: &[Undetected],
) -> Result<(), TestCaseError> {
    for (offset, record) in read {
        prop_assert_eq!(model.get(offset), Some(record), "a wrong record is read");
    }
    let (first, last) = (read.keys().next(), read.keys().last());
    for offset in model.keys().filter(|offset| !read.contains_key(offset)) {
        let at_the_end = last.is_none_or(|last| offset > last);
        let at_the_start = first.is_some_and(|first| offset < first);
        prop_assert!(
            (at_the_end && undetected.contains(&Undetected::Newest))
                || (at_the_start && undetected.contains(&Undetected::Oldest)),
            "{offset} is missing without an error"
        );
    }
    Ok(())
}

/// What a repaired log lacks is reported, and once; what it has is right and not reported. `offsets`: those
/// of the repaired log.
fn check_repaired(
    model: &Records,
    read: &Records,
    removed: &[RemovedRange],
    offsets: Range<u64>,
    undetected: &[Undetected],
) -> Result<(), TestCaseError> {
    let times_reported = |offset| {
        removed.iter().filter(|a| (a.first_offset..a.next_offset).contains(&offset)).count()
    };
    let may_miss = |kind| undetected.contains(&kind);
    let reported_last = removed.iter().any(|a| a.first_offset >= a.next_offset);
    for (offset, record) in model {
        let is_reported = times_reported(*offset) > 0;
        match read.get(offset) {
            Some(there) => {
                prop_assert_eq!(there, record);
                prop_assert!(
                    !is_reported,
                    "{} is there and reported as lost: {:?}",
                    offset,
                    removed
                );
            }
            None => prop_assert!(
                is_reported
                    || (*offset >= offsets.end && (reported_last || may_miss(Undetected::Newest)))
                    || (*offset < offsets.start
                        && (may_miss(Undetected::Oldest) || !removed.is_empty())),
                "{} is lost and not reported: {:?}",
                offset,
                removed
            ),
        }
    }
    prop_assert!(
        model.keys().all(|offset| times_reported(*offset) <= 1),
        "reported twice: {:?}",
        removed
    );
    prop_assert!(read.keys().all(|offset| model.contains_key(offset)));
    Ok(())
}

async fn apply_and_check(
    commits: Vec<Vec<Vec<u8>>>,
    segment_bytes: u64,
    damages: Vec<Damage>,
) -> Result<(), TestCaseError> {
    let dir = fast_dir();
    let open = || FileLog::open_with(dir.path(), options(1, segment_bytes));
    let log = open().unwrap();
    let model = append_all(&log, commits).await;
    drop(log);
    let mut files = Files::of(dir.path());
    let undetected: Vec<Undetected> = damages.iter().map(|damage| files.apply(damage)).collect();

    let opened = open();
    let read = match &opened {
        Ok(log) => all(log).await.map(Some),
        Err(LogError::Damaged { .. }) => Ok(None),
        Err(other) => return Err(TestCaseError::fail(other.to_string())),
    };
    match read {
        Ok(None) | Err(LogError::Damaged { .. }) => {}
        Err(other) => return Err(TestCaseError::fail(other.to_string())),
        Ok(Some(read)) => check_damaged(&model, &read, &undetected)?,
    }
    drop(opened);

    // After a repair it opens; what is lost is reported.
    let removed = repair_log(dir.path()).unwrap();
    prop_assert_eq!(repair_log(dir.path()).unwrap(), Vec::<RemovedRange>::new());
    let log = open().unwrap();
    let read = all(&log).await.unwrap();
    let (start, end) = (log.start(0).await.unwrap(), log.end(0).await.unwrap());
    check_repaired(&model, &read, &removed, start..end, &undetected)?;
    let next = log.append(0, Timestamp(-1), vec![Bytes::from_static(b"on")]).await.unwrap();
    prop_assert_eq!(next, end);
    prop_assert_eq!(&all(&log).await.unwrap()[&next].1[..], b"on");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]
    #[test]
    fn damage_is_distinguished_from_a_torn_write(
        commits in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..4), 1..12,
        ),
        segment_bytes in 40u64..600,
        damages in prop::collection::vec(damage(), 1..3),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(apply_and_check(commits, segment_bytes, damages))?;
    }
}

#[tokio::test]
async fn skipped_offsets_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let log = FileLog::open(dir.path(), 1).unwrap();
    let value = || vec![Bytes::from_static(b"value")];
    assert_eq!(log.append(0, Timestamp(1), value()).await.unwrap(), 0);
    assert!(log.skip_to(0, 10).await.unwrap());
    assert_eq!(log.end(0).await.unwrap(), 10);
    assert!(log.skip_to(0, 5).await.unwrap(), "the end is after it");
    assert_eq!(log.append(0, Timestamp(2), value()).await.unwrap(), 10);
    drop(log);
    let log = FileLog::open(dir.path(), 1).unwrap();
    assert_eq!(all(&log).await.unwrap().keys().copied().collect::<Vec<_>>(), [0, 10]);
    let mut tail = log.tail(0, 3).await.unwrap();
    assert_eq!(tail.next().await.unwrap()[0].offset, 10);
}

/// A crash after the records behind the damage were copied, and before the damaged file was truncated.
#[tokio::test]
async fn an_interrupted_repair_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let log = FileLog::open(dir.path(), 1).unwrap();
    for n in 0..3_u8 {
        log.append(0, Timestamp(0), vec![Bytes::from(vec![n; 30])]).await.unwrap();
    }
    drop(log);
    let path = segments(dir.path()).remove(0);
    let mut damaged = std::fs::read(&path).unwrap();
    // In the value of the second record: the header of the segment has 32 bytes, that of a record 24.
    damaged[32 + (24 + 30) + 24] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    repair_log(dir.path()).unwrap();
    std::fs::write(&path, &damaged).unwrap();
    assert_eq!(segments(dir.path()).len(), 2, "the file before the truncation, and the copy");

    let lost: Vec<(u64, u64)> = repair_log(dir.path())
        .unwrap()
        .iter()
        .map(|range| (range.first_offset, range.next_offset))
        .collect();
    assert_eq!(lost, [(1, 2)]);
    let log = FileLog::open(dir.path(), 1).unwrap();
    let read: Vec<u64> = all(&log).await.unwrap().into_keys().collect();
    assert_eq!(read, [0, 2]);
}

/// Two exchanged segments, one of them with a broken header: the other one is renamed, and the lost records
/// are reported.
#[tokio::test]
async fn a_valid_segment_is_kept_when_the_exchanged_one_is_broken() {
    for broken in [0, 1] {
        let dir = tempfile::tempdir().unwrap();
        let log = FileLog::open_with(dir.path(), options(1, 40)).unwrap();
        for n in 0..3_u8 {
            let value = Bytes::from(vec![n; 30]);
            log.append(0, Timestamp(0), vec![value]).await.unwrap();
        }
        drop(log);
        let files = segments(dir.path());
        assert_eq!(files.len(), 3);
        let temporary = dir.path().join("temporary");
        std::fs::rename(&files[0], &temporary).unwrap();
        std::fs::rename(&files[1], &files[0]).unwrap();
        std::fs::rename(&temporary, &files[1]).unwrap();
        let mut bytes = std::fs::read(&files[broken]).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&files[broken], bytes).unwrap();

        let lost: Vec<(u64, u64)> = repair_log(dir.path())
            .unwrap()
            .iter()
            .map(|range| (range.first_offset, range.next_offset))
            .collect();
        // After the exchange the file with the first name has the second record.
        let (lost_offset, kept) = if broken == 0 { (1, [0, 2]) } else { (0, [1, 2]) };
        assert_eq!(lost, [(lost_offset, lost_offset + 1)]);
        let log = FileLog::open_with(dir.path(), options(1, 40)).unwrap();
        let read: Vec<u64> = all(&log).await.unwrap().into_keys().collect();
        assert_eq!(read, kept);
    }
}
