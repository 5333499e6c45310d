//! Checkpoints of earlier versions, byte by byte as they were written.

use std::time::Duration;

use throng_budget::{
    AdGroupConfig, BilledEvent, CheckpointFiles, Engine, Event, EventEffect, EventKind, EventMoney,
    LogPosition, NamedFiles, SLICE_SECS,
};
use throng_model::{AdGroupIndex, AdGroupName, BudgetDay, Micros, Pacing, TimeZoneName, Timestamp};

const START: Timestamp = Timestamp(1_767_225_600_000_000);
/// All slices are in it. It has an ad group, `red`, and one that had been removed a day before, `blue`.
const FORMAT_3: &[u8] = include_bytes!("checkpoint-format-3.bin");

fn name(name: &str) -> AdGroupName {
    AdGroupName::new(name).expect("a name")
}

fn config(index: u32, ad_group: &str, price: Micros, price_nanos: u16) -> AdGroupConfig {
    AdGroupConfig {
        index: AdGroupIndex(index),
        name: name(ad_group),
        campaign: "all".parse().expect("a name"),
        billed: BilledEvent::Impression,
        price,
        price_nanos,
        impression_rate: 0.9,
        action_rate: 1.0,
        horizon: Duration::from_secs(180),
        daily_budget: Micros(10_000_000),
        prediction: true,
        currency: "USD".parse().expect("a currency"),
        zone: TimeZoneName::utc(),
        once_per_insertion: true,
        pacing: Pacing::Asap,
        learns_rates: false,
    }
}

fn red() -> AdGroupConfig {
    config(0, "red", Micros(130_002), 3)
}

fn blue() -> AdGroupConfig {
    config(1, "blue", Micros(130_001), 0)
}

/// A slice, counted from the beginning of the day.
fn slice(number: i64, micros: i64) -> (Timestamp, Micros) {
    (Timestamp(START.0 + number * SLICE_SECS * 1_000_000), Micros(micros))
}

/// What an engine that was restored from [`FORMAT_3`] must have.
fn check(engine: &mut Engine) {
    let slices = [
        slice(-3 * 96 + 5, 1_000_000),
        slice(-96, 20_001),
        slice(-1, 300),
        slice(0, 4_000_000_001),
        slice(3, 5),
    ];
    assert_eq!(engine.slices(&name("red")), Some(slices.to_vec()));
    let state = &engine.states(START)[0];
    assert_eq!((state.actual, state.in_flight), (Micros(4_000_000_006), Micros(117_001)));
    let today = BudgetDay::of(START, &TimeZoneName::utc().rules()).0;
    let days = engine.days(&name("red"), START).expect("it is there");
    let spent: Vec<(i32, i64)> = days
        .into_iter()
        .filter(|(_, actual)| actual.0 > 0)
        .map(|(day, actual)| (day.0 - today, actual.0))
        .collect();
    assert_eq!(spent, [(-3, 1_000_000), (-1, 20_301), (0, 4_000_000_006)]);
    let known = Event {
        id: "e1".to_owned(),
        kind: EventKind::Impression,
        ad_group: name("red"),
        insertion_id: None,
        at: START,
        inserted_at: None,
        money: EventMoney::NONE,
        placement: None,
    };
    assert_eq!(engine.apply(&known, START), Ok(EventEffect::Duplicate));
    assert_eq!(engine.slices(&name("blue")), None);
    let mut with_blue = engine.clone();
    with_blue.configure(2, vec![red(), blue()], START);
    assert_eq!(with_blue.slices(&name("blue")), Some(vec![slice(-2 * 96, 42)]));
}

#[test]
fn a_checkpoint_of_format_3_opens_and_its_slices_go_to_files() {
    assert_eq!(Engine::named_files(FORMAT_3), Ok(NamedFiles::default()));
    let none = CheckpointFiles::default();
    let restored = Engine::restore(FORMAT_3, 3, 1, 1, vec![red()], START, &none);
    let (mut engine, position) = restored.expect("restored");
    assert_eq!(position, LogPosition { next_offset: 9, last_record: Some(0xdead) });
    check(&mut engine);

    engine.pack_closed_slices(START);
    let whole = engine.checkpoint(position);
    let unsaved = engine.unsaved_slice_files();
    // Yesterday is not closed yet, so its slices and those of today are in the checkpoint.
    assert_eq!(unsaved.len(), 2, "two days have spend");
    let mut files = CheckpointFiles::default();
    for (name, content) in unsaved {
        let file = throng_budget::SliceFile::read(&content).expect("a whole file");
        files.slices.insert(name.clone(), file);
        assert!(engine.slice_file_saved(&name));
    }
    let named = engine.checkpoint(position);
    assert!(named.len() < whole.len(), "{} bytes, {} before", named.len(), whole.len());
    for (bytes, files) in [(whole, &none), (named, &files)] {
        let restored = Engine::restore(&bytes, 3, 1, 1, vec![red()], START, files);
        let (mut engine, again) = restored.expect("restored");
        assert_eq!(again, position);
        check(&mut engine);
    }
}
