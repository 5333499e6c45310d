//! The clock of a process is wrong for a while.

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
