//! Budgets: actual, in-flight and projected spend of all ad groups; one ad group over the day.

use std::collections::BTreeMap;

use askama::Template;
use throng_api::{
    BudgetInterval, BudgetPoint, BudgetRate, BudgetRates, BudgetState, GateApplied, HistoryItem,
};
use throng_model::{Currency, Micros, Timestamp};

use crate::show::{self, Card, Entry, card, count, money, sum_of_money};
use crate::{Rendered, chart};

/// One ad group with its spend of today.
#[derive(Debug)]
pub struct AdGroupView {
    /// The current state.
    pub state: BudgetState,
    /// Actual and in-flight spend over time, oldest first.
    pub points: Vec<BudgetPoint>,
    /// Predicted and actual spend per three minutes, oldest first.
    pub intervals: Vec<BudgetInterval>,
    /// The declared and the learned rates.
    pub rates: BudgetRates,
    /// Its history, newest first.
    pub history: Vec<HistoryItem>,
}

/// The maximum number of listed ad groups: the page is read again whenever something is spent.
pub const MAX_ROWS: usize = 500;

#[derive(Template)]
#[template(path = "budgets.html")]
struct List<'a> {
    cards: Vec<Card>,
    search: &'a str,
    /// Whether there are ad groups, also if none matches.
    has_ad_groups: bool,
    rows: Vec<Row>,
    /// How many of the matching ad groups are shown; `None` if all are.
    truncated: Option<String>,
    gates: Vec<GateRow>,
}

struct Row {
    name: String,
    state: &'static str,
    tone: &'static str,
    budget: String,
    actual: String,
    in_flight: String,
    projected: String,
    meter: String,
    reason: String,
}

struct GateRow {
    id: String,
    versions: String,
    age: String,
}

impl List<'_> {
    fn menu_path(&self) -> &'static str {
        "/budgets"
    }
}

fn meter(state: &BudgetState) -> String {
    let budget = state.budget_micros.0.max(1) as f64;
    let within = state.actual_micros.0.min(state.budget_micros.0) as f64 / budget;
    let over = past_budget(state) as f64 / budget;
    // Overdelivery is drawn inside the bar, so that the end of the bar is the budget.
    chart::meter(&[
        ("actual", within - over.min(within)),
        ("over", over.min(within)),
        ("flight", state.in_flight_micros.0 as f64 / budget),
    ])
}

/// The amount that was delivered past the budget.
fn past_budget(state: &BudgetState) -> i64 {
    (state.actual_micros.0 - state.budget_micros.0).max(0)
}

/// An amount of an ad group, with its currency.
fn with_currency(state: &BudgetState, amount: Micros) -> String {
    format!("{} {}", money(amount), state.currency)
}

/// Sums of amounts by currency, `–` without ad groups. Amounts of different currencies are never added. A sum that does
/// not fit is shown as at least the largest amount.
pub(crate) fn sums(states: &[BudgetState], of: &dyn Fn(&BudgetState) -> i64) -> String {
    let mut sums: BTreeMap<Currency, i64> = BTreeMap::new();
    for state in states {
        let sum = sums.entry(state.currency).or_default();
        *sum = sum.saturating_add(of(state));
    }
    let shown =
        |(currency, sum): (&Currency, &i64)| format!("{} {currency}", sum_of_money(Micros(*sum)));
    let texts: Vec<String> = sums.iter().map(shown).collect();
    if texts.is_empty() { "–".to_owned() } else { texts.join(" · ") }
}

/// The share of the budgets: computed by currency, then averaged over the currencies.
pub(crate) fn share_of_budgets(states: &[BudgetState], of: &dyn Fn(&BudgetState) -> i64) -> f64 {
    let mut sums: BTreeMap<Currency, (f64, f64)> = BTreeMap::new();
    for state in states {
        let sum = sums.entry(state.currency).or_default();
        *sum = (sum.0 + of(state) as f64, sum.1 + state.budget_micros.0 as f64);
    }
    let shares = sums.values().map(|(part, budget)| part / budget.max(1.0));
    shares.sum::<f64>() / sums.len().max(1) as f64
}

fn open_or_closed(state: &BudgetState) -> (&'static str, &'static str) {
    match (state.is_known, state.open) {
        (false, _) => ("not known yet", "warn"),
        (true, true) => ("open", "good"),
        (true, false) => ("closed", "bad"),
    }
}

/// Spend of an ad group, with its currency; a dash if it is not known yet.
fn spend(state: &BudgetState, amount: Micros) -> String {
    if state.is_known { with_currency(state, amount) } else { "–".to_owned() }
}

/// As [`sums`], of spend: with a mark if it is not known yet what some of them have spent.
pub(crate) fn sums_of_spend(states: &[BudgetState], of: &dyn Fn(&BudgetState) -> i64) -> String {
    let unknown = states.iter().filter(|state| !state.is_known).count();
    match unknown {
        0 => sums(states, of),
        _ if unknown == states.len() => "not known yet".to_owned(),
        _ => format!("{} (not known yet of {unknown})", sums(states, of)),
    }
}

