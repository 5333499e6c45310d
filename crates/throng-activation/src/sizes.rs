//! Evaluates whether the size that a platform shows for an audience follows the deliveries. Pure.
//!
//! A single size means little: platforms show sizes hours after an upload, rounded, as the number of matched
//! people (a share of the delivered users), and not at all for small audiences. So a series is evaluated, and
//! a finding has to last over several checks.

use std::time::Duration;

use throng_model::{Timestamp, people_text};
use throng_store::{Batch, Operation, Verdict};

/// The smallest size that platforms show. Below it they show none, or this as an upper bound: Meta shows -1,
/// or 1,000 as the upper bound.
const MIN_SHOWN_SIZE: u64 = 1_000;
/// From this many delivered users on some size is expected: more than a tenth of them is matched.
const MIN_EXPECTED_SHOWN: u64 = 10 * MIN_SHOWN_SIZE;
/// How long sizes may lag behind a change: twice the 24 hours that Meta documents.
const LAG: Duration = Duration::from_secs(48 * 3_600);
/// A finding has to last for at least this long, and for at least this many checks.
const MIN_DURATION: Duration = Duration::from_secs(24 * 3_600);
const MIN_CHECKS: usize = 3;

/// The size of an audience at one time, and what was delivered then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizePoint {
    /// When the size was read.
    pub at: Timestamp,
    /// Users delivered to the platform at that time.
    pub delivered: u64,
    /// At least this many people, if the platform shows it.
    pub lower: Option<u64>,
    /// At most this many people, if the platform shows it.
    pub upper: Option<u64>,
    /// The platform was still processing an upload.
    pub settling: bool,
}

/// A problem in a series of sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeFinding {
    /// `Failed` if people are missing from the audience, `Suspect` if the size does not follow deliveries.
    pub verdict: Verdict,
    /// The reason, with the figures.
    pub reason: String,
}

impl SizePoint {
    /// A lower bound that exceeds the rounding of small sizes.
    fn reliable_lower(&self) -> Option<u64> {
        self.lower.filter(|lower| !self.settling && *lower >= MIN_SHOWN_SIZE)
    }

    /// The largest number of people that agrees with the size.
    fn most_shown(&self) -> u64 {
        match (self.lower, self.upper) {
            (_, Some(upper)) => upper,
            (None, None) => MIN_SHOWN_SIZE,
            (Some(_), None) => u64::MAX,
        }
    }

    /// The size as text.
    fn shown(&self) -> String {
        people_text(self.lower, self.upper)
    }
}

/// Users delivered after the batches of a run whose result is not recorded yet, where `before` users were
/// delivered before the run.
pub fn delivered_after(before: u64, batches: &[Batch]) -> u64 {
    let sent = |wanted: Operation| {
        let matching = batches.iter().filter(|batch| batch.operation == wanted);
        matching.filter_map(|batch| batch.outcome.as_ref()).map(|outcome| outcome.sent).sum::<u64>()
    };
    if batches.iter().any(|batch| batch.operation == Operation::Replace) {
        return sent(Operation::Replace);
    }
    before.saturating_add(sent(Operation::Add)).saturating_sub(sent(Operation::Remove))
}

/// Evaluates the sizes of one audience on a platform, oldest first. `None` if nothing is wrong or too little
/// is known. Pure.
pub fn evaluate_sizes(series: &[SizePoint]) -> Option<SizeFinding> {
    let settled: Vec<usize> =
        (0..series.len()).filter(|at| series.get(*at).is_some_and(|p| !p.settling)).collect();
    emptied(series, &settled)
        .or_else(|| dropped(series, &settled))
        .or_else(|| not_growing(series, &settled))
        .or_else(|| never_shown(series, &settled))
}

/// The points up to `at` whose deliveries the size at `at` may show: from the last point before the lag began.
/// The second value says whether the series reaches back over the whole lag.
fn lag_window(series: &[SizePoint], at: usize) -> (&[SizePoint], bool) {
    let up_to = series.get(..=at).unwrap_or_default();
    let begin = up_to.last().map(|point| point.at.minus(LAG));
    let first = up_to.iter().rposition(|point| begin.is_some_and(|begin| point.at <= begin));
    (up_to.get(first.unwrap_or(0)..).unwrap_or_default(), first.is_some())
}

/// The smallest number of delivered users that the size at this point can show; 0 until the lag is over.
fn fewest_delivered(series: &[SizePoint], at: usize) -> u64 {
    let (points, lag_is_over) = lag_window(series, at);
    let fewest = points.iter().map(|point| point.delivered).min();
    fewest.filter(|_| lag_is_over).unwrap_or(0)
}

