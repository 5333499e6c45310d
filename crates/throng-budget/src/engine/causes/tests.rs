//! Outcomes past a budget, and the causes that they are attributed to.

use proptest::prelude::*;

use super::*;

const DAY: BudgetDay = BudgetDay(20_000);
const BUDGET: i64 = 100;

/// Seconds of the day.
fn at(secs: i64) -> Timestamp {
    Timestamp((i64::from(DAY.0) * 86_400 + secs) * 1_000_000)
}

fn paid(inserted_at: Option<i64>, (happened, logged): (i64, i64), before: i64, price: i64) -> Paid {
    Paid {
        day: DAY,
        day_end: at(86_400),
        at: at(happened),
        logged_at: at(logged),
        inserted_at: inserted_at.map(at),
        before,
        after: before + price,
        above_price: Some(0),
    }
}

/// Frames every ten seconds from 800 to 1,000 in which the ad group is open, and of 100 all is spent: 80 at 850, and 20
/// at 950, which are logged at 1,000. It is closed at 1,010.
fn closed() -> Causes {
    let mut causes = Causes::default();
    (80..=100).for_each(|n| causes.publish(at(n * 10), true));
    causes.count(&paid(None, (850, 900), 0, 80), BUDGET);
    causes.count(&paid(None, (950, 1_000), 80, 20), BUDGET);
    causes.publish(at(1_010), false);
    causes
}

fn sums(causes: &Causes) -> [i64; 5] {
    let of_day = causes.of_days((DAY, BUDGET)).find(|(day, _)| *day == DAY);
    of_day.map_or([0; 5], |(_, causes)| causes.amounts().map(|amount| amount.0))
}

/// What is attributed of 10 that are given away for an insertion.
fn attributed(mut causes: Causes, inserted_at: Option<i64>) -> [i64; 5] {
    causes.count(&paid(inserted_at, (1_100, 1_110), BUDGET, 10), BUDGET);
    sums(&causes)
}

#[test]
fn the_time_of_the_insertion_decides() {
    let of = |secs| attributed(closed(), Some(secs));
    const UNKNOWN: [i64; 5] = [0; 5];
    assert_eq!(of(799), UNKNOWN, "before the first frame");
    assert_eq!(of(800), [0, 0, 10, 0, 0], "nothing was spent");
    assert_eq!(of(945), [0, 0, 10, 0, 0], "80 were spent");
    assert_eq!(of(959), [0, 0, 10, 0, 0], "in the window in which all was spent");
    assert_eq!(of(960), [10, 0, 0, 0, 0], "after it");
    assert_eq!(of(1_009), [10, 0, 0, 0, 0], "after it and after the last open frame");
    assert_eq!(of(1_010), [0, 10, 0, 0, 0], "it was closed");
    assert_eq!(of(1_080), [0, 10, 0, 0, 0], "70 seconds after the last frame");
    assert_eq!(of(1_081), UNKNOWN, "another replica may have published");
    assert_eq!(attributed(closed(), None), UNKNOWN, "no insertion is known");
}

#[test]
fn insertions_after_the_last_open_frame_are_a_burst() {
    // All is spent after the ad group was closed by what was in flight.
    let mut causes = Causes::default();
    (80..=100).for_each(|n| causes.publish(at(n * 10), true));
    causes.publish(at(1_010), false);
    causes.count(&paid(None, (1_050, 1_050), 0, BUDGET), BUDGET);
    assert_eq!(attributed(causes.clone(), Some(999)), [0, 0, 10, 0, 0]);
    assert_eq!(attributed(causes.clone(), Some(1_000)), [0, 0, 0, 10, 0]);
    assert_eq!(attributed(causes.clone(), Some(1_009)), [0, 0, 0, 10, 0]);
    assert_eq!(attributed(causes, Some(1_010)), [0, 10, 0, 0, 0]);
    // It is not closed yet: the next frame will do that.
    let mut open = Causes::default();
    (80..=100).for_each(|n| open.publish(at(n * 10), true));
    open.count(&paid(None, (1_001, 1_001), 0, BUDGET), BUDGET);
    assert_eq!(attributed(open.clone(), Some(999)), [0, 0, 10, 0, 0]);
    assert_eq!(attributed(open, Some(1_000)), [0, 0, 0, 10, 0]);
}

#[test]
fn an_ad_group_that_opens_again_is_closed_in_between_only() {
    let mut causes = closed();
    causes.publish(at(1_020), true);
    causes.publish(at(1_030), true);
    causes.publish(at(1_040), false);
    assert_eq!(attributed(causes.clone(), Some(1_015)), [0, 10, 0, 0, 0]);
    // It was open although all was spent by then.
    assert_eq!(attributed(causes.clone(), Some(1_025)), [10, 0, 0, 0, 0]);
    assert_eq!(attributed(causes, Some(1_045)), [0, 10, 0, 0, 0]);
}

