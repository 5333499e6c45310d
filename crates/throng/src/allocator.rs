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

#[cfg(test)]
mod tests {
    use std::ffi::c_long;
    use std::process::Command;

    use super::*;

    const VARIABLE: &str = "MIMALLOC_PURGE_DELAY";
    const MILLIS: c_long = 12_347;

    /// The option moves to another number with another version of mimalloc. This program, started again with the
    /// variable of the option, finds the variable's value under the number.
    #[test]
    fn the_number_of_the_option_is_that_of_its_variable() {
        let name = "allocator::tests::the_number_of_the_option_is_that_of_its_variable";
        if std::env::var(VARIABLE).is_ok_and(|value| value == MILLIS.to_string()) {
            return_freed_memory_at_once();
            // SAFETY: reads a number in a table of options.
            #[allow(unsafe_code)]
            let found = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
            assert_eq!(found, MILLIS, "the environment takes precedence");
            return;
        }
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program);
        child.args(["--exact", name, "--nocapture"]).env(VARIABLE, MILLIS.to_string());
        let ended = child.output().unwrap();
        let printed = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && printed.contains("1 passed"), "{ended:?}");
    }
}
