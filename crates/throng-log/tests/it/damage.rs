//! Random damage to a log against the list of what was appended: nothing wrong is ever read, nothing
//! acknowledged is left out without a word, and a repaired log says what it lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use throng_log::{EventLog, FileLog, LogError, SetAside, set_damage_aside};
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

/// What may be missing although nobody can tell, and the offset from which on it may.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Silent {
    Nothing,
    /// The oldest segment: as if it had been deleted by the retention rule.
    Oldest,
    /// What comes last: only the checkpoint knows that it was there.
    Newest,
}

fn apply(dir: &Path, damage: &Damage) -> Silent {
    let files = segments(dir);
    // Damage before may have left nothing to damage.
    let Some(last) = files.len().checked_sub(1) else { return Silent::Nothing };
    match damage {
        Damage::Flip(file, byte, bit) => {
            let path = file.get(&files);
            let mut bytes = std::fs::read(path).unwrap();
            let byte = byte.index(bytes.len());
            bytes[byte] ^= 1 << bit;
            std::fs::write(path, bytes).unwrap();
            Silent::Nothing
        }
        Damage::Cut(file, at) => {
            let number = file.index(files.len());
            let bytes = std::fs::read(&files[number]).unwrap();
            std::fs::write(&files[number], &bytes[..at.index(bytes.len())]).unwrap();
            if number == last { Silent::Newest } else { Silent::Nothing }
        }
        Damage::Delete(file) => {
            let number = file.index(files.len());
            std::fs::remove_file(&files[number]).unwrap();
            match number {
                number if number == last => Silent::Newest,
                0 => Silent::Oldest,
                _ => Silent::Nothing,
            }
        }
        Damage::Exchange(one, other) => {
            let (one, other) = (one.get(&files), other.get(&files));
            if one != other {
                let aside = one.with_extension("aside");
                std::fs::rename(one, &aside).unwrap();
                std::fs::rename(other, one).unwrap();
                std::fs::rename(aside, other).unwrap();
            }
            Silent::Nothing
        }
    }
}

/// A folder in memory, where there is one: every commit is synced.
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
            // What was set aside has no record behind it yet: a follower passes over it.
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

async fn live(
    commits: Vec<Vec<Vec<u8>>>,
    segment_bytes: u64,
    damages: Vec<Damage>,
) -> Result<(), TestCaseError> {
    let dir = fast_dir();
    let open = || FileLog::open_with(dir.path(), options(1, segment_bytes));
    let log = open().unwrap();
    let mut model = Records::new();
    for (now, commit) in commits.into_iter().enumerate() {
        let at = Timestamp(now as i64);
        let values: Vec<Bytes> = commit.into_iter().map(Bytes::from).collect();
        let first = log.append(0, at, values.clone()).await.unwrap();
        model.extend((first..).zip(values.into_iter().map(|value| (at, value))));
    }
    drop(log);
    let silent: Vec<Silent> = damages.iter().map(|damage| apply(dir.path(), damage)).collect();
    let may = |kind| silent.contains(&kind);

    let opened = open();
    let read = match &opened {
        Ok(log) => all(log).await.map(Some),
        Err(LogError::Damaged { .. }) => Ok(None),
        Err(other) => return Err(TestCaseError::fail(other.to_string())),
    };
    match read {
        Ok(None) | Err(LogError::Damaged { .. }) => {}
        Err(other) => return Err(TestCaseError::fail(other.to_string())),
        Ok(Some(read)) => {
            for (offset, record) in &read {
                prop_assert_eq!(model.get(offset), Some(record), "a wrong record is read");
            }
            let missing: Vec<u64> =
                model.keys().filter(|o| !read.contains_key(o)).copied().collect();
            let (first, last) = (read.keys().next(), read.keys().last());
            for offset in missing {
                let at_the_end = last.is_none_or(|last| offset > *last) && may(Silent::Newest);
                let at_the_start =
                    first.is_some_and(|first| offset < *first) && may(Silent::Oldest);
                prop_assert!(at_the_end || at_the_start, "{offset} is left out without a word");
            }
        }
    }
    drop(opened);

    // Repaired, it opens, and says what it lost.
    let aside = set_damage_aside(dir.path()).unwrap();
    prop_assert_eq!(set_damage_aside(dir.path()).unwrap(), Vec::<SetAside>::new());
    let log = open().unwrap();
    let read = all(&log).await.unwrap();
    let said = |offset| aside.iter().any(|a| (a.first_offset..a.next_offset).contains(&offset));
    let said_last = aside.iter().any(|a| a.first_offset >= a.next_offset);
    let end = log.end(0).await.unwrap();
    let start = log.start(0).await.unwrap();
    for (offset, record) in &model {
        match read.get(offset) {
            Some(there) => prop_assert_eq!(there, record),
            None => prop_assert!(
                said(*offset)
                    || (*offset >= end && (said_last || may(Silent::Newest)))
                    || (*offset < start && (may(Silent::Oldest) || !aside.is_empty())),
                "{} is lost without a word: {:?}",
                offset,
                aside
            ),
        }
    }
    prop_assert!(read.keys().all(|offset| model.contains_key(offset)));
    let next = log.append(0, Timestamp(-1), vec![Bytes::from_static(b"on")]).await.unwrap();
    prop_assert_eq!(next, end);
    prop_assert_eq!(&all(&log).await.unwrap()[&next].1[..], b"on");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]
    #[test]
    fn damage_is_told_from_a_torn_write(
        commits in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..4), 1..12,
        ),
        segment_bytes in 40u64..600,
        damages in prop::collection::vec(damage(), 1),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(live(commits, segment_bytes, damages))?;
    }
}

#[tokio::test]
async fn offsets_that_were_lost_are_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = FileLog::open(dir.path(), 1).unwrap();
    let value = || vec![Bytes::from_static(b"value")];
    assert_eq!(log.append(0, Timestamp(1), value()).await.unwrap(), 0);
    assert!(log.skip_to(0, 10).await.unwrap());
    assert_eq!(log.end(0).await.unwrap(), 10);
    assert!(log.skip_to(0, 5).await.unwrap(), "it is there already");
    assert_eq!(log.append(0, Timestamp(2), value()).await.unwrap(), 10);
    drop(log);
    let log = FileLog::open(dir.path(), 1).unwrap();
    assert_eq!(all(&log).await.unwrap().keys().copied().collect::<Vec<_>>(), [0, 10]);
    let mut tail = log.tail(0, 3).await.unwrap();
    assert_eq!(tail.next().await.unwrap()[0].offset, 10);
}
