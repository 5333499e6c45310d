//! Resource limits of a query worker. Pure.

/// Stack of the planner thread: reserved, used only by deeply nested statements.
pub(crate) const PLANNER_STACK: usize = 256 << 20;
/// Stack of each other thread.
pub(crate) const THREAD_STACK: usize = 32 << 20;
/// Memory of a worker besides that of its operators: the engine itself, open files and batches in
/// transit.
const BASE_BYTES: u64 = 256 << 20;
/// Address space that the allocator may reserve without using it.
const RESERVED_BYTES: u64 = 512 << 20;
/// A worker that still uses more memory than this after a query is replaced.
pub(crate) const REUSE_BYTES: u64 = 192 << 20;
/// Queries after which a worker is replaced.
pub(crate) const REUSE_QUERIES: u32 = 500;

/// Threads that read files.
pub(crate) fn blocking_threads(threads: usize) -> usize {
    threads + 2
}

/// The most anonymous memory, in bytes, that a worker may have in use: 1.6 times the memory of its
/// operators, which sorts were measured to need, and 256 MiB.
pub(crate) fn resident_bytes(memory_bytes: u64) -> u64 {
    memory_bytes.saturating_mul(8).saturating_div(5).saturating_add(BASE_BYTES)
}

/// `RLIMIT_DATA`: [`resident_bytes`], all stacks and what the allocator reserves. The kernel counts
/// writable private memory whether it is used or not.
pub(crate) fn data_bytes(memory_bytes: u64, threads: usize) -> u64 {
    let stacks = PLANNER_STACK + THREAD_STACK * (threads + blocking_threads(threads));
    resident_bytes(memory_bytes).saturating_add(stacks as u64).saturating_add(RESERVED_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_limit_leaves_room_for_the_stacks() {
        let memory = 128 << 20;
        assert_eq!(resident_bytes(memory), (128 << 20) * 8 / 5 + (256 << 20));
        assert!(data_bytes(memory, 2) > resident_bytes(memory) + (PLANNER_STACK as u64));
    }
}
