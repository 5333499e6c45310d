//! The parent's side of one worker.

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
use super::confine::UnopenedFolder;
use super::limits::resident_bytes;
use super::protocol::{self, HEAD, PipeFrameKind, Reply, Request, Setup};
use super::spawner::Spawner;
use super::spill::SpillFolder;
use super::{SUBCOMMAND, WorkerCommand};
use crate::{HashedRow, LakeError, Sink};

/// How often a worker's memory is read. `RLIMIT_DATA` stops a worker that allocates faster.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The longest time until a new worker is ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time until a worker whose pipes are closed exits; then it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a worker's standard error that are kept: the last ones.
const STDERR_BYTES: usize = 4096;
/// The size of the pipe that keys come through, in bytes.
const PIPE_BYTES: usize = 1 << 20;
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// The number of the signal that cannot be caught.
const SIGKILL: i32 = 9;

/// Why a query worker exited before it had answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerExit {
    /// It used more memory than a query may use.
    #[error("killed: more than memory_limit_bytes (a query may use {limit_mib} MiB in all)")]
    Memory {
        /// What a query's process may use.
        limit_mib: u64,
    },
    /// It exceeded the time limit.
    #[error("killed: ran longer than query_timeout_secs ({limit_secs} s)")]
    Timeout {
        /// The limit.
        limit_secs: u64,
    },
    /// The statement is nested too deeply for the planner.
    #[error("crashed: the statement is too deep for the planner's stack")]
    Stack,
    /// The engine panicked: a bug.
    #[error("crashed: the engine panicked at {at}")]
    Panicked {
        /// File and line.
        at: String,
    },
    /// A signal that this process did not send.
    #[error("{}", describe_signal(*.0))]
    Signal(i32),
    /// It exited by itself.
    #[error("ended with exit code {0}")]
    Exit(i32),
    /// Its answer is not a valid message.
    #[error("killed: it sent an invalid answer")]
    Protocol,
}

fn describe_signal(signal: i32) -> String {
    if signal == SIGKILL {
        return "killed: signal 9, by another program or by the kernel because memory ran out"
            .into();
    }
    format!("crashed: signal {signal}")
}

/// Derives the cause from the last lines of standard error and the exit status. Pure.
fn exit_cause(stderr: &str, status: Option<ExitStatus>, memory_bytes: u64) -> WorkerExit {
    let limit_mib = resident_bytes(memory_bytes) >> 20;
    // The messages of Rust's allocator and of mimalloc before they abort.
    let no_memory = ["memory allocation of", "unable to allocate", "out of memory"];
    if no_memory.iter().any(|words| stderr.contains(words)) {
        return WorkerExit::Memory { limit_mib };
    }
    if stderr.contains("has overflowed its stack") {
        return WorkerExit::Stack;
    }
    let signal = status.and_then(|status| status.signal());
    let code = status.and_then(|status| status.code());
    match (signal, code) {
        (Some(signal), _) => WorkerExit::Signal(signal),
        (None, Some(PANICKED)) => {
            let place = stderr.lines().find_map(|line| line.strip_prefix(PANICKED_AT));
            WorkerExit::Panicked { at: short(place.unwrap_or("an unknown place")) }
        }
        (None, Some(code)) => WorkerExit::Exit(code),
        (None, None) => WorkerExit::Protocol,
    }
}