/// The ad groups whose names contain the search, [`MAX_ROWS`] at most, with the sums of all ad groups, and the gates that
/// report.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn list(
    states: &[BudgetState],
    gates: &[GateApplied],
    search: &str,
    now: Timestamp,
) -> Rendered {
    // Names have no upper case.
    let search = search.trim();
    let wanted = search.to_lowercase();
    let found: Vec<&BudgetState> =
        states.iter().filter(|state| state.name.as_str().contains(&wanted)).collect();
    let (shown, all) = (found.len().min(MAX_ROWS), count(found.len() as u64));
    let sum = |of: &dyn Fn(&BudgetState) -> i64| sums_of_spend(states, of);
    let page = List {
        cards: vec![
            card("budget-total", sums(states, &|s| s.budget_micros.0), "budgets today"),
            card("actual-total", sum(&|s| s.actual_micros.0), "actual"),
            card("in-flight-total", sum(&|s| s.in_flight_micros.0), "in flight"),
            card("over-total", sum(&past_budget), "delivered past the budgets"),
            card("open-count", states.iter().filter(|s| s.open).count(), "ad groups open"),
        ],
        search,
        has_ad_groups: !states.is_empty(),
        truncated: (shown < found.len())
            .then(|| format!("The first {shown} of {all} ad groups. Search for the others.")),
        rows: found.into_iter().take(MAX_ROWS).map(row).collect(),
        gates: gates.iter().map(|gate| gate_row(gate, now)).collect(),
    };
    page.render()
}

fn row(budget: &BudgetState) -> Row {
    let (state, tone) = open_or_closed(budget);
    Row {
        name: budget.name.to_string(),
        state,
        tone,
        budget: with_currency(budget, budget.budget_micros),
        actual: spend(budget, budget.actual_micros),
        in_flight: spend(budget, budget.in_flight_micros),
        projected: spend(budget, budget.projected_micros),
        meter: meter(budget),
        reason: budget.reason.clone(),
    }
}

fn gate_row(gate: &GateApplied, now: Timestamp) -> GateRow {
    GateRow {
        id: gate.id.clone(),
        versions: format!("{:?}", gate.versions),
        age: show::duration(now.since(gate.at)),
    }
}

#[derive(Template)]
#[template(path = "ad_group.html")]
struct One {
    name: String,
    state: &'static str,
    tone: &'static str,
    reason: String,
    cards: Vec<Card>,
    live: String,
    predicted: String,
    rates: Vec<RateRow>,
    history: Vec<Entry>,
}

struct RateRow {
    placement: String,
    impression: String,
    action: String,
}

/// The rates of all insertions, then those of each placement.
fn rate_rows(rates: &BudgetRates) -> Vec<RateRow> {
    let row = |placement: &str, impression: &BudgetRate, action: Option<&BudgetRate>| RateRow {
        placement: placement.to_owned(),
        impression: impression.to_string(),
        action: action.map_or_else(String::new, BudgetRate::to_string),
    };
    let all = row("all", &rates.impression, rates.action.as_ref());
    let placements = rates.placements.iter();
    let placements = placements.map(|of| row(&of.placement, &of.impression, of.action.as_ref()));
    std::iter::once(all).chain(placements).collect()
}

impl One {
    fn menu_path(&self) -> &'static str {
        "/budgets"
    }
}

/// The page of one ad group.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn one(view: &AdGroupView) -> Rendered {
    let AdGroupView { state, points, intervals, rates, history } = view;
    let line = |class, of: &dyn Fn(&BudgetPoint) -> i64| chart::Line {
        class,
        points: points.iter().map(|point| (point.at.0 as f64, of(point) as f64)).collect(),
    };
    let lines = [
        line("d", &|_| state.budget_micros.0),
        line("c", &|p| p.actual.0.saturating_add(p.in_flight.0)),
        line("b", &|p| p.in_flight.0),
        line("a", &|p| p.actual.0),
    ];
    let amount = |micros: f64| with_currency(state, Micros(micros as i64));
    let pairs: Vec<(String, f64, f64)> = intervals
        .iter()
        .map(|i| (show::clock(i.start.0 as f64), i.predicted.0 as f64, i.actual.0 as f64))
        .collect();
    let (state_text, tone) = open_or_closed(state);
    let page = One {
        name: state.name.to_string(),
        state: state_text,
        tone,
        reason: state.reason.clone(),
        cards: vec![
            card("budget", with_currency(state, state.budget_micros), "budget today"),
            card("actual", spend(state, state.actual_micros), "actual"),
            card("in-flight", spend(state, state.in_flight_micros), "in flight"),
            card("projected", spend(state, state.projected_micros), "projected"),
        ],
        live: chart::lines("Spend today", &lines, &show::clock, &amount),
        predicted: chart::bar_pairs("Predicted and actual spend", &pairs, ("b", "a"), &amount),
        rates: rate_rows(rates),
        history: show::entries(history),
    };
    page.render()
}

