//! What ad groups learn from each other, against a model that keeps every insertion and has sums alone.

use std::collections::BTreeSet;

use throng_model::{Entropy, SplitMix64};
use throng_rates::{
    Calibration, Counts, Evidence, InPlacement, LearnedRate, LearnedRates, OTHER_PLACEMENT,
    Observed, PlacementRate, Prior, Trials, action_rate, learn,
};

use super::at;

/// An insertion, and what became of it.
#[derive(Debug, Clone, Copy)]
struct Insertion {
    placement: u16,
    is_seen: bool,
    is_clicked: bool,
}

#[derive(Debug, Clone)]
struct AdGroup {
    campaign: u32,
    is_by_click: bool,
    seen: f64,
    clicked: f64,
    insertions: Vec<Insertion>,
}

impl AdGroup {
    fn declared(&self) -> f64 {
        if self.is_by_click { self.seen * self.clicked } else { self.seen }
    }

    /// Insertions and those with the outcome, of a placement or of all.
    fn count(&self, placement: Option<u16>, is: impl Fn(&Insertion) -> bool) -> (u64, u64) {
        let of = |it: &&Insertion| placement.is_none_or(|placement| it.placement == placement);
        let all: Vec<&Insertion> = self.insertions.iter().filter(of).collect();
        (all.len() as u64, all.iter().filter(|it| is(it)).count() as u64)
    }

    fn outcomes(&self, placement: Option<u16>) -> (f64, f64) {
        let (n, s) =
            self.count(placement, |it| if self.is_by_click { it.is_clicked } else { it.is_seen });
        (n as f64, s as f64)
    }

    fn impressions(&self, placement: Option<u16>) -> (f64, f64) {
        let (n, s) = self.count(placement, |it| it.is_seen);
        (n as f64, s as f64)
    }

    fn placements(&self) -> BTreeSet<u16> {
        self.insertions.iter().map(|it| it.placement).filter(|placement| *placement > 0).collect()
    }
}

fn evidence((insertions, outcomes): (f64, f64), declared: f64) -> Evidence {
    let mut calibration = Calibration::default();
    let (insertions, outcomes) = (insertions as u64, outcomes as u64);
    let declared = insertions * Trials::billionths(declared);
    calibration.add(at(0.0), Trials { insertions, outcomes, declared });
    calibration.evidence(at(0.0))
}

fn observed(ad_group: &AdGroup) -> Observed {
    let impressions = |placement| match ad_group.is_by_click {
        true => evidence(ad_group.impressions(placement), ad_group.seen),
        false => Evidence::default(),
    };
    let placements = ad_group.placements().into_iter().map(|placement| InPlacement {
        placement,
        outcomes: evidence(ad_group.outcomes(Some(placement)), ad_group.declared()),
        impressions: impressions(Some(placement)),
    });
    Observed {
        campaign: ad_group.campaign,
        is_by_click: ad_group.is_by_click,
        declared: ad_group.declared(),
        declared_impressions: ad_group.seen,
        outcomes: evidence(ad_group.outcomes(None), ad_group.declared()),
        impressions: impressions(None),
        placements: placements.collect(),
    }
}

/// A factor and its weight in successes.
type Known = (f64, f64);
const DECLARED: Known = (1.0, 5.0);

/// The beta-binomial of a level, in successes.
fn narrowed((factor, weight): Known, successes: f64, expected: f64) -> Known {
    if expected <= 1e-9 {
        return (factor, weight);
    }
    let narrowed = (successes + weight) / (expected + weight / factor);
    (narrowed, (successes + weight).min(20.0))
}

/// As a multiple of the declared rate.
fn posterior((factor, weight): Known, (n, s): (f64, f64), declared: f64) -> f64 {
    (s + weight) / (n + weight / (declared * factor)) / declared
}

/// Of impressions (false) or of clicks among them (true): successes, and how many are expected, of one ad group.
fn known(ad_group: &AdGroup, placement: Option<u16>, of_clicks: bool) -> (f64, f64) {
    if !ad_group.is_by_click {
        let (n, s) = ad_group.outcomes(placement);
        return if of_clicks { (0.0, 0.0) } else { (s, n * ad_group.seen) };
    }
    let (n, seen) = ad_group.impressions(placement);
    if !of_clicks {
        return (seen, n * ad_group.seen);
    }
    let all = posterior(DECLARED, ad_group.impressions(None), ad_group.seen);
    let factor = match placement {
        None => all,
        Some(_) => posterior((all, 20.0), (n, seen), ad_group.seen),
    };
    (ad_group.outcomes(placement).1, n * ad_group.declared() * factor)
}

