//! The pass-through rate of an ad group over time, with the traffic that it is computed from.

use std::time::Duration;

use throng_feed::PassThroughRate;
use throng_model::{Pacing, Timestamp};

use crate::fading::UNIT;
use crate::pacing::{COLD_SHARE, FEEDBACK, HORIZON, PacingInput, PlannedShares, pass_through_rate};
use crate::traffic::{DayCurve, EXPOSURE_UNIT, SLICES, SliceTraffic, TrafficRate};

/// Insertions of a longer time are not learned from: after a restart they are those of the log, all at once.
/// It is above the longest interval of the feed, which is a minute: ticks are as far apart.
const MAX_TICK: Duration = Duration::from_secs(120);
/// With a plan the pass-through rate grows at most by a factor of `e` in this time: insertions at a rate come back some
/// seconds later, and until then a traffic that is not known yet looks like none.
const GROWTH: Duration = Duration::from_secs(5);
/// With a plan, a time in which so many insertions were expected and none came is a gap in the traffic: an ad server
/// is down. By chance one interval in three thousand is one.
const GAP_INSERTIONS: u64 = 8;
/// In a gap the traffic counts as so many times what it was before: it may be back at any time, and be higher.
const GAP_TRAFFIC: f64 = 2.0;
/// In a gap the day's curve learns at most of so many insertions a slice that did not come: of all of them, minutes
/// without traffic would make the requests after them look few.
const GAP_SLICE_INSERTIONS: f64 = 20.0;
/// The traffic before a gap is divided by this when an insertion ends the gap: if it has fallen for good, each
/// insertion ends a gap.
const GAP_FALL: u64 = 4;

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
    /// Nothing is learned from before this time.
    pub(crate) ticked: Option<Timestamp>,
    pub(crate) rate: PassThroughRate,
    /// With a plan: requests a second at a pass-through rate of one, as they were known at the last insertion that
    /// ended no gap, in parts of [`UNIT`]; zero: not known. Not stored: it is learned again.
    pub(crate) known: u64,
    /// How many insertions of that traffic were expected since the last one, in parts of [`UNIT`]; not zero if that
    /// one ended a gap. Not stored.
    pub(crate) missed: u64,
}

impl Pace {
    /// The pass-through rate of the last tick; zero while the ad group is closed.
    #[inline]
    pub fn rate(&self) -> PassThroughRate {
        self.rate
    }

    /// An insertion was reported.
    #[inline]
    pub fn insertion(&mut self) {
        self.insertions = self.insertions.saturating_add(1);
    }

    /// Learns from the traffic since the last tick, and returns the time since then. Call it about once a second
    /// of the clock.
    pub fn tick(&mut self, now: Timestamp, moment: DayMoment, pacing: Pacing) -> Duration {
        let requests = std::mem::take(&mut self.insertions);
        if requests > 0 {
            if self.is_gap() {
                self.known = (self.known / GAP_FALL).max(1);
                self.missed = 1;
            } else {
                self.missed = 0;
            }
        }
        match pacing {
            Pacing::Asap => {
                self.curve = None;
                (self.known, self.missed) = (0, 0);
            }
            Pacing::Even if self.curve.is_none() => {
                // Gates have the first pass-through rate some seconds later. What they insert until then, at every
                // request, would count as the traffic of the small share that passes from now on.
                self.curve = Some(Box::default());
                self.ticked = Some(now.plus(FEEDBACK));
                return Duration::ZERO;
            }
            Pacing::Even => {}
        }
        if self.ticked.is_some_and(|until| now < until && until.since(now) <= FEEDBACK) {
            return Duration::ZERO;
        }
        let Some(since) = self.ticked.replace(now) else { return Duration::ZERO };
        if now < since {
            // The clock was set back: what was seen in its future would count as the newest until then.
            self.recent = TrafficRate::default();
            return Duration::ZERO;
        }
        let time = now.since(since);
        if time > MAX_TICK {
            return time;
        }
        let share = self.exposed_share(now, requests, time, moment);
        if let Some(curve) = &mut self.curve {
            let slices = time.as_secs_f64() * SLICES as f64 / moment.length.as_secs_f64();
            let exposure = (slices * share * EXPOSURE_UNIT as f64) as u64;
            let requests = requests.saturating_mul(UNIT);
            curve.add(moment.day, moment.part, SliceTraffic { requests, exposure });
        }
        time
    }

