//! What an ad group spent, was predicted to earn and earned: over time, and by day.

use serde::{Deserialize, Serialize};

use crate::{BudgetDay, Currency, Micros, Timestamp};

/// A budget day, what was spent on it, and the currency of that.
pub type DaySpend = (BudgetDay, Micros, Currency);

/// What ads that were inserted within three minutes were expected to earn, and what they have earned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// When it begins.
    pub start: Timestamp,
    /// Expected at the insertions.
    pub predicted: Micros,
    /// Earned so far by the same insertions.
    pub actual: Micros,
}

/// What ads that were inserted on one budget day were expected to earn, and what they have earned: of those
/// whose outcomes are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayPrediction {
    /// The day.
    pub day: BudgetDay,
    /// Expected at the insertions.
    pub predicted: Micros,
    /// Earned by the same insertions.
    pub earned: Micros,
}

/// Spend at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendPoint {
    /// The moment.
    pub at: Timestamp,
    /// Actual spend of the day.
    pub actual: Micros,
    /// In-flight spend.
    pub in_flight: Micros,
}

/// The recent past of an ad group, for charts; oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// About every ten seconds, for two hours.
    pub points: Vec<SpendPoint>,
    /// Every three minutes, for a day.
    pub intervals: Vec<Interval>,
}
