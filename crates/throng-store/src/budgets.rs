//! The applied spec, the deployment's hash seed, and closed budget days.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throng_model::{
    AdGroupIndex, AdGroupName, BudgetDay, Currency, HashSeed, Micros, OverdeliveryCauses, Timestamp,
};

use crate::Result;

/// The spec that the node runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppliedSpec {
    /// 1, 2, 3, …
    pub version: u64,
    /// The checked spec as JSON (secrets are references in it).
    pub spec: serde_json::Value,
    /// When it was applied.
    pub applied_at: Timestamp,
}

/// What the ads that an ad group inserted on a day were expected to earn, and what they have earned; without those
/// whose outcomes were not due yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictedSpend {
    /// Expected at the insertions.
    pub predicted: Micros,
    /// Earned by the same insertions.
    pub earned: Micros,
}

/// An ad group's figures for one budget day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetDayRow {
    /// The ad group.
    pub ad_group: AdGroupName,
    /// The day in the advertiser's time zone.
    pub day: BudgetDay,
    /// The budget.
    pub budget: Micros,
    /// Actual spend.
    pub actual: Micros,
    /// Predicted spend; `None` if no insertion of the day is known. A row without it keeps the stored one.
    #[serde(default)]
    pub prediction: Option<PredictedSpend>,
    /// The currency of the amounts; `None` if an earlier version wrote the row. A row without it keeps the stored one.
    #[serde(default)]
    pub currency: Option<Currency>,
    /// Why more was spent than the budget; `None` if that is not known. A row without them keeps the stored ones.
    #[serde(default)]
    pub causes: Option<OverdeliveryCauses>,
}

/// Spec, seed, numbers of ad groups, budget days.
#[async_trait]
pub trait SpecLedger: Send + Sync {
    /// The deployment's hash seed: stores `proposed` if there is none yet, returns the stored one.
    async fn hash_seed(&self, proposed: HashSeed) -> Result<HashSeed>;

    /// How many partitions the deployment's event log has: stores `proposed` if nothing is stored
    /// yet, returns the stored number. `None` while nothing is stored, also if there is no hash
    /// seed yet.
    async fn log_partitions(&self, proposed: Option<u32>) -> Result<Option<u32>>;

    /// The newest applied spec.
    async fn applied_spec(&self) -> Result<Option<AppliedSpec>>;

    /// The version of the newest applied spec. Cheap enough to be called every second.
    async fn applied_version(&self) -> Result<Option<u64>>;

    /// Makes this process the leader, which does the work that one process at a time does, if there
    /// is no other leader. Returns whether it is the leader. It stays the leader until it ends or
    /// loses its connection, and another process becomes the leader within seconds: callers call
    /// this before each piece of work. Leadership is not a fence: a paused leader can continue
    /// beside the new one, so the work of a leader must be safe when two processes do it. Always
    /// true where one process has the ledger.
    async fn acquire_leadership(&self) -> Result<bool>;

    /// The dense numbers of these ad groups; new ones get the next free numbers. A number is never
    /// used again for another ad group.
    async fn ad_group_indexes(
        &self,
        names: &[AdGroupName],
    ) -> Result<Vec<(AdGroupName, AdGroupIndex)>>;

    /// Stores the figures of budget days; later figures replace earlier ones of the same currency. A stored day in
    /// another currency is kept beside the new one, if it has spend or a prediction.
    async fn put_budget_days(&self, rows: &[BudgetDayRow]) -> Result<()>;

    /// As [`SpecLedger::put_budget_days`], for days that are over: existing rows keep their
    /// budgets, those in another currency stay as they are, with the new ones beside them, and days with neither spend nor
    /// a prediction get no new row: they remove one that is beside a row in another currency. If they have a prediction, of
    /// 0, a stored one is removed too, with the causes.
    async fn put_past_budget_days(&self, rows: &[BudgetDayRow]) -> Result<()>;

    /// The budget days of one ad group, newest first.
    async fn budget_days(&self, ad_group: &AdGroupName, limit: u32) -> Result<Vec<BudgetDayRow>>;

    /// The budget days from one to another, both included, of all ad groups, also of those that the spec no longer
    /// has; by day and ad group, at most `limit`.
    async fn budget_days_between(
        &self,
        from: BudgetDay,
        to: BudgetDay,
        limit: u32,
    ) -> Result<Vec<BudgetDayRow>>;

    /// The currencies that the budget days of each ad group have, as far as they are known. Reads all budget days.
    async fn budget_day_currencies(&self) -> Result<Vec<(AdGroupName, Currency)>>;
}
