//! Open insertions in a checkpoint: one after the other, ascending by id, so that equal states have equal bytes.
//!
//! ```text
//! 10      the id
//! varint  its window minus that of the one before, in zigzag
//! varint  milliseconds from the window's start
//! varint  what it is expected to earn
//! varint  0, or its own price in billionths plus one
//! varint  the number of its placement; up to format 5 it is not there
//! ```

use prost::encoding::{decode_varint, encode_varint};
use throng_rates::{NO_PLACEMENT, Placements};

use crate::engine::ids::Id;
use crate::engine::open::{OpenInsertion, OpenInsertions};

/// An open insertion with its id.
type Entry = (Id, OpenInsertion);

pub(super) fn save(open: &OpenInsertions) -> Vec<u8> {
    let mut entries: Vec<Entry> = open.iter().collect();
    // Nearly sorted already.
    entries.sort_by_key(|(id, _)| *id);
    let mut bytes = Vec::with_capacity(entries.len() * 24);
    let mut last = 0;
    for (id, insertion) in entries {
        bytes.extend_from_slice(&id.to_bytes());
        encode_varint(zigzag(i64::from(insertion.window) - last), &mut bytes);
        last = insertion.window.into();
        encode_varint(insertion.millis.into(), &mut bytes);
        encode_varint(insertion.expected.max(0).cast_unsigned(), &mut bytes);
        let price = insertion.price_nanos.map_or(0, |price| price.max(0).cast_unsigned() + 1);
        encode_varint(price, &mut bytes);
        encode_varint(insertion.placement.into(), &mut bytes);
    }
    bytes
}

/// Restores what [`save`] has written with these placements, or what an earlier version without placements has
/// written. `None` if the bytes are not that.
pub(super) fn load(
    mut bytes: &[u8],
    block: i64,
    placements: Option<&Placements>,
) -> Option<OpenInsertions> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut last = 0i64;
    while let Some((id, rest)) = bytes.split_first_chunk::<{ Id::WIDTH }>() {
        bytes = rest;
        let mut number = || decode_varint(&mut bytes).ok();
        last = last.checked_add(unzigzag(number()?))?;
        let millis = u16::try_from(number()?).ok().filter(|millis| *millis < 10_000)?;
        let expected = i64::try_from(number()?).ok()?;
        let price_nanos = match number()? {
            0 => None,
            price => Some(i64::try_from(price - 1).ok()?),
        };
        let placement = match placements {
            Some(known) => {
                let placement = u16::try_from(number()?).ok();
                placement.filter(|placement| known.is_known(*placement))?
            }
            None => NO_PLACEMENT,
        };
        let window = i32::try_from(last).ok()?;
        let insertion = OpenInsertion { window, millis, expected, price_nanos, placement };
        entries.push((Id::from_bytes(id), insertion));
    }
    let is_sorted = entries.is_sorted_by(|(a, _), (b, _)| a < b);
    (bytes.is_empty() && is_sorted).then(|| OpenInsertions::load(&entries, block))
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use throng_model::Timestamp;

    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_nothing_else() {
        let mut open = OpenInsertions::default();
        for number in 0..500u64 {
            let at = Timestamp(1_767_225_600_000_000 - number.cast_signed() * 7_654_321);
            let price = (number % 3 > 0).then_some(number.cast_signed() * 1_000_003);
            let placement = (number % 5) as u16;
            let expected = number.cast_signed() % 97;
            let insertion = OpenInsertion::new(at, expected, price, placement).unwrap();
            open.open(Id::of_parts(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), 3), insertion);
        }
        let bytes = save(&open);
        let mut placements = Placements::default();
        for number in 2..5u16 {
            assert_eq!(placements.number(number.to_string().as_bytes()), number);
        }
        let load = |bytes: &[u8], block| super::load(bytes, block, Some(&placements));
        assert!(super::load(&bytes, 0, Some(&Placements::default())).is_none(), "unknown ones");
        let again = load(&bytes, open.block()).unwrap();
        assert_eq!((again.len(), again.block()), (500, open.block()));
        assert!(open.iter().all(|(id, insertion)| again.get(id) == Some(insertion)));
        assert_eq!(save(&again), bytes, "equal states have equal bytes");
        assert_eq!(load(&[], 7).map(|open| (open.len(), open.block())), Some((0, 7)));
        for cut in 1..40 {
            let cut = &bytes[..bytes.len() - cut];
            assert!(load(cut, 0).is_none_or(|open| save(&open) == cut), "a part of an entry");
        }
        let doubled = [&bytes[..], &bytes[..]].concat();
        assert!(load(&doubled, 0).is_none(), "an id twice");
        assert_eq!(
            [0, -1, 1, i64::MIN, i64::MAX].map(|n| unzigzag(zigzag(n))),
            [0, -1, 1, i64::MIN, i64::MAX]
        );
    }
}
