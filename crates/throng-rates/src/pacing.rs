//! At which share of requests an ad group is shown.
//!
//! Gates learn of an insertion some seconds later. An ad group that is shown at every request until it is
//! closed goes past its budget by what is inserted in these seconds. So the rate falls before: once what is
//! left suffices for less than [`FEEDBACK`], the rate is such that it lasts for that time.
//!
//! With `pacing: even` the rate is also such that, after [`HORIZON`], spend is what the plan says: the budget
//! times the share of the day's traffic before that moment ([`DayCurve`](crate::DayCurve)). An ad group that
//! is behind its plan (it was added at noon, or traffic failed) does not catch up at once: it spends at most
//! twice what would bring it to its budget by the end of the day.

use std::time::Duration;

use throng_feed::PassThroughRate;

/// The time until an insertion comes back in the figures of gates, with room.
pub const FEEDBACK: Duration = Duration::from_secs(10);
/// The plan is reached after this time: long enough for the insertions of a rate to be seen before it changes.
pub const HORIZON: Duration = Duration::from_secs(30);
/// How much faster than its new plan an ad group that is behind may spend.
const CATCH_UP: f64 = 2.0;

/// The figures of an ad group, in micros.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PacingInput {
    /// What it may spend in the day.
    pub budget: f64,
    /// Spent in the day, and expected of insertions that are out.
    pub committed: f64,
    /// What is left free for chance ([`closing_deviations`](crate::closing_deviations)).
    pub margin: f64,
    /// What all requests of a second would be expected to earn; `None`: nothing is known of the traffic.
    pub per_sec: Option<f64>,
}

/// The shares of a day's traffic before two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlannedShares {
    /// Before now.
    pub now: f64,
    /// Before now plus [`HORIZON`].
    pub ahead: f64,
}

/// The pass-through rate of an ad group; `plan` only with `pacing: even`. Zero: it is closed for now.
pub fn pass_through_rate(situation: &PacingInput, plan: Option<PlannedShares>) -> PassThroughRate {
    let free = situation.budget - situation.committed - situation.margin;
    if free.is_nan() || free <= 0.0 {
        return PassThroughRate::NONE;
    }
    let near_budget = share(free, situation.per_sec.unwrap_or(0.0), FEEDBACK);
    let planned = plan.map_or(1.0, |plan| even(situation, plan));
    let rate = PassThroughRate::of_share(near_budget.min(planned));
    // Not zero by rounding: a traffic that is taken for too high would never be seen again.
    if plan.is_some() && planned > 0.0 { rate.max(LOWEST) } else { rate }
}

/// The lowest rate at which requests pass.
const LOWEST: PassThroughRate = PassThroughRate(1);

/// The share of requests that spends an amount in a time.
fn share(amount: f64, per_sec: f64, time: Duration) -> f64 {
    let all = per_sec * time.as_secs_f64();
    if all > amount { (amount / all).max(0.0) } else { 1.0 }
}

fn even(situation: &PacingInput, plan: PlannedShares) -> f64 {
    let behind = situation.budget * plan.ahead - situation.committed;
    // What the rest of the budget is over the rest of the day's traffic.
    let rest = (1.0 - plan.now).max(f64::MIN_POSITIVE);
    let step = (plan.ahead - plan.now).max(0.0) / rest;
    let catch_up = CATCH_UP * (situation.budget - situation.committed) * step.min(1.0);
    let wanted = behind.min(catch_up);
    if wanted.is_nan() || wanted <= 0.0 {
        return 0.0;
    }
    match situation.per_sec {
        Some(per_sec) => share(wanted, per_sec, HORIZON),
        // Nothing is known of the traffic: a few requests show how much there is.
        None => COLD_SHARE,
    }
}

/// The pass-through rate of an ad group with a plan while nothing is known of its traffic.
pub(crate) const COLD_SHARE: f64 = 1.0 / 1_024.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(committed: f64, per_sec: f64) -> PacingInput {
        PacingInput { budget: 100e6, committed, margin: 1e6, per_sec: Some(per_sec) }
    }

    fn rate(committed: f64, per_sec: f64) -> f64 {
        pass_through_rate(&situation(committed, per_sec), None).share()
    }

    #[test]
    fn it_falls_near_the_budget_and_does_not_close_at_once() {
        // A million micros a second, and 10 seconds of feedback.
        assert_eq!([0.0, 50e6, 89e6].map(|spent| rate(spent, 1e6)), [1.0; 3]);
        assert!((rate(94e6, 1e6) - 0.5).abs() < 1e-4);
        assert!((rate(98e6, 1e6) - 0.1).abs() < 1e-4);
        assert_eq!([99e6, 100e6, 1e12].map(|spent| rate(spent, 1e6)), [0.0; 3]);
        let mut last = 1.0;
        for spent in 0..1_000 {
            let now = rate(f64::from(spent) * 1e5, 1e6);
            assert!(now <= last && last - now < 0.02, "at {spent}: {now} after {last}");
            last = now;
        }
        // Little traffic cannot go past the budget.
        assert_eq!(rate(98.9e6, 1e3), 1.0);
        assert_eq!(rate(0.0, 0.0), 1.0);
    }

    #[test]
    fn an_even_pace_follows_the_plan() {
        let even_at = |committed: f64, now: f64, per_sec: f64| {
            let plan = PlannedShares { now, ahead: now + 0.001 };
            pass_through_rate(&situation(committed, per_sec), Some(plan)).share()
        };
        let even = |committed: f64, now: f64| even_at(committed, now, 10_000.0);
        // At most 0.30 can be spent in the horizon. On its plan: 0.10 of it.
        assert!((even(50e6, 0.5) - 1.0 / 3.0).abs() < 1e-3);
        // Ahead by 0.05 and by 0.1.
        assert!((even(50.05e6, 0.5) - 1.0 / 6.0).abs() < 1e-3);
        assert_eq!(even(50.1e6, 0.5), 0.0);
        // Behind by 0.05.
        assert!((even(49.95e6, 0.5) - 0.5).abs() < 1e-3);
        // Behind by half a day: twice the new plan, which has 0.20 for the horizon, of 3.00.
        assert!((even_at(0.0, 0.5, 100_000.0) - 0.4 / 3.0).abs() < 1e-3);
        // However high the traffic is, some requests pass.
        assert_eq!(even_at(50e6, 0.5, 1e15), 1.0 / 65_535.0);
        // Never past the budget, whatever the plan says.
        assert_eq!(even(99.5e6, 1.0), 0.0);
    }

    #[test]
    fn without_knowledge_of_the_traffic_an_even_pace_begins_slowly() {
        let unknown = PacingInput { per_sec: None, ..situation(0.0, 0.0) };
        assert_eq!(pass_through_rate(&unknown, None), PassThroughRate::ALL);
        let plan = Some(PlannedShares { now: 0.0, ahead: 0.001 });
        assert!((0.0005..0.002).contains(&pass_through_rate(&unknown, plan).share()));
    }

    #[test]
    fn extreme_values_give_a_rate() {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, 1.0, f64::MAX];
        for budget in values {
            for committed in values {
                for other in values {
                    let situation =
                        PacingInput { budget, committed, margin: other, per_sec: Some(other) };
                    let plan = PlannedShares { now: other, ahead: committed };
                    for plan in [None, Some(plan)] {
                        let rate = pass_through_rate(&situation, plan);
                        let is_over = committed >= budget && other >= 0.0;
                        assert!(
                            !is_over || rate == PassThroughRate::NONE,
                            "{situation:?} {plan:?}"
                        );
                    }
                }
            }
        }
    }
}
