//! The format of segments and records. Pure.
//!
//! The name of a segment is the offset of its first record, in 20 digits. It begins with a header of 32
//! bytes:
//!
//! ```text
//!  0  8  "THRNGLOG"
//!  8  4  format: 1, or 2 if there is a gap in the offsets before the first record
//! 12  4  partition
//! 16  8  offset of the first record
//! 24  4  link to the previous segment; 0: none
//! 28  4  CRC32 of the previous 28 bytes
//! ```
//!
//! The link is the CRC32 of the first offset and the length in bytes, 8 bytes each, of the previous
//! segment, so that a missing segment or one with another length is detected without reading it. Segments
//! of format 1 follow the previous one without a gap.
//!
//! The records follow, each with a header of 24 bytes. All numbers are little-endian.
//!
//! ```text
//!  0  4  length of the value; the top bit is set at the first record of a commit
//!  4  4  CRC32 of bytes 0 to 4, 8 to 24 and the value
//!  8  8  offset
//! 16  8  append time, microseconds since 1970
//! 24     the value
//! ```
//!
//! A commit is written only after the previous one is durable. So a broken record with a later commit
//! was acknowledged. [`classify_end`] decides about the bytes after the last valid record.

use throng_model::Timestamp;

pub(super) const SEGMENT_HEADER: usize = 32;
pub(super) const RECORD_HEADER: usize = 24;
/// The largest value of a record, in bytes.
pub const MAX_RECORD_BYTES: usize = 16 << 20;

const MAGIC: &[u8; 8] = b"THRNGLOG";
const FORMAT: u32 = 1;
const FORMAT_AFTER_GAP: u32 = 2;
/// The smallest unit that a disk writes: missing parts of a torn write are multiples of it.
const SECTOR: u64 = 512;
const COMMIT_BEGINS: u32 = 1 << 31;

/// The header of a segment, without format and checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) partition: u32,
    /// Offset of its first record.
    pub(super) base: u64,
    /// [`link_to`] of the previous segment; 0: none.
    pub(super) link: u32,
    /// There is a gap in the offsets before it: records were removed by a repair, or skipped.
    pub(super) after_gap: bool,
}

impl SegmentHeader {
    pub(super) fn encode(self) -> [u8; SEGMENT_HEADER] {
        let mut header = [0; SEGMENT_HEADER];
        let format = if self.after_gap { FORMAT_AFTER_GAP } else { FORMAT };
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&format.to_le_bytes());
        header[12..16].copy_from_slice(&self.partition.to_le_bytes());
        header[16..24].copy_from_slice(&self.base.to_le_bytes());
        header[24..28].copy_from_slice(&self.link.to_le_bytes());
        let crc = crc32fast::hash(&header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// `None` if these bytes are not a header of a format that this version supports.
    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER]) -> Option<Self> {
        let format = u32::from_le_bytes(four(bytes, 8)?);
        // Compared as a whole with its own encoding: magic, format and checksum are checked with it, and a
        // field that is added later cannot be forgotten.
        let header = Self {
            partition: u32::from_le_bytes(four(bytes, 12)?),
            base: u64::from_le_bytes(eight(bytes, 16)?),
            link: u32::from_le_bytes(four(bytes, 24)?),
            after_gap: format == FORMAT_AFTER_GAP,
        };
        (header.encode() == *bytes).then_some(header)
    }
}

/// The format of a segment that a newer version wrote: the header of every format begins with magic and
/// format, and ends with the checksum of the bytes before it.
pub(super) fn unsupported_format(header: &[u8; SEGMENT_HEADER]) -> Option<u32> {
    let format = u32::from_le_bytes(four(header, 8)?);
    let sum = u32::from_le_bytes(four(header, 28)?);
    let is_valid = header[..8] == *MAGIC && crc32fast::hash(&header[..28]) == sum;
    (is_valid && format > FORMAT_AFTER_GAP).then_some(format)
}

