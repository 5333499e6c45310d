//! Events as `throng.events.v1.Events` messages: the body of a request. Pure.

use crate::event::{
    EventProblem, RefusedEvents, ad_group, check, is_ignored, missing, unknown_kind,
};
use crate::money::is_name;
use crate::record::{EVENT_BYTES, EventRef, RecordError, RecordEvents};

/// The valid events of an `Events` message, each with its index among all events of it, from 1. They are read in place:
/// they borrow from the message, and nothing is allocated for them. A clone continues at the same event.
#[derive(Debug, Clone)]
pub struct ProtobufEvents<'a> {
    body: &'a [u8],
    rest: RecordEvents<'a>,
    index: usize,
    has_valid: bool,
    error: Option<RecordError>,
    refused: RefusedEvents,
}

impl<'a> ProtobufEvents<'a> {
    /// The events of a message.
    pub fn new(body: &'a [u8]) -> Self {
        let (rest, refused) = (RecordEvents::new(body), RefusedEvents::default());
        Self { body, rest, index: 0, has_valid: false, error: None, refused }
    }

    /// About how many there are.
    pub fn expected(&self) -> usize {
        self.body.len() / EVENT_BYTES
    }

    /// What is wrong with others, after the iterator has ended.
    ///
    /// # Errors
    /// One problem if the bytes are not such a message at all. The events that were returned are of no use then.
    pub fn finish(self) -> Result<RefusedEvents, EventProblem> {
        if (self.error.is_some() || !self.has_valid) && is_single_event(self.body) {
            return Err(EventProblem::new(
                "event",
                "the body is one throng.events.v1.Event, not a throng.events.v1.Events message",
                "send an Events message with the events in its field `events`, also for one event",
            ));
        }
        match self.error {
            None => Ok(self.refused),
            Some(error) => Err(EventProblem::new(
                "event",
                format!("the body is not a throng.events.v1.Events message: {error}"),
                "use the schema of proto/throng/events/v1/events.proto",
            )),
        }
    }
}

impl<'a> Iterator for ProtobufEvents<'a> {
    type Item = (usize, EventRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.error.is_none() {
            let event = match self.rest.next()? {
                Ok(event) => event,
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            };
            self.index += 1;
            match check_event(&event) {
                Ok(()) => {
                    self.has_valid = true;
                    self.refused.inserted_at_ignored +=
                        u64::from(is_ignored(event.inserted_at, event.at));
                    return Some((self.index, event));
                }
                Err(problem) => self.refused.add(self.index, problem),
            }
        }
        None
    }
}

