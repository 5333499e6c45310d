//! Decodes record batches (<https://kafka.apache.org/documentation/#recordbatch>, version 2, the only one
//! since 0.11). Values are slices of the response: with one event per message, the work per record is
//! most of the work of an aggregator.

use std::iter::Peekable;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::fetch_response::AbortedTransaction;
use throng_model::Timestamp;

use crate::Record;

use super::super::log::TIME_HEADER;
use super::compression::decompress;
use super::error::BatchError;

/// The fields base offset and length, which the length does not include.
const LENGTH_PREFIX: usize = 12;
/// The size of all fields before the records.
const HEADER: usize = 61;
/// The position of the first byte that the checksum covers.
const CHECKSUM_START: usize = 21;

const CODEC: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// The result of a fetch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) records: Vec<Record>,
    /// The offset to fetch next.
    pub(crate) next: i64,
}

/// The fields of a batch that are used here.
struct BatchHeader {
    base_offset: i64,
    attributes: i16,
    last_offset_delta: i32,
    base_time: i64,
    max_time: i64,
    producer_id: i64,
    count: i32,
}

/// Decodes the committed records from the offset `from` on. A truncated last batch is left for the next
/// fetch. So is an invalid one with the batches after it: it is an error only when it is the first batch.
/// `aborted`: the aborted transactions within these batches, in any order (brokers sort them by their
/// ends).
///
/// # Errors
/// [`BatchError`]; never panics on any bytes.
pub(crate) fn read(
    mut bytes: Bytes,
    from: i64,
    mut aborted: Vec<AbortedTransaction>,
) -> Result<Fetched, BatchError> {
    // Kafka's index of aborted transactions has the order of their ends, and so has the response: with an
    // overlap, a transaction that began first can be listed last. Kafka's own consumer orders them too.
    aborted.sort_unstable_by_key(|transaction| transaction.first_offset);
    let mut reader = BatchReader {
        fetched: Fetched { records: Vec::new(), next: from },
        aborted: aborted.into_iter().peekable(),
        aborting: Vec::new(),
    };
    loop {
        let before = reader.fetched.records.len();
        let read = split_batch(&mut bytes)
            .and_then(|batch| batch.map(|batch| reader.add(&batch, from)).transpose());
        match read {
            Ok(Some(())) => {}
            Ok(None) => return Ok(reader.fetched),
            // Valid records before the damage are delivered first, and the error comes with the offset where
            // the damage is. Otherwise a bad batch would hide up to a whole fetch of good ones.
            Err(_) if reader.fetched.next > from => {
                reader.fetched.records.truncate(before);
                return Ok(reader.fetched);
            }
            Err(error) => return Err(error),
        }
    }
}

/// The state of decoding a fetch.
struct BatchReader {
    fetched: Fetched,
    /// Aborted transactions that begin after the current batch, by their first offset.
    aborted: Peekable<std::vec::IntoIter<AbortedTransaction>>,
    /// Producers with an aborted transaction at the current batch.
    aborting: Vec<i64>,
}

impl BatchReader {
    fn add(&mut self, batch: &Bytes, from: i64) -> Result<(), BatchError> {
        let header = header(batch)?;
        // From the header, not from the last record: compaction removes records and keeps the offsets of the
        // batch (documentation of the record batch). With the last record's offset, a reader would ask for
        // the removed one forever.
        let last_offset = header.base_offset.saturating_add(i64::from(header.last_offset_delta));
        while let Some(next) = self.aborted.next_if(|next| next.first_offset <= last_offset) {
            self.aborting.push(next.producer_id.0);
        }
        // A batch belongs to one producer, so its records are committed or aborted together (KIP-98). Records
        // outside of a transaction are never aborted, even if their producer has an aborted one.
        let is_committed =
            header.attributes & TRANSACTIONAL == 0 || !self.aborting.contains(&header.producer_id);
        if header.attributes & CONTROL != 0 {
            // A commit or abort marker (KIP-98): the end of the producer's transaction. If it were not removed
            // here, the next, committed transaction of this producer would be skipped. Its record is not data.
            self.aborting.retain(|producer| *producer != header.producer_id);
        } else if is_committed {
            let records = batch.slice(HEADER..);
            let records = match header.attributes & CODEC {
                0 => records,
                codec => decompress(codec, &records)?,
            };
            read_records(&records, &header, from, &mut self.fetched.records)?;
        }
        self.fetched.next = self.fetched.next.max(last_offset.saturating_add(1));
        Ok(())
    }
}

