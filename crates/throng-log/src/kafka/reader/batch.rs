//! Record batches as a broker hands them out
//! (<https://kafka.apache.org/documentation/#recordbatch>, version 2, which brokers have written since
//! 0.11). Values are slices of what came over the wire: with one event a message, what is done per
//! record is most of an aggregator's work.

use std::iter::Peekable;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::fetch_response::AbortedTransaction;
use throng_model::Timestamp;

use crate::Record;

use super::super::log::AT;
use super::compression::decompress;

/// Base offset and length, which the length does not count.
const BEFORE_LENGTH: usize = 12;
/// All fields before the records.
const HEAD: usize = 61;
/// Where what the checksum is of begins.
const CHECKED_FROM: usize = 21;

const CODEC: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// Why bytes are no record batches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error("a record batch ends in the middle of a field")]
    Cut,
    #[error("a record batch has the checksum {found:08x}, not {wanted:08x}")]
    Checksum { found: u32, wanted: u32 },
    #[error("a record batch is of version {0}; Throng reads version 2, of Kafka 0.11 and later")]
    Version(i8),
    #[error("a record batch is compressed by codec {0}, which Throng does not know")]
    Codec(i16),
    #[error("a record batch cannot be decompressed: {0}")]
    Compressed(String),
}

/// What a fetch brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) records: Vec<Record>,
    /// The offset to ask for next.
    pub(crate) next: i64,
}

/// The fields of a batch that count here.
struct Head {
    base_offset: i64,
    attributes: i16,
    last_offset_delta: i32,
    base_time: i64,
    max_time: i64,
    producer_id: i64,
    count: i32,
}

/// Reads the committed records from the offset `from` on. A last batch that is cut off is left for
/// the next fetch, and so is one that is damaged and what comes after it: damage is told when it is
/// the next thing to read. `aborted`: the transactions among these that were aborted, in any order
/// (brokers have them by where they ended).
///
/// # Errors
/// [`Damage`]; never panics, whatever the bytes.
pub(crate) fn read(
    mut bytes: Bytes,
    from: i64,
    mut aborted: Vec<AbortedTransaction>,
) -> Result<Fetched, Damage> {
    aborted.sort_unstable_by_key(|transaction| transaction.first_offset);
    let mut reading = Reading {
        fetched: Fetched { records: Vec::new(), next: from },
        aborted: aborted.into_iter().peekable(),
        aborting: Vec::new(),
    };
    loop {
        let before = reading.fetched.records.len();
        let read = split_batch(&mut bytes)
            .and_then(|batch| batch.map(|batch| reading.add(&batch, from)).transpose());
        match read {
            Ok(Some(())) => {}
            Ok(None) => return Ok(reading.fetched),
            Err(_) if reading.fetched.next > from => {
                reading.fetched.records.truncate(before);
                return Ok(reading.fetched);
            }
            Err(damage) => return Err(damage),
        }
    }
}

/// What has been read of a fetch, and whose transactions are aborted where it stands.
struct Reading {
    fetched: Fetched,
    aborted: Peekable<std::vec::IntoIter<AbortedTransaction>>,
    /// By producer.
    aborting: Vec<i64>,
}

impl Reading {
    fn add(&mut self, batch: &Bytes, from: i64) -> Result<(), Damage> {
        let head = head(batch)?;
        let last_offset = head.base_offset.saturating_add(i64::from(head.last_offset_delta));
        while let Some(next) = self.aborted.next_if(|next| next.first_offset <= last_offset) {
            self.aborting.push(next.producer_id.0);
        }
        let counts =
            head.attributes & TRANSACTIONAL == 0 || !self.aborting.contains(&head.producer_id);
        if head.attributes & CONTROL != 0 {
            // The end of a transaction, one way or the other.
            self.aborting.retain(|producer| *producer != head.producer_id);
        } else if counts {
            let records = batch.slice(HEAD..);
            let block = match head.attributes & CODEC {
                0 => records,
                codec => decompress(codec, &records)?,
            };
            read_block(&block, &head, from, &mut self.fetched.records)?;
        }
        self.fetched.next = self.fetched.next.max(last_offset.saturating_add(1));
        Ok(())
    }
}

