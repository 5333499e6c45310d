//! The thread that starts workers. The kernel ends a worker when the *thread* that started it ends
//! (`PR_SET_PDEATHSIG`), so workers are started by a thread that lives as long as they do, and not
//! by one of the runtime's threads.

use std::io;
use std::sync::mpsc;

use parking_lot::Mutex;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

struct Job {
    command: Command,
    runtime: Handle,
    answer: oneshot::Sender<io::Result<Child>>,
}

/// Starts processes from one thread. When it is dropped, the thread ends, and the kernel kills the
/// processes that it has started.
#[derive(Debug, Default)]
pub(crate) struct Spawner {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

impl Spawner {
    /// Starts a process, on the runtime of the caller.
    pub(crate) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, started) = oneshot::channel();
        let job = Job { command, runtime: Handle::current(), answer };
        let ended = || io::Error::other("the thread that starts query workers has ended");
        self.sender()?.send(job).map_err(|_| ended())?;
        started.await.map_err(|_| ended())?
    }

    fn sender(&self) -> io::Result<mpsc::Sender<Job>> {
        let mut jobs = self.jobs.lock();
        if let Some(sender) = &*jobs {
            return Ok(sender.clone());
        }
        let (sender, received) = mpsc::channel::<Job>();
        std::thread::Builder::new().name("query-workers".into()).spawn(move || {
            while let Ok(Job { mut command, runtime, answer }) = received.recv() {
                let _runtime = runtime.enter();
                // If the caller no longer waits, the child is killed when it is dropped.
                let _ = answer.send(command.spawn());
            }
        })?;
        Ok(jobs.insert(sender).clone())
    }
}