#[cfg(test)]
mod tests {
    use throng_api::BudgetPlacementRates;

    use super::*;

    #[test]
    fn rates_of_placements_follow_those_of_all() {
        let rate = |declared| BudgetRate { declared, ..BudgetRate::default() };
        let home = BudgetPlacementRates {
            placement: "home".to_owned(),
            impression: rate(0.5),
            action: Some(rate(0.25)),
        };
        let rates = BudgetRates { impression: rate(1.0), action: None, placements: vec![home] };
        let rows = rate_rows(&rates);
        let rows = rows.iter().map(|row| [&row.placement, &row.impression, &row.action]);
        let expected = [
            ["all", "100.0 %, as declared", ""],
            ["home", "50.0 %, as declared", "25.0 %, as declared"],
        ];
        assert!(rows.eq(expected), "{rates:?}");
    }

    /// After a start: neither "0.00 spent" nor open or closed.
    #[test]
    fn spend_that_is_not_known_yet_is_not_shown() {
        let state = |name: &str, is_known, actual| BudgetState {
            name: name.parse().unwrap(),
            open: is_known,
            reason: String::new(),
            currency: "USD".parse().unwrap(),
            budget_micros: Micros(4_000_000),
            actual_micros: Micros(actual),
            in_flight_micros: Micros(0),
            projected_micros: Micros(actual),
            is_known,
        };
        let states = [state("a", false, 0), state("b", true, 1_000_000)];
        let rows = states.each_ref().map(row);
        let shown = |row: &Row| [row.state, &row.budget, &row.actual, &row.projected].join(", ");
        assert_eq!(shown(&rows[0]), "not known yet, 4.00 USD, –, –");
        assert_eq!(shown(&rows[1]), "open, 4.00 USD, 1.00 USD, 1.00 USD");
        let sum = |states: &[BudgetState]| sums_of_spend(states, &|state| state.actual_micros.0);
        assert_eq!(sum(&states), "1.00 USD (not known yet of 1)");
        assert_eq!(sum(&states[..1]), "not known yet");
    }

    fn state(name: &str, currency: &str, actual: i64) -> BudgetState {
        BudgetState {
            name: name.parse().unwrap(),
            open: true,
            reason: String::new(),
            currency: currency.parse().unwrap(),
            budget_micros: Micros(4_000_000),
            actual_micros: Micros(actual),
            in_flight_micros: Micros(0),
            projected_micros: Micros(actual),
            is_known: true,
        }
    }

    #[test]
    fn a_long_list_is_truncated_and_searched() {
        let states: Vec<BudgetState> =
            (0..1_501).map(|number| state(&format!("group-{number:04}"), "USD", 10_000)).collect();
        let shown = |search: &str| {
            let html = list(&states, &[], search, Timestamp(0)).unwrap();
            // The sums are those of all ad groups.
            assert!(html.contains("<b>15.01 USD</b><span>actual</span>"), "{html}");
            (html.matches("<tr data-name=").count(), html)
        };
        let (rows, html) = shown("");
        assert_eq!(rows, MAX_ROWS);
        assert!(html.contains("The first 500 of 1,501 ad groups."), "{html}");
        let (rows, html) = shown(" GROUP-15");
        assert!(rows == 1 && html.contains("data-name=\"group-1500\""), "{html}");
        assert!(!html.contains("id=\"truncated\""), "{html}");
        let (rows, html) = shown("\"none");
        assert!(rows == 0 && html.contains("Nothing matches."), "{html}");
        assert!(!html.contains("value=\"\"none"), "escaped: {html}");
        let html = list(&[], &[], "", Timestamp(0)).unwrap();
        assert!(html.contains("The applied spec has no ad groups."), "{html}");
    }

    #[test]
    fn amounts_of_different_currencies_are_never_added() {
        let states = [
            state("a", "USD", 1_000_000),
            state("b", "EUR", 2_000_000),
            state("c", "USD", 1_000_000),
        ];
        assert_eq!(sums(&states, &|s| s.actual_micros.0), "2.00 EUR · 2.00 USD");
        assert_eq!(sums(&[], &|s| s.actual_micros.0), "–");
        let largest = [state("a", "USD", i64::MAX), state("b", "USD", 1)];
        assert_eq!(sums(&largest, &|s| s.actual_micros.0), "at least 9223372036854.78 USD");
        assert_eq!(share_of_budgets(&states, &|s| s.actual_micros.0), 0.375);
        assert_eq!(share_of_budgets(&[], &|s| s.actual_micros.0), 0.0);
        assert_eq!(sums_of_spend(&states, &|s| s.actual_micros.0), "2.00 EUR · 2.00 USD");
        assert_eq!(sums_of_spend(&[], &|s| s.actual_micros.0), "–");
    }
}