#[test]
fn without_frames_nothing_is_known() {
    let mut causes = closed();
    causes.publish(at(1_081), false);
    assert_eq!(attributed(causes.clone(), Some(1_009)), [10, 0, 0, 0, 0]);
    assert_eq!(attributed(causes.clone(), Some(1_011)), [0; 5], "71 seconds without a frame");
    assert_eq!(attributed(causes.clone(), Some(1_081)), [0, 10, 0, 0, 0]);
    // They were not published, or gates have ignored them.
    let mut forgotten = causes.clone();
    forgotten.forget_frames();
    assert_eq!(attributed(forgotten.clone(), Some(1_081)), [0; 5]);
    forgotten.publish(at(1_090), false);
    assert_eq!(attributed(forgotten.clone(), Some(1_081)), [0; 5]);
    assert_eq!(attributed(forgotten, Some(1_090)), [0, 10, 0, 0, 0]);
    // The clock is set back.
    causes.publish(at(1_000), false);
    assert_eq!(attributed(causes.clone(), Some(999)), [0; 5]);
    assert_eq!(attributed(causes, Some(1_000)), [0, 10, 0, 0, 0]);
    // When the spend happened is not remembered from before the start.
    let mut started = Causes::default();
    (80..=100).for_each(|n| started.publish(at(n * 10), true));
    started.count(&paid(None, (985, 990), 95, 5), BUDGET);
    started.publish(at(1_010), false);
    assert_eq!(attributed(started.clone(), Some(970)), [0, 0, 10, 0, 0], "5 came later");
    assert_eq!(attributed(started.clone(), Some(995)), [0; 5]);
}

#[test]
fn what_is_above_the_price_of_the_insertion_is_a_cause_of_its_own() {
    let of = |above_price, before| {
        let mut causes = closed();
        let outcome = paid(Some(1_010), (1_100, 1_110), before, 10);
        causes.count(&Paid { above_price, ..outcome }, BUDGET);
        sums(&causes)
    };
    assert_eq!(of(Some(3), BUDGET), [0, 7, 0, 0, 3]);
    assert_eq!(of(Some(30), BUDGET), [0, 0, 0, 0, 10]);
    assert_eq!(of(Some(-3), BUDGET), [0, 10, 0, 0, 0], "it was cheaper");
    assert_eq!(of(None, BUDGET), [0; 5], "what was expected is not known");
    // Of the first one past the budget a part is billable.
    assert_eq!(of(Some(3), BUDGET - 8), [0, 0, 0, 0, 2]);
    assert_eq!(of(Some(1), BUDGET - 8), [0, 1, 0, 0, 1]);
}

#[test]
fn another_budget_has_sums_of_its_own() {
    let mut causes = closed();
    let outcome = |before| paid(Some(1_010), (1_100, 1_110), before, 10);
    causes.count(&outcome(BUDGET), BUDGET);
    assert_eq!(sums(&causes), [0, 10, 0, 0, 0]);
    assert_eq!(causes.of_days((DAY, 200)).count(), 0, "they are past another budget");
    assert_eq!(causes.of_days((BudgetDay(20_001), 200)).count(), 1, "of yesterday they stay");
    causes.count(&outcome(195), 200);
    assert_eq!(causes.budget_of(DAY), Some(200));
    let all: Vec<_> = causes.of_days((DAY, 200)).collect();
    assert_eq!(all[0].1.amounts().map(|amount| amount.0), [0, 5, 0, 0, 0]);
    let again = Causes::load(causes.save()).unwrap();
    assert_eq!(again.of_days((DAY, 200)).collect::<Vec<_>>(), all);
    causes.clear();
    assert_eq!(causes.of_days((DAY, 200)).count(), 0);
}

proptest! {
    /// Never more is attributed than is given away, and all of it where the cause of each outcome is known.
    #[test]
    fn sums_are_exact(
        outcomes in prop::collection::vec((0i64..40, 0i64..2_000, 0i64..3_000, -5i64..5), 1..60),
        closed_at in 0i64..2_000,
    ) {
        let mut causes = Causes::default();
        (0..200).for_each(|n| causes.publish(at(n * 10), n * 10 < closed_at));
        let mut closed = Causes::default();
        (0..200).for_each(|n| closed.publish(at(n * 10), false));
        let mut spent = 0;
        for (price, inserted, delay, above) in outcomes {
            let times = (inserted + delay, inserted + delay + 60);
            let outcome = Paid {
                above_price: Some(above),
                ..paid(Some(inserted), times, spent, price)
            };
            causes.count(&outcome, BUDGET);
            closed.count(&outcome, BUDGET);
            spent += price;
            let given_away = (spent - BUDGET).max(0);
            let known: i64 = sums(&causes).into_iter().sum();
            prop_assert!(known <= given_away, "{} of {}", known, given_away);
            prop_assert!(sums(&causes).iter().all(|sum| *sum >= 0));
            prop_assert_eq!(sums(&closed).into_iter().sum::<i64>(), given_away);
        }
    }
}