/// The largest number of delivered users that the size at this point can show.
fn most_delivered(series: &[SizePoint], at: usize) -> u64 {
    lag_window(series, at).0.iter().map(|point| point.delivered).max().unwrap_or(0)
}

/// The largest number of delivered users that the newest size can show.
pub(crate) fn recently_delivered(series: &[SizePoint]) -> u64 {
    series.len().checked_sub(1).map_or(0, |newest| most_delivered(series, newest))
}

/// The first of the newest consecutive points for which `is_so` holds, if they last long enough.
fn first_of_lasting(
    series: &[SizePoint],
    settled: &[usize],
    is_so: impl Fn(usize) -> bool,
) -> Option<SizePoint> {
    let newest_places: Vec<usize> =
        settled.iter().rev().copied().take_while(|place| is_so(*place)).collect();
    let (last, first) = (series.get(*newest_places.first()?)?, series.get(*newest_places.last()?)?);
    let lasts = newest_places.len() >= MIN_CHECKS && last.at.since(first.at) >= MIN_DURATION;
    lasts.then_some(*first)
}

/// The platform shows an empty audience that had people, without a removal. A lag cannot explain it.
fn emptied(series: &[SizePoint], settled: &[usize]) -> Option<SizeFinding> {
    let newest = *settled.last()?;
    let now = series.get(newest).filter(|point| point.upper == Some(0))?;
    let earlier = series.get(..newest)?;
    let before = earlier.iter().rposition(|point| point.lower.is_some_and(|lower| lower > 0))?;
    let fewest = series.get(before..=newest)?.iter().map(|point| point.delivered).min()?;
    let then = series.get(before)?;
    (fewest >= MIN_SHOWN_SIZE).then(|| SizeFinding {
        verdict: Verdict::Failed,
        reason: format!(
            "the audience on the platform is empty, with {} users delivered; at {} it had {}",
            now.delivered,
            then.at,
            then.shown()
        ),
    })
}

/// The platform has shown many people, and shows far fewer since then without a removal.
fn dropped(series: &[SizePoint], settled: &[usize]) -> Option<SizeFinding> {
    let peak = settled
        .iter()
        .copied()
        .filter_map(|place| Some((series.get(place)?.reliable_lower()?, place)))
        .max_by_key(|(lower, place)| (*lower, std::cmp::Reverse(*place)));
    let (lower, peak) = peak?;
    let base = most_delivered(series, peak).max(lower);
    // The match rate of the peak applied to the users delivered now, but no more people than at the peak.
    let expected = |place: usize| {
        let scaled =
            u128::from(fewest_delivered(series, place)) * u128::from(lower) / u128::from(base);
        u64::try_from(scaled).unwrap_or(u64::MAX).min(lower)
    };
    let is_low = |place: usize| {
        let expected = expected(place);
        let shown = series.get(place).map_or(u64::MAX, SizePoint::most_shown);
        place > peak && expected >= 2 * MIN_SHOWN_SIZE && shown.saturating_mul(2) < expected
    };
    let since = first_of_lasting(series, settled, is_low)?;
    let (then, now) = (series.get(peak)?, series.get(*settled.last()?)?);
    Some(SizeFinding {
        verdict: Verdict::Failed,
        reason: format!(
            "the platform has lost people: {} at {} with {} users delivered, {} now with {} delivered, since {}",
            then.shown(),
            then.at,
            then.delivered,
            now.shown(),
            now.delivered,
            since.at
        ),
    })
}

/// Twice as many users were delivered, but the size has not grown.
fn not_growing(series: &[SizePoint], settled: &[usize]) -> Option<SizeFinding> {
    let grown_since = |place: usize| {
        let (fewest, now) = (fewest_delivered(series, place), series.get(place)?);
        settled.iter().copied().take_while(|earlier| *earlier < place).find_map(|earlier| {
            let then = series.get(earlier)?;
            let most = then.upper.or(then.reliable_lower())?;
            let doubled = most_delivered(series, earlier).saturating_mul(2) <= fewest;
            (then.reliable_lower().is_some() && doubled && now.most_shown() <= most)
                .then_some(*then)
        })
    };
    first_of_lasting(series, settled, |place| grown_since(place).is_some())?;
    let newest = *settled.last()?;
    let (then, now) = (grown_since(newest)?, series.get(newest)?);
    Some(SizeFinding {
        verdict: Verdict::Suspect,
        reason: format!(
            "the size on the platform does not follow deliveries: {} at {} with {} users delivered, {} now \
             with {} delivered",
            then.shown(),
            then.at,
            then.delivered,
            now.shown(),
            now.delivered
        ),
    })
}

