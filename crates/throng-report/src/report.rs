//! The report of a range of days.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use throng_api::{BudgetReport, BudgetReportLine};
use throng_model::{AdGroupName, AdvertiserName, BudgetDay, Currency, MoneyError};
use throng_store::{BudgetDayRow, PredictedSpend};

use crate::query::DayRange;
use crate::sums::{Subject, Sums};

/// An ad group of the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedAdGroup {
    /// Its advertiser.
    pub advertiser: AdvertiserName,
    /// The currency of its amounts.
    pub currency: Currency,
    /// The day that is not over yet, in the time zone of its advertiser.
    pub today: BudgetDay,
}

/// Gives rows without a currency, which an earlier version wrote, the currency of their ad group. If it has had several,
/// they may be of any of them, and stay without one. `known`: the currencies of all stored rows.
pub fn name_currencies(
    rows: &mut [BudgetDayRow],
    known: Vec<(AdGroupName, Currency)>,
    ad_groups: &HashMap<AdGroupName, ReportedAdGroup>,
) {
    let mut currencies: HashMap<AdGroupName, BTreeSet<Currency>> = HashMap::new();
    let declared = ad_groups.iter().map(|(name, ad_group)| (name.clone(), ad_group.currency));
    for (name, currency) in known.into_iter().chain(declared) {
        currencies.entry(name).or_default().insert(currency);
    }
    for row in rows.iter_mut().filter(|row| row.currency.is_none()) {
        let of_ad_group = currencies.get(&row.ad_group).filter(|found| found.len() == 1);
        row.currency = of_ad_group.and_then(|found| found.first().copied());
    }
}

