//! One worker, as its parent sees it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use super::child::{PANICKED, PANICKED_AT};
use super::confine::Unopened;
use super::limits::resident_bytes;
use super::protocol::{self, HEAD, Kind, Reply, Request, Setup};
use super::spawner::Spawner;
use super::spill::SpillFolder;
use super::{SUBCOMMAND, WorkerCommand};
use crate::{HashedRow, LakeError, Sink};

/// How often a worker's memory is looked at. `RLIMIT_DATA` stops what is faster.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long a new worker may take until it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a worker whose pipes are closed may take to end before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of a worker's standard error is kept, in bytes.
const STDERR_BYTES: usize = 4096;
/// The size of the pipe that keys come through, in bytes.
const PIPE_BYTES: usize = 1 << 20;
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// The number of the signal that cannot be caught.
const SIGKILL: i32 = 9;

/// Why a query worker is gone before it answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerDeath {
    /// It used more memory than a query may use.
    #[error("killed: more than memory_limit_bytes (a query may use {limit_mib} MiB in all)")]
    Memory {
        /// What a query's process may use.
        limit_mib: u64,
    },
    /// It ran for too long.
    #[error("killed: ran longer than query_timeout_secs ({limit_secs} s)")]
    Timeout {
        /// The limit.
        limit_secs: u64,
    },
    /// The statement is nested too deeply for the planner.
    #[error("crashed: the statement is too deep for the planner's stack")]
    Stack,
    /// The engine has a bug.
    #[error("crashed: the engine panicked at {at}")]
    Panicked {
        /// File and line.
        at: String,
    },
    /// A signal that this process did not send.
    #[error("{}", signal_in_words(*.0))]
    Signal(i32),
    /// It ended by itself.
    #[error("ended with exit code {0}")]
    Exit(i32),
    /// It answered what is no answer.
    #[error("killed: it answered something that is no answer")]
    Protocol,
}

fn signal_in_words(signal: i32) -> String {
    if signal == SIGKILL {
        return "killed: signal 9, by another program or by the kernel for want of memory".into();
    }
    format!("crashed: signal {signal}")
}

/// What the last lines of standard error and the exit status say together. Pure.
fn death(stderr: &str, status: Option<ExitStatus>, memory_bytes: u64) -> WorkerDeath {
    let limit_mib = resident_bytes(memory_bytes) >> 20;
    // What Rust's allocator and mimalloc say before they abort.
    let no_memory = ["memory allocation of", "unable to allocate", "out of memory"];
    if no_memory.iter().any(|words| stderr.contains(words)) {
        return WorkerDeath::Memory { limit_mib };
    }
    if stderr.contains("has overflowed its stack") {
        return WorkerDeath::Stack;
    }
    let signal = status.and_then(|status| status.signal());
    let code = status.and_then(|status| status.code());
    match (signal, code) {
        (Some(signal), _) => WorkerDeath::Signal(signal),
        (None, Some(PANICKED)) => {
            let place = stderr.lines().find_map(|line| line.strip_prefix(PANICKED_AT));
            WorkerDeath::Panicked { at: short(place.unwrap_or("an unknown place")) }
        }
        (None, Some(code)) => WorkerDeath::Exit(code),
        (None, None) => WorkerDeath::Protocol,
    }
}

