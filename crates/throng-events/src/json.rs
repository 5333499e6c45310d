//! Events as JSON: one object a line, or one array of objects. Pure.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr2;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use throng_model::Timestamp;

use crate::event::{
    EventProblem, FIELDS, MAX_LINE_BYTES, ParsedEvents, ad_group, checked, is_shown, missing,
    unknown_kind,
};
use crate::missing_id::is_missing_id;
use crate::money::{CPM_PER_UNIT, EventMoney, MAX_PRICE_NANOS, PER_UNIT, rate_of, scaled};
use crate::time_unit::{float_in_micros, in_micros};
use crate::{Event, EventKind};

/// The value of an `inserted_at` that cannot be read: out of bounds at any time.
const UNREADABLE: Timestamp = Timestamp(i64::MIN);
const TIME_HELP: &str = "write RFC 3339, like 2026-11-23T15:04:05.123Z, or microseconds since 1970";

/// Reads one event a line, or arrays of events, and lines after them; empty lines are ignored, and so are byte order
/// marks before a line or an array, as files have them that were joined. Lines end with LF, CR LF or CR. An invalid
/// event does not affect the others.
pub fn parse_ndjson(body: &[u8]) -> ParsedEvents {
    let mut parsed: ParsedEvents = ParsedEvents::default();
    let mut rest = without_marks(body);
    if let Some((message, help)) = encoding_problem(rest) {
        parsed.add(1, Err(EventProblem::new("event", message, help)));
        return parsed;
    }
    let (mut number, mut text) = (1, body);
    if rest.starts_with(b"[") {
        rest = parse_arrays(rest, &mut number, &mut parsed);
        text = rest;
    }
    // Most lines are longer.
    parsed.events.reserve(rest.len() / 128);
    for (at, whole) in (number..).zip(lines(text)) {
        let mut line = without_marks(whole);
        if line.starts_with(b"[") && line.trim_ascii_end().ends_with(b"]") {
            let mut element = at;
            line = parse_arrays(line, &mut element, &mut parsed);
        } else if !line.is_empty() && line.len() == whole.trim_ascii_start().len() {
            // The columns in errors are those of the line.
            line = whole;
        }
        if !line.is_empty() {
            parsed.add(at, parse_object(line, "line"));
        }
    }
    parsed
}

fn without_bom(mut text: &[u8]) -> &[u8] {
    while let Some(rest) = text.strip_prefix(b"\xef\xbb\xbf") {
        text = rest;
    }
    text
}

/// Without white space and byte order marks before it.
fn without_marks(mut text: &[u8]) -> &[u8] {
    loop {
        let rest = without_bom(text.trim_ascii_start());
        if rest.len() == text.len() {
            return rest;
        }
        text = rest;
    }
}

/// Why a body cannot be JSON in UTF-8, and what to do.
fn encoding_problem(body: &[u8]) -> Option<(&'static str, &'static str)> {
    match body {
        [0x1f, 0x8b, ..] => {
            Some(("the body is compressed with gzip", "send it with `content-encoding: gzip`"))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Some(("the body is compressed with zstd", "send it with `content-encoding: zstd`"))
        }
        // With a byte order mark, or without one: JSON begins with ASCII.
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] | [_, 0, 0, 0, ..] | [0, 0, 0, _, ..] => {
            Some(("the body is UTF-32", "send the events in UTF-8"))
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [_, 0, ..] | [0, _, ..] => {
            Some(("the body is UTF-16", "send the events in UTF-8"))
        }
        _ => None,
    }
}

/// Lines that end with LF, CR LF or CR. JSON text escapes both inside of strings.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(body);
    std::iter::from_fn(move || {
        let text = rest?;
        let (line, after) = text.split_at(memchr2(b'\n', b'\r', text).unwrap_or(text.len()));
        rest = match after {
            // A CR at the end of the body ends the last line, and no empty one follows it.
            [] | [b'\r'] => None,
            [b'\r', b'\n', after @ ..] | [_, after @ ..] => Some(after),
        };
        Some(line)
    })
}