    /// Adds a time to the recent traffic. Returns the pass-through rate with which it counts for the day's curve.
    fn exposed_share(
        &mut self,
        now: Timestamp,
        requests: u64,
        time: Duration,
        moment: DayMoment,
    ) -> f64 {
        let share = self.rate.share();
        if requests == 0 {
            let expected = self.known as f64 * time.as_secs_f64() * share;
            self.missed = self.missed.saturating_add(expected as u64);
        }
        if self.is_gap() {
            // That nothing came says that there is no traffic now, and nothing of how much there will be.
            self.recent = TrafficRate::default();
            let slice_secs = moment.length.as_secs_f64() / SLICES as f64;
            let in_slice = self.known as f64 / UNIT as f64 * slice_secs;
            share.min(GAP_SLICE_INSERTIONS / in_slice)
        } else {
            self.recent.add(now, requests, time, share);
            share
        }
    }

    /// Whether there is no traffic, though there was some before.
    fn is_gap(&self) -> bool {
        self.missed > GAP_INSERTIONS * UNIT
    }

    /// Sets the pass-through rate. `since`: the time that [`tick`](Self::tick) returned; `situation`: without the
    /// traffic; `earns`: what an insertion is expected to earn.
    pub fn decide(
        &mut self,
        now: Timestamp,
        since: Duration,
        moment: DayMoment,
        situation: PacingInput,
        earns: f64,
    ) -> PassThroughRate {
        self.rate = match &self.curve {
            None => {
                let per_sec = Some(self.recent.at_least(now) * earns);
                pass_through_rate(&PacingInput { per_sec, ..situation }, None)
            }
            Some(curve) => {
                let usual = curve.per_sec(moment.part, moment.length);
                // No request was ever seen: that the traffic is less than half a request in the time that was
                // exposed would be no reason to expose less.
                let unseen = self.recent.secs_without_requests(now).filter(|_| usual.is_none());
                let requests = match unseen {
                    Some(_) => None,
                    None if self.is_gap() => Some(GAP_TRAFFIC * self.known as f64 / UNIT as f64),
                    None => self.recent.per_sec(now, usual),
                };
                if self.missed == 0 {
                    // The lower one: by chance two requests of a small traffic come within seconds, and a minute
                    // without any would be a gap.
                    let both = requests.zip(usual);
                    let lower = both.map_or(0.0, |(recent, usual)| recent.min(usual));
                    self.known = (lower * UNIT as f64) as u64;
                }
                let per_sec = requests.map(|requests| requests * earns);
                let ahead = HORIZON.as_secs_f64() / moment.length.as_secs_f64();
                let [now, ahead] = curve.shares_before([moment.part, moment.part + ahead]);
                let plan = PlannedShares { now, ahead };
                let wanted = pass_through_rate(&PacingInput { per_sec, ..situation }, Some(plan));
                let wanted = match unseen {
                    // At most one request is expected within the horizon.
                    Some(secs) if wanted != PassThroughRate::NONE => {
                        wanted.max(PassThroughRate::of_share(secs / HORIZON.as_secs_f64()))
                    }
                    _ => wanted,
                };
                wanted.min(self.highest_after(since))
            }
        };
        self.rate
    }

    /// The highest pass-through rate with a plan, so much time after the last one.
    fn highest_after(&self, since: Duration) -> PassThroughRate {
        let growth = 1.0 + since.as_secs_f64() / GROWTH.as_secs_f64();
        let highest = PassThroughRate::of_share((self.rate.share() * growth).max(COLD_SHARE));
        // One more, so that rounding does not keep it where it is.
        PassThroughRate(highest.0.saturating_add(1))
    }

