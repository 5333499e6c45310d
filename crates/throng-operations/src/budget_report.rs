//! The report of budgets, from the budget days in the ledger.

use std::collections::HashMap;

use throng_api::{BudgetReport, BudgetReportQuery};
use throng_model::{AdGroupName, BudgetDay, MoneyError, TimeZoneName, Timestamp};
use throng_report::{QueryError, ReportedAdGroup, day_range};
use throng_spec::Spec;
use throng_store::LedgerError;

use crate::Operations;

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

impl BudgetReportError {
    /// How to fix the query.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Query(_) => "write days like 2026-11-23, at most 366 of them",
            Self::NoAdvertiser { .. } => "`advertisers` of the spec has the names (`GET /v1/spec`)",
            Self::TooManyRows => {
                "send `from` and `to` with fewer days, one request after the other"
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
    let mut rows = ledger.budget_days_between(range.from, range.to, MAX_ROWS + 1).await?;
    if rows.len() > MAX_ROWS as usize {
        return Err(BudgetReportError::TooManyRows);
    }
    if rows.iter().any(|row| row.currency.is_none()) {
        let known = ledger.budget_day_currencies().await?;
        throng_report::name_currencies(&mut rows, known, &ad_groups);
    }
    Ok(throng_report::report(range, &ad_groups, &rows, advertiser)?)
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
