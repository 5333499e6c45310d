//! A day with two peaks, spent evenly over a curve that is learned from the days before.

use std::collections::VecDeque;
use std::time::Duration;

use throng_feed::PassThroughRate;
use throng_model::{Entropy, SplitMix64};
use throng_rates::{
    DayCurve, EXPOSURE_UNIT, HORIZON, PacingInput, PlannedShares, SLICES, SliceTraffic,
    TrafficRate, UNIT, pass_through_rate,
};

use super::{at, poisson};

const DAY: Duration = Duration::from_secs(86_400);
const DAY_SECS: usize = 86_400;
const SLICE_SECS: usize = DAY_SECS / SLICES;
/// What an insertion becomes an impression with.
const RATE: f64 = 0.95;
/// From an insertion to the figures of its impression.
const ACCOUNTING_SECS: usize = 30;

/// The share of the day's requests in each slice: a quiet night, a peak in the morning, a higher one at
/// night.
fn two_peaks() -> [f64; SLICES] {
    let peak =
        |slice: usize, middle: f64, width: f64| (-((slice as f64 - middle) / width).powi(2)).exp();
    let mut shape = [0.0; SLICES];
    for (slice, share) in shape.iter_mut().enumerate() {
        let quiet = if slice < 24 { 0.3 } else { 1.0 };
        *share = quiet + 2.5 * peak(slice, 40.0, 5.0) + 3.0 * peak(slice, 80.0, 6.0);
    }
    let all: f64 = shape.iter().sum();
    shape.map(|share| share / all)
}

/// The curve after three days that were seen at some pass-through rate.
fn learned(random: &mut SplitMix64, shape: &[f64; SLICES], requests: f64, pass: f64) -> DayCurve {
    let mut curve = DayCurve::default();
    for day in 0..3 {
        for (slice, share) in shape.iter().enumerate() {
            // Minute by minute, for small numbers.
            for minute in 0..15 {
                let seen = poisson(random, requests * share * pass / 15.0);
                let part = (slice as f64 + f64::from(minute) / 15.0) / SLICES as f64;
                let exposure = (pass * EXPOSURE_UNIT as f64 / 15.0) as u64;
                curve.add(day, part, SliceTraffic { requests: seen * UNIT, exposure });
            }
        }
    }
    curve
}

/// A day: what was spent by the end, the largest distance to the plan in what is allowed, and the share of the
/// seconds with more than that, after the first hour.
#[derive(Debug)]
struct Day {
    spent: f64,
    farthest: f64,
    outside: f64,
    /// Spent in the first half of the day.
    by_noon: f64,
}

struct Run {
    budget: f64,
    price: f64,
    /// Requests a day.
    requests: f64,
    /// When the ad group is added, in seconds of the day.
    added: usize,
}

fn day(run: &Run, curve: &DayCurve, shape: &[f64; SLICES], random: &mut SplitMix64) -> Day {
    let Run { budget, price, requests, added } = *run;
    let part = |second: usize| second as f64 / DAY_SECS as f64;
    let mut traffic = TrafficRate::default();
    // The rates of the last seconds: gates have one of some seconds ago.
    let mut rates = VecDeque::from([PassThroughRate::NONE; 4]);
    // Insertions of the last seconds, and their impressions: known after the accounting.
    let mut out: VecDeque<(u64, u64)> = VecDeque::from([(0, 0); ACCOUNTING_SECS]);
    let (mut spent, mut actual, mut farthest, mut outside, mut by_noon) =
        (0.0, 0.0, 0.0f64, 0, 0.0);
    for second in added..DAY_SECS {
        let requests = requests * shape[second / SLICE_SECS] / SLICE_SECS as f64;
        let (mut insertions, mut impressions) = (0, 0);
        for _ in 0..poisson(random, requests) {
            if rates[0].is_admitted(random.next_u64()) {
                insertions += 1;
                impressions += u64::from(random.next_f64() < RATE);
            }
        }
        spent += impressions as f64 * price;
        // Insertions are in the figures of the next second.
        let in_flight: u64 = out.iter().map(|(insertions, _)| insertions).sum();
        traffic.add(
            at(second as f64),
            out[out.len() - 1].0,
            Duration::from_secs(1),
            rates[3].share(),
        );
        out.push_back((insertions, impressions));
        let (_, known) = out.pop_front().unwrap();
        actual += known as f64 * price;
        let usual = curve.per_sec(part(second), DAY);
        let per_insertion = RATE * price;
        let situation = PacingInput {
            budget,
            committed: actual + in_flight as f64 * per_insertion,
            margin: 0.0,
            per_sec: traffic.per_sec(at(second as f64), usual).map(|n| n * per_insertion),
        };
        let ahead = part(second) + HORIZON.as_secs_f64() / DAY_SECS as f64;
        let [now, ahead] = curve.shares_before([part(second), ahead]);
        rates.push_back(pass_through_rate(&situation, Some(PlannedShares { now, ahead })));
        rates.pop_front();
        if second >= 3_600 {
            let distance = (spent - budget * now).abs() / (0.05 * budget * now).max(price);
            farthest = farthest.max(distance);
            outside += usize::from(distance > 1.0);
        }
        if second < DAY_SECS / 2 {
            by_noon = spent;
        }
    }
    Day { spent, farthest, outside: outside as f64 / DAY_SECS as f64, by_noon }
}

