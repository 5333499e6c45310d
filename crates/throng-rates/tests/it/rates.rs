//! Rates learned from trials, against a model that keeps every trial.

use throng_model::{Entropy, SplitMix64};
use throng_rates::{Calibration, Prior, RateCounts, Trials};

use super::{at, binomial, log_normal};

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3_600.0;

/// Every addition with its time; half of its weight is left after six hours.
#[derive(Default)]
struct Plain(Vec<(f64, u64, u64)>);

impl Plain {
    fn counts(&self, now: f64) -> (f64, f64) {
        self.0.iter().fold((0.0, 0.0), |(trials, successes), (time, n, s)| {
            let weight = 0.5f64.powf((now - time).max(0.0) / (6.0 * HOUR));
            (trials + weight * *n as f64, successes + weight * *s as f64)
        })
    }
}

#[test]
fn counts_and_rates_are_those_of_a_plain_model() {
    for (seed, rate) in [(1, 0.95), (2, 0.02), (3, 0.0004), (4, 0.0), (5, 1.0)] {
        let mut random = SplitMix64::new(seed);
        let (mut counts, mut plain) = (RateCounts::default(), Plain::default());
        for minute in 0..3_000 {
            // Not in order: partitions of the log are read side by side.
            let time = f64::from(minute) * MINUTE + 600.0 * random.next_f64();
            let trials = random.below(60);
            let successes = binomial(&mut random, trials, rate);
            counts.add(at(time), trials, successes);
            plain.0.push((time, trials, successes));
            if minute % 500 == 499 {
                let now = f64::from(minute + 15) * MINUTE;
                let (ours, (trials, successes)) = (counts.at(at(now)), plain.counts(now));
                // A step of time is 1/32 of the half-life: 2.2 percent.
                assert!((ours.trials / trials - 1.0).abs() < 0.025, "{ours:?} {trials}");
                assert!((ours.successes - successes).abs() <= 0.025 * successes + 0.01);
                let (prior, weight) = (0.01, 500.0);
                let expected = (successes + weight * prior) / (trials + weight);
                let learned = Prior::declared(prior).rate(ours).mean();
                assert!((learned / expected - 1.0).abs() < 0.025, "{learned} {expected}");
            }
        }
    }
}

#[test]
fn without_trials_the_rate_is_the_declared_one() {
    let none = RateCounts::default().at(at(0.0));
    for rate in [0.001, 0.02, 0.5, 0.9, 0.95] {
        let learned = Prior::declared(rate).rate(none);
        assert_eq!(learned.mean(), rate);
        let deviation = learned.variance().sqrt();
        assert!(deviation > 0.05 * rate, "a declared rate is not certain: {rate} {deviation}");
        let (low, high) = learned.interval(0.95);
        assert!(low < rate && rate < high, "{low} {rate} {high}");
        assert!(low < rate / 1.05 && high > rate * 1.02, "a declared rate is not certain");
    }
    // Hardly any trials change it little, whatever came of them.
    for (trials, successes) in [(1, 0), (1, 1), (10, 0)] {
        let mut counts = RateCounts::default();
        counts.add(at(0.0), trials, successes);
        let learned = Prior::declared(0.02).rate(counts.at(at(0.0))).mean();
        assert!((0.019..0.024).contains(&learned), "{trials} {successes}: {learned}");
    }
}

#[test]
fn intervals_and_variances_have_the_true_rate_as_often_as_they_say() {
    let mut random = SplitMix64::new(7);
    let (mut covered, mut in_interval) = (0, 0);
    for _ in 0..400 {
        // Ad groups whose rates are around the declared one.
        let rate = 0.02 * (0.5 + random.next_f64());
        let mut counts = RateCounts::default();
        for minute in 0..120 {
            let successes = binomial(&mut random, 25, rate);
            counts.add(at(f64::from(minute) * MINUTE), 25, successes);
        }
        let learned = Prior::declared(0.02).rate(counts.at(at(120.0 * MINUTE)));
        // Nine tenths of a normal distribution.
        let tolerance = 1.645 * learned.variance().sqrt();
        covered += i32::from((learned.mean() - rate).abs() <= tolerance);
        let (low, high) = learned.interval(0.9);
        in_interval += i32::from(low <= rate && rate <= high);
    }
    assert!((335..=392).contains(&in_interval), "{in_interval} of 400");
    assert!((335..=392).contains(&covered), "{covered} of 400");
}

/// Hours with a rate, a hundred trials a minute.
fn run(counts: &mut RateCounts, random: &mut SplitMix64, from: f64, hours: f64, rate: f64) -> f64 {
    let minutes = (hours * 60.0) as i64;
    for minute in 0..minutes {
        let successes = binomial(random, 100, rate);
        counts.add(at(from + minute as f64 * MINUTE), 100, successes);
    }
    Prior::declared(0.02).rate(counts.at(at(from + hours * HOUR))).mean()
}

