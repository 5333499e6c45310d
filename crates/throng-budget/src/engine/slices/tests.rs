//! Which files there are, what checkpoints have besides them, and damaged files.

use std::time::Duration;

use throng_model::{AdGroupIndex, AdGroupName, Micros, Pacing, TimeZoneName};

use super::super::spend::SLICE_SECS;
use super::super::{CheckpointFiles, LogPosition, REMOVED_RETENTION};
use super::*;
use crate::{AdGroupConfig, BilledEvent};

/// Midnight of UTC.
const START: Timestamp = Timestamp(1_767_225_600_000_000);
const FIRST_DAY: i64 = START.0 / DAY_MICROS;

fn config(index: u32, name: &str) -> AdGroupConfig {
    AdGroupConfig {
        index: AdGroupIndex(index),
        name: AdGroupName::new(name).unwrap(),
        campaign: "all".parse().unwrap(),
        billed: BilledEvent::Impression,
        price: Micros(130_001),
        price_nanos: 0,
        impression_rate: 0.9,
        action_rate: 1.0,
        horizon: Duration::from_secs(180),
        daily_budget: Micros(10_000_000),
        prediction: true,
        currency: "USD".parse().unwrap(),
        zone: TimeZoneName::utc(),
        once_per_insertion: true,
        pacing: Pacing::Asap,
        learns_rates: false,
    }
}

fn configs() -> Vec<AdGroupConfig> {
    vec![config(0, "red"), config(1, "blue")]
}

fn engine() -> Engine {
    Engine::new(3, 1, 1, configs())
}

fn at(day: u64, slice: u64) -> Timestamp {
    START.plus(Duration::from_secs(24 * 3600 * day + SLICE_SECS as u64 * slice))
}

fn spend(engine: &mut Engine, account: usize, at: Timestamp, micros: i64) {
    engine.accounts[account].spend.add(at, Amount { micros, nanos: 0 }).unwrap();
}

/// Packs closed slices, and stores and removes files as a process does.
fn pack(engine: &mut Engine, stored: &mut HashMap<String, SliceFile>, now: Timestamp) {
    engine.pack_closed_slices(now);
    for (name, content) in engine.unsaved_slice_files() {
        let file = SliceFile::read(&content).unwrap();
        assert_eq!(file.name(), name);
        assert!(engine.slice_file_saved(&name));
        stored.insert(name, file);
    }
    for name in engine.take_dropped_slice_files() {
        assert!(stored.remove(&name).is_some(), "it was written");
    }
}

fn restored(
    bytes: &[u8],
    stored: &HashMap<String, SliceFile>,
) -> Result<Engine, InvalidCheckpoint> {
    let files = CheckpointFiles { slices: stored.clone(), ..CheckpointFiles::default() };
    Engine::restore(bytes, 3, 1, 1, configs(), START, &files).map(|(engine, _)| engine)
}

/// The engine from a checkpoint and its files, which is equal.
fn restarted(engine: &Engine, stored: &HashMap<String, SliceFile>) -> Engine {
    let restarted = restored(&engine.checkpoint(0), stored).unwrap();
    for (ours, its) in engine.accounts.iter().zip(&restarted.accounts) {
        assert_eq!(ours.spend, its.spend);
    }
    assert_eq!(restarted.slice_file_names(), engine.slice_file_names());
    restarted
}

fn one(day: i64) -> DayRange {
    DayRange { first: day, last: day }
}

fn counts(days: &[(i64, u64, u64)]) -> BTreeMap<i64, SliceCount> {
    let count = |(day, in_file, outside): &(i64, u64, u64)| {
        (*day, SliceCount { in_file: *in_file, outside: *outside })
    };
    days.iter().map(count).collect()
}

