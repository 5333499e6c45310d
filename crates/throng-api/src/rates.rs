//! The rates of an ad group: declared and learned.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The rates of an ad group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "impression": { "declared": 0.8, "learned": 0.95, "low": 0.94, "high": 0.96, "trials": 2631 },
    "action": { "declared": 0.03, "learned": 0.02, "low": 0.015, "high": 0.026, "trials": 2500 },
    "placements": [
        {
            "placement": "home",
            "impression": { "declared": 0.8, "learned": 0.97, "low": 0.95, "high": 0.98, "trials": 900 },
            "action": { "declared": 0.03, "learned": 0.025, "low": 0.017, "high": 0.035, "trials": 873 }
        }
    ]
}))]
pub struct BudgetRates {
    /// The share of insertions that are seen.
    pub impression: BudgetRate,
    /// The share of impressions that are clicked; null where impressions are billed.
    pub action: Option<BudgetRate>,
    /// The same by placement, for insertions that have one.
    pub placements: Vec<BudgetPlacementRates>,
}

/// The rates of an ad group in one placement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BudgetPlacementRates {
    /// The placement; `other` for those that have no figures of their own.
    pub placement: String,
    /// The share of insertions that are seen.
    pub impression: BudgetRate,
    /// The share of impressions that are clicked; null where impressions are billed.
    pub action: Option<BudgetRate>,
}

/// A rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BudgetRate {
    /// As the spec declares it.
    pub declared: f64,
    /// As it is learned; null as long as the declared rate counts.
    pub learned: Option<f64>,
    /// The lower end of the interval that has the true rate with a probability of 95 percent.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// The trials of the ad group itself that it is learned from; older ones count less.
    pub trials: u64,
}

impl fmt::Display for BudgetRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let declared = percent(self.declared);
        match (self.learned, self.low.zip(self.high)) {
            (Some(learned), Some((low, high))) => write!(
                f,
                "{} ({} to {}), learned from {}; declared {declared}",
                percent(learned),
                percent(low),
                percent(high),
                self.trials
            ),
            _ => write!(f, "{declared}, as declared"),
        }
    }
}

/// With three digits, or more where the rate has more before the point.
fn percent(rate: f64) -> String {
    let percent = rate * 100.0;
    let decimals = match percent {
        percent if percent >= 10.0 => 1,
        percent if percent >= 1.0 => 2,
        percent if percent >= 0.1 => 3,
        _ => 4,
    };
    format!("{percent:.decimals$} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_shown_with_their_interval() {
        let declared = BudgetRate { declared: 0.8, ..BudgetRate::default() };
        assert_eq!(declared.to_string(), "80.0 %, as declared");
        let (learned, low, high) = (Some(0.0213), Some(0.00951), Some(0.0471));
        let rate = BudgetRate { declared: 0.0003, learned, low, high, trials: 1_200 };
        assert_eq!(
            rate.to_string(),
            "2.13 % (0.951 % to 4.71 %), learned from 1200; declared 0.0300 %"
        );
    }
}
