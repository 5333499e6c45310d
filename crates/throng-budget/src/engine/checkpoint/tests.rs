//! Checkpoints of other formats.

use throng_rates::Pooled;
use xxhash_rust::xxh3::xxh3_128;

use super::super::dedupe::legacy_id_of;
use super::*;
use crate::{BilledEvent, Event, EventKind, EventMoney};

fn insert(engine: &mut Engine, id: &str) -> bool {
    engine.seen.insert(legacy_id_of(id.as_bytes()), Timestamp(2), Timestamp(2))
}

/// The next format keeps magic, the number of its format and the checksum; everything else may
/// have another type.
#[test]
fn a_state_of_a_newer_version_is_refused_by_its_format() {
    #[derive(Clone, PartialEq, Message)]
    struct Next {
        #[prost(uint32, tag = "1")]
        format: u32,
        #[prost(string, tag = "2")]
        partition: String,
    }
    let next = Next { format: FORMAT + 1, partition: "three".to_owned() };
    let mut bytes = MAGIC.to_vec();
    bytes.extend(next.encode_to_vec());
    append_checksum(&mut bytes);
    let newer = InvalidCheckpoint::Newer(FORMAT + 1);
    assert_eq!(Engine::named_files(&bytes).err(), Some(newer.clone()));
    let restored = Engine::restore_figures(&bytes, 3, Vec::new(), Timestamp(1), &HashMap::new());
    assert_eq!(restored.err(), Some(newer));
}

