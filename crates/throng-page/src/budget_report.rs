//! The report of budgets: what was billable, given away and left over, and what was predicted.

use std::collections::BTreeMap;

use askama::Template;
use throng_api::{BudgetReport, BudgetReportLine};
use throng_model::{Currency, Micros};

use crate::show::{Card, card, count, sum_of_money, text_card};
use crate::{Rendered, chart};

/// The most rows of a table. The CSV has all days of ad groups, the API all lines.
const MAX_ROWS: usize = 500;

#[derive(Template)]
#[template(path = "budget_report.html")]
struct Page<'a> {
    from: &'a str,
    to: &'a str,
    advertiser: &'a str,
    cards: Vec<Card>,
    charts: Vec<CurrencyCharts>,
    advertisers: Table,
    ad_groups: Table,
    days: Table,
}

/// The rows that are shown, and a note if there are more.
struct Table {
    rows: Vec<Row>,
    note: Option<String>,
}

/// The charts of one currency.
struct CurrencyCharts {
    currency: String,
    spend: String,
    predicted: String,
}

struct Row {
    day: String,
    advertiser: String,
    ad_group: String,
    budget: String,
    actual: String,
    billable: String,
    given_away: String,
    is_over_budget: bool,
    causes: String,
    left_over: String,
    predicted: String,
    earned: String,
    error: String,
}

impl Page<'_> {
    fn menu_path(&self) -> &'static str {
        "/budgets"
    }
}

/// The page of a report. `advertiser`: the one that was asked for.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn page(report: &BudgetReport, advertiser: Option<&str>) -> Rendered {
    let page = Page {
        from: &report.from,
        to: &report.to,
        advertiser: advertiser.unwrap_or_default(),
        cards: vec![
            card(
                "budget-total",
                by_currency(&report.totals, &with(|l| l.budget_micros)),
                "budgets",
            ),
            card(
                "billable-total",
                by_currency(&report.totals, &with(|l| l.billable_micros)),
                "billable",
            ),
            card("given-away-total", by_currency(&report.totals, &given_away), "given away"),
            text_card("causes-total", by_currency(&report.totals, &causes), "given away by cause"),
            card(
                "left-over-total",
                by_currency(&report.totals, &with(|l| l.left_over_micros)),
                "left over",
            ),
            card(
                "prediction-error",
                by_currency(&report.totals, &error),
                "earned against predicted",
            ),
        ],
        charts: charts(report),
        advertisers: newest(&report.advertiser_days),
        ad_groups: given_away_first(&report.ad_groups),
        days: newest(&report.days),
    };
    page.render()
}

/// The newest of lines by day.
fn newest(lines: &[BudgetReportLine]) -> Table {
    let hidden = lines.len().saturating_sub(MAX_ROWS);
    let note = || format!("The newest {MAX_ROWS} of {} lines.", count(lines.len() as u64));
    let shown = lines.get(hidden..).unwrap_or_default();
    Table { rows: shown.iter().map(row).collect(), note: (hidden > 0).then(note) }
}

/// The lines of ad groups in their order; if there are too many, those first that have given something away.
fn given_away_first(lines: &[BudgetReportLine]) -> Table {
    if lines.len() <= MAX_ROWS {
        return Table { rows: lines.iter().map(row).collect(), note: None };
    }
    let (given, others): (Vec<&BudgetReportLine>, Vec<&BudgetReportLine>) =
        lines.iter().partition(|line| line.given_away_micros.0 > 0);
    let rows = given.into_iter().chain(others).take(MAX_ROWS).map(row).collect();
    let note = format!(
        "{MAX_ROWS} of {} lines, first those with something given away.",
        count(lines.len() as u64)
    );
    Table { rows, note: Some(note) }
}

/// The text of an amount of a line.
fn with(of: fn(&BudgetReportLine) -> Micros) -> impl Fn(&BudgetReportLine) -> String {
    move |line| amount(line, of(line))
}

fn amount(line: &BudgetReportLine, amount: Micros) -> String {
    match line.currency {
        Some(currency) => format!("{} {currency}", sum_of_money(amount)),
        None => format!("{} (currency unknown)", sum_of_money(amount)),
    }
}

/// What was given away, with its share of the budgets.
fn given_away(line: &BudgetReportLine) -> String {
    let text = amount(line, line.given_away_micros);
    if line.budget_micros.0 <= 0 {
        return text;
    }
    let share = line.given_away_micros.0 as f64 / line.budget_micros.0 as f64 * 100.0;
    format!("{text} ({share:.2} %)")
}

