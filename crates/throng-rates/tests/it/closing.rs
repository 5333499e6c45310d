//! The two advertisers of the article, with rates that are learned from the day before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use throng_model::{Entropy, SplitMix64};
use throng_rates::{
    Outstanding, PacingInput, Prior, Rate, RateCounts, closing_deviations, pass_through_rate,
};

use super::{at, binomial, log_normal, poisson};

const DAY_SECS: u64 = 86_400;
const WINDOW_SECS: u64 = 10;
const BUDGET: f64 = 100e6;

/// An advertiser with $100 a day. Insertions take a second to be reported, and figures two to reach gates.
struct Advertiser {
    price: f64,
    rate: f64,
    /// What the spec says.
    declared: f64,
    requests_per_minute: f64,
    /// From insertion to click: median and deviation of the logarithm, in seconds.
    clicked: Option<(f64, f64)>,
    accounting_secs: f64,
}

/// $0.10 an impression, reported five minutes late.
const X: Advertiser = Advertiser {
    price: 1e5,
    rate: 0.95,
    declared: 0.7,
    requests_per_minute: 20.0 / 0.95,
    clicked: None,
    accounting_secs: 300.0,
};

/// $2 a click; users click after six minutes.
const Y: Advertiser = Advertiser {
    price: 2e6,
    rate: 0.019,
    declared: 0.03,
    requests_per_minute: 75.0 / 0.95,
    clicked: Some((350.0, 0.4)),
    accounting_secs: 30.0,
};

impl Advertiser {
    /// From insertion to outcome.
    fn delay(&self, random: &mut SplitMix64) -> f64 {
        let clicked = self.clicked.map_or(0.0, |(median, sigma)| log_normal(random, median, sigma));
        log_normal(random, 2.0, 0.5) + clicked
    }

    /// The rate as it is known after yesterday.
    fn learned(&self, random: &mut SplitMix64) -> Rate {
        let mut counts = RateCounts::default();
        let trials = (self.requests_per_minute * 10.0) as u64;
        for step in 0..144 {
            let successes = binomial(random, trials, self.rate);
            counts.add(at(f64::from(step) * 600.0), trials, successes);
        }
        Prior::declared(self.declared).rate(counts.at(at(86_400.0)))
    }

    /// The share of outcomes that are known later than each age in seconds.
    fn survival(&self, random: &mut SplitMix64) -> Vec<f64> {
        let mut delays: Vec<f64> =
            (0..4_000).map(|_| self.delay(random) + self.accounting_secs).collect();
        delays.sort_by(f64::total_cmp);
        let later = |age: u32| {
            let known = delays.partition_point(|delay| *delay < f64::from(age));
            1.0 - known as f64 / delays.len() as f64
        };
        (0..4_000).map(later).take_while(|later| *later > 0.0).collect()
    }
}

/// What is open at a moment, from windows of insertions.
fn outstanding(
    windows: &BTreeMap<u64, u64>,
    now: u64,
    rate: f64,
    price: f64,
    survival: &[f64],
) -> Outstanding {
    let mut out = Outstanding::default();
    for (window, insertions) in windows {
        let age = now as i64 - (window * WINDOW_SECS) as i64 - WINDOW_SECS as i64 / 2;
        let later = usize::try_from(age).map_or(1.0, |age| survival.get(age).map_or(0.0, |s| *s));
        let chance = rate * later;
        out.add(*insertions as f64 * chance * price, chance, price);
    }
    out
}