fn sum(parts: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    parts.fold((0.0, 0.0), |(s, d), (more, expected)| (s + more, d + expected))
}

/// The factor of a campaign, without one ad group, or with all.
fn campaign(all: &[AdGroup], number: u32, without: Option<usize>, of_clicks: bool) -> Known {
    let others = all.iter().enumerate();
    let others = others.filter(|(n, it)| it.campaign == number && Some(*n) != without);
    let (s, d) = sum(others.map(|(_, it)| known(it, None, of_clicks)));
    narrowed(DECLARED, s, d)
}

/// How a placement differs, by the others.
fn placement(all: &[AdGroup], of: u16, without: usize, of_clicks: bool) -> Known {
    let others = all.iter().enumerate().filter(|(n, _)| *n != without);
    let others = others.filter(|(_, it)| it.placements().contains(&of));
    let (s, d) = sum(others.map(|(_, it)| {
        let (s, d) = known(it, Some(of), of_clicks);
        (s, d * campaign(all, it.campaign, None, of_clicks).0)
    }));
    narrowed(DECLARED, s, d)
}

/// The factors of outcomes and of impressions; of all insertions, and of each placement.
fn expected(all: &[AdGroup], number: usize) -> Vec<(f64, Option<f64>)> {
    let it = &all[number];
    let mean = |of_clicks| {
        let (total, _) = it.outcomes(None);
        let placed = it.placements().into_iter().map(|place| {
            let n = it.outcomes(Some(place)).0;
            n * (placement(all, place, number, of_clicks).0 - 1.0)
        });
        1.0 + placed.sum::<f64>() / total
    };
    let (mean_seen, mean_clicked) = (mean(false), mean(true));
    let seen_prior = campaign(all, it.campaign, Some(number), false);
    let seen_prior = (seen_prior.0 * mean_seen, seen_prior.1);
    let clicked_prior = campaign(all, it.campaign, Some(number), true);
    let clicked_prior = (clicked_prior.0 * mean_clicked, clicked_prior.1);
    let seen = posterior(seen_prior, it.impressions(None), it.seen);
    let mut rates = vec![];
    let both = |seen_prior: Known, clicked_prior: Known, placement| {
        let seen = posterior(seen_prior, it.impressions(placement), it.seen);
        if !it.is_by_click {
            return (seen, None);
        }
        let prior = (clicked_prior.0 * seen, clicked_prior.1);
        (posterior(prior, it.outcomes(placement), it.declared()), Some(seen))
    };
    rates.push(both(seen_prior, clicked_prior, None));
    let own_clicked = rates[0].0 / seen / mean_clicked;
    for place in it.placements() {
        let (seen_in, clicked_in) =
            (placement(all, place, number, false), placement(all, place, number, true));
        let seen_prior = (seen_in.0 * seen / mean_seen, seen_in.1);
        rates.push(both(seen_prior, (clicked_in.0 * own_clicked, clicked_in.1), Some(place)));
    }
    rates
}

fn factors(learned: &LearnedRates) -> Vec<(f64, Option<f64>)> {
    let all = learned.outcomes.map(|all| (all.factor, learned.impressions.map(|it| it.factor)));
    let placements = learned.placements.iter();
    let placements =
        placements.map(|it| (it.outcomes.factor, it.impressions.map(|rate| rate.factor)));
    all.into_iter().chain(placements).collect()
}

fn ad_group(random: &mut SplitMix64, campaign: u32, insertions: u64) -> AdGroup {
    let is_by_click = random.below(2) == 0;
    let (seen, clicked) = (0.4 + 0.2 * random.next_f64(), 0.1 + 0.2 * random.next_f64());
    let (own_seen, own_clicked) = (0.7 + 0.6 * random.next_f64(), 0.5 + random.next_f64());
    let placed = random.below(4) > 0;
    let insertions = (0..insertions).map(|_| {
        let placement = if placed { 2 + random.below(4) as u16 } else { 0 };
        let in_placement = [1.0, 1.0, 1.0, 0.6, 1.2, 0.8][usize::from(placement)];
        let is_seen = random.next_f64() < seen * own_seen * in_placement;
        let is_clicked = is_seen && random.next_f64() < clicked * own_clicked * in_placement;
        Insertion { placement, is_seen, is_clicked }
    });
    AdGroup { campaign, is_by_click, seen, clicked, insertions: insertions.collect() }
}