/// The last two parts of a path with its line.
fn short(place: &str) -> String {
    let parts: Vec<&str> = place.rsplitn(4, '/').take(3).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

/// Anonymous memory of a process in bytes: `RssAnon` of proc_pid_status(5). `None` if it is gone.
pub(super) fn anonymous_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// Where the keys or rows of a request go.
pub(crate) enum Output<'a, 'b> {
    /// It has none.
    None,
    /// Keys of a scan.
    Keys(&'a mut Sink<'b>),
    /// Rows of identifiers.
    Rows(&'a mpsc::Sender<Result<Vec<HashedRow>, LakeError>>),
}

/// A running worker. Killed and reaped when dropped.
#[derive(Debug)]
pub(super) struct Worker {
    child: Option<Child>,
    pid: u32,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: Arc<Mutex<Vec<u8>>>,
    memory_bytes: u64,
    /// Folders of sources that it could not open, and has no right to.
    pub(super) unopened: Vec<Unopened>,
    /// Queries that it has answered.
    pub(super) served: u32,
    spill: Option<SpillFolder>,
}

impl Worker {
    /// Starts a worker and waits until it is set up.
    pub(super) async fn start(
        spawner: &Spawner,
        program: &WorkerCommand,
        setup: &Setup,
        spill: Option<SpillFolder>,
    ) -> Result<Self, LakeError> {
        let failed = |source| LakeError::Start { program: name_of(&program.program), source };
        let mut command = Command::new(&program.program);
        command
            .arg0(format!("throng {SUBCOMMAND}"))
            .args(&program.args)
            .env_clear()
            // Memory that mimalloc only reserves must not count as used.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = spawner.spawn(command).await.map_err(failed)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take(), child.id());
        let (Some(stdin), Some(stdout), Some(stderr), Some(pid)) = pipes else {
            return Err(failed(io::Error::other("it ended at once")));
        };
        // Only a matter of speed: a system may allow less.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES);
        let kept = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(keep_stderr(stderr, Arc::clone(&kept)));
        let mut worker = Self {
            child: Some(child),
            pid,
            stdin,
            stdout: BufReader::with_capacity(READ_BYTES, stdout),
            stderr: kept,
            memory_bytes: setup.memory_bytes,
            unopened: Vec::new(),
            served: 0,
            spill,
        };
        let ready = async {
            worker.send(setup).await?;
            worker.reply(Output::None).await
        };
        match tokio::time::timeout(START_TIMEOUT, ready).await {
            Ok(Ok(Reply::Ready { unopened })) => {
                worker.unopened = unopened;
                Ok(worker)
            }
            Ok(Ok(Reply::Failed(failure))) => Err(failure.into()),
            Ok(Ok(_)) => Err(failed(protocol::invalid("it is no query worker"))),
            Ok(Err(Lost::Sink(error))) => Err(LakeError::Sink(error)),
            Ok(Err(Lost::Pipe(error))) => {
                let death = worker.wait_death(&error).await;
                Err(failed(io::Error::other(death)))
            }
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Does one request. After an error the worker must be dropped, unless the error came from the
    /// worker itself in a [`Reply::Failed`].
    pub(super) async fn exchange(
        &mut self,
        request: &Request,
        timeout: Duration,
        output: Output<'_, '_>,
    ) -> Result<Reply, LakeError> {
        let (pid, memory_bytes) = (self.pid, self.memory_bytes);
        let lost = tokio::select! {
            biased;
            reply = async {
                self.send(request).await?;
                self.reply(output).await
            } => match reply {
                Ok(reply) => {
                    self.served += 1;
                    return Ok(reply);
                }
                Err(Lost::Sink(error)) => return Err(LakeError::Sink(error)),
                Err(Lost::Pipe(error)) => error,
            },
            death = over_memory(pid, memory_bytes) => return Err(LakeError::Died(death)),
            () = tokio::time::sleep(timeout) => {
                let limit_secs = timeout.as_secs();
                return Err(LakeError::Died(WorkerDeath::Timeout { limit_secs }));
            }
        };
        Err(LakeError::Died(self.wait_death(&lost).await))
    }

    async fn send(&mut self, message: &impl serde::Serialize) -> Result<(), Lost> {
        self.stdin.write_all(&protocol::control(message)?).await?;
        Ok(())
    }

    /// Hands keys and rows on until a message comes.
    async fn reply(&mut self, mut output: Output<'_, '_>) -> Result<Reply, Lost> {
        let mut payload = Vec::new();
        loop {
            let mut head = [0; HEAD];
            self.stdout.read_exact(&mut head).await?;
            let (length, kind) = protocol::head(head)?;
            payload.resize(length, 0);
            self.stdout.read_exact(&mut payload).await?;
            match (kind, &mut output) {
                (Kind::Control, _) => return Ok(protocol::message(&payload)?),
                (Kind::Keys, Output::Keys(sink)) => {
                    sink(protocol::read_keys(&payload)?).map_err(Lost::Sink)?;
                }
                (Kind::Rows, Output::Rows(sender)) => {
                    let sent = sender.send(Ok(protocol::read_rows(&payload)?)).await;
                    sent.map_err(|_| Lost::Sink("nobody reads the identifiers".into()))?;
                }
                _ => return Err(protocol::invalid("an answer that nobody asked for").into()),
            }
            // Between batches other work of the runtime gets its turn.
            tokio::task::yield_now().await;
        }
    }

    /// Why a worker whose pipe failed is gone.
    async fn wait_death(&mut self, error: &io::Error) -> WorkerDeath {
        if error.kind() == io::ErrorKind::InvalidData {
            return WorkerDeath::Protocol;
        }
        let Some(child) = &mut self.child else { return WorkerDeath::Protocol };
        let status = tokio::time::timeout(END_TIMEOUT, child.wait()).await;
        let status = status.ok().and_then(Result::ok);
        // What was written before the end is read by now, or comes with the next turn.
        tokio::task::yield_now().await;
        let stderr = self.stderr.lock();
        death(&String::from_utf8_lossy(&stderr), status, self.memory_bytes)
    }

    /// Whether it still has the folder that it spills into, if it has one.
    pub(super) fn can_spill(&self) -> bool {
        self.spill.as_ref().is_none_or(|spill| spill.path().is_dir())
    }

    /// Anonymous memory in bytes; `None` if the process is gone.
    pub(super) fn anonymous_bytes(&mut self) -> Option<u64> {
        let child = self.child.as_mut()?;
        match child.try_wait() {
            Ok(None) => anonymous_bytes(self.pid),
            _ => None,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Ended already is fine.
        let _ = child.start_kill();
        let spill = self.spill.take();
        // The folder goes when nobody writes to it any more.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = child.wait().await;
                drop(spill);
            });
        }
    }
}

/// Why an exchange broke off.
enum Lost {
    Pipe(io::Error),
    Sink(Box<dyn std::error::Error + Send + Sync>),
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Pipe(error)
    }
}

/// Returns when a worker uses more memory than it may.
async fn over_memory(pid: u32, memory_bytes: u64) -> WorkerDeath {
    let limit = resident_bytes(memory_bytes);
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        if anonymous_bytes(pid).is_some_and(|used| used > limit) {
            return WorkerDeath::Memory { limit_mib: limit >> 20 };
        }
    }
}

