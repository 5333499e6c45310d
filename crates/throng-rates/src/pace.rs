//! The pass rate of an ad group over time, with the traffic that it is computed from.

use std::time::Duration;

use throng_feed::PassRate;
use throng_model::{Pacing, Timestamp};

use crate::fading::UNIT;
use crate::pacing::{HORIZON, PlannedShares, Situation, pass_rate};
use crate::traffic::{DayCurve, SLICES, SliceTraffic, TrafficRate};

/// Insertions of a longer time are not learned from: after a restart they are those of the log, all at once.
const MAX_TICK: Duration = Duration::from_secs(10);

/// A moment of a budget day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DayMoment {
    /// The day, by its number.
    pub day: i32,
    /// Which part of it has passed, from 0 to 1.
    pub part: f64,
    /// How long the day is.
    pub length: Duration,
}

impl DayMoment {
    /// How much of the day is left.
    pub fn left(&self) -> Duration {
        let left = self.length.as_secs_f64() * (1.0 - self.part).clamp(0.0, 1.0);
        Duration::try_from_secs_f64(left).unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pace {
    /// Only with [`Pacing::Even`].
    pub(crate) curve: Option<Box<DayCurve>>,
    pub(crate) recent: TrafficRate,
    /// Since the last tick.
    pub(crate) insertions: u64,
    pub(crate) ticked: Option<Timestamp>,
    pub(crate) rate: PassRate,
}

impl Pace {
    /// The pass rate of the last tick; zero while the ad group is closed.
    pub fn rate(&self) -> PassRate {
        self.rate
    }

    /// An insertion was reported.
    pub fn insertion(&mut self) {
        self.insertions = self.insertions.saturating_add(1);
    }

    /// Learns from the traffic since the last tick. Call it about once a second of the clock.
    pub fn tick(&mut self, now: Timestamp, moment: DayMoment, pacing: Pacing) {
        match pacing {
            Pacing::Asap => self.curve = None,
            Pacing::Even => {
                self.curve.get_or_insert_default();
            }
        }
        let requests = std::mem::take(&mut self.insertions);
        let Some(since) = self.ticked.replace(now) else { return };
        let time = now.since(since);
        if time > MAX_TICK {
            return;
        }
        let share = self.rate.share();
        self.recent.add(now, requests, time, share);
        if let Some(curve) = &mut self.curve {
            let slices = time.as_secs_f64() * SLICES as f64 / moment.length.as_secs_f64();
            let exposure = (slices * share * UNIT as f64) as u64;
            let requests = requests.saturating_mul(UNIT);
            curve.add(moment.day, moment.part, SliceTraffic { requests, exposure });
        }
    }

    /// Sets the pass rate. `situation`: without the traffic; `earns`: what an insertion is expected to earn.
    pub fn decide(
        &mut self,
        now: Timestamp,
        moment: DayMoment,
        situation: Situation,
        earns: f64,
    ) -> PassRate {
        self.rate = match &self.curve {
            None => {
                let per_sec = Some(self.recent.at_least(now) * earns);
                pass_rate(&Situation { per_sec, ..situation }, None)
            }
            Some(curve) => {
                let usual = curve.per_sec(moment.part, moment.length);
                let per_sec = self.recent.per_sec(now, usual).map(|requests| requests * earns);
                let ahead = HORIZON.as_secs_f64() / moment.length.as_secs_f64();
                let [now, ahead] = curve.shares_before([moment.part, moment.part + ahead]);
                let plan = PlannedShares { now, ahead };
                pass_rate(&Situation { per_sec, ..situation }, Some(plan))
            }
        };
        self.rate
    }

    /// The ad group is closed: no request passes.
    pub fn close(&mut self) {
        self.rate = PassRate::NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn moment(secs: i64) -> DayMoment {
        DayMoment { day: 5, part: secs as f64 / 86_400.0, length: DAY }
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp(secs * 1_000_000)
    }

    const SITUATION: Situation =
        Situation { budget: 86.4e6, committed: 0.0, margin: 0.0, per_sec: None };

    #[test]
    fn an_even_pace_settles_at_what_the_day_needs() {
        let mut pace = Pace::default();
        let mut committed = 0.0;
        // A hundred requests a second, each of which would earn 0.01. A budget of 86.40 is 0.001 a second.
        let mut left = 0.0;
        for secs in 0..7_200 {
            left += 100.0 * pace.rate().share();
            let inserted = left as u64;
            left -= inserted as f64;
            (0..inserted).for_each(|_| pace.insertion());
            committed += inserted as f64 * 1e4;
            pace.tick(at(secs), moment(secs), Pacing::Even);
            if secs == 0 {
                // Of what came before the first tick nothing is known.
                committed = 0.0;
            }
            pace.decide(at(secs), moment(secs), Situation { committed, ..SITUATION }, 1e4);
        }
        let plan = 86.4e6 * 7_200.0 / 86_400.0;
        assert!((committed / plan - 1.0).abs() < 0.05, "{committed} of {plan}");
    }

    #[test]
    fn insertions_of_a_restart_are_not_traffic() {
        let mut pace = Pace::default();
        pace.tick(at(0), moment(0), Pacing::Asap);
        (0..10_000).for_each(|_| pace.insertion());
        pace.tick(at(60), moment(60), Pacing::Asap);
        let near = Situation { committed: 86.3e6, ..SITUATION };
        assert_eq!(pace.decide(at(60), moment(60), near, 1e4), PassRate::ALL);
        (0..10_000).for_each(|_| pace.insertion());
        pace.tick(at(61), moment(61), Pacing::Asap);
        assert!(pace.decide(at(61), moment(61), near, 1e4) < PassRate::of_share(0.1));
        pace.close();
        assert_eq!(pace.rate(), PassRate::NONE);
    }

    #[test]
    fn extreme_moments_give_a_rate() {
        let mut pace = Pace::default();
        for length in [Duration::ZERO, DAY, Duration::MAX] {
            for part in [f64::NAN, -1.0, 0.0, 2.0, f64::INFINITY] {
                let moment = DayMoment { day: i32::MAX, part, length };
                for now in [i64::MIN, 0, 1, i64::MAX] {
                    pace.insertion();
                    pace.tick(Timestamp(now), moment, Pacing::Even);
                    pace.decide(Timestamp(now), moment, SITUATION, f64::INFINITY);
                }
            }
        }
    }
}
