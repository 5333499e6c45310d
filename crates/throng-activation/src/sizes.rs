//! Whether the size that a platform shows for an audience follows what it was given. Pure.
//!
//! One size says little: platforms show sizes hours after an upload, rounded, as the number of people that
//! they know (a share of the users that they were given), and not at all for small audiences. So a series
//! is evaluated, and what it finds has to last over several checks.

use std::time::Duration;

use throng_model::Timestamp;
use throng_store::{Batch, Operation, Verdict};

/// Platforms show no smaller sizes, or show them as at most so many: Meta shows -1, or 1,000 as the upper
/// bound.
const SMALLEST_SHOWN: u64 = 1_000;
/// So many users are expected to be found at least in part: more than a tenth of them.
const SURELY_SHOWN: u64 = 10 * SMALLEST_SHOWN;
/// How long a change may take until sizes show it: twice the 24 hours that Meta documents.
const LAG: Duration = Duration::from_secs(48 * 3_600);
/// What is found has to be so for at least this long, and in at least so many checks.
const LASTS: Duration = Duration::from_secs(24 * 3_600);
const LASTS_CHECKS: usize = 3;

/// The size of an audience at one time, and what was delivered then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizePoint {
    /// When the size was read.
    pub at: Timestamp,
    /// Users that the platform was given.
    pub delivered: u64,
    /// At least this many people, if the platform shows it.
    pub lower: Option<u64>,
    /// At most this many people, if the platform shows it.
    pub upper: Option<u64>,
    /// The platform was still at work on an upload.
    pub settling: bool,
}

/// What is wrong with a series of sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeFinding {
    /// `Failed` if people are gone that should be there, `Suspect` if the size does not follow deliveries.
    pub verdict: Verdict,
    /// Why, with the figures.
    pub reason: String,
}

impl SizePoint {
    /// A lower bound that is more than the rounding of small sizes.
    fn known(&self) -> Option<u64> {
        self.lower.filter(|lower| !self.settling && *lower >= SMALLEST_SHOWN)
    }

    /// The most people that the size allows for.
    fn most_shown(&self) -> u64 {
        match (self.lower, self.upper) {
            (_, Some(upper)) => upper,
            (None, None) => SMALLEST_SHOWN,
            (Some(_), None) => u64::MAX,
        }
    }

    /// The size in words.
    fn shown(&self) -> String {
        size_in_words(self.lower, self.upper)
    }
}

/// The bounds that a platform shows, in words.
pub fn size_in_words(lower: Option<u64>, upper: Option<u64>) -> String {
    match (lower, upper) {
        (Some(lower), Some(upper)) if lower == upper => format!("{lower} people"),
        (Some(lower), Some(upper)) => format!("{lower} to {upper} people"),
        (Some(lower), None) => format!("at least {lower} people"),
        (None, Some(upper)) => format!("at most {upper} people"),
        (None, None) => "no size".to_owned(),
    }
}

/// Users that the platform was given after the batches of a run whose result is not recorded yet, where it
/// had been given `before`.
pub fn delivered_after(before: u64, batches: &[Batch]) -> u64 {
    let sent = |wanted: Operation| {
        let of = batches.iter().filter(|batch| batch.operation == wanted);
        of.filter_map(|batch| batch.outcome.as_ref()).map(|outcome| outcome.sent).sum::<u64>()
    };
    if batches.iter().any(|batch| batch.operation == Operation::Replace) {
        return sent(Operation::Replace);
    }
    before.saturating_add(sent(Operation::Add)).saturating_sub(sent(Operation::Remove))
}

/// Evaluates the sizes of one audience on a platform, the oldest first. `None` if nothing is wrong, or
/// nothing can be said. Pure.
pub fn evaluate_sizes(series: &[SizePoint]) -> Option<SizeFinding> {
    let settled: Vec<usize> =
        (0..series.len()).filter(|at| series.get(*at).is_some_and(|p| !p.settling)).collect();
    emptied(series, &settled)
        .or_else(|| fell(series, &settled))
        .or_else(|| stands_still(series, &settled))
        .or_else(|| never_shown(series, &settled))
}

/// The points up to one whose deliveries its size may show: from the last one before the lag began.
fn in_force(series: &[SizePoint], at: usize) -> (&[SizePoint], bool) {
    let upto = series.get(..=at).unwrap_or_default();
    let begin = upto.last().map(|point| point.at.minus(LAG));
    let first = upto.iter().rposition(|point| begin.is_some_and(|begin| point.at <= begin));
    (upto.get(first.unwrap_or(0)..).unwrap_or_default(), first.is_some())
}

