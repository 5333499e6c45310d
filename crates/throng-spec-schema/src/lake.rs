//! Where ingested rows are.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{RawGcs, RawS3};

/// Where ingested rows are.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawLake {
    /// A folder, relative to the spec file, or `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`.
    Path(String),
    /// With settings.
    Settings(Box<RawLakeSettings>),
}

/// Where ingested rows are, with the settings of a bucket.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawLakeSettings {
    /// A folder, relative to the spec file, or `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`.
    pub path: String,
    /// The server of a `path` that begins with `s3://`, and the keys for it (Amazon's own, with the credentials of
    /// the machine).
    pub s3: Option<RawS3>,
    /// The key for a `path` that begins with `gs://` (the credentials of the machine).
    pub gcs: Option<RawGcs>,
    /// Rows of a workspace with more bytes are not copied, and cannot be read (100 GiB).
    #[schemars(range(min = 1))]
    pub max_bytes: Option<u64>,
}