/// All of [`ProtobufEvents`] at once.
#[cfg(test)]
pub(crate) fn read_all(
    body: &[u8],
) -> Result<(Vec<(usize, EventRef<'_>)>, RefusedEvents), EventProblem> {
    let mut events = ProtobufEvents::new(body);
    let list = events.by_ref().collect();
    Ok((list, events.finish()?))
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

#[inline]
fn check_event(event: &EventRef<'_>) -> Result<(), EventProblem> {
    // Nearly all events: nothing has to be explained.
    match is_name(event.ad_group.as_bytes()) && event.has_valid_fields() {
        true => Ok(()),
        false => problem_of(event),
    }
}

/// The first problem of an event, if it has one.
#[cold]
fn problem_of(event: &EventRef<'_>) -> Result<(), EventProblem> {
    let kind = event.kind().ok_or_else(|| unknown_kind(Some(&event.kind_number.to_string())))?;
    if event.at.0 == 0 {
        return Err(missing("at_micros"));
    }
    if !is_name(event.ad_group.as_bytes()) {
        // For the explanation.
        ad_group(event.ad_group.as_str())?;
    }
    let insertion_id = Some(event.insertion_id.as_bytes()).filter(|id| !id.is_empty());
    check(event.id.as_bytes(), insertion_id, kind, event.money, event.placement.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use throng_model::{AdGroupName, Timestamp};

    use super::*;
    use crate::event::{MAX_INSERTION_AGE, MAX_PROBLEMS};
    use crate::{
        Event, EventKind, EventMoney, MAX_PRICE_NANOS, RATE_ONE, events_to_record, parse_ndjson,
        read_record,
    };

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
        let (events, refused) = read_all(&record).unwrap();
        assert_eq!(events, [(1, EventRef::from(&event())), (2, EventRef::from(&plain))]);
        assert_eq!(refused, RefusedEvents::default());
        assert_eq!(read_all(&events_to_record([])), Ok((Vec::new(), RefusedEvents::default())));
    }

    #[test]
    fn a_clone_continues_at_the_same_event_and_an_error_ends_both() {
        let (one, two) = (event(), Event { id: "e2".into(), ..event() });
        let mut body = events_to_record([&one, &two]);
        // A third event that is cut.
        body.push(0x0a);
        let mut events = ProtobufEvents::new(&body);
        assert_eq!(events.next(), Some((1, EventRef::from(&one))));
        let mut again = events.clone();
        for events in [&mut events, &mut again] {
            assert_eq!(events.next(), Some((2, EventRef::from(&two))));
            assert_eq!([events.next(), events.next()], [None, None]);
        }
        let problems = [events.finish(), again.finish()].map(Result::unwrap_err);
        assert!(problems.iter().all(|it| it.message.ends_with("in the middle of a field")));
    }

    #[test]
    fn an_event_without_its_batch_is_refused_as_such() {
        for id in ["e1", "", "0b1f4c52-8a7e-4d0c-9f6f-3f1b2c3d4e5f"] {
            let batch = events_to_record([&Event { id: id.into(), ..event() }]);
            // The key and the length of the only event take two bytes.
            let problem = read_all(&batch[2..]).unwrap_err();
            assert!(problem.message.contains("not a throng.events.v1.Events message"), "{id}");
            assert!(problem.message.contains("one throng.events.v1.Event,"), "{problem:?}");
        }
        // Events that are refused in a batch are refused one by one.
        let refused = events_to_record([&Event { at: Timestamp(0), ..event() }]);
        assert_eq!(read_all(&refused).unwrap().1.count, 1);
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
        let record = events_to_record(&events);
        let (read, refused) = read_all(&record).unwrap();
        let numbered: Vec<(usize, EventRef<'_>)> =
            (1..).zip(events.iter().map(EventRef::from)).collect();
        assert_eq!((read, refused.count), (numbered, 0));
        let wrong = [
            (Event { money: none.with_price_nanos(-1), ..event() }, "price"),
            (Event { money: all, ..event() }, "impression_rate"),
            (Event { placement: Some("home".into()), ..event() }, "placement"),
            (insertion(all.with_action_rate(RATE_ONE + 1)), "action_rate"),
            (Event { placement: Some("Home feed".into()), ..insertion(none) }, "placement"),
        ];
        for (event, field) in wrong {
            let record = events_to_record([&event]);
            let (_, refused) = read_all(&record).unwrap();
            assert_eq!((refused.count, &*refused.problems[0].field), (1, field));
            let mut read = Vec::new();
            read_record(&record, |event| read.push(event)).unwrap();
            assert!(!read[0].is_valid(event.at, DAY), "{field}");
        }
    }

    /// Without an explanation an event is valid exactly if there is nothing to explain.
    #[test]
    fn an_event_is_valid_exactly_if_it_has_no_problem() {
        let text = |length: usize| "i".repeat(length);
        let none = EventMoney::NONE;
        let money = [none, none.with_price_nanos(5), none.with_price_nanos(-1)];
        let money = money.into_iter().chain([none.with_action_rate(RATE_ONE + 1)]);
        let ids = [String::new(), text(1), text(128), text(129), "null".into()];
        let mut valid = 0;
        for money in money {
            for (id, insertion_id) in ids.iter().flat_map(|a| ids.iter().map(move |b| (a, b))) {
                for (name, kind_number, at) in [
                    ("shoes", 1, 1),
                    ("shoes", 3, 1),
                    ("Shoes", 1, 1),
                    ("", 1, 1),
                    ("a", 4, 1),
                    ("a", 1, 0),
                ] {
                    for placement in ["", "home", "Home"] {
                        let event = EventRef {
                            id: id.as_str().into(),
                            kind_number,
                            ad_group: name.into(),
                            insertion_id: insertion_id.as_str().into(),
                            at: Timestamp(at),
                            inserted_at: None,
                            money,
                            placement: placement.into(),
                        };
                        assert_eq!(check_event(&event), problem_of(&event), "{event:?}");
                        valid += usize::from(check_event(&event).is_ok());
                    }
                }
            }
        }
        assert!(valid > 10, "{valid}");
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
            assert_eq!((parsed.events.len(), parsed.refused.count), (1, 0), "{inserted_at}");
            assert_eq!(parsed.refused.inserted_at_ignored, ignored, "{inserted_at}");
            let record = events_to_record(parsed.events.iter().map(|(_, event)| event));
            let (again, refused) = read_all(&record).unwrap();
            let (line, event) = &parsed.events[0];
            assert_eq!(again, [(*line, EventRef::from(event))], "{inserted_at}");
            assert_eq!(refused, parsed.refused, "{inserted_at}");
            let mut read = Vec::new();
            read_record(&record, |event| read.push(event)).unwrap();
            assert!(read[0].is_valid(Timestamp(at), DAY), "{inserted_at}");
            let plausible = read[0].plausible_inserted_at();
            assert_eq!(plausible.is_none(), ignored == 1, "{inserted_at}");
        }
    }

    /// What the parser keeps of a request is bounded by the request's length, whatever is in it.
    #[test]
    fn memory_is_bounded_by_the_length_of_the_request() {
        fn weight(refused: &RefusedEvents) -> usize {
            let length = |p: &EventProblem| p.field.len() + p.message.len() + p.help.len();
            refused.problems.iter().map(length).sum::<usize>()
                + refused.problems.capacity() * size_of::<EventProblem>()
        }
        let smallest = Event { insertion_id: None, inserted_at: None, at: Timestamp(1), ..event() };
        let smallest =
            Event { id: "a".into(), ad_group: AdGroupName::new("b").unwrap(), ..smallest };
        let bodies = [
            // Messages without a field: two bytes each.
            [10u8, 0].repeat(500_000),
            events_to_record(std::iter::repeat_n(&smallest, 100_000)),
        ];
        for body in bodies {
            let mut events = ProtobufEvents::new(&body);
            let valid = events.by_ref().count() as u64;
            let refused = events.finish().unwrap();
            assert!(valid + refused.count >= 100_000, "{} bytes", body.len());
            assert!(weight(&refused) < 500_000, "{} bytes", body.len());
        }
        for body in [b"{}\n".repeat(300_000), b"7\n".repeat(300_000), b"[{},".repeat(1 << 18)] {
            let parsed = parse_ndjson(&body);
            let refused = &parsed.refused;
            assert!(refused.count > 0 && refused.problems.len() <= MAX_PROBLEMS);
            let kept = parsed.events.capacity() * size_of::<(usize, Event)>() + weight(refused);
            assert!(kept < body.len() + 500_000, "{} bytes", body.len());
        }
    }

    #[test]
    fn truncated_bytes_never_panic() {
        let good = events_to_record([&event()]);
        for cut in 0..good.len() {
            let _ = read_all(&good[..cut]);
            let _ = parse_ndjson(&good[..cut]);
        }
    }
}
