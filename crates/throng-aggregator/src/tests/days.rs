//! Budget days on their way to the ledger.

use super::*;
use crate::budget_days::WrittenDays;
use throng_model::{BudgetDay, Currency};
use throng_store::PredictedSpend;

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
    let reason = || budgets.states()[0].reason.clone();
    assert!(reason().starts_with("not current: its partition has failed"), "{}", reason());
    budgets.restart_failed().await;
    assert!(!reason().contains("not current"), "{}", reason());
    fixture.impressions(&budgets, 3..4).await;
    assert_eq!(today(), [Micros(400_000)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_a_partition_without_a_frame_is_not_current() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let keyframe = budgets.led.load_full()[0].keyframe();
    budgets.set_assignment(&[]).await.unwrap();
    let state = || {
        let states = budgets.states();
        (states[0].is_known, states[0].open, states[0].reason.clone())
    };
    // Not "0 spent" and open, of which nothing is known.
    let unknown = "not current: there is no frame of its partition yet";
    assert_eq!(state(), (false, false, unknown.to_owned()));
    assert!(budgets.feed_state.apply(&keyframe).is_newest());
    let nothing = "0.00 spent and 0.00 in flight leave room in 10.00 USD";
    assert_eq!(state(), (true, true, nothing.to_owned()));
}

/// Also what it has spent since the last write: nobody has its figures later.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_days_of_a_removed_ad_group_are_written() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let mut written = WrittenDays::default();
    fixture.impressions(&budgets, 0..3).await;
    assert_eq!(budgets.budget_days(&mut written).today[0].actual, Micros(300_000));
    fixture.impressions(&budgets, 3..5).await;
    let mut without = spec();
    without.ad_groups.clear();
    budgets.apply_spec(&without, &[], 2);
    assert!(budgets.has_removed_days());
    let spent = |written: &mut WrittenDays| -> Vec<(AdGroupName, Micros, Micros)> {
        let rows = budgets.budget_days(written);
        assert!(rows.today.is_empty());
        let spent = rows.earlier.into_iter().filter(|row| row.actual != Micros::ZERO);
        spent.map(|row| (row.ad_group, row.budget, row.actual)).collect()
    };
    let shoes = AdGroupName::new("shoes").unwrap();
    let expected = [(shoes.clone(), Micros(10_000_000), Micros(500_000))];
    assert_eq!(spent(&mut written), expected);
    assert!(!budgets.has_removed_days());
    assert!(spent(&mut written).is_empty(), "they are written");
    // The write has failed.
    written.clear();
    assert_eq!(spent(&mut written), expected);

    // It is added again: its rows are those that are counted.
    budgets.apply_spec(&spec(), &[(shoes, AdGroupIndex(0))], 3);
    // Gates get its spend with the first frame.
    let frame = budgets.feed_state.keyframe(0).unwrap();
    assert_eq!((frame.catalog_version, frame.entries[0].actual), (3, Micros(500_000)));
    fixture.impressions(&budgets, 5..6).await;
    written.clear();
    let rows = budgets.budget_days(&mut written);
    assert_eq!(rows.today[0].actual, Micros(600_000));
    assert_eq!(rows.today[0].currency, Some("USD".parse().unwrap()));
    assert!(rows.earlier.iter().all(|row| row.actual == Micros::ZERO));
}

/// Also that of the day that was the current one, which is tomorrow by the other zone.
#[tokio::test(flavor = "multi_thread")]
async fn the_sum_of_the_days_is_the_spend_after_another_time_zone() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let shoes = [(AdGroupName::new("shoes").unwrap(), AdGroupIndex(0))];
    let (mut written, mut stored) = (WrittenDays::default(), BTreeMap::new());
    let mut write = || -> Vec<Micros> {
        let rows = budgets.budget_days(&mut written);
        let today = rows.today[0].day;
        let rows = rows.today.into_iter().chain(rows.earlier);
        stored.extend(rows.map(|row| (row.day, (row.actual, row.prediction))));
        // Nothing is predicted of days to come: what they had is of other days.
        for (day, (_, prediction)) in stored.range(BudgetDay(today.0 + 1)..) {
            assert_eq!(*prediction, Some(PredictedSpend::default()), "{day}");
        }
        let spent = stored.values().map(|(actual, _)| *actual);
        spent.filter(|actual| *actual != Micros::ZERO).collect()
    };
    for (version, zone) in [(2, "Asia/Tokyo"), (3, "America/New_York"), (4, "Asia/Tokyo")] {
        let mut changed = spec();
        changed.advertisers[0].time_zone = zone.parse().unwrap();
        budgets.apply_spec(&changed, &shoes, version);
        write();
        if version == 2 {
            // Tomorrow in Tokyo.
            fixture.clock.advance(Duration::from_secs(4 * 3_600));
            fixture.impressions(&budgets, 0..3).await;
        }
        assert_eq!(write(), [Micros(300_000)], "{zone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spend_of_an_ad_group_that_is_added_again_in_another_currency_is_of_another_row() {
    let (fixture, dir) = (Fixture::new(), tempfile::tempdir().unwrap());
    let budgets = fixture.open(dir.path(), &[]).await.unwrap();
    let shoes = [(AdGroupName::new("shoes").unwrap(), AdGroupIndex(0))];
    let mut written = WrittenDays::default();
    fixture.impressions(&budgets, 0..3).await;
    let mut rows = || -> Vec<(Micros, Option<Currency>)> {
        let rows = budgets.budget_days(&mut written);
        let rows = rows.today.into_iter().chain(rows.earlier);
        let rows = rows.filter(|row| row.actual != Micros::ZERO);
        rows.map(|row| (row.actual, row.currency)).collect()
    };
    let (usd, eur): (Option<Currency>, Option<Currency>) =
        (Some("USD".parse().unwrap()), Some("EUR".parse().unwrap()));
    assert_eq!(rows(), [(Micros(300_000), usd)]);
    let mut changed = spec();
    changed.ad_groups.clear();
    budgets.apply_spec(&changed, &[], 2);
    rows();
    let mut euros = spec();
    euros.advertisers[0].currency = "EUR".parse().unwrap();
    budgets.apply_spec(&euros, &shoes, 3);
    fixture.impressions(&budgets, 3..4).await;
    // Nothing is written of the row in dollars, which stays.
    assert_eq!(rows(), [(Micros(100_000), eur)]);
    // Also what it had spent since the last write: nobody has its figures later.
    fixture.impressions(&budgets, 4..6).await;
    budgets.apply_spec(&changed, &[], 4);
    budgets.apply_spec(&spec(), &shoes, 5);
    assert_eq!(rows(), [(Micros(300_000), usd), (Micros(300_000), eur)]);
    budgets.apply_spec(&changed, &[], 6);
    budgets.apply_spec(&euros, &shoes, 7);
    assert_eq!(rows(), [(Micros(300_000), eur), (Micros(300_000), usd)]);
    // Here its amounts are continued: they are those of dollars from now on.
    budgets.apply_spec(&spec(), &shoes, 8);
    assert_eq!(rows(), [(Micros(600_000), usd)]);
}
