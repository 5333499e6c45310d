//! A frame: the budget states of one partition. Also in `docs/specs/feed-format.md`.
//!
//! A *keyframe* names all ad groups of its partition (one that it leaves out is unknown; in format 1 its
//! figures are zero), a *delta* those that changed after a base version. Figures are absolute, so any
//! frame may be applied twice, and frames of two senders may be mixed.
//!
//! All numbers are little-endian.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 2 | magic `TF` |
//! | 2 | 1 | format version, 1, 2 or 3 |
//! | 3 | 1 | 0 keyframe, 1 delta |
//! | 4 | 4 | partition |
//! | 8 | 8 | epoch: goes up when the partition's state is rebuilt by a new owner |
//! | 16 | 8 | version: goes up with each frame of an epoch |
//! | 24 | 8 | base version of a delta; 0 in a keyframe |
//! | 32 | 8 | time of the figures, microseconds since 1970, signed |
//! | 40 | 8 | version of the catalog that the indexes belong to |
//! | 48 | 4 | number of entries `n`, at most 2^24; more than 2^16 only in a frame of at least `n / 8` bytes |
//! | 52 | | if n > 0: columns (index gaps, actual, in flight, in format 3 held back, flags) of `n` numbers each |
//! | end - 16 | 8 | not in format 1: the first offset of the partition's log that is not in the figures |
//! | end - 8 | 8 | XXH3 (64 bits, seed 0) of everything before |
//!
//! Entries ascend by index. A gap is `index - previous index - 1`; the first entry's is its index.
//! `actual` and `in flight` are micros, `held back` is 65,535 minus the [`PassThroughRate`]. How a column is
//! coded is described in `column.rs` and in the document: class codes and raw bits, within a few percent of the entropy of log-normal spend.

use throng_model::{AdGroupIndex, Micros, Timestamp, append_checksum, verify_checksum};

use crate::column::{Coding, Reader, put_column, take_column};
use crate::error::FeedError;
use crate::pass_through_rate::PassThroughRate;

/// The server has closed the ad group, whatever the figures say.
pub const FLAG_CLOSED: u8 = 1;
/// The ad group was removed from the spec: a gate whose catalog still has it does not show it.
pub const FLAG_REMOVED: u8 = 2;

/// More entries than this are refused by [`Frame::decode`].
pub const MAX_ENTRIES: usize = 1 << 24;
/// A frame of any length may have this many entries: columns of equal numbers take no bits. A frame of
/// more entries has at least one byte for each [`ENTRIES_PER_BYTE`] of them.
// Why a limit by length: a frame of constant columns is about 100 bytes long whatever its number of
// entries, so a receiver that trusted the number alone would allocate 400 MB (2^24 entries of 24 bytes)
// for 100 bytes from the network. With both limits a decoded frame takes at most 1.5 MiB and 192 times
// the length of its bytes.
pub const FREE_ENTRIES: usize = 1 << 16;
/// Entries for each byte of a frame that has more than [`FREE_ENTRIES`].
pub const ENTRIES_PER_BYTE: usize = 8;

const MAGIC: [u8; 2] = *b"TF";
/// The format with pass-through rates: written if an entry has one below [`PassThroughRate::ALL`].
const FORMAT: u8 = 3;
/// The format without pass-through rates.
const FORMAT_2: u8 = 2;
/// The format without a log position, whose keyframes leave out ad groups whose figures are zero.
const FORMAT_1: u8 = 1;
const HEADER: usize = 52;
const CHECKSUM: usize = 8;

/// Whether a frame has all ad groups, or those that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// All ad groups of the partition. One that is not listed is unknown to the sender; in format 1 its
    /// figures are zero.
    Keyframe,
    /// The ad groups that changed after `base_version` of the same epoch.
    Delta {
        /// The version that a gate must have, or a later one.
        base_version: u64,
    },
}