/// The report of `range`. `rows`: the budget days in it, each once, those of an earlier version after
/// [`name_currencies`]. `advertiser`: one whose ad groups are in the
/// report; without it all are, also those that the spec no longer has.
///
/// # Errors
/// [`MoneyError::Overflow`] if a sum of spend does not fit into the response.
pub fn report(
    range: DayRange,
    ad_groups: &HashMap<AdGroupName, ReportedAdGroup>,
    rows: &[BudgetDayRow],
    advertiser: Option<&AdvertiserName>,
) -> Result<BudgetReport, MoneyError> {
    let mut days: Vec<(BudgetDay, Option<&AdvertiserName>, &AdGroupName, BudgetReportLine)> =
        Vec::new();
    // Without an advertiser: ad groups that the spec no longer has. Totals have their spend as before they were removed.
    type OfAdvertiser<'a> = (BudgetDay, Option<&'a AdvertiserName>, Currency);
    let mut of_advertisers: BTreeMap<OfAdvertiser<'_>, Sums> = BTreeMap::new();
    // With the currency: that of an advertiser may be changed within the range.
    type OfAdGroup<'a> = (Option<&'a AdvertiserName>, &'a AdGroupName, Option<Currency>);
    let mut of_ad_groups: BTreeMap<OfAdGroup<'_>, Sums> = BTreeMap::new();
    let mut of_currencies: BTreeMap<Currency, Sums> = BTreeMap::new();
    let is_in = |row: &&BudgetDayRow| (range.from..=range.to).contains(&row.day);
    for row in rows.iter().filter(is_in) {
        let declared = ad_groups.get(&row.ad_group);
        let name = declared.map(|ad_group| &ad_group.advertiser);
        if advertiser.is_some() && advertiser != name {
            continue;
        }
        // It was the current day until the time zone was changed: its budget is not there to be spent yet.
        let is_to_come = declared.is_some_and(|ad_group| row.day > ad_group.today);
        let prediction = row.prediction.unwrap_or_default();
        if is_to_come && row.actual.0 == 0 && prediction == PredictedSpend::default() {
            continue;
        }
        // An ad group that the spec does not have spends nothing any longer.
        let is_over = declared.is_none_or(|ad_group| row.day < ad_group.today);
        let currency = row.currency;
        let line = Sums::of(row, is_over).line(Subject {
            day: Some(row.day),
            advertiser: name.cloned(),
            ad_group: Some(row.ad_group.clone()),
            currency,
        })?;
        days.push((row.day, name, &row.ad_group, line));
        of_ad_groups.entry((name, &row.ad_group, currency)).or_default().add(row, is_over);
        if let Some(currency) = currency {
            let of_advertiser = of_advertisers.entry((row.day, name, currency));
            of_advertiser.or_default().add(row, is_over);
            of_currencies.entry(currency).or_default().add(row, is_over);
        }
    }
    days.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
    let advertiser_days = of_advertisers.into_iter().map(|((day, name, currency), sums)| {
        let (day, advertiser) = (Some(day), name.cloned());
        sums.line(Subject { day, advertiser, ad_group: None, currency: Some(currency) })
    });
    let of_ad_groups = of_ad_groups.into_iter().map(|((name, ad_group, currency), sums)| {
        let (advertiser, ad_group) = (name.cloned(), Some(ad_group.clone()));
        sums.line(Subject { day: None, advertiser, ad_group, currency })
    });
    let totals = of_currencies.into_iter().map(|(currency, sums)| {
        sums.line(Subject { currency: Some(currency), ..Subject::default() })
    });
    Ok(BudgetReport {
        from: range.from.to_string(),
        to: range.to.to_string(),
        days: days.into_iter().map(|(.., line)| line).collect(),
        advertiser_days: advertiser_days.collect::<Result<_, _>>()?,
        ad_groups: of_ad_groups.collect::<Result<_, _>>()?,
        totals: totals.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use throng_model::Micros;

    use super::*;

    const TODAY: i32 = 100;

    fn ad_groups() -> HashMap<AdGroupName, ReportedAdGroup> {
        let of = |name: &str, advertiser: &str, currency: &str| {
            let today = BudgetDay(TODAY);
            let (advertiser, currency) = (advertiser.parse().unwrap(), currency.parse().unwrap());
            (name.parse().unwrap(), ReportedAdGroup { advertiser, currency, today })
        };
        HashMap::from([
            of("shoes", "shop", "USD"),
            of("hats", "shop", "USD"),
            of("beds", "hotel", "EUR"),
            of("trains", "railway", "USD"),
        ])
    }

    fn row(
        name: &str,
        day: i32,
        budget: i64,
        actual: i64,
        prediction: Option<(i64, i64)>,
    ) -> BudgetDayRow {
        BudgetDayRow {
            ad_group: name.parse().unwrap(),
            day: BudgetDay(day),
            budget: Micros(budget),
            actual: Micros(actual),
            prediction: prediction.map(|(predicted, earned)| PredictedSpend {
                predicted: Micros(predicted),
                earned: Micros(earned),
            }),
            currency: None,
            causes: None,
        }
    }

    fn of(rows: &[BudgetDayRow], advertiser: Option<&str>) -> BudgetReport {
        let range = DayRange { from: BudgetDay(90), to: BudgetDay(110) };
        let advertiser: Option<AdvertiserName> = advertiser.map(|name| name.parse().unwrap());
        let mut rows = rows.to_vec();
        name_currencies(&mut rows, Vec::new(), &ad_groups());
        report(range, &ad_groups(), &rows, advertiser.as_ref()).unwrap()
    }

    fn of_rows(rows: &[BudgetDayRow]) -> BudgetReport {
        let range = DayRange { from: BudgetDay(90), to: BudgetDay(110) };
        report(range, &ad_groups(), rows, None).unwrap()
    }

    /// Subject and amounts: budget, actual, billable, given away, left over.
    fn shown(lines: &[BudgetReportLine]) -> Vec<(String, [i64; 5])> {
        let text = |line: &BudgetReportLine| {
            let day = line.day.as_deref().unwrap_or("-");
            let advertiser = line.advertiser.as_ref().map_or("-", AdvertiserName::as_str);
            let ad_group = line.ad_group.as_ref().map_or("-", AdGroupName::as_str);
            let currency = line.currency.as_ref().map_or("-", Currency::as_str);
            format!("{day} {advertiser} {ad_group} {currency}")
        };
        let amounts = |line: &BudgetReportLine| {
            [
                line.budget_micros.0,
                line.actual_micros.0,
                line.billable_micros.0,
                line.given_away_micros.0,
                line.left_over_micros.0,
            ]
        };
        lines.iter().map(|line| (text(line), amounts(line))).collect()
    }

    #[test]
    fn what_is_left_over_does_not_cover_what_is_given_away() {
        let rows = [
            row("shoes", 90, 100, 130, None),
            row("hats", 90, 100, 60, None),
            row("beds", 90, 10, 10, None),
            row("removed", 90, 5, 7, None),
            row("shoes", 91, 200, 0, None),
            row("shoes", 89, 1, 1, None),
            row("shoes", 111, 1, 1, None),
        ];
        let report = of(&rows, None);
        let line = |text: &str, amounts| (text.to_owned(), amounts);
        assert_eq!(
            shown(&report.days),
            [
                line("1970-04-01 - removed -", [5, 7, 5, 2, 0]),
                line("1970-04-01 hotel beds EUR", [10, 10, 10, 0, 0]),
                line("1970-04-01 shop hats USD", [100, 60, 60, 0, 40]),
                line("1970-04-01 shop shoes USD", [100, 130, 100, 30, 0]),
                line("1970-04-02 shop shoes USD", [200, 0, 0, 0, 200]),
            ]
        );
        assert_eq!(
            shown(&report.advertiser_days),
            [
                line("1970-04-01 hotel - EUR", [10, 10, 10, 0, 0]),
                line("1970-04-01 shop - USD", [200, 190, 160, 30, 40]),
                line("1970-04-02 shop - USD", [200, 0, 0, 0, 200]),
            ]
        );
        assert_eq!(
            shown(&report.ad_groups),
            [
                line("- - removed -", [5, 7, 5, 2, 0]),
                line("- hotel beds EUR", [10, 10, 10, 0, 0]),
                line("- shop hats USD", [100, 60, 60, 0, 40]),
                line("- shop shoes USD", [300, 130, 100, 30, 200]),
            ]
        );
        assert_eq!(
            shown(&report.totals),
            [line("- - - EUR", [10, 10, 10, 0, 0]), line("- - - USD", [400, 190, 160, 30, 240]),]
        );
    }

    #[test]
    fn days_stay_in_the_currency_that_they_were_spent_in() {
        let in_currency =
            |code: &str, row| BudgetDayRow { currency: Some(code.parse().unwrap()), ..row };
        // The shop has changed from EUR to USD.
        let rows = [
            row("shoes", 90, 100, 10, None),
            in_currency("EUR", row("shoes", 91, 100, 20, None)),
            in_currency("USD", row("shoes", 92, 100, 30, None)),
            in_currency("EUR", row("hats", 92, 100, 40, None)),
            in_currency("GBP", row("removed", 92, 100, 50, None)),
        ];
        let report = of(&rows, None);
        let line = |text: &str, amounts| (text.to_owned(), amounts);
        assert_eq!(
            shown(&report.advertiser_days),
            [
                line("1970-04-01 shop - USD", [100, 10, 10, 0, 90]),
                line("1970-04-02 shop - EUR", [100, 20, 20, 0, 80]),
                line("1970-04-03 - - GBP", [100, 50, 50, 0, 50]),
                line("1970-04-03 shop - EUR", [100, 40, 40, 0, 60]),
                line("1970-04-03 shop - USD", [100, 30, 30, 0, 70]),
            ]
        );
        assert_eq!(
            shown(&report.totals),
            [
                line("- - - EUR", [200, 60, 60, 0, 140]),
                line("- - - GBP", [100, 50, 50, 0, 50]),
                line("- - - USD", [200, 40, 40, 0, 160]),
            ]
        );
        assert_eq!(shown(&report.days[2..3])[0].0, "1970-04-03 - removed GBP");
        // With what is stored of other days it is unknown in which of the two the first day was.
        let mut rows = rows.to_vec();
        let eur = "EUR".parse().unwrap();
        name_currencies(&mut rows, vec![("shoes".parse().unwrap(), eur)], &ad_groups());
        assert_eq!(rows[0].currency, None);
        let report = of_rows(&rows);
        assert_eq!(shown(&report.days)[0].0, "1970-04-01 shop shoes -");
        assert_eq!(shown(&report.totals)[2], line("- - - USD", [100, 30, 30, 0, 70]));
        let of_shoes: Vec<String> =
            shown(&report.ad_groups).into_iter().map(|(text, _)| text).skip(2).collect();
        assert_eq!(of_shoes, ["- shop shoes -", "- shop shoes EUR", "- shop shoes USD"]);
    }

    #[test]
    fn totals_stay_as_they_were_when_an_ad_group_is_removed() {
        let currency = Some("USD".parse().unwrap());
        let rows = [row("shoes", 95, 100, 130, None), row("hats", 95, 100, 60, None)];
        let rows = rows.map(|row| BudgetDayRow { currency, ..row });
        let range = DayRange { from: BudgetDay(95), to: BudgetDay(95) };
        let before = report(range, &ad_groups(), &rows, None).unwrap();
        let mut left = ad_groups();
        left.remove(&rows[0].ad_group);
        let after = report(range, &left, &rows, None).unwrap();
        assert_eq!(after.totals, before.totals);
        let line = |text: &str, amounts| (text.to_owned(), amounts);
        assert_eq!(
            shown(&after.advertiser_days),
            [
                line("1970-04-06 - - USD", [100, 130, 100, 30, 0]),
                line("1970-04-06 shop - USD", [100, 60, 60, 0, 40]),
            ]
        );
        // The report of an advertiser has its own alone.
        let shop: AdvertiserName = "shop".parse().unwrap();
        let of_shop = report(range, &left, &rows, Some(&shop)).unwrap();
        assert_eq!(shown(&of_shop.totals), [line("- - - USD", [100, 60, 60, 0, 40])]);
    }

    #[test]
    fn the_report_of_an_advertiser_has_its_ad_groups_alone() {
        let rows =
            [row("beds", 95, 1, 1, None), row("shoes", 95, 1, 1, None), row("x", 95, 1, 1, None)];
        let report = of(&rows, Some("hotel"));
        assert_eq!(shown(&report.days), shown(&of(&rows[..1], None).days));
        assert_eq!((report.days.len(), report.totals.len()), (1, 1));
    }

    #[test]
    fn days_that_are_not_over_are_marked_and_errors_are_of_what_was_predicted() {
        let rows = [
            row("shoes", TODAY - 1, 9, 9, Some((200, 150))),
            row("shoes", TODAY, 9, 9, Some((200, 300))),
            row("hats", TODAY - 1, 9, 9, None),
            row("beds", TODAY - 1, 9, 9, Some((0, 5))),
        ];
        let report = of(&rows, None);
        let over: Vec<bool> = report.days.iter().map(|line| line.is_over).collect();
        assert_eq!(over, [true, true, true, false]);
        let errors = |lines: &[BudgetReportLine]| -> Vec<Option<f64>> {
            lines.iter().map(|line| line.prediction_error_percent).collect()
        };
        assert_eq!(errors(&report.days), [None, None, Some(-25.0), Some(50.0)]);
        assert_eq!(errors(&report.ad_groups), [None, None, Some(12.5)]);
        assert_eq!(errors(&report.totals), [None, Some(12.5)]);
        assert_eq!(report.totals[0].earned_micros, Some(Micros(5)));
        assert_eq!(report.ad_groups[1].predicted_micros, None);
        assert!(report.totals[0].is_over && !report.totals[1].is_over);
    }

    /// After a change of the time zone, what was the current day may be tomorrow.
    #[test]
    fn a_day_to_come_has_a_line_once_it_has_figures() {
        let tomorrow = TODAY + 1;
        let of_day = |actual, prediction| {
            let rows = [
                row("shoes", TODAY, 100, 30, None),
                row("shoes", tomorrow, 100, actual, prediction),
                row("removed", tomorrow, 5, 0, None),
            ];
            let range = DayRange { from: BudgetDay(TODAY), to: BudgetDay(tomorrow) };
            let currency = Some("USD".parse().unwrap());
            let rows = rows.map(|row| BudgetDayRow { currency, ..row });
            let report = report(range, &ad_groups(), &rows, None).unwrap();
            (report.days.len(), report.totals[0].left_over_micros.0)
        };
        assert_eq!(of_day(0, None), (2, 75));
        assert_eq!(of_day(0, Some((0, 0))), (2, 75));
        assert_eq!(of_day(0, Some((4, 0))), (3, 175));
        assert_eq!(of_day(1, None), (3, 174));
    }

    /// The report of these budgets and amounts of two ad groups of one advertiser.
    fn of_two(amounts: [(i64, i64); 2]) -> Result<BudgetReport, MoneyError> {
        let [shoes, hats] = amounts;
        let rows =
            [row("shoes", 95, shoes.0, shoes.1, None), row("hats", 95, hats.0, hats.1, None)];
        let currency = Some("USD".parse().unwrap());
        let rows = rows.map(|row| BudgetDayRow { currency, ..row });
        let range = DayRange { from: BudgetDay(95), to: BudgetDay(95) };
        report(range, &ad_groups(), &rows, None)
    }

    #[test]
    fn a_sum_of_spend_that_does_not_fit_is_an_error() {
        const MAX: i64 = i64::MAX;
        assert_eq!(of_two([(MAX, MAX), (MAX, 1)]), Err(MoneyError::Overflow));
        assert!(of_two([(MAX, MAX - 1), (MAX, 1)]).is_ok());
    }

    #[test]
    fn ad_groups_with_the_largest_budget_have_a_report() {
        const MAX: i64 = i64::MAX;
        let report = of_two([(MAX, 30), (MAX, 12)]).unwrap();
        let amounts = |lines: &[BudgetReportLine]| -> Vec<[i64; 5]> {
            shown(lines).into_iter().map(|(_, amounts)| amounts).collect()
        };
        let days = [[MAX, 12, 12, 0, MAX - 12], [MAX, 30, 30, 0, MAX - 30]];
        assert_eq!(amounts(&report.days), days);
        assert_eq!(amounts(&report.advertiser_days), [[MAX, 42, 42, 0, MAX]]);
        assert_eq!(amounts(&report.totals), [[MAX, 42, 42, 0, MAX]]);
    }

    /// Whether a row without predictions has a line: not if it is of a day to come and has no spend.
    fn has_line(row: &BudgetDayRow) -> bool {
        row.day.0 <= TODAY || row.actual.0 != 0 || row.ad_group.as_str() == "removed"
    }

    proptest! {
        /// Every sum is the plain sum over the rows.
        #[test]
        fn sums_are_those_of_the_rows(
            amounts in prop::collection::btree_map(
                (0usize..5, 85i32..115),
                (0i64..1_000, 0i64..1_500),
                0..60,
            ),
        ) {
            let names = ["shoes", "hats", "beds", "trains", "removed"];
            let rows: Vec<BudgetDayRow> = amounts
                .iter()
                .map(|((name, day), (budget, actual))| row(names[*name], *day, *budget, *actual, None))
                .collect();
            let report = of(&rows, None);
            let is_in = |row: &&BudgetDayRow| (90..=110).contains(&row.day.0) && has_line(row);
            let plain = |of_line: &dyn Fn(&BudgetDayRow) -> bool| {
                let mut sums = [0i64; 5];
                for row in rows.iter().filter(is_in).filter(|row| of_line(row)) {
                    let (budget, actual) = (row.budget.0, row.actual.0);
                    let over = if actual > budget { actual - budget } else { 0 };
                    let under = if actual < budget { budget - actual } else { 0 };
                    let of_row = [budget, actual, actual - over, over, under];
                    sums.iter_mut().zip(of_row).for_each(|(sum, amount)| *sum += amount);
                }
                sums
            };
            let known = ad_groups();
            prop_assert_eq!(report.days.len(), rows.iter().filter(is_in).count());
            for lines in [&report.days, &report.advertiser_days, &report.ad_groups, &report.totals] {
                for (line, (_, sums)) in lines.iter().zip(shown(lines)) {
                    let expected = plain(&|row| {
                        let declared = known.get(&row.ad_group);
                        let day = line.day.as_ref().is_none_or(|day| *day == row.day.to_string());
                        let ad_group = line.ad_group.as_ref().is_none_or(|name| *name == row.ad_group);
                        let advertiser = line.advertiser.as_ref().is_none_or(|name| {
                            declared.is_some_and(|declared| declared.advertiser == *name)
                        });
                        let currency = line.currency.is_none_or(|currency| {
                            declared.is_some_and(|declared| declared.currency == currency)
                        });
                        day && ad_group && advertiser && currency
                    });
                    prop_assert_eq!(sums, expected);
                    let causes = line.given_away_by_cause.amounts().into_iter();
                    prop_assert_eq!(causes.map(|amount| amount.0).sum::<i64>(), sums[3]);
                }
            }
        }
    }
}
