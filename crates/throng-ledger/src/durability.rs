//! When a commit returns.

/// When a commit of SQLite returns; the documentation of `sqlite` says what depends on it. All commits of
/// PostgreSQL are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// After it is on the disk.
    Full,
    /// After the operating system has its pages.
    Relaxed,
}