/// Arrays, one after the other. Returns what follows them.
fn parse_arrays<'a>(mut rest: &'a [u8], number: &mut usize, parsed: &mut ParsedEvents) -> &'a [u8] {
    while let [b'[', elements @ ..] = rest {
        rest = without_marks(parse_array(elements, number, parsed));
    }
    rest
}

/// The elements of an array after its first bracket, and what follows it. `number`: that of the next event. An invalid
/// element does not affect the others, as long as it is clear where each of them ends.
fn parse_array<'a>(mut rest: &'a [u8], number: &mut usize, parsed: &mut ParsedEvents) -> &'a [u8] {
    let broken = |what: &str| {
        let help = "send [{…}, {…}], or one JSON object a line";
        Err(EventProblem::new("event", format!("the array {what}"), help))
    };
    let mut is_first = true;
    loop {
        rest = rest.trim_ascii_start();
        if is_first && let Some(after) = rest.strip_prefix(b"]") {
            return after;
        }
        let (value, after) = rest.split_at(element(rest));
        let is_empty = value.trim_ascii().is_empty();
        let event = match is_empty {
            true if after.is_empty() => broken("is truncated"),
            true => broken("has an empty element"),
            false => parse_object(value, "element"),
        };
        // If its last element is truncated too, that is one event.
        let is_truncated = after.is_empty() && event.is_ok();
        let event = if after.is_empty() && event.is_err() { broken("is truncated") } else { event };
        parsed.add(*number, event);
        *number += 1;
        if is_truncated {
            parsed.add(*number, broken("is truncated"));
            *number += 1;
        }
        let Some(others) = after.strip_prefix(b",") else {
            // Without the bracket at the end of the array.
            return after.get(1..).unwrap_or_default();
        };
        rest = others;
        is_first = false;
    }
}

/// How many bytes there are up to the comma or the bracket after an array's element.
fn element(rest: &[u8]) -> usize {
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for (at, byte) in rest.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b',' | b']' if depth == 0 => return at,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    rest.len()
}

/// `what`: the name of the object in messages.
fn parse_object(text: &[u8], what: &str) -> Result<Event, EventProblem> {
    if text.len() > MAX_LINE_BYTES {
        let message = format!("the {what} is {} bytes long", text.len());
        let help = format!("send events of at most {MAX_LINE_BYTES} bytes, one in each {what}");
        return Err(EventProblem::new("event", message, help));
    }
    let mut fields = Fields::default();
    // UTF-8 is verified at once: in a slice it would be for each text by itself.
    let read = match std::str::from_utf8(text) {
        Ok(text) => read_fields(serde_json::Deserializer::from_str(text), &mut fields),
        Err(_) => read_fields(serde_json::Deserializer::from_slice(text), &mut fields),
    };
    if let Some(problem) = fields.problem {
        return Err(problem);
    }
    if read.is_ok() && !fields.is_object {
        return Err(EventProblem::new(
            "event",
            format!("the {what} is JSON, but not an object"),
            "send {\"id\": …, \"kind\": …, \"ad_group\": …, \"at\": …}",
        ));
    }
    read.map_err(|error| {
        if text.contains(&0) {
            let help = "remove the NUL characters, also those at the end of a line";
            return EventProblem::new("event", format!("the {what} has a NUL character"), help);
        }
        let help = help_of(&error.to_string(), fields.is_object, what);
        EventProblem::new("event", format!("the {what} is not JSON: {error}"), help)
    })?;
    fields.event()
}

/// What to do about a text that is not JSON.
fn help_of(error: &str, is_object: bool, what: &str) -> &'static str {
    let is = |words: &str| error.starts_with(words);
    if is("number out of range") {
        return "send numbers below 1e308";
    }
    if is_object && (is("expected value") || is("invalid number") || is("expected ident")) {
        return "leave a field without a value out, or send null: NaN and Infinity are not JSON";
    }
    if is("trailing comma") {
        return "remove the comma after the last field";
    }
    if is("lone leading surrogate") || is("unexpected end of hex escape") {
        return "write such characters in UTF-8, or as two \\u escapes";
    }
    if is("invalid unicode code point") {
        return "send the events in UTF-8";
    }
    if what == "element" {
        return "send [{…}, {…}], with a comma between two objects";
    }
    if is_object && is("trailing characters") {
        return "send one JSON object a line without commas between them; with curl use --data-binary, \
                as -d removes the line breaks";
    }
    "send one JSON object a line, without line breaks in it"
}