/// The link to a segment that begins at offset `base` and has a length of `bytes`. Never 0.
pub(super) fn link_to(base: u64, bytes: u64) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&base.to_le_bytes());
    crc.update(&bytes.to_le_bytes());
    // 0 means that the segment has no link, as in segments of earlier versions.
    crc.finalize().max(1)
}

pub(super) fn segment_name(base: u64) -> String {
    format!("{base:020}.log")
}

/// The first offset, from the name of a file; `None` if the name is not that of a segment.
pub(super) fn base_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

/// Appends a record to `out`. The value must not exceed [`MAX_RECORD_BYTES`].
pub(super) fn encode(
    out: &mut Vec<u8>,
    offset: u64,
    at: Timestamp,
    value: &[u8],
    commit_begins: bool,
) {
    let mut length = value.len() as u32;
    // In the top bit of the length, which `MAX_RECORD_BYTES` leaves free: the header needs no further byte.
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
    // With the offset: a valid record at the wrong position, such as one of an earlier file on the same disk
    // block, must not be read as the next one.
    for bytes in [length, offset, at, value] {
        crc.update(bytes);
    }
    crc.finalize()
}

/// Corrects the checksums of a segment, up to the first record whose length is invalid; for the fuzz
/// target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fix_checksums(bytes: &mut [u8]) {
    let Some((segment, mut rest)) = bytes.split_first_chunk_mut::<SEGMENT_HEADER>() else { return };
    let crc = crc32fast::hash(&segment[..28]);
    segment[28..].copy_from_slice(&crc.to_le_bytes());
    while let Some(size) = header(rest).map(|header| header.size()) {
        let split = std::mem::take(&mut rest).split_at_mut_checked(size);
        let Some((record, after)) = split else { return };
        let crc = checksum(&record[..4], &record[8..16], &record[16..24], &record[RECORD_HEADER..]);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
        rest = after;
    }
}

/// The header of a record. Its checksum is compared by [`value`](Self::value).
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordHeader {
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

/// Decodes the header of a record; `None` if there are too few bytes or the length is invalid.
pub(super) fn header(bytes: &[u8]) -> Option<RecordHeader> {
    let length = u32::from_le_bytes(four(bytes, 0)?);
    let header = RecordHeader {
        length: (length & !COMMIT_BEGINS) as usize,
        commit_begins: length & COMMIT_BEGINS != 0,
        crc: u32::from_le_bytes(four(bytes, 4)?),
        offset: u64::from_le_bytes(eight(bytes, 8)?),
        at: Timestamp(i64::from_le_bytes(eight(bytes, 16)?)),
    };
    // A damaged length must not make the reader allocate gigabytes.
    (header.length <= MAX_RECORD_BYTES).then_some(header)
}

impl RecordHeader {
    /// The length of the record with its header, in bytes.
    pub(super) fn size(&self) -> usize {
        RECORD_HEADER + self.length
    }

    /// The value, if `record` (which begins with this header) has all of it and the checksum matches.
    pub(super) fn value<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        let value = record.get(RECORD_HEADER..self.size())?;
        let crc = checksum(&record[..4], &record[8..16], &record[16..24], value);
        (crc == self.crc).then_some(value)
    }
}

/// The first valid record with an offset after `expected`, anywhere after the first byte: its position
/// and its header. Tries every byte, because no length before it can be trusted.
pub(super) fn next_valid_record(rest: &[u8], expected: u64) -> Option<(usize, RecordHeader)> {
    (1..rest.len().saturating_sub(RECORD_HEADER - 1)).find_map(|at| {
        let here = &rest[at..];
        let header = header(here)?;
        // Every record has at least a header, which limits how many offsets fit before this one.
        let max_offset = expected.saturating_add((at / RECORD_HEADER) as u64 + 1);
        let is_later = header.offset > expected && header.offset <= max_offset;
        (is_later && header.value(here).is_some()).then_some((at, header))
    })
}

/// What the bytes after the last valid record of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndKind {
    /// A write that was never completed, or earlier contents of the disk.
    Torn,
    /// A record that was valid once, with the reason why.
    Damaged(&'static str),
}

