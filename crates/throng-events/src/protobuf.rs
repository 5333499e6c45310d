//! Events as `throng.events.v1.Events` messages: the body of a request, and a record of the log. Pure.

use crate::Event;
use crate::event::{EventProblem, ParsedEvents, ad_group, checked, missing, unknown_kind};
use crate::record::{EventRef, read_record};

/// Reads an `Events` message.
///
/// # Errors
/// One problem if the bytes are not such a message at all.
pub fn parse_protobuf(body: &[u8]) -> Result<ParsedEvents, EventProblem> {
    let (mut parsed, mut index) = (ParsedEvents::default(), 0);
    // Most events are about as long as that.
    parsed.events.reserve(body.len() / 64);
    let read = read_record(body, |event| {
        index += 1;
        parsed.add(index, from_record(&event));
    });
    if (read.is_err() || parsed.events.is_empty()) && is_single_event(body) {
        return Err(EventProblem::new(
            "event",
            "the body is one throng.events.v1.Event, not a throng.events.v1.Events message",
            "send an Events message with the events in its field `events`, also for one event",
        ));
    }
    read.map_err(|error| {
        EventProblem::new(
            "event",
            format!("the body is not a throng.events.v1.Events message: {error}"),
            "use the schema of proto/throng/events/v1/events.proto",
        )
    })?;
    Ok(parsed)
}

/// Whether a body has the fields of an event itself: `kind` and `ad_group`. A batch has none but field 1, which is the id of
/// an event.
fn is_single_event(mut body: &[u8]) -> bool {
    use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};
    let (mut kind, mut ad_group) = (false, false);
    while !body.is_empty() {
        let Ok((tag, wire)) = decode_key(&mut body) else { return false };
        kind |= tag == 2 && wire == WireType::Varint;
        ad_group |= tag == 3 && wire == WireType::LengthDelimited;
        if skip_field(wire, tag, &mut body, DecodeContext::default()).is_err() {
            return false;
        }
    }
    kind && ad_group
}

fn from_record(raw: &EventRef<'_>) -> Result<Event, EventProblem> {
    let kind = raw.kind().ok_or_else(|| unknown_kind(Some(&raw.kind_number.to_string())))?;
    if raw.at.0 == 0 {
        return Err(missing("at_micros"));
    }
    checked(Event {
        id: raw.id.as_str().to_owned(),
        kind,
        ad_group: ad_group(raw.ad_group.as_str())?,
        insertion_id: Some(raw.insertion_id.as_str().to_owned()).filter(|id| !id.is_empty()),
        at: raw.at,
        inserted_at: raw.inserted_at,
        money: raw.money,
        placement: Some(raw.placement.as_str().to_owned()).filter(|text| !text.is_empty()),
    })
}

impl Event {
    /// Appends the event as field 1 of an `Events` message, without a copy of its texts.
    fn encode(&self, out: &mut Vec<u8>) {
        use prost::encoding::{
            WireType, encode_key, encode_varint, encoded_len_varint, int32, int64, uint32,
        };
        let kind = self.kind.number();
        // Keys of the fields 1 to 15 take one byte.
        let text = |text: &str| match text.len() {
            0 => 0,
            length => 1 + encoded_len_varint(length as u64) + length,
        };
        let number =
            |tag: u32, value: i64| if value == 0 { 0 } else { int64::encoded_len(tag, &value) };
        let insertion = self.insertion_id.as_deref().unwrap_or_default();
        let inserted_at = self.inserted_at.map_or(0, |at| at.0);
        let placement = self.placement.as_deref().unwrap_or_default();
        // Those that the event does not carry are left out, so that the ad group's count; zero is written.
        let price = self.money.price_nanos();
        let rates = [(8, self.money.impression_rate()), (9, self.money.action_rate())];
        let rate_length = |(tag, rate): &(u32, Option<u32>)| {
            rate.as_ref().map_or(0, |rate| uint32::encoded_len(*tag, rate))
        };
        let length = text(&self.id)
            + int32::encoded_len(2, &kind)
            + text(self.ad_group.as_str())
            + text(insertion)
            + number(5, self.at.0)
            + number(6, inserted_at)
            + price.as_ref().map_or(0, |price| int64::encoded_len(7, price))
            + rates.iter().map(rate_length).sum::<usize>()
            + text(placement);
        encode_key(1, WireType::LengthDelimited, out);
        encode_varint(length as u64, out);
        let mut put = |tag: u32, text: &str| {
            if !text.is_empty() {
                encode_key(tag, WireType::LengthDelimited, out);
                encode_varint(text.len() as u64, out);
                out.extend_from_slice(text.as_bytes());
            }
        };
        put(1, &self.id);
        put(3, self.ad_group.as_str());
        put(4, insertion);
        put(10, placement);
        int32::encode(2, &kind, out);
        for (tag, value) in [(5, self.at.0), (6, inserted_at)] {
            if value != 0 {
                int64::encode(tag, &value, out);
            }
        }
        if let Some(price) = &price {
            int64::encode(7, price, out);
        }
        for (tag, rate) in &rates {
            if let Some(rate) = rate {
                uint32::encode(*tag, rate, out);
            }
        }
    }
}

