//! A program that is a query worker or a process of a cluster, for the tests of this crate.

use std::process::ExitCode;

use throng_lake::{Cluster, Hashers, RowHasher};

/// Queries of identifiers never run on a cluster.
struct NoHashers;

impl Hashers for NoHashers {
    fn open(&self, _: &serde_json::Value) -> Result<Box<dyn RowHasher>, String> {
        Err("these tests read no identifiers".to_owned())
    }
}

fn worker(cluster: &'static dyn Cluster) -> ExitCode {
    throng_lake::worker::main_with_cluster(&NoHashers, cluster)
}

fn main() -> ExitCode {
    throng_ballista::process(worker).unwrap_or(ExitCode::FAILURE)
}
