//! The bytes of segments and records. Pure.
//!
//! A segment is named after the offset of its first record, in 20 digits, and begins with 32 bytes:
//!
//! ```text
//!  0  8  "THRNGLOG"
//!  8  4  format: 1, or 2 if records before the first were set aside
//! 12  4  partition
//! 16  8  offset of the first record
//! 24  4  link to the segment before; 0: none
//! 28  4  CRC32 of the 28 bytes before
//! ```
//!
//! The link is the CRC32 of the first offset and the length in bytes, 8 bytes each, of the segment
//! before, so that one that is missing or has another length is noticed without reading it. Segments of
//! format 1 follow the one before without a gap.
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
//! behind it was acknowledged. What lies behind the last commit is told by [`tail_of`].

use throng_model::Timestamp;

pub(super) const SEGMENT_HEAD: usize = 32;
pub(super) const RECORD_HEAD: usize = 24;
/// The longest record.
pub const MAX_RECORD_BYTES: usize = 16 << 20;

const MAGIC: &[u8; 8] = b"THRNGLOG";
const FORMAT: u32 = 1;
const FORMAT_AFTER_GAP: u32 = 2;
/// What a disk writes at once at least: of a write that was torn, a part that is missing is as long.
const SECTOR: u64 = 512;
const COMMIT_BEGINS: u32 = 1 << 31;

/// The head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) partition: u32,
    /// Offset of its first record.
    pub(super) base: u64,
    /// See [`link_to`]; 0: none.
    pub(super) link: u32,
    /// Records before it were set aside.
    pub(super) after_gap: bool,
}

impl SegmentHead {
    pub(super) fn encode(self) -> [u8; SEGMENT_HEAD] {
        let mut head = [0; SEGMENT_HEAD];
        let format = if self.after_gap { FORMAT_AFTER_GAP } else { FORMAT };
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&format.to_le_bytes());
        head[12..16].copy_from_slice(&self.partition.to_le_bytes());
        head[16..24].copy_from_slice(&self.base.to_le_bytes());
        head[24..28].copy_from_slice(&self.link.to_le_bytes());
        let crc = crc32fast::hash(&head[..28]);
        head[28..].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// `None` if these bytes are no head that this version knows.
    pub(super) fn decode(bytes: &[u8; SEGMENT_HEAD]) -> Option<Self> {
        let format = u32::from_le_bytes(four(bytes, 8)?);
        let head = Self {
            partition: u32::from_le_bytes(four(bytes, 12)?),
            base: u64::from_le_bytes(eight(bytes, 16)?),
            link: u32::from_le_bytes(four(bytes, 24)?),
            after_gap: format == FORMAT_AFTER_GAP,
        };
        (head.encode() == *bytes).then_some(head)
    }
}

/// The format of a segment that a newer version wrote: the head of every format begins with magic and
/// format, and ends with the checksum of what is before it.
pub(super) fn newer_format(head: &[u8; SEGMENT_HEAD]) -> Option<u32> {
    let format = u32::from_le_bytes(four(head, 8)?);
    let sum = u32::from_le_bytes(four(head, 28)?);
    let whole = head[..8] == *MAGIC && crc32fast::hash(&head[..28]) == sum;
    (whole && format > FORMAT_AFTER_GAP).then_some(format)
}

/// The link to a segment that begins at `base` and is so many bytes long. Never 0.
pub(super) fn link_to(base: u64, bytes: u64) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&base.to_le_bytes());
    crc.update(&bytes.to_le_bytes());
    crc.finalize().max(1)
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

/// Makes the checksums of a segment right, as far as its records can be told apart; for the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn seal(bytes: &mut [u8]) {
    let Some((segment, mut rest)) = bytes.split_first_chunk_mut::<SEGMENT_HEAD>() else { return };
    let crc = crc32fast::hash(&segment[..28]);
    segment[28..].copy_from_slice(&crc.to_le_bytes());
    while let Some(size) = head(rest).map(|head| head.size()) {
        let whole = std::mem::take(&mut rest).split_at_mut_checked(size);
        let Some((record, after)) = whole else { return };
        let crc = checksum(&record[..4], &record[8..16], &record[16..24], &record[RECORD_HEAD..]);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
        rest = after;
    }
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