#[test]
fn rates_are_those_of_a_model_that_keeps_every_insertion() {
    for seed in 0..8 {
        let mut random = SplitMix64::new(seed);
        let all: Vec<AdGroup> = (0..9)
            .map(|_| {
                let campaign = random.below(3) as u32;
                let insertions = 200 + random.below(1_000);
                ad_group(&mut random, campaign, insertions)
            })
            .collect();
        let learned = learn(&all.iter().map(observed).collect::<Vec<_>>());
        for (number, learned) in learned.iter().enumerate() {
            let (ours, theirs) = (factors(learned), expected(&all, number));
            assert_eq!(ours.len(), theirs.len(), "{seed} {number}");
            for ((rate, seen), (expected, expected_seen)) in ours.iter().zip(&theirs) {
                assert!(
                    (rate / expected - 1.0).abs() < 1e-6,
                    "{seed} {number}: {ours:?} {theirs:?}"
                );
                assert_eq!(seen.is_some(), expected_seen.is_some());
                let differs = seen.zip(*expected_seen).map_or(0.0, |(a, b)| (a / b - 1.0).abs());
                assert!(differs < 1e-6, "{seed} {number}: {ours:?} {theirs:?}");
            }
        }
    }
}

fn plain(campaign: u32, placement: u16, insertions: u64, seen: u64) -> AdGroup {
    let insertions = (0..insertions)
        .map(|n| Insertion { placement, is_seen: n < seen, is_clicked: false })
        .collect();
    AdGroup { campaign, is_by_click: false, seen: 0.5, clicked: 0.1, insertions }
}

#[test]
fn an_ad_group_alone_has_the_declared_rate_as_its_prior() {
    for placement in [0, 7] {
        let one = observed(&plain(1, placement, 100, 90));
        let alone = learn(std::slice::from_ref(&one)).remove(0);
        let declared = evidence((100.0, 90.0), 0.5).learned(throng_rates::Level::DECLARED, 0.5);
        assert_eq!(alone.outcomes, declared);
        // So it is beside ad groups of other campaigns without its placement, to the bit.
        let others =
            [one, observed(&plain(2, 0, 5_000, 100)), observed(&plain(3, 9, 5_000, 4_900))];
        assert_eq!(learn(&others).remove(0), alone);
    }
    let none = learn(&[Observed { declared: 0.5, ..Observed::default() }]).remove(0);
    assert_eq!(none, LearnedRates::default());
}

#[test]
fn one_without_history_has_the_rate_of_its_campaign_and_its_placement() {
    // The campaign has 0.8 of the declared rates; one placement has half as much as the other.
    let mut mixed = plain(1, 2, 10_000, 5_333);
    mixed.insertions.extend(plain(1, 3, 10_000, 2_667).insertions);
    let cold = |campaign, placements: Vec<u16>| {
        let new = |placement| InPlacement { placement, ..InPlacement::default() };
        let placements = placements.into_iter().map(new).collect();
        Observed { campaign, declared: 0.5, placements, ..Observed::default() }
    };
    let all = [observed(&mixed), cold(1, vec![2, 3]), cold(2, vec![2, 3]), cold(2, vec![])];
    let learned = learn(&all);
    let near = |rate: f64, expected: f64| (rate / expected - 1.0).abs() < 0.02;
    assert!(near(learned[1].factor(), 0.8));
    assert!(near(learned[1].factor_in(2), 1.0667) && near(learned[1].factor_in(3), 0.5333));
    // Of another campaign: only what the placements are.
    assert!(near(learned[2].factor_in(2), 1.333) && near(learned[2].factor_in(3), 0.667));
    assert_eq!(learned[3], LearnedRates::default());
    // The interval is that of twenty outcomes.
    let (low, high) = learned[1].outcomes.unwrap().rate.interval(0.95);
    assert!(low < 0.32 && high > 0.48 && low > 0.2 && high < 0.6, "{low} {high}");
}