/// Keeps the last bytes of standard error. They are searched for known words and shown to nobody.
async fn keep_stderr(mut stderr: ChildStderr, kept: Arc<Mutex<Vec<u8>>>) {
    let mut chunk = [0; 1024];
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        let mut kept = kept.lock();
        kept.extend_from_slice(&chunk[..length]);
        let surplus = kept.len().saturating_sub(STDERR_BYTES);
        kept.drain(..surplus);
    }
}

fn name_of(program: &Path) -> String {
    std::fs::read_link(program).unwrap_or_else(|_| program.to_owned()).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn died(stderr: &str, status: i32) -> String {
        death(stderr, Some(ExitStatus::from_raw(status)), 64 << 20).to_string()
    }

    #[test]
    fn causes_are_told_in_words_and_never_by_what_the_worker_wrote() {
        let text = "memory allocation of 4096 bytes failed\n";
        assert!(died(text, 6).starts_with("killed: more than memory_limit_bytes"));
        assert!(died("thread 'planner' has overflowed its stack", 6).contains("too deep"));
        assert_eq!(died("ann@example.com", 6), "crashed: signal 6");
        assert!(died("", 9).starts_with("killed: signal 9"));
        let panic = "panicked at /home/x/datafusion-1/src/plan.rs:7\nann@example.com";
        assert_eq!(
            died(panic, PANICKED << 8),
            "crashed: the engine panicked at datafusion-1/src/plan.rs:7"
        );
        assert_eq!(died("", 3 << 8), "ended with exit code 3");
    }

    #[test]
    fn the_memory_of_a_process_is_read() {
        assert!(anonymous_bytes(std::process::id()).unwrap() > 0);
        assert_eq!(anonymous_bytes(u32::MAX), None);
    }
}
