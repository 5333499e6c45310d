//! The test suite that every backend passes: each promise in the documentation of [`EventLog`] has a
//! case.
//!
//! Each case opens logs under names of its own, so that cases can run concurrently on one backend.

#![expect(clippy::unwrap_used, reason = "a test suite: a panic is how a case fails")]

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use throng_model::Timestamp;

use crate::{EventLog, LogError, Message, Queue, Record};

/// An event log under test.
#[async_trait]
pub trait LogBackend: Send + Sync {
    /// Opens the log of this name with three partitions: a new one on the first call, later the same
    /// one again, when every earlier handle is dropped.
    async fn open(&self, name: &str) -> Arc<dyn EventLog>;
}

/// Runs every case on a backend.
///
/// # Panics
/// If a promise is broken; the message and the location say which.
pub async fn suite(backend: &dyn LogBackend) {
    offsets_are_dense(&*backend.open("dense").await).await;
    partitions_are_independent(&*backend.open("partitions").await).await;
    unknown_partitions_are_refused(&*backend.open("unknown").await).await;
    unusual_values_are_read_back(&*backend.open("unusual").await).await;
    a_read_is_bounded_and_makes_progress(&*backend.open("bounded").await).await;
    concurrent_appends_are_all_stored(backend.open("concurrent").await).await;
    truncation_keeps_records_from_the_offset_on(&*backend.open("truncated").await).await;
    everything_is_there_after_reopening(backend).await;
    a_tail_returns_old_and_new_records(backend.open("tail").await).await;
    a_tail_that_lags_misses_nothing(&*backend.open("lagging").await).await;
}

fn value(text: impl ToString) -> Bytes {
    Bytes::from(text.to_string())
}

async fn all(log: &dyn EventLog, partition: u32) -> Vec<Record> {
    let mut records = Vec::new();
    let mut from = log.start(partition).await.unwrap();
    loop {
        let more = log.read(partition, from, 1000).await.unwrap();
        let Some(last) = more.last() else { return records };
        from = last.offset + 1;
        records.extend(more);
    }
}

async fn offsets_are_dense(log: &dyn EventLog) {
    assert_eq!((log.start(0).await.unwrap(), log.end(0).await.unwrap()), (0, 0));
    assert_eq!(log.read(0, 0, 100).await.unwrap(), []);
    assert_eq!(log.append(0, Timestamp(5), vec![value("a"), value("b")]).await.unwrap(), 0);
    assert_eq!(log.append(0, Timestamp(4), vec![value("c")]).await.unwrap(), 2);
    assert_eq!(log.append(0, Timestamp(4), vec![]).await.unwrap(), 3);
    let expected = [(0, 5, "a"), (1, 5, "b"), (2, 4, "c")].map(|(offset, at, v)| Record {
        offset,
        at: Timestamp(at),
        value: value(v),
    });
    assert_eq!(all(log, 0).await, expected);
    assert_eq!(log.read(0, 2, 100).await.unwrap(), expected[2..]);
    assert_eq!(log.read(0, 3, 100).await.unwrap(), []);
    assert_eq!(log.end(0).await.unwrap(), 3);
}

async fn partitions_are_independent(log: &dyn EventLog) {
    assert_eq!(log.partitions(), 3);
    for partition in 0..3 {
        let first = log.append(partition, Timestamp(1), vec![value(partition)]).await.unwrap();
        assert_eq!(first, 0);
    }
    for partition in 0..3 {
        assert_eq!(all(log, partition).await[0].value, value(partition));
    }
}

async fn unknown_partitions_are_refused(log: &dyn EventLog) {
    let appended = log.append(3, Timestamp(1), vec![value("a")]).await;
    assert!(matches!(appended, Err(LogError::NoSuchPartition { .. })));
    assert!(matches!(log.read(3, 0, 1).await, Err(LogError::NoSuchPartition { .. })));
    assert!(matches!(log.truncate_before(9, 0).await, Err(LogError::NoSuchPartition { .. })));
}

async fn unusual_values_are_read_back(log: &dyn EventLog) {
    let values = vec![
        Bytes::new(),
        Bytes::from_static(&[0; 100]),
        Bytes::from(vec![255; 300_000]),
        Bytes::from_static(b"THRNGLOG\n"),
    ];
    log.append(0, Timestamp(i64::MIN), values.clone()).await.unwrap();
    let back: Vec<Bytes> = all(log, 0).await.into_iter().map(|r| r.value).collect();
    assert_eq!(back, values);
    let large = Bytes::from(vec![0; (16 << 20) + 1]);
    let refused = log.append(0, Timestamp(0), vec![value("first"), large]).await;
    assert!(matches!(refused, Err(LogError::RecordTooLarge { .. })));
    assert_eq!(log.end(0).await.unwrap(), 4, "a refused append leaves no records");
}

async fn a_read_is_bounded_and_makes_progress(log: &dyn EventLog) {
    let values = (0..10).map(|_| Bytes::from_static(&[7; 100])).collect();
    log.append(0, Timestamp(0), values).await.unwrap();
    assert_eq!(log.read(0, 0, 350).await.unwrap().len(), 3);
    assert_eq!(log.read(0, 4, 0).await.unwrap().len(), 1);
    assert_eq!(log.read(0, 8, 1 << 20).await.unwrap().len(), 2);
}

