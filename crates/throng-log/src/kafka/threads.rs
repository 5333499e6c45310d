//! The threads that own clients of Kafka, and their end before that of the process. An exit in between may crash: with
//! TLS, the library frees what open connections still use.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{Builder, JoinHandle, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use crate::{LogError, Result};

/// Long enough for brokers that answer: a consumer leaves its group, and messages in flight are delivered.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Those that may run still.
static THREADS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Starts a thread that owns a client for a topic, and ends when it is closed.
///
/// # Errors
/// [`LogError::Io`] if no thread can be started.
pub(super) fn start(
    name: &str,
    topic: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<Thread> {
    let started = Builder::new().name(name.to_owned()).spawn(run);
    let failed = |source| LogError::Io { doing: "start a thread for", path: topic.into(), source };
    let started = started.map_err(failed)?;
    let thread = started.thread().clone();
    let mut threads = THREADS.lock();
    threads.retain(|thread| !thread.is_finished());
    threads.push(started);
    Ok(thread)
}

/// Waits until the clients are closed of all logs, tables, queues and assignments of this process that are dropped, for
/// up to five seconds. To be called at the end of `main`, when the runtime is dropped: an exit in between may crash.
/// Blocks the thread.
pub fn wait_until_clients_close() {
    let threads = std::mem::take(&mut *THREADS.lock());
    if !join(threads, CLOSE_TIMEOUT) {
        let timeout_secs = CLOSE_TIMEOUT.as_secs();
        tracing::warn!(timeout_secs, "clients of Kafka were not closed in time");
    }
}

/// Whether all of them end in time.
fn join(threads: Vec<JoinHandle<()>>, timeout: Duration) -> bool {
    if threads.is_empty() {
        return true;
    }
    // A join has no timeout: another thread joins them, and closes this channel.
    let (sender, receiver) = mpsc::channel::<()>();
    let joining = Builder::new().name("kafka-close".to_owned()).spawn(move || {
        // A thread that has panicked has ended too.
        threads.into_iter().for_each(|thread| _ = thread.join());
        drop(sender);
    });
    joining.is_ok() && receiver.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_joined_or_left_after_the_timeout() {
        // Longer than the test.
        let long = Duration::from_secs(600);
        assert!(join(Vec::new(), Duration::ZERO));
        let (sender, receiver) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        let waiting = std::thread::spawn(move || {
            _ = receiver.recv();
            _ = ended.send(());
        });
        assert!(!join(vec![waiting], Duration::from_millis(1)));
        drop(sender);
        end.recv().unwrap();
        let (ended, end) = mpsc::channel();
        let threads = (0..3).map(|number| {
            let ended = ended.clone();
            std::thread::spawn(move || _ = ended.send(number))
        });
        assert!(join(threads.collect(), long));
        drop(ended);
        assert_eq!(end.iter().count(), 3, "they have ended before");
    }
}
