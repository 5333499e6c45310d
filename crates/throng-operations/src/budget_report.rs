//! The report of budgets, from the budget days in the ledger.

use std::collections::HashMap;

use throng_api::{BudgetReport, BudgetReportQuery};
use throng_model::{AdGroupName, AdvertiserName, BudgetDay, MoneyError, TimeZoneName, Timestamp};
use throng_report::{DayRange, QueryError, ReportedAdGroup, day_range};
use throng_spec::Spec;
use throng_store::{BudgetDayRow, Ledger, LedgerError};

use crate::Operations;

/// The most rows of one report: of all advertisers, or of the one that is asked for.
const MAX_ROWS: u32 = 100_000;

/// Why a report is refused.
#[derive(Debug, thiserror::Error)]
pub enum BudgetReportError {
    /// The query is wrong.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The spec does not have the advertiser.
    #[error("no advertiser `{name}` in the applied spec")]
    NoAdvertiser {
        /// Its name in the query, shortened.
        name: String,
    },
    /// The range has too many rows.
    #[error("the days have more than {MAX_ROWS} rows, one for each day of each ad group")]
    TooManyRows,
    /// A sum does not fit into the response.
    #[error(transparent)]
    Sum(#[from] MoneyError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl BudgetReportError {
    /// How to fix the query.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Query(_) => "write days like 2026-11-23, at most 366 of them",
            Self::NoAdvertiser { .. } => "`advertisers` of the spec has the names (`GET /v1/spec`)",
            Self::TooManyRows => {
                "send `from` and `to` with fewer days, or `advertiser`, one request after the other"
            }
            Self::Sum(_) => "send fewer days, or one advertiser",
            Self::Ledger(_) => "try again later",
        }
    }
}

/// The report that a query asks for. Empty fields count as left out: a form sends them. The aggregators write
/// budget days once a minute, so figures are up to a minute old.
///
/// # Errors
/// [`BudgetReportError`].
pub async fn report(
    operations: &Operations,
    query: &BudgetReportQuery,
) -> Result<BudgetReport, BudgetReportError> {
    let (spec, now) = (&*operations.spec, operations.clock.now());
    let (from, to) = (given(&query.from), given(&query.to));
    let ad_groups = reported_ad_groups(spec, now);
    let utc = BudgetDay::of(now, &TimeZoneName::utc().rules());
    let newest = ad_groups.values().map(|ad_group| ad_group.today).max().unwrap_or(utc);
    let range = day_range(from, to, newest)?;
    let advertiser = match given(&query.advertiser) {
        None => None,
        Some(name) => {
            let found = spec.advertisers.iter().find(|one| one.name.as_str() == name);
            let shortened = || name.chars().take(60).collect();
            let missing = || BudgetReportError::NoAdvertiser { name: shortened() };
            Some(&found.ok_or_else(missing)?.name)
        }
    };
    let ledger = &operations.ledger;
    let mut rows = rows_of(&**ledger, range, &ad_groups, advertiser, MAX_ROWS).await?;
    if rows.iter().any(|row| row.currency.is_none()) {
        let known = ledger.budget_day_currencies().await?;
        throng_report::name_currencies(&mut rows, known, &ad_groups);
    }
    Ok(throng_report::report(range, &ad_groups, &rows, advertiser)?)
}

/// The budget days of a range, at most `max_rows`; of one advertiser only its own are counted.
async fn rows_of(
    ledger: &dyn Ledger,
    range: DayRange,
    ad_groups: &HashMap<AdGroupName, ReportedAdGroup>,
    advertiser: Option<&AdvertiserName>,
    max_rows: u32,
) -> Result<Vec<BudgetDayRow>, BudgetReportError> {
    let limit = max_rows.saturating_add(1);
    let all = ledger.budget_days_between(range.from, range.to, limit).await?;
    if all.len() <= max_rows as usize {
        return Ok(all);
    }
    drop(all);
    let advertiser = advertiser.ok_or(BudgetReportError::TooManyRows)?;
    let is_of_advertiser = |row: &BudgetDayRow| {
        ad_groups.get(&row.ad_group).is_some_and(|ad_group| ad_group.advertiser == *advertiser)
    };
    let mut kept = Vec::new();
    // Day by day: the ledger does not know the advertisers, and all rows of all of them may be too many for memory.
    for day in (range.from.0..=range.to.0).map(BudgetDay) {
        let of_day = ledger.budget_days_between(day, day, u32::MAX).await?;
        kept.extend(of_day.into_iter().filter(is_of_advertiser));
        if kept.len() > max_rows as usize {
            return Err(BudgetReportError::TooManyRows);
        }
    }
    Ok(kept)
}