async fn concurrent_appends_are_all_stored(log: Arc<dyn EventLog>) {
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let values = vec![value(format!("{n}a")), value(format!("{n}b"))];
                (n, log.append(1, Timestamp(n), values).await.unwrap())
            })
        })
        .collect();
    let mut firsts = Vec::new();
    for task in tasks {
        firsts.push(task.await.unwrap());
    }
    let records = all(&*log, 1).await;
    assert_eq!(records.len(), 128);
    for (n, first) in firsts {
        let first = usize::try_from(first).unwrap();
        assert_eq!(records[first].value, value(format!("{n}a")));
        assert_eq!(records[first + 1].value, value(format!("{n}b")), "consecutive offsets");
    }
}

async fn truncation_keeps_records_from_the_offset_on(log: &dyn EventLog) {
    for n in 0..200 {
        log.append(2, Timestamp(n), vec![Bytes::from(vec![1; 100])]).await.unwrap();
    }
    log.truncate_before(2, 150).await.unwrap();
    let start = log.start(2).await.unwrap();
    assert!(start <= 150);
    let kept: Vec<u64> = all(log, 2).await.iter().map(|r| r.offset).collect();
    assert_eq!(kept, (start..200).collect::<Vec<u64>>());
    if start > 0 {
        assert!(matches!(log.read(2, start - 1, 1).await, Err(LogError::OffsetOutOfRange { .. })));
    }
    log.truncate_before(2, u64::MAX).await.unwrap();
    assert_eq!(log.end(2).await.unwrap(), 200);
    assert_eq!(log.append(2, Timestamp(0), vec![value("next")]).await.unwrap(), 200);
}

async fn everything_is_there_after_reopening(backend: &dyn LogBackend) {
    for round in 0..5 {
        let log = backend.open("reopened").await;
        assert_eq!(log.end(0).await.unwrap(), round * 3);
        let values = (0..3).map(|n| value(round * 3 + n)).collect();
        assert_eq!(log.append(0, Timestamp(0), values).await.unwrap(), round * 3);
    }
    let log = backend.open("reopened").await;
    for (n, record) in all(&*log, 0).await.into_iter().enumerate() {
        assert_eq!((record.offset, record.value), (n as u64, value(n)));
    }
    assert_eq!(log.end(0).await.unwrap(), 15);
}

async fn a_tail_returns_old_and_new_records(log: Arc<dyn EventLog>) {
    let old = (0..3).map(value).collect();
    log.append(1, Timestamp(7), old).await.unwrap();
    let mut tail = log.tail(1, 1).await.unwrap();
    let appending = {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            for n in 3..100 {
                log.append(1, Timestamp(n), vec![value(n)]).await.unwrap();
            }
        })
    };
    let mut seen = Vec::new();
    while seen.len() < 99 {
        let records = tail.next().await.unwrap();
        assert!(!records.is_empty(), "a tail waits until there is a record");
        assert_eq!(tail.position(), records.last().unwrap().offset + 1);
        seen.extend(records);
    }
    appending.await.unwrap();
    for (n, record) in (1..100).zip(seen) {
        let at = Timestamp(if n < 3 { 7 } else { n });
        assert_eq!((record.offset, record.at, record.value), (n as u64, at, value(n)));
    }
    assert!(matches!(log.tail(7, 0).await, Err(LogError::NoSuchPartition { .. })));
}

async fn a_tail_that_lags_misses_nothing(log: &dyn EventLog) {
    let mut tail = log.tail(0, 0).await.unwrap();
    let value = |n: u64| Bytes::from(vec![n as u8; 100_000]);
    let mut next = 0;
    for round in 0..4 {
        // More than a log keeps in memory for a tail, with and without older records before them.
        for n in round * 60..(round + 1) * 60 {
            log.append(0, Timestamp(n as i64), vec![value(n)]).await.unwrap();
        }
        let until = if round == 3 { 240 } else { round * 60 + 30 };
        while next < until {
            for record in tail.next().await.unwrap() {
                assert_eq!((record.offset, record.at), (next, Timestamp(next as i64)));
                assert_eq!(record.value, value(next));
                next += 1;
            }
        }
    }
    assert_eq!(tail.position(), 240);
}

/// A queue under test.
#[async_trait]
pub trait QueueBackend: Send + Sync {
    /// A handle of one more consumer of the one queue.
    async fn consumer(&self) -> Arc<dyn Queue>;
}

/// Runs every case on a queue.
///
/// # Panics
/// If a promise is broken; the message and the location say which.
pub async fn queue_suite(backend: &dyn QueueBackend) {
    let (one, two) = (backend.consumer().await, backend.consumer().await);
    // A rebalance may deliver a message to two consumers: the promise is at least once.
    let expected: std::collections::BTreeSet<String> =
        (0..500).map(|n| format!("work {n}")).collect();
    let messages = expected.iter().map(|text| Message::new(text.as_str(), text.clone())).collect();
    one.put(messages).await.unwrap();
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let all_seen = tokio::sync::Notify::new();
    let consume = async |queue: Arc<dyn Queue>| {
        loop {
            let message = queue.take().await.unwrap();
            let text = String::from_utf8(message.body.to_vec()).unwrap();
            assert_eq!(message.key, text, "key and body belong together");
            queue.done(&message).await.unwrap();
            let mut seen = seen.lock().unwrap();
            seen.insert(text);
            if seen.len() == expected.len() {
                all_seen.notify_one();
            }
        }
    };
    tokio::select! {
        () = consume(one) => {}
        () = consume(two) => {}
        () = all_seen.notified() => {}
    }
    assert_eq!(*seen.lock().unwrap(), expected);
}
