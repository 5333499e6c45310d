//! Who gets the problems of backends.

/// What a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendProblem {
    /// The ledger does not respond, or refuses writes.
    Ledger,
    /// The disk of the data directory is full, or refuses writes.
    Disk,
    /// The data directory is not the one that was opened.
    DataDirectory,
    /// The servers of the event log do not answer.
    Log,
}

/// Receives the problems of backends.
pub trait BackendReporter: Send + Sync {
    /// A problem exists since now, or has another detail. `key`: which one of several about the same thing.
    /// `detail`: what happened and how to fix it, without values of the data.
    fn report(&self, problem: BackendProblem, key: &str, detail: String);

    /// A problem is resolved. Does nothing if it was not reported.
    fn clear(&self, problem: BackendProblem, key: &str);

    /// The data directory accepts writes: errors of its disk that others have met are over.
    fn disk_is_writable(&self);
}
