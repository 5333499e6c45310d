//! Compressed record batches.

use std::io::Read;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::batch::Damage;

/// The most that a batch may decompress to: eight times the longest message that Throng's topics take.
const MOST: usize = 128 << 20;
/// What is decompressed is taken to be so many times longer, at first.
const GUESS: usize = 3;
/// What producers in Java put before Snappy's blocks, with two numbers of versions after it
/// (<https://github.com/xerial/snappy-java#compatibility-notes>).
const FRAMED: &[u8] = b"\x82SNAPPY\0";
const FRAMED_HEAD: usize = 16;

/// Decompresses by one of Kafka's codecs: 1 gzip, 2 Snappy, 3 LZ4, 4 Zstandard.
pub(super) fn decompress(codec: i16, compressed: &Bytes) -> Result<Bytes, Damage> {
    let damaged = |error: std::io::Error| Damage::Compressed(error.to_string());
    match codec {
        1 => all_of(compressed, flate2::read::MultiGzDecoder::new(&compressed[..])),
        2 => snappy(compressed),
        3 => all_of(compressed, lz4_flex::frame::FrameDecoder::new(&compressed[..])),
        4 => {
            let reader = zstd::stream::read::Decoder::with_buffer(&compressed[..]);
            all_of(compressed, reader.map_err(damaged)?)
        }
        _ => Err(Damage::Codec(codec)),
    }
}

fn too_much() -> Damage {
    Damage::Compressed(format!("it is longer than {MOST} bytes"))
}

fn all_of(compressed: &Bytes, reader: impl Read) -> Result<Bytes, Damage> {
    // What is too short is copied when it grows.
    let mut bytes = Vec::with_capacity(GUESS * compressed.len());
    let read = reader.take(MOST as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Damage::Compressed(error.to_string()))?;
    if bytes.len() > MOST {
        return Err(too_much());
    }
    Ok(bytes.into())
}

fn snappy(compressed: &Bytes) -> Result<Bytes, Damage> {
    let mut bytes = BytesMut::new();
    if !compressed.starts_with(FRAMED) {
        add_block(compressed, &mut bytes)?;
        return Ok(bytes.freeze());
    }
    let mut blocks = compressed.get(FRAMED_HEAD..).ok_or(Damage::Cut)?;
    while blocks.has_remaining() {
        let length = blocks.try_get_u32().map_err(|_| Damage::Cut)? as usize;
        let (block, rest) = blocks.split_at_checked(length).ok_or(Damage::Cut)?;
        add_block(block, &mut bytes)?;
        blocks = rest;
    }
    Ok(bytes.freeze())
}

fn add_block(block: &[u8], to: &mut BytesMut) -> Result<(), Damage> {
    let damaged = |error: snap::Error| Damage::Compressed(error.to_string());
    let length = snap::raw::decompress_len(block).map_err(damaged)?;
    let start = to.len();
    if start + length > MOST {
        return Err(too_much());
    }
    to.put_bytes(0, length);
    snap::raw::Decoder::new().decompress(block, &mut to[start..]).map_err(damaged)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &[u8] = b"text that says the same text again: text that says the same";

    /// What each codec makes of a text. The other producers' forms are tried on a real broker.
    fn compressed(codec: i16, text: &[u8]) -> Bytes {
        match codec {
            1 => {
                let mut packer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                packer.write_all(text).unwrap();
                packer.finish().unwrap().into()
            }
            2 => snap::raw::Encoder::new().compress_vec(text).unwrap().into(),
            3 => {
                let mut packer = lz4_flex::frame::FrameEncoder::new(Vec::new());
                packer.write_all(text).unwrap();
                packer.finish().unwrap().into()
            }
            _ => zstd::encode_all(text, 0).unwrap().into(),
        }
    }

    #[test]
    fn every_codec_is_uncompressed_and_damage_is_told() {
        for codec in 1..=4 {
            let bytes = compressed(codec, TEXT);
            assert_eq!(decompress(codec, &bytes).unwrap(), TEXT);
            assert!(decompress(codec, &bytes.slice(..bytes.len() / 2)).is_err(), "codec {codec}");
            assert!(decompress(codec, &Bytes::from_static(b"nothing of the kind")).is_err());
        }
        assert_eq!(decompress(5, &Bytes::new()), Err(Damage::Codec(5)));
    }

    #[test]
    fn snappy_in_the_frames_of_java_is_uncompressed() {
        let mut framed = FRAMED.to_vec();
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
    fn a_little_that_becomes_too_much_is_refused() {
        for codec in [1, 3, 4] {
            let bomb = compressed(codec, &vec![0; MOST + 1]);
            assert_eq!(decompress(codec, &bomb), Err(too_much()), "codec {codec}");
        }
        // A length that nothing is behind.
        let bomb = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert!(decompress(2, &bomb).is_err());
    }
}
