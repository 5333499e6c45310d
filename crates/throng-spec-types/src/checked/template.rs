//! Templates: one audience or sync for every row of a query. A checked spec has the templates; what their rows
//! make is added by `throng-templates`, and is part of the spec that is applied and stored.

use serde::{Deserialize, Serialize};
use throng_model::{ParameterValue, Pattern, WhenRemoved};

use super::{Audience, Location, Sync};
use crate::Schedule;

/// The most rows that a template may have; 10,000 unless set.
pub const MAX_TEMPLATE_ROWS: u32 = 100_000;

/// The query of a template, and what its rows may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForEach {
    /// One SELECT.
    pub sql: String,
    /// Where the SQL begins.
    pub sql_at: Location,
    /// With more rows the template is refused; 1 to [`MAX_TEMPLATE_ROWS`], 10,000 unless set.
    pub max_rows: u32,
    /// What happens to the object of a row that vanishes.
    pub when_removed: WhenRemoved,
    /// If more of the template's objects than this share have no row, they are all held; 0 to 100,
    /// 10 unless set.
    pub max_removed_percent: u32,
    /// When the query is run again, besides when a spec is checked, planned or applied. `None` means by the cron
    /// pattern of the audience's schedule, if there is one; of syncs with the template of their audiences.
    pub schedule: Option<Schedule>,
}

/// An audience for every row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AudienceTemplate {
    /// The names of the audiences. Unique in the spec.
    pub name: Pattern,
    /// Their descriptions.
    pub description: Option<Pattern>,
    /// The rows.
    pub for_each: ForEach,
    /// All other fields. Its name and description have no meaning, and its SQL names the columns of a row as
    /// `$column`.
    pub audience: Audience,
}

/// A sync for every row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyncTemplate {
    /// The names of the syncs. Unique in the spec.
    pub name: Pattern,
    /// The audience of each.
    pub audience: Pattern,
    /// The destination of each.
    pub destination: Pattern,
    /// The name on the platform of each.
    pub platform_name: Option<Pattern>,
    /// The rows.
    pub for_each: ForEach,
    /// All other fields. What the patterns set has no meaning in it.
    pub sync: Sync,
}

/// Which row of which template made an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeFrom {
    /// The name pattern of the template.
    pub template: Pattern,
    /// The row: its columns with their values.
    pub values: Vec<(String, ParameterValue)>,
    /// Whether the query no longer returns the row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}