/// Splits off the first batch; `None` if there is no complete one.
fn split_batch(bytes: &mut Bytes) -> Result<Option<Bytes>, BatchError> {
    let Some(length) = bytes.get(8..LENGTH_PREFIX).and_then(|b| <[u8; 4]>::try_from(b).ok()) else {
        return Ok(None);
    };
    let length = usize::try_from(i32::from_be_bytes(length)).map_err(|_| BatchError::Truncated)?;
    // Not an error: brokers send the file's bytes up to the limit of the fetch, which may end inside of a
    // batch (protocol guide, Fetch API).
    if bytes.len() - LENGTH_PREFIX < length {
        return Ok(None);
    }
    Ok(Some(bytes.split_to(LENGTH_PREFIX + length)))
}

fn header(batch: &Bytes) -> Result<BatchHeader, BatchError> {
    // First: it has the same position in all versions, and the other fields have not.
    let version = batch.get(16).copied().ok_or(BatchError::Truncated)?.cast_signed();
    if version != 2 {
        return Err(BatchError::Version(version));
    }
    let mut fields = batch.get(..HEADER).ok_or(BatchError::Truncated)?;
    let base_offset = fields.get_i64();
    // Length, leader epoch and version. The checksum, CRC-32C, begins after itself: the broker sets the
    // leader epoch of each batch without computing it again.
    fields.advance(9);
    let expected = fields.get_u32();
    let found = crc32c::crc32c(&batch[CHECKSUM_START..]);
    if found != expected {
        return Err(BatchError::Checksum { found, expected });
    }
    let (attributes, last_offset_delta) = (fields.get_i16(), fields.get_i32());
    let (base_time, max_time, producer_id) = (fields.get_i64(), fields.get_i64(), fields.get_i64());
    // Producer epoch and sequence, which only the broker needs.
    fields.advance(6);
    let count = fields.get_i32();
    Ok(BatchHeader {
        base_offset,
        attributes,
        last_offset_delta,
        base_time,
        max_time,
        producer_id,
        count,
    })
}

fn read_records(
    block: &Bytes,
    header: &BatchHeader,
    from: i64,
    to: &mut Vec<Record>,
) -> Result<(), BatchError> {
    let mut fields = FieldReader { bytes: block, at: 0 };
    // Limited by the size of the block, as the count may be wrong: a record has at least seven bytes.
    to.reserve(usize::try_from(header.count).unwrap_or(0).min(block.len() / 7));
    for _ in 0..header.count {
        let length = fields.length()?.ok_or(BatchError::Truncated)?;
        let end = fields.at.checked_add(length).filter(|end| *end <= block.len());
        let end = end.ok_or(BatchError::Truncated)?;
        // Limited to the record, so that a wrong length inside of it cannot read the next one. Continues at
        // its end whatever was read: later versions may add fields there.
        let mut record = FieldReader { bytes: &block[..end], at: fields.at };
        fields.at = end;
        // The attributes, of which none is used in version 2.
        record.skip(1)?;
        let time_delta = record.varint()?;
        let offset = header.base_offset.saturating_add(record.varint()?);
        // Brokers return whole batches, so the first one may begin before the requested offset. Without this
        // check records would be delivered twice after each restart.
        if offset < from {
            continue;
        }
        if let Some(key) = record.length()? {
            record.skip(key)?;
        }
        let value = record.bytes_field()?.unwrap_or(0..0);
        let at = match time_header(&mut record)? {
            Some(at) => at,
            // With LogAppendTime the broker sets the maximum time of the batch and does not rewrite the
            // records, whose deltas still have the producer's time (KIP-32).
            None if header.attributes & LOG_APPEND_TIME != 0 => micros(header.max_time),
            None => micros(header.base_time.saturating_add(time_delta)),
        };
        let value = block.slice(value);
        to.push(Record { offset: u64::try_from(offset).unwrap_or(0), at, value });
    }
    Ok(())
}

fn micros(millis: i64) -> Timestamp {
    Timestamp(millis.max(0).saturating_mul(1_000))
}