/// The last two parts of a path with its line.
fn short(place: &str) -> String {
    let parts: Vec<&str> = place.rsplitn(4, '/').take(3).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

/// Anonymous memory of a process in bytes: `RssAnon` of proc_pid_status(5). `None` if it has
/// exited.
pub(super) fn anonymous_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// Receives the keys or rows of a request.
pub(crate) enum Output<'a, 'b> {
    /// The request has none.
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
    /// Folders of sources that it could not open, and so has no right to.
    pub(super) unopened: Vec<UnopenedFolder>,
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
            // Memory that mimalloc reserves in advance would count as used.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = spawner.spawn(command).await.map_err(failed)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take(), child.id());
        let (Some(stdin), Some(stdout), Some(stderr), Some(pid)) = pipes else {
            return Err(failed(io::Error::other("it exited at once")));
        };
        // Only for speed: a system may allow less.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES);
        let last_bytes = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(read_stderr(stderr, Arc::clone(&last_bytes)));
        let mut worker = Self {
            child: Some(child),
            pid,
            stdin,
            stdout: BufReader::with_capacity(READ_BYTES, stdout),
            stderr: last_bytes,
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
            Ok(Ok(_)) => Err(failed(protocol::invalid("it is not a query worker"))),
            Ok(Err(ExchangeError::Sink(error))) => Err(LakeError::Sink(error)),
            Ok(Err(ExchangeError::Pipe(error))) => {
                let exit = worker.wait_exit(&error).await;
                Err(failed(io::Error::other(exit)))
            }
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Sends one request and reads its reply. After an error the worker must be dropped; an error
    /// that the worker itself reports is a [`Reply::Failed`].
    pub(super) async fn exchange(
        &mut self,
        request: &Request,
        timeout: Duration,
        output: Output<'_, '_>,
    ) -> Result<Reply, LakeError> {
        let (pid, memory_bytes) = (self.pid, self.memory_bytes);
        let pipe_error = tokio::select! {
            biased;
            reply = async {
                self.send(request).await?;
                self.reply(output).await
            } => match reply {
                Ok(reply) => {
                    self.served += 1;
                    return Ok(reply);
                }
                Err(ExchangeError::Sink(error)) => return Err(LakeError::Sink(error)),
                Err(ExchangeError::Pipe(error)) => error,
            },
            exit = memory_exceeded(pid, memory_bytes) => {
                return Err(LakeError::WorkerExited(exit));
            }
            () = tokio::time::sleep(timeout) => {
                let limit_secs = timeout.as_secs();
                return Err(LakeError::WorkerExited(WorkerExit::Timeout { limit_secs }));
            }
        };
        Err(LakeError::WorkerExited(self.wait_exit(&pipe_error).await))
    }

    async fn send(&mut self, message: &impl serde::Serialize) -> Result<(), ExchangeError> {
        self.stdin.write_all(&protocol::control(message)?).await?;
        Ok(())
    }

    /// Passes keys and rows on until a message arrives.
    async fn reply(&mut self, mut output: Output<'_, '_>) -> Result<Reply, ExchangeError> {
        let mut payload = Vec::new();
        loop {
            let mut head = [0; HEAD];
            self.stdout.read_exact(&mut head).await?;
            let (length, kind) = protocol::head(head)?;
            payload.resize(length, 0);
            self.stdout.read_exact(&mut payload).await?;
            match (kind, &mut output) {
                (PipeFrameKind::Control, _) => return Ok(protocol::message(&payload)?),
                (PipeFrameKind::Keys, Output::Keys(sink)) => {
                    sink(protocol::read_keys(&payload)?).map_err(ExchangeError::Sink)?;
                }
                (PipeFrameKind::Rows, Output::Rows(sender)) => {
                    let sent = sender.send(Ok(protocol::read_rows(&payload)?)).await;
                    sent.map_err(|_| {
                        ExchangeError::Sink("the stream of identifiers was dropped".into())
                    })?;
                }
                _ => return Err(protocol::invalid("an answer without a request").into()),
            }
            // Lets other tasks of the runtime run between batches.
            tokio::task::yield_now().await;
        }
    }

    /// Why a worker whose pipe failed has exited.
    async fn wait_exit(&mut self, error: &io::Error) -> WorkerExit {
        if error.kind() == io::ErrorKind::InvalidData {
            return WorkerExit::Protocol;
        }
        let Some(child) = &mut self.child else { return WorkerExit::Protocol };
        let status = tokio::time::timeout(END_TIMEOUT, child.wait()).await;
        let status = status.ok().and_then(Result::ok);
        // Lets the task that reads standard error store what the worker wrote last.
        tokio::task::yield_now().await;
        let stderr = self.stderr.lock();
        exit_cause(&String::from_utf8_lossy(&stderr), status, self.memory_bytes)
    }

    /// Whether its spill folder still exists, if it has one.
    pub(super) fn can_spill(&self) -> bool {
        self.spill.as_ref().is_none_or(|spill| spill.path().is_dir())
    }

    /// Anonymous memory in bytes; `None` if the process has exited.
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
        // It may have exited already.
        let _ = child.start_kill();
        let spill = self.spill.take();
        // The folder is removed after the process has exited and no longer writes to it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = child.wait().await;
                drop(spill);
            });
        }
    }
}

/// Why a request has no reply.
enum ExchangeError {
    Pipe(io::Error),
    Sink(Box<dyn std::error::Error + Send + Sync>),
}

impl From<io::Error> for ExchangeError {
    fn from(error: io::Error) -> Self {
        Self::Pipe(error)
    }
}

/// Returns when a worker uses more memory than it may.
async fn memory_exceeded(pid: u32, memory_bytes: u64) -> WorkerExit {
    let limit = resident_bytes(memory_bytes);
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        if anonymous_bytes(pid).is_some_and(|used| used > limit) {
            return WorkerExit::Memory { limit_mib: limit >> 20 };
        }
    }
}

/// Keeps the last bytes of standard error. They are only searched for known messages: they may
/// contain values, so they are never shown.
async fn read_stderr(mut stderr: ChildStderr, last_bytes: Arc<Mutex<Vec<u8>>>) {
    let mut chunk = [0; 1024];
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        let mut kept = last_bytes.lock();
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
        exit_cause(stderr, Some(ExitStatus::from_raw(status)), 64 << 20).to_string()
    }

    #[test]
    fn causes_are_described_without_the_output_of_the_worker() {
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
