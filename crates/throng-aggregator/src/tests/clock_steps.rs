//! The clock of a process is wrong for a while.

use throng_budget::EventRef;

use super::*;

/// Actual and in-flight spend are those of the real time.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_wrong_and_right_again_changes_no_figure() {
    let fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let insertions = (0..10).map(|id| fixture.event(format!("i{id}"), EventKind::Insertion));
    budgets.accept(insertions.collect()).await.unwrap();
    fixture.impressions(&budgets, 0..3).await;
    let right = (Micros(300_000), Micros(500_000));
    assert_eq!(figures(&budgets).await, right);
    let hour = Duration::from_secs(3_600);
    for jump in [hour, 24 * hour, 49 * hour] {
        let real = fixture.clock.now();
        fixture.clock.step(real.plus(jump));
        assert_eq!(figures(&budgets).await, right, "{jump:?} ahead");
        // Events of the real time are accepted, and duplicates are recognized.
        let known = (0..3).map(|id| Event { at: real, ..fixture.event(id, EventKind::Impression) });
        let answer = budgets.accept(known.collect()).await.unwrap();
        assert_eq!((answer.accepted, answer.duplicates), (0, 3), "{jump:?} ahead");
        budgets.checkpoint().await.unwrap();
        fixture.clock.step(real);
        assert_eq!(figures(&budgets).await, right, "{jump:?} ahead, and right again");
        assert_eq!(fixture.impressions(&budgets, 0..3).await.duplicates, 3);
    }
    fixture.clock.step(fixture.clock.now().minus(hour));
    fixture.clock.step(fixture.clock.now().plus(hour));
    assert_eq!(figures(&budgets).await, right);
    // Time that passes closes windows.
    fixture.clock.advance(hour);
    assert_eq!(figures(&budgets).await, (Micros(300_000), Micros(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_behind_the_log_at_the_start_is_a_problem_until_it_is_right() {
    let hour = Duration::from_secs(3_600);
    let fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    fixture.impressions(&budgets, 0..3).await;
    crash(budgets).await;
    let right = fixture.clock.now();
    // Less than what events may be ahead.
    fixture.clock.step(right.minus(Duration::from_secs(240)));
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    assert!(fixture.health.kinds().is_empty());
    crash(budgets).await;

    fixture.clock.step(right.minus(hour));
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    assert_eq!(fixture.health.kinds(), [ProblemKind::Clock]);
    // As a decision of this process records it.
    budgets.accept(vec![fixture.event("i1", EventKind::Insertion)]).await.unwrap();
    budgets.recheck_clock();
    assert_eq!(fixture.health.kinds(), [ProblemKind::Clock]);
    // Ad servers have the time of this clock: the one by which the log was written was wrong.
    fixture.impressions(&budgets, 10..11).await;
    assert!(fixture.health.kinds().is_empty());
    crash(budgets).await;

    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    assert_eq!(fixture.health.kinds(), [ProblemKind::Clock]);
    // Set right, and a step forward is accepted after ten minutes.
    fixture.clock.step(right);
    budgets.recheck_clock();
    assert_eq!(fixture.health.kinds(), [ProblemKind::Clock]);
    fixture.clock.advance(Duration::from_secs(600));
    budgets.recheck_clock();
    assert!(fixture.health.kinds().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_checked_and_not_accepted_do_not_confirm_a_step_of_the_clock() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let real = fixture.clock.now();
    fixture.clock.step(real.plus(Duration::from_secs(3_600)));
    let event = fixture.event("a", EventKind::Impression);
    let check = || budgets.check(1, &mut std::iter::once((1, EventRef::from(&event))));
    // As of a body whose end is damaged.
    drop(check());
    let minute = Duration::from_secs(60);
    fixture.clock.advance(minute);
    assert_eq!(budgets.now(), real.plus(minute));
    let accept = budgets.accept_checked(check(), |_, _| std::future::ready(false));
    assert_eq!(accept.await.unwrap().accepted, 1);
    assert_eq!(budgets.now(), fixture.clock.now());
}
