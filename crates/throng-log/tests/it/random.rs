//! Random operations on a log, compared with a list.

use bytes::Bytes;
use proptest::prelude::*;
use throng_log::{EventLog, FileLog, LogError};
use throng_model::Timestamp;

use crate::options;

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Vec<u8>>),
    Truncate(u64),
    Reopen,
    /// Bytes of a write that was never completed.
    Torn(Vec<u8>),
    Read(u64, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        4 => proptest::collection::vec(bytes(), 0..6).prop_map(Step::Append),
        1 => (0u64..60).prop_map(Step::Truncate),
        1 => Just(Step::Reopen),
        1 => bytes().prop_map(Step::Torn),
        3 => (0u64..60, 0usize..200).prop_map(|(from, max_bytes)| Step::Read(from, max_bytes)),
    ]
}

async fn apply_and_check(steps: Vec<Step>, segment_bytes: u64) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let open = || FileLog::open_with(dir.path(), options(1, segment_bytes)).unwrap();
    let mut log = open();
    let mut model: Vec<(i64, Vec<u8>)> = Vec::new();
    for (now, step) in steps.into_iter().enumerate() {
        let now = now as i64;
        match step {
            Step::Append(values) => {
                let bytes = values.iter().cloned().map(Bytes::from).collect();
                let first = log.append(0, Timestamp(now), bytes).await.unwrap();
                prop_assert_eq!(first, model.len() as u64);
                model.extend(values.into_iter().map(|v| (now, v)));
            }
            Step::Truncate(offset) => log.truncate_before(0, offset).await.unwrap(),
            Step::Reopen => {
                drop(log);
                log = open();
            }
            Step::Torn(tail) => {
                drop(log);
                let last = std::fs::read_dir(dir.path().join("0"))
                    .unwrap()
                    .map(|e| e.unwrap().path())
                    .max()
                    .unwrap();
                let mut bytes = std::fs::read(&last).unwrap();
                bytes.extend(tail);
                std::fs::write(&last, bytes).unwrap();
                log = open();
            }
            Step::Read(from, max_bytes) => {
                let first = log.start(0).await.unwrap();
                match log.read(0, from, max_bytes).await {
                    Err(LogError::OffsetOutOfRange { .. }) => prop_assert!(from < first),
                    Err(other) => return Err(TestCaseError::fail(other.to_string())),
                    Ok(records) => {
                        prop_assert!(from >= first);
                        prop_assert_eq!(records.is_empty(), from >= model.len() as u64);
                        for (n, record) in records.iter().enumerate() {
                            let (at, value) = &model[usize::try_from(from).unwrap() + n];
                            prop_assert_eq!(record.offset, from + n as u64);
                            prop_assert_eq!(record.at, Timestamp(*at));
                            prop_assert_eq!(&record.value, value);
                        }
                    }
                }
            }
        }
        prop_assert_eq!(log.end(0).await.unwrap(), model.len() as u64);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]
    #[test]
    fn a_log_is_a_list(
        steps in proptest::collection::vec(step(), 1..40),
        segment_bytes in 40u64..2_000,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(apply_and_check(steps, segment_bytes))?;
    }
}
