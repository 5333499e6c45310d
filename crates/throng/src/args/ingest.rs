//! The arguments of `throng ingest`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::NodeArgs;

#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    /// CSV, JSON lines or Parquet, also compressed: names that end in .gz or .zst. Each file is a batch. `-` is the
    /// standard input
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The schema of the records, from the applied spec
    #[arg(long, value_name = "NAME")]
    pub(crate) schema: String,
    /// The workspace of the schema. A token that is limited to a workspace needs none
    #[arg(long, value_name = "NAME")]
    pub(crate) workspace: Option<String>,
    /// The id of the batch: it is not stored again if it was ingested before. The digest of the content if left
    /// out. Only with one file
    #[arg(long, value_name = "ID")]
    pub(crate) batch: Option<String>,
    /// The format, if the name of a file does not say it
    #[arg(long)]
    pub(crate) format: Option<IngestFormat>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// The format of a file of records.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum IngestFormat {
    /// Comma-separated values with a header
    Csv,
    /// One JSON object a line
    Ndjson,
    /// Parquet
    Parquet,
}

impl From<IngestFormat> for throng_schema::RecordFormat {
    fn from(format: IngestFormat) -> Self {
        match format {
            IngestFormat::Csv => Self::Csv,
            IngestFormat::Ndjson => Self::Ndjson,
            IngestFormat::Parquet => Self::Parquet,
        }
    }
}
