//! Evaluates whether the size that a platform shows for an audience follows the deliveries. Pure.
//!
//! A single size means little: platforms show sizes hours after an upload, rounded, as the number of matched
//! people (a share of the delivered users), and not at all for small audiences. So a series is evaluated, and
//! a finding has to last over several checks. A run that removes users may have removed any of the people that were
//! shown, because nobody knows which of the delivered users are matched.

use std::time::Duration;

use throng_store::Verdict;

use crate::{SizeLimits, SizePoint};

/// From this many times the smallest shown size on, delivered users are expected to be shown: more than a tenth of
/// them is matched.
const EXPECTED_TIMES_SHOWN: u64 = 10;
/// Only sizes of this many times the smallest shown size are expected to stay above it.
const RELIABLE_TIMES_SHOWN: u64 = 2;
/// Sizes may lag behind a change for this many times as long as the platform documents.
const LAG_TIMES_DOCUMENTED: u32 = 2;
/// A finding has to last for at least this long, and for at least this many checks.
const MIN_DURATION: Duration = Duration::from_secs(24 * 3_600);
const MIN_CHECKS: usize = 3;

/// A problem in a series of sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeFinding {
    /// `Failed` if people are missing from the audience, `Suspect` if the size is missing or does not follow
    /// deliveries.
    pub verdict: Verdict,
    /// The reason, with the figures.
    pub reason: String,
}

/// Evaluates the sizes of one audience on a platform, oldest first. `None` if nothing is wrong or too little
/// is known. Pure.
pub fn evaluate_sizes(points: &[SizePoint], limits: SizeLimits) -> Option<SizeFinding> {
    let series = Series::new(points, limits);
    series
        .emptied()
        .or_else(|| series.dropped())
        .or_else(|| series.no_longer_shown())
        .or_else(|| series.not_growing())
        .or_else(|| series.never_shown())
}

/// Whether a series is long enough that a lasting problem would be found. Pure.
pub fn has_enough_sizes(points: &[SizePoint]) -> bool {
    let settled = points.iter().filter(|point| !point.settling);
    let ends = settled.clone().next().zip(settled.clone().next_back());
    let is_long = ends.is_some_and(|(first, last)| last.at.since(first.at) >= MIN_DURATION);
    is_long && settled.count() >= MIN_CHECKS
}

/// The largest number of delivered users that the newest size can show.
pub(crate) fn recently_delivered(points: &[SizePoint], limits: SizeLimits) -> u64 {
    points.len().checked_sub(1).map_or(0, |newest| LagWindow::of(points, newest, lag(limits)).most)
}

fn lag(limits: SizeLimits) -> Duration {
    limits.lag.saturating_mul(LAG_TIMES_DOCUMENTED)
}

/// What the size of a point may show: the deliveries since the last point before the lag began.
struct LagWindow {
    /// That point.
    first: usize,
    /// The series reaches back over the whole lag.
    is_complete: bool,
    /// The smallest and the largest number of delivered users.
    fewest: u64,
    most: u64,
}

impl LagWindow {
    fn of(points: &[SizePoint], at: usize, lag: Duration) -> Self {
        let up_to = points.get(..=at).unwrap_or_default();
        let begin = up_to.last().map(|point| point.at.minus(lag));
        let first = up_to.iter().rposition(|point| begin.is_some_and(|begin| point.at <= begin));
        let is_complete = first.is_some();
        let first = first.unwrap_or(0);
        let delivered = up_to.get(first..).unwrap_or_default().iter().map(|point| point.delivered);
        let fewest = delivered.clone().min().unwrap_or(0);
        Self { first, is_complete, fewest, most: delivered.max().unwrap_or(0) }
    }
}

/// The sizes of one audience.
struct Series<'a> {
    points: &'a [SizePoint],
    /// The window of each point.
    windows: Vec<LagWindow>,
    /// For each point the removed users until then; of a point that has no count, those until the last one with it.
    removed: Vec<u64>,
    limits: SizeLimits,
}

impl<'a> Series<'a> {
    fn new(points: &'a [SizePoint], limits: SizeLimits) -> Self {
        let window = |at| LagWindow::of(points, at, lag(limits));
        // The first count after points without one has the removals since the newest of them.
        let mut last = 0;
        let until = |point: &SizePoint| {
            last = point.removed.unwrap_or(last);
            last
        };
        let removed = points.iter().map(until).collect();
        Self { points, windows: (0..points.len()).map(window).collect(), removed, limits }
    }

