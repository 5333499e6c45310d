//! A column of integers: a Huffman code for the number of significant bits, then those bits raw.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | bit 0: numbers are zigzag coded (0, -1, 1, -2, …); the others are 0 |
//! | 1 to 10 | unit `u`, LEB128, at least 1: each value is `number * u` |
//! | 1 | how many classes `k`, 1 to 65 |
//! | 2 k | class and length of its code, by ascending class |
//! | 4 | length `b` of the bit stream in bytes |
//! | b | bit stream |
//!
//! The class of a number is its bit length: 0 for 0, 1 for 1, 2 for 2 and 3, … 64. Codes are
//! canonical Huffman: shorter first, then by class; at most 12 bits; a single class has a code of
//! length 0. The stream is filled from the low bit of each byte. A number is its code, first bit of
//! the code first, then the bits below its leading one, lowest first. The last byte is filled up
//! with zeros.
//!
//! Why not blocks of equal width: spend is log-normal, so a block of 128 values is as wide as its widest one
//! and wastes three bits a value; and constant columns (gaps of a keyframe, flags) take no bits here.

use crate::error::FeedError;

const LONGEST: u32 = 12;
const CLASSES: usize = 65;

fn malformed<T>(problem: &'static str) -> Result<T, FeedError> {
    Err(FeedError::Malformed(problem))
}

/// Reads numbers from a slice.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], FeedError> {
        match self.0.split_at_checked(count) {
            Some((head, tail)) => {
                self.0 = tail;
                Ok(head)
            }
            None => malformed("it is truncated"),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FeedError> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FeedError> {
        let mut buffer = [0; 4];
        buffer.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(buffer))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FeedError> {
        let mut buffer = [0; 8];
        buffer.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(buffer))
    }

    fn varint(&mut self) -> Result<u64, FeedError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 127);
            if part << shift >> shift != part {
                return malformed("a unit is too long");
            }
            value |= part << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        malformed("a unit is too long")
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn class_of(number: u64) -> usize {
    (64 - number.leading_zeros()) as usize
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The code lengths of a Huffman code of at most [`LONGEST`] bits.
fn code_lengths(counts: &[u64; CLASSES]) -> [u8; CLASSES] {
    let mut weights = *counts;
    loop {
        let lengths = huffman(&weights);
        if lengths.iter().all(|&l| u32::from(l) <= LONGEST) {
            return lengths;
        }
        // Flatter weights give shorter codes; equal ones give seven bits at most. Why a limit at all: the
        // decoder looks codes up in a table of 2^12 places; without a limit the rarest of 65 classes could
        // have a code of 64 bits, which no table holds.
        for weight in weights.iter_mut().filter(|w| **w > 0) {
            *weight = (*weight).div_ceil(2) + 1;
        }
    }
}

fn huffman(weights: &[u64; CLASSES]) -> [u8; CLASSES] {
    let mut lengths = [0; CLASSES];
    let mut trees: Vec<(u64, Vec<usize>)> =
        (0..CLASSES).filter(|&c| weights[c] > 0).map(|c| (weights[c], vec![c])).collect();
    while trees.len() > 1 {
        // At most 65 trees: sorting each time is cheap, and the order makes the code repeatable.
        trees.sort_by(|a, b| b.cmp(a));
        if let (Some((one, classes)), Some((other, more))) = (trees.pop(), trees.pop()) {
            let joined: Vec<usize> = classes.into_iter().chain(more).collect();
            for &class in &joined {
                lengths[class] += 1;
            }
            trees.push((one + other, joined));
        }
    }
    lengths
}

/// The canonical codes, first bit lowest.
// Why reversed: the stream fills bytes from the low bit, so a code's first bit has to be its lowest one.
// Then the next 12 bits of the stream, taken as a number, are the place in the decoder's table.
fn codes(lengths: &[(u8, u8)]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&place| (lengths[place].1, lengths[place].0));
    let mut codes = vec![0; lengths.len()];
    let (mut next, mut previous) = (0u32, 0);
    for place in order {
        let length = u32::from(lengths[place].1);
        next <<= length - previous;
        previous = length;
        codes[place] = if length == 0 { 0 } else { next.reverse_bits() >> (32 - length) };
        next += 1;
    }
    codes
}

