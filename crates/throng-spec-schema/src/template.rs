//! The rows of audiences and syncs with `for_each`, as people write them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::RawSchedule;

/// The rows of a template.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawForEach {
    /// One SELECT.
    Sql(String),
    /// With settings.
    Settings(Box<RawForEachSettings>),
}

/// The rows of a template, and what happens when one vanishes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawForEachSettings {
    /// One SELECT.
    pub sql: String,
    /// The most rows (10,000).
    #[schemars(range(min = 1, max = 100000))]
    pub max_rows: Option<u32>,
    /// What happens to the object of a row that vanishes (hold).
    pub when_removed: Option<RawWhenRemoved>,
    /// If more of them than this share have no row, all are held (10).
    #[schemars(range(max = 100))]
    pub max_removed_percent: Option<u32>,
    /// When the query is run again: `cron`, without `on` (the schedule of the audience).
    pub schedule: Option<RawSchedule>,
}

/// What happens to the object of a row that vanishes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawWhenRemoved {
    /// It stays.
    Hold,
    /// It leaves the spec.
    Archive,
}
