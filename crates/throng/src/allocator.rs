//! The global allocator, and its setting in processes that stay up.

use std::ffi::c_int;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3, which libmimalloc-sys does not name.
const PURGE_DELAY: c_int = 15;

/// Makes the allocator return freed pages to the system at once. Its default is a second after the last one was freed,
/// which a busy node never reaches: with refreshes of 60,000 rows the node took 1.7 times the memory, and throughput
/// of events was the same (docs/benchmarks.md). Query workers keep the default: they allocate and free large buffers all
/// the time, and then exit. `MIMALLOC_PURGE_DELAY` in the environment takes precedence.
pub(crate) fn return_freed_memory_at_once() {
    // SAFETY: sets a number in a table of options; called before other threads are started.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 0);
    }
}
