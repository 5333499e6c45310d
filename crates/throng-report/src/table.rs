//! The report as a table for people.

use throng_api::BudgetReportLine;
use throng_model::{AdGroupName, AdvertiserName, Currency, Micros, signed_percent};

/// The columns of the table.
pub const COLUMNS: [&str; 12] = [
    "DAY",
    "ADVERTISER",
    "AD GROUP",
    "BUDGET",
    "ACTUAL",
    "BILLABLE",
    "GIVEN AWAY",
    "BY CAUSE",
    "LEFT OVER",
    "PREDICTED",
    "EARNED",
    "ERROR",
];

/// The texts of a line, one for each of [`COLUMNS`].
pub fn row(line: &BudgetReportLine) -> Vec<String> {
    let currency = line.currency.as_ref().map_or("(currency unknown)", Currency::as_str);
    let amount = |micros: Micros| {
        // A sum of budgets that does not fit is the largest amount.
        let at_least = if micros == Micros(i64::MAX) { "at least " } else { "" };
        format!("{at_least}{micros} {currency}")
    };
    let known = |micros: Option<Micros>| micros.map_or_else(|| "-".to_owned(), amount);
    let error = line.prediction_error_percent;
    let day = line.day.as_deref().unwrap_or("all days");
    let mut row = vec![
        if line.is_over { day.to_owned() } else { format!("{day} (not over)") },
        line.advertiser.as_ref().map_or("-", AdvertiserName::as_str).to_owned(),
        line.ad_group.as_ref().map_or("-", AdGroupName::as_str).to_owned(),
    ];
    let amounts =
        [line.budget_micros, line.actual_micros, line.billable_micros, line.given_away_micros];
    row.extend(amounts.map(amount));
    let causes = line.given_away_by_cause.named();
    let causes: Vec<String> =
        causes.map(|(name, of_cause)| format!("{name} {}", amount(of_cause))).collect();
    row.push(if causes.is_empty() { "-".to_owned() } else { causes.join(", ") });
    row.push(amount(line.left_over_micros));
    row.extend([line.predicted_micros, line.earned_micros].map(known));
    row.push(error.map_or_else(|| "-".to_owned(), signed_percent));
    row
}

#[cfg(test)]
mod tests {
    use throng_model::BudgetDay;
    use throng_store::BudgetDayRow;

    use super::*;
    use crate::sums::{Subject, Sums};

    #[test]
    fn a_row_has_a_text_for_each_column() {
        let day = BudgetDayRow {
            ad_group: "shoes".parse().unwrap(),
            day: BudgetDay(0),
            budget: Micros(1_000_000),
            actual: Micros(400_000),
            prediction: None,
            currency: None,
            causes: None,
        };
        let subject = Subject { day: Some(day.day), ..Subject::default() };
        let texts = row(&Sums::of(&day, false).line(subject).unwrap());
        assert_eq!(texts.len(), COLUMNS.len());
        assert_eq!(texts[0], "1970-01-01 (not over)");
        assert_eq!(texts[3], "1.00 (currency unknown)");
        assert_eq!((texts[1].as_str(), texts[8].as_str()), ("-", "0.60 (currency unknown)"));
        let largest = BudgetDayRow { budget: Micros(i64::MAX), ..day };
        let texts = row(&Sums::of(&largest, true).line(Subject::default()).unwrap());
        assert_eq!(texts[3], "at least 9223372036854.775807 (currency unknown)");
    }
}