    /// The ad group is closed: no request passes.
    pub fn close(&mut self) {
        self.rate = PassThroughRate::NONE;
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

    const SITUATION: PacingInput =
        PacingInput { budget: 86.4e6, committed: 0.0, margin: 0.0, per_sec: None };

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
            let since = pace.tick(at(secs), moment(secs), Pacing::Even);
            if secs == 0 {
                // Of what came before the first tick nothing is known.
                committed = 0.0;
            }
            let situation = PacingInput { committed, ..SITUATION };
            pace.decide(at(secs), since, moment(secs), situation, 1e4);
        }
        let plan = 86.4e6 * 7_200.0 / 86_400.0;
        assert!((committed / plan - 1.0).abs() < 0.05, "{committed} of {plan}");
    }

    /// Insertions of seconds with requests, of which each is expected to earn `earns`. They are reported after a
    /// lag. Returns how many there were.
    fn insertions(
        pace: &mut Pace,
        secs: std::ops::Range<i64>,
        requests: impl Fn(i64) -> f64,
        money: (f64, f64, usize),
    ) -> u64 {
        in_each_second(pace, secs, requests, money).iter().sum()
    }

    /// The same for each second.
    fn in_each_second(
        pace: &mut Pace,
        secs: std::ops::Range<i64>,
        requests: impl Fn(i64) -> f64,
        (budget, earns, lag): (f64, f64, usize),
    ) -> Vec<u64> {
        let (mut left, mut committed, mut all) = (0.0, 0.0, Vec::new());
        let mut reported = std::collections::VecDeque::from(vec![0; lag]);
        for secs in secs {
            left += requests(secs) * pace.rate().share();
            let inserted = left as u64;
            left -= inserted as f64;
            all.push(inserted);
            reported.push_back(inserted);
            let inserted = reported.pop_front().unwrap();
            (0..inserted).for_each(|_| pace.insertion());
            committed += inserted as f64 * earns;
            let since = pace.tick(at(secs), moment(secs), Pacing::Even);
            let situation = PacingInput { budget, committed, ..SITUATION };
            pace.decide(at(secs), since, moment(secs), situation, earns);
        }
        all
    }

    /// An ad group that is added with six hours left, for 6,250 insertions a day: it is behind its plan.
    const ADDED: i64 = 64_800;
    const BEHIND: (f64, f64, usize) = (50e6, 8e3, 3);

    /// When traffic fails and when it is back, in seconds, and requests a second from then on.
    type Gap = (usize, usize, f64);

    #[test]
    fn requests_after_a_gap_do_not_meet_a_high_pass_through_rate() {
        let cases: [&[Gap]; 4] = [
            &[(900, 910, 30.0)],
            &[(900, 1_080, 60.0)],
            &[(900, 4_500, 60.0)],
            &[(900, 1_080, 30.0), (1_200, 1_260, 30.0), (1_380, 1_980, 30.0)],
        ];
        for gaps in cases {
            let requests = |secs: i64| {
                let secs = (secs - ADDED) as usize;
                let last = gaps.iter().rfind(|(begin, ..)| *begin <= secs);
                last.map_or(30.0, |(_, end, after)| if secs < *end { 0.0 } else { *after })
            };
            let secs = ADDED..ADDED + 4_560;
            let inserted = in_each_second(&mut Pace::default(), secs, requests, BEHIND);
            for (_, end, _) in gaps {
                let before: u64 = inserted[..*end].iter().sum();
                let minute: u64 = inserted[*end..*end + 60].iter().sum();
                // Twice what would bring it to its budget by the end of the day, in a second, and a quarter more until
                // it is seen that the traffic is higher than before.
                let most = 2.5 * (6_250 - before) as f64 / (86_400 - ADDED - *end as i64) as f64;
                // And what is inserted until it is seen how much traffic there is.
                let most = most * (60.0 + FEEDBACK.as_secs_f64()) + 1.0;
                let minute = minute as f64;
                let is_in = (most / 4.0..=most).contains(&minute);
                assert!(is_in, "{gaps:?} {end}: {minute} of {most}");
            }
        }
    }

    #[test]
    fn the_rate_rises_when_traffic_has_fallen_for_good() {
        // To a hundredth, of which the budget needs every request.
        let requests = |secs: i64| if secs < ADDED + 600 { 30.0 } else { 0.3 };
        let secs = ADDED..ADDED + 3_600;
        let inserted = in_each_second(&mut Pace::default(), secs, requests, BEHIND);
        let shown: u64 = inserted[1_800..].iter().sum();
        assert!(shown >= 400, "{shown} of 540");
    }

    #[test]
    fn a_small_ad_group_with_little_traffic_is_shown_soon() {
        // A request a minute, and a budget of a hundred insertions a day: two in the first half hour.
        let requests = |secs: i64| if secs % 60 == 30 { 1.0 } else { 0.0 };
        let mut pace = Pace::default();
        let shown = insertions(&mut pace, 0..1_800, requests, (1e6, 1e4, 3));
        assert!((1..=4).contains(&shown), "{shown}");
    }

    #[test]
    fn the_rate_does_not_grow_faster_than_insertions_come_back() {
        // Ten thousand requests a second that are not known yet, for a budget of 100,000 insertions a day.
        let mut pace = Pace::default();
        pace.close();
        let shown = insertions(&mut pace, 0..600, |_| 10_000.0, (500e6, 5e3, 3));
        // The plan is 694.
        assert!((550..=850).contains(&shown), "{shown}");
    }

    #[test]
    fn what_gates_insert_before_they_have_a_pass_through_rate_is_not_traffic() {
        // In the first second a tenth of the day's budget, which is the plan until 8,640 seconds.
        let mut pace = Pace::default();
        let shown = insertions(&mut pace, 0..12_000, |_| 10_000.0, (500e6, 5e3, 3));
        // The plan is 13,889.
        assert!((13_200..=14_500).contains(&shown), "{shown}");
    }

    /// Whatever the interval of ticks: also those of which a tick is less than a part of 65,536 of a slice.
    #[test]
    fn traffic_at_a_low_pass_through_rate_is_learned() {
        for (millis, ticks) in [(50, 12_000), (1_000, 600), (60_000, 10)] {
            let mut pace = Pace::default();
            let mut left = 0.0f64;
            for tick in 0..=ticks {
                pace.rate = PassThroughRate::of_share(0.01);
                left += 100.0 * pace.rate.share() * f64::from(millis) / 1e3;
                (0..left as u64).for_each(|_| pace.insertion());
                left -= left.floor();
                let now = Timestamp(i64::from(tick * millis) * 1_000);
                let part = f64::from(tick * millis) / 86.4e6;
                let moment = DayMoment { day: 5, part, length: DAY };
                pace.tick(now, moment, Pacing::Even);
            }
            let curve = pace.curve.as_ref().unwrap();
            let per_sec = curve.per_sec(0.001, DAY).unwrap();
            assert!((per_sec / 100.0 - 1.0).abs() < 0.03, "{millis}: {per_sec}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_the_traffic_of_its_future() {
        let mut pace = Pace::default();
        for secs in [0, 1, 2] {
            (0..100).for_each(|_| pace.insertion());
            pace.tick(at(90_000 + secs), moment(secs), Pacing::Asap);
        }
        assert!(pace.recent.at_least(at(90_002)) > 3.0);
        for secs in 0..120 {
            pace.insertion();
            pace.tick(at(secs), moment(secs), Pacing::Asap);
        }
        let at_least = pace.recent.at_least(at(120));
        assert!((0.3..=1.0).contains(&at_least), "{at_least}");
    }

    #[test]
    fn insertions_of_a_restart_are_not_traffic() {
        let mut pace = Pace::default();
        pace.tick(at(0), moment(0), Pacing::Asap);
        (0..10_000).for_each(|_| pace.insertion());
        let since = pace.tick(at(300), moment(300), Pacing::Asap);
        let near = PacingInput { committed: 86.3e6, ..SITUATION };
        assert_eq!(pace.decide(at(300), since, moment(300), near, 1e4), PassThroughRate::ALL);
        (0..10_000).for_each(|_| pace.insertion());
        let since = pace.tick(at(301), moment(301), Pacing::Asap);
        let rate = pace.decide(at(301), since, moment(301), near, 1e4);
        assert!(rate < PassThroughRate::of_share(0.1), "{rate:?}");
        pace.close();
        assert_eq!(pace.rate(), PassThroughRate::NONE);
    }

    #[test]
    fn extreme_moments_give_a_rate() {
        let mut pace = Pace::default();
        for length in [Duration::ZERO, DAY, Duration::MAX] {
            for part in [f64::NAN, -1.0, 0.0, 2.0, f64::INFINITY] {
                let moment = DayMoment { day: i32::MAX, part, length };
                for now in [i64::MIN, 0, 1, i64::MAX] {
                    pace.insertion();
                    let since = pace.tick(Timestamp(now), moment, Pacing::Even);
                    pace.decide(Timestamp(now), since, moment, SITUATION, f64::INFINITY);
                }
            }
        }
    }
}