/// What was given away by cause, such as `feed 1.20 USD, unknown 0.10 USD`.
fn causes(line: &BudgetReportLine) -> String {
    let named = line.given_away_by_cause.named();
    let texts: Vec<String> =
        named.map(|(name, of_cause)| format!("{name} {}", amount(line, of_cause))).collect();
    if texts.is_empty() { "–".to_owned() } else { texts.join(", ") }
}

fn error(line: &BudgetReportLine) -> String {
    line.prediction_error_percent.map_or_else(|| "–".to_owned(), throng_model::signed_percent)
}

/// The texts of all currencies.
fn by_currency(totals: &[BudgetReportLine], of: &dyn Fn(&BudgetReportLine) -> String) -> String {
    let texts: Vec<String> = totals.iter().map(of).collect();
    // One dash says as much as one for each currency, and of an empty list.
    if texts.iter().all(|text| text == "–") { "–".to_owned() } else { texts.join(" · ") }
}

/// Sums of one day: budget, actual, predicted and earned.
type DaySums = [f64; 4];

/// Charts by day, one pair for each currency.
fn charts(report: &BudgetReport) -> Vec<CurrencyCharts> {
    let mut currencies: BTreeMap<Currency, BTreeMap<&str, DaySums>> = BTreeMap::new();
    for line in &report.advertiser_days {
        let (Some(currency), Some(day)) = (line.currency, line.day.as_deref()) else { continue };
        let sums = currencies.entry(currency).or_default().entry(day).or_default();
        let amounts = [
            Some(line.budget_micros),
            Some(line.actual_micros),
            line.predicted_micros,
            line.earned_micros,
        ];
        for (sum, amount) in sums.iter_mut().zip(amounts) {
            *sum += amount.unwrap_or_default().0 as f64;
        }
    }
    let of_currency = |(currency, days): (Currency, BTreeMap<&str, DaySums>)| {
        let label = |micros: f64| format!("{} {currency}", sum_of_money(Micros(micros as i64)));
        let title = |of: &str| format!("{of} by day, {currency}");
        let bars = ("b", "a");
        let pairs = |first: usize| -> Vec<(String, f64, f64)> {
            let pair = |(day, sums): (&&str, &DaySums)| {
                // Month and day.
                let short = day.get(5..).unwrap_or(day).to_owned();
                (short, sums[first], sums[first + 1])
            };
            days.iter().map(pair).collect()
        };
        CurrencyCharts {
            currency: currency.as_str().to_owned(),
            spend: chart::bar_pairs(&title("Budget and actual spend"), &pairs(0), bars, &label),
            predicted: chart::bar_pairs(&title("Predicted and earned"), &pairs(2), bars, &label),
        }
    };
    currencies.into_iter().map(of_currency).collect()
}

fn row(line: &BudgetReportLine) -> Row {
    let day = line.day.clone().unwrap_or_default();
    let known = |micros: Option<Micros>| micros.map_or_else(|| "–".to_owned(), |m| amount(line, m));
    Row {
        day: if line.is_over { day } else { format!("{day} (not over)").trim().to_owned() },
        advertiser: line.advertiser.as_ref().map_or("–", |name| name.as_str()).to_owned(),
        ad_group: line.ad_group.as_ref().map_or("", |name| name.as_str()).to_owned(),
        budget: amount(line, line.budget_micros),
        actual: amount(line, line.actual_micros),
        billable: amount(line, line.billable_micros),
        given_away: given_away(line),
        is_over_budget: line.given_away_micros.0 > 0,
        causes: causes(line),
        left_over: amount(line, line.left_over_micros),
        predicted: known(line.predicted_micros),
        earned: known(line.earned_micros),
        error: error(line),
    }
}

#[cfg(test)]
mod tests {
    use throng_api::GivenAwayByCause;

    use super::*;

    fn line(currency: Option<&str>, budget: i64, actual: i64) -> BudgetReportLine {
        BudgetReportLine {
            day: Some("2026-11-23".to_owned()),
            is_over: true,
            advertiser: Some("shop".parse().unwrap()),
            ad_group: None,
            currency: currency.map(|code| code.parse().unwrap()),
            budget_micros: Micros(budget),
            actual_micros: Micros(actual),
            billable_micros: Micros(actual.min(budget)),
            given_away_micros: Micros((actual - budget).max(0)),
            given_away_by_cause: GivenAwayByCause {
                feed_micros: Micros((actual - budget).max(0)),
                ..GivenAwayByCause::default()
            },
            left_over_micros: Micros((budget - actual).max(0)),
            predicted_micros: None,
            earned_micros: None,
            prediction_error_percent: Some(-12.34),
        }
    }