    /// The points at which the platform was not processing an upload and this holds, oldest first.
    fn settled(&self, is_so: impl Fn(&SizePoint) -> bool) -> Vec<usize> {
        let points = self.points.iter().enumerate();
        points.filter(|(_, point)| !point.settling && is_so(point)).map(|(at, _)| at).collect()
    }

    /// A lower bound that exceeds the rounding of small sizes.
    fn reliable_lower(&self, point: &SizePoint) -> Option<u64> {
        point.lower.filter(|lower| !point.settling && *lower >= self.limits.min_shown)
    }

    /// The largest number of people that agrees with the size.
    fn most_shown(&self, point: &SizePoint) -> u64 {
        match (point.lower, point.upper) {
            (_, Some(upper)) => upper,
            (None, None) => self.limits.min_shown,
            (Some(_), None) => u64::MAX,
        }
    }

    /// The smallest number of delivered users that the size of a point can show; 0 until the lag is over.
    fn fewest_delivered(&self, at: usize) -> u64 {
        let window = self.windows.get(at).filter(|window| window.is_complete);
        window.map_or(0, |window| window.fewest)
    }

    /// The largest number of delivered users that the size of a point can show.
    fn most_delivered(&self, at: usize) -> u64 {
        self.windows.get(at).map_or(0, |window| window.most)
    }

    /// How many of the people that the size of one point shows may have been removed until another one. `fewest`:
    /// the smallest number of delivered users between them, for removals that were not counted.
    fn removed_between(&self, from: usize, to: usize, fewest: u64) -> u64 {
        let first = self.windows.get(from).map_or(from, |window| window.first);
        let until = |at: usize| self.removed.get(at).copied().unwrap_or(0);
        let counted = until(to).saturating_sub(until(first));
        counted.max(self.most_delivered(from).saturating_sub(fewest))
    }

    /// The people that were shown before a point and that no removal explains: whoever was removed since is counted
    /// as one of them, and whoever was added since as not matched, because the match rate of other users may be
    /// another one. Returns the point at which they were shown, and their number; of several points the one with the
    /// most people. `None` until the lag is over.
    fn people_left(&self, place: usize) -> Option<(usize, u64)> {
        let window = self.windows.get(place).filter(|window| window.is_complete)?;
        let mut fewest = window.fewest;
        let mut left: Option<(usize, u64)> = None;
        for (from, point) in self.points.iter().enumerate().take(place).rev() {
            fewest = fewest.min(point.delivered);
            let shown = self.reliable_lower(point);
            // A size above the delivered users still shows some who were removed before.
            let is_late = |lower: u64| lower > point.delivered && self.was_larger(from);
            let Some(lower) = shown.filter(|lower| !is_late(*lower)) else { continue };
            let people = lower.saturating_sub(self.removed_between(from, place, fewest));
            if left.is_none_or(|(_, most)| people > most) {
                left = Some((from, people));
            }
        }
        left
    }

    /// Whether more users were delivered at some time before a point.
    fn was_larger(&self, at: usize) -> bool {
        let (before, now) = (self.points.get(..at), self.points.get(at));
        let more =
            |now: &SizePoint| before.iter().copied().flatten().any(|p| p.delivered > now.delivered);
        now.is_some_and(more)
    }

    /// The people left that a platform is expected to show.
    fn expected(&self, place: usize) -> Option<(usize, u64)> {
        let least = self.limits.min_shown.saturating_mul(RELIABLE_TIMES_SHOWN);
        self.people_left(place).filter(|(_, people)| *people >= least)
    }

    /// The first of the newest consecutive places for which `is_so` holds, if they last long enough.
    fn first_of_lasting(
        &self,
        places: &[usize],
        is_so: impl Fn(usize) -> bool,
    ) -> Option<SizePoint> {
        let newest: Vec<usize> =
            places.iter().rev().copied().take_while(|place| is_so(*place)).collect();
        let (last, first) = (self.points.get(*newest.first()?)?, self.points.get(*newest.last()?)?);
        let lasts = newest.len() >= MIN_CHECKS && last.at.since(first.at) >= MIN_DURATION;
        lasts.then_some(*first)
    }

