//! Budgets, events, quarantined records and gates.

use std::collections::BTreeMap;

use throng_aggregator::{AdGroupState, GateReport, QuarantineList};
use throng_api::{
    BudgetInterval, BudgetOfDay, BudgetPlacementRates, BudgetPoint, BudgetRate, BudgetRates,
    BudgetState, EventRejected, GateApplied, QuarantineOfPartition, QuarantineRecord,
};
use throng_budget::{AdGroupRates, EventProblem, Interval, RateFigures, SpendPoint};
use throng_model::{BudgetDay, Currency, Micros, Timestamp};
use throng_store::BudgetDayRow;

/// The state of an ad group.
pub fn state(state: &AdGroupState) -> BudgetState {
    BudgetState {
        name: state.name.clone(),
        open: state.open,
        reason: state.reason.clone(),
        currency: state.currency,
        budget_micros: state.budget,
        actual_micros: state.actual,
        in_flight_micros: state.in_flight,
        projected_micros: state.projected,
        is_known: state.is_known,
    }
}

/// The spend at one time.
pub fn point(point: SpendPoint) -> BudgetPoint {
    BudgetPoint { at: point.at, actual: point.actual, in_flight: point.in_flight }
}

/// Predicted and actual spend of three minutes.
pub fn interval(interval: Interval) -> BudgetInterval {
    BudgetInterval { start: interval.start, predicted: interval.predicted, actual: interval.actual }
}

/// The true rate is in the interval with this probability.
const IN_INTERVAL: f64 = 0.95;

/// The declared and the learned rates of an ad group.
pub fn rates(rates: AdGroupRates) -> BudgetRates {
    let placements = rates.placements.into_iter().map(|of| BudgetPlacementRates {
        placement: of.placement,
        impression: rate(of.impression),
        action: of.action.map(rate),
    });
    BudgetRates {
        impression: rate(rates.impression),
        action: rates.action.map(rate),
        placements: placements.collect(),
    }
}

fn rate(figures: RateFigures) -> BudgetRate {
    let interval = figures.learned.map(|learned| learned.interval(IN_INTERVAL));
    BudgetRate {
        declared: figures.declared,
        learned: figures.learned.map(|learned| learned.mean()),
        low: interval.map(|(low, _)| low),
        high: interval.map(|(_, high)| high),
        trials: figures.trials.round() as u64,
    }
}

/// Budget days, newest first: the last 8 as they are counted now, the earlier ones, and those in another currency, as
/// they were stored.
pub fn days(
    state: &AdGroupState,
    stored: Vec<BudgetDayRow>,
    counted: &[(BudgetDay, Micros)],
) -> Vec<BudgetOfDay> {
    let stored = stored.into_iter().map(|row| {
        let day = BudgetOfDay {
            ad_group: row.ad_group,
            day: row.day,
            budget: row.budget,
            actual: row.actual,
            currency: row.currency.filter(|currency| *currency != state.currency),
        };
        ((day.day, day.currency), day)
    });
    // A day may have several currencies. `None`: the current one.
    let mut days: BTreeMap<(BudgetDay, Option<Currency>), BudgetOfDay> = stored.collect();
    for (day, actual) in counted {
        let new = || BudgetOfDay {
            ad_group: state.name.clone(),
            day: *day,
            budget: state.budget,
            actual: *actual,
            currency: None,
        };
        let of_day = (*day, None::<Currency>)..(BudgetDay(day.0.saturating_add(1)), None);
        let is_stored = days.contains_key(&(*day, None));
        if !is_stored && days.range(of_day).next().is_some() {
            continue;
        }
        // A stored day without spend stays: it may have had spend in the time zone of that time.
        if actual.0 != 0 || is_stored {
            days.entry((*day, None)).or_insert_with(new).actual = *actual;
        }
    }
    days.into_values().rev().collect()
}

/// Why an event was rejected.
pub fn rejected(problem: EventProblem) -> EventRejected {
    EventRejected {
        line: problem.line as u64,
        field: problem.field,
        message: problem.message,
        help: problem.help,
    }
}

/// The records of a partition that could not be applied.
pub fn quarantine(partition: u32, list: QuarantineList) -> QuarantineOfPartition {
    let records = list.records.into_iter().map(|record| QuarantineRecord {
        offset: record.offset,
        reason: record.reason,
        count: record.count,
        at: record.at,
    });
    QuarantineOfPartition { partition, total: list.total, records: records.collect() }
}

/// What a gate reported last.
pub fn gate(report: GateReport, now: Timestamp) -> GateApplied {
    GateApplied {
        age_seconds: now.since(report.at).as_secs_f64(),
        id: report.id,
        versions: report.versions,
        at: report.at,
    }
}

#[cfg(test)]
mod tests {
    use throng_model::AdGroupIndex;

    use super::*;

    #[test]
    fn days_in_another_currency_are_those_that_were_stored() {
        let state = AdGroupState {
            name: "shoes".parse().unwrap(),
            index: AdGroupIndex(0),
            currency: "USD".parse().unwrap(),
            budget: Micros(100),
            actual: Micros(7),
            in_flight: Micros(0),
            projected: Micros(7),
            open: true,
            reason: String::new(),
            is_known: true,
        };
        let row = |day, currency: Option<&str>| BudgetDayRow {
            ad_group: "shoes".parse().unwrap(),
            day: BudgetDay(day),
            budget: Micros(50),
            actual: Micros(20),
            prediction: None,
            currency: currency.map(|code| code.parse().unwrap()),
            causes: None,
        };
        let of_12 = [row(12, None), row(12, Some("EUR"))];
        let stored = [row(10, Some("EUR")), row(11, Some("USD"))].into_iter().chain(of_12);
        let stored = stored.collect();
        let counted = [(10, 0), (11, 5), (12, 6), (13, 7)];
        let counted = counted.map(|(day, actual)| (BudgetDay(day), Micros(actual)));
        let days = days(&state, stored, &counted);
        let shown: Vec<(i32, i64, Option<String>)> = days
            .iter()
            .map(|day| (day.day.0, day.actual.0, day.currency.map(String::from)))
            .collect();
        let eur = Some("EUR".to_owned());
        let of_12 = [(12, 20, eur.clone()), (12, 6, None)];
        let [first, second] = of_12;
        assert_eq!(shown, [(13, 7, None), first, second, (11, 5, None), (10, 20, eur)]);
    }
}
