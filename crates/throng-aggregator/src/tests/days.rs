//! Budget days on their way to the ledger.

use super::*;
use crate::budget_days::WrittenDays;

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_a_failed_partition_are_not_written() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let mut written = WrittenDays::default();
    fixture.impressions(&budgets, 0..3).await;
    let mut today = || -> Vec<Micros> {
        budgets.budget_days(&mut written).today.iter().map(|row| row.actual).collect()
    };
    assert_eq!(today(), [Micros(300_000)]);
    budgets.accept(vec![fixture.event(POISON, EventKind::Impression)]).await.unwrap();
    assert_eq!(today(), []);
    budgets.restart_failed().await;
    fixture.impressions(&budgets, 3..4).await;
    assert_eq!(today(), [Micros(400_000)]);
}
