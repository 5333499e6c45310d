//! Why a worker exited, by its standard error and its exit status. Pure.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::limits::resident_bytes;

/// The exit code after a panic.
pub(crate) const PANICKED: i32 = 101;
/// The start of a panic's line on standard error.
pub(crate) const PANICKED_AT: &str = "panicked at ";

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

/// Derives the cause from the last lines of standard error and the exit status.
pub(crate) fn exit_cause(
    stderr: &str,
    status: Option<ExitStatus>,
    memory_bytes: u64,
) -> WorkerExit {
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
}
