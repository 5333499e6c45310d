//! Spec, seed, ad group numbers, budget days.

use serde_json::json;
use throng_model::{AdGroupName, BudgetDay, Currency, HashSeed, Micros, OverdeliveryCauses};

use super::*;
use crate::{BudgetDayRow, PredictedSpend};

pub(super) async fn the_first_seed_is_kept(ledger: &dyn Ledger) {
    let seed = HashSeed(u64::MAX - 5);
    assert_eq!(ledger.hash_seed(seed).await.unwrap(), seed);
    assert_eq!(ledger.hash_seed(HashSeed(1)).await.unwrap(), seed);
}

pub(super) async fn the_first_number_of_partitions_is_kept(ledger: &dyn Ledger) {
    assert_eq!(ledger.log_partitions(None).await.unwrap(), None);
    assert_eq!(ledger.log_partitions(Some(4)).await.unwrap(), None, "before there is a deployment");
    ledger.hash_seed(HashSeed(1)).await.unwrap();
    assert_eq!(ledger.log_partitions(None).await.unwrap(), None);
    for proposed in [Some(4), Some(5), None] {
        assert_eq!(ledger.log_partitions(proposed).await.unwrap(), Some(4));
    }
}

pub(super) async fn an_equal_spec_changes_nothing(ledger: &dyn Ledger) {
    assert_eq!(ledger.applied_spec().await.unwrap(), None);
    let one = json!({"version": 1, "rate": 0.02, "audiences": [{"name": "buyers", "n": 1}]});
    let same = json!({"audiences": [{"n": 1, "name": "buyers"}], "rate": 0.02, "version": 1});
    let two = json!({"version": 1, "audiences": []});
    assert_eq!(apply_spec(ledger, 0, &one, 1).await, Some(1));
    assert_eq!(apply_spec(ledger, 1, &one, 2).await, Some(1));
    assert_eq!(apply_spec(ledger, 1, &same, 3).await, Some(1));
    let applied = ledger.applied_spec().await.unwrap().unwrap();
    assert_eq!((applied.version, applied.applied_at), (1, at(1)));
    assert_eq!(applied.spec, one);
    assert_eq!(apply_spec(ledger, 1, &two, 4).await, Some(2));
    // Going back to an older one is a change too.
    assert_eq!(apply_spec(ledger, 2, &one, 5).await, Some(3));
    let applied = ledger.applied_spec().await.unwrap().unwrap();
    assert_eq!((applied.version, applied.spec), (3, one));
}

pub(super) async fn a_spec_replaces_only_the_version_that_it_was_made_for(ledger: &dyn Ledger) {
    let spec = |n: u32| json!({ "version": 1, "n": n });
    assert_eq!(apply_spec(ledger, 1, &spec(0), 1).await, None);
    assert_eq!(ledger.applied_spec().await.unwrap(), None);
    assert_eq!(apply_spec(ledger, 0, &spec(1), 1).await, Some(1));
    assert_eq!(apply_spec(ledger, 1, &spec(2), 2).await, Some(2));
    assert_eq!(apply_spec(ledger, 1, &spec(3), 3).await, None);
    // An equal spec is refused too if it was made for another version.
    assert_eq!(apply_spec(ledger, 1, &spec(2), 3).await, None);
    assert_eq!(apply_spec(ledger, 2, &spec(2), 3).await, Some(2));
    // Of several concurrent calls one succeeds.
    let calls = (10..16).map(async |n| apply_spec(ledger, 2, &spec(n), 4).await);
    let versions = futures::future::join_all(calls).await;
    assert_eq!(versions.iter().flatten().collect::<Vec<_>>(), [&3]);
    assert_eq!(versions.len(), 6);
}

fn names(list: &[&str]) -> Vec<AdGroupName> {
    list.iter().map(|n| AdGroupName::new(*n).unwrap()).collect()
}

pub(super) async fn ad_group_numbers_are_stable(ledger: &dyn Ledger) {
    let numbers = async |list: &[&str]| {
        let found = ledger.ad_group_indexes(&names(list)).await.unwrap();
        found.into_iter().map(|(name, index)| (name.to_string(), index.0)).collect::<Vec<_>>()
    };
    let shown = |list: &[(&str, u32)]| {
        list.iter().map(|(name, index)| ((*name).to_owned(), *index)).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&[]).await, []);
    assert_eq!(numbers(&["b", "a"]).await, shown(&[("b", 0), ("a", 1)]));
    // A spec without `b` does not free its number.
    assert_eq!(numbers(&["c", "a"]).await, shown(&[("c", 2), ("a", 1)]));
    assert_eq!(numbers(&["d", "b", "d"]).await, shown(&[("d", 3), ("b", 0), ("d", 3)]));
}

