//! Reads a record of the event log in place: no text is copied and nothing is allocated for an event.
//! An aggregator spends much of its time here.

use std::time::Duration;

use throng_model::Timestamp;

use crate::event::{EventProblem, MAX_AHEAD, MAX_ID_BYTES, check_time, plausible};
use crate::missing_id::is_missing_id;
use crate::money::{EventMoney, placement_problem};
use crate::{Event, EventKind};

/// Events of one record: it stays far below the largest record that a log accepts.
pub const EVENTS_PER_RECORD: usize = 10_000;
/// The length of most events in a record, by which memory is reserved.
pub(crate) const EVENT_BYTES: usize = 64;

/// Text in a record: UTF-8, which was verified when it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    #[inline]
    fn new(bytes: &'a [u8]) -> Option<Self> {
        // Nearly all names and ids are ASCII, which is verified eight bytes at a time.
        (bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()).then_some(Self(bytes))
    }

    /// As text. Verifies it again.
    #[inline]
    pub fn as_str(self) -> &'a str {
        std::str::from_utf8(self.0).unwrap_or_default()
    }

    /// Its bytes.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl<'a> From<&'a str> for Text<'a> {
    #[inline]
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

/// One event of a record, borrowed from its bytes. Whether it counts is checked by [`EventRef::is_valid`] and by
/// the engine, which knows the ad groups. By default it has no field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// See [`crate::Event::id`].
    pub id: Text<'a>,
    /// What happened, as a number of `throng.events.v1.Kind`.
    pub kind_number: i32,
    /// The ad group's name.
    pub ad_group: Text<'a>,
    /// The insertion that it belongs to; empty if it has none.
    pub insertion_id: Text<'a>,
    /// Microseconds since 1970; 0 if it has no time.
    pub at: Timestamp,
    /// When the insertion was made, if the event has that.
    pub inserted_at: Option<Timestamp>,
    /// See [`crate::Event::money`].
    pub money: EventMoney,
    /// See [`crate::Event::placement`]; empty if it has none.
    pub placement: Text<'a>,
}

impl<'a> From<&'a Event> for EventRef<'a> {
    #[inline]
    fn from(event: &'a Event) -> Self {
        Self {
            id: event.id.as_str().into(),
            kind_number: event.kind.number(),
            ad_group: event.ad_group.as_str().into(),
            insertion_id: event.insertion_id.as_deref().unwrap_or_default().into(),
            at: event.at,
            inserted_at: event.inserted_at,
            money: event.money,
            placement: event.placement.as_deref().unwrap_or_default().into(),
        }
    }
}

impl EventRef<'_> {
    /// What happened; `None` for an unknown number.
    #[inline]
    pub fn kind(&self) -> Option<EventKind> {
        match self.kind_number {
            1 => Some(EventKind::Insertion),
            2 => Some(EventKind::Impression),
            3 => Some(EventKind::Click),
            _ => None,
        }
    }

    /// When the insertion was made, if that is plausible: see [`Event::plausible_inserted_at`].
    #[inline]
    pub fn plausible_inserted_at(&self) -> Option<Timestamp> {
        plausible(self.inserted_at, self.at)
    }

    /// Whether it is neither in the future nor older than ids are remembered: it could count twice.
    #[inline]
    pub fn is_in_time(&self, now: Timestamp, dedupe_window: Duration) -> bool {
        let dedupe_window = i64::try_from(dedupe_window.as_micros()).unwrap_or(i64::MAX);
        let ages = -(MAX_AHEAD.as_micros() as i64)..=dedupe_window;
        ages.contains(&now.0.saturating_sub(self.at.0))
    }

    /// As [`is_in_time`](Self::is_in_time), with an explanation.
    ///
    /// # Errors
    /// The problem, without its line.
    #[inline]
    pub fn check_time(&self, now: Timestamp, dedupe_window: Duration) -> Result<(), EventProblem> {
        match self.is_in_time(now, dedupe_window) {
            true => Ok(()),
            false => check_time(self.at, now, dedupe_window),
        }
    }

    /// Whether it may count if its ad group is known: the same checks as of [`crate::ProtobufEvents`] and
    /// [`check_time`](Self::check_time), without explanations.
    #[inline]
    pub fn is_valid(&self, now: Timestamp, dedupe_window: Duration) -> bool {
        self.has_valid_fields() && self.is_in_time(now, dedupe_window)
    }

    /// The same, whatever its time is.
    #[inline]
    pub(crate) fn has_valid_fields(&self) -> bool {
        let id = 1..=MAX_ID_BYTES;
        self.kind().is_some()
            && self.at.0 != 0
            && id.contains(&self.id.0.len())
            && !is_missing_id(self.id.0)
            && self.insertion_id.0.len() <= MAX_ID_BYTES
            && self.has_valid_money()
    }

    #[inline]
    fn has_valid_money(&self) -> bool {
        // Most events carry neither.
        if self.money.is_none() && self.placement.0.is_empty() {
            return true;
        }
        let is_insertion = self.kind() == Some(EventKind::Insertion);
        self.money.problem(is_insertion).is_none()
            && placement_problem(self.placement.0, is_insertion).is_none()
    }
}