#[test]
fn spend_follows_the_plan_on_a_day_with_two_peaks() {
    let shape = two_peaks();
    for seed in 0..5 {
        let mut random = SplitMix64::new(seed);
        // Nine times the traffic that the budget needs; the days before were spent evenly too.
        let run = Run { budget: 500e6, price: 1e5, requests: 48_000.0, added: 0 };
        let curve = learned(&mut random, &shape, run.requests, 1.0 / 9.0);
        let day = day(&run, &curve, &shape, &mut random);
        println!("{seed}: {day:?}");
        assert!(day.farthest <= 1.0, "{seed}: {day:?}");
        assert!((day.spent / run.budget - 1.0).abs() < 0.002, "{seed}: {day:?}");
    }
}

/// With a tenth of a percent of the budget at once an insertion too many is farther from the plan than a
/// price, for as long as the next one is not due.
#[test]
fn a_small_budget_is_rarely_farther_than_a_price() {
    let shape = two_peaks();
    for seed in 0..5 {
        let mut random = SplitMix64::new(seed);
        let run = Run { budget: 100e6, price: 1e5, requests: 48_000.0, added: 0 };
        let curve = learned(&mut random, &shape, run.requests, 0.02);
        let day = day(&run, &curve, &shape, &mut random);
        assert!(day.outside < 0.02 && day.farthest < 4.0, "{seed}: {day:?}");
        assert!((day.spent / run.budget - 1.0).abs() < 0.005, "{seed}: {day:?}");
    }
}

/// Nothing is known of the day's traffic: spend follows a flat plan.
#[test]
fn the_first_day_is_flat() {
    let shape = two_peaks();
    let mut random = SplitMix64::new(3);
    let run = Run { budget: 500e6, price: 1e5, requests: 60_000.0, added: 0 };
    let day = day(&run, &DayCurve::default(), &shape, &mut random);
    assert!((day.by_noon / run.budget - 0.5).abs() < 0.02, "{day:?}");
    assert!((day.spent / run.budget - 1.0).abs() < 0.002, "{day:?}");
}

#[test]
fn an_ad_group_that_is_added_late_does_not_catch_up_at_once() {
    let shape = two_peaks();
    let mut random = SplitMix64::new(4);
    // At a quarter to twelve, with ten times the traffic that it needs.
    let run = Run { budget: 500e6, price: 1e5, requests: 60_000.0, added: DAY_SECS / 2 - 900 };
    let curve = learned(&mut random, &shape, run.requests, 0.2);
    let day = day(&run, &curve, &shape, &mut random);
    // The morning's part of the plan is two fifths of the budget. In a quarter of an hour: twice its new plan.
    assert!(day.by_noon / run.budget < 0.05, "{day:?}");
    assert!((day.spent / run.budget - 1.0).abs() < 0.002, "{day:?}");
}