#[test]
fn a_closed_day_gets_a_file_and_another_one_when_much_of_it_changed() {
    assert_eq!(plan(&[], &counts(&[(1, 0, 4), (3, 0, 9)]), 3), [(one(1), false)]);
    assert_eq!(plan(&[one(1)], &counts(&[(1, 16, 2), (3, 0, 9)]), 3), [(one(1), true)]);
    assert_eq!(plan(&[one(1)], &counts(&[(1, 16, 3)]), 3), [(one(1), false)]);
    // A clock that was set back.
    assert_eq!(plan(&[one(1)], &counts(&[(1, 1, 9)]), 1), [(one(1), true)]);
    // Its slices are folded.
    assert_eq!(plan(&[one(1)], &counts(&[(2, 0, 1)]), 3), [(one(2), false)]);
    // A day between those of a file is a change of it.
    let five = DayRange { first: 1, last: 5 };
    assert_eq!(plan(&[five], &counts(&[(1, 8, 0), (3, 0, 1)]), 9), [(five, true)]);
    assert_eq!(first_open_day(START), FIRST_DAY - 1);
    assert_eq!(first_open_day(at(0, 8)), FIRST_DAY);
}

#[test]
fn the_oldest_files_are_merged() {
    let files: Vec<DayRange> = (1..=10).map(one).collect();
    let mut days: Vec<(i64, u64, u64)> = (1..=10).map(|day| (day, 1, 0)).collect();
    let as_they_are: Vec<(DayRange, bool)> = files.iter().map(|days| (*days, true)).collect();
    assert_eq!(plan(&files, &counts(&days), 12), as_they_are);
    days.push((11, 0, 1));
    let planned = plan(&files, &counts(&days), 12);
    assert_eq!(planned.len(), MAX_FILES);
    assert_eq!(planned[..2], [(DayRange { first: 1, last: 2 }, false), (one(3), true)]);
    assert_eq!(planned[9], (one(11), false));
    // All days of an old checkpoint at once.
    let days: Vec<(i64, u64, u64)> = (0..500).map(|day| (day, 0, 1)).collect();
    let planned = plan(&[], &counts(&days), 500);
    assert_eq!(planned.len(), MAX_FILES);
    assert_eq!(planned[0], (DayRange { first: 0, last: 490 }, false));
}

#[test]
fn a_checkpoint_does_not_grow_with_closed_days() {
    let (mut engine, mut stored) = (engine(), HashMap::new());
    let mut lengths = Vec::new();
    for day in 0..9 {
        for slice in 0..96 {
            for account in 0..2 {
                spend(&mut engine, account, at(day, slice), 1_234_567);
            }
            if slice == 48 {
                pack(&mut engine, &mut stored, at(day, slice));
                assert_eq!(engine.accounts[1].spend.outside_files().count(), 49);
                lengths.push(restarted(&engine, &stored).checkpoint(0).len());
            }
        }
    }
    for (day, length) in lengths.iter().enumerate() {
        // The name of a file for each day.
        assert!(*length <= lengths[0] + 64 * day, "{lengths:?}");
    }
    engine.detach_slice_files();
    let whole = engine.checkpoint(0).len();
    assert!(whole > lengths[8] + 2 * 8 * 96 * 4, "{whole} with all slices, {lengths:?}");
}

#[test]
fn files_follow_changes_folding_and_sparse_spend() {
    let (mut engine, mut stored) = (engine(), HashMap::new());
    for day in 0..40 {
        spend(&mut engine, 0, at(day, 5), 1);
        for slice in 0..96 {
            spend(&mut engine, 1, at(day, slice), 10);
        }
        // Late by many days.
        spend(&mut engine, 0, at(day / 2, 7), 3);
        pack(&mut engine, &mut stored, at(day, 95));
        assert!(stored.len() <= MAX_FILES, "{}", stored.len());
        engine = restarted(&engine, &stored);
    }
    let blue = engine.accounts[1].spend.clone();
    assert_eq!((blue.slices().count(), blue.folded().micros), (864, 10 * (40 * 96 - 864)));
    let red: i64 = engine.accounts[0].spend.slices().map(|(_, amount)| amount.micros).sum();
    assert_eq!(red, 40 * 4);
    assert_eq!(stored.len(), MAX_FILES);
}