/// Why bytes are not a `throng.events.v1.Events` message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They end in the middle of a field.
    #[error("it ends in the middle of a field")]
    Cut,
    /// A field has the type of another.
    #[error("field {0} has another type")]
    OtherType(u64),
    /// A text is not UTF-8.
    #[error("field {0} is not UTF-8")]
    NotUtf8(u64),
    /// A number is longer than 64 bits, or a field number is invalid.
    #[error("it has an invalid number")]
    BadNumber,
}

/// Reads a record's events, one after the other. Unknown fields are skipped, as protobuf requires.
///
/// # Errors
/// [`RecordError`]. `each` was called with the events before the damage: a caller that wants all events of a
/// record or none has to collect them.
pub fn read_record<'a>(
    record: &'a [u8],
    mut each: impl FnMut(EventRef<'a>),
) -> Result<(), RecordError> {
    let mut fields = Fields { rest: record };
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            each(read_event(value.bytes(number)?)?);
        }
    }
    Ok(())
}

/// As [`read_record`], as an iterator. It is not used further after an error.
#[derive(Debug, Clone)]
pub struct RecordEvents<'a> {
    fields: Fields<'a>,
}

impl<'a> RecordEvents<'a> {
    /// The events of a record.
    pub fn new(record: &'a [u8]) -> Self {
        Self { fields: Fields { rest: record } }
    }
}

