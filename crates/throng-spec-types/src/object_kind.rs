//! The kinds of objects of a spec.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// [`crate::Source`]
    Source,
    /// [`throng_schema::Schema`]
    Schema,
    /// [`crate::Audience`]
    Audience,
    /// [`crate::Destination`]
    Destination,
    /// [`crate::Sync`]
    Sync,
    /// [`crate::ServingStore`]
    ServingStore,
    /// [`crate::Advertiser`]
    Advertiser,
    /// [`crate::Campaign`]
    Campaign,
    /// [`crate::AdGroup`]
    AdGroup,
    /// [`crate::NodeSettings`]; takes effect at the next start.
    Node,
}

impl ObjectKind {
    /// Its name in texts, such as `ad group`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Schema => "schema",
            Self::Audience => "audience",
            Self::Destination => "destination",
            Self::Sync => "sync",
            Self::ServingStore => "serving store",
            Self::Advertiser => "advertiser",
            Self::Campaign => "campaign",
            Self::AdGroup => "ad group",
            Self::Node => "node settings",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
