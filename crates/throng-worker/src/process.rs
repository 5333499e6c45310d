//! The node's side of one worker.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::command::{SUBCOMMAND, WorkerCommand};
use crate::error::WorkerError;
use crate::exit::{WorkerExit, exit_cause};
use crate::frame::{self, CONTROL, HEAD};
use crate::limits::resident_bytes;
use crate::output::{ExchangeError, NoOutput, Output};
use crate::setup::{Setup, SetupReply, UnopenedFolder};
use crate::spawner::Spawner;
use crate::spill::SpillFolder;

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

/// Anonymous memory of a process in bytes: `RssAnon` of proc_pid_status(5). `None` if it has
/// exited.
fn anonymous_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// A running worker. Killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Option<Child>,
    pid: u32,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: Arc<Mutex<Vec<u8>>>,
    memory_bytes: u64,
    /// Folders that it could not open, and so has no right to.
    pub(crate) unopened: Vec<UnopenedFolder>,
    /// Requests that it has answered.
    pub(crate) served: u32,
    spill: Option<SpillFolder>,
}

impl Worker {
    /// Starts a worker and waits until it is set up.
    pub(crate) async fn start<T: Serialize + Sync>(
        spawner: &Spawner,
        program: &WorkerCommand,
        setup: &Setup<T>,
        spill: Option<SpillFolder>,
    ) -> Result<Self, WorkerError> {
        let failed = |source| WorkerError::Start { program: name_of(&program.program), source };
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
            memory_bytes: setup.confinement.memory_bytes,
            unopened: Vec::new(),
            served: 0,
            spill,
        };
        let ready = async {
            worker.send(setup).await?;
            worker.reply::<SetupReply>(&mut NoOutput).await
        };
        match tokio::time::timeout(START_TIMEOUT, ready).await {
            Ok(Ok(SetupReply::Ready { unopened })) => {
                worker.unopened = unopened;
                Ok(worker)
            }
            Ok(Ok(SetupReply::Refused(refusal))) => {
                Err(WorkerError::Confine { what: refusal.what, source: refusal.error.into() })
            }
            Ok(Err(ExchangeError::Receiver(error))) => Err(WorkerError::Output(error)),
            Ok(Err(ExchangeError::Pipe(error))) => {
                let exit = worker.wait_exit(&error).await;
                Err(failed(io::Error::other(exit)))
            }
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Sends one request and reads its reply. After an error the worker must be dropped; an error
    /// that the worker itself reports is a reply.
    pub(crate) async fn exchange<Q: Serialize + Sync, R: DeserializeOwned + Send>(
        &mut self,
        request: &Q,
        timeout: Duration,
        output: &mut dyn Output,
    ) -> Result<R, WorkerError> {
        let (pid, memory_bytes) = (self.pid, self.memory_bytes);
        let pipe_error = tokio::select! {
            biased;
            reply = async {
                self.send(request).await?;
                self.reply::<R>(output).await
            } => match reply {
                Ok(reply) => {
                    self.served += 1;
                    return Ok(reply);
                }
                Err(ExchangeError::Receiver(error)) => return Err(WorkerError::Output(error)),
                Err(ExchangeError::Pipe(error)) => error,
            },
            exit = memory_exceeded(pid, memory_bytes) => {
                return Err(WorkerError::Exited(exit));
            }
            () = tokio::time::sleep(timeout) => {
                let limit_secs = timeout.as_secs();
                return Err(WorkerError::Exited(WorkerExit::Timeout { limit_secs }));
            }
        };
        Err(WorkerError::Exited(self.wait_exit(&pipe_error).await))
    }

    async fn send(&mut self, message: &(impl Serialize + Sync)) -> Result<(), ExchangeError> {
        self.stdin.write_all(&frame::control(message)?).await?;
        Ok(())
    }

    /// Passes data frames on until a message arrives.
    async fn reply<R: DeserializeOwned + Send>(
        &mut self,
        output: &mut dyn Output,
    ) -> Result<R, ExchangeError> {
        let mut payload = Vec::new();
        loop {
            let mut head = [0; HEAD];
            self.stdout.read_exact(&mut head).await?;
            let (length, kind) = frame::head(head)?;
            if kind != CONTROL && !output.accepts(kind) {
                return Err(frame::invalid("an answer without a request").into());
            }
            payload.resize(length, 0);
            self.stdout.read_exact(&mut payload).await?;
            if kind == CONTROL {
                return Ok(frame::message(&payload)?);
            }
            output.receive(kind, &payload).await?;
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
    pub(crate) fn can_spill(&self) -> bool {
        self.spill.as_ref().is_none_or(|spill| spill.path().is_dir())
    }

    /// Anonymous memory in bytes; `None` if the process has exited.
    pub(crate) fn anonymous_bytes(&mut self) -> Option<u64> {
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

    #[test]
    fn the_memory_of_a_process_is_read() {
        assert!(anonymous_bytes(std::process::id()).unwrap() > 0);
        assert_eq!(anonymous_bytes(u32::MAX), None);
    }
}
