//! Destinations, as people write them.

use schemars::JsonSchema;
use serde::Deserialize;

/// Where audiences are kept: an account on an ad platform, or a folder.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawDestination {
    /// 1 to 128 of a-z, 0-9, `-`, `_`, `.`.
    pub name: String,
    /// `meta` or `file`.
    pub platform: String,
    /// `act_` and digits; needed with `platform: meta`.
    pub account: Option<String>,
    /// `env:NAME` or `file:PATH`, never the token itself; needed with `platform: meta`.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub access_token: Option<String>,
    /// `env:NAME` or `file:PATH`; never the secret itself.
    #[schemars(regex(pattern = "^(env|file):"))]
    pub app_secret: Option<String>,
    /// Another server than the platform's own, such as the simulator.
    pub base_url: Option<String>,
    /// Allows an `http://` base URL on another machine (false).
    pub insecure: Option<bool>,
    /// The version of the platform's API (v25.0).
    pub api_version: Option<String>,
    /// The folder that files are written to, relative to the spec file; it must exist. Needed with
    /// `platform: file`.
    pub folder: Option<String>,
    /// How the rows of a file are written (csv).
    pub format: Option<RawFileFormat>,
    /// Whether files are compressed with gzip (false).
    pub gzip: Option<bool>,
    /// If more than this percentage of the newest checks have failed, waiting tasks are held (20).
    #[schemars(range(min = 0, max = 100))]
    pub max_failed_checks_percent: Option<u32>,
}

/// How the rows of a file are written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawFileFormat {
    /// CSV with a line of column names.
    Csv,
    /// A JSON object a line.
    Jsonl,
}
