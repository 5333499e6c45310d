//! Serving stores on a real Redis and on the Bigtable emulator, with a real ledger, dictionary and snapshots: random
//! histories against a model, processes that are killed at every request, a store that loses its data, and servers
//! that refuse. In memory: leases that end and specs that are applied while a write runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue panics")]

mod bigtable;
mod cut;
mod faults;
mod histories;
mod memory;
mod rig;
mod settings;
mod table;
mod tokens;

/// A setting of `cargo xtask test`.
fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests by `cargo xtask test`"))
}
