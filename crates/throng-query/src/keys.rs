//! The keys of scans and the rows of identifiers, and the frames in which they go from a query worker to the node.
//! Pure except for writing.
//!
//! ```text
//! kind 2, keys:    rows u64 | NULL keys u64 | hashes u32 | with values u32 | hashes | values
//! kind 3, rows:    one after another: user's hash u64 | length u32 | the hasher's output
//! kind 4, shared:  hashes u32 | with values u32 | hashes | values | groups, each u32
//! kind 5, tables:  the tables of identifiers as JSON
//! kind 6, reason:  why the scan is not run on the cluster of the node, in UTF-8
//! ```

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use throng_model::{UserHash, trim_invisible};
use throng_worker::frame::{frame, frame_into, invalid};

use crate::model::TableFacts;

/// The kind of frames with keys.
pub const KEYS: u8 = 2;
/// The kind of frames with rows of identifiers.
pub const ROWS: u8 = 3;
/// The kind of frames with keys of a scan for several models.
pub const SHARED: u8 = 4;
/// The kind of frames with the tables of identifiers.
pub const TABLES: u8 = 5;
/// The kind of frames with the reason why a scan is not run on the cluster of the node.
pub const NOT_ON_CLUSTER: u8 = 6;
/// Keys in one frame, at most.
const MAX_KEYS: usize = 1 << 20;

/// Some of the keys of a scan, hashed.
#[derive(Debug, Default)]
pub struct KeyBatch {
    /// Rows that the keys come from.
    pub rows: u64,
    /// The hashes, in no order, with duplicates.
    pub hashes: Vec<UserHash>,
    /// Where the model's rule is a sum: a value for each hash, as [`crate::sum::SumRange::allows`] takes
    /// it. Rows whose value is NULL are left out, as SQL leaves them out of sums.
    pub values: Option<Vec<u64>>,
    /// Rows whose key was NULL.
    pub null_keys: u64,
}

/// A user, and the hasher's output for a row of that user.
pub type HashedRow = (UserHash, Box<[u8]>);

/// What an identifier query returns.
#[derive(Debug, PartialEq, Eq)]
pub enum IdentifierBatch {
    /// Its tables, before its first rows: the query is planned.
    Tables(Vec<TableFacts>),
    /// Some of its rows.
    Rows(Vec<HashedRow>),
}

impl IdentifierBatch {
    /// The batch as a frame.
    ///
    /// # Errors
    /// If it does not fit one frame.
    pub fn frame(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Tables(tables) => {
                let json = serde_json::to_vec(tables)?;
                frame(TABLES, |bytes| bytes.extend_from_slice(&json))
            }
            Self::Rows(batch) => rows(batch),
        }
    }

    /// The batch of a frame of the kind [`TABLES`] or [`ROWS`].
    ///
    /// # Errors
    /// If the payload is not one.
    pub fn read(kind: u8, payload: &[u8]) -> io::Result<Self> {
        match kind {
            TABLES => Ok(Self::Tables(serde_json::from_slice(payload)?)),
            _ => read_rows(payload).map(Self::Rows),
        }
    }
}

/// What a scan read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanStats {
    /// Rows that were scanned: those that the model returns, or those that it counts.
    pub rows_read: u64,
    /// Those of them whose key was NULL.
    pub null_keys: u64,
    /// Those of them whose key [`is_padded`].
    pub padded_keys: u64,
}

/// Keys of a scan for several models.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SharedBatch {
    /// The hashes, in no order, with duplicates.
    pub hashes: Vec<UserHash>,
    /// A value for each hash where the rule is a sum; else empty.
    pub values: Vec<u64>,
    /// The group of each hash.
    pub groups: Vec<u32>,
}

impl SharedBatch {
    /// Removes the keys, and keeps the memory.
    pub fn clear(&mut self) {
        self.hashes.clear();
        self.values.clear();
        self.groups.clear();
    }
}

/// What a scan for several models read, by group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedStats {
    /// Rows of the group.
    pub rows_read: Vec<u64>,
    /// Those of them whose key was NULL.
    pub null_keys: Vec<u64>,
    /// Those of them whose key [`is_padded`].
    pub padded_keys: Vec<u64>,
}

impl SharedStats {
    /// Those of so many groups, before anything is read.
    pub fn of(groups: usize) -> Self {
        let none = vec![0; groups];
        Self { rows_read: none.clone(), null_keys: none.clone(), padded_keys: none }
    }
}

