//! Writes events as field 1 of a `throng.events.v1.Events` message, without an allocation for an event. Every event
//! that a node accepts is written once, as a part of a record of the log. Pure.

use crate::Event;
use crate::record::{EVENT_BYTES, EVENTS_PER_RECORD, EventRef, Text};

/// Events as one record of the log: an `Events` message. [`crate::read_record`] reads it back.
pub fn events_to_record<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<u8> {
    let events = events.into_iter();
    let mut out = Vec::with_capacity(events.size_hint().0.min(EVENTS_PER_RECORD) * EVENT_BYTES);
    events.for_each(|event| append_event(&mut out, &event.into()));
    out
}

/// Appends an event to a record. The same bytes whether the event was sent as JSON or as protobuf, as fields of later
/// versions are not kept.
pub fn append_event(out: &mut Vec<u8>, event: &EventRef<'_>) {
    // First, so that the length of the event is known before its texts are written.
    let mut numbers = Numbers::default();
    numbers.put(2, i64::from(event.kind_number));
    for (field, number) in [(5, event.at.0), (6, event.inserted_at.map_or(0, |at| at.0))] {
        if number != 0 {
            numbers.put(field, number);
        }
    }
    // Those that the event does not carry are left out, so that the ad group's count; zero is written.
    if !event.money.is_none() {
        let money = event.money;
        let rates = [(8, money.impression_rate()), (9, money.action_rate())];
        let rates = rates.into_iter().filter_map(|(field, rate)| Some((field, i64::from(rate?))));
        let price = money.price_nanos().map(|price| (7, price));
        price.into_iter().chain(rates).for_each(|(field, number)| numbers.put(field, number));
    }
    let texts =
        [(1, event.id), (3, event.ad_group), (4, event.insertion_id), (10, event.placement)];
    let length = texts.iter().map(|(_, text)| length_of(*text)).sum::<usize>() + numbers.length;
    out.reserve(1 + MAX_VARINT + length);
    put_head(out, 1, length);
    for (field, text) in texts {
        let text = text.as_bytes();
        if !text.is_empty() {
            put_head(out, field, text.len());
            out.extend_from_slice(text);
        }
    }
    out.extend_from_slice(numbers.as_bytes());
}

/// Wire types.
const VARINT: u8 = 0;
const BYTES: u8 = 2;
/// Bytes of the longest number.
const MAX_VARINT: usize = 10;
/// Bytes of the longest number that is written as one word, and the numbers below which that is possible.
const WORD: usize = 8;
const MAX_IN_WORD: u64 = 1 << (7 * WORD);
/// Bytes of six numbers with their keys, and of the word that is written at the end of the last one.
const NUMBERS: usize = 6 * (1 + MAX_VARINT) + WORD;

/// The key of a field with a number below 16: one byte.
#[inline]
const fn key(field: u8, wire: u8) -> u8 {
    field << 3 | wire
}

/// Bytes of a field with a text; an empty one is left out.
#[inline]
fn length_of(text: Text<'_>) -> usize {
    match text.as_bytes().len() {
        0 => 0,
        length if length < 0x80 => 2 + length,
        length => 1 + bytes_of(length as u64) + length,
    }
}