pub(super) async fn later_budget_figures_replace_earlier_ones(ledger: &dyn Ledger) {
    let row = |name: &str, day, actual| BudgetDayRow {
        ad_group: AdGroupName::new(name).unwrap(),
        day: BudgetDay(day),
        budget: Micros(100_000_000),
        actual: Micros(actual),
        prediction: None,
        currency: None,
        causes: None,
    };
    ledger.put_budget_days(&[]).await.unwrap();
    ledger.put_budget_days(&[row("a", 10, 1), row("a", 11, 2), row("b", 10, 3)]).await.unwrap();
    ledger.put_budget_days(&[row("a", 11, 5), row("a", 11, 6)]).await.unwrap();
    let name = AdGroupName::new("a").unwrap();
    let days = ledger.budget_days(&name, 10).await.unwrap();
    assert_eq!(days, [row("a", 11, 6), row("a", 10, 1)]);
    assert_eq!(ledger.budget_days(&name, 1).await.unwrap().len(), 1);
    // A day that had spend under another time zone, and one that never had any.
    let other = BudgetDayRow { budget: Micros(7), ..row("a", 10, 0) };
    ledger.put_past_budget_days(&[other, row("a", 9, 0), row("a", 8, 4)]).await.unwrap();
    let days = ledger.budget_days(&name, 10).await.unwrap();
    assert_eq!(days, [row("a", 11, 6), row("a", 10, 0), row("a", 8, 4)]);
    let many: Vec<_> = (0..2_500).map(|day| row("c", day, 9)).collect();
    ledger.put_budget_days(&many).await.unwrap();
    let name = AdGroupName::new("c").unwrap();
    assert_eq!(ledger.budget_days(&name, 9_999).await.unwrap().len(), 2_500);
}

pub(super) async fn budget_days_are_read_by_day(ledger: &dyn Ledger) {
    let row = |name: &str, day, actual, prediction: Option<(i64, i64)>| BudgetDayRow {
        ad_group: AdGroupName::new(name).unwrap(),
        day: BudgetDay(day),
        budget: Micros(1_000),
        actual: Micros(actual),
        prediction: prediction.map(|(predicted, earned)| PredictedSpend {
            predicted: Micros(predicted),
            earned: Micros(earned),
        }),
        currency: None,
        causes: None,
    };
    let rows = [
        row("b", 10, 1, None),
        row("a", 11, 2, Some((7, 5))),
        row("a", 10, 3, Some((9, 8))),
        row("b", 12, 4, None),
    ];
    ledger.put_budget_days(&rows).await.unwrap();
    let between = async |from, to, limit| {
        ledger.budget_days_between(BudgetDay(from), BudgetDay(to), limit).await.unwrap()
    };
    let [b10, a11, a10, b12] = rows.clone();
    let all = [a10.clone(), b10.clone(), a11.clone(), b12];
    assert_eq!(between(0, 99, 99).await, all);
    assert_eq!(between(10, 11, 99).await, all[..3]);
    assert_eq!(between(10, 11, 2).await, all[..2]);
    assert!(between(13, 99, 99).await.is_empty());
    // A row without a prediction, as a process of an earlier version writes it, keeps the stored one.
    ledger.put_budget_days(&[row("a", 11, 6, None)]).await.unwrap();
    assert_eq!(between(11, 11, 9).await, [row("a", 11, 6, Some((7, 5)))]);
    // Insertions alone, and a day that had spend under another time zone.
    let past =
        [row("c", 11, 0, Some((4, 0))), row("a", 11, 0, Some((7, 6))), row("d", 11, 0, None)];
    ledger.put_past_budget_days(&past).await.unwrap();
    let expected = [row("a", 11, 0, Some((7, 6))), row("c", 11, 0, Some((4, 0)))];
    assert_eq!(between(11, 11, 9).await, expected);
    // Causes are stored in either way, and kept by a row without them.
    let causes = OverdeliveryCauses::of_amounts([1, 2, 3, 4, i64::MAX].map(Micros));
    let with_causes = |actual| BudgetDayRow { causes: Some(causes), ..row("b", 12, actual, None) };
    ledger.put_budget_days(&[with_causes(4)]).await.unwrap();
    ledger.put_past_budget_days(&[row("b", 12, 5, None)]).await.unwrap();
    assert_eq!(between(12, 12, 9).await, [with_causes(5)]);
    // A day that was the current one by another time zone, and one that has no row.
    ledger.put_budget_days(&[row("b", 12, 5, Some((7, 5)))]).await.unwrap();
    let to_come = [12, 14].map(|day| row("b", day, 0, Some((0, 0))));
    ledger.put_past_budget_days(&to_come).await.unwrap();
    assert_eq!(between(12, 14, 9).await, [row("b", 12, 0, None)]);
}