#[test]
fn an_ad_group_has_no_spend_of_an_earlier_one_with_its_name() {
    let (mut engine, mut stored) = (engine(), HashMap::new());
    let (red, blue) = (0, 1);
    spend(&mut engine, red, at(5, 3), 100);
    spend(&mut engine, blue, at(5, 3), 100);
    pack(&mut engine, &mut stored, at(6, 20));
    engine.configure(2, vec![config(1, "blue")], at(6, 20));
    engine = restored_without_red(&engine, &stored);
    let later = at(6, 20).plus(2 * REMOVED_RETENTION);
    engine.close(later);
    engine.configure(3, configs(), later);
    spend(&mut engine, red, at(4, 3), 7);
    let name = AdGroupName::new("red").unwrap();
    let read = restored(&engine.checkpoint(0), &stored).unwrap();
    for engine in [&engine, &read] {
        assert_eq!(engine.slices(&name), Some(vec![(at(4, 3), Micros(7))]));
    }
    pack(&mut engine, &mut stored, later);
    let read = restored(&engine.checkpoint(0), &stored).unwrap();
    assert_eq!(read.slices(&name), Some(vec![(at(4, 3), Micros(7))]));
}

/// As [`again`], with `red` removed; it has its spend when it is configured.
fn restored_without_red(engine: &Engine, stored: &HashMap<String, SliceFile>) -> Engine {
    let name = AdGroupName::new("red").unwrap();
    let with = restored(&engine.checkpoint(0), stored).unwrap();
    assert_eq!(with.slices(&name), Some(vec![(at(5, 3), Micros(100))]));
    let files = CheckpointFiles { slices: stored.clone(), ..CheckpointFiles::default() };
    let blue = vec![config(1, "blue")];
    let (without, _) =
        Engine::restore(&engine.checkpoint(0), 3, 1, 1, blue, START, &files).unwrap();
    assert_eq!(without.removed[&name].spend, engine.removed[&name].spend);
    without
}

#[test]
fn a_file_that_is_missing_or_another_one_is_an_error() {
    let mut engine = engine();
    spend(&mut engine, 0, at(0, 3), 100);
    spend(&mut engine, 1, at(1, 3), 200);
    // Its contents are in the checkpoint until it is written.
    engine.pack_closed_slices(at(1, 8));
    let unsaved = engine.checkpoint(0);
    restarted(&engine, &HashMap::new());
    assert_eq!(Engine::named_files(&unsaved).unwrap().slices, Vec::<String>::new());
    let mut stored = HashMap::new();
    pack(&mut engine, &mut stored, at(1, 8));
    let bytes = engine.checkpoint(0);
    let name = engine.slice_file_names().remove(0);
    assert_eq!(Engine::named_files(&bytes).unwrap().slices, std::slice::from_ref(&name));
    let missing = restored(&bytes, &HashMap::new()).map(drop);
    assert_eq!(missing, Err(InvalidCheckpoint::MissingSlices(name.clone())));
    assert_eq!(
        Engine::checkpoint_position(&bytes, 3),
        Ok(LogPosition::from(0)),
        "it needs no file"
    );
    let figures = Engine::restore_figures(&bytes, 3, configs(), START, &HashMap::new());
    assert_eq!(figures.map(drop), Err(InvalidCheckpoint::MissingSlices(name.clone())));

    // The file of another day.
    let mut other = HashMap::new();
    pack(&mut engine, &mut other, at(2, 8));
    let other = other.into_values().next().unwrap();
    let swapped = HashMap::from([(name, other)]);
    assert!(matches!(restored(&bytes, &swapped), Err(InvalidCheckpoint::Damaged(_))));
}

#[test]
fn damage_of_a_file_is_an_error() {
    let mut engine = engine();
    spend(&mut engine, 0, at(0, 3), 100);
    spend(&mut engine, 1, at(0, 4), 200);
    engine.pack_closed_slices(at(1, 8));
    let (name, content) = engine.unsaved_slice_files().remove(0);
    let file = SliceFile::read(&content).unwrap();
    assert_eq!(file.name(), name);
    let of = |ad_group| file.of(ad_group).collect::<Vec<_>>();
    let slice = |number, micros| (FIRST_DAY * SLICES_PER_DAY + number, Amount { micros, nanos: 0 });
    assert_eq!(
        [of("red"), of("blue"), of("green")],
        [vec![slice(3, 100)], vec![slice(4, 200)], vec![]]
    );
    for place in 0..content.len() {
        assert!(SliceFile::read(&content[..place]).is_err(), "cut at {place}");
        let mut bad = content.to_vec();
        bad[place] ^= 4;
        assert!(SliceFile::read(&bad).is_err(), "changed at {place}");
    }
}