/// What a day delivers. `deviations`: of the closing rule, by the seconds left of the day; `slows`: whether
/// the pass-through rate falls near the budget.
fn day(advertiser: &Advertiser, seed: u64, deviations: fn(u64) -> f64, slows: bool) -> f64 {
    let mut random = SplitMix64::new(seed);
    let rate = advertiser.learned(&mut random);
    let survival = advertiser.survival(&mut random);
    let mut windows: BTreeMap<u64, u64> = BTreeMap::new();
    // (second, whether an insertion; else an outcome, of an insertion of this second)
    let mut coming: BinaryHeap<Reverse<(u64, bool, u64)>> = BinaryHeap::new();
    let (mut actual, mut delivered) = (0.0, 0.0);
    let mut rates = [throng_feed::PassThroughRate::ALL; 3];
    let price = advertiser.price;
    for now in 0..DAY_SECS {
        for _ in 0..poisson(&mut random, advertiser.requests_per_minute / 60.0) {
            if !rates[0].is_admitted(random.next_u64()) {
                continue;
            }
            coming.push(Reverse((now + 1, true, now)));
            if random.next_f64() < advertiser.rate {
                delivered += price;
                let delay = advertiser.delay(&mut random) + advertiser.accounting_secs;
                coming.push(Reverse((now + delay as u64, false, now)));
            }
        }
        while let Some(Reverse((second, is_insertion, made))) = coming.peek().copied()
            && second <= now
        {
            coming.pop();
            match is_insertion {
                true => *windows.entry(made / WINDOW_SECS).or_default() += 1,
                false => actual += price,
            }
        }
        windows.retain(|window, _| now < window * WINDOW_SECS + survival.len() as u64);
        let out = outstanding(&windows, now, rate.mean(), price, &survival);
        let margin = deviations(DAY_SECS - now) * out.deviation(Some(&rate), 1.0);
        let per_sec = advertiser.requests_per_minute / 60.0 * rate.mean() * price;
        let situation = PacingInput {
            budget: BUDGET,
            committed: actual + out.mean,
            margin,
            per_sec: slows.then_some(per_sec),
        };
        rates = [rates[1], rates[2], pass_through_rate(&situation, None)];
        if actual >= BUDGET && coming.is_empty() {
            break;
        }
    }
    delivered
}

/// Mean overdelivery, mean underdelivery, and the largest of each, as shares of the budget.
fn shares(advertiser: &Advertiser, deviations: fn(u64) -> f64, slows: bool) -> [f64; 4] {
    const DAYS: u64 = 40;
    let days: Vec<f64> =
        (0..DAYS).map(|seed| day(advertiser, seed, deviations, slows) / BUDGET - 1.0).collect();
    let mean = |of: fn(f64) -> f64| days.iter().map(|d| of(*d)).sum::<f64>() / DAYS as f64;
    let most = |of: fn(f64) -> f64| days.iter().map(|d| of(*d)).fold(0.0, f64::max);
    let over: fn(f64) -> f64 = |d| d.max(0.0);
    let under: fn(f64) -> f64 = |d| (-d).max(0.0);
    [mean(over), mean(under), most(over), most(under)]
}

fn learned(left_secs: u64) -> f64 {
    closing_deviations(Duration::from_secs(left_secs))
}

#[test]
fn impressions_of_ten_cents_stay_within_a_fifth_of_a_percent() {
    let [over, under, worst_over, worst_under] = shares(&X, learned, true);
    println!("X: over {over} at most {worst_over}, under {under} at most {worst_under}");
    assert!(over <= 0.002 && worst_over <= 0.005, "{over} {worst_over}");
    assert!(under <= 0.005 && worst_under <= 0.02, "{under} {worst_under}");
}

#[test]
fn clicks_of_two_dollars_stay_within_one_and_a_half_percent() {
    let [over, under, worst_over, worst_under] = shares(&Y, learned, true);
    println!("Y: over {over} at most {worst_over}, under {under} at most {worst_under}");
    assert!(over <= 0.015, "{over}");
    assert!(under <= 0.005 && worst_under <= 0.0201, "{under} {worst_under}");
    // With half a deviation at any time of the day, and a door that closes at once.
    let [before, ..] = shares(&Y, |_| 0.5, false);
    assert!(before > 2.0 * over, "{before} and {over}");
}

/// Insertions that are out, many times: the sum of what they earn has the variance that is computed.
#[test]
fn the_deviation_is_that_of_what_insertions_earn() {
    let mut random = SplitMix64::new(9);
    let windows: [(u64, f64, f64); 3] = [(400, 0.019, 2e6), (150, 0.004, 2e6), (60, 0.6, 1e5)];
    let mut out = Outstanding::default();
    for (insertions, chance, price) in windows {
        out.add(insertions as f64 * chance * price, chance, price);
    }
    let sums: Vec<f64> = (0..4_000)
        .map(|_| {
            let earned =
                windows.map(|(n, chance, price)| binomial(&mut random, n, chance) as f64 * price);
            earned.iter().sum()
        })
        .collect();
    let mean = sums.iter().sum::<f64>() / sums.len() as f64;
    let variance =
        sums.iter().map(|sum| (sum - mean).powi(2)).sum::<f64>() / (sums.len() - 1) as f64;
    assert!((mean / out.mean - 1.0).abs() < 0.03, "{mean} {}", out.mean);
    assert!((variance / out.variance - 1.0).abs() < 0.1, "{variance} {}", out.variance);
}
