//! The engine of SQL over folders.

use schemars::JsonSchema;
use serde::Deserialize;

/// Which engine runs SQL over folders.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawEngine {
    /// DataFusion in query workers of this process.
    Process,
    /// The same; models that are not divided into parts (joins, windows) run on a Ballista cluster.
    Ballista,
}

/// A Ballista cluster.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBallista {
    /// Host and port of its scheduler (`throng ballista scheduler`).
    pub scheduler: String,
    /// A PEM file of the certificate authority of the cluster, relative to the spec file; needed for other machines.
    pub ca_file: Option<String>,
    /// A PEM file of a certificate that it has signed, for the name `throng-ballista`.
    pub cert_file: Option<String>,
    /// A PEM file of its key.
    pub key_file: Option<String>,
    /// Into how many partitions a query divides its work (16).
    #[schemars(range(min = 1, max = 4096))]
    pub partitions: Option<u32>,
    /// Whether models over sources in buckets run on it: its executors are started with `--buckets` (false).
    pub buckets: Option<bool>,
}
