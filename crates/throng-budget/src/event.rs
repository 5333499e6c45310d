//! Events of ad servers: they are parsed, checked one by one, and encoded as records of the log.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use throng_model::{AdGroupName, Timestamp};

use crate::record::{EventRef, plausible, read_record};

/// The longest id.
pub const MAX_ID_BYTES: usize = 128;
/// Events further in the future are rejected: the sender's clock is wrong.
pub const MAX_AHEAD: Duration = Duration::from_secs(5 * 60);

/// An `inserted_at` longer before its event than this, or after it, is ignored: the event counts, and no
/// delay is learned from it.
pub const MAX_INSERTION_AGE: Duration = Duration::from_secs(24 * 3600);
/// The longest line of NDJSON. It bounds what the parser allocates for one line.
pub const MAX_LINE_BYTES: usize = 64 << 10;
/// The most problems of one request that are listed; more are only counted.
pub const MAX_PROBLEMS: usize = 1_000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// An ad was chosen and put into a response.
    Insertion,
    /// It was seen.
    Impression,
    /// It was clicked.
    Click,
}

impl EventKind {
    /// The number in `throng.events.v1.Kind`.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Insertion => 1,
            Self::Impression => 2,
            Self::Click => 3,
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unique among the events of its kind and ad group, 1 to [`MAX_ID_BYTES`] bytes.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
    /// To which ad group.
    pub ad_group: AdGroupName,
    /// The insertion that it belongs to.
    pub insertion_id: Option<String>,
    /// When it happened.
    pub at: Timestamp,
    /// On impressions and clicks: when the insertion was made.
    pub inserted_at: Option<Timestamp>,
}

/// Why one event is rejected. The others of the same request are not affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("event {line}: {field}: {message}")]
pub struct EventProblem {
    /// Which event of the request: the line of NDJSON, or the index among protobuf events; from 1.
    pub line: usize,
    /// The field, or `event`.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: String,
}

impl EventProblem {
    pub(crate) fn new(field: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { line: 0, field: field.to_owned(), message: message.into(), help: help.into() }
    }

    /// The same problem, of another event of the request.
    pub fn at_line(mut self, line: usize) -> Self {
        self.line = line;
        self
    }

    /// The ad group is not in the applied spec. `nearest`: a similar name in it, if there is one.
    pub fn unknown_ad_group(name: &AdGroupName, nearest: Option<&AdGroupName>) -> Self {
        let help = match nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "declare it in the spec and apply that first".to_owned(),
        };
        Self::new("ad_group", format!("there is no ad group `{name}` in the applied spec"), help)
    }
}

/// The fields of an event in JSON.
pub(crate) const FIELDS: [&str; 6] =
    ["id", "kind", "ad_group", "insertion_id", "at", "inserted_at"];

/// The events of one request. Memory: at most some 20 bytes for each byte of the request, and the
/// first [`MAX_PROBLEMS`] problems.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ParsedEvents {
    /// Valid events, each with its line in NDJSON or its index among protobuf events; from 1.
    pub events: Vec<(usize, Event)>,
    /// Why others are rejected: the first [`MAX_PROBLEMS`] of them.
    pub problems: Vec<EventProblem>,
    /// How many are rejected.
    pub refused: u64,
    /// How many of `events` have an `inserted_at` that is out of bounds
    /// ([`Event::plausible_inserted_at`]).
    pub inserted_at_ignored: u64,
}

impl ParsedEvents {
    pub(crate) fn add(&mut self, line: usize, parsed: Result<Event, EventProblem>) {
        match parsed {
            Ok(event) => {
                let ignored =
                    event.inserted_at.is_some() && event.plausible_inserted_at().is_none();
                self.inserted_at_ignored += u64::from(ignored);
                self.events.push((line, event));
            }
            Err(problem) => {
                self.refused += 1;
                if self.problems.len() < MAX_PROBLEMS {
                    self.problems.push(problem.at_line(line));
                }
            }
        }
    }
}

/// Reads an `Events` message.
///
/// # Errors
/// One problem if the bytes are not such a message at all.
pub fn parse_protobuf(body: &[u8]) -> Result<ParsedEvents, EventProblem> {
    let (mut parsed, mut index) = (ParsedEvents::default(), 0);
    let read = read_record(body, |event| {
        index += 1;
        parsed.add(index, from_record(&event));
    });
    read.map_err(|error| {
        EventProblem::new(
            "event",
            format!("the body is not a throng.events.v1.Events message: {error}"),
            "use the schema of proto/throng/events/v1/events.proto",
        )
    })?;
    Ok(parsed)
}

pub(crate) fn missing(field: &str) -> EventProblem {
    EventProblem::new(field, "is missing", format!("every event has `{field}`"))
}