    /// The platform shows an empty audience that had people who were not removed. A lag cannot explain it.
    fn emptied(&self) -> Option<SizeFinding> {
        let newest = *self.settled(|_| true).last()?;
        let now = self.points.get(newest).filter(|point| point.upper == Some(0))?;
        let mut fewest = now.delivered;
        for (at, then) in self.points.iter().enumerate().take(newest).rev() {
            fewest = fewest.min(then.delivered);
            if fewest < self.limits.min_shown {
                return None;
            }
            if then.lower.unwrap_or(0) > self.removed_between(at, newest, fewest) {
                let reason = format!(
                    "the audience on the platform is empty, with {} users delivered; at {} it had {}",
                    now.delivered,
                    then.at,
                    then.shown()
                );
                return Some(SizeFinding { verdict: Verdict::Failed, reason });
            }
        }
        None
    }

    /// The platform has shown many people who were not removed, and shows far fewer.
    fn dropped(&self) -> Option<SizeFinding> {
        let sized = self.settled(SizePoint::has_size);
        let is_low = |place: usize| {
            let shown = self.points.get(place).map_or(u64::MAX, |point| self.most_shown(point));
            let expected = self.expected(place);
            expected.is_some_and(|(_, people)| shown.saturating_mul(2) < people)
        };
        let since = self.first_of_lasting(&sized, is_low)?;
        let newest = *sized.last()?;
        let (peak, people) = self.people_left(newest)?;
        let (then, now) = (self.points.get(peak)?, self.points.get(newest)?);
        let mut reason = format!(
            "the platform has lost people: {} at {} with {} users delivered, {} now with {} delivered, since {}",
            then.shown(),
            then.at,
            then.delivered,
            now.shown(),
            now.delivered,
            since.at
        );
        let removed = then.lower.unwrap_or(0).saturating_sub(people);
        if removed > 0 {
            reason.push_str(&format!("; only {removed} users were removed since then"));
        }
        Some(SizeFinding { verdict: Verdict::Failed, reason })
    }

    /// The platform has shown many people who were not removed, and answers without a size now. That says nothing
    /// about the people: it may have stopped to show sizes of this audience.
    fn no_longer_shown(&self) -> Option<SizeFinding> {
        let settled = self.settled(|_| true);
        let is_without = |place: usize| {
            let has_size = self.points.get(place).is_some_and(SizePoint::has_size);
            !has_size && self.expected(place).is_some()
        };
        let since = self.first_of_lasting(&settled, is_without)?;
        let newest = *settled.last()?;
        let (earlier, _) = self.people_left(newest)?;
        let (then, now) = (self.points.get(earlier)?, self.points.get(newest)?);
        let reason = format!(
            "the platform answers without a size since {}, with {} users delivered; at {} it showed {}: look \
             at the audience on the platform",
            since.at,
            now.delivered,
            then.at,
            then.shown()
        );
        Some(SizeFinding { verdict: Verdict::Suspect, reason })
    }

    /// Twice as many users were delivered, but the size has not grown.
    fn not_growing(&self) -> Option<SizeFinding> {
        let sized = self.settled(SizePoint::has_size);
        let grown_since = |place: usize| {
            let (fewest, now) = (self.fewest_delivered(place), self.points.get(place)?);
            sized.iter().copied().take_while(|earlier| *earlier < place).find_map(|earlier| {
                let then = self.points.get(earlier)?;
                let lower = self.reliable_lower(then)?;
                let doubled = self.most_delivered(earlier).saturating_mul(2) <= fewest;
                // Of the people shown then, those who were removed are gone.
                let removed = self.removed_between(earlier, place, u64::MAX);
                let most = then.upper.unwrap_or(lower).saturating_sub(removed);
                (doubled && self.most_shown(now) <= most).then_some(*then)
            })
        };
        self.first_of_lasting(&sized, |place| grown_since(place).is_some())?;
        let newest = *sized.last()?;
        let (then, now) = (grown_since(newest)?, self.points.get(newest)?);
        Some(SizeFinding {
            verdict: Verdict::Suspect,
            reason: format!(
                "the size on the platform does not follow deliveries: {} at {} with {} users delivered, {} \
                 now with {} delivered",
                then.shown(),
                then.at,
                then.delivered,
                now.shown(),
                now.delivered
            ),
        })
    }

