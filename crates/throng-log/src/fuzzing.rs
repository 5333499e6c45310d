//! Fuzz targets of this crate: each gives arbitrary bytes to a decoder and asserts what must hold for
//! what it accepts. `fuzz/` runs them under libFuzzer, the tests below over mutants of the seeds.

use throng_model::Timestamp;

use crate::{EventLog, FileLog};

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

/// The newest segment of a log, as it is and with its checksums made right. What is read of a log that
/// opens is in the order of its offsets.
pub fn log_segment(bytes: &[u8]) {
    open(bytes);
    let mut sealed = bytes.to_vec();
    crate::file::seal_segment(&mut sealed);
    open(&sealed);
}

fn open(bytes: &[u8]) {
    let dir = folder();
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
    // Damage may be found only when a record is read.
    let _ = read;
}

/// A segment of some commits, and one without records.
pub fn log_segment_seeds() -> Vec<Vec<u8>> {
    [0, 3].map(segment_of).to_vec()
}

fn segment_of(commits: u64) -> Vec<u8> {
    let dir = folder();
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

/// In memory, where there is such a folder: a log syncs what it writes.
fn folder() -> tempfile::TempDir {
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

/// Batches without compression and with two codecs.
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
