//! A report as CSV.

use std::fmt::Write as _;

use throng_api::{BudgetReport, BudgetReportLine};
use throng_model::{AdGroupName, AdvertiserName, Currency, Micros, rounded};

/// The first line.
const HEADER: &str = "day,is_over,advertiser,ad_group,currency,budget,actual,billable,given_away,left_over,predicted,earned,prediction_error_percent,given_away_events,given_away_feed,given_away_prediction,given_away_burst,given_away_price_change,given_away_unknown\n";

/// The days of a report: a line for each day of each ad group, with amounts in units of the currency. What is not
/// known is empty. No cell needs quotes: names have letters, digits, `-`, `_` and `.` only.
pub fn csv(report: &BudgetReport) -> String {
    let mut text = HEADER.to_owned();
    for line in &report.days {
        push_line(&mut text, line);
    }
    text
}

fn push_line(text: &mut String, line: &BudgetReportLine) {
    let amount = |amount: Option<Micros>| amount.map_or_else(String::new, |a| a.to_string());
    let error = line.prediction_error_percent;
    let cells = [
        line.day.clone().unwrap_or_default(),
        line.is_over.to_string(),
        line.advertiser.as_ref().map_or("", AdvertiserName::as_str).to_owned(),
        line.ad_group.as_ref().map_or("", AdGroupName::as_str).to_owned(),
        line.currency.as_ref().map_or("", Currency::as_str).to_owned(),
        line.budget_micros.to_string(),
        line.actual_micros.to_string(),
        line.billable_micros.to_string(),
        line.given_away_micros.to_string(),
        line.left_over_micros.to_string(),
        amount(line.predicted_micros),
        amount(line.earned_micros),
        error.map_or_else(String::new, |percent| rounded(percent, 2)),
    ];
    let causes = line.given_away_by_cause.amounts().map(|amount| amount.to_string());
    // Writing to a string does not fail.
    let _ = writeln!(text, "{},{}", cells.join(","), causes.join(","));
}

#[cfg(test)]
mod tests {
    use throng_api::GivenAwayByCause;

    use super::*;

    #[test]
    fn a_line_has_amounts_in_units_of_the_currency() {
        let line = BudgetReportLine {
            day: Some("2026-11-23".to_owned()),
            is_over: true,
            advertiser: Some("shop".parse().unwrap()),
            ad_group: Some("shoes".parse().unwrap()),
            currency: Some("USD".parse().unwrap()),
            budget_micros: Micros(1_000_000),
            actual_micros: Micros(1_100_001),
            billable_micros: Micros(1_000_000),
            given_away_micros: Micros(100_001),
            given_away_by_cause: GivenAwayByCause {
                feed_micros: Micros(90_000),
                unknown_micros: Micros(10_001),
                ..GivenAwayByCause::default()
            },
            left_over_micros: Micros(0),
            predicted_micros: Some(Micros(900_000)),
            earned_micros: Some(Micros(1_000_000)),
            prediction_error_percent: Some(100.0 / 9.0),
        };
        let removed = BudgetReportLine {
            advertiser: None,
            currency: None,
            predicted_micros: None,
            earned_micros: None,
            prediction_error_percent: None,
            given_away_by_cause: GivenAwayByCause::default(),
            ..line.clone()
        };
        let exact = BudgetReportLine { prediction_error_percent: Some(-0.001), ..line.clone() };
        let report = BudgetReport {
            from: "2026-11-23".to_owned(),
            to: "2026-11-23".to_owned(),
            days: vec![line, removed, exact],
            advertiser_days: Vec::new(),
            ad_groups: Vec::new(),
            totals: Vec::new(),
        };
        let text = csv(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1..],
            [
                "2026-11-23,true,shop,shoes,USD,1.00,1.100001,1.00,0.100001,0.00,0.90,1.00,11.11,0.00,0.09,0.00,0.00,0.00,0.010001",
                "2026-11-23,true,,shoes,,1.00,1.100001,1.00,0.100001,0.00,,,,0.00,0.00,0.00,0.00,0.00,0.00",
                "2026-11-23,true,shop,shoes,USD,1.00,1.100001,1.00,0.100001,0.00,0.90,1.00,0.00,0.00,0.09,0.00,0.00,0.00,0.010001",
            ]
        );
        assert!(lines.iter().all(|line| line.split(',').count() == 19), "{text}");
    }
}