struct BitWriter<'a> {
    bytes: &'a mut Vec<u8>,
    // Why 128 bits: up to 63 are left from before, and a number adds up to 63 more in one call.
    buffer: u128,
    filled: u32,
}

impl BitWriter<'_> {
    #[inline]
    fn put(&mut self, bits: u64, count: u32) {
        self.buffer |= u128::from(bits) << self.filled;
        self.filled += count;
        if self.filled >= 64 {
            self.bytes.extend_from_slice(&(self.buffer as u64).to_le_bytes());
            self.buffer >>= 64;
            self.filled -= 64;
        }
    }

    fn finish(self) {
        let rest = (self.buffer as u64).to_le_bytes();
        self.bytes.extend_from_slice(&rest[..self.filled.div_ceil(8) as usize]);
    }
}

/// The class of all numbers, if they are of one.
fn only_class(counts: &[u64; CLASSES]) -> Option<usize> {
    let mut used = (0..CLASSES).filter(|&class| counts[class] > 0);
    used.next().filter(|_| used.next().is_none())
}

/// How many bits a number takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As few as possible: none if all are of one class.
    Shortest,
    /// One at least.
    OneBitAtLeast,
}

/// Appends a column; `values` is not empty.
pub(crate) fn put_column(bytes: &mut Vec<u8>, values: &[i64], coding: Coding) {
    let unit = values.iter().fold(0, |unit, v| greatest_common_divisor(v.unsigned_abs(), unit));
    let unit = unit.max(1);
    let signed = values.iter().any(|&v| v < 0);
    let number = |value: i64| {
        // Exact: the unit divides every value. Why by magnitudes: the unit can be 2^63 (a column of
        // `i64::MIN` alone), which does not fit in an i64; its quotient does.
        let magnitude = value.unsigned_abs() / unit;
        if !signed {
            magnitude
        } else if value < 0 {
            zigzag((magnitude as i64).wrapping_neg())
        } else {
            zigzag(magnitude as i64)
        }
    };
    let mut counts = [0; CLASSES];
    for &value in values {
        counts[class_of(number(value))] += 1;
    }
    if let (Coding::OneBitAtLeast, Some(only)) = (coding, only_class(&counts)) {
        // With a second class, which no number has, each of the two has a code of one bit.
        counts[if only == 0 { 1 } else { 0 }] = 1;
    }
    let lengths = code_lengths(&counts);
    let used: Vec<(u8, u8)> =
        (0..CLASSES).filter(|&c| counts[c] > 0).map(|c| (c as u8, lengths[c])).collect();
    let mut by_class = [(0u64, 0u32); CLASSES];
    for (code, &(class, length)) in codes(&used).into_iter().zip(&used) {
        by_class[usize::from(class)] = (u64::from(code), u32::from(length));
    }
    bytes.push(u8::from(signed));
    put_varint(bytes, unit);
    bytes.push(used.len() as u8);
    for (class, length) in used {
        bytes.extend_from_slice(&[class, length]);
    }
    let length_at = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    let mut writer = BitWriter { bytes, buffer: 0, filled: 0 };
    for &value in values {
        let number = number(value);
        let class = class_of(number);
        let (code, length) = by_class[class];
        writer.put(code, length);
        if class > 1 {
            let low = class as u32 - 1;
            writer.put(number & ((1 << low) - 1), low);
        }
    }
    writer.finish();
    let length = (bytes.len() - length_at - 4) as u32;
    bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    /// At least 57 bits from here, zeros past the end.
    #[inline]
    fn peek(&self) -> u64 {
        let byte = self.at / 8;
        let mut buffer = [0; 8];
        match self.bytes.get(byte..byte + 8) {
            Some(eight) => buffer.copy_from_slice(eight),
            None => {
                let rest = self.bytes.get(byte..).unwrap_or_default();
                buffer[..rest.len()].copy_from_slice(rest);
            }
        }
        u64::from_le_bytes(buffer) >> (self.at % 8)
    }

    #[inline]
    fn take(&mut self, count: u32) -> u64 {
        if count > 32 {
            let low = self.take(32);
            return low | self.take(count - 32) << 32;
        }
        let bits = self.peek() & ((1 << count) - 1);
        self.at += count as usize;
        bits
    }
}

