//! The ad groups that a gate decides about, as `GET /v1/catalog` answers them in JSON.

use serde::{Deserialize, Serialize};
use throng_model::{AdGroupIndex, AdGroupName, AudienceName, Currency, Micros, WhenStale};

/// One ad group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogEntry {
    /// Its number in the feed. Never given to another ad group of the same cluster.
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
    /// What to do when the feed is stale, or does not name the ad group.
    #[serde(default)]
    pub when_stale: WhenStale,
    /// What one insertion is expected to earn: what a gate counts for its own until the feed has them.
    /// Zero in catalogs of earlier versions.
    #[serde(default)]
    pub expected: Micros,
}

/// All ad groups.
///
/// ```
/// use throng_feed::Catalog;
/// use throng_model::{Micros, WhenStale};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A catalog of an earlier version: it has no currency and no expected earnings.
/// let answer = r#"{"version": 3, "ad_groups": [{
///     "index": 0, "name": "shoes", "daily_budget": 100000000, "prediction": true,
///     "include": ["buyers"], "exclude": []
/// }]}"#;
/// let catalog: Catalog = serde_json::from_str(answer)?;
/// let shoes = &catalog.ad_groups[0];
/// assert_eq!(shoes.daily_budget, Micros(100_000_000));
/// assert_eq!((shoes.expected, shoes.when_stale), (Micros::ZERO, WhenStale::Serve));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// Goes up with each change.
    pub version: u64,
    /// The ad groups, in any order. Of two with the same name or index the later one counts.
    pub ad_groups: Vec<CatalogEntry>,
}