/// The figures of one ad group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedEntry {
    /// The ad group's number.
    pub index: AdGroupIndex,
    /// Spent in the current budget day.
    pub actual: Micros,
    /// Expected to be spent by ads already inserted.
    pub in_flight: Micros,
    /// [`FLAG_CLOSED`] and [`FLAG_REMOVED`]; other bits are kept and have no meaning yet.
    pub flags: u8,
    /// For which share of requests the ad group may be shown.
    pub pass_through_rate: PassThroughRate,
}

/// One message of the feed, about one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The partition of the event log.
    pub partition: u32,
    /// Goes up when a new owner rebuilds the state; the higher epoch wins.
    pub epoch: u64,
    /// Goes up with each frame of an epoch.
    pub version: u64,
    /// Keyframe or delta.
    pub kind: FrameKind,
    /// When the figures were true.
    pub at: Timestamp,
    /// The catalog that the indexes belong to.
    pub catalog_version: u64,
    /// The first offset of the partition's log that is not in the figures; `None`: the sender does not
    /// say (format 1).
    pub log_position: Option<u64>,
    /// Ascending by index. A delta without entries is a heartbeat: nothing changed.
    pub entries: Vec<FeedEntry>,
}

impl Frame {
    /// As [`encode`](Self::encode), in format 1, which has no log position and no pass-through rates.
    ///
    /// ```
    /// # use throng_feed::{Frame, FrameKind};
    /// # use throng_model::Timestamp;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let heartbeat = Frame {
    /// #     partition: 0,
    /// #     epoch: 1,
    /// #     version: 6,
    /// #     kind: FrameKind::Delta { base_version: 5 },
    /// #     at: Timestamp(0),
    /// #     catalog_version: 1,
    /// #     log_position: Some(42),
    /// #     entries: Vec::new(),
    /// # };
    /// // A gate that only knows format 1 reads everything but the log position.
    /// let read = Frame::decode(&heartbeat.encode_format_1())?;
    /// assert_eq!(read, Frame { log_position: None, ..heartbeat });
    /// # Ok(())
    /// # }
    /// ```
    pub fn encode_format_1(&self) -> Vec<u8> {
        Self { log_position: None, entries: self.entries.clone(), ..*self }.encode()
    }

    /// As [`encode`](Self::encode), in format 2 at most: readers of it show ad groups at every request until
    /// they are closed.
    pub fn encode_format_2(&self) -> Vec<u8> {
        let all =
            |entry: &FeedEntry| FeedEntry { pass_through_rate: PassThroughRate::ALL, ..*entry };
        Self { entries: self.entries.iter().map(all).collect(), ..*self }.encode()
    }

    /// Whether format 2 cannot have everything of the frame.
    pub fn needs_format_3(&self) -> bool {
        let held_back = |entry: &FeedEntry| entry.pass_through_rate != PassThroughRate::ALL;
        self.log_position.is_some() && self.entries.iter().any(held_back)
    }