impl<'a> Iterator for RecordEvents<'a> {
    type Item = Result<EventRef<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.fields.next() {
                Ok(None) => return None,
                Ok(Some((1, value))) => return Some(value.bytes(1).and_then(read_event)),
                Ok(Some(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Keys of fields with the type that they have, in one byte: eight times the number, and 2 for a text.
const ID: u8 = 0x0a;
const KIND: u8 = 0x10;
const AD_GROUP: u8 = 0x1a;
const INSERTION_ID: u8 = 0x22;
const AT: u8 = 0x28;
const INSERTED_AT: u8 = 0x30;

#[inline]
fn read_event(bytes: &[u8]) -> Result<EventRef<'_>, RecordError> {
    let (mut id, mut ad_group, mut insertion_id) = <(Text, Text, Text)>::default();
    let (mut kind_number, mut at, mut inserted_at) = (0, 0, 0);
    let (mut money, mut placement) = (EventMoney::NONE, Text::default());
    let mut fields = Fields { rest: bytes };
    while let Some((key, rest)) = fields.rest.split_first() {
        // What nearly every event has: the key says field and type, and nothing else of it is checked.
        match *key {
            ID => {
                id = fields.text_in(rest, 1)?;
                continue;
            }
            KIND => {
                kind_number = fields.number_in(rest)? as i32;
                continue;
            }
            AD_GROUP => {
                ad_group = fields.text_in(rest, 3)?;
                continue;
            }
            INSERTION_ID => {
                insertion_id = fields.text_in(rest, 4)?;
                continue;
            }
            AT => {
                at = fields.number_in(rest)?;
                continue;
            }
            INSERTED_AT => {
                inserted_at = fields.number_in(rest)?;
                continue;
            }
            _ => {}
        }
        // Also those, with another type or a longer key.
        let Some((number, value)) = fields.next()? else { break };
        match number {
            1 => id = value.text(number)?,
            // Protobuf decoders keep the low 32 bits of an enum.
            2 => kind_number = value.number(number)? as i32,
            3 => ad_group = value.text(number)?,
            4 => insertion_id = value.text(number)?,
            5 => at = value.number(number)?,
            6 => inserted_at = value.number(number)?,
            7 => money = money.with_price_nanos(value.number(number)?),
            // As with an enum: the low 32 bits.
            8 => money = money.with_impression_rate(value.number(number)? as u32),
            9 => money = money.with_action_rate(value.number(number)? as u32),
            10 => placement = value.text(number)?,
            _ => {}
        }
    }
    // One that stands for a missing value is none: all events that have it would be of one insertion.
    if is_missing_id(insertion_id.0) {
        insertion_id = Text::default();
    }
    let inserted_at = (inserted_at != 0).then_some(Timestamp(inserted_at));
    let at = Timestamp(at);
    Ok(EventRef { id, kind_number, ad_group, insertion_id, at, inserted_at, money, placement })
}

/// An encoded value. Numbers of fixed width are skipped.
#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Value<'a> {
    #[inline]
    fn bytes(self, field: u64) -> Result<&'a [u8], RecordError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed => Err(RecordError::OtherType(field)),
        }
    }

    #[inline]
    fn text(self, field: u64) -> Result<Text<'a>, RecordError> {
        Text::new(self.bytes(field)?).ok_or(RecordError::NotUtf8(field))
    }

    #[inline]
    fn number(self, field: u64) -> Result<i64, RecordError> {
        match self {
            Self::Varint(number) => Ok(number.cast_signed()),
            Self::Bytes(_) | Self::Fixed => Err(RecordError::OtherType(field)),
        }
    }
}

