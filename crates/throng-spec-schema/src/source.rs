//! Sources.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Amount;

/// A folder or a bucket with data, or a warehouse.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSource {
    /// 1 to 128 of a-z, 0-9, `-`, `_`, `.`; in SQL `-` and `.` become `_`.
    pub name: String,
    /// `files` (a folder or a bucket), `bigquery` or `postgres` (`files`).
    #[serde(rename = "type")]
    pub of: Option<String>,
    /// The folder, relative to the spec file, or `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`; needed with
    /// `type: files`.
    pub path: Option<String>,
    /// A description for people.
    pub description: Option<String>,
    /// The types of columns: `text`, `integer`, `decimal(12, 2)`, `double`, `boolean`, `date` or
    /// `timestamp`, by the column's name; of the others the type follows from the files.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Whether text is read without the white space around it (false).
    #[serde(default)]
    pub trim: bool,
    /// Whether the first line of a CSV file names its columns. Unless it is set, it does, and a line that looks
    /// like values is refused; with `false`, `columns` are all columns in the order of the files.
    pub header: Option<bool>,
    /// The server of a `path` that begins with `s3://`, and the keys for it (Amazon's own, with the credentials of
    /// the machine).
    pub s3: Option<RawS3>,
    /// The key for a `path` that begins with `gs://` (the credentials of the machine).
    pub gcs: Option<RawGcs>,
    /// A bucket with more bytes below the prefix is refused (100 GiB).
    #[schemars(range(min = 1))]
    pub max_bytes: Option<u64>,
    /// The project that runs the jobs and pays for them; needed with `type: bigquery`.
    pub project: Option<String>,
    /// The location of jobs and tables, such as `EU`; needed with `type: bigquery`.
    pub location: Option<String>,
    /// The dataset of tables that the SQL names without one.
    pub dataset: Option<String>,
    /// The key file of a service account: `file:PATH` or `env:NAME`.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub credentials: Option<String>,
    /// Another server for the service account's access tokens than Google's.
    pub token_url: Option<String>,
    /// The metadata server with access tokens of the machine or pod, instead of `credentials`.
    pub metadata_url: Option<String>,
    /// A job that would read more bytes is refused (1 TiB).
    #[schemars(range(min = 10_485_760))]
    pub maximum_bytes_billed: Option<u64>,
    /// The price of reading a TiB, such as `"6.25"`, for the costs that a plan shows.
    pub price_per_tib: Option<Amount>,
    /// The largest number of rows of a page (100000; of a `FETCH` with `type: postgres` 10000).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub page_rows: Option<u32>,
    /// With `type: postgres`: the rows of a key range, behind which a refresh whose connection or process is lost goes on,
    /// at a later moment (unset: it starts again from its first row).
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub key_range_rows: Option<u32>,
    /// The longest time of a refresh, with the time that its job waits (21600).
    #[schemars(range(min = 60, max = 172_800))]
    pub timeout_secs: Option<u32>,
    /// Another server than Google's, such as the simulator.
    pub endpoint: Option<String>,
    /// Allows a server on another machine without TLS (false).
    pub insecure: Option<bool>,
    /// The name or IP address of the server; needed with `type: postgres`.
    pub host: Option<String>,
    /// Its port (5432).
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The database; needed with `type: postgres`.
    pub database: Option<String>,
    /// The user; needed with `type: postgres`.
    pub username: Option<String>,
    /// The user's password: `env:NAME` or `file:PATH`.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub password: Option<String>,
    /// `verify-full`, or `disable` for no TLS (`verify-full`).
    pub sslmode: Option<String>,
    /// The longest time of a statement (3600).
    #[schemars(range(min = 1, max = 172_800))]
    pub statement_timeout_secs: Option<u32>,
}

/// A server with the API of Amazon S3.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawS3 {
    /// The server, `http://host:port` (Amazon's own).
    #[schemars(regex(pattern = "^https?://"))]
    pub endpoint: Option<String>,
    /// Allows an `http://` endpoint on another machine (false).
    pub insecure: Option<bool>,
    /// A PEM file of certificate authorities for the server's certificate, besides the system's.
    pub ca_file: Option<String>,
    /// The region (us-east-1).
    pub region: Option<String>,
    /// `env:NAME` or `file:PATH` of the access key (the credentials of the machine).
    #[schemars(regex(pattern = "^(env|file):"))]
    pub access_key: Option<String>,
    /// `env:NAME` or `file:PATH` of the secret key.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub secret_key: Option<String>,
}

/// Google Cloud Storage.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawGcs {
    /// `env:NAME` or `file:PATH` of a service account's JSON key (the credentials of the machine).
    #[schemars(regex(pattern = "^(env|file):"))]
    pub service_account: Option<String>,
}