/// Whether a key has white space or invisible characters around it, and so is another key than the one without.
///
/// ```
/// use throng_query::keys::is_padded;
///
/// assert!(is_padded(b"    42") && is_padded("42\u{a0}".as_bytes()) && is_padded(b"\t"));
/// assert!(is_padded("42\u{200b}".as_bytes()) && is_padded("\u{feff}42".as_bytes()) && is_padded(b"42\0"));
/// assert!(!is_padded(b"4 2") && !is_padded(b"") && !is_padded("\u{e9}t\u{e9}".as_bytes()));
/// ```
pub fn is_padded(key: &[u8]) -> bool {
    let may_be_space = |byte: Option<&u8>| byte.is_some_and(|byte| *byte <= b' ' || *byte >= 0x80);
    // Two bytes decide it for most keys.
    (may_be_space(key.first()) || may_be_space(key.last()))
        && std::str::from_utf8(key).is_ok_and(|text| trim_invisible(text) != text)
}

/// Writes a number of 64 bits in decimal at the end of the buffer, and returns it.
///
/// ```
/// let mut buffer = [0; 40];
/// assert_eq!(throng_query::keys::decimal(i64::MIN.into(), &mut buffer), b"-9223372036854775808");
/// ```
pub fn decimal(number: i128, buffer: &mut [u8; 40]) -> &[u8] {
    let mut at = buffer.len();
    // Keys of integer columns fit 64 bits, whose division is much faster than that of 128.
    let mut left = u64::try_from(number.unsigned_abs()).unwrap_or(u64::MAX);
    loop {
        at -= 1;
        buffer[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

/// Writes the keys of a batch, in as many frames as they need.
///
/// # Errors
/// Those of `out`.
pub fn write_keys(out: &mut impl Write, batch: &KeyBatch) -> io::Result<()> {
    let mut from = 0;
    loop {
        let to = batch.hashes.len().min(from + MAX_KEYS);
        // The counts are in the first frame.
        let counts = if from == 0 { (batch.rows, batch.null_keys) } else { (0, 0) };
        let values = batch.values.as_ref().map(|values| &values[from..to]);
        out.write_all(&keys(counts, &batch.hashes[from..to], values)?)?;
        from = to;
        if from == batch.hashes.len() {
            return Ok(());
        }
    }
}

fn keys(counts: (u64, u64), hashes: &[UserHash], values: Option<&[u64]>) -> io::Result<Vec<u8>> {
    frame(KEYS, |bytes| {
        let words = hashes.len() + values.map_or(0, <[u64]>::len);
        bytes.reserve_exact(24 + words * 8);
        bytes.extend_from_slice(&counts.0.to_le_bytes());
        bytes.extend_from_slice(&counts.1.to_le_bytes());
        bytes.extend_from_slice(&(hashes.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&u32::from(values.is_some()).to_le_bytes());
        hashes.iter().for_each(|hash| bytes.extend_from_slice(&hash.0.to_le_bytes()));
        values.into_iter().flatten().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
    })
}

/// The keys of a frame.
///
/// # Errors
/// If the payload is not one.
pub fn read_keys(payload: &[u8]) -> io::Result<KeyBatch> {
    let (counts, words) =
        payload.split_at_checked(24).ok_or_else(|| invalid("a frame of keys is truncated"))?;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&counts[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let sizes = word(16);
    let (count, with_values) = ((sizes & u64::from(u32::MAX)) as usize, sizes >> 32 == 1);
    let expected = count.checked_mul(if with_values { 16 } else { 8 });
    if expected != Some(words.len()) {
        return Err(invalid("the length of a frame of keys does not match its counts"));
    }
    let (hashes, values) = words.split_at(count * 8);
    let values = with_values.then(|| numbers(values).collect());
    let hashes = numbers(hashes).map(UserHash).collect();
    Ok(KeyBatch { rows: word(0), hashes, values, null_keys: word(8) })
}

/// Writes keys of a scan for several models as a frame, in place of what the buffer has: one buffer serves all frames of
/// a scan.
///
/// # Errors
/// If they do not fit one frame.
pub fn write_shared(frame: &mut Vec<u8>, batch: &SharedBatch) -> io::Result<()> {
    frame_into(frame, SHARED, |bytes| {
        bytes.reserve(8 + batch.hashes.len() * 12 + batch.values.len() * 8);
        bytes.extend_from_slice(&(batch.hashes.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&u32::from(!batch.values.is_empty()).to_le_bytes());
        append(bytes, batch.hashes.iter().map(|hash| hash.0.to_le_bytes()));
        append(bytes, batch.values.iter().map(|value| value.to_le_bytes()));
        append(bytes, batch.groups.iter().map(|group| group.to_le_bytes()));
    })
}

/// Appends numbers without a check of the capacity for each of them.
fn append<const SIZE: usize>(
    bytes: &mut Vec<u8>,
    numbers: impl ExactSizeIterator<Item = [u8; SIZE]>,
) {
    let start = bytes.len();
    bytes.resize(start + SIZE * numbers.len(), 0);
    for (to, number) in bytes[start..].as_chunks_mut::<SIZE>().0.iter_mut().zip(numbers) {
        *to = number;
    }
}

/// Reads the keys of such a frame, in place of what the batch has: one batch serves all frames of a scan.
///
/// # Errors
/// If the payload is not one; the batch has no keys then.
pub fn read_shared(payload: &[u8], batch: &mut SharedBatch) -> io::Result<()> {
    batch.clear();
    let truncated = || invalid("a frame of shared keys is truncated");
    let (count, rest) = payload.split_first_chunk::<4>().ok_or_else(truncated)?;
    let (with_values, rest) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
    let count = u32::from_le_bytes(*count) as usize;
    let values = if u32::from_le_bytes(*with_values) == 1 { count } else { 0 };
    // A frame is much shorter than what would overflow.
    if rest.len() != count * 12 + values * 8 {
        return Err(invalid("the length of a frame of shared keys does not match its counts"));
    }
    let (hashes, rest) = rest.split_at(count * 8);
    let (values, groups) = rest.split_at(values * 8);
    let (groups, _) = groups.as_chunks::<4>();
    batch.hashes.extend(numbers(hashes).map(UserHash));
    batch.values.extend(numbers(values));
    batch.groups.extend(groups.iter().map(|group| u32::from_le_bytes(*group)));
    Ok(())
}

/// The reason why a scan is not run on the cluster, as a frame. It must not have a value of the data.
///
/// # Errors
/// If it does not fit one frame.
pub fn not_on_cluster(reason: &str) -> io::Result<Vec<u8>> {
    frame(NOT_ON_CLUSTER, |bytes| bytes.extend_from_slice(reason.as_bytes()))
}

/// The reason of such a frame.
///
/// # Errors
/// If the payload is not UTF-8.
pub fn read_not_on_cluster(payload: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(payload).map_err(|_| invalid("a reason is not UTF-8"))
}

/// Rows of identifiers as a frame.
///
/// # Errors
/// If they do not fit one frame.
pub fn rows(rows: &[HashedRow]) -> io::Result<Vec<u8>> {
    frame(ROWS, |bytes| {
        for (user, hashed) in rows {
            bytes.extend_from_slice(&user.0.to_le_bytes());
            bytes.extend_from_slice(&(hashed.len() as u32).to_le_bytes());
            bytes.extend_from_slice(hashed);
        }
    })
}

/// The rows of such a frame.
///
/// # Errors
/// If the payload is not one.
pub fn read_rows(mut payload: &[u8]) -> io::Result<Vec<HashedRow>> {
    let truncated = || invalid("a frame of rows is truncated");
    let mut rows = Vec::new();
    while !payload.is_empty() {
        let (user, rest) = payload.split_first_chunk::<8>().ok_or_else(truncated)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (hashed, rest) = rest.split_at_checked(length).ok_or_else(truncated)?;
        rows.push((UserHash(u64::from_le_bytes(*user)), hashed.into()));
        payload = rest;
    }
    Ok(rows)
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use throng_worker::frame::{HEAD, head};

    use super::*;

    fn payload(frame: &[u8]) -> (u8, &[u8]) {
        let (length, kind) = head(frame[..HEAD].try_into().unwrap()).unwrap();
        (kind, &frame[HEAD..HEAD + length])
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let hashes: Vec<UserHash> = (0..5).map(|n| UserHash(n * 3)).collect();
        for values in [None, Some(vec![9, 8, 7, 6, u64::MAX])] {
            let batch = KeyBatch { rows: 7, hashes: hashes.clone(), values, null_keys: 2 };
            let mut out = Vec::new();
            write_keys(&mut out, &batch).unwrap();
            let (kind, bytes) = payload(&out);
            assert_eq!(kind, KEYS);
            let read = read_keys(bytes).unwrap();
            assert_eq!((read.rows, read.null_keys), (7, 2));
            assert_eq!((read.hashes, read.values), (batch.hashes, batch.values));
        }
    }

    #[test]
    fn many_keys_are_sent_in_several_frames_and_counted_once() {
        let hashes: Vec<UserHash> = (0..MAX_KEYS as u64 + 3).map(UserHash).collect();
        let batch = KeyBatch { rows: 9, hashes: hashes.clone(), values: None, null_keys: 1 };
        let mut out = Vec::new();
        write_keys(&mut out, &batch).unwrap();
        let (mut rest, mut rows, mut read) = (out.as_slice(), 0, Vec::new());
        while !rest.is_empty() {
            let (_, bytes) = payload(rest);
            rest = &rest[HEAD + bytes.len()..];
            let batch = read_keys(bytes).unwrap();
            rows += batch.rows;
            read.extend(batch.hashes);
        }
        assert_eq!((rows, read), (9, hashes));
    }

    #[test]
    fn shared_keys_are_read_as_they_were_written() {
        for values in [Vec::new(), vec![u64::MAX, 0]] {
            let hashes = vec![UserHash(7), UserHash(u64::MAX)];
            let batch = SharedBatch { hashes, values, groups: vec![3, u32::MAX] };
            // What the buffers have is that of an earlier frame.
            let mut frame = vec![1; 200];
            write_shared(&mut frame, &batch).unwrap();
            let (kind, bytes) = payload(&frame);
            assert_eq!((kind, HEAD + bytes.len()), (SHARED, frame.len()));
            let (hashes, groups) = (vec![UserHash(1); 9], vec![1; 9]);
            let mut read = SharedBatch { hashes, values: vec![1; 9], groups };
            read_shared(bytes, &mut read).unwrap();
            assert_eq!(read, batch);
            assert!(read_shared(&bytes[..bytes.len() - 1], &mut read).is_err());
            assert_eq!(read, SharedBatch::default());
        }
        assert!(read_shared(&[0xFF; 8], &mut SharedBatch::default()).is_err());
    }

    #[test]
    fn a_reason_is_read_as_it_was_written() {
        let frame = not_on_cluster("it has no \u{e9}quivalent").unwrap();
        let (kind, bytes) = payload(&frame);
        assert_eq!(kind, NOT_ON_CLUSTER);
        assert_eq!(read_not_on_cluster(bytes).unwrap(), "it has no \u{e9}quivalent");
        assert!(read_not_on_cluster(&[0xFF]).is_err());
    }

    #[test]
    fn payloads_that_are_invalid_are_refused_without_allocating() {
        assert!(read_keys(&[0; 23]).is_err());
        let mut wrong_count = vec![0; 24];
        wrong_count[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read_keys(&wrong_count).is_err());
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let written: Vec<HashedRow> =
            vec![(UserHash(7), [1, 2, 3].into()), (UserHash(u64::MAX), [].into())];
        let frame = rows(&written).unwrap();
        let (kind, bytes) = payload(&frame);
        assert_eq!(kind, ROWS);
        assert_eq!(read_rows(bytes).unwrap(), written);
        assert!(read_rows(&bytes[..bytes.len() - 1]).is_err());
        assert!(read_rows(&[]).unwrap().is_empty());
    }

    #[test]
    fn the_tables_of_identifiers_are_read_as_they_were_written() {
        let (name, columns) = ("shop.users".to_owned(), Vec::new());
        let facts =
            TableFacts { name, has_rows: Some(true), columns, doubts: Vec::new(), unread: None };
        for batch in [
            IdentifierBatch::Tables(vec![facts]),
            IdentifierBatch::Rows(vec![(UserHash(7), [1].into())]),
        ] {
            let frame = batch.frame().unwrap();
            let (kind, bytes) = payload(&frame);
            assert_eq!(IdentifierBatch::read(kind, bytes).unwrap(), batch);
        }
        assert!(IdentifierBatch::read(TABLES, b"{").is_err());
    }
}