pub(super) async fn budget_days_keep_their_currencies(ledger: &dyn Ledger) {
    let (usd, eur): (Currency, Currency) = ("USD".parse().unwrap(), "EUR".parse().unwrap());
    let prediction = Some(PredictedSpend { predicted: Micros(7), earned: Micros(5) });
    let row = |day, actual, currency| BudgetDayRow {
        ad_group: AdGroupName::new("a").unwrap(),
        day: BudgetDay(day),
        budget: Micros(1_000),
        actual: Micros(actual),
        prediction,
        currency,
        causes: None,
    };
    let name = AdGroupName::new("a").unwrap();
    // A row that an earlier version wrote gets the currency in which the day is counted now.
    ledger.put_budget_days(&[row(10, 1, None), row(9, 1, None)]).await.unwrap();
    assert!(ledger.budget_day_currencies().await.unwrap().is_empty());
    ledger.put_past_budget_days(&[row(10, 2, Some(usd))]).await.unwrap();
    ledger.put_budget_days(&[row(11, 3, Some(usd)), row(12, 4, Some(usd))]).await.unwrap();
    let without = |day, currency| BudgetDayRow { prediction: None, ..row(day, 0, Some(currency)) };
    // Days that are over stay in their currency, and have spend in the other one beside it.
    ledger.put_past_budget_days(&[without(10, eur), row(11, 9, Some(eur))]).await.unwrap();
    // So has the current day, also after a row without a prediction.
    let today = BudgetDayRow { prediction: None, ..row(12, 5, Some(eur)) };
    for _ in 0..2 {
        ledger.put_budget_days(std::slice::from_ref(&today)).await.unwrap();
    }
    // A row without a currency, as a process of an earlier version writes it, keeps the stored one.
    ledger.put_budget_days(&[row(11, 6, None)]).await.unwrap();
    let in_usd = [row(11, 6, Some(usd)), row(10, 2, Some(usd)), row(9, 1, None)];
    let [eleven, ten, nine] = in_usd.clone();
    let both = [today.clone(), row(12, 4, Some(usd)), row(11, 9, Some(eur)), eleven, ten, nine];
    assert_eq!(ledger.budget_days(&name, 10).await.unwrap(), both);
    let between = ledger.budget_days_between(BudgetDay(12), BudgetDay(12), 9).await.unwrap();
    assert_eq!(between, both[..2]);
    // Late spend in the currency that the day had before, and in the one that it has now.
    let late = [row(12, 8, Some(usd)), row(11, 10, Some(eur)), row(11, 7, Some(usd))];
    ledger.put_past_budget_days(&late).await.unwrap();
    let days = ledger.budget_days(&name, 4).await.unwrap();
    assert_eq!(days[1..], [late[0].clone(), late[1].clone(), late[2].clone()]);
    // A day that is counted in one of them alone.
    ledger.put_past_budget_days(&[without(12, usd), without(11, eur)]).await.unwrap();
    ledger.put_budget_days(&[row(11, 6, Some(usd))]).await.unwrap();
    let stored: Vec<_> = std::iter::once(today).chain(in_usd).collect();
    assert_eq!(ledger.budget_days(&name, 10).await.unwrap(), stored);
    // Back in the first one: the row that was beside the other one is in its place.
    ledger.put_budget_days(&[row(12, 1, Some(usd))]).await.unwrap();
    ledger.put_budget_days(&stored[..1]).await.unwrap();
    ledger.put_past_budget_days(&[without(12, usd)]).await.unwrap();
    assert_eq!(ledger.budget_days(&name, 10).await.unwrap(), stored);
    let between = ledger.budget_days_between(BudgetDay(11), BudgetDay(12), 9).await.unwrap();
    assert!(between.iter().eq(stored[..2].iter().rev()), "{between:?}");
    let currencies = ledger.budget_day_currencies().await.unwrap();
    assert_eq!(currencies, [(name.clone(), eur), (name.clone(), usd)]);
    // Without spend in the same currency a day has none.
    let cleared = BudgetDayRow { prediction: None, ..row(10, 0, Some(usd)) };
    ledger.put_past_budget_days(&[cleared]).await.unwrap();
    assert_eq!(ledger.budget_days(&name, 3).await.unwrap()[2], row(10, 0, Some(usd)));
    // The currency was changed after the last write of a day: it has no line in the earlier one.
    ledger.put_budget_days(&[row(13, 4, Some(usd))]).await.unwrap();
    ledger.put_past_budget_days(&[row(13, 6, Some(eur)), without(13, usd)]).await.unwrap();
    let newest = [row(13, 6, Some(eur)), stored[0].clone()];
    assert_eq!(ledger.budget_days(&name, 2).await.unwrap(), newest);
    ledger.put_past_budget_days(&[row(13, 8, Some(eur)), without(13, usd)]).await.unwrap();
    let newest = [row(13, 8, Some(eur)), stored[0].clone()];
    assert_eq!(ledger.budget_days(&name, 2).await.unwrap(), newest);
}

pub(super) async fn the_only_process_is_the_leader(ledger: &dyn Ledger) {
    assert_eq!(ledger.applied_version().await.unwrap(), None);
    let version = apply_spec(ledger, 0, &json!({ "version": 1 }), 1).await;
    assert_eq!((version, ledger.applied_version().await.unwrap()), (Some(1), Some(1)));
    for _ in 0..3 {
        assert!(ledger.acquire_leadership().await.unwrap(), "there is no other process");
    }
}