/// The fewest users that the size at this point should show; 0 while the lag is not over.
fn fewest_delivered(series: &[SizePoint], at: usize) -> u64 {
    let (points, lag_is_over) = in_force(series, at);
    let fewest = points.iter().map(|point| point.delivered).min();
    fewest.filter(|_| lag_is_over).unwrap_or(0)
}

/// The most users that the size at this point may show.
fn most_delivered(series: &[SizePoint], at: usize) -> u64 {
    in_force(series, at).0.iter().map(|point| point.delivered).max().unwrap_or(0)
}

/// The most users that the newest size may show.
pub(crate) fn recently_delivered(series: &[SizePoint]) -> u64 {
    series.len().checked_sub(1).map_or(0, |newest| most_delivered(series, newest))
}

/// The first of the newest points that all are so, if that lasts long enough.
fn lasting(
    series: &[SizePoint],
    settled: &[usize],
    is_so: impl Fn(usize) -> bool,
) -> Option<SizePoint> {
    let stretch: Vec<usize> =
        settled.iter().rev().copied().take_while(|place| is_so(*place)).collect();
    let (last, first) = (series.get(*stretch.first()?)?, series.get(*stretch.last()?)?);
    let lasts = stretch.len() >= LASTS_CHECKS && last.at.since(first.at) >= LASTS;
    lasts.then_some(*first)
}

/// The platform says that nobody is there, where it had people and nobody took them out. No lag explains it.
fn emptied(series: &[SizePoint], settled: &[usize]) -> Option<SizeFinding> {
    let newest = *settled.last()?;
    let now = series.get(newest).filter(|point| point.upper == Some(0))?;
    let earlier = series.get(..newest)?;
    let before = earlier.iter().rposition(|point| point.lower.is_some_and(|lower| lower > 0))?;
    let fewest = series.get(before..=newest)?.iter().map(|point| point.delivered).min()?;
    let then = series.get(before)?;
    (fewest >= SMALLEST_SHOWN).then(|| SizeFinding {
        verdict: Verdict::Failed,
        reason: format!(
            "the platform has nobody, with {} users delivered; at {} it had {}",
            now.delivered,
            then.at,
            then.shown()
        ),
    })
}

/// The platform showed many people once, and shows far fewer since, although they were not taken out.
fn fell(series: &[SizePoint], settled: &[usize]) -> Option<SizeFinding> {
    let peak = settled
        .iter()
        .copied()
        .filter_map(|place| Some((series.get(place)?.known()?, place)))
        .max_by_key(|(lower, place)| (*lower, std::cmp::Reverse(*place)));
    let (lower, peak) = peak?;
    let base = most_delivered(series, peak).max(lower);
    // The share of users that was found then, of those who are delivered now, and no more people than then.
    let expected = |place: usize| {
        let scaled =
            u128::from(fewest_delivered(series, place)) * u128::from(lower) / u128::from(base);
        u64::try_from(scaled).unwrap_or(u64::MAX).min(lower)
    };
    let is_low = |place: usize| {
        let expected = expected(place);
        let shown = series.get(place).map_or(u64::MAX, SizePoint::most_shown);
        place > peak && expected >= 2 * SMALLEST_SHOWN && shown.saturating_mul(2) < expected
    };
    let since = lasting(series, settled, is_low)?;
    let (then, now) = (series.get(peak)?, series.get(*settled.last()?)?);
    Some(SizeFinding {
        verdict: Verdict::Failed,
        reason: format!(
            "the platform has lost people: {} at {} with {} users delivered, {} now with {} delivered; it is \
             so since {}",
            then.shown(),
            then.at,
            then.delivered,
            now.shown(),
            now.delivered,
            since.at
        ),
    })
}