/// Class and code length by the next [`LONGEST`] bits.
fn read_table(reader: &mut Reader<'_>) -> Result<Vec<(u8, u8)>, FeedError> {
    let count = usize::from(reader.u8()?);
    let pairs = reader.take(count * 2)?;
    let used: Vec<(u8, u8)> = pairs.chunks_exact(2).map(|p| (p[0], p[1])).collect();
    let ascending = used.is_sorted_by(|a, b| a.0 < b.0);
    if used.is_empty() || !ascending || used.iter().any(|u| usize::from(u.0) >= CLASSES) {
        return malformed("a column's classes are wrong");
    }
    if used.iter().any(|u| u32::from(u.1) > LONGEST) {
        return malformed("a column's codes are too long");
    }
    // Every pattern of bits must be a code of exactly one class. Why it is checked: an incomplete code would
    // leave entries of the table without a class, and a stream that reads one of them would decode to
    // numbers that nobody has sent; too many codes would overwrite each other.
    let covered: u32 = used.iter().map(|u| 1 << (LONGEST - u32::from(u.1))).sum();
    if covered != 1 << LONGEST {
        return malformed("a column's codes are not complete");
    }
    let mut table = vec![(0, 0); 1 << LONGEST];
    for (code, &(class, length)) in codes(&used).into_iter().zip(&used) {
        for entry in table.iter_mut().skip(code as usize).step_by(1 << length) {
            *entry = (class, length);
        }
    }
    Ok(table)
}

/// Reads a column of `count` values.
pub(crate) fn take_column(
    reader: &mut Reader<'_>,
    count: usize,
    mut sink: impl FnMut(usize, i64) -> Result<(), FeedError>,
) -> Result<(), FeedError> {
    let signed = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return malformed("a column's flags are unknown"),
    };
    let unit = reader.varint()?;
    if unit == 0 {
        return malformed("a unit is zero");
    }
    let table = read_table(reader)?;
    let length = reader.u32()? as usize;
    let stream = reader.take(length)?;
    let mut bits = BitReader { bytes: stream, at: 0 };
    for place in 0..count {
        let (class, code) = table[(bits.peek() & ((1 << LONGEST) - 1)) as usize];
        bits.at += usize::from(code);
        let number = match class {
            0 => 0,
            class => {
                let low = u32::from(class) - 1;
                1 << low | bits.take(low)
            }
        };
        // Why in the loop: past the end the reader sees zeros, so without this check a cut stream would
        // decode to numbers that nobody has sent.
        if bits.at > stream.len() * 8 {
            return malformed("a column is truncated");
        }
        sink(place, value_of(number, unit, signed)?)?;
    }
    // Why: bits after the last value mean that sender and receiver disagree about the number of entries.
    let rest = if bits.at.is_multiple_of(8) { 0 } else { bits.peek() & (0xFF >> (bits.at % 8)) };
    if bits.at.div_ceil(8) != stream.len() || rest != 0 {
        return malformed("bits follow a column's end");
    }
    Ok(())
}

#[inline]
fn value_of(number: u64, unit: u64, signed: bool) -> Result<i64, FeedError> {
    let plain = if signed {
        i128::from((number >> 1) as i64 ^ -((number & 1) as i64))
    } else {
        i128::from(number)
    };
    match i64::try_from(plain * i128::from(unit)) {
        Ok(value) => Ok(value),
        Err(_) => malformed("an amount does not fit"),
    }
}
