//! A thread pool for the blocking work of builders on files and shards: one thread for each core,
//! started once and kept as long as the process runs.
//!
//! The runtime's own pool of blocking threads is not used: it starts a thread for every job that
//! waits, up to 512, and each of them holds memory of the allocator that other threads cannot use.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::error::RefreshError;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads that share one queue. Dropping it stops them when the queue is empty.
struct Pool {
    queue: Sender<Job>,
}

static POOL: LazyLock<std::io::Result<Pool>> =
    LazyLock::new(|| Pool::new(std::thread::available_parallelism().map_or(2, usize::from)));

impl Pool {
    /// Fails only if no thread can be started.
    fn new(threads: usize) -> std::io::Result<Self> {
        let (queue, jobs) = channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        let mut failed = None;
        let mut running = 0;
        for number in 0..threads.max(1) {
            let jobs = Arc::clone(&jobs);
            let thread = std::thread::Builder::new().name(format!("throng-build-{number}"));
            match thread.spawn(move || run_jobs(&jobs)) {
                Ok(_) => running += 1,
                Err(error) => failed = Some(error),
            }
        }
        // Fewer threads are slower and not wrong: only without any would the work wait forever.
        match failed {
            Some(error) if running == 0 => Err(error),
            _ => Ok(Self { queue }),
        }
    }

    /// Runs `work` on a thread of the pool. If the future is dropped before the work has started,
    /// it is not started.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, RefreshError> + Send + 'static,
    ) -> Result<T, RefreshError> {
        let (answer, answered) = oneshot::channel();
        let job = move || {
            // A refresh that was halted or cancelled: its work would keep the threads from that of
            // others.
            if answer.is_closed() {
                return;
            }
            // A panic would end the thread, and no other one is started until the process ends.
            let result = std::panic::catch_unwind(AssertUnwindSafe(work));
            // The refresh may have been halted meanwhile: then nothing waits for the answer.
            let _ = answer.send(result.unwrap_or(Err(RefreshError::Panicked)));
        };
        if self.queue.send(Box::new(job)).is_err() {
            return Err(RefreshError::Panicked);
        }
        answered.await.unwrap_or(Err(RefreshError::Panicked))
    }
}

fn run_jobs(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held only while a thread waits for its next job, not while it works.
        let job = jobs.lock().recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

/// Runs blocking work of a builder on a thread of the pool, when one is free.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RefreshError> + Send + 'static,
) -> Result<T, RefreshError> {
    match &*POOL {
        Ok(pool) => pool.run(work).await,
        // The pool could not start a thread; the runtime may have an idle one.
        Err(_) => tokio::task::spawn_blocking(work).await.unwrap_or(Err(RefreshError::Panicked)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread::ThreadId;

    use super::*;

    #[tokio::test]
    async fn work_runs_on_no_more_threads_than_the_pool_has() {
        let pool = Pool::new(3).unwrap();
        let together = Arc::new(Barrier::new(3));
        let jobs = (0..300).map(|_| {
            let together = Arc::clone(&together);
            pool.run(move || {
                // Waits for three jobs at a time: with fewer threads this would never end.
                together.wait();
                Ok(std::thread::current().id())
            })
        });
        let ran: Vec<Result<ThreadId, RefreshError>> = futures::future::join_all(jobs).await;
        let threads: HashSet<ThreadId> = ran.into_iter().map(Result::unwrap).collect();
        assert_eq!(threads.len(), 3);
    }

    #[tokio::test]
    async fn a_panic_fails_its_work_and_no_other() {
        let pool = Pool::new(1).unwrap();
        let panicked = pool.run::<()>(|| panic!("expected by the test")).await;
        assert!(matches!(panicked, Err(RefreshError::Panicked)));
        assert_eq!(pool.run(|| Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_whose_future_is_dropped_is_not_started() {
        let pool = Pool::new(1).unwrap();
        let (release, wait) = channel::<()>();
        let first = pool.run(move || Ok(wait.recv().is_ok()));
        let (start, started) = channel::<()>();
        let second = pool.run(move || Ok(start.send(()).is_ok()));
        tokio::pin!(first);
        assert!(futures::poll!(&mut first).is_pending());
        {
            tokio::pin!(second);
            assert!(futures::poll!(&mut second).is_pending());
        }
        release.send(()).unwrap();
        assert!(first.await.unwrap());
        // The one thread has skipped the second job by the time that it runs a third one.
        assert!(pool.run(|| Ok(true)).await.unwrap());
        assert!(started.try_recv().is_err());
    }
}
