//! The bytes of segments and records. Pure.
//!
//! A segment is named after the offset of its first record, in 20 digits, and begins with 32 bytes:
//!
//! ```text
//!  0  8  "THRNGLOG"
//!  8  4  format, 1
//! 12  4  partition
//! 16  8  offset of the first record
//! 24  4  0
//! 28  4  CRC32 of the 28 bytes before
//! ```
//!
//! Then come the records, each with a head of 24 bytes. All numbers are little-endian.
//!
//! ```text
//!  0  4  length of the value; the top bit says that a commit begins here
//!  4  4  CRC32 of bytes 0 to 4, 8 to 24 and the value
//!  8  8  offset
//! 16  8  append time, microseconds since 1970
//! 24     the value
//! ```
//!
//! A commit is written only after the one before is durable. So a broken record with a commit
//! behind it was acknowledged, and one without is the torn end of a write that never was.

use throng_model::Timestamp;

pub(super) const SEGMENT_HEAD: usize = 32;
pub(super) const RECORD_HEAD: usize = 24;
/// The longest record.
pub const MAX_RECORD_BYTES: usize = 16 << 20;

const MAGIC: &[u8; 8] = b"THRNGLOG";
const FORMAT: u32 = 1;
const COMMIT_BEGINS: u32 = 1 << 31;

pub(super) fn segment_head(partition: u32, base: u64) -> [u8; SEGMENT_HEAD] {
    let mut head = [0; SEGMENT_HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    head[12..16].copy_from_slice(&partition.to_le_bytes());
    head[16..24].copy_from_slice(&base.to_le_bytes());
    let crc = crc32fast::hash(&head[..28]);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    head
}

pub(super) fn segment_name(base: u64) -> String {
    format!("{base:020}.log")
}

/// The first offset by a file's name; `None` if it is no segment.
pub(super) fn base_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

/// Appends a record to `out`. The value must not be longer than [`MAX_RECORD_BYTES`].
pub(super) fn encode(
    out: &mut Vec<u8>,
    offset: u64,
    at: Timestamp,
    value: &[u8],
    commit_begins: bool,
) {
    let mut length = value.len() as u32;
    if commit_begins {
        length |= COMMIT_BEGINS;
    }
    let length = length.to_le_bytes();
    let (offset, at) = (offset.to_le_bytes(), at.0.to_le_bytes());
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(&length, &offset, &at, value).to_le_bytes());
    out.extend_from_slice(&offset);
    out.extend_from_slice(&at);
    out.extend_from_slice(value);
}

fn checksum(length: &[u8], offset: &[u8], at: &[u8], value: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for bytes in [length, offset, at, value] {
        crc.update(bytes);
    }
    crc.finalize()
}

/// A record's head, its checksum not yet compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) commit_begins: bool,
    crc: u32,
    pub(super) offset: u64,
    pub(super) at: Timestamp,
}

fn four(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at + 4)?.try_into().ok()
}

fn eight(bytes: &[u8], at: usize) -> Option<[u8; 8]> {
    bytes.get(at..at + 8)?.try_into().ok()
}

/// Reads a head; `None` if there are too few bytes or it cannot be one.
pub(super) fn head(bytes: &[u8]) -> Option<Head> {
    let length = u32::from_le_bytes(four(bytes, 0)?);
    let head = Head {
        length: (length & !COMMIT_BEGINS) as usize,
        commit_begins: length & COMMIT_BEGINS != 0,
        crc: u32::from_le_bytes(four(bytes, 4)?),
        offset: u64::from_le_bytes(eight(bytes, 8)?),
        at: Timestamp(i64::from_le_bytes(eight(bytes, 16)?)),
    };
    (head.length <= MAX_RECORD_BYTES).then_some(head)
}

impl Head {
    /// Bytes of the record with its head.
    pub(super) fn size(&self) -> usize {
        RECORD_HEAD + self.length
    }

    /// The value, if all of it is in `record` (which begins with this head) and the checksum fits.
    pub(super) fn value<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        let value = record.get(RECORD_HEAD..self.size())?;
        let crc = checksum(&record[..4], &record[8..16], &record[16..24], value);
        (crc == self.crc).then_some(value)
    }
}

/// Whether a whole commit's beginning lies somewhere in `rest`, with an offset after `expected`.
/// Looks at every byte, because what stands before it is not to be trusted.
pub(super) fn commit_follows(rest: &[u8], expected: u64) -> bool {
    (1..rest.len().saturating_sub(RECORD_HEAD - 1)).any(|at| {
        let here = &rest[at..];
        head(here).is_some_and(|h| {
            // At least a head lies between two offsets.
            let most = expected.saturating_add((at / RECORD_HEAD) as u64 + 1);
            h.commit_begins && h.offset > expected && h.offset <= most && h.value(here).is_some()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back() {
        let mut out = Vec::new();
        encode(&mut out, 7, Timestamp(-3), b"abc", true);
        let head = head(&out).unwrap();
        assert_eq!((head.offset, head.at, head.commit_begins), (7, Timestamp(-3), true));
        assert_eq!(head.value(&out), Some(b"abc".as_slice()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut out = Vec::new();
        encode(&mut out, 7, Timestamp(5), b"abc", false);
        for bit in 0..out.len() * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(head(&bad).and_then(|h| h.value(&bad).map(<[u8]>::len)), None, "bit {bit}");
        }
    }

    #[test]
    fn names_and_offsets_agree() {
        assert_eq!(base_of(&segment_name(u64::MAX)), Some(u64::MAX));
        for other in ["1.log", "00000000000000000001.log.tmp", "0000000000000000000x.log"] {
            assert_eq!(base_of(other), None);
        }
    }
}
