//! The figures of `docs/benchmarks.md`, each beside a peer that is measured in the same run.
//!
//! Build in release: `cargo build --release --locked -p throng -p throng-bench`. Every line that is
//! printed on standard output is one JSON object.
#![allow(clippy::print_stdout)]
// A benchmark measures the wall clock and waits for other processes; nothing else here does.
#![allow(clippy::disallowed_methods)]

mod audiences;
mod day;
mod events;
mod feed;
mod guard;
mod lookups;
mod node;
mod peer;
mod refreshes;
mod shared;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "throng-bench", about = "Measures Throng beside its peers")]
struct Arguments {
    #[command(subcommand)]
    figure: Figure,
}

#[derive(Subcommand)]
enum Figure {
    /// Builds of audiences from generated Parquet, beside DuckDB
    Audiences(audiences::Options),
    /// Membership in process, beside a hash set per audience
    Lookups(lookups::Options),
    /// Membership over HTTP, beside Redis (needs redis-server, redis-tools and wrk)
    Http(lookups::HttpOptions),
    /// Events through the log and the aggregator, beside Redis counters
    Events(events::Options),
    /// Thousands of small refreshes: memory, threads, handles and disk of the node
    Refreshes(refreshes::Options),
    /// A day of schedules and traffic on a fast clock: the same
    Day(day::Options),
    /// Bytes of a feed update, beside protobuf and JSON
    Feed,
    /// Decisions and feed frames beside a cross join, and beside nothing
    Guard(guard::Options),
    /// Spend aggregation from Kafka, beside the same design in Kafka Streams
    Aggregate(shared::aggregate::Options),
    /// From an accepted insertion to a thousand gates
    Gates(shared::gates::Options),
    /// Thousands of audiences by one to eight workers
    Syncs(shared::syncs::Options),
}

/// Where the programs are.
#[derive(clap::Args, Debug)]
struct Programs {
    /// The release binary of throng; by default beside this one
    #[arg(long)]
    throng: Option<PathBuf>,
    /// A Python with DuckDB, such as the one that `cargo xtask test` makes
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
    // Whoever installed a provider before has installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().figure {
        Figure::Audiences(options) => audiences::run(&options),
        Figure::Lookups(options) => lookups::run(&options),
        Figure::Http(options) => lookups::run_http(&options),
        Figure::Events(options) => events::run(&options),
        Figure::Refreshes(options) => refreshes::run(&options),
        Figure::Day(options) => day::run(&options),
        Figure::Feed => feed::run(),
        Figure::Guard(options) => guard::run(&options),
        Figure::Aggregate(options) => shared::aggregate::run(&options),
        Figure::Gates(options) => shared::gates::run(&options),
        Figure::Syncs(options) => shared::syncs::run(&options),
    }
}
