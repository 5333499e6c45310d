//! What was billable, given away and left over of budgets, and what was predicted.

use serde::{Deserialize, Serialize};
use throng_model::{AdGroupName, AdvertiserName, Currency, Micros};
use utoipa::ToSchema;

/// The query of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetReportQuery {
    /// The first day, such as `2026-11-23`: six days before `to` by default.
    pub from: Option<String>,
    /// The last day: by default the newest day that has begun for any advertiser.
    pub to: Option<String>,
    /// One advertiser; all by default.
    pub advertiser: Option<String>,
    /// `json` (default) or `csv`.
    pub format: Option<BudgetReportFormat>,
}

/// The format of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetReportFormat {
    /// The report.
    Json,
    /// Its days as CSV.
    Csv,
}

/// Budgets and spend of a range of days. Each day is one of the time zone of its advertiser, and all amounts of
/// a line are of one currency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "from": "2026-11-23", "to": "2026-11-23",
    "days": [
        {
            "day": "2026-11-23", "is_over": true, "advertiser": "shop", "ad_group": "shoes", "currency": "USD",
            "budget_micros": 1000000, "actual_micros": 1100000, "billable_micros": 1000000,
            "given_away_micros": 100000,
            "given_away_by_cause": {
                "events_micros": 60000, "feed_micros": 10000, "prediction_micros": 30000, "burst_micros": 0,
                "price_change_micros": 0, "unknown_micros": 0
            },
            "left_over_micros": 0, "predicted_micros": 1000000,
            "earned_micros": 1100000, "prediction_error_percent": 10.0
        }
    ],
    "advertiser_days": [], "ad_groups": [], "totals": []
}))]
pub struct BudgetReport {
    /// The first day.
    pub from: String,
    /// The last day.
    pub to: String,
    /// Each day of each ad group, by day, advertiser and ad group.
    pub days: Vec<BudgetReportLine>,
    /// The sums of each day of each advertiser; without one those of ad groups that the spec no longer has.
    pub advertiser_days: Vec<BudgetReportLine>,
    /// The sums of each ad group over all days.
    pub ad_groups: Vec<BudgetReportLine>,
    /// The sums of each currency over all days and ad groups.
    pub totals: Vec<BudgetReportLine>,
}

/// The amounts of a day of an ad group, or sums of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BudgetReportLine {
    /// The day, in the time zone of the advertiser; null for sums over days.
    pub day: Option<String>,
    /// Whether all days of the line are over. Those that are not have spent a part of their budgets so far.
    pub is_over: bool,
    /// The advertiser; null for sums over advertisers, and if the spec no longer has the ad group.
    #[schema(value_type = Option<String>)]
    pub advertiser: Option<AdvertiserName>,
    /// The ad group; null for sums over ad groups.
    #[schema(value_type = Option<String>)]
    pub ad_group: Option<AdGroupName>,
    /// The currency of the amounts; null if it is not known: then the line is in no sum of advertisers and
    /// currencies.
    #[schema(value_type = Option<String>)]
    pub currency: Option<Currency>,
    /// The budget: the last one that was in force on the day. A sum that does not fit is the largest amount,
    /// 9223372036854775807.
    #[schema(value_type = i64)]
    pub budget_micros: Micros,
    /// The actual spend.
    #[schema(value_type = i64)]
    pub actual_micros: Micros,
    /// The spend up to the budget.
    #[schema(value_type = i64)]
    pub billable_micros: Micros,
    /// The spend past the budget: overdelivery.
    #[schema(value_type = i64)]
    pub given_away_micros: Micros,
    /// The same by cause. Nodes of earlier versions do not send it.
    #[serde(default)]
    pub given_away_by_cause: GivenAwayByCause,
    /// The budget that was not spent: underdelivery. A sum that does not fit is the largest amount.
    #[schema(value_type = i64)]
    pub left_over_micros: Micros,
    /// What the ads that were inserted on the day were expected to earn; null if that is not known. Without ads
    /// whose outcomes are not due yet.
    #[schema(value_type = Option<i64>)]
    pub predicted_micros: Option<Micros>,
    /// What the same ads have earned.
    #[schema(value_type = Option<i64>)]
    pub earned_micros: Option<Micros>,
    /// How much more the ads earned than predicted, in percent of the prediction; negative if they earned less,
    /// null if nothing was predicted.
    pub prediction_error_percent: Option<f64>,
}

/// What was given away, by cause; the amounts add up to it. The cause of an event past the budget follows from when
/// its ad was inserted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GivenAwayByCause {
    /// Delay of events: the ad was inserted after the budget was spent, which was not known yet.
    #[schema(value_type = i64)]
    pub events_micros: Micros,
    /// Delay of the feed: the ad was inserted after a frame had closed the ad group.
    #[schema(value_type = i64)]
    pub feed_micros: Micros,
    /// Prediction: the ad was inserted while the ad group was rightly open, and too little was left free for it.
    #[schema(value_type = i64)]
    pub prediction_micros: Micros,
    /// Burst: the ad was inserted after the last frame before the one that closed the ad group.
    #[schema(value_type = i64)]
    pub burst_micros: Micros,
    /// Change of price: what the event cost above the price of its insertion.
    #[schema(value_type = i64)]
    pub price_change_micros: Micros,
    /// The cause is not known.
    #[schema(value_type = i64)]
    pub unknown_micros: Micros,
}

impl GivenAwayByCause {
    /// In the order of the fields.
    pub fn amounts(&self) -> [Micros; 6] {
        [
            self.events_micros,
            self.feed_micros,
            self.prediction_micros,
            self.burst_micros,
            self.price_change_micros,
            self.unknown_micros,
        ]
    }

    /// The causes with something given away, with their names in texts.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, Micros)> {
        let names = ["events", "feed", "prediction", "burst", "price change", "unknown"];
        names.into_iter().zip(self.amounts()).filter(|(_, amount)| amount.0 != 0)
    }
}
