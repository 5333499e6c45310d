//! What a checkpoint has of the budget days of an ad group.

use throng_model::{
    Amount, BudgetDay, Currency, FirstDay, FormerCurrencies, TimeZoneName, Timestamp,
};

use crate::engine::account::Account;
use crate::wire;

pub(super) fn save_currencies(account: &Account) -> Vec<wire::FormerCurrency> {
    let all = account.currencies.all().iter();
    all.map(|(changed_on, currency)| (changed_on.0, currency.to_string()))
        .map(|(changed_on, currency)| wire::FormerCurrency { changed_on, currency })
        .collect()
}

/// Loads what is known of days by earlier time zones and currencies; nothing of it is in checkpoints of earlier versions.
pub(super) fn load_days(account: &mut Account, saved: &mut wire::AdGroup, at: Timestamp) {
    let first = saved.first_day.zip(saved.first_day_start);
    account.first_day =
        first.map(|(day, start)| FirstDay { day: BudgetDay(day), start: Timestamp(start) });
    let former = saved.former_currencies.iter().filter_map(|former| {
        Some((BudgetDay(former.changed_on), former.currency.parse::<Currency>().ok()?))
    });
    account.currencies = FormerCurrencies::of(former);
    // Another zone was declared while no process ran, or the ad group was not configured. The causes are of its days.
    if let Ok(zone) = saved.zone.parse::<TimeZoneName>()
        && zone != account.config.zone
    {
        account.leave_zone(&zone.rules(), at);
        saved.over_days.clear();
    }
    if let Ok(currency) = saved.currency.parse::<Currency>()
        && currency != account.config.currency
    {
        account.currencies.record_change(currency, BudgetDay::of(at, &account.config.zone.rules()));
    }
}

/// Spend by budget day, of formats before slices: each in the first slice of its day.
pub(super) fn days_as_slices(
    account: &Account,
    saved: &wire::AdGroup,
) -> Option<Vec<(i64, Amount)>> {
    let days = saved.days.iter().zip(&saved.actual);
    let first = |day: i32| account.first_slice(BudgetDay(day));
    let slices = days.map(|(day, micros)| (first(*day), Amount::of_saved(*micros, 0)));
    (saved.days.len() == saved.actual.len()).then(|| slices.collect())
}