    /// The bytes to send, in the lowest format that has everything: format 1 without a log position (pass-through
    /// rates are left out then), format 2 if every rate is [`PassThroughRate::ALL`], else format 3. Entries out of
    /// order are sorted; of two with the same index the later one counts. About 40 ns an entry.
    ///
    /// ```
    /// use throng_feed::{FeedEntry, Frame, FrameKind, PassThroughRate};
    /// use throng_model::{AdGroupIndex, Micros, Timestamp};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let entry = |index, actual| FeedEntry {
    ///     index: AdGroupIndex(index),
    ///     actual: Micros(actual),
    ///     in_flight: Micros(0),
    ///     flags: 0,
    ///     pass_through_rate: PassThroughRate::ALL,
    /// };
    /// let delta = Frame {
    ///     partition: 0,
    ///     epoch: 1,
    ///     version: 6,
    ///     kind: FrameKind::Delta { base_version: 5 },
    ///     at: Timestamp(1_790_000_000_000_000),
    ///     catalog_version: 1,
    ///     log_position: Some(42),
    ///     entries: vec![entry(9, 100), entry(2, 50), entry(9, 110)],
    /// };
    /// let received = Frame::decode(&delta.encode())?;
    /// assert_eq!(received.entries, [entry(2, 50), entry(9, 110)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        if self.entries.is_sorted_by(|a, b| a.index < b.index) {
            return self.encode_entries(&self.entries);
        }
        let mut entries = self.entries.clone();
        // Why reversed: the sort is stable and `dedup` keeps the first of equals, which is then the last
        // one that the caller gave. Without it a state could be overwritten by the one before.
        entries.reverse();
        entries.sort_by_key(|entry| entry.index);
        entries.dedup_by_key(|entry| entry.index);
        self.encode_entries(&entries)
    }

    fn encode_entries(&self, entries: &[FeedEntry]) -> Vec<u8> {
        let (kind, base) = match self.kind {
            FrameKind::Keyframe => (0, 0),
            FrameKind::Delta { base_version } => (1, base_version),
        };
        let mut bytes = Vec::with_capacity(HEADER + CHECKSUM + entries.len() * 7 + 64);
        let format = match self.log_position {
            None => FORMAT_1,
            Some(_) if self.needs_format_3() => FORMAT,
            Some(_) => FORMAT_2,
        };
        bytes.extend_from_slice(&[MAGIC[0], MAGIC[1], format, kind]);
        bytes.extend_from_slice(&self.partition.to_le_bytes());
        for number in [self.epoch, self.version, base, self.at.0 as u64, self.catalog_version] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        if !entries.is_empty() {
            let mut next = 0;
            let gaps = entries.iter().map(|entry| {
                let index = i64::from(entry.index.0);
                let gap = index - next;
                next = index + 1;
                gap
            });
            put_column(&mut bytes, &gaps.collect::<Vec<_>>(), Coding::Shortest);
            let actual: Vec<i64> = entries.iter().map(|e| e.actual.0).collect();
            put_column(&mut bytes, &actual, Coding::Shortest);
            let in_flight: Vec<i64> = entries.iter().map(|e| e.in_flight.0).collect();
            put_column(&mut bytes, &in_flight, Coding::Shortest);
            if format == FORMAT {
                let held_back: Vec<i64> =
                    entries.iter().map(|e| e.pass_through_rate.held_back()).collect();
                put_column(&mut bytes, &held_back, Coding::Shortest);
            }
            let flags: Vec<i64> = entries.iter().map(|e| i64::from(e.flags)).collect();
            // Why the last column decides: only then is the length of the frame known, and receivers
            // refuse a frame that is too short for its entries. One bit an entry is a byte for eight of
            // them, which is what they ask for.
            let coding = match entries.len() > allowed_entries(bytes.len()) {
                true => Coding::OneBitAtLeast,
                false => Coding::Shortest,
            };
            put_column(&mut bytes, &flags, coding);
        }
        // Why at the end: the header of format 1 keeps its length, so that one decoder reads both.
        if let Some(position) = self.log_position {
            bytes.extend_from_slice(&position.to_le_bytes());
        }
        append_checksum(&mut bytes);
        bytes
    }

    /// Reads a frame. Never panics, whatever the bytes. About 30 ns an entry.
    ///
    /// ```
    /// # use throng_feed::{FeedError, Frame, FrameKind};
    /// # use throng_model::Timestamp;
    /// # let heartbeat = Frame {
    /// #     partition: 0,
    /// #     epoch: 1,
    /// #     version: 6,
    /// #     kind: FrameKind::Delta { base_version: 5 },
    /// #     at: Timestamp(0),
    /// #     catalog_version: 1,
    /// #     log_position: Some(42),
    /// #     entries: Vec::new(),
    /// # };
    /// let mut bytes = heartbeat.encode();
    /// assert_eq!(Frame::decode(&bytes), Ok(heartbeat));
    /// bytes[20] ^= 1;
    /// assert_eq!(Frame::decode(&bytes), Err(FeedError::Checksum));
    /// ```
    ///
    /// # Errors
    /// [`FeedError`], which says what to do.
    pub fn decode(bytes: &[u8]) -> Result<Self, FeedError> {
        let Some(format) = bytes.strip_prefix(&MAGIC).and_then(|rest| rest.first()).copied() else {
            return Err(FeedError::NotAFrame);
        };
        // Before the length and the checksum: a newer format may differ in both, and "update the gate" is
        // the answer that helps then, not "the frame is damaged".
        if ![FORMAT_1, FORMAT_2, FORMAT].contains(&format) {
            return Err(FeedError::UnknownFormat(format));
        }
        if bytes.len() < HEADER + CHECKSUM {
            return Err(FeedError::NotAFrame);
        }
        let body = verify_checksum(bytes).map_err(|_| FeedError::Checksum)?;
        let mut reader = Reader::new(&body[4..]);
        let partition = reader.u32()?;
        let epoch = reader.u64()?;
        let version = reader.u64()?;
        let base_version = reader.u64()?;
        let at = Timestamp(reader.u64()? as i64);
        let catalog_version = reader.u64()?;
        let count = reader.u32()? as usize;
        let kind = match bytes[3] {
            0 if base_version == 0 => FrameKind::Keyframe,
            1 => FrameKind::Delta { base_version },
            _ => return Err(FeedError::Malformed("neither keyframe nor delta")),
        };
        // Why before the first allocation: see `FREE_ENTRIES`.
        if count > MAX_ENTRIES || count > allowed_entries(bytes.len()) {
            return Err(FeedError::Malformed("more entries than a frame of its length may have"));
        }
        let entries = match count {
            0 => Vec::new(),
            _ => decode_entries(&mut reader, count, format == FORMAT)?,
        };
        let log_position = (format != FORMAT_1).then(|| reader.u64()).transpose()?;
        if !reader.is_empty() {
            return Err(FeedError::Malformed("bytes follow its entries"));
        }
        Ok(Self { partition, epoch, version, kind, at, catalog_version, log_position, entries })
    }
}

