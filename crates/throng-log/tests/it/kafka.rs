//! The Kafka backends pass the suites, with the broker that `cargo xtask test` starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use throng_log::conformance::{LogBackend, QueueBackend, queue_suite, suite};
use throng_log::{
    EventLog, GroupTiming, KafkaLog, KafkaOptions, KafkaQueue, KafkaTable, LogError, Message,
    PartitionAssignment, Queue, TopicDifferences, TopicUse, check_brokers, check_topics,
};
use throng_model::{Fault, Retry};

/// Settings with a prefix of this run alone.
pub(crate) fn settings() -> KafkaOptions {
    let brokers = std::env::var("THRONG_KAFKA")
        .expect("THRONG_KAFKA is not set: run the tests by `cargo xtask test`");
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().file_name().unwrap().to_str().unwrap().trim_matches('.').to_owned();
    KafkaOptions { brokers, prefix: format!("log-it-{run}"), tls: None, sasl: None }
}

struct Kafka(KafkaOptions);

#[async_trait]
impl LogBackend for Kafka {
    async fn open(&self, name: &str) -> Arc<dyn EventLog> {
        Arc::new(KafkaLog::open(&self.0, name, 3).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_passes() {
    suite(&Kafka(settings())).await;
}

struct Topic(KafkaOptions);

#[async_trait]
impl QueueBackend for Topic {
    async fn consumer(&self) -> Arc<dyn Queue> {
        let timing = GroupTiming::default();
        Arc::new(KafkaQueue::join(&self.0, "work", 4, timing).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_passes_as_a_queue() {
    queue_suite(&Topic(settings())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_in_flight_are_delivered_when_their_queue_is_dropped() {
    let settings = settings();
    let queue = KafkaQueue::open(&settings, "dropped", 1).await.unwrap();
    let messages = (0..3).map(|n| Message::new(n.to_string(), Vec::new())).collect();
    // The first poll adds the messages to the queue of the producer.
    assert!(queue.put(messages).now_or_never().is_none(), "no broker can have answered");
    drop(queue);
    let timing = GroupTiming::default();
    let consumer = KafkaQueue::join(&settings, "dropped", 1, timing).await.unwrap();
    for number in 0..3 {
        assert_eq!(consumer.take().await.unwrap().key, number.to_string());
    }
}

/// A task that takes longer than `max.poll.interval.ms`, in a process with so many messages that its
/// partition is paused: no other consumer gets these messages, and no message is delivered twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_task_keeps_its_partition() {
    let settings = settings();
    // Long enough that a process on a busy machine polls in time.
    let interval = Duration::from_secs(15);
    let timing = GroupTiming { session: interval, max_poll: interval };
    let join = || KafkaQueue::join(&settings, "long", 2, timing);
    let (long, quick) = (join().await.unwrap(), join().await.unwrap());
    let put = async |numbers: std::ops::Range<u32>| {
        let messages = numbers.map(|n| Message::new(n.to_string(), Vec::new())).collect();
        quick.put(messages).await.unwrap();
    };
    // Each has a partition once both have received messages in one round.
    let mut received = [false; 2];
    while received != [true; 2] {
        received = [false; 2];
        put(0..20).await;
        for _ in 0..20 {
            let (message, of, by) = tokio::select! {
                message = long.take() => (message.unwrap(), &long, 0),
                message = quick.take() => (message.unwrap(), &quick, 1),
            };
            of.done(&message).await.unwrap();
            received[by] = true;
        }
    }
    // On each partition more than a process prefetches, which is 256.
    put(1_000..2_200).await;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    // Messages of the rounds above may be delivered twice by the rebalances.
    let counts = |message: &Message| message.key.len() == 4;
    let unacknowledged = loop {
        let message = long.take().await.unwrap();
        if counts(&message) {
            break message;
        }
        long.done(&message).await.unwrap();
    };
    while let Ok(message) = tokio::time::timeout(2 * interval, quick.take()).await {
        let message = message.unwrap();
        quick.done(&message).await.unwrap();
        if counts(&message) {
            *seen.entry(message.key).or_default() += 1;
        }
    }
    assert!(
        !seen.contains_key(&unacknowledged.key),
        "an unacknowledged message was delivered to another consumer"
    );
    assert!(seen.len() < 900, "{} of 1,200: from both partitions", seen.len());
    long.done(&unacknowledged).await.unwrap();
    *seen.entry(unacknowledged.key).or_default() += 1;
    while seen.len() < 1_200 {
        let (message, of) = tokio::select! {
            message = long.take() => (message.unwrap(), &long),
            // None arrived for two intervals; on a busy machine some may arrive later.
            message = quick.take() => (message.unwrap(), &quick),
        };
        of.done(&message).await.unwrap();
        *seen.entry(message.key).or_default() += 1;
    }
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_assigned_to_members_and_reassigned() {
    let settings = settings();
    let log = KafkaLog::open(&settings, "events", 6).await.unwrap();
    assert_eq!(log.partitions(), 6);
    let join = || {
        PartitionAssignment::join(&settings, "events", "aggregate", GroupTiming::default()).unwrap()
    };
    let mut one = join();
    while one.partitions() != [0, 1, 2, 3, 4, 5] {
        assert!(one.changed().await);
    }
    let mut two = join();
    while two.partitions().len() < 3 || one.partitions().len() > 3 {
        tokio::select! {
            changed = one.changed() => assert!(changed),
            changed = two.changed() => assert!(changed),
        }
    }
    let mut all = [one.partitions(), two.partitions()].concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5], "each has one owner");
    drop(one);
    while two.partitions() != [0, 1, 2, 3, 4, 5] {
        assert!(two.changed().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_has_the_latest_value_of_each_key() {
    let settings = settings();
    let (one, two) = tokio::join!(
        KafkaTable::open(&settings, "keyframes"),
        KafkaTable::open(&settings, "keyframes"),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(one.all().await.unwrap().is_empty());
    for (key, value) in [("0", "old"), ("1", "only"), ("0", "new")] {
        one.put(key, value.as_bytes()).await.unwrap();
    }
    two.put("2", b"").await.unwrap();
    let all = two.all().await.unwrap();
    let all: Vec<(&str, &[u8])> = all.iter().map(|(k, v)| (k.as_str(), &v[..])).collect();
    assert_eq!(all, [("0", &b"new"[..]), ("1", b"only"), ("2", b"")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_has_its_keys_in_the_order_in_which_they_were_put() {
    let table = KafkaTable::open(&settings(), "keys").await.unwrap();
    assert!(table.keys("of/").await.unwrap().is_empty());
    for (key, value) in [("of/b", "1"), ("other", "1"), ("of/c", "1"), ("of/a", "1"), ("of/b", "2")]
    {
        table.put(key, value.as_bytes()).await.unwrap();
    }
    assert_eq!(table.keys("of/").await.unwrap(), ["of/b", "of/c", "of/a"]);
    table.put("of/b", b"").await.unwrap();
    assert_eq!(table.keys("of/").await.unwrap(), ["of/c", "of/a"], "an empty value removes it");
}

#[tokio::test]
async fn unreachable_brokers_are_reported_with_a_hint() {
    let unreachable = KafkaOptions { brokers: "127.0.0.1:1".into(), ..settings() };
    let error = check_brokers(&unreachable, &["events"]).await.unwrap_err().to_string();
    assert!(error.contains("node.kafka.brokers"), "{error}");
}

#[tokio::test]
async fn topics_are_inspected_and_none_is_created() {
    let settings = settings();
    KafkaLog::open(&settings, "there", 3).await.unwrap();
    for _ in 0..2 {
        let reports = check_brokers(&settings, &["there", "missing"]).await.unwrap();
        let found: Vec<_> = reports.iter().map(|r| (r.partitions, r.refusal.is_none())).collect();
        assert_eq!(found, [(Some(3), true), (None, true)], "{reports:?}");
    }
    let reports = check_brokers(&settings, &["no such name"]).await.unwrap();
    assert!(reports[0].refusal.is_some(), "{reports:?}");
}

/// The topics of a node; the test broker's number of partitions, 4, is not among theirs.
const TOPICS: [(&str, TopicUse, u32); 4] = [
    ("events", TopicUse::Events, 3),
    ("feed", TopicUse::Frames, 3),
    ("keyframes", TopicUse::Table, 1),
    ("tasks", TopicUse::Queue, 5),
];

/// A client with the defaults of Kafka, with which brokers create the topics that it names.
fn other_client(settings: &KafkaOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.brokers);
    config
}

/// Lets the brokers create a topic with their settings, as they do for a producer.
async fn let_the_brokers_create(settings: &KafkaOptions, name: &str) {
    let producer: FutureProducer = other_client(settings).create().unwrap();
    let topic = settings.named(name);
    let record = FutureRecord::<(), str>::to(&topic).payload("a record");
    producer.send(record, Duration::from_secs(60)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_with_their_settings_by_brokers_that_create_topics_themselves() {
    let settings = settings();
    for _ in 0..2 {
        let checked = check_topics(&settings, &TOPICS).await.unwrap();
        for (report, differences) in checked {
            assert_eq!((report.partitions, report.refusal), (None, None), "{}", report.topic);
            assert_eq!(differences, TopicDifferences::default(), "{}", report.topic);
        }
    }
    for _ in 0..2 {
        assert_eq!(KafkaLog::open(&settings, "events", 3).await.unwrap().partitions(), 3);
        assert_eq!(KafkaLog::open_frames(&settings, "feed", 3).await.unwrap().partitions(), 3);
        KafkaTable::open(&settings, "keyframes").await.unwrap();
        KafkaQueue::open(&settings, "tasks", 5).await.unwrap();
        let checked = check_topics(&settings, &TOPICS).await.unwrap();
        for ((report, differences), (name, _, partitions)) in checked.into_iter().zip(TOPICS) {
            assert_eq!(report.partitions, Some(partitions), "{name}");
            // Also if the brokers did not show the settings.
            assert_eq!(differences, TopicDifferences::default(), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_the_settings_of_the_brokers_is_refused_with_a_command() {
    let settings = settings();
    for (name, ..) in TOPICS {
        let_the_brokers_create(&settings, name).await;
    }
    let refused = KafkaLog::open(&settings, "events", 3).await.unwrap_err();
    assert!(matches!(refused, LogError::TopicSettings { .. }), "{refused}");
    assert_eq!((refused.fault(), refused.retry()), (Fault::User, Retry::Never));
    let text = refused.to_string();
    let topic = settings.named("events");
    let values = "max.message.bytes=17825792,message.timestamp.type=LogAppendTime";
    for part in [
        &*format!("the Kafka topic {topic} cannot be used"),
        "message.timestamp.type is CreateTime and must be LogAppendTime",
        "max.message.bytes is 1048588 and must be at least 8388608",
        &*format!("--bootstrap-server {} --alter", settings.brokers),
        &*format!("--entity-name {topic} --add-config {values}`"),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let frames = KafkaLog::open_frames(&settings, "feed", 3).await.unwrap_err().to_string();
    assert!(!frames.contains("is CreateTime"), "frames have their time in a header: {frames}");
    let table = KafkaTable::open(&settings, "keyframes").await.unwrap_err().to_string();
    assert!(table.contains("cleanup.policy is delete and must be compact"), "{table}");
    assert!(!table.contains("partitions"), "only the first one is used: {table}");
    // It works, with fewer consumers.
    KafkaQueue::open(&settings, "tasks", 5).await.unwrap();
    let checked = check_topics(&settings, &TOPICS).await.unwrap();
    let refused: Vec<usize> = checked.iter().map(|(_, found)| found.refused.len()).collect();
    assert_eq!(refused, [2, 1, 2, 0], "{checked:?}");
    assert_eq!(checked[3].1.warnings[0], "partitions is 4 and should be at least 5");
    // As the command does.
    let admin: AdminClient<DefaultClientContext> = other_client(&settings).create().unwrap();
    let resource = ResourceSpecifier::Topic(&topic);
    let mut change = AlterConfig::new(resource);
    for value in values.split(',') {
        let (name, value) = value.split_once('=').unwrap();
        change = change.set(name, value);
    }
    let changed = admin.alter_configs(&[change], &AdminOptions::new()).await.unwrap();
    assert!(changed.iter().all(|one| one.is_ok()), "{changed:?}");
    // The brokers apply it asynchronously.
    while !check_topics(&settings, &TOPICS[..1]).await.unwrap()[0].1.refused.is_empty() {}
    let log = KafkaLog::open(&settings, "events", 3).await.unwrap();
    assert_eq!(log.partitions(), 4, "it keeps its partitions");
}
