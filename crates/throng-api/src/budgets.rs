//! The budgets and the spend of ad groups.

use serde::{Deserialize, Serialize};
use throng_model::{AdGroupName, BudgetDay, Currency, Micros, Timestamp};
use utoipa::ToSchema;

use crate::rates::BudgetRates;

/// All ad groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "budgets": [
        {
            "name": "shoes", "open": true, "reason": "projected 0.75 of 1.00 USD",
            "currency": "USD", "budget_micros": 1000000, "actual_micros": 500000,
            "in_flight_micros": 250000, "projected_micros": 750000, "is_known": true
        }
    ]
}))]
pub struct BudgetList {
    /// The ad groups.
    pub budgets: Vec<BudgetState>,
}

/// The current state of an ad group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "shoes", "open": true, "reason": "projected 0.75 of 1.00 USD", "currency": "USD",
    "budget_micros": 1000000, "actual_micros": 500000, "in_flight_micros": 250000,
    "projected_micros": 750000, "is_known": true
}))]
pub struct BudgetState {
    /// The name of the ad group.
    #[schema(value_type = String)]
    pub name: AdGroupName,
    /// Whether it may be shown.
    pub open: bool,
    /// Why, with the amounts; begins with `not current` if these are only the last known ones.
    pub reason: String,
    /// The currency of the amounts.
    #[schema(value_type = String)]
    pub currency: Currency,
    /// The budget of today.
    #[schema(value_type = i64)]
    pub budget_micros: Micros,
    /// The actual spend of today.
    #[schema(value_type = i64)]
    pub actual_micros: Micros,
    /// The in-flight spend.
    #[schema(value_type = i64)]
    pub in_flight_micros: Micros,
    /// The sum of actual and in-flight spend.
    #[schema(value_type = i64)]
    pub projected_micros: Micros,
    /// Whether the node knows the spend. After its start it does not until it has a frame of the ad group's partition:
    /// then `open` is false, and the amounts but the budget are 0. Nodes of earlier versions do not send it.
    #[serde(default = "is_known")]
    pub is_known: bool,
}

fn is_known() -> bool {
    true
}

/// An ad group with its spend over the day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "state": {
        "name": "shoes", "open": true, "reason": "projected 0.75 of 1.00 USD", "currency": "USD",
        "budget_micros": 1000000, "actual_micros": 500000, "in_flight_micros": 250000,
        "projected_micros": 750000, "is_known": true
    },
    "points": [{ "at": 1795536000000000_i64, "actual": 500000, "in_flight": 250000 }],
    "intervals": [{ "start": 1795536000000000_i64, "predicted": 240000, "actual": 250000 }],
    "days": [{ "ad_group": "shoes", "day": 20781, "budget": 1000000, "actual": 500000 }],
    "slices": [[1795536000000000_i64, 500000]],
    "rates": {
        "impression": {
            "declared": 0.8, "learned": 0.95, "low": 0.94, "high": 0.96, "trials": 2631
        },
        "action": null,
        "placements": []
    }
}))]
pub struct BudgetDetail {
    /// The current state.
    pub state: BudgetState,
    /// Actual and in-flight spend over time, oldest first.
    pub points: Vec<BudgetPoint>,
    /// Predicted and actual spend per three minutes, oldest first.
    pub intervals: Vec<BudgetInterval>,
    /// Budget days, newest first.
    pub days: Vec<BudgetOfDay>,
    /// Spend by quarter of an hour, without those that have none: pairs of a start and an amount.
    #[schema(value_type = Vec<Vec<i64>>)]
    pub slices: Vec<(Timestamp, Micros)>,
    /// The declared and the learned rates.
    #[serde(default)]
    pub rates: BudgetRates,
}

/// The spend at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BudgetPoint {
    /// The time.
    #[schema(value_type = i64)]
    pub at: Timestamp,
    /// The actual spend of the day.
    #[schema(value_type = i64)]
    pub actual: Micros,
    /// The in-flight spend.
    #[schema(value_type = i64)]
    pub in_flight: Micros,
}

/// The predicted and the actual spend of the ads that were inserted within three minutes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BudgetInterval {
    /// The start of the interval.
    #[schema(value_type = i64)]
    pub start: Timestamp,
    /// The spend that was predicted at the insertions.
    #[schema(value_type = i64)]
    pub predicted: Micros,
    /// The actual spend of the same insertions so far.
    #[schema(value_type = i64)]
    pub actual: Micros,
}

/// The spend of a budget day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BudgetOfDay {
    /// The ad group.
    #[schema(value_type = String)]
    pub ad_group: AdGroupName,
    /// Days since 1970-01-01, in the time zone of the advertiser.
    #[schema(value_type = i32)]
    pub day: BudgetDay,
    /// The budget.
    #[schema(value_type = i64)]
    pub budget: Micros,
    /// The actual spend.
    #[schema(value_type = i64)]
    pub actual: Micros,
    /// The currency of the amounts, if it is another one than that of the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub currency: Option<Currency>,
}