    #[test]
    fn totals_and_charts_are_of_one_currency_each() {
        let totals = [
            line(Some("EUR"), 100_000_000, 101_000_000),
            line(Some("USD"), 100_000_000, 90_000_000),
        ];
        assert_eq!(by_currency(&totals, &given_away), "1.00 EUR (1.00 %) · 0.00 USD (0.00 %)");
        assert_eq!(by_currency(&totals, &causes), "feed 1.00 EUR · –");
        assert_eq!(by_currency(&totals, &error), "-12.3 % · -12.3 %");
        let exact = BudgetReportLine { prediction_error_percent: Some(-0.01), ..totals[0].clone() };
        assert_eq!(error(&exact), "0.0 %");
        assert_eq!(by_currency(&[], &error), "–");
        assert_eq!(by_currency(&totals, &|_| "–".to_owned()), "–");
        let report = BudgetReport {
            from: "2026-11-23".to_owned(),
            to: "2026-11-23".to_owned(),
            days: Vec::new(),
            advertiser_days: totals.to_vec(),
            ad_groups: totals.to_vec(),
            totals: totals.to_vec(),
        };
        let charts = charts(&report);
        let currencies: Vec<&str> = charts.iter().map(|chart| chart.currency.as_str()).collect();
        assert_eq!(currencies, ["EUR", "USD"]);
        let html = page(&report, None).unwrap();
        assert!(html.contains("101.00 EUR") && html.contains("format=csv"), "{html}");
        assert!(html.contains(r#"<div class="card" id="given-away-total"><b>1.00 EUR"#), "{html}");
        assert!(html.contains(r#"<div class="card text" id="causes-total"><b>feed"#), "{html}");
    }

    #[test]
    fn a_sum_of_budgets_that_does_not_fit_is_shown_as_such() {
        let row = row(&line(Some("USD"), i64::MAX, 0));
        assert_eq!(row.budget, "at least 9223372036854.78 USD");
        assert_eq!((&*row.left_over, &*row.actual), (&*row.budget, "0.00 USD"));
    }

    #[test]
    fn the_newest_days_are_shown() {
        let day =
            |n: usize| BudgetReportLine { day: Some(format!("day-{n:03}")), ..line(None, 1, 1) };
        let report = BudgetReport {
            from: "2026-11-23".to_owned(),
            to: "2026-11-23".to_owned(),
            days: (0..MAX_ROWS + 2).map(day).collect(),
            advertiser_days: Vec::new(),
            ad_groups: vec![line(None, 1, 1)],
            totals: Vec::new(),
        };
        let html = page(&report, None).unwrap();
        assert!(html.contains("0.00 (currency unknown)"), "{html}");
        assert!(!html.contains("day-001") && html.contains("day-002"), "{html}");
        assert!(html.contains("The newest 500 of 502 lines."), "{html}");
    }

    #[test]
    fn of_many_ad_groups_those_that_have_given_something_away_are_shown() {
        let of = |n: usize| BudgetReportLine {
            day: None,
            ad_group: Some(format!("ad-{n:04}").parse().unwrap()),
            ..line(Some("USD"), 10_000, if n == 10_000 { 20_000 } else { 10_000 })
        };
        let lines: Vec<BudgetReportLine> = (1..=10_000).map(of).collect();
        let report = BudgetReport {
            from: "2026-11-23".to_owned(),
            to: "2026-11-23".to_owned(),
            days: Vec::new(),
            advertiser_days: vec![line(Some("USD"), 10_000, 20_000); MAX_ROWS + 1],
            ad_groups: lines.clone(),
            totals: Vec::new(),
        };
        let html = page(&report, None).unwrap();
        let shown = html.matches(r#"<td class="name">ad-"#).count();
        assert_eq!(shown, MAX_ROWS, "{html}");
        for text in ["ad-10000", "ad-0001", "ad-0499", "500 of 10,000 lines, first those with"] {
            assert!(html.contains(text), "{text}: {html}");
        }
        assert!(!html.contains("ad-0500"), "{html}");
        assert!(html.contains("The newest 500 of 501 lines."), "{html}");
        // All of them in their order where they have room.
        let few = BudgetReport { ad_groups: lines[9_998..].to_vec(), ..report };
        let html = page(&few, None).unwrap();
        assert!(html.find("ad-9999") < html.find("ad-10000"), "{html}");
    }
}