    /// Enough users were delivered that some must be matched, but the platform has never shown a size.
    fn never_shown(&self) -> Option<SizeFinding> {
        let least = self.limits.min_shown.saturating_mul(EXPECTED_TIMES_SHOWN);
        let settled = self.settled(|_| true);
        let is_shown = |place: usize| {
            let shown = self.points.get(place).map_or(u64::MAX, |point| self.most_shown(point));
            shown > self.limits.min_shown
        };
        if settled.iter().any(|place| is_shown(*place)) {
            return None;
        }
        self.first_of_lasting(&settled, |place| self.fewest_delivered(place) >= least)?;
        let now = self.points.get(*settled.last()?)?;
        Some(SizeFinding {
            verdict: Verdict::Suspect,
            reason: format!(
                "the platform shows {} for {} users that were delivered more than {} hours ago; check whether \
                 their identifiers are those of people on the platform",
                now.shown(),
                now.delivered,
                lag(self.limits).as_secs() / 3_600
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use throng_model::Timestamp;

    use super::*;

    const HOUR: u64 = 3_600;
    const LIMITS: SizeLimits = SizeLimits { min_shown: 1_000, lag: Duration::from_secs(24 * HOUR) };

    fn point(hour: u64, delivered: u64, lower: Option<u64>) -> SizePoint {
        SizePoint {
            at: Timestamp(1_800_000_000_000_000).plus(Duration::from_secs(hour * HOUR)),
            delivered,
            lower,
            upper: lower.map(|lower| lower + lower / 10),
            settling: false,
            removed: Some(0),
        }
    }

    /// A reading every six hours from one hour to another.
    fn every_six(
        hours: std::ops::RangeInclusive<u64>,
        delivered: u64,
        lower: Option<u64>,
    ) -> Vec<SizePoint> {
        hours.step_by(6).map(|hour| point(hour, delivered, lower)).collect()
    }

    fn evaluated(series: &[SizePoint]) -> Option<SizeFinding> {
        evaluate_sizes(series, LIMITS)
    }

    fn verdict(parts: &[Vec<SizePoint>]) -> Option<Verdict> {
        evaluated(&parts.concat()).map(|finding| finding.verdict)
    }

    /// The same points after this many users were removed in total.
    fn after_removal(points: Vec<SizePoint>, removed: u64) -> Vec<SizePoint> {
        points.into_iter().map(|p| SizePoint { removed: Some(removed), ..p }).collect()
    }

    /// The same points with an upper bound alone.
    fn at_most(points: Vec<SizePoint>, upper: u64) -> Vec<SizePoint> {
        points.into_iter().map(|p| SizePoint { lower: None, upper: Some(upper), ..p }).collect()
    }

    #[test]
    fn small_audiences_are_not_evaluated() {
        for upper in [None, Some(0), Some(1_000)] {
            let with_upper = |point: SizePoint| SizePoint { upper, ..point };
            let series: Vec<_> =
                every_six(0..=300, 900, None).into_iter().map(with_upper).collect();
            assert_eq!(evaluated(&series), None, "{upper:?}");
        }
        // Some are shown just above the smallest size, and later not at all.
        let (shown, not_shown) =
            (every_six(0..=60, 3_000, Some(1_200)), every_six(66..=200, 3_000, None));
        assert_eq!(verdict(&[shown, not_shown]), None);
    }

    #[test]
    fn a_low_size_soon_after_a_delivery_is_not_a_finding() {
        let million = 1_000_000;
        for none in [None, Some(0)] {
            let early: Vec<_> = every_six(0..=66, million, none);
            assert_eq!(verdict(std::slice::from_ref(&early)), None);
            let later = every_six(72..=150, million, Some(600_000));
            assert_eq!(verdict(&[early, later]), None);
        }
        // Emptied and filled again: the platform may still show the earlier size.
        let parts = [
            every_six(0..=60, million, Some(600_000)),
            every_six(66..=120, 0, None),
            every_six(126..=170, million, None),
        ];
        assert_eq!(verdict(&parts), None);
    }

    #[test]
    fn a_size_that_follows_deliveries_is_not_a_finding() {
        // A match rate of 60%, rounded down to two digits, and 10% more users each day.
        let mut delivered = 5_000;
        let mut series = Vec::new();
        for day in 0..30 {
            let lower = delivered * 6 / 10 / 100 * 100;
            series.extend(every_six(24 * day..=24 * day + 18, delivered, Some(lower)));
            delivered = delivered * 11 / 10;
        }
        assert_eq!(evaluated(&series), None);
        // Users are removed, and the size follows a day later.
        let parts = [
            every_six(0..=96, 1_000_000, Some(600_000)),
            every_six(102..=126, 100_000, Some(600_000)),
            every_six(132..=300, 100_000, Some(60_000)),
        ];
        assert_eq!(verdict(&parts), None);
        // A removal leaves nobody.
        let parts = [every_six(0..=96, 50_000, Some(30_000)), every_six(102..=300, 0, None)];
        assert_eq!(verdict(&parts), None);
    }

    #[test]
    fn lost_people_are_a_failure_once_the_loss_lasts() {
        let full = || every_six(0..=96, 1_000_000, Some(600_000));
        for (lower, hours, expected) in [
            (Some(100_000), 24, None),
            (Some(100_000), 30, Some(Verdict::Failed)),
            // The match rate may change a little.
            (Some(400_000), 300, None),
        ] {
            let after = every_six(102..=96 + hours, 1_100_000, lower);
            assert_eq!(verdict(&[full(), after]), expected, "{lower:?} {hours}");
        }
        // Below the smallest size that the platform shows.
        let low = at_most(every_six(102..=200, 1_000_000, None), 1_000);
        let back = every_six(206..=210, 1_000_000, Some(590_000));
        assert_eq!(verdict(&[full(), low.clone()]), Some(Verdict::Failed));
        assert_eq!(verdict(&[full(), low.clone(), back]), None, "the people are back");
        let without = every_six(206..=300, 1_000_000, None);
        assert_eq!(verdict(&[full(), low.clone(), without]), Some(Verdict::Failed), "still lost");
        let settling: Vec<_> =
            low.iter().map(|point| SizePoint { settling: true, ..*point }).collect();
        assert_eq!(verdict(&[full(), settling]), None, "the platform is processing");
        // Two readings are too few, however far apart.
        let two = vec![point(102, 1_000_000, None), point(160, 1_000_000, None)];
        assert_eq!(verdict(&[full(), at_most(two, 1_000)]), None);
        let reason = evaluated(&[full(), low].concat()).unwrap().reason;
        for part in
            ["600000 to 660000 people", "1000000 users delivered", "at most 1000 people now"]
        {
            assert!(reason.contains(part), "{reason}");
        }
        assert!(!reason.contains("removed"), "{reason}");
    }

    #[test]
    fn a_platform_that_no_longer_shows_a_size_is_a_warning() {
        let full = || every_six(0..=96, 1_000_000, Some(600_000));
        for (hours, expected) in [(24, None), (30, Some(Verdict::Suspect))] {
            let without = every_six(102..=96 + hours, 1_000_000, None);
            assert_eq!(verdict(&[full(), without]), expected, "{hours}");
        }
        let without = every_six(102..=200, 1_000_000, None);
        let reason = evaluated(&[full(), without.clone()].concat()).unwrap().reason;
        for part in ["without a size", "600000 to 660000 people", "1000000 users delivered"] {
            assert!(reason.contains(part), "{reason}");
        }
        let back = every_six(206..=210, 1_000_000, Some(590_000));
        assert_eq!(verdict(&[full(), without, back]), None);
    }

    #[test]
    fn people_who_were_removed_are_not_lost() {
        let full = || every_six(0..=96, 1_000_000, Some(600_000));
        // As many users are added as are removed. Of the new ones fewer are matched.
        for (removed, lower, expected) in [
            (800_000, 120_000, None),
            (600_000, 2_000, None),
            (400_000, 90_000, Some(Verdict::Failed)),
            (400_000, 100_000, None),
            (0, 290_000, None),
            (0, 250_000, Some(Verdict::Failed)),
        ] {
            let after = || after_removal(every_six(102..=200, 1_000_000, Some(lower)), removed);
            assert_eq!(verdict(&[full(), after()]), expected, "{removed} {lower}");
        }
        // They are counted in every run, also if the size is as large as before in between.
        let daily = (0u64..20).flat_map(|day| {
            let lower = 600_000 - 25_000 * day;
            let day_long = every_six(24 * day..=24 * day + 18, 1_000_000, Some(lower));
            after_removal(day_long, 100_000 * day)
        });
        let daily: Vec<SizePoint> = daily.collect();
        assert_eq!(evaluated(&daily), None);
        // What is left may still be lost.
        let exchanged = || after_removal(every_six(102..=200, 1_000_000, Some(120_000)), 800_000);
        let lost = at_most(after_removal(every_six(206..=236, 1_000_000, None), 800_000), 1_000);
        let finding = evaluated(&[full(), exchanged(), lost].concat()).unwrap();
        assert_eq!(finding.verdict, Verdict::Failed);
        assert!(finding.reason.contains("120000 to 132000 people"), "{}", finding.reason);
        let some = after_removal(every_six(102..=200, 1_000_000, Some(90_000)), 400_000);
        let reason = evaluated(&[full(), some].concat()).unwrap().reason;
        assert!(reason.contains("only 400000 users were removed"), "{reason}");
        let nobody = after_removal(vec![point(102, 1_000_000, Some(0))], 700_000);
        assert_eq!(verdict(&[full(), nobody]), None);
        let nobody = after_removal(vec![point(102, 1_000_000, Some(0))], 500_000);
        assert_eq!(verdict(&[full(), nobody]), Some(Verdict::Failed));
        let grown = after_removal(every_six(102..=250, 2_000_000, Some(500_000)), 700_000);
        assert_eq!(verdict(&[full(), grown]), None);
    }

    #[test]
    fn sizes_without_a_count_of_removals_are_compared_by_delivered_users() {
        let uncounted = |points: Vec<SizePoint>| -> Vec<SizePoint> {
            points.into_iter().map(|p| SizePoint { removed: None, ..p }).collect()
        };
        let full = || uncounted(every_six(0..=96, 1_000_000, Some(600_000)));
        let low = every_six(102..=200, 1_000_000, Some(100_000));
        assert_eq!(verdict(&[full(), uncounted(low.clone())]), Some(Verdict::Failed));
        assert_eq!(verdict(&[full(), low]), Some(Verdict::Failed));
        let removed = every_six(102..=200, 400_000, Some(100_000));
        assert_eq!(verdict(&[full(), uncounted(removed)]), None);
    }

    #[test]
    fn the_first_counted_removals_are_those_since_the_sizes_without_a_count() {
        let full = || -> Vec<SizePoint> {
            let points = every_six(0..=96, 1_000_000, Some(600_000)).into_iter();
            points.map(|p| SizePoint { removed: None, ..p }).collect()
        };
        for (removed, lower, expected) in
            [(800_000, 120_000, None), (400_000, 90_000, Some(Verdict::Failed))]
        {
            let after = after_removal(every_six(102..=200, 1_000_000, Some(lower)), removed);
            assert_eq!(verdict(&[full(), after]), expected, "{removed} {lower}");
        }
        let nobody = after_removal(vec![point(102, 1_000_000, Some(0))], 700_000);
        assert_eq!(verdict(&[full(), nobody]), None);
    }

    #[test]
    fn platforms_with_other_limits_are_evaluated_by_them() {
        let series =
            [every_six(0..=96, 2_000, Some(900)), at_most(every_six(102..=130, 2_000, None), 100)];
        assert_eq!(verdict(&series), None, "900 is not shown as a number");
        let evaluated = |limits| evaluate_sizes(&series.concat(), limits).map(|f| f.verdict);
        let small = SizeLimits { min_shown: 100, ..LIMITS };
        assert_eq!(evaluated(small), Some(Verdict::Failed));
        // Three days of lag are not over.
        let slow = SizeLimits { lag: Duration::from_secs(72 * HOUR), ..small };
        assert_eq!(evaluated(slow), None);
    }

    #[test]
    fn a_series_is_long_enough_after_three_readings_and_a_day() {
        assert!(!has_enough_sizes(&[point(0, 5_000, None), point(30, 5_000, None)]));
        assert!(!has_enough_sizes(&every_six(0..=18, 5_000, None)));
        let mut day = every_six(0..=24, 5_000, None);
        assert!(has_enough_sizes(&day));
        day[0].settling = true;
        assert!(!has_enough_sizes(&day) && !has_enough_sizes(&[]));
    }

    #[test]
    fn an_emptied_audience_is_a_failure_at_once() {
        let full = every_six(0..=12, 5_000, Some(3_000));
        let nobody = vec![point(18, 5_000, Some(0))];
        assert_eq!(verdict(&[full.clone(), nobody]), Some(Verdict::Failed));
        let by_removal = vec![point(18, 0, Some(0))];
        assert_eq!(verdict(&[full, by_removal]), None);
    }

    #[test]
    fn a_size_that_never_follows_is_a_warning_after_the_lag() {
        for (hours, expected) in [(66, None), (72, Some(Verdict::Suspect))] {
            let series = every_six(0..=hours, 20_000, None);
            assert_eq!(verdict(&[series]), expected, "{hours}");
            let parts = [
                every_six(0..=90, 10_000, Some(6_000)),
                every_six(96..=96 + hours, 100_000, Some(6_000)),
            ];
            assert_eq!(verdict(&parts), expected, "{hours}");
        }
        let grows = every_six(96..=400, 100_000, Some(60_000));
        assert_eq!(verdict(&[every_six(0..=90, 10_000, Some(6_000)), grows]), None);
    }
}
