//! A consumer group's share: which partitions are this process's. Kafka decides and watches; the
//! records themselves are read elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::sync::watch;

use crate::{LogError, Result};

use super::client::{KafkaSettings, failed};

/// How soon a group notices that a member is gone.
#[derive(Debug, Clone, Copy)]
pub struct GroupTiming {
    /// A member that is silent for so long has lost its partitions. The brokers'
    /// `group.min.session.timeout.ms` is the least (6 s unless set).
    pub session: Duration,
    /// A member whose process does not look for records for so long has lost its partitions, even
    /// if its connection lives (`max.poll.interval.ms`). Not shorter than `session`. Throng's own
    /// threads look all the time, however long work takes: this is for a process that hangs.
    pub max_poll: Duration,
}

impl Default for GroupTiming {
    fn default() -> Self {
        // The second is what Kafka's clients have when nobody sets it.
        Self { session: Duration::from_secs(6), max_poll: Duration::from_secs(300) }
    }
}

impl GroupTiming {
    pub(super) fn session_ms(self) -> String {
        self.session.as_millis().to_string()
    }

    pub(super) fn max_poll_ms(self) -> String {
        self.max_poll.max(self.session).as_millis().to_string()
    }

    pub(super) fn heartbeat_ms(self) -> String {
        // Also how soon a member hears that partitions are dealt anew.
        (self.session.as_millis() / 4).clamp(100, 3_000).to_string()
    }
}

/// Membership in a consumer group of a topic, for its partitions only. Dropping it leaves the
/// group at once, so that the others take over without waiting.
#[derive(Debug)]
pub struct Share {
    partitions: watch::Receiver<Vec<u32>>,
    stop: Arc<AtomicBool>,
}

impl Share {
    /// Joins the group `<prefix>.<group>` of the topic `<prefix>.<topic>`.
    ///
    /// # Errors
    /// [`LogError::Kafka`].
    pub fn join(
        settings: &KafkaSettings,
        topic: &str,
        group: &str,
        timing: GroupTiming,
    ) -> Result<Self> {
        let topic = settings.named(topic);
        let (sender, partitions) = watch::channel(Vec::new());
        let consumer: BaseConsumer<Watcher> = settings
            .config()
            .set("group.id", settings.named(group))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "latest")
            // Partitions that stay are not taken away for a moment.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", timing.session_ms())
            .set("heartbeat.interval.ms", timing.heartbeat_ms())
            .set("max.poll.interval.ms", timing.max_poll_ms())
            .create_with_context(Watcher { sender })
            .map_err(failed("join the group of", &topic))?;
        consumer.subscribe(&[&topic]).map_err(failed("join the group of", &topic))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("share".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    // Rebalances are served by polling; records do not come, as all is paused.
                    if let Some(Err(error)) = consumer.poll(Duration::from_millis(100)) {
                        tracing::debug!(%error, "the group is reached again when a broker answers");
                    }
                }
                consumer.unsubscribe();
            })
            .map_err(|source| LogError::Io {
                doing: "start a thread for",
                path: topic.into(),
                source,
            })?;
        Ok(Self { partitions, stop })
    }

    /// The partitions that are this process's now, ascending.
    pub fn partitions(&self) -> Vec<u32> {
        self.partitions.borrow().clone()
    }

    /// Waits until the share changes. `false` if the group is left.
    pub async fn changed(&mut self) -> bool {
        self.partitions.changed().await.is_ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Tells what the group gives and takes.
struct Watcher {
    sender: watch::Sender<Vec<u32>>,
}

fn numbers(list: &TopicPartitionList) -> Vec<u32> {
    let mut numbers: Vec<u32> =
        list.elements().iter().filter_map(|e| u32::try_from(e.partition()).ok()).collect();
    numbers.sort_unstable();
    numbers
}

impl ClientContext for Watcher {}

impl ConsumerContext for Watcher {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let gone = numbers(list);
            self.sender.send_modify(|mine| mine.retain(|p| !gone.contains(p)));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            if let Err(error) = consumer.pause(list) {
                tracing::warn!(%error, "partitions of a share were not paused");
            }
            let new = numbers(list);
            self.sender.send_modify(|mine| {
                mine.extend(new);
                mine.sort_unstable();
                mine.dedup();
            });
        }
    }
}
