//! Whether any broker answers, known without an append. A request for metadata says so: soon after the client has lost
//! its connections, and every few seconds, as brokers behind a network that drops packets close none.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::retry::{RETRY_DELAYS, TIMEOUT, retry};

use super::producer::Producer;

/// The timeout of one request. Short, so that its thread does not outlast the log for long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// When brokers are asked, and how soon they have to answer.
struct Timing {
    /// Between two requests without a cause.
    interval: Duration,
    /// For an answer to them, with retries. As long as a request of other calls may take: a broker that is slow is not
    /// an outage.
    timeout: Duration,
    /// For an answer after the client has lost its connections to all brokers. Longer than a new connection takes: a
    /// broker closes idle ones, and that is not an outage either.
    reconnect: Duration,
}

const TIMING: Timing = Timing {
    interval: Duration::from_secs(10),
    timeout: TIMEOUT,
    reconnect: Duration::from_secs(5),
};

/// Receives the errors of a client's connections.
pub(super) struct Connections {
    /// All are lost.
    lost: Arc<Notify>,
}

impl ClientContext for Connections {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "connection to a broker failed");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.lost.notify_one();
        }
    }
}

/// The producer of a log.
pub(super) type LogProducer = Producer<Connections>;

/// Follows whether any broker answers a producer, until it is dropped.
pub(super) struct Reachability {
    reachable: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Reachability {
    /// The context of a producer, and what [`follow`](Self::follow) needs of it.
    pub(super) fn context() -> (Connections, Arc<Notify>) {
        let lost = Arc::new(Notify::new());
        (Connections { lost: Arc::clone(&lost) }, lost)
    }

    /// Must be called in a Tokio runtime.
    pub(super) fn follow(producer: LogProducer, topic: String, lost: Arc<Notify>) -> Self {
        let (sender, reachable) = watch::channel(true);
        let task = tokio::spawn(async move {
            let name = topic.as_str();
            follow(
                || answer(&producer, name),
                &lost,
                &TIMING,
                |is_reachable| {
                    match is_reachable {
                        true => tracing::info!(topic = name, "brokers answer again"),
                        false => tracing::warn!(topic = name, "no broker answers"),
                    }
                    sender.send_replace(is_reachable);
                },
            )
            .await;
        });
        Self { reachable, task }
    }

    /// Whether any broker answers, as far as it is known.
    pub(super) fn is_reachable(&self) -> bool {
        *self.reachable.borrow()
    }

    pub(super) fn receiver(&self) -> watch::Receiver<bool> {
        self.reachable.clone()
    }
}

impl Drop for Reachability {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until a broker answers a request.
async fn answer(producer: &LogProducer, topic: &str) {
    retry((), RETRY_DELAYS, |()| async move {
        let (producer, topic) = (producer.clone(), topic.to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            producer.fetch_metadata(&topic, REQUEST_TIMEOUT).is_ok()
        });
        match asked.await {
            Ok(true) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })
    .await;
}

/// Asks again and again, and reports when no broker has answered in time, and when one answers again.
async fn follow<F>(ask: impl Fn() -> F, lost: &Notify, timing: &Timing, report: impl Fn(bool))
where
    F: Future<Output = ()>,
{
    loop {
        let limit = tokio::select! {
            () = lost.notified() => timing.reconnect,
            () = tokio::time::sleep(timing.interval) => timing.timeout,
        };
        let mut answered = std::pin::pin!(ask());
        if tokio::time::timeout(limit, answered.as_mut()).await.is_err() {
            report(false);
            answered.await;
            report(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rdkafka::mocking::MockCluster;
    use throng_model::{Retry, Timestamp};
    use tokio::sync::{Semaphore, mpsc};

    use super::*;
    use crate::{EventLog as _, KafkaLog, KafkaOptions, LogError};

    /// Longer than any test.
    const LONG: Duration = Duration::from_secs(3_600);

    /// A loop whose brokers answer as often as a test says.
    struct Asked {
        requests: mpsc::UnboundedReceiver<()>,
        answers: Arc<Semaphore>,
        lost: Arc<Notify>,
        reachable: watch::Receiver<bool>,
        task: JoinHandle<()>,
    }

    impl Asked {
        fn start(timing: Timing) -> Self {
            let (asked, requests) = mpsc::unbounded_channel();
            let (answers, lost) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
            let (sender, reachable) = watch::channel(true);
            let (permits, losses) = (Arc::clone(&answers), Arc::clone(&lost));
            let task = tokio::spawn(async move {
                let ask = || {
                    asked.send(()).unwrap();
                    let permits = Arc::clone(&permits);
                    async move {
                        permits.acquire().await.unwrap().forget();
                    }
                };
                let report = |is_reachable| _ = sender.send_replace(is_reachable);
                follow(ask, &losses, &timing, report).await;
            });
            Self { requests, answers, lost, reachable, task }
        }
    }

    #[tokio::test]
    async fn connections_that_are_made_again_are_not_an_outage() {
        let mut asked = Asked::start(Timing { interval: LONG, timeout: LONG, reconnect: LONG });
        for _ in 0..3 {
            asked.lost.notify_one();
            asked.requests.recv().await.unwrap();
            asked.answers.add_permits(1);
        }
        assert!(*asked.reachable.borrow() && !asked.reachable.has_changed().unwrap());
        asked.task.abort();
    }

    #[tokio::test]
    async fn brokers_that_do_not_answer_in_time_are_an_outage_until_one_does() {
        let noticed = Timing { interval: LONG, timeout: LONG, reconnect: Duration::ZERO };
        let unnoticed =
            Timing { interval: Duration::ZERO, timeout: Duration::ZERO, reconnect: LONG };
        for (timing, is_noticed) in [(noticed, true), (unnoticed, false)] {
            let mut asked = Asked::start(timing);
            if is_noticed {
                asked.lost.notify_one();
            }
            asked.reachable.wait_for(|is_reachable| !is_reachable).await.unwrap();
            // All requests from now on.
            asked.answers.add_permits(1 << 20);
            asked.reachable.wait_for(|is_reachable| *is_reachable).await.unwrap();
            asked.task.abort();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_log_without_brokers_refuses_appends_at_once_until_they_are_back() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t.events", 1, 1).unwrap();
        let (brokers, prefix) = (cluster.bootstrap_servers(), "t".to_owned());
        let options = KafkaOptions { brokers, prefix, tls: None, sasl: None };
        let log = KafkaLog::of_topic(&options, options.named("events"), 1).unwrap();
        let mut reachable = log.reachability().unwrap();
        let append = async || log.append(0, Timestamp(1), vec![Bytes::from_static(b"event")]).await;
        append().await.unwrap();
        cluster.broker_down(-1).unwrap();
        reachable.wait_for(|is_reachable| !is_reachable).await.unwrap();
        let refused = append().await.unwrap_err();
        assert!(matches!(refused, LogError::Unreachable { .. }), "{refused}");
        assert_eq!((refused.may_be_appended(), refused.retry()), (false, Retry::Backoff));
        let probed = log.append(0, Timestamp(1), Vec::new()).await;
        assert!(matches!(probed, Err(LogError::Unreachable { .. })), "{probed:?}");
        cluster.broker_up(-1).unwrap();
        reachable.wait_for(|is_reachable| *is_reachable).await.unwrap();
        append().await.unwrap();
    }
}