/// The fields of a message, one after the other
/// (<https://protobuf.dev/programming-guides/encoding/>).
#[derive(Debug, Clone)]
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline(always)]
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, RecordError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let (field, wire) = (key >> 3, key & 7);
        if field == 0 || key > u64::from(u32::MAX) {
            return Err(RecordError::BadNumber);
        }
        let value = match wire {
            0 => Value::Varint(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| RecordError::Cut)?;
                Value::Bytes(self.take(length)?)
            }
            1 => self.take(8).map(|_| Value::Fixed)?,
            5 => self.take(4).map(|_| Value::Fixed)?,
            // Groups, which proto3 does not have, and undefined wire types.
            _ => return Err(RecordError::OtherType(field)),
        };
        Ok(Some((field, value)))
    }

    /// The text of a field after its key.
    #[inline(always)]
    fn text_in(&mut self, rest: &'a [u8], field: u64) -> Result<Text<'a>, RecordError> {
        self.rest = rest;
        let length = usize::try_from(self.varint()?).map_err(|_| RecordError::Cut)?;
        Text::new(self.take(length)?).ok_or(RecordError::NotUtf8(field))
    }

    /// The number of a field after its key.
    #[inline(always)]
    fn number_in(&mut self, rest: &'a [u8]) -> Result<i64, RecordError> {
        self.rest = rest;
        Ok(self.varint()?.cast_signed())
    }

    #[inline(always)]
    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(RecordError::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, RecordError> {
        // Keys, kinds and most lengths.
        if let Some((byte, rest)) = self.rest.split_first()
            && *byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    #[inline]
    fn long_varint(&mut self) -> Result<u64, RecordError> {
        // Times take eight bytes: these are decoded at once.
        if let Some(bytes) = self.rest.first_chunk::<8>() {
            let word = u64::from_le_bytes(*bytes);
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                let length = ends.trailing_zeros() as usize / 8 + 1;
                self.rest = &self.rest[length..];
                return Ok(join_low_sevens(word & (ends ^ (ends - 1))));
            }
        }
        self.any_varint()
    }

    #[cold]
    fn any_varint(&mut self) -> Result<u64, RecordError> {
        let (mut number, mut shift) = (0u64, 0);
        for (place, byte) in self.rest.iter().enumerate() {
            // The tenth byte has room for one bit.
            if place == 9 && *byte > 1 {
                return Err(RecordError::BadNumber);
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                self.rest = &self.rest[place + 1..];
                return Ok(number);
            }
            shift += 7;
        }
        Err(RecordError::Cut)
    }
}

/// Joins the low seven bits of each byte.
#[inline]
fn join_low_sevens(word: u64) -> u64 {
    let word = word & 0x7f7f_7f7f_7f7f_7f7f;
    let word = (word & 0x7f00_7f00_7f00_7f00) >> 1 | (word & 0x007f_007f_007f_007f);
    let word = (word & 0x3fff_0000_3fff_0000) >> 2 | (word & 0x0000_3fff_0000_3fff);
    (word & 0x0fff_ffff_0000_0000) >> 4 | (word & 0x0000_0000_0fff_ffff)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    /// The schema in another implementation.
    #[derive(Clone, PartialEq, Message)]
    struct WireEvent {
        #[prost(string, tag = "1")]
        id: String,
        #[prost(int32, tag = "2")]
        kind: i32,
        #[prost(string, tag = "3")]
        ad_group: String,
        #[prost(string, tag = "4")]
        insertion_id: String,
        #[prost(int64, tag = "5")]
        at_micros: i64,
        #[prost(int64, tag = "6")]
        inserted_at_micros: i64,
        #[prost(int64, optional, tag = "7")]
        price_nanos: Option<i64>,
        #[prost(uint32, optional, tag = "8")]
        impression_rate_billionths: Option<u32>,
        #[prost(uint32, optional, tag = "9")]
        action_rate_billionths: Option<u32>,
        #[prost(string, tag = "10")]
        placement: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct WireEvents {
        #[prost(message, repeated, tag = "1")]
        events: Vec<WireEvent>,
    }

    fn same(ours: &EventRef<'_>, theirs: &WireEvent) -> bool {
        let insertion_id = Some(&*theirs.insertion_id).filter(|id| !is_missing_id(id.as_bytes()));
        (ours.id.as_str(), ours.ad_group.as_str(), ours.insertion_id.as_str())
            == (&*theirs.id, &*theirs.ad_group, insertion_id.unwrap_or_default())
            && (ours.kind_number, ours.at.0) == (theirs.kind, theirs.at_micros)
            && ours.inserted_at.map_or(0, |at| at.0) == theirs.inserted_at_micros
            && ours.money == money(theirs)
            && ours.placement.as_str() == theirs.placement
    }

    fn money(event: &WireEvent) -> EventMoney {
        let mut money = EventMoney::NONE;
        if let Some(price) = event.price_nanos {
            money = money.with_price_nanos(price);
        }
        if let Some(rate) = event.impression_rate_billionths {
            money = money.with_impression_rate(rate);
        }
        if let Some(rate) = event.action_rate_billionths {
            money = money.with_action_rate(rate);
        }
        money
    }

    fn wire_event() -> impl Strategy<Value = WireEvent> {
        let texts = ("\\PC{0,20}", "\\PC{0,20}", "\\PC{0,20}", "\\PC{0,20}");
        let money = any::<(Option<i64>, Option<u32>, Option<u32>)>();
        (texts, any::<i32>(), any::<i64>(), any::<i64>(), money).prop_map(
            |(
                (id, ad_group, insertion_id, placement),
                kind,
                at_micros,
                inserted_at_micros,
                money,
            )| {
                WireEvent {
                    id,
                    kind,
                    ad_group,
                    insertion_id,
                    at_micros,
                    inserted_at_micros,
                    price_nanos: money.0,
                    impression_rate_billionths: money.1,
                    action_rate_billionths: money.2,
                    placement,
                }
            },
        )
    }

    /// A record as a version wrote it in which events had no price: the same event, at the ad group's terms.
    #[test]
    fn records_of_earlier_versions_are_read() {
        let record = [
            0x0a, 0x1c, 0x0a, 0x02, b'e', b'1', 0x1a, 0x05, b's', b'h', b'o', b'e', b's', 0x22,
            0x02, b'i', b'1', 0x10, 0x03, 0x28, 0x80, 0x89, 0x7a, 0x30, 0xc0, 0x84, 0x3d, 0xa2,
            0x01, 0x00,
        ];
        let mut read = Vec::new();
        assert_eq!(read_record(&record, |event| read.push(event)), Ok(()));
        let event = EventRef {
            id: "e1".into(),
            kind_number: 3,
            ad_group: "shoes".into(),
            insertion_id: "i1".into(),
            at: Timestamp(2_000_000),
            inserted_at: Some(Timestamp(1_000_000)),
            money: EventMoney::NONE,
            placement: Text::default(),
        };
        assert_eq!(read, [event]);
        assert!(event.is_valid(Timestamp(3_000_000), Duration::from_secs(24 * 3_600)));
    }

    #[test]
    fn fields_of_later_versions_are_skipped() {
        // An event of: field 20, a varint; field 1, "a"; field 21, 8 bytes; field 22, 4 bytes.
        let mut event = vec![0xa0, 1, 0xff, 1, 0x0a, 1, b'a', 0xa9, 1];
        event.extend([7; 8]);
        event.extend([0xb5, 1, 7, 7, 7, 7]);
        let mut record = vec![0x12, 1, b'x', 0x0a, event.len() as u8];
        record.extend(event);
        let mut read = Vec::new();
        assert_eq!(read_record(&record, |event| read.push(event)), Ok(()));
        assert_eq!(read.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_key_of_two_bytes_is_read_and_one_of_another_type_refused() {
        let mut ids = Vec::new();
        let long_key = [0x0a, 4, 0x8a, 0, 1, b'a'];
        assert_eq!(read_record(&long_key, |event| ids.push(event.id)), Ok(()));
        assert_eq!(ids, [Text::from("a")]);
        assert_eq!(read_record(&[0x0a, 2, 0x08, 1], |_| {}), Err(RecordError::OtherType(1)));
    }

    proptest! {
        #[test]
        fn what_another_implementation_writes_is_read(
            events in prop::collection::vec(wire_event(), 0..5)
        ) {
            let bytes = WireEvents { events: events.clone() }.encode_to_vec();
            let mut read = Vec::new();
            prop_assert_eq!(read_record(&bytes, |event| read.push(event)), Ok(()));
            prop_assert_eq!(read.len(), events.len());
            prop_assert!(read.iter().zip(&events).all(|(ours, theirs)| same(ours, theirs)));
        }

        /// Damaged bytes are rejected exactly where another implementation rejects them.
        #[test]
        fn both_agree_on_damaged_bytes(
            event in wire_event(), place in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let mut bytes = WireEvents { events: vec![event] }.encode_to_vec();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            let mut read = Vec::new();
            let ours = read_record(&bytes, |event| read.push(event));
            let again: Result<Vec<EventRef<'_>>, RecordError> = RecordEvents::new(&bytes).collect();
            prop_assert_eq!(again, ours.map(|()| read.clone()));
            match WireEvents::decode(&*bytes) {
                Ok(theirs) if ours.is_ok() => {
                    prop_assert!(read.iter().zip(&theirs.events).all(|(a, b)| same(a, b)));
                }
                // Groups, and unknown fields of a wrong type, are the only difference.
                Ok(_) => prop_assert!(matches!(ours, Err(RecordError::OtherType(_)))),
                Err(_) => prop_assert!(ours.is_err()),
            }
        }
    }
}
