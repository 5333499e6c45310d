//! The ad groups that a gate decides about.

use serde::{Deserialize, Serialize};
use throng_model::{AdGroupIndex, AdGroupName, AudienceName, Currency, Micros};

/// What to do with an ad group whose feed has fallen silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenStale {
    /// Go on with the last known figures.
    #[default]
    Serve,
    /// Show nothing.
    Stop,
}

/// One ad group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogEntry {
    /// Its number in the feed. Never given to another ad group of the same deployment.
    pub index: AdGroupIndex,
    /// Its name.
    pub name: AdGroupName,
    /// What it may spend a day.
    pub daily_budget: Micros,
    /// The currency of its amounts; `None` in catalogs of earlier versions.
    #[serde(default)]
    pub currency: Option<Currency>,
    /// Whether spend in flight counts against the budget.
    pub prediction: bool,
    /// Users must be in one of these; empty: everybody.
    pub include: Vec<AudienceName>,
    /// Users must be in none of these.
    pub exclude: Vec<AudienceName>,
    /// What to do when the feed is silent, and when it does not name the ad group.
    #[serde(default)]
    pub when_stale: WhenStale,
    /// What one insertion is expected to earn: what a gate counts for its own until the feed has them.
    /// Zero in catalogs of earlier versions.
    #[serde(default)]
    pub expected: Micros,
}

/// All ad groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// Goes up with each change.
    pub version: u64,
    /// The ad groups, in any order. Of two with the same name or index the later one counts.
    pub ad_groups: Vec<CatalogEntry>,
}
