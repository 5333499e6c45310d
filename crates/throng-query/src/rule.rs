//! Rules of models that keep users by how many rows they have, or by a sum over them: `GROUP BY user
//! HAVING count(*) >= 3`, `… HAVING sum(amount) > 100`. The build sorts each shard's hashes anyway,
//! so it counts and adds there, instead of an aggregation of text keys by the engine. Pure.

use serde::{Deserialize, Serialize};

use crate::sum::SumRange;

/// Which users of the scanned rows are members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Users by their number of rows.
    Rows(RowCountRange),
    /// Users by the sum of their values. Every key has a value then.
    Sum(SumRange),
}

impl Rule {
    /// Every user who has a row.
    pub const ANY: Self = Self::Rows(RowCountRange { min: 1, max: None });

    /// Both conditions; `None` if they cannot be one rule.
    pub fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Rows(a), Self::Rows(b)) => Some(Self::Rows(a.and(b))),
            (Self::Sum(a), Self::Sum(b)) => Some(Self::Sum(a.and(b)?)),
            _ => None,
        }
    }
}

/// How many rows a user must have to be a member. A range; empty if `max` is below `min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCountRange {
    /// The least, 1 or more.
    pub min: u64,
    /// The most; `None`: no limit.
    pub max: Option<u64>,
}

impl RowCountRange {
    /// Whether a user with this number of rows is a member.
    pub fn allows(self, rows: u64) -> bool {
        rows >= self.min && self.max.is_none_or(|max| rows <= max)
    }

    /// The counts in both ranges.
    pub fn and(self, other: Self) -> Self {
        let max = match (self.max, other.max) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self { min: self.min.max(other.min), max }
    }
}