/// Takes the first batch off; `None` if there is no whole one.
fn split_batch(bytes: &mut Bytes) -> Result<Option<Bytes>, Damage> {
    let Some(length) = bytes.get(8..BEFORE_LENGTH).and_then(|b| <[u8; 4]>::try_from(b).ok()) else {
        return Ok(None);
    };
    let length = usize::try_from(i32::from_be_bytes(length)).map_err(|_| Damage::Cut)?;
    if bytes.len() - BEFORE_LENGTH < length {
        return Ok(None);
    }
    Ok(Some(bytes.split_to(BEFORE_LENGTH + length)))
}

fn head(batch: &Bytes) -> Result<Head, Damage> {
    let version = batch.get(16).copied().ok_or(Damage::Cut)?.cast_signed();
    if version != 2 {
        return Err(Damage::Version(version));
    }
    let mut fields = batch.get(..HEAD).ok_or(Damage::Cut)?;
    let base_offset = fields.get_i64();
    // Length, leader epoch and version.
    fields.advance(9);
    let wanted = fields.get_u32();
    let found = crc32c::crc32c(&batch[CHECKED_FROM..]);
    if found != wanted {
        return Err(Damage::Checksum { found, wanted });
    }
    let (attributes, last_offset_delta) = (fields.get_i16(), fields.get_i32());
    let (base_time, max_time, producer_id) = (fields.get_i64(), fields.get_i64(), fields.get_i64());
    // Producer epoch and sequence.
    fields.advance(6);
    let count = fields.get_i32();
    Ok(Head { base_offset, attributes, last_offset_delta, base_time, max_time, producer_id, count })
}

fn read_block(block: &Bytes, head: &Head, from: i64, to: &mut Vec<Record>) -> Result<(), Damage> {
    let mut fields = Fields { bytes: block, at: 0 };
    // Nobody's word is taken for how much memory is needed: a record takes seven bytes at least.
    to.reserve(usize::try_from(head.count).unwrap_or(0).min(block.len() / 7));
    for _ in 0..head.count {
        let length = fields.length()?.ok_or(Damage::Cut)?;
        let end = fields.at.checked_add(length).filter(|end| *end <= block.len());
        let end = end.ok_or(Damage::Cut)?;
        let mut record = Fields { bytes: &block[..end], at: fields.at };
        fields.at = end;
        record.skip(1)?;
        let time_delta = record.number()?;
        let offset = head.base_offset.saturating_add(record.number()?);
        if offset < from {
            continue;
        }
        if let Some(key) = record.length()? {
            record.skip(key)?;
        }
        let value = record.span()?.unwrap_or(0..0);
        let at = match at_header(&mut record)? {
            Some(at) => at,
            None if head.attributes & LOG_APPEND_TIME != 0 => micros(head.max_time),
            None => micros(head.base_time.saturating_add(time_delta)),
        };
        let value = block.slice(value);
        to.push(Record { offset: u64::try_from(offset).unwrap_or(0), at, value });
    }
    Ok(())
}

fn micros(millis: i64) -> Timestamp {
    Timestamp(millis.max(0).saturating_mul(1_000))
}

/// The time that the header of a record says, if it has one.
fn at_header(record: &mut Fields<'_>) -> Result<Option<Timestamp>, Damage> {
    let mut at = None;
    for _ in 0..record.number()? {
        let key = record.span()?.ok_or(Damage::Cut)?;
        let value = record.span()?;
        if at.is_none() && &record.bytes[key] == AT.as_bytes() {
            let bytes = value.and_then(|value| record.bytes[value].try_into().ok());
            at = bytes.map(|bytes| Timestamp(i64::from_le_bytes(bytes)));
        }
    }
    Ok(at)
}

/// Fields one after the other.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn skip(&mut self, count: usize) -> Result<(), Damage> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        self.at = end.ok_or(Damage::Cut)?;
        Ok(())
    }

    /// A length and so many bytes; `None` for one that is not there.
    #[inline]
    fn span(&mut self) -> Result<Option<std::ops::Range<usize>>, Damage> {
        let Some(length) = self.length()? else { return Ok(None) };
        let start = self.at;
        self.skip(length)?;
        Ok(Some(start..self.at))
    }

    #[inline]
    fn length(&mut self) -> Result<Option<usize>, Damage> {
        match self.number()? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Damage::Cut),
        }
    }

    /// A number of variable length in zigzag.
    #[inline]
    fn number(&mut self) -> Result<i64, Damage> {
        let (mut number, mut shift) = (0u64, 0);
        loop {
            let byte = *self.bytes.get(self.at).ok_or(Damage::Cut)?;
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
            shift += 7;
            if shift > 63 {
                return Err(Damage::Cut);
            }
        }
    }
}