#[test]
fn an_ad_group_with_a_rate_of_zero_says_nothing_of_others() {
    let mut zero = observed(&plain(1, 2, 100, 90));
    zero.outcomes = evidence((100.0, 90.0), 0.0);
    zero.placements[0].outcomes = evidence((100.0, 90.0), 0.0);
    (zero.declared, zero.declared_impressions) = (0.0, 0.0);
    let new = Observed { campaign: 1, declared: 0.7, ..Observed::default() };
    let placed = vec![InPlacement { placement: 2, ..InPlacement::default() }];
    let placed = Observed { placements: placed, ..new.clone() };
    let learned = learn(&[zero, new, placed]);
    assert_eq!(learned[1], LearnedRates::default());
    assert_eq!(learned[2].factor_in(2), 1.0);
}

#[test]
fn own_trials_count_more_and_more() {
    let rate = |own: u64| {
        let all = [observed(&plain(1, 0, 10_000, 8_000)), observed(&plain(1, 0, own * 10, own))];
        learn(&all)[1].outcomes.unwrap().rate.mean()
    };
    let rates = [1, 10, 100, 1_000].map(rate);
    assert!(rates.is_sorted_by(|a, b| a > b), "{rates:?}");
    assert!(rates[0] > 0.5 && rates[3] < 0.102, "{rates:?}");
}

#[test]
fn outcomes_that_name_no_insertion_are_spread_over_the_placements() {
    let mut one = observed(&plain(1, 2, 1_000, 400));
    let all = |named: f64| {
        one.outcomes = evidence((1_000.0, 400.0), 0.5);
        one.placements[0].outcomes = evidence((1_000.0, named), 0.5);
        learn(std::slice::from_ref(&one)).remove(0)
    };
    let [whole, most, few] = [400.0, 250.0, 100.0].map(all);
    assert!((whole.factor_in(2) / most.factor_in(2) - 1.0).abs() < 1e-9);
    // Too few of them: nothing by placement.
    assert!(few.placements.is_empty() && few.factor_in(2) == few.factor());
}

#[test]
fn the_action_rate_is_that_of_insertions_that_are_seen() {
    let mut random = SplitMix64::new(4);
    let mut of = AdGroup { is_by_click: true, ..ad_group(&mut random, 1, 0) };
    of.insertions = (0..10_000)
        .map(|n| Insertion { placement: 0, is_seen: n % 5 < 2, is_clicked: n % 20 == 0 })
        .collect();
    (of.seen, of.clicked) = (0.8, 0.1);
    let mut observed = observed(&of);
    let learned = learn(std::slice::from_ref(&observed)).remove(0);
    let (outcomes, seen) = (learned.outcomes.unwrap(), learned.impressions.unwrap());
    let action = action_rate(&outcomes, Some(&seen), 0.8);
    let product = action.mean() * seen.rate.mean();
    assert!((seen.rate.mean() - 0.4).abs() < 0.01 && (action.mean() - 0.125).abs() < 0.005);
    assert!((product / outcomes.rate.mean() - 1.0).abs() < 1e-9);
    let (low, high) = action.interval(0.95);
    assert!((0.11..0.125).contains(&low) && (0.125..0.14).contains(&high), "{low} {high}");
    // Without impressions it is compared with the declared impression rate.
    observed.impressions = Evidence::default();
    let learned = learn(std::slice::from_ref(&observed)).remove(0);
    let action = action_rate(&learned.outcomes.unwrap(), None, 0.8);
    assert!((action.mean() - 0.0625).abs() < 0.003, "{action:?}");
    assert!((learned.outcomes.unwrap().rate.mean() / product - 1.0).abs() < 0.01);
}

#[test]
fn a_placement_without_a_rate_of_its_own_has_that_of_other() {
    let rate = |factor| LearnedRate {
        rate: Prior::declared(0.5).rate(Counts::default()),
        factor,
        trials: 1.0,
    };
    let in_one =
        |placement, factor| PlacementRate { placement, outcomes: rate(factor), impressions: None };
    let mut rates = LearnedRates {
        outcomes: Some(rate(2.0)),
        impressions: None,
        placements: vec![in_one(OTHER_PLACEMENT, 3.0), in_one(5, 4.0)],
    };
    let factors = [OTHER_PLACEMENT, 5, 7].map(|placement| rates.factor_in(placement));
    assert_eq!(factors, [3.0, 4.0, 3.0]);
    rates.placements.remove(0);
    assert_eq!([5, 7].map(|placement| rates.factor_in(placement)), [4.0, 2.0]);
}