/// Twice as many users were delivered, and the size has not grown.
fn stands_still(series: &[SizePoint], settled: &[usize]) -> Option<SizeFinding> {
    let grown_since = |place: usize| {
        let (fewest, now) = (fewest_delivered(series, place), series.get(place)?);
        settled.iter().copied().take_while(|earlier| *earlier < place).find_map(|earlier| {
            let then = series.get(earlier)?;
            let most = then.upper.or(then.known())?;
            let doubled = most_delivered(series, earlier).saturating_mul(2) <= fewest;
            (then.known().is_some() && doubled && now.most_shown() <= most).then_some(*then)
        })
    };
    lasting(series, settled, |place| grown_since(place).is_some())?;
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

/// So many users were delivered that some must be found, and the platform has never shown a size.
fn never_shown(series: &[SizePoint], settled: &[usize]) -> Option<SizeFinding> {
    let is_unseen = |place: usize| {
        let shown = series.get(place).map_or(u64::MAX, SizePoint::most_shown);
        shown <= SMALLEST_SHOWN && fewest_delivered(series, place) >= SURELY_SHOWN
    };
    if settled
        .iter()
        .any(|place| series.get(*place).is_some_and(|p| p.most_shown() > SMALLEST_SHOWN))
    {
        return None;
    }
    lasting(series, settled, is_unseen)?;
    let now = series.get(*settled.last()?)?;
    Some(SizeFinding {
        verdict: Verdict::Suspect,
        reason: format!(
            "the platform shows {} for {} users that were delivered more than {} hours ago; do their \
             identifiers belong to anybody there?",
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
    fn small_audiences_are_not_judged() {
        for upper in [None, Some(0), Some(1_000)] {
            let blurred = |point: SizePoint| SizePoint { upper, ..point };
            let series: Vec<_> = every_six(0..=300, 900, None).into_iter().map(blurred).collect();
            assert_eq!(evaluate_sizes(&series), None, "{upper:?}");
        }
        // Some are shown just above the smallest size, and later not at all.
        let (seen, unseen) =
            (every_six(0..=60, 3_000, Some(1_200)), every_six(66..=200, 3_000, None));
        assert_eq!(verdict(&[seen, unseen]), None);
    }

    #[test]
    fn a_low_size_soon_after_a_delivery_is_no_fault() {
        let million = 1_000_000;
        for none in [None, Some(0)] {
            let early: Vec<_> = every_six(0..=66, million, none);
            assert_eq!(verdict(std::slice::from_ref(&early)), None);
            let later = every_six(72..=150, million, Some(600_000));
            assert_eq!(verdict(&[early, later]), None);
        }
        // Emptied and filled again: what is shown may be of before.
        let parts = [
            every_six(0..=60, million, Some(600_000)),
            every_six(66..=120, 0, None),
            every_six(126..=170, million, None),
        ];
        assert_eq!(verdict(&parts), None);
    }

    #[test]
    fn a_size_that_follows_is_fine() {
        // A match rate of 60 %, rounded down to two digits, and ten per cent more each day.
        let mut delivered = 5_000;
        let mut series = Vec::new();
        for day in 0..30 {
            let lower = delivered * 6 / 10 / 100 * 100;
            series.extend(every_six(24 * day..=24 * day + 18, delivered, Some(lower)));
            delivered = delivered * 11 / 10;
        }
        assert_eq!(evaluate_sizes(&series), None);
        // Users are taken out, and the size follows a day later.
        let parts = [
            every_six(0..=96, 1_000_000, Some(600_000)),
            every_six(102..=126, 100_000, Some(600_000)),
            every_six(132..=300, 100_000, Some(60_000)),
        ];
        assert_eq!(verdict(&parts), None);
        // Nobody is left, by a removal.
        let parts = [every_six(0..=96, 50_000, Some(30_000)), every_six(102..=300, 0, None)];
        assert_eq!(verdict(&parts), None);
    }

    #[test]
    fn people_that_are_gone_are_a_failure_once_it_lasts() {
        let full = || every_six(0..=96, 1_000_000, Some(600_000));
        for (lower, hours, expected) in [
            (None, 24, None),
            (None, 30, Some(Verdict::Failed)),
            (Some(100_000), 30, Some(Verdict::Failed)),
            // Its share of people may change a little.
            (Some(400_000), 300, None),
        ] {
            let after = every_six(102..=96 + hours, 1_100_000, lower);
            assert_eq!(verdict(&[full(), after]), expected, "{lower:?} {hours}");
        }
        let (low, back) =
            (every_six(102..=200, 1_000_000, None), every_six(206..=210, 1_000_000, Some(590_000)));
        assert_eq!(verdict(&[full(), low.clone()]), Some(Verdict::Failed));
        assert_eq!(verdict(&[full(), low.clone(), back]), None, "they are there again");
        let busy: Vec<_> = low.iter().map(|point| SizePoint { settling: true, ..*point }).collect();
        assert_eq!(verdict(&[full(), busy]), None, "the platform is at work");
        // Two readings are too few, however far apart.
        let two = vec![point(102, 1_000_000, None), point(160, 1_000_000, None)];
        assert_eq!(verdict(&[full(), two]), None);
        let reason = evaluate_sizes(&[full(), low].concat()).unwrap().reason;
        for words in ["600000 to 660000 people", "1000000 users delivered", "no size now"] {
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn an_emptied_audience_is_a_failure_at_once() {
        let full = every_six(0..=12, 5_000, Some(3_000));
        let nobody = vec![point(18, 5_000, Some(0))];
        assert_eq!(verdict(&[full.clone(), nobody]), Some(Verdict::Failed));
        let by_us = vec![point(18, 0, Some(0))];
        assert_eq!(verdict(&[full, by_us]), None);
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
