//! Learned rates against a plain model, and simulated days under the closing rule and the pass-through rate. Users
//! and times are drawn from seeds.

#![allow(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

mod closing;
mod levels;
mod pacing;
mod rates;

use throng_model::{Entropy, SplitMix64, Timestamp};

/// A moment, in seconds.
fn at(secs: f64) -> Timestamp {
    Timestamp((secs * 1e6) as i64)
}

/// How many of so many trials succeed.
fn binomial(random: &mut SplitMix64, trials: u64, rate: f64) -> u64 {
    (0..trials).filter(|_| random.next_f64() < rate).count() as u64
}

/// How many events there are where so many are expected; for small numbers (Knuth).
fn poisson(random: &mut SplitMix64, expected: f64) -> u64 {
    let least = (-expected).exp();
    let (mut events, mut product) = (0, random.next_f64());
    while product > least {
        events += 1;
        product *= random.next_f64();
    }
    events
}

/// A log-normal time with this median in seconds (Box and Muller).
fn log_normal(random: &mut SplitMix64, median: f64, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - random.next_f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * random.next_f64()).cos();
    median * (sigma * normal).exp()
}