/// The time in the headers of a record, if there is one.
fn time_header(record: &mut FieldReader<'_>) -> Result<Option<Timestamp>, BatchError> {
    let mut at = None;
    for _ in 0..record.varint()? {
        let key = record.bytes_field()?.ok_or(BatchError::Truncated)?;
        let value = record.bytes_field()?;
        if at.is_none() && &record.bytes[key] == TIME_HEADER.as_bytes() {
            let bytes = value.and_then(|value| record.bytes[value].try_into().ok());
            at = bytes.map(|bytes| Timestamp(i64::from_le_bytes(bytes)));
        }
    }
    Ok(at)
}

/// Decodes fields in sequence.
struct FieldReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl FieldReader<'_> {
    fn skip(&mut self, count: usize) -> Result<(), BatchError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        self.at = end.ok_or(BatchError::Truncated)?;
        Ok(())
    }

    /// A length and this number of bytes: the range of the bytes; `None` for null.
    #[inline]
    fn bytes_field(&mut self) -> Result<Option<std::ops::Range<usize>>, BatchError> {
        let Some(length) = self.length()? else { return Ok(None) };
        let start = self.at;
        self.skip(length)?;
        Ok(Some(start..self.at))
    }

    #[inline]
    fn length(&mut self) -> Result<Option<usize>, BatchError> {
        match self.varint()? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| BatchError::Truncated),
        }
    }

    /// A zigzag varint.
    #[inline]
    fn varint(&mut self) -> Result<i64, BatchError> {
        let (mut bits, mut shift) = (0u64, 0);
        loop {
            let byte = *self.bytes.get(self.at).ok_or(BatchError::Truncated)?;
            self.at += 1;
            bits |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
            }
            shift += 7;
            // 64 bits are at most ten bytes: a damaged field of continuation bits must end.
            if shift > 63 {
                return Err(BatchError::Truncated);
            }
        }
    }
}

