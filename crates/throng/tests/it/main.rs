//! The product as its users see it: the binary, a real browser, and another SQL engine for the expected
//! results.
//!
//! Tests start in the order of their names, and one that waits for `process::HEAVY` keeps its thread. So the tests of
//! the modules between `demo` and `sharded_builds` run while the demo on shared engines holds it. The two hundred kills of
//! `chaos` wait for `process::TIMED` instead, which the demos hold: they run beside the faults of `chaos_shared`, which begin
//! at the same time, and have to do a minimum of work there.

mod access;
mod ad_network;
mod agency;
mod attack;
mod bigtable;
mod browser;
mod chaos;
mod chaos_shared;
mod chart;
mod cli;
mod data_values;
mod demo;
mod example_app;
mod gate;
mod https;
mod identifier_scans;
mod limits;
mod oracle;
mod process;
mod shapes;
mod sharded_builds;
mod shutdown;
mod standby;
mod warehouse;

/// A path from the environment that `cargo xtask test` sets. Without it a test skips and says so;
/// CI skips nothing.
fn provided(variable: &str, what: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os(variable).map(std::path::PathBuf::from);
    if path.is_none() {
        let message = format!("{what} is not provided ({variable}): run `cargo xtask test`");
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("skipped: {message}");
    }
    path
}

/// The included example.
fn example() -> std::path::PathBuf {
    std::path::Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("../../examples/cdnow")
}
