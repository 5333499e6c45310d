//! When a commit returns.

/// When a commit of SQLite returns; `sqlite.rs` says what depends on it. All commits of PostgreSQL are
/// durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After it is on the disk.
    Full,
    /// After the operating system has its pages.
    Relaxed,
}
