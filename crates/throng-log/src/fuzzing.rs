//! Fuzz targets of this crate: each gives arbitrary bytes to a decoder and asserts what must hold for
//! what it accepts. `fuzz/` runs them under libFuzzer, the tests below over mutants of the seeds.

use throng_model::Timestamp;

use crate::{EventLog, FileLog};

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

/// The newest segment of a log, unchanged and with correct checksums. If the log opens, its records are
/// in the order of their offsets.
pub fn log_segment(bytes: &[u8]) {
    open_and_read(bytes);
    let mut fixed = bytes.to_vec();
    crate::file::fix_segment_checksums(&mut fixed);
    open_and_read(&fixed);
}

fn open_and_read(bytes: &[u8]) {
    let dir = temporary_folder();
    std::fs::create_dir(dir.path().join("0")).expect("a temporary folder");
    std::fs::write(dir.path().join("partitions"), "1").expect("a temporary file");
    std::fs::write(dir.path().join("0/00000000000000000000.log"), bytes).expect("a temporary file");
    let Ok(log) = FileLog::open(dir.path(), 1) else { return };
    let read = runtime().block_on(async {
        let (start, end) = (log.start(0).await?, log.end(0).await?);
        let records = log.read(0, start, 1 << 20).await?;
        assert!(records.is_sorted_by(|a, b| a.offset < b.offset));
        assert!(records.iter().all(|record| (start..end).contains(&record.offset)));
        Ok::<(), crate::LogError>(())
    });
    // An error is allowed: some damage is found only when a record is read.
    let _ = read;
}

/// A segment with some commits, and one without records.
pub fn log_segment_seeds() -> Vec<Vec<u8>> {
    [0, 3].map(segment_of).to_vec()
}

fn segment_of(commits: u64) -> Vec<u8> {
    let dir = temporary_folder();
    let log = FileLog::open(dir.path(), 1).expect("a new log");
    runtime().block_on(async {
        for commit in 0..commits {
            let values = (0..=commit).map(|n| vec![n as u8; 40].into()).collect();
            log.append(0, Timestamp(commit as i64), values).await.expect("appended");
        }
    });
    drop(log);
    std::fs::read(dir.path().join("0/00000000000000000000.log")).expect("the first segment")
}

/// In memory where possible: a log syncs every commit, which is slow on a disk.
fn temporary_folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).expect("a temporary folder"),
        false => tempfile::tempdir().expect("a temporary folder"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

/// Record batches as a Kafka broker sends them.
pub fn record_batch(bytes: &[u8]) {
    crate::kafka::fuzz_batches(bytes);
}

/// Record batches without compression and with two codecs.
pub fn record_batch_seeds() -> Vec<Vec<u8>> {
    crate::kafka::batch_seeds()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_of_log_segments() {
        mutate::run(&log_segment_seeds(), 500, log_segment);
    }

    #[test]
    fn mutants_of_record_batches() {
        mutate::run(&record_batch_seeds(), 2_000, record_batch);
    }
}