/// Enough users were delivered that some must be matched, but the platform has never shown a size.
fn never_shown(series: &[SizePoint], settled: &[usize]) -> Option<SizeFinding> {
    let is_not_shown = |place: usize| {
        let shown = series.get(place).map_or(u64::MAX, SizePoint::most_shown);
        shown <= MIN_SHOWN_SIZE && fewest_delivered(series, place) >= MIN_EXPECTED_SHOWN
    };
    if settled
        .iter()
        .any(|place| series.get(*place).is_some_and(|p| p.most_shown() > MIN_SHOWN_SIZE))
    {
        return None;
    }
    first_of_lasting(series, settled, is_not_shown)?;
    let now = series.get(*settled.last()?)?;
    Some(SizeFinding {
        verdict: Verdict::Suspect,
        reason: format!(
            "the platform shows {} for {} users that were delivered more than {} hours ago; check whether \
             their identifiers are those of people on the platform",
            now.shown(),
            now.delivered,
            LAG.as_secs() / 3_600
        ),
    })
}

#[cfg(test)]
mod tests {
    use throng_store::{BatchOutcome, BatchState};

    use super::*;

    const HOUR: u64 = 3_600;

    fn point(hour: u64, delivered: u64, lower: Option<u64>) -> SizePoint {
        SizePoint {
            at: Timestamp(1_800_000_000_000_000).plus(Duration::from_secs(hour * HOUR)),
            delivered,
            lower,
            upper: lower.map(|lower| lower + lower / 10),
            settling: false,
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

    fn verdict(parts: &[Vec<SizePoint>]) -> Option<Verdict> {
        evaluate_sizes(&parts.concat()).map(|finding| finding.verdict)
    }

    #[test]
    fn small_audiences_are_not_evaluated() {
        for upper in [None, Some(0), Some(1_000)] {
            let with_upper = |point: SizePoint| SizePoint { upper, ..point };
            let series: Vec<_> =
                every_six(0..=300, 900, None).into_iter().map(with_upper).collect();
            assert_eq!(evaluate_sizes(&series), None, "{upper:?}");
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
        assert_eq!(evaluate_sizes(&series), None);
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
            (None, 24, None),
            (None, 30, Some(Verdict::Failed)),
            (Some(100_000), 30, Some(Verdict::Failed)),
            // The match rate may change a little.
            (Some(400_000), 300, None),
        ] {
            let after = every_six(102..=96 + hours, 1_100_000, lower);
            assert_eq!(verdict(&[full(), after]), expected, "{lower:?} {hours}");
        }
        let (low, back) =
            (every_six(102..=200, 1_000_000, None), every_six(206..=210, 1_000_000, Some(590_000)));
        assert_eq!(verdict(&[full(), low.clone()]), Some(Verdict::Failed));
        assert_eq!(verdict(&[full(), low.clone(), back]), None, "the people are back");
        let settling: Vec<_> =
            low.iter().map(|point| SizePoint { settling: true, ..*point }).collect();
        assert_eq!(verdict(&[full(), settling]), None, "the platform is processing");
        // Two readings are too few, however far apart.
        let two = vec![point(102, 1_000_000, None), point(160, 1_000_000, None)];
        assert_eq!(verdict(&[full(), two]), None);
        let reason = evaluate_sizes(&[full(), low].concat()).unwrap().reason;
        for part in ["600000 to 660000 people", "1000000 users delivered", "no size now"] {
            assert!(reason.contains(part), "{reason}");
        }
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

    #[test]
    fn deliveries_that_are_not_recorded_yet_are_counted_from_batches() {
        let batch = |operation, sent| Batch {
            number: 0,
            operation,
            first_rank: 0,
            rows: sent,
            state: BatchState::Done,
            outcome: Some(BatchOutcome { sent, ..BatchOutcome::default() }),
        };
        let mirror = [batch(Operation::Add, 30), batch(Operation::Remove, 10)];
        assert_eq!(delivered_after(100, &mirror), 120);
        assert_eq!(delivered_after(0, &mirror[1..]), 0);
        assert_eq!(delivered_after(100, &[batch(Operation::Replace, 7)]), 7);
        assert_eq!(delivered_after(100, &[]), 100);
    }
}