#[test]
fn a_sudden_change_is_followed_within_an_hour_and_a_steady_rate_stays() {
    for seed in 0..20 {
        let mut random = SplitMix64::new(seed);
        let mut counts = RateCounts::default();
        let steady = run(&mut counts, &mut random, 0.0, 24.0, 0.02);
        assert!((0.0175..0.0225).contains(&steady), "{seed}: {steady}");
        let risen = run(&mut counts, &mut random, 24.0 * HOUR, 1.0, 0.06);
        assert!((0.044..0.066).contains(&risen), "{seed}: {risen}");
        run(&mut counts, &mut random, 25.0 * HOUR, 11.0, 0.06);
        let fallen = run(&mut counts, &mut random, 36.0 * HOUR, 1.0, 0.01);
        assert!((0.008..0.026).contains(&fallen), "{seed}: {fallen}");
    }
}

#[test]
fn after_silence_the_rate_returns_to_the_prior() {
    let mut counts = RateCounts::default();
    run(&mut counts, &mut SplitMix64::new(3), 0.0, 12.0, 0.08);
    let after = |days: f64| {
        let now = at((12.0 + days * 24.0) * HOUR);
        Prior::declared(0.02).rate(counts.at(now)).mean()
    };
    let days = [0.0, 1.0, 3.0, 5.0, 30.0].map(after);
    assert!((0.075..0.085).contains(&days[0]), "{days:?}");
    assert!(days.is_sorted_by(|a, b| a > b), "{days:?}");
    assert_eq!(days[4], 0.02);
}

/// Insertions of the last minutes with outcomes that come later.
#[test]
fn outcomes_that_are_not_due_are_not_missed() {
    let (rate, median, sigma) = (0.05, 360.0, 0.5);
    let mut random = SplitMix64::new(11);
    let mut delays: Vec<f64> =
        (0..20_000).map(|_| log_normal(&mut random, median, sigma)).collect();
    delays.sort_by(f64::total_cmp);
    let later =
        |age: f64| 1.0 - delays.partition_point(|delay| *delay <= age) as f64 / delays.len() as f64;
    // The prior is another rate, and has little weight against this many insertions.
    let declared = Trials::billionths(0.03);
    let (mut learned, mut plain, mut runs) = (0.0, 0.0, 0.0);
    for _ in 0..20 {
        // Ten minutes of insertions, seen at their end: the oldest have most of their outcomes.
        let open: Vec<(Trials, f64)> = (0..60)
            .map(|window| {
                let age = f64::from(window) * 10.0;
                let came = (0..500).filter(|_| {
                    random.next_f64() < rate && log_normal(&mut random, median, sigma) <= age
                });
                let outcomes = came.count() as u64;
                (Trials { insertions: 500, outcomes, declared: 500 * declared }, later(age))
            })
            .collect();
        let by_age = Calibration::default().learned(at(0.0), open.iter().copied()).unwrap();
        learned += by_age.rate.mean();
        let all: u64 = open.iter().map(|(trials, _)| trials.insertions).sum();
        let outcomes: u64 = open.iter().map(|(trials, _)| trials.outcomes).sum();
        plain += outcomes as f64 / all as f64;
        runs += 1.0;
    }
    assert!((learned / runs / rate - 1.0).abs() < 0.04, "{}", learned / runs);
    assert!(plain / runs / rate < 0.6, "counting all insertions is too low: {}", plain / runs);
}

#[test]
fn replicas_and_restarts_have_the_same_bits() {
    let mut random = SplitMix64::new(5);
    let (mut one, mut other) = (RateCounts::default(), RateCounts::default());
    for minute in 0..5_000 {
        let rate = if (2_000..2_500).contains(&minute) { 0.3 } else { 0.05 };
        let (trials, time) = (random.below(40), f64::from(minute) * MINUTE);
        let successes = binomial(&mut random, trials, rate);
        one.add(at(time), trials, successes);
        other.add(at(time), trials, successes);
        // One of them is read and restored; the other is not.
        let _ = other.at(at(time + 99.0));
        other = RateCounts::of_stored(other.stored());
    }
    assert_eq!(one, other);
    let mean = |counts: &RateCounts| Prior::declared(0.02).rate(counts.at(at(4e5))).mean();
    assert_eq!(mean(&one).to_bits(), mean(&other).to_bits());
}

#[test]
fn extreme_values_give_a_rate() {
    for declared in [f64::NAN, f64::NEG_INFINITY, -1.0, 0.0, 1e-300, 0.5, 1.0, f64::INFINITY] {
        for (trials, successes) in [(0, 0), (0, 9), (9, 0), (3, 9), (u64::MAX, u64::MAX)] {
            let mut counts = RateCounts::default();
            counts.add(at(-1e12), trials, successes);
            counts.add(at(1e12), trials, successes);
            let rate = Prior::declared(declared).rate(counts.at(at(1e12)));
            assert!((0.0..=1.0).contains(&rate.mean()), "{declared} {trials} {successes}");
            assert!((0.0..=1.0).contains(&rate.variance()), "{declared} {trials} {successes}");
            let (low, high) = rate.interval(0.95);
            assert!((0.0..=1.0).contains(&low) && (low..=1.0).contains(&high), "{low} {high}");
        }
    }
}