fn read_fields<'a, R: serde_json::de::Read<'a>>(
    mut reader: serde_json::Deserializer<R>,
    fields: &mut Fields<'a>,
) -> serde_json::Result<()> {
    fields.deserialize(&mut reader).and_then(|()| reader.end())
}

/// The fields of an event in an object.
#[derive(Default)]
struct Fields<'a> {
    is_object: bool,
    values: [Option<Scalar<'a>>; FIELDS.len()],
    /// The problem of the first field that must not be there.
    problem: Option<EventProblem>,
}

/// A value of a field. Text is that of the request, unless it has escapes.
enum Scalar<'a> {
    Null,
    Text(Cow<'a, str>),
    Whole(i64),
    /// Above 2^63.
    Huge,
    Float(f64),
    Other,
}

/// The name of a field.
enum Name {
    /// Its index in [`FIELDS`].
    Known(usize),
    /// Another name, unless it may be a value.
    Unknown(Option<String>),
}

impl<'a> Fields<'a> {
    fn text(&self, name: &str) -> Result<Option<&str>, EventProblem> {
        match self.value(name) {
            None | Some(Scalar::Null) => Ok(None),
            Some(Scalar::Text(text)) => Ok(Some(text)),
            Some(_) => Err(EventProblem::new(name, "is not text", "put it in double quotes")),
        }
    }

