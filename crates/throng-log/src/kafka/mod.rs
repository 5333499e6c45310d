//! Kafka behind the traits of this crate: topics as logs, consumer groups for assigning partitions and
//! work.

mod client;
mod group;
mod log;
mod producer;
mod queue;
mod reachability;
mod reader;
mod settings;
mod table;
mod tail;
mod threads;
mod topic;

pub use client::{HAS_KAFKA_TLS, KafkaOptions, Sasl, Tls};
pub use group::{GroupTiming, PartitionAssignment};
pub use log::KafkaLog;
pub use queue::KafkaQueue;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use reader::{fuzz as fuzz_batches, fuzz_seeds as batch_seeds};
pub use settings::{TopicDifferences, TopicUse};
pub use table::KafkaTable;
pub use threads::wait_until_clients_close;
pub use topic::{TopicReport, check_brokers, check_topics};