/// How many entries a frame of so many bytes may have.
fn allowed_entries(bytes: usize) -> usize {
    bytes.saturating_mul(ENTRIES_PER_BYTE).max(FREE_ENTRIES)
}

fn decode_entries(
    reader: &mut Reader<'_>,
    count: usize,
    has_pass_through_rates: bool,
) -> Result<Vec<FeedEntry>, FeedError> {
    let mut entries = Vec::with_capacity(count);
    let mut next = 0i64;
    take_column(reader, count, |_, gap| {
        // Why gaps below zero are refused: entries ascend, and a receiver relies on each index being there
        // once.
        let index = next.checked_add(gap).filter(|_| gap >= 0);
        let index = index.and_then(|index| u32::try_from(index).ok());
        let index = index.ok_or(FeedError::Malformed("an index is out of range"))?;
        next = i64::from(index) + 1;
        let index = AdGroupIndex(index);
        let (actual, in_flight, pass_through_rate) = (Micros(0), Micros(0), PassThroughRate::ALL);
        entries.push(FeedEntry { index, actual, in_flight, flags: 0, pass_through_rate });
        Ok(())
    })?;
    take_column(reader, count, |place, value| {
        entries[place].actual = Micros(value);
        Ok(())
    })?;
    take_column(reader, count, |place, value| {
        entries[place].in_flight = Micros(value);
        Ok(())
    })?;
    if has_pass_through_rates {
        take_column(reader, count, |place, value| {
            let rate = PassThroughRate::of_held_back(value);
            entries[place].pass_through_rate =
                rate.ok_or(FeedError::Malformed("a pass-through rate is out of range"))?;
            Ok(())
        })?;
    }
    take_column(reader, count, |place, value| {
        let flags = u8::try_from(value);
        entries[place].flags = flags.map_err(|_| FeedError::Malformed("flags are not a byte"))?;
        Ok(())
    })?;
    Ok(entries)
}