    fn value(&self, name: &str) -> Option<&Scalar<'a>> {
        let index = FIELDS.iter().position(|field| *field == name)?;
        self.values[index].as_ref()
    }

    fn required(&self, name: &str) -> Result<&str, EventProblem> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    fn event(&self) -> Result<Event, EventProblem> {
        let kind = match self.required("kind")? {
            "insertion" => EventKind::Insertion,
            "impression" => EventKind::Impression,
            "click" => EventKind::Click,
            other => return Err(unknown_kind(Some(other).filter(|kind| is_shown(kind)))),
        };
        // It is only used to learn delays, so that an invalid one must not reject the event.
        let inserted_at = match self.value("inserted_at") {
            None | Some(Scalar::Null) => None,
            Some(Scalar::Whole(micros)) => Some(in_micros(*micros).unwrap_or(Timestamp(*micros))),
            Some(value) => Some(time("inserted_at", value).unwrap_or(UNREADABLE)),
        };
        let at = self.value("at").ok_or_else(|| missing("at"))?;
        checked(Event {
            id: self.required("id")?.to_owned(),
            kind,
            ad_group: ad_group(self.required("ad_group")?)?,
            // An empty text is none, as in protobuf, which has no other way to leave a field out.
            insertion_id: self
                .text("insertion_id")?
                .filter(|id| !is_missing_id(id.as_bytes()))
                .map(str::to_owned),
            at: time("at", at)?,
            inserted_at,
            money: self.money()?,
            placement: self.text("placement")?.filter(|it| !it.is_empty()).map(str::to_owned),
        })
    }

    fn money(&self) -> Result<EventMoney, EventProblem> {
        let mut money = EventMoney::NONE;
        let price = self.number("price", PER_UNIT)?;
        // The millionths of a price per thousand are the billionths of the price of one.
        let cpm = self.number("cpm", CPM_PER_UNIT)?;
        if price.is_some() && cpm.is_some() {
            let message = "is sent together with a price";
            let help = "send `price`, of one event, or `cpm`, of a thousand, and not both";
            return Err(EventProblem::new("cpm", message, help));
        }
        if cpm.is_some_and(|nanos| !(0..=MAX_PRICE_NANOS).contains(&nanos)) {
            let help = "send the price of a thousand in units of the advertiser's currency";
            return Err(EventProblem::new("cpm", "is not between 0 and 100,000,000,000", help));
        }
        if let Some(nanos) = price.or(cpm) {
            money = money.with_price_nanos(nanos);
        }
        if let Some(rate) = self.number("impression_rate", PER_UNIT)? {
            money = money.with_impression_rate(rate_of(rate));
        }
        if let Some(rate) = self.number("action_rate", PER_UNIT)? {
            money = money.with_action_rate(rate_of(rate));
        }
        Ok(money)
    }

    /// A decimal number, as a number or as text, times a power of ten; saturates. A number with more digits
    /// than that is rounded, as it may be the result of a division; a text with more is refused.
    fn number(&self, name: &str, scale: i64) -> Result<Option<i64>, EventProblem> {
        let invalid = |message: &str| {
            let digits = scale.ilog10();
            let help =
                format!("write a number like 0.25, with at most {digits} digits after the point");
            EventProblem::new(name, message, help)
        };
        match self.value(name) {
            None | Some(Scalar::Null) => Ok(None),
            Some(Scalar::Whole(number)) => Ok(Some(number.saturating_mul(scale))),
            Some(Scalar::Huge) => Ok(Some(i64::MAX)),
            // A negative number stays negative, and is refused: by rounding it could become zero.
            Some(Scalar::Float(number)) => {
                let highest = if *number < 0.0 { -1 } else { i64::MAX };
                Ok(Some(((number * scale as f64).round() as i64).min(highest)))
            }
            Some(Scalar::Text(text)) => {
                scaled(text, scale).map(Some).ok_or_else(|| invalid("is not a decimal number"))
            }
            Some(Scalar::Other) => Err(invalid("is neither a number nor text")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Fields<'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Fields<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.is_object = true;
        while let Some(name) = map.next_key::<Name>()? {
            let index = match name {
                Name::Known(index) => index,
                Name::Unknown(shown) => {
                    let help = format!("the fields are: {}", FIELDS.join(", "));
                    let problem = match shown {
                        Some(name) => EventProblem::new(&name, "there is no such field", help),
                        None => EventProblem::new("event", "it has an unknown field", help),
                    };
                    self.problem.get_or_insert(problem);
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let value = map.next_value()?;
            if self.values[index].replace(value).is_some() {
                let problem = EventProblem::new(FIELDS[index], "occurs twice", "send it once");
                self.problem.get_or_insert(problem);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_str(OfName)
    }
}

struct OfName;

impl Visitor<'_> for OfName {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
        let index = FIELDS.iter().position(|field| *field == name);
        let shown = || Some(name).filter(|name| is_shown(name)).map(str::to_owned);
        Ok(index.map_or_else(|| Name::Unknown(shown()), Name::Known))
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(OfScalar)
    }
}

struct OfScalar;

impl<'de> Visitor<'de> for OfScalar {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Whole(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(i64::try_from(number).map_or(Scalar::Huge, Scalar::Whole))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

/// RFC 3339 text, or a number since 1970, also as text, in a unit that follows from its size: seconds,
/// milliseconds, microseconds or nanoseconds.
fn time(field: &str, value: &Scalar<'_>) -> Result<Timestamp, EventProblem> {
    match value {
        Scalar::Text(text) => match text.parse::<i64>() {
            Ok(number) => in_micros(number).ok_or_else(|| invalid_time(field)),
            // The parser's message has the text, which may be a value of another column.
            Err(_) => text
                .parse()
                .ok()
                .or_else(|| float_in_micros(text.parse().ok()?))
                .ok_or_else(|| EventProblem::new(field, "is not a time", TIME_HELP)),
        },
        Scalar::Whole(number) => in_micros(*number).ok_or_else(|| invalid_time(field)),
        Scalar::Float(number) => float_in_micros(*number).ok_or_else(|| invalid_time(field)),
        Scalar::Huge => Err(invalid_time(field)),
        Scalar::Null => Err(EventProblem::new(field, "is null", TIME_HELP)),
        Scalar::Other => Err(EventProblem::new(field, "is neither text nor a number", TIME_HELP)),
    }
}

fn invalid_time(field: &str) -> EventProblem {
    let message = "is not a time from 2000 to 2100, in seconds, milliseconds, microseconds or nanoseconds \
                   since 1970";
    EventProblem::new(field, message, TIME_HELP)
}

#[cfg(test)]
mod tests;