/// Events as one record of the log: an `Events` message. [`parse_protobuf`] reads it back.
pub fn events_to_record<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<u8> {
    let events = events.into_iter();
    // Most events are about as long as that.
    let mut out = Vec::with_capacity(events.size_hint().0.min(10_000) * 64);
    events.for_each(|event| event.encode(&mut out));
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use throng_model::{AdGroupName, Timestamp};

    use super::*;
    use crate::event::{MAX_INSERTION_AGE, MAX_PROBLEMS};
    use crate::{EventKind, EventMoney, MAX_PRICE_NANOS, RATE_ONE, parse_ndjson};

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    fn event() -> Event {
        Event {
            id: "e1".into(),
            kind: EventKind::Click,
            ad_group: AdGroupName::new("shoes").unwrap(),
            insertion_id: Some("i1".into()),
            at: Timestamp(2_000_000),
            inserted_at: Some(Timestamp(1_000_000)),
            money: EventMoney::NONE,
            placement: None,
        }
    }

    #[test]
    fn records_are_read_back() {
        let plain = Event { insertion_id: None, inserted_at: None, at: Timestamp(-5), ..event() };
        let record = events_to_record([&event(), &plain]);
        let parsed = parse_protobuf(&record).unwrap();
        assert_eq!(parsed.events, [(1, event()), (2, plain)]);
        assert_eq!((parsed.refused, parsed.inserted_at_ignored), (0, 0));
        assert_eq!(parse_protobuf(&events_to_record([])), Ok(ParsedEvents::default()));
    }

    #[test]
    fn an_event_without_its_batch_is_refused_as_such() {
        for id in ["e1", "", "0b1f4c52-8a7e-4d0c-9f6f-3f1b2c3d4e5f"] {
            let batch = events_to_record([&Event { id: id.into(), ..event() }]);
            // The key and the length of the only event take two bytes.
            let problem = parse_protobuf(&batch[2..]).unwrap_err();
            assert!(problem.message.contains("not a throng.events.v1.Events message"), "{id}");
            assert!(problem.message.contains("one throng.events.v1.Event,"), "{problem:?}");
        }
        // Events that are refused in a batch are refused one by one.
        let refused = parse_protobuf(&events_to_record([&Event { at: Timestamp(0), ..event() }]));
        assert_eq!(refused.unwrap().refused, 1);
    }

    #[test]
    fn money_and_placement_are_read_back() {
        let none = EventMoney::NONE;
        let all = none.with_impression_rate(RATE_ONE).with_action_rate(20_000_000);
        let insertion = |money| Event {
            kind: EventKind::Insertion,
            inserted_at: None,
            money,
            placement: Some("home-feed".into()),
            ..event()
        };
        let events = [
            insertion(all.with_price_nanos(MAX_PRICE_NANOS)),
            insertion(none.with_price_nanos(0).with_impression_rate(0)),
            insertion(none.with_action_rate(0)),
            Event { money: none.with_price_nanos(130_001_500), ..event() },
        ];
        let parsed = parse_protobuf(&events_to_record(&events)).unwrap();
        let numbered: Vec<(usize, Event)> = (1..).zip(events).collect();
        assert_eq!((parsed.events, parsed.refused), (numbered, 0));
        let wrong = [
            (Event { money: none.with_price_nanos(-1), ..event() }, "price"),
            (Event { money: all, ..event() }, "impression_rate"),
            (Event { placement: Some("home".into()), ..event() }, "placement"),
            (insertion(all.with_action_rate(RATE_ONE + 1)), "action_rate"),
            (Event { placement: Some("Home feed".into()), ..insertion(none) }, "placement"),
        ];
        for (event, field) in wrong {
            let record = events_to_record([&event]);
            let parsed = parse_protobuf(&record).unwrap();
            assert_eq!((parsed.refused, &*parsed.problems[0].field), (1, field));
            let mut read = Vec::new();
            read_record(&record, |event| read.push(event)).unwrap();
            assert!(!read[0].is_sound(event.at, DAY), "{field}");
        }
    }

    #[test]
    fn an_insertion_time_out_of_bounds_is_ignored_and_counted() {
        let day = MAX_INSERTION_AGE.as_micros() as i64;
        let at = 1_767_225_600_000_000;
        for (inserted_at, ignored) in
            [(at, 0), (at - day, 0), (at - day - 1, 1), (at + 1, 1), (i64::MIN, 1), (i64::MAX, 1)]
        {
            let line = format!(
                r#"{{"id":"a","kind":"click","ad_group":"shoes","at":{at},"inserted_at":{inserted_at}}}"#
            );
            let parsed = parse_ndjson(line.as_bytes());
            assert_eq!((parsed.events.len(), parsed.refused), (1, 0), "{inserted_at}");
            assert_eq!(parsed.inserted_at_ignored, ignored, "{inserted_at}");
            let record = events_to_record(parsed.events.iter().map(|(_, event)| event));
            let again = parse_protobuf(&record).unwrap();
            assert_eq!(again, parsed, "{inserted_at}");
            let mut read = Vec::new();
            read_record(&record, |event| read.push(event)).unwrap();
            assert!(read[0].is_sound(Timestamp(at), DAY), "{inserted_at}");
            let plausible = read[0].plausible_inserted_at();
            assert_eq!(plausible.is_none(), ignored == 1, "{inserted_at}");
        }
    }

    /// What the parser keeps of a request is bounded by the request's length, whatever is in it.
    #[test]
    fn memory_is_bounded_by_the_length_of_the_request() {
        let weight = |parsed: &ParsedEvents| {
            let events: usize =
                parsed.events.iter().map(|(_, e)| e.id.len() + e.ad_group.as_str().len()).sum();
            let problems: usize = parsed
                .problems
                .iter()
                .map(|p| p.field.len() + p.message.len() + p.help.len())
                .sum();
            events
                + problems
                + parsed.events.capacity() * size_of::<(usize, Event)>()
                + parsed.problems.capacity() * size_of::<EventProblem>()
        };
        let smallest = Event { insertion_id: None, inserted_at: None, at: Timestamp(1), ..event() };
        let smallest =
            Event { id: "a".into(), ad_group: AdGroupName::new("b").unwrap(), ..smallest };
        let bodies = [
            // Messages without a field: two bytes each.
            [10u8, 0].repeat(500_000),
            events_to_record(std::iter::repeat_n(&smallest, 100_000)),
        ];
        for body in bodies {
            let parsed = parse_protobuf(&body).unwrap();
            assert!(weight(&parsed) < 24 * body.len() + 500_000, "{} bytes", body.len());
        }
        for body in [b"{}\n".repeat(300_000), b"7\n".repeat(300_000), b"[{},".repeat(1 << 18)] {
            let parsed = parse_ndjson(&body);
            assert!(parsed.refused > 0 && parsed.problems.len() <= MAX_PROBLEMS);
            assert!(weight(&parsed) < body.len() + 500_000, "{} bytes", body.len());
        }
    }

    #[test]
    fn truncated_bytes_never_panic() {
        let good = events_to_record([&event()]);
        for cut in 0..good.len() {
            let _ = parse_protobuf(&good[..cut]);
            let _ = parse_ndjson(&good[..cut]);
        }
    }
}