#[test]
fn ids_of_the_first_format_are_remembered() {
    let ids = |names: &[&str]| -> Vec<u8> {
        names.iter().flat_map(|name| xxh3_128(name.as_bytes()).to_le_bytes()).collect()
    };
    let none = Some(save_pooled(&Pooled::default()));
    let message = wire::Checkpoint {
        format: LONG_IDS,
        partition: 3,
        next_offset: 9,
        recent_ids: ids(&["a", "b"]),
        old_ids: ids(&["c"]),
        generation_began: 1,
        impressions: none.clone(),
        clicks: none,
        ..wire::Checkpoint::default()
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend(message.encode_to_vec());
    append_checksum(&mut bytes);
    let (mut engine, offset) =
        Engine::restore(&bytes, 3, 1, 1, Vec::new(), Timestamp(1), &CheckpointFiles::default())
            .unwrap();
    assert_eq!(offset, LogPosition::from(9));
    let new = ["a", "b", "c", "d"].map(|id| insert(&mut engine, id));
    assert_eq!(new, [false, false, false, true]);
    // Written again, they have the newest format.
    let (mut engine, _) = Engine::restore(
        &engine.checkpoint(10),
        3,
        1,
        1,
        Vec::new(),
        Timestamp(1),
        &CheckpointFiles::default(),
    )
    .unwrap();
    assert!(["a", "c", "d"].iter().all(|id| !insert(&mut engine, id)));
}

const START: Timestamp = Timestamp(1_767_225_600_000_000);

fn red() -> AdGroupConfig {
    AdGroupConfig {
        index: AdGroupIndex(0),
        name: "red".parse().unwrap(),
        campaign: "all".parse().unwrap(),
        billed: BilledEvent::Impression,
        price: Micros(100_000),
        price_nanos: 0,
        impression_rate: 0.5,
        action_rate: 1.0,
        horizon: Duration::from_secs(180),
        daily_budget: Micros(10_000_000),
        prediction: true,
        currency: "USD".parse().unwrap(),
        zone: throng_model::TimeZoneName::utc(),
        once_per_insertion: true,
        pacing: throng_model::Pacing::Asap,
        learns_rates: false,
    }
}

fn red_event(kind: EventKind, insertion: &str) -> Event {
    Event {
        id: format!("{kind:?}-{insertion}"),
        kind,
        ad_group: "red".parse().unwrap(),
        insertion_id: Some(insertion.to_owned()),
        at: START,
        inserted_at: (kind != EventKind::Insertion).then_some(START),
        money: EventMoney::NONE,
        placement: None,
    }
}

/// As format 4 has it: windows with their total, what may be named of it, and what has an outcome.
fn as_format_4(bytes: &[u8], configured: bool) -> Vec<u8> {
    let mut message = decode(bytes).unwrap();
    message.format = SETTLED_PARTS;
    (message.open, message.open_block) = (Vec::new(), None);
    let red = &mut message.ad_groups[0];
    red.settles = red.settled_outcomes > 0;
    (red.settled_outcomes, red.other_outcomes) = (0, 0);
    red.removed_since = (!configured).then_some(START.0);
    let window = &mut red.windows[0];
    window.weighted = None;
    // Four insertions of 50,000, of which three have an id and one has an outcome.
    (window.expected, window.linked, window.settled) = (200_000, 150_000, 50_000);
    let mut bytes = MAGIC.to_vec();
    bytes.extend(message.encode_to_vec());
    append_checksum(&mut bytes);
    bytes
}

#[test]
fn outcomes_settle_insertions_of_format_4_by_their_windows() {
    let mut engine = Engine::new(3, 1, 1, vec![red()]);
    for insertion in ["a", "b", "c"] {
        engine.apply(&red_event(EventKind::Insertion, insertion), START).unwrap();
    }
    let unnamed = Event { insertion_id: None, ..red_event(EventKind::Insertion, "d") };
    engine.apply(&unnamed, START).unwrap();
    engine.apply(&red_event(EventKind::Impression, "a"), START).unwrap();
    let in_flight = |engine: &Engine| engine.states(START)[0].in_flight.0;
    assert_eq!(in_flight(&engine), 150_000);
    let bytes = engine.checkpoint(0);
    for configured in [true, false] {
        let old = as_format_4(&bytes, configured);
        let files = CheckpointFiles::default();
        let configs = if configured { vec![red()] } else { Vec::new() };
        let (mut old, _) = Engine::restore(&old, 3, 1, 1, configs, START, &files).unwrap();
        if !configured {
            // Also through a checkpoint of this version.
            let again = old.checkpoint(0);
            (old, _) = Engine::restore(&again, 3, 1, 1, vec![red()], START, &files).unwrap();
        }
        assert_eq!((in_flight(&old), old.open_insertions()), (150_000, 0));
        assert_eq!(old.accounts[0].windows, {
            let mut windows = engine.accounts[0].windows.clone();
            windows.entry(START.0 / 10_000_000).earlier = 100_000;
            windows
        });
        let again = red_event(EventKind::Impression, "a");
        assert_eq!(old.apply(&again, START), Ok(crate::EventEffect::Duplicate));
        old.apply(&red_event(EventKind::Impression, "b"), START).unwrap();
        assert_eq!(in_flight(&old), 100_000);
        // A new insertion is open, and is settled by itself.
        old.apply(&red_event(EventKind::Insertion, "e"), START).unwrap();
        assert_eq!((in_flight(&old), old.open_insertions()), (150_000, 1));
        let impression = Event { inserted_at: None, ..red_event(EventKind::Impression, "e") };
        old.apply(&impression, START).unwrap();
        old.apply(&red_event(EventKind::Impression, "c"), START).unwrap();
        assert_eq!((in_flight(&old), old.open_insertions()), (50_000, 0));
        // Nothing that can be named is left.
        old.apply(&red_event(EventKind::Impression, "x"), START).unwrap();
        assert_eq!(in_flight(&old), 50_000);
    }
}

/// As format 5 has it: open insertions end with their price, and no rate is learned apart.
#[test]
fn a_checkpoint_of_format_5_has_the_same_figures() {
    let mut engine = Engine::new(3, 1, 1, vec![red()]);
    let priced = Event {
        money: EventMoney::NONE.with_price_nanos(300_000_000),
        ..red_event(EventKind::Insertion, "a")
    };
    engine.apply(&priced, START).unwrap();
    let mut message = decode(&engine.checkpoint(7)).unwrap();
    message.format = ONE_RATE;
    assert_eq!(message.open.pop(), Some(0), "it has no placement");
    message.placements_block = None;
    message.ad_groups[0].declared_impressions = None;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(message.encode_to_vec());
    append_checksum(&mut bytes);
    let files = CheckpointFiles::default();
    let (mut old, position) = Engine::restore(&bytes, 3, 1, 1, vec![red()], START, &files).unwrap();
    assert_eq!((position, old.open_insertions()), (LogPosition::from(7), 1));
    assert_eq!(old.states(START), engine.states(START));
    for engine in [&mut engine, &mut old] {
        let seen = Event { inserted_at: None, ..red_event(EventKind::Impression, "a") };
        engine.apply(&seen, START).unwrap();
        let state = &engine.states(START)[0];
        assert_eq!((state.actual.0, state.in_flight.0), (300_000, 0));
    }
}

#[test]
fn placements_that_are_damaged_are_refused() {
    let mut engine = Engine::new(3, 1, 1, vec![red()]);
    let placed =
        Event { placement: Some("home".to_owned()), ..red_event(EventKind::Insertion, "a") };
    engine.apply(&placed, START).unwrap();
    let whole = decode(&engine.checkpoint(0)).unwrap();
    let restored = |change: fn(&mut wire::Checkpoint)| {
        let mut message = whole.clone();
        change(&mut message);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(message.encode_to_vec());
        append_checksum(&mut bytes);
        let files = CheckpointFiles::default();
        Engine::restore(&bytes, 3, 1, 1, vec![red()], START, &files).map(|_| ())
    };
    let damaged = |what| Err(InvalidCheckpoint::Damaged(what));
    assert_eq!(restored(|_| {}), Ok(()));
    let twice =
        |message: &mut wire::Checkpoint| message.placements.push(message.placements[0].clone());
    assert_eq!(restored(twice), damaged("its placements are invalid"));
    let unknown = |message: &mut wire::Checkpoint| message.placements.clear();
    assert_eq!(restored(unknown), damaged("its open insertions are invalid"));
    let window = |message: &mut wire::Checkpoint| {
        message.placements.clear();
        message.open.clear();
    };
    assert_eq!(restored(window), damaged("an ad group is invalid"));
    let numbers = |message: &mut wire::Checkpoint| message.ad_groups[0].apart = vec![1, 2, 3];
    assert_eq!(restored(numbers), damaged("an ad group is invalid"));
}

#[test]
fn open_insertions_that_are_damaged_are_refused() {
    let mut engine = Engine::new(3, 1, 1, vec![red()]);
    engine.apply(&red_event(EventKind::Insertion, "a"), START).unwrap();
    let mut message = decode(&engine.checkpoint(0)).unwrap();
    message.open.pop();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(message.encode_to_vec());
    append_checksum(&mut bytes);
    let files = CheckpointFiles::default();
    let restored = Engine::restore(&bytes, 3, 1, 1, vec![red()], START, &files);
    let damaged = InvalidCheckpoint::Damaged("its open insertions are invalid");
    assert_eq!(restored.err(), Some(damaged));
}
