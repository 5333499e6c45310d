//! The benchmarks of `docs/benchmarks.md`, each compared with another system in the same run.
//!
//! Build in release: `cargo build --release --locked -p throng -p throng-bench`. Each line on standard
//! output is one JSON object.
#![allow(clippy::print_stdout)]
// Benchmarks measure wall-clock time and wait for other processes.
#![allow(clippy::disallowed_methods)]

mod audiences;
mod day;
mod events;
mod feed;
mod guard;
mod ingest;
mod lists;
mod lookups;
mod node;
mod peer;
mod quota;
mod refreshes;
mod shared;
mod templates;
mod uploads;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "throng-bench", about = "Compares Throng with other systems")]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Builds of audiences from generated Parquet, compared with DuckDB
    Audiences(audiences::Options),
    /// Builds of all audiences of a template, compared with one audience of it
    Templates(templates::Options),
    /// Membership lookups in process, compared with a hash set per audience
    Lookups(lookups::Options),
    /// Membership lookups over HTTP, compared with Redis (needs redis-server, redis-tools and wrk)
    Http(lookups::HttpOptions),
    /// Events through the log and the aggregator, compared with Redis counters
    Events(events::Options),
    /// Thousands of small refreshes: memory, threads, file descriptors and disk usage of the node
    Refreshes(refreshes::Options),
    /// A day of schedules and traffic with a fast clock: memory, threads, file descriptors and disk usage
    Day(day::Options),
    /// Bytes of a feed update, compared with protobuf and JSON
    Feed,
    /// Decisions and feed frames while a cross join runs, compared with an idle node
    Guard(guard::Options),
    /// A CSV file over HTTP into sorted Parquet, compared with DuckDB
    Ingest(ingest::Options),
    /// Spend aggregation from Kafka, compared with the same design in Kafka Streams, and with prices and joins
    Aggregate(shared::aggregate::Options),
    /// The delay from an accepted insertion to a thousand gates
    Gates(shared::gates::Options),
    /// Hours of an ad account's quota on a fast clock: the share of it that is used
    Quota(quota::Options),
    /// Syncs of many audiences of a template in real time, without a quota: rows a core-second
    Uploads(uploads::Options),
    /// Syncs of thousands of audiences by one to eight workers
    Syncs(shared::syncs::Options),
}

/// The paths of programs.
#[derive(clap::Args, Debug)]
struct Programs {
    /// The release binary of throng; by default in the folder of this one
    #[arg(long)]
    throng: Option<PathBuf>,
    /// A Python with DuckDB, such as the one that `cargo xtask test` installs
    #[arg(long, default_value = "target/oracle/bin/python")]
    python: PathBuf,
}

impl Programs {
    fn throng(&self) -> Result<PathBuf> {
        if let Some(path) = &self.throng {
            return Ok(path.clone());
        }
        Ok(std::env::current_exe()?.with_file_name("throng"))
    }
}

fn main() -> Result<()> {
    // Fails if a provider is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().benchmark {
        Benchmark::Audiences(options) => audiences::run(&options),
        Benchmark::Templates(options) => templates::run(&options),
        Benchmark::Lookups(options) => lookups::run(&options),
        Benchmark::Http(options) => lookups::run_http(&options),
        Benchmark::Events(options) => events::run(&options),
        Benchmark::Refreshes(options) => refreshes::run(&options),
        Benchmark::Day(options) => day::run(&options),
        Benchmark::Feed => feed::run(),
        Benchmark::Guard(options) => guard::run(&options),
        Benchmark::Ingest(options) => ingest::run(&options),
        Benchmark::Aggregate(options) => shared::aggregate::run(&options),
        Benchmark::Gates(options) => shared::gates::run(&options),
        Benchmark::Quota(options) => quota::run(&options),
        Benchmark::Uploads(options) => uploads::run(&options),
        Benchmark::Syncs(options) => shared::syncs::run(&options),
    }
}
