//! What every feed promises: one suite, for the feed in memory and the one on the broker that
//! `cargo xtask test` starts.

#![expect(clippy::unwrap_used, reason = "tests: a panic is how a case fails")]

use std::sync::Arc;

use throng_aggregator::{Feed, FrameStream, KafkaFeed, LocalFeed};
use throng_feed::{FeedEntry, Frame, FrameKind, PassThroughRate};
use throng_log::{KafkaLog, KafkaOptions, KafkaTable, LogError};
use throng_model::{AdGroupIndex, Micros, Timestamp};

fn frame(partition: u32, version: u64, is_keyframe: bool) -> Arc<Frame> {
    let kind = match is_keyframe {
        true => FrameKind::Keyframe,
        false => FrameKind::Delta { base_version: version - 1 },
    };
    let entry = FeedEntry {
        index: AdGroupIndex(3),
        actual: Micros(version as i64),
        in_flight: Micros(5),
        flags: 0,
        pass_through_rate: PassThroughRate::ALL,
    };
    Arc::new(Frame {
        partition,
        epoch: 5,
        version,
        kind,
        at: Timestamp(version as i64),
        catalog_version: 2,
        log_position: Some(10 * version),
        entries: vec![entry],
    })
}

async fn publish(feed: &dyn Feed, frame: Arc<Frame>) {
    feed.publish(frame, Timestamp(1)).await.unwrap();
}

/// Reads up to the frame of this version.
async fn read_until(frames: &mut dyn FrameStream, version: u64) -> Vec<Arc<Frame>> {
    let mut read: Vec<Arc<Frame>> = Vec::new();
    while read.last().is_none_or(|last| last.version != version) {
        read.extend(frames.next().await.unwrap());
    }
    read
}

/// Partition and version of the newest keyframes.
async fn keyframes(feed: &dyn Feed) -> Vec<(u32, u64)> {
    let all = feed.latest_keyframes().await.unwrap();
    let mut all: Vec<(u32, u64)> = all.iter().map(|one| (one.partition, one.version)).collect();
    all.sort_unstable();
    all
}

/// Runs every case on a feed of two partitions without frames.
async fn suite(feed: &dyn Feed) {
    assert!(keyframes(feed).await.is_empty());
    let mut early = feed.follow(1).await.unwrap();
    let first = [frame(1, 1, true), frame(1, 2, false), frame(1, 3, false)];
    for frame in &first {
        publish(feed, Arc::clone(frame)).await;
    }
    assert_eq!(read_until(&mut *early, 3).await, first, "a reader from before the first frame");
    let mut late = feed.follow(1).await.unwrap();
    assert_eq!(read_until(&mut *late, 3).await, first, "a reader that comes later");

    // The end moves with each frame of the partition alone.
    let end = feed.end(1).await.unwrap();
    publish(feed, frame(0, 7, true)).await;
    assert_eq!(feed.end(1).await.unwrap(), end);
    publish(feed, frame(1, 4, false)).await;
    assert!(feed.end(1).await.unwrap() > end);
    assert_eq!(keyframes(feed).await, [(0, 7), (1, 1)]);
    assert_eq!(read_until(&mut *late, 4).await, [frame(1, 4, false)]);

    // A reader that lags, and one that begins, get a keyframe and all that follows it.
    for version in 5..=95 {
        publish(feed, frame(1, version, version % 10 == 0)).await;
    }
    assert_eq!(keyframes(feed).await, [(0, 7), (1, 90)]);
    let mut new = feed.follow(1).await.unwrap();
    for frames in [&mut early, &mut late, &mut new] {
        let read = read_until(&mut **frames, 95).await;
        let keyframe = read.iter().rposition(|frame| frame.kind == FrameKind::Keyframe);
        let expected: Vec<Arc<Frame>> = (90..=95).map(|n| frame(1, n, n == 90)).collect();
        assert_eq!(read[keyframe.unwrap()..], expected);
    }
    assert!(matches!(feed.follow(2).await, Err(LogError::NoSuchPartition { .. })));
    assert!(matches!(feed.end(2).await, Err(LogError::NoSuchPartition { .. })));
}

#[tokio::test]
async fn the_feed_in_memory_passes() {
    suite(&LocalFeed::new(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_on_kafka_passes() {
    let brokers = std::env::var("THRONG_KAFKA")
        .expect("THRONG_KAFKA is not set: run the tests by `cargo xtask test`");
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().file_name().unwrap().to_str().unwrap().trim_matches('.').to_owned();
    let options = KafkaOptions { brokers, prefix: format!("feed-it-{run}"), tls: None, sasl: None };
    let frames = KafkaLog::open(&options, "feed", 2).await.unwrap();
    let keyframes = KafkaTable::open(&options, "keyframes").await.unwrap();
    suite(&KafkaFeed::new(Arc::new(frames), keyframes)).await;
}