/// Distinguishes a torn write from damage to a record that was valid. `rest`: from the first invalid
/// record to the end of the file, not empty; `position`: its position in the file.
///
/// A write is torn when its process is killed, and is too short then, or at a loss of power: then whole
/// sectors of it may be missing, which read as zeros.
pub(super) fn classify_end(rest: &[u8], expected: u64, position: u64) -> EndKind {
    // A later commit was written only after this one was durable, so the broken record was acknowledged.
    // Truncating it would lose events without an error. A later record of the same commit proves nothing: a
    // disk may write the sectors of one write in any order.
    if let Some((at, next)) = next_valid_record(rest, expected)
        && (next.commit_begins || !has_zero_sector(&rest[..at], position))
    {
        return EndKind::Damaged("a record is broken, and a later one is valid");
    }
    // Sectors that were never written read as zeros: the write was interrupted by a loss of power.
    if has_zero_sector(rest, position) {
        return EndKind::Torn;
    }
    let changed = "the last record is complete, and its checksum does not match";
    match header(rest) {
        // A valid record with an earlier offset: contents of the disk block before the file got it.
        Some(old) if old.offset < expected && old.value(rest).is_some() => EndKind::Torn,
        // All bytes are there and no sector is missing: not a torn write.
        Some(header) if header.size() <= rest.len() => EndKind::Damaged(changed),
        // A flipped bit in the length makes a complete record look too short.
        _ if is_valid_except_for_its_length(rest) => EndKind::Damaged(changed),
        _ => EndKind::Torn,
    }
}

/// Whether a sector of the file within these bytes is all zeros.
fn has_zero_sector(bytes: &[u8], position: u64) -> bool {
    // Sectors of the disk are aligned; a run of zeros across two of them is data.
    let skip = usize::try_from(position.next_multiple_of(SECTOR) - position).unwrap_or(usize::MAX);
    let sectors = bytes.get(skip..).unwrap_or_default();
    sectors.chunks_exact(SECTOR as usize).any(|sector| sector.iter().all(|byte| *byte == 0))
}

/// Whether these bytes are a valid record if its length field is ignored and all of them belong to it.
fn is_valid_except_for_its_length(rest: &[u8]) -> bool {
    let Some(length) = rest.len().checked_sub(RECORD_HEADER) else { return false };
    let Some(length) = u32::try_from(length).ok().filter(|l| *l as usize <= MAX_RECORD_BYTES)
    else {
        return false;
    };
    let crc = four(rest, 4).map(u32::from_le_bytes);
    [length, length | COMMIT_BEGINS].into_iter().any(|length| {
        let length = length.to_le_bytes();
        let sum = checksum(&length, &rest[8..16], &rest[16..24], &rest[RECORD_HEADER..]);
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
        let header = header(&out).unwrap();
        assert_eq!((header.offset, header.at, header.commit_begins), (7, Timestamp(-3), true));
        assert_eq!(header.value(&out), Some(b"abc".as_slice()));
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let mut out = Vec::new();
        encode(&mut out, 7, Timestamp(5), b"abc", false);
        for bit in 0..out.len() * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                header(&bad).and_then(|h| h.value(&bad).map(<[u8]>::len)),
                None,
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_header_of_a_newer_format_is_unsupported_and_not_damaged() {
        for after_gap in [false, true] {
            let header = SegmentHeader { partition: 3, base: 7, link: 5, after_gap };
            let mut bytes = header.encode();
            assert_eq!(unsupported_format(&bytes), None);
            bytes[8..12].copy_from_slice(&(FORMAT_AFTER_GAP + 1).to_le_bytes());
            assert_eq!(unsupported_format(&bytes), None, "its checksum is that of another header");
            let sum = crc32fast::hash(&bytes[..28]).to_le_bytes();
            bytes[28..].copy_from_slice(&sum);
            assert_eq!(
                (unsupported_format(&bytes), SegmentHeader::decode(&bytes)),
                (Some(3), None)
            );
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
