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
