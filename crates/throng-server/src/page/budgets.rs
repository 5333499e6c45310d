//! Budgets: actual, in-flight and projected spend of all ad groups; one ad group over the day.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, State};
use throng_model::{AdGroupName, Currency, Micros};

use crate::roles::aggregate::AdGroupState;

use crate::roles::cluster::cluster_members;

use super::show::{self, Card, Entry, card, money};
use super::{Context, Page, PageError, chart, render};

#[derive(Template)]
#[template(path = "budgets.html")]
struct List {
    cards: Vec<Card>,
    rows: Vec<Row>,
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
}

struct GateRow {
    id: String,
    versions: String,
    age: String,
}

impl List {
    fn menu_path(&self) -> &'static str {
        "/budgets"
    }
}

fn meter(state: &AdGroupState) -> String {
    let budget = state.budget.0.max(1) as f64;
    let within = state.actual.0.min(state.budget.0) as f64 / budget;
    let over = (state.actual.0 - state.budget.0).max(0) as f64 / budget;
    // Overdelivery is drawn inside the bar, so that the end of the bar is the budget.
    chart::meter(&[
        ("actual", within - over.min(within)),
        ("over", over.min(within)),
        ("flight", state.in_flight.0 as f64 / budget),
    ])
}

/// An amount of an ad group, with its currency.
fn with_currency(state: &AdGroupState, amount: Micros) -> String {
    format!("{} {}", money(amount), state.currency)
}

/// Sums of amounts by currency. Amounts of different currencies are never added.
pub(super) fn sums(states: &[AdGroupState], of: &dyn Fn(&AdGroupState) -> i64) -> String {
    let mut sums: BTreeMap<Currency, i64> = BTreeMap::new();
    for state in states {
        let sum = sums.entry(state.currency).or_default();
        *sum = sum.saturating_add(of(state));
    }
    let shown = |(currency, sum): (&Currency, &i64)| format!("{} {currency}", money(Micros(*sum)));
    sums.iter().map(shown).collect::<Vec<_>>().join(" · ")
}

/// The share of the budgets: computed by currency, then averaged over the currencies.
pub(super) fn share_of_budgets(states: &[AdGroupState], of: &dyn Fn(&AdGroupState) -> i64) -> f64 {
    let mut sums: BTreeMap<Currency, (f64, f64)> = BTreeMap::new();
    for state in states {
        let sum = sums.entry(state.currency).or_default();
        *sum = (sum.0 + of(state) as f64, sum.1 + state.budget.0 as f64);
    }
    let shares = sums.values().map(|(part, budget)| part / budget.max(1.0));
    shares.sum::<f64>() / sums.len().max(1) as f64
}

fn open_or_closed(state: &AdGroupState) -> (&'static str, &'static str) {
    if state.open { ("open", "good") } else { ("closed", "bad") }
}

pub(super) async fn list(State(ctx): Context) -> Page {
    let states = ctx.budgets.states();
    let now = ctx.clock.now();
    let sum = |of: &dyn Fn(&AdGroupState) -> i64| sums(&states, of);
    let (_, gates) = cluster_members(&ctx).await?;
    let page = List {
        cards: vec![
            card("budget-total", sum(&|s| s.budget.0), "budgets today"),
            card("actual-total", sum(&|s| s.actual.0), "actual"),
            card("in-flight-total", sum(&|s| s.in_flight.0), "in flight"),
            card(
                "over-total",
                sum(&|s| (s.actual.0 - s.budget.0).max(0)),
                "delivered past the budgets",
            ),
            card("open-count", states.iter().filter(|s| s.open).count(), "ad groups open"),
        ],
        rows: states
            .iter()
            .map(|s| {
                let (state, tone) = open_or_closed(s);
                Row {
                    name: s.name.to_string(),
                    state,
                    tone,
                    budget: with_currency(s, s.budget),
                    actual: with_currency(s, s.actual),
                    in_flight: with_currency(s, s.in_flight),
                    projected: with_currency(s, s.projected),
                    meter: meter(s),
                }
            })
            .collect(),
        gates: gates
            .into_iter()
            .map(|gate| GateRow {
                versions: format!("{:?}", gate.versions),
                age: show::duration(now.since(gate.at)),
                id: gate.id,
            })
            .collect(),
    };
    render(&page)
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
    history: Vec<Entry>,
}

impl One {
    fn menu_path(&self) -> &'static str {
        "/budgets"
    }
}

pub(super) async fn one(State(ctx): Context, Path(name): Path<String>) -> Page {
    let missing =
        || PageError::Missing(format!("There is no ad group {name} in the applied spec."));
    let checked = AdGroupName::new(name.clone()).map_err(|_| missing())?;
    let states = ctx.budgets.states();
    let state = states.iter().find(|s| s.name == checked).ok_or_else(missing)?;
    let series = ctx.budgets.spend_history(&checked).await?.unwrap_or_default().series;
    let history = ctx
        .ledger
        .history(Some((&throng_store::SubjectKind::AdGroup, checked.as_str())), 30)
        .await?;
    let line = |class, of: &dyn Fn(&throng_budget::SpendPoint) -> i64| chart::Line {
        class,
        points: series.points.iter().map(|p| (p.at.0 as f64, of(p) as f64)).collect(),
    };
    let lines = [
        line("d", &|_| state.budget.0),
        line("c", &|p| p.actual.0.saturating_add(p.in_flight.0)),
        line("b", &|p| p.in_flight.0),
        line("a", &|p| p.actual.0),
    ];
    let amount = |micros: f64| with_currency(state, Micros(micros as i64));
    let pairs: Vec<(String, f64, f64)> = series
        .intervals
        .iter()
        .map(|i| (show::clock(i.start.0 as f64), i.predicted.0 as f64, i.actual.0 as f64))
        .collect();
    let (state_text, tone) = open_or_closed(state);
    let page = One {
        name,
        state: state_text,
        tone,
        reason: state.reason.clone(),
        cards: vec![
            card("budget", with_currency(state, state.budget), "budget today"),
            card("actual", with_currency(state, state.actual), "actual"),
            card("in-flight", with_currency(state, state.in_flight), "in flight"),
            card("projected", with_currency(state, state.projected), "projected"),
        ],
        live: chart::lines(&lines, &show::clock, &amount),
        predicted: chart::bar_pairs(&pairs, ("b", "a"), &amount),
        history: show::entries(history),
    };
    render(&page)
}

#[cfg(test)]
mod tests {
    use throng_model::AdGroupIndex;

    use super::*;

    #[test]
    fn amounts_of_different_currencies_are_never_added() {
        let state = |name: &str, currency: &str, actual| AdGroupState {
            name: name.parse().unwrap(),
            index: AdGroupIndex(0),
            currency: currency.parse().unwrap(),
            budget: Micros(4_000_000),
            actual: Micros(actual),
            in_flight: Micros(0),
            projected: Micros(actual),
            open: true,
            reason: String::new(),
        };
        let states = [
            state("a", "USD", 1_000_000),
            state("b", "EUR", 2_000_000),
            state("c", "USD", 1_000_000),
        ];
        assert_eq!(sums(&states, &|s| s.actual.0), "2.00 EUR · 2.00 USD");
        assert_eq!(sums(&[], &|s| s.actual.0), "");
        assert_eq!(share_of_budgets(&states, &|s| s.actual.0), 0.375);
        assert_eq!(share_of_budgets(&[], &|s| s.actual.0), 0.0);
    }
}
