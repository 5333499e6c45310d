//! `throng sim`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum SimCommand {
    /// A simulator of Meta's custom audiences
    Meta {
        /// The port on 127.0.0.1; 0 chooses a free one
        #[arg(long, default_value_t = 7078)]
        port: u16,
        /// The file with the access token that it accepts; `-` reads it from the standard input. Or
        /// set THRONG_SIM_TOKEN. Without either, any token is accepted
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
    /// A simulator of BigQuery's jobs over folders of files
    Bigquery(BigquerySimArgs),
    /// A day of ad servers with the ad groups of a spec, in virtual time; prints what was spent and given away
    Network(NetworkSimArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NetworkSimArgs {
    /// The spec with the ad groups: a file, or a folder
    #[arg(long, value_name = "PATH")]
    pub(crate) spec: PathBuf,
    /// Ad servers, each with a gate of its own
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) gates: u32,
    /// Hours of traffic from midnight on, 1 to 22
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=22))]
    pub(crate) hours: u32,
    /// Another number gives other users, rates and auctions
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct BigquerySimArgs {
    /// The folder whose subfolders are the datasets, with Parquet, CSV and JSON files as tables
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// The port on 127.0.0.1; 0 chooses a free one
    #[arg(long, default_value_t = 9050)]
    pub(crate) port: u16,
    /// The location of all datasets
    #[arg(long, default_value = "US")]
    pub(crate) location: String,
    /// How often a job is looked at until it is done
    #[arg(long, default_value_t = 2)]
    pub(crate) polls: u32,
    /// The key file of the service account that it accepts; without it, only `metadata_url` of a source
    /// gets access tokens
    #[arg(long, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,
    /// A JSON file with a list of faults: see docs/bigquery.md
    #[arg(long, value_name = "FILE")]
    pub(crate) faults: Option<PathBuf>,
}
