//! Choices that users declare and that several crates act on.

use serde::{Deserialize, Serialize};

/// How a sync changes the audience on the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncMode {
    /// Adds users who entered the audience and removes users who left it.
    Mirror,
    /// Only adds.
    Add,
    /// Sends all users in one upload session; the platform removes all others.
    Replace,
}

/// What a gate does with an ad group whose feed is stale: no frame was received for too long, or none names
/// it.
///
/// ```
/// use throng_model::WhenStale;
///
/// assert_eq!(WhenStale::default(), WhenStale::Serve);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenStale {
    /// Continue with the last known figures.
    #[default]
    Serve,
    /// Show nothing.
    Stop,
}

/// How an ad group spends the budget of a day.
///
/// ```
/// use throng_model::Pacing;
///
/// assert_eq!(Pacing::default(), Pacing::Asap);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pacing {
    /// As soon as there is traffic for it.
    #[default]
    Asap,
    /// Over the whole day, in proportion to its traffic.
    Even,
}

/// How the rows of a file for a destination are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// CSV with a header line.
    #[default]
    Csv,
    /// One JSON object per line.
    Jsonl,
}

/// What a key of a serving store stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreLayout {
    /// A user: a set of audiences.
    #[default]
    ByUser,
    /// An audience: a set of users.
    ByAudience,
}

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something waits for a person's decision.
    #[default]
    Warning,
    /// Something does not work.
    Critical,
}