/// Decodes batches, unchanged and with a correct checksum of the first one; for the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = read(Bytes::copy_from_slice(bytes), 0, Vec::new());
    let mut fixed = bytes.to_vec();
    let Some(length) = fixed.get(8..LENGTH_PREFIX).map(|mut length| length.get_i32()) else {
        return;
    };
    let end = usize::try_from(length).map_or(fixed.len(), |length| LENGTH_PREFIX + length);
    let Some(covered) = fixed.get(CHECKSUM_START..end.min(fixed.len())) else { return };
    let sum = crc32c::crc32c(covered);
    fixed[17..CHECKSUM_START].copy_from_slice(&sum.to_be_bytes());
    let _ = read(fixed.into(), 0, Vec::new());
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
    let compressed = |codec: u8, records: Vec<u8>| {
        let mut batch = plain[..HEADER].to_vec();
        batch[CHECKSUM_START + 1] |= codec;
        batch.extend(records);
        let length = (batch.len() - LENGTH_PREFIX) as u32;
        batch[8..LENGTH_PREFIX].copy_from_slice(&length.to_be_bytes());
        batch
    };
    let zstd = zstd::encode_all(&plain[HEADER..], 0).expect("bytes in memory");
    let snappy = snap::raw::Encoder::new().compress_vec(&plain[HEADER..]).expect("bytes in memory");
    vec![plain.to_vec(), compressed(4, zstd), compressed(2, snappy)]
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::indexmap::IndexMap;
    use kafka_protocol::protocol::StrBytes;
    use kafka_protocol::records::{
        Compression, Record as KafkaRecord, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    };
    use proptest::prelude::*;

    use super::*;

    /// A record for the encoder of another implementation.
    fn kafka_record(offset: i64, producer_id: i64, value: Option<&[u8]>) -> KafkaRecord {
        KafkaRecord {
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

    fn encoded(records: &[KafkaRecord]) -> Bytes {
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut bytes, records, &options).unwrap();
        bytes.freeze()
    }

    fn values(fetched: &Fetched) -> Vec<(u64, &[u8])> {
        fetched.records.iter().map(|record| (record.offset, &record.value[..])).collect()
    }

    #[test]
    fn records_begin_at_the_offset_and_a_truncated_batch_is_left() {
        let mut bytes =
            encoded(&[kafka_record(5, -1, Some(b"a")), kafka_record(6, -1, None)]).to_vec();
        let first = bytes.len();
        bytes.extend(encoded(&[kafka_record(9, -1, Some(b"after a gap"))]));
        let second = bytes.len();
        bytes.extend(&encoded(&[kafka_record(10, -1, Some(b"truncated"))])[..40]);
        let fetched = read(bytes.clone().into(), 6, Vec::new()).unwrap();
        assert_eq!(values(&fetched), [(6, &b""[..]), (9, b"after a gap")]);
        assert_eq!(fetched.next, 10);
        assert_eq!(fetched.records[0].at, Timestamp(1_006_000));
        // The valid batches before the damage are returned first.
        bytes[second - 1] ^= 1;
        let fetched = read(bytes.clone().into(), 6, Vec::new()).unwrap();
        assert_eq!((values(&fetched), fetched.next), (vec![(6, &b""[..])], 7));
        let error = read(bytes.split_off(first).into(), 7, Vec::new());
        assert!(matches!(error, Err(BatchError::Checksum { .. })), "{error:?}");
    }

    #[test]
    fn the_header_has_the_time() {
        let mut record = kafka_record(0, -1, Some(b"a"));
        for (name, value) in [("other", [9; 8]), (TIME_HEADER, 77i64.to_le_bytes())] {
            let value = Some(Bytes::copy_from_slice(&value));
            record.headers.insert(StrBytes::from_static_str(name), value);
        }
        let fetched = read(encoded(&[record]), 0, Vec::new()).unwrap();
        assert_eq!(fetched.records[0].at, Timestamp(77));
    }

    /// The control record that ends an aborted transaction.
    fn abort_marker(offset: i64, producer_id: i64) -> KafkaRecord {
        let mut marker = kafka_record(offset, producer_id, Some(&[0, 0, 0, 0, 0, 0]));
        // Version 0, and type 0: abort.
        (marker.control, marker.key) = (true, Some(Bytes::from_static(&[0, 0, 0, 0])));
        marker
    }

    /// The transactions of three producers overlap. Two of them are aborted, the one that began later
    /// first.
    #[test]
    fn records_of_aborted_transactions_are_skipped() {
        let records = [
            kafka_record(0, 7, Some(b"no")),
            kafka_record(1, 8, Some(b"of")),
            kafka_record(2, 9, Some(b"no")),
            abort_marker(3, 9),
            kafka_record(4, 9, Some(b"on")),
            kafka_record(5, 7, Some(b"no")),
            abort_marker(6, 7),
            kafka_record(7, 7, Some(b"by")),
        ];
        let bytes: Vec<u8> =
            records.iter().flat_map(|record| encoded(std::slice::from_ref(record))).collect();
        let aborted = [(9, 2), (7, 0)].map(|(producer, first)| {
            AbortedTransaction::default().with_producer_id(producer.into()).with_first_offset(first)
        });
        let fetched = read(bytes.into(), 0, aborted.to_vec()).unwrap();
        assert_eq!(values(&fetched), [(1, &b"of"[..]), (4, b"on"), (7, b"by")]);
        assert_eq!(fetched.next, 8);
    }

    proptest! {
        #[test]
        fn batches_of_another_implementation_are_decoded(
            values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..300)), 1..40),
            from in 0i64..40,
        ) {
            let records: Vec<_> = (0i64..)
                .zip(&values)
                .map(|(offset, value)| kafka_record(offset, -1, value.as_deref()))
                .collect();
            let fetched = read(encoded(&records), from, Vec::new()).unwrap();
            let expected = records.iter().filter(|record| record.offset >= from);
            let expected: Vec<Record> = expected
                .map(|record| Record {
                    offset: record.offset as u64,
                    at: Timestamp(record.timestamp * 1_000),
                    value: record.value.clone().unwrap_or_default(),
                })
                .collect();
            prop_assert_eq!(fetched.next, from.max(values.len() as i64));
            prop_assert_eq!(fetched.records, expected);
        }

        /// Damage that the checksum does not detect, because it is corrected.
        #[test]
        fn no_bytes_make_it_panic(place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = encoded(&[kafka_record(0, -1, Some(b"one")), kafka_record(1, 3, Some(b"two"))]).to_vec();
            let place = CHECKSUM_START + place.index(bytes.len() - CHECKSUM_START);
            bytes[place] = byte;
            let sum = crc32c::crc32c(&bytes[CHECKSUM_START..]);
            bytes[17..21].copy_from_slice(&sum.to_be_bytes());
            let _ = read(Bytes::copy_from_slice(&bytes), 0, Vec::new());
            bytes.truncate(cut.index(bytes.len()));
            let _ = read(bytes.into(), 0, Vec::new());
        }
    }
}