/// The first whole record with a later offset than `expected`, somewhere behind the first byte. Looks at
/// every byte, because what stands before it is not to be trusted. Where it lies, and its head.
pub(super) fn next_whole(rest: &[u8], expected: u64) -> Option<(usize, Head)> {
    (1..rest.len().saturating_sub(RECORD_HEAD - 1)).find_map(|at| {
        let here = &rest[at..];
        let head = head(here)?;
        // At least a head lies between two offsets.
        let most = expected.saturating_add((at / RECORD_HEAD) as u64 + 1);
        let later = head.offset > expected && head.offset <= most;
        (later && head.value(here).is_some()).then_some((at, head))
    })
}

/// What lies behind the last whole record of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TailKind {
    /// A write that was never finished, or what the disk held before.
    Torn,
    /// A record that was whole once. Why that is known.
    Damaged(&'static str),
}

/// Tells a write that was torn from damage to a record that was whole. `rest`: from the first record that
/// is not whole on to the end of the file, not empty; `position`: where it begins in the file.
///
/// A write is torn by the end of its process, and is too short then, or by the end of power: then parts of
/// it may be missing that are whole sectors, which read as zeros.
pub(super) fn tail_of(rest: &[u8], expected: u64, position: u64) -> TailKind {
    if let Some((at, next)) = next_whole(rest, expected)
        && (next.commit_begins || !misses_a_sector(&rest[..at], position))
    {
        return TailKind::Damaged("a record is broken, and a later one is whole");
    }
    if misses_a_sector(rest, position) {
        return TailKind::Torn;
    }
    let changed = "the last record is as long as it was, and its checksum does not match";
    match head(rest) {
        // What was there before the file got this place on the disk.
        Some(old) if old.offset < expected && old.value(rest).is_some() => TailKind::Torn,
        Some(head) if head.size() <= rest.len() => TailKind::Damaged(changed),
        _ if is_whole_but_for_its_length(rest) => TailKind::Damaged(changed),
        _ => TailKind::Torn,
    }
}

/// Whether a sector of the file that lies in these bytes is all zeros.
fn misses_a_sector(bytes: &[u8], position: u64) -> bool {
    let skip = usize::try_from(position.next_multiple_of(SECTOR) - position).unwrap_or(usize::MAX);
    let sectors = bytes.get(skip..).unwrap_or_default();
    sectors.chunks_exact(SECTOR as usize).any(|sector| sector.iter().all(|byte| *byte == 0))
}

/// Whether these bytes are a record, if its length is taken to be what there is.
fn is_whole_but_for_its_length(rest: &[u8]) -> bool {
    let Some(length) = rest.len().checked_sub(RECORD_HEAD) else { return false };
    let Some(length) = u32::try_from(length).ok().filter(|l| *l as usize <= MAX_RECORD_BYTES)
    else {
        return false;
    };
    let crc = four(rest, 4).map(u32::from_le_bytes);
    [length, length | COMMIT_BEGINS].into_iter().any(|length| {
        let length = length.to_le_bytes();
        let sum = checksum(&length, &rest[8..16], &rest[16..24], &rest[RECORD_HEAD..]);
        crc == Some(sum)
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
    fn a_head_of_a_newer_format_is_known_as_such_and_damage_is_not() {
        for after_gap in [false, true] {
            let head = SegmentHead { partition: 3, base: 7, link: 5, after_gap };
            let mut bytes = head.encode();
            assert_eq!(newer_format(&bytes), None);
            bytes[8..12].copy_from_slice(&(FORMAT_AFTER_GAP + 1).to_le_bytes());
            assert_eq!(newer_format(&bytes), None, "its checksum is that of another head");
            let sum = crc32fast::hash(&bytes[..28]).to_le_bytes();
            bytes[28..].copy_from_slice(&sum);
            assert_eq!((newer_format(&bytes), SegmentHead::decode(&bytes)), (Some(3), None));
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
