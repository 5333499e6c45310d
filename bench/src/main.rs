//! Figures of `docs/benchmarks.md`, each beside a peer measured in the same run.

fn main() {}
