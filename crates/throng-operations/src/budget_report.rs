//! The report of budgets, from the budget days in the ledger.

use std::collections::HashMap;

use throng_api::{BudgetReport, BudgetReportQuery};
use throng_model::{AdGroupName, BudgetDay, MoneyError, TimeZoneName, Timestamp};
use throng_report::{QueryError, ReportedAdGroup, day_range};
use throng_spec::Spec;
use throng_store::{Ledger, LedgerError};

/// The most rows of one report.
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

/// The report that a query asks for. The aggregators write budget days once a minute, so figures are up to a minute
/// old.
///
/// # Errors
/// [`BudgetReportError`].
pub async fn report(
    ledger: &dyn Ledger,
    spec: &Spec,
    now: Timestamp,
    query: &BudgetReportQuery,
) -> Result<BudgetReport, BudgetReportError> {
    let ad_groups = reported_ad_groups(spec, now);
    let utc = BudgetDay::of(now, &TimeZoneName::utc().rules());
    let newest = ad_groups.values().map(|ad_group| ad_group.today).max().unwrap_or(utc);
    let range = day_range(query.from.as_deref(), query.to.as_deref(), newest)?;
    let advertiser = match query.advertiser.as_deref() {
        None => None,
        Some(name) => {
            let found = spec.advertisers.iter().find(|one| one.name.as_str() == name);
            let shortened = || name.chars().take(60).collect();
            let missing = || BudgetReportError::NoAdvertiser { name: shortened() };
            Some(&found.ok_or_else(missing)?.name)
        }
    };
    let rows = ledger.budget_days_between(range.from, range.to, MAX_ROWS + 1).await?;
    if rows.len() > MAX_ROWS as usize {
        return Err(BudgetReportError::TooManyRows);
    }
    Ok(throng_report::report(range, &ad_groups, &rows, advertiser)?)
}

/// The ad groups of a spec, each with its advertiser and the day that is not over there.
fn reported_ad_groups(spec: &Spec, now: Timestamp) -> HashMap<AdGroupName, ReportedAdGroup> {
    let advertisers = spec.advertisers.iter().map(|advertiser| {
        let today = BudgetDay::of(now, &advertiser.time_zone.rules());
        let (name, currency) = (advertiser.name.clone(), advertiser.currency);
        (&advertiser.name, ReportedAdGroup { advertiser: name, currency, today })
    });
    let advertisers: HashMap<_, ReportedAdGroup> = advertisers.collect();
    let campaigns: HashMap<_, _> =
        spec.campaigns.iter().map(|campaign| (&campaign.name, &campaign.advertiser)).collect();
    let reported = spec.ad_groups.iter().filter_map(|ad_group| {
        let advertiser = campaigns.get(&ad_group.campaign)?;
        Some((ad_group.name.clone(), advertisers.get(*advertiser)?.clone()))
    });
    reported.collect()
}
