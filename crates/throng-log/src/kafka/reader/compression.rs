//! Decompresses record batches.

use std::io::Read;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::BatchError;

/// The limit of a decompressed batch: eight times the largest message that Throng's topics accept.
const MAX_DECOMPRESSED_BYTES: usize = 128 << 20;
/// The assumed compression ratio, for the first allocation.
const EXPECTED_RATIO: usize = 3;
/// Producers in Java frame Snappy's blocks as snappy-java does: this magic, two version numbers, then each
/// block with its length (<https://github.com/xerial/snappy-java#compatibility-notes>).
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: usize = 16;

/// Decompresses by one of Kafka's codecs: 1 gzip, 2 Snappy, 3 LZ4, 4 Zstandard.
pub(super) fn decompress(codec: i16, compressed: &Bytes) -> Result<Bytes, BatchError> {
    let failed = |error: std::io::Error| BatchError::Decompression(error.to_string());
    match codec {
        // Several members: a gzip stream may be a concatenation of them (RFC 1952, section 2.2). The single
        // decoder would stop after the first one and lose the other records.
        1 => read_all(compressed, flate2::read::MultiGzDecoder::new(&compressed[..])),
        2 => snappy(compressed),
        3 => read_all(compressed, lz4_flex::frame::FrameDecoder::new(&compressed[..])),
        4 => {
            let reader = zstd::stream::read::Decoder::with_buffer(&compressed[..]);
            read_all(compressed, reader.map_err(failed)?)
        }
        _ => Err(BatchError::Codec(codec)),
    }
}

fn too_large() -> BatchError {
    BatchError::Decompression(format!("it is larger than {MAX_DECOMPRESSED_BYTES} bytes"))
}

fn read_all(compressed: &Bytes, reader: impl Read) -> Result<Bytes, BatchError> {
    // A buffer that is too small is copied when it grows.
    let mut bytes = Vec::with_capacity(EXPECTED_RATIO * compressed.len());
    // One byte more than the limit, to distinguish a batch of exactly this size from a larger one.
    let read = reader.take(MAX_DECOMPRESSED_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| BatchError::Decompression(error.to_string()))?;
    if bytes.len() > MAX_DECOMPRESSED_BYTES {
        return Err(too_large());
    }
    Ok(bytes.into())
}

fn snappy(compressed: &Bytes) -> Result<Bytes, BatchError> {
    let mut bytes = BytesMut::new();
    if !compressed.starts_with(XERIAL_MAGIC) {
        add_block(compressed, &mut bytes)?;
        return Ok(bytes.freeze());
    }
    let mut blocks = compressed.get(XERIAL_HEADER..).ok_or(BatchError::Truncated)?;
    while blocks.has_remaining() {
        let length = blocks.try_get_u32().map_err(|_| BatchError::Truncated)? as usize;
        let (block, rest) = blocks.split_at_checked(length).ok_or(BatchError::Truncated)?;
        add_block(block, &mut bytes)?;
        blocks = rest;
    }
    Ok(bytes.freeze())
}

fn add_block(block: &[u8], to: &mut BytesMut) -> Result<(), BatchError> {
    let failed = |error: snap::Error| BatchError::Decompression(error.to_string());
    // Before the allocation: the length is a field of the block, and a damaged one may say 4 GiB.
    let length = snap::raw::decompress_len(block).map_err(failed)?;
    let start = to.len();
    if start + length > MAX_DECOMPRESSED_BYTES {
        return Err(too_large());
    }
    to.put_bytes(0, length);
    snap::raw::Decoder::new().decompress(block, &mut to[start..]).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &[u8] = b"text that says the same text again: text that says the same";

    /// A text compressed by a codec. The formats of other producers are tested with a real broker.
    fn compressed(codec: i16, text: &[u8]) -> Bytes {
        match codec {
            1 => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap().into()
            }
            2 => snap::raw::Encoder::new().compress_vec(text).unwrap().into(),
            3 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap().into()
            }
            _ => zstd::encode_all(text, 0).unwrap().into(),
        }
    }

    #[test]
    fn every_codec_is_decompressed_and_damage_is_an_error() {
        for codec in 1..=4 {
            let bytes = compressed(codec, TEXT);
            assert_eq!(decompress(codec, &bytes).unwrap(), TEXT);
            assert!(decompress(codec, &bytes.slice(..bytes.len() / 2)).is_err(), "codec {codec}");
            assert!(decompress(codec, &Bytes::from_static(b"not compressed data")).is_err());
        }
        assert_eq!(decompress(5, &Bytes::new()), Err(BatchError::Codec(5)));
    }

    #[test]
    fn snappy_in_the_frames_of_java_is_decompressed() {
        let mut framed = XERIAL_MAGIC.to_vec();
        framed.extend([0, 0, 0, 1, 0, 0, 0, 1]);
        for part in TEXT.chunks(20) {
            let block = compressed(2, part);
            framed.extend((block.len() as u32).to_be_bytes());
            framed.extend(block);
        }
        let framed = Bytes::from(framed);
        assert_eq!(decompress(2, &framed).unwrap(), TEXT);
        assert!(decompress(2, &framed.slice(..framed.len() - 1)).is_err());
    }

    #[test]
    fn a_decompression_bomb_is_refused() {
        for codec in [1, 3, 4] {
            let bomb = compressed(codec, &vec![0; MAX_DECOMPRESSED_BYTES + 1]);
            assert_eq!(decompress(codec, &bomb), Err(too_large()), "codec {codec}");
        }
        // A length without the data.
        let bomb = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert!(decompress(2, &bomb).is_err());
    }
}
