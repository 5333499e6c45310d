//! Records of other producers, with every codec, with transactions, and over secured connections.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, Producer};
use throng_log::{EventLog, KafkaLog, KafkaOptions, LogError, Record, Sasl, Tls, check_brokers};
use throng_model::{Clock, Secret, SystemClock, Timestamp};

use crate::kafka::settings;

const TIMEOUT: Duration = Duration::from_secs(120);

fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests by `cargo xtask test`"))
}

/// The first `count` records of partition 0.
async fn follow(log: &KafkaLog, count: usize) -> Result<Vec<Record>, LogError> {
    let mut tail = log.tail(0, 0).await?;
    let mut records = Vec::new();
    while records.len() < count {
        records.extend(tail.next().await?);
    }
    Ok(records)
}

fn values(records: &[Record]) -> Vec<&[u8]> {
    records.iter().map(|record| &record.value[..]).collect()
}

fn producer(settings: &KafkaOptions, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.brokers);
    more.iter().for_each(|(name, value)| {
        config.set(*name, *value);
    });
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_every_codec_are_read() {
    let settings = settings();
    let log = KafkaLog::open(&settings, "compressed", 1).await.unwrap();
    let topic = settings.named("compressed");
    let mut sent = Vec::new();
    for method in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let producer: BaseProducer =
            producer(&settings, &[("compression.type", method), ("linger.ms", "50")])
                .create()
                .unwrap();
        for number in 0..2_000 {
            let value = format!("{method} {number} of values that are much like each other");
            producer.send(BaseRecord::<(), str>::to(&topic).payload(&value)).unwrap();
            sent.push(value);
        }
        producer.flush(TIMEOUT).unwrap();
    }
    let read = log.read(0, 0, usize::MAX).await.unwrap();
    let sent: Vec<&[u8]> = sent.iter().map(|value| value.as_bytes()).collect();
    assert_eq!(values(&read), sent);
    assert!((0..).zip(&read).all(|(offset, record)| record.offset == offset));
    assert_eq!(follow(&log, sent.len()).await.unwrap(), read);
    let from = read.len() as u64 - 3;
    assert_eq!(log.read(0, from, usize::MAX).await.unwrap(), read[read.len() - 3..]);
    // Without the header, the time is the brokers' timestamp.
    let now = SystemClock.now();
    assert!(
        read.iter().all(|record| now.0.abs_diff(record.at.0) < 600_000_000),
        "{:?}",
        read[0].at
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_aborted_transactions_are_not_read() {
    let settings = settings();
    let log = KafkaLog::open(&settings, "transactions", 1).await.unwrap();
    let topic = settings.named("transactions");
    let id = settings.named("producer");
    let producer: FutureProducer =
        producer(&settings, &[("transactional.id", &id)]).create().unwrap();
    let written = tokio::task::spawn_blocking(move || {
        producer.init_transactions(TIMEOUT)?;
        for (value, commits) in [("kept", true), ("aborted", false), ("kept too", true)] {
            producer.begin_transaction()?;
            for part in 0..3 {
                let value = format!("{value} {part}");
                let record = rdkafka::producer::FutureRecord::<(), str>::to(&topic).payload(&value);
                let _delivery = producer.send_result(record).map_err(|(error, _)| error)?;
            }
            producer.flush(TIMEOUT)?;
            match commits {
                true => producer.commit_transaction(TIMEOUT)?,
                false => producer.abort_transaction(TIMEOUT)?,
            }
        }
        Ok::<_, rdkafka::error::KafkaError>(())
    });
    written.await.unwrap().unwrap();
    log.append(0, Timestamp(7), vec![Bytes::from_static(b"last")]).await.unwrap();
    let wanted: Vec<&[u8]> =
        vec![b"kept 0", b"kept 1", b"kept 2", b"kept too 0", b"kept too 1", b"kept too 2", b"last"];
    let read = log.read(0, 0, usize::MAX).await.unwrap();
    assert_eq!(values(&read), wanted);
    assert_eq!(follow(&log, wanted.len()).await.unwrap(), read);
    assert_eq!(read.last().unwrap().at, Timestamp(7));
    // Nine records and three control records come before it.
    assert_eq!(read.last().unwrap().offset, 12);
    // From the aborted transaction on: none of its records, and all of the next one.
    let rest = log.read(0, 4, usize::MAX).await.unwrap();
    assert_eq!(values(&rest), wanted[3..]);
}

fn secure(mechanism: &str, username: String) -> KafkaOptions {
    KafkaOptions {
        brokers: setting("THRONG_KAFKA_SECURE"),
        tls: Some(Tls { ca_file: Some(PathBuf::from(setting("THRONG_CA"))) }),
        sasl: Some(Sasl {
            mechanism: mechanism.to_owned(),
            username,
            password: Secret::new(setting("THRONG_KAFKA_PASSWORD")),
        }),
        ..settings()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sasl_mechanism_works() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let settings = secure(mechanism, setting("THRONG_KAFKA_USER"));
        let log = KafkaLog::open(&settings, "secure", 1).await.unwrap();
        log.append(0, Timestamp(1), vec![Bytes::from_static(b"a secret")]).await.unwrap();
        assert_eq!(values(&follow(&log, 1).await.unwrap()), [b"a secret"], "{mechanism}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_rights_are_reported_with_a_hint() {
    let user = secure("PLAIN", setting("THRONG_KAFKA_USER"));
    KafkaLog::open(&user, "there", 1).await.unwrap();
    let guest = KafkaOptions { sasl: secure("PLAIN", setting("THRONG_KAFKA_GUEST")).sasl, ..user };
    for topic in ["there", "missing"] {
        let error = check_brokers(&guest, &[topic]).await.unwrap_err().to_string();
        assert!(error.contains("give the user the rights in docs/operate/kafka.md"), "{error}");
        assert!(error.contains(&guest.named(topic)), "{error}");
    }
    let refused = KafkaLog::open(&guest, "there", 1).await.unwrap_err().to_string();
    assert!(refused.contains("give the user the rights"), "{refused}");
}