/// Reads batches, as they are and with the checksum of the first one made right; for the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = read(Bytes::copy_from_slice(bytes), 0, Vec::new());
    let mut sealed = bytes.to_vec();
    let Some(length) = sealed.get(8..BEFORE_LENGTH).map(|mut length| length.get_i32()) else {
        return;
    };
    let end = usize::try_from(length).map_or(sealed.len(), |length| BEFORE_LENGTH + length);
    let Some(checked) = sealed.get(CHECKED_FROM..end.min(sealed.len())) else { return };
    let sum = crc32c::crc32c(checked);
    sealed[17..CHECKED_FROM].copy_from_slice(&sum.to_be_bytes());
    let _ = read(sealed.into(), 0, Vec::new());
}

/// Batches without compression and with two codecs, for the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_seeds() -> Vec<Vec<u8>> {
    use kafka_protocol::records::{
        Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    };
    let record = |offset: i64, value: &[u8]| Record {
        transactional: false,
        control: false,
        partition_leader_epoch: 0,
        producer_id: -1,
        producer_epoch: 0,
        timestamp_type: TimestampType::Creation,
        timestamp: 1_000 + offset,
        sequence: offset as i32,
        offset,
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::copy_from_slice(value)),
        headers: kafka_protocol::indexmap::IndexMap::new(),
        delete_horizon: false,
    };
    let mut plain = bytes::BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut plain, &[record(0, b"one"), record(1, b"two")], &options)
        .expect("records that can be encoded");
    let packed = |codec: u8, records: Vec<u8>| {
        let mut batch = plain[..HEAD].to_vec();
        batch[CHECKED_FROM + 1] |= codec;
        batch.extend(records);
        let length = (batch.len() - BEFORE_LENGTH) as u32;
        batch[8..BEFORE_LENGTH].copy_from_slice(&length.to_be_bytes());
        batch
    };
    let zstd = zstd::encode_all(&plain[HEAD..], 0).expect("bytes in memory");
    let snappy = snap::raw::Encoder::new().compress_vec(&plain[HEAD..]).expect("bytes in memory");
    vec![plain.to_vec(), packed(4, zstd), packed(2, snappy)]
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::indexmap::IndexMap;
    use kafka_protocol::protocol::StrBytes;
    use kafka_protocol::records::{
        Compression, Record as Theirs, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    };
    use proptest::prelude::*;

    use super::*;

    /// A record as another implementation writes it.
    fn theirs(offset: i64, producer_id: i64, value: Option<&[u8]>) -> Theirs {
        Theirs {
            transactional: producer_id >= 0,
            control: false,
            partition_leader_epoch: 0,
            producer_id,
            producer_epoch: 0,
            timestamp_type: TimestampType::Creation,
            timestamp: 1_000 + offset,
            sequence: i32::try_from(offset).unwrap(),
            offset,
            key: Some(Bytes::from_static(b"key")),
            value: value.map(Bytes::copy_from_slice),
            headers: IndexMap::new(),
            delete_horizon: false,
        }
    }

    fn encoded(records: &[Theirs]) -> Bytes {
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut bytes, records, &options).unwrap();
        bytes.freeze()
    }

    fn values(fetched: &Fetched) -> Vec<(u64, &[u8])> {
        fetched.records.iter().map(|record| (record.offset, &record.value[..])).collect()
    }

    #[test]
    fn records_come_from_the_offset_on_and_a_cut_batch_is_left() {
        let mut bytes = encoded(&[theirs(5, -1, Some(b"a")), theirs(6, -1, None)]).to_vec();
        let first = bytes.len();
        bytes.extend(encoded(&[theirs(9, -1, Some(b"after a gap"))]));
        let whole = bytes.len();
        bytes.extend(&encoded(&[theirs(10, -1, Some(b"cut"))])[..40]);
        let fetched = read(bytes.clone().into(), 6, Vec::new()).unwrap();
        assert_eq!(values(&fetched), [(6, &b""[..]), (9, b"after a gap")]);
        assert_eq!(fetched.next, 10);
        assert_eq!(fetched.records[0].at, Timestamp(1_006_000));
        // What is right before the damage is given out first.
        bytes[whole - 1] ^= 1;
        let fetched = read(bytes.clone().into(), 6, Vec::new()).unwrap();
        assert_eq!((values(&fetched), fetched.next), (vec![(6, &b""[..])], 7));
        let damage = read(bytes.split_off(first).into(), 7, Vec::new());
        assert!(matches!(damage, Err(Damage::Checksum { .. })), "{damage:?}");
    }

    #[test]
    fn the_header_tells_the_time() {
        let mut record = theirs(0, -1, Some(b"a"));
        for (name, value) in [("other", [9; 8]), (AT, 77i64.to_le_bytes())] {
            let value = Some(Bytes::copy_from_slice(&value));
            record.headers.insert(StrBytes::from_static_str(name), value);
        }
        let fetched = read(encoded(&[record]), 0, Vec::new()).unwrap();
        assert_eq!(fetched.records[0].at, Timestamp(77));
    }

    /// The control record that ends an aborted transaction.
    fn abort_mark(offset: i64, producer_id: i64) -> Theirs {
        let mut mark = theirs(offset, producer_id, Some(&[0, 0, 0, 0, 0, 0]));
        // Version 0, and 0 for an aborted one.
        (mark.control, mark.key) = (true, Some(Bytes::from_static(&[0, 0, 0, 0])));
        mark
    }

    /// Three producers' transactions lie between each other. Two of them are aborted, the one that
    /// began later first.
    #[test]
    fn aborted_transactions_are_passed_over() {
        let records = [
            theirs(0, 7, Some(b"no")),
            theirs(1, 8, Some(b"of")),
            theirs(2, 9, Some(b"no")),
            abort_mark(3, 9),
            theirs(4, 9, Some(b"on")),
            theirs(5, 7, Some(b"no")),
            abort_mark(6, 7),
            theirs(7, 7, Some(b"by")),
        ];
        let bytes: Vec<u8> =
            records.iter().flat_map(|record| encoded(std::slice::from_ref(record))).collect();
        let gone = [(9, 2), (7, 0)].map(|(producer, first)| {
            AbortedTransaction::default().with_producer_id(producer.into()).with_first_offset(first)
        });
        let fetched = read(bytes.into(), 0, gone.to_vec()).unwrap();
        assert_eq!(values(&fetched), [(1, &b"of"[..]), (4, b"on"), (7, b"by")]);
        assert_eq!(fetched.next, 8);
    }

    proptest! {
        #[test]
        fn what_another_implementation_writes_is_read(
            values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..300)), 1..40),
            from in 0i64..40,
        ) {
            let records: Vec<_> = (0i64..)
                .zip(&values)
                .map(|(offset, value)| theirs(offset, -1, value.as_deref()))
                .collect();
            let fetched = read(encoded(&records), from, Vec::new()).unwrap();
            let wanted = records.iter().filter(|record| record.offset >= from);
            let wanted: Vec<Record> = wanted
                .map(|record| Record {
                    offset: record.offset as u64,
                    at: Timestamp(record.timestamp * 1_000),
                    value: record.value.clone().unwrap_or_default(),
                })
                .collect();
            prop_assert_eq!(fetched.next, from.max(values.len() as i64));
            prop_assert_eq!(fetched.records, wanted);
        }

        /// Damage that the checksum cannot see: it is made right again.
        #[test]
        fn no_bytes_make_it_panic(place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = encoded(&[theirs(0, -1, Some(b"one")), theirs(1, 3, Some(b"two"))]).to_vec();
            let place = CHECKED_FROM + place.index(bytes.len() - CHECKED_FROM);
            bytes[place] = byte;
            let sum = crc32c::crc32c(&bytes[CHECKED_FROM..]);
            bytes[17..21].copy_from_slice(&sum.to_be_bytes());
            let _ = read(Bytes::copy_from_slice(&bytes), 0, Vec::new());
            bytes.truncate(cut.index(bytes.len()));
            let _ = read(bytes.into(), 0, Vec::new());
        }
    }
}