/// The text of a field that is not empty.
fn given(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|text| !text.is_empty())
}

/// The ad groups of a spec, each with its advertiser and the day that is not over there.
fn reported_ad_groups(spec: &Spec, now: Timestamp) -> HashMap<AdGroupName, ReportedAdGroup> {
    let campaigns = spec.advertisers_of_campaigns().into_iter().map(|(campaign, advertiser)| {
        let today = BudgetDay::of(now, &advertiser.time_zone.rules());
        let (name, currency) = (advertiser.name.clone(), advertiser.currency);
        (campaign, ReportedAdGroup { advertiser: name, currency, today })
    });
    let campaigns: HashMap<_, _> = campaigns.collect();
    let reported = spec.ad_groups.iter().filter_map(|ad_group| {
        Some((ad_group.name.clone(), campaigns.get(&ad_group.campaign)?.clone()))
    });
    reported.collect()
}

#[cfg(test)]
mod tests {
    use throng_ledger::SqliteLedger;
    use throng_model::{Currency, Micros};
    use throng_store::SpecLedger as _;

    use super::*;

    #[tokio::test]
    async fn the_limit_counts_the_rows_of_the_advertiser() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&dir.path().join("ledger.db")).await.unwrap();
        let row = |name: &str, day| BudgetDayRow {
            ad_group: AdGroupName::new(name).unwrap(),
            day: BudgetDay(day),
            currency: None,
            budget: Micros(1_000),
            actual: Micros(1),
            prediction: None,
            causes: None,
        };
        // `gone` is not in the spec any longer.
        let names = ["gone", "shoes", "gloves", "cars"];
        let rows: Vec<_> = (10..13).flat_map(|day| names.map(|name| row(name, day))).collect();
        ledger.put_budget_days(&rows).await.unwrap();
        let currency: Currency = "USD".parse().unwrap();
        let ad_groups = [("shoes", "shop"), ("gloves", "shop"), ("cars", "garage")];
        let ad_groups = ad_groups.map(|(name, advertiser)| {
            let advertiser = AdvertiserName::new(advertiser).unwrap();
            let reported = ReportedAdGroup { advertiser, currency, today: BudgetDay(12) };
            (AdGroupName::new(name).unwrap(), reported)
        });
        let ad_groups = HashMap::from(ad_groups);
        let range = DayRange { from: BudgetDay(10), to: BudgetDay(12) };
        let of = async |advertiser: Option<&str>, max_rows| {
            let advertiser = advertiser.map(|name| AdvertiserName::new(name).unwrap());
            rows_of(&ledger, range, &ad_groups, advertiser.as_ref(), max_rows).await
        };
        assert_eq!(of(None, 12).await.unwrap().len(), 12);
        assert!(matches!(of(None, 11).await, Err(BudgetReportError::TooManyRows)));
        let of_shop = of(Some("shop"), 6).await.unwrap();
        let found: Vec<_> = of_shop.iter().map(|row| (row.ad_group.as_str(), row.day.0)).collect();
        let [gloves, shoes] = ["gloves", "shoes"];
        let days =
            [(gloves, 10), (shoes, 10), (gloves, 11), (shoes, 11), (gloves, 12), (shoes, 12)];
        assert_eq!(found, days);
        assert!(matches!(of(Some("shop"), 5).await, Err(BudgetReportError::TooManyRows)));
        assert_eq!(of(Some("garage"), 3).await.unwrap().len(), 3);
    }
}