pub(crate) fn unknown_kind(text: &str) -> EventProblem {
    let shown: String = text.chars().take(40).collect();
    EventProblem::new(
        "kind",
        format!("`{shown}` is not a kind of event"),
        "use insertion, impression or click",
    )
}

pub(crate) fn ad_group(text: &str) -> Result<AdGroupName, EventProblem> {
    AdGroupName::new(text).map_err(|error| {
        EventProblem::new("ad_group", error.to_string(), "send the ad group's name in the spec")
    })
}

fn from_record(raw: &EventRef<'_>) -> Result<Event, EventProblem> {
    let kind = raw.kind().ok_or_else(|| unknown_kind(&raw.kind_number.to_string()))?;
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
    })
}

pub(crate) fn checked(event: Event) -> Result<Event, EventProblem> {
    let length = |field: &str, text: &str| {
        if text.is_empty() {
            Err(EventProblem::new(field, "is empty", "send a text that no other event has"))
        } else if text.len() > MAX_ID_BYTES {
            Err(EventProblem::new(
                field,
                format!("is {} bytes long", text.len()),
                format!("use at most {MAX_ID_BYTES}"),
            ))
        } else {
            Ok(())
        }
    };
    length("id", &event.id)?;
    if let Some(insertion) = &event.insertion_id {
        length("insertion_id", insertion)?;
    }
    Ok(event)
}

impl Event {
    /// When the insertion was made, if that is plausible: not after the event and at most
    /// [`MAX_INSERTION_AGE`] before it. Otherwise the event counts as one without `inserted_at`.
    pub fn plausible_inserted_at(&self) -> Option<Timestamp> {
        plausible(self.inserted_at, self.at)
    }

    /// Checks that the event is neither in the future nor older than ids are remembered: it could count twice.
    ///
    /// # Errors
    /// The problem, without its line.
    pub fn check_time(&self, now: Timestamp, dedupe_window: Duration) -> Result<(), EventProblem> {
        if now.since(self.at) > dedupe_window {
            let hours = dedupe_window.as_secs() / 3_600;
            return Err(EventProblem::new(
                "at",
                format!("{} is more than {hours} hours ago", self.at),
                match crate::json::unit_of(self.at.0) {
                    Some(0 | 1) => "send microseconds since 1970",
                    _ => {
                        "send events sooner, or raise node.dedupe_hours: later ones could count twice"
                    }
                },
            ));
        }
        if self.at.since(now) > MAX_AHEAD {
            return Err(EventProblem::new(
                "at",
                format!("{} is more than 5 minutes in the future", self.at),
                match crate::json::unit_of(self.at.0) {
                    Some(3) => "send microseconds since 1970",
                    _ => "set the ad server's clock",
                },
            ));
        }
        Ok(())
    }

    /// Appends the event as field 1 of an `Events` message, without a copy of its texts.
    fn encode(&self, out: &mut Vec<u8>) {
        use prost::encoding::{
            WireType, encode_key, encode_varint, encoded_len_varint, int32, int64,
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
        let length = text(&self.id)
            + int32::encoded_len(2, &kind)
            + text(self.ad_group.as_str())
            + text(insertion)
            + number(5, self.at.0)
            + number(6, inserted_at);
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
        int32::encode(2, &kind, out);
        for (tag, value) in [(5, self.at.0), (6, inserted_at)] {
            if value != 0 {
                int64::encode(tag, &value, out);
            }
        }
    }
}

/// Events as one record of the log: an `Events` message. [`parse_protobuf`] reads it back.
pub fn events_to_record<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<u8> {
    let mut out = Vec::new();
    events.into_iter().for_each(|event| event.encode(&mut out));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_ndjson;

    fn event() -> Event {
        Event {
            id: "e1".into(),
            kind: EventKind::Click,
            ad_group: AdGroupName::new("shoes").unwrap(),
            insertion_id: Some("i1".into()),
            at: Timestamp(2_000_000),
            inserted_at: Some(Timestamp(1_000_000)),
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
    fn one_invalid_line_does_not_affect_the_others() {
        let body = br#"{"id":"a","kind":"insertion","ad_group":"shoes","at":1795600000}

invalid
{"id":"b","kind":"impression","ad_group":"shoes","at":"2026-01-01T00:00:02Z"}"#;
        let parsed = parse_ndjson(body);
        assert_eq!(parsed.events.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 4]);
        assert_eq!((parsed.problems[0].line, parsed.refused), (3, 1));
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
            assert!(read[0].is_sound(Timestamp(at), crate::DEFAULT_DEDUPE_WINDOW), "{inserted_at}");
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
