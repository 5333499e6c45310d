//! Fuzz targets of this crate: each gives arbitrary bytes to a decoder and asserts what must hold for
//! what it accepts. `fuzz/` runs them under libFuzzer, the tests below over mutants of the seeds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use throng_model::{
    AdGroupIndex, AdGroupName, Micros, Pacing, TimeZoneName, Timestamp, append_checksum,
};

use crate::{
    AdGroupConfig, BilledEvent, CheckpointFiles, DEFAULT_DEDUPE_WINDOW, Engine, Event, EventKind,
    EventMoney, EventRecords, EventRef, IdFile, IdRun, ProtobufEvents, RecordError, RecordEvents,
    events_to_record, parse_ndjson, read_record,
};

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

const NOW: Timestamp = Timestamp(1_767_225_600_000_000);
const PARTITION: u32 = 3;

/// The bytes with a valid checksum in place of their last eight.
fn with_checksum(bytes: &[u8]) -> Option<Vec<u8>> {
    let (body, _) = bytes.split_last_chunk::<8>()?;
    let mut sealed = body.to_vec();
    append_checksum(&mut sealed);
    Some(sealed)
}

/// Every event that is accepted can be written to the log, and is the same when it is read back.
fn check_events<'a>(events: impl Iterator<Item = (usize, EventRef<'a>)>) {
    let (mut records, mut written) = (EventRecords::with_capacity(0), Vec::new());
    for (number, event) in events {
        records.push(number, &event);
        // A time of zero is none in a record.
        let inserted_at = event.inserted_at.filter(|at| at.0 != 0);
        written.push((number, EventRef { inserted_at, ..event }));
    }
    assert!(records.events().eq(written.iter().map(|(_, event)| *event)));
    let (numbers, records) = records.finish();
    assert!(numbers.into_iter().eq(written.iter().map(|(number, _)| *number)));
    let read = records.iter().flat_map(|record| RecordEvents::new(record));
    let written: Vec<EventRef<'_>> = written.into_iter().map(|(_, event)| event).collect();
    assert_eq!(read.collect::<Result<Vec<EventRef<'_>>, RecordError>>(), Ok(written));
}

/// Events as JSON lines, or as one JSON array.
pub fn events_ndjson(bytes: &[u8]) {
    let parsed = parse_ndjson(bytes);
    check_events(parsed.events.iter().map(|(line, event)| (*line, event.into())));
}

/// Events of each kind, and what may be around events.
pub fn events_ndjson_seeds() -> Vec<Vec<u8>> {
    let insertion =
        r#"{"id":"i1","kind":"insertion","ad_group":"red","at":"2026-01-01T00:00:00Z"}"#;
    let impression = r#"{"id":"v1","kind":"impression","ad_group":"red","at":1767225601000000,"insertion_id":"i1","inserted_at":"2026-01-01T00:00:00.5Z"}"#;
    let click = r#"{"id":"c\u00e41","kind":"click","ad_group":"blue","at":1767225602000000}"#;
    let priced = r#"{"id":"i2","kind":"insertion","ad_group":"red","at":1767225602000000,"insertion_id":"i2","cpm":"2.5","impression_rate":0.8,"action_rate":1e-2,"placement":"home"}"#;
    let cleared =
        r#"{"id":"c2","kind":"click","ad_group":"blue","at":1767225603000000,"price":"0.10"}"#;
    [
        format!("{insertion}\n{impression}\n{click}\n"),
        format!("\u{feff}\r\n{click}\r\n\r{insertion}"),
        format!(" [{insertion}, {impression} ,\n{click}]\n"),
        format!("{priced}\n{cleared}\n"),
        r#"[{"a":[1,{"b":"]}"}]},-1.5e300,null,"x"]"#.to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// The events of a request as protobuf.
pub fn events_protobuf(bytes: &[u8]) {
    let mut events = ProtobufEvents::new(bytes);
    // Those before damage too: they are written before it is noticed.
    check_events(events.by_ref());
    let _ = events.finish();
}

/// A record of the event log, which is also a record of the Kafka topic of events.
pub fn event_record(bytes: &[u8]) {
    // Called for events that are not sound too: a reader of a record may call them for any event.
    let _ = read_record(bytes, |event| {
        let _ = (event.kind(), event.plausible_inserted_at());
        let _ = event.is_valid(NOW, Duration::from_secs(24 * 3_600));
        let _ = (event.id.as_str(), event.ad_group.as_str(), event.insertion_id.as_str());
        let _ = (event.money.price_nanos(), event.placement.as_str());
    });
}

/// Records of several events; also the seeds of [`events_protobuf`].
pub fn event_record_seeds() -> Vec<Vec<u8>> {
    let events = events();
    vec![events_to_record(&events), events_to_record(&events[..1]), Vec::new()]
}

/// A checkpoint, as it is and with a valid checksum. One that is accepted can be written again.
pub fn checkpoint(bytes: &[u8]) {
    let _ = restored(bytes);
    let Some(sealed) = with_checksum(bytes) else { return };
    let _ = Engine::named_files(&sealed);
    let _ = Engine::restore_figures(&sealed, PARTITION, configs(), NOW, &HashMap::new());
    if let Some((engine, position)) = restored(&sealed) {
        assert!(!engine.checkpoint(position).is_empty());
    }
}

fn restored(bytes: &[u8]) -> Option<(Engine, crate::LogPosition)> {
    Engine::restore(bytes, PARTITION, 2, 1, configs(), NOW, &CheckpointFiles::default()).ok()
}

/// Checkpoints of an engine without events and of one with some of each kind.
pub fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let mut engine = Engine::new(PARTITION, 1, 1, configs());
    let empty = engine.checkpoint(0);
    for event in events() {
        let _ = engine.apply(&event, event.at.plus(Duration::from_secs(1)));
    }
    let recent = engine.checkpoint(6);
    engine.close(NOW.plus(DEFAULT_DEDUPE_WINDOW));
    vec![empty, recent, engine.checkpoint(9)]
}

/// A file of ids, as it is and with a valid checksum.
pub fn id_file(bytes: &[u8]) {
    for bytes in std::iter::once(bytes.to_vec()).chain(with_checksum(bytes)) {
        let bytes = Arc::new(bytes);
        let file: Arc<dyn IdFile> = Arc::<Vec<u8>>::clone(&bytes);
        if let Ok(run) = IdRun::read(&bytes, file) {
            assert!(run.len() < bytes.len());
            run.look_up_some();
        }
    }
}

/// Files of no id, of a few, and of more than a block of the filter.
pub fn id_file_seeds() -> Vec<Vec<u8>> {
    [0, 5, 300].map(IdRun::example_file).to_vec()
}

fn configs() -> Vec<AdGroupConfig> {
    let config = |index: u32, name: &str, billed| AdGroupConfig {
        index: AdGroupIndex(index),
        name: AdGroupName::new(name).expect("a name"),
        campaign: "all".parse().expect("a name"),
        billed,
        price: Micros(130_001),
        price_nanos: 0,
        impression_rate: 0.9,
        action_rate: if billed == BilledEvent::Click { 0.1 } else { 1.0 },
        horizon: Duration::from_secs(180),
        daily_budget: Micros(10_000_000),
        prediction: true,
        currency: "USD".parse().expect("a currency"),
        zone: TimeZoneName::utc(),
        once_per_insertion: true,
        pacing: Pacing::Asap,
        learns_rates: true,
    };
    vec![config(0, "red", BilledEvent::Impression), config(1, "blue", BilledEvent::Click)]
}

fn events() -> Vec<Event> {
    let event = |id: u64, kind, ad_group: &str| {
        let at = NOW.plus(Duration::from_secs(id));
        Event {
            id: format!("e{id}"),
            kind,
            ad_group: AdGroupName::new(ad_group).expect("a name"),
            insertion_id: id.is_multiple_of(2).then(|| format!("i{id}")),
            at,
            inserted_at: (kind != EventKind::Insertion).then(|| at.minus(Duration::from_secs(7))),
            money: EventMoney::NONE,
            placement: None,
        }
    };
    let terms = EventMoney::NONE.with_price_nanos(2_500_000).with_impression_rate(800_000_000);
    let insertion = Event {
        insertion_id: Some("i8".to_owned()),
        money: terms.with_action_rate(20_000_000),
        placement: Some("home".to_owned()),
        ..event(7, EventKind::Insertion, "red")
    };
    let cleared = EventMoney::NONE.with_price_nanos(130_001_500);
    vec![
        insertion,
        Event { money: cleared, ..event(8, EventKind::Impression, "red") },
        event(1, EventKind::Insertion, "red"),
        event(2, EventKind::Insertion, "blue"),
        event(3, EventKind::Impression, "red"),
        event(4, EventKind::Impression, "blue"),
        event(5, EventKind::Click, "blue"),
        event(6, EventKind::Click, "green"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_of_events() {
        mutate::run(&events_ndjson_seeds(), 4_000, events_ndjson);
        mutate::run(&event_record_seeds(), 4_000, events_protobuf);
        mutate::run(&event_record_seeds(), 4_000, event_record);
    }

    #[test]
    fn mutants_of_checkpoints() {
        mutate::run(&checkpoint_seeds(), 2_000, checkpoint);
    }

    #[test]
    fn mutants_of_id_files() {
        mutate::run(&id_file_seeds(), 2_000, id_file);
    }
}