/// Bytes of a number.
#[inline]
fn bytes_of(number: u64) -> usize {
    let bits = 64 - (number | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Writes the key of a field of bytes, and how many they are.
#[inline]
fn put_head(out: &mut Vec<u8>, field: u8, length: usize) {
    // Nearly all are shorter: both bytes are written at once.
    match length < 0x80 {
        true => out.extend_from_slice(&[key(field, BYTES), length as u8]),
        false => put_long_head(out, field, length),
    }
}

fn put_long_head(out: &mut Vec<u8>, field: u8, mut length: usize) {
    out.push(key(field, BYTES));
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// The numbers of one event, at most six, as they are written.
struct Numbers {
    bytes: [u8; NUMBERS],
    length: usize,
}

impl Default for Numbers {
    #[inline]
    fn default() -> Self {
        Self { bytes: [0; NUMBERS], length: 0 }
    }
}

impl Numbers {
    #[inline]
    fn put(&mut self, field: u8, number: i64) {
        let number = number.cast_unsigned();
        self.put_byte(key(field, VARINT));
        // Kinds.
        if number < 0x80 {
            return self.put_byte(number as u8);
        }
        if number >= MAX_IN_WORD {
            return self.put_long(number);
        }
        // Times take eight bytes: these are written at once.
        let length = bytes_of(number);
        let continued = 0x8080_8080_8080_8080 & ((1 << (8 * (length - 1))) - 1);
        let word = (split_in_sevens(number) | continued).to_le_bytes();
        self.bytes[self.length..][..WORD].copy_from_slice(&word);
        self.length += length;
    }

    #[inline]
    fn put_byte(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// A negative number, or a very large one.
    #[cold]
    fn put_long(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.put_byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.put_byte(number as u8);
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Splits a number below 2^56 into bytes of seven bits, the lowest first.
#[inline]
fn split_in_sevens(number: u64) -> u64 {
    let word = (number & 0x00ff_ffff_f000_0000) << 4 | (number & 0x0000_0000_0fff_ffff);
    let word = (word & 0x0fff_c000_0fff_c000) << 2 | (word & 0x0000_3fff_0000_3fff);
    (word & 0x3f80_3f80_3f80_3f80) << 1 | (word & 0x007f_007f_007f_007f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::encoding::{WireType, encode_key, encode_varint, int32, int64, uint32};
    use throng_model::Timestamp;

    use super::*;
    use crate::{EventMoney, read_record};

    /// The same in another implementation of the encoding. Records of earlier versions were written by it.
    fn written_by_prost(event: &EventRef<'_>) -> Vec<u8> {
        let mut fields = Vec::new();
        let texts =
            [(1, event.id), (3, event.ad_group), (4, event.insertion_id), (10, event.placement)];
        for (field, text) in texts.map(|(field, text)| (field, text.as_str())) {
            if !text.is_empty() {
                prost::encoding::string::encode(field, &text.to_owned(), &mut fields);
            }
        }
        int32::encode(2, &event.kind_number, &mut fields);
        let inserted_at = event.inserted_at.map_or(0, |at| at.0);
        for (field, number) in [(5, event.at.0), (6, inserted_at)] {
            if number != 0 {
                int64::encode(field, &number, &mut fields);
            }
        }
        if let Some(price) = event.money.price_nanos() {
            int64::encode(7, &price, &mut fields);
        }
        let rates = [(8, event.money.impression_rate()), (9, event.money.action_rate())];
        for (field, rate) in rates {
            if let Some(rate) = rate {
                uint32::encode(field, &rate, &mut fields);
            }
        }
        let mut out = Vec::new();
        encode_key(1, WireType::LengthDelimited, &mut out);
        encode_varint(fields.len() as u64, &mut out);
        out.extend(fields);
        out
    }

    /// Numbers of every length.
    fn number() -> impl Strategy<Value = i64> {
        (any::<i64>(), 0u32..64).prop_map(|(number, shift)| number >> shift)
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z0-9-]{0,24}", "\\PC{0,20}", "[a-z]{120,400}"]
    }

    proptest! {
        /// Bytes and meaning are those of another implementation, for every event that can be in a record.
        #[test]
        fn events_are_written_as_before_and_read_back(
            events in prop::collection::vec(
                (
                    (text(), text(), text(), text()),
                    any::<i32>(),
                    (number(), number()),
                    (proptest::option::of(number()), any::<[Option<u32>; 2]>()),
                ),
                0..4,
            ),
        ) {
            let (mut record, mut theirs, mut written) = (Vec::new(), Vec::new(), Vec::new());
            for ((id, ad_group, insertion_id, placement), kind, (at, inserted_at), money) in &events
            {
                let (price, [impression_rate, action_rate]) = *money;
                let mut money = EventMoney::NONE;
                money = price.map_or(money, |price| money.with_price_nanos(price));
                money = impression_rate.map_or(money, |rate| money.with_impression_rate(rate));
                money = action_rate.map_or(money, |rate| money.with_action_rate(rate));
                let event = EventRef {
                    id: id.as_str().into(),
                    kind_number: *kind,
                    ad_group: ad_group.as_str().into(),
                    insertion_id: insertion_id.as_str().into(),
                    at: Timestamp(*at),
                    inserted_at: Some(Timestamp(*inserted_at)).filter(|at| at.0 != 0),
                    money,
                    placement: placement.as_str().into(),
                };
                append_event(&mut record, &event);
                theirs.extend(written_by_prost(&event));
                written.push(event);
            }
            prop_assert_eq!(&record, &theirs);
            let mut read = Vec::new();
            prop_assert_eq!(read_record(&record, |event| read.push(event)), Ok(()));
            // A reader takes an id that stands for a missing value as none.
            for event in &mut written {
                if crate::missing_id::is_missing_id(event.insertion_id.as_bytes()) {
                    event.insertion_id = Text::default();
                }
            }
            prop_assert_eq!(read, written);
        }
    }

    #[test]
    fn numbers_of_every_length_are_written() {
        let ends = (0..64).map(|bits| 1i64 << bits);
        for number in ends.flat_map(|end| [end.wrapping_sub(1), end, end.wrapping_add(1)]) {
            let (mut ours, mut theirs) = (Numbers::default(), Vec::new());
            ours.put(7, number);
            int64::encode(7, &number, &mut theirs);
            assert_eq!(ours.as_bytes(), theirs, "{number}");
            assert_eq!(bytes_of(number.cast_unsigned()), theirs.len() - 1, "{number}");
        }
        // All six of the longest.
        let mut numbers = Numbers::default();
        (0..6).for_each(|field| numbers.put(field, -1));
        assert_eq!(numbers.length, NUMBERS - WORD);
        let mut numbers = Numbers::default();
        (0..6).for_each(|field| numbers.put(field, MAX_IN_WORD.cast_signed() - 1));
        assert_eq!(numbers.length, 6 * (1 + WORD));
    }

    #[test]
    fn a_record_has_these_bytes() {
        let event = EventRef {
            id: "e1".into(),
            kind_number: 3,
            ad_group: "shoes".into(),
            insertion_id: "i1".into(),
            at: Timestamp(2_000_000),
            inserted_at: Some(Timestamp(1_000_000)),
            money: EventMoney::NONE.with_price_nanos(0).with_action_rate(1),
            placement: "home".into(),
        };
        let mut record = Vec::new();
        append_event(&mut record, &event);
        let mut wanted = vec![0x0a, 35];
        wanted.extend(b"\x0a\x02e1\x1a\x05shoes\x22\x02i1\x52\x04home");
        wanted.extend([0x10, 3, 0x28, 0x80, 0x89, 0x7a, 0x30, 0xc0, 0x84, 0x3d]);
        wanted.extend([0x38, 0, 0x48, 1]);
        assert_eq!(record, wanted, "records of every earlier version have to be read");
    }
}
