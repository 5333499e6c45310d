//! Compressed record batches.

use std::io::Read;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::batch::Damage;

/// The most that a batch may unpack to: eight times the longest message that Throng's topics take.
const MOST: usize = 128 << 20;
/// What is unpacked is taken to be so many times longer, at first.
const GUESS: usize = 3;
/// What producers in Java put before Snappy's blocks, with two numbers of versions after it
/// (<https://github.com/xerial/snappy-java#compatibility-notes>).
const FRAMED: &[u8] = b"\x82SNAPPY\0";
const FRAMED_HEAD: usize = 16;

/// Unpacks what was compressed by one of Kafka's methods: 1 gzip, 2 Snappy, 3 LZ4, 4 Zstandard.
pub(super) fn unpack(method: i16, packed: &Bytes) -> Result<Bytes, Damage> {
    let damaged = |error: std::io::Error| Damage::Packed(error.to_string());
    match method {
        1 => all_of(packed, flate2::read::MultiGzDecoder::new(&packed[..])),
        2 => snappy(packed),
        3 => all_of(packed, lz4_flex::frame::FrameDecoder::new(&packed[..])),
        4 => {
            let reader = zstd::stream::read::Decoder::with_buffer(&packed[..]);
            all_of(packed, reader.map_err(damaged)?)
        }
        _ => Err(Damage::Method(method)),
    }
}

fn too_much() -> Damage {
    Damage::Packed(format!("it is longer than {MOST} bytes"))
}

fn all_of(packed: &Bytes, reader: impl Read) -> Result<Bytes, Damage> {
    // What is too short is copied when it grows.
    let mut bytes = Vec::with_capacity(GUESS * packed.len());
    let read = reader.take(MOST as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Damage::Packed(error.to_string()))?;
    if bytes.len() > MOST {
        return Err(too_much());
    }
    Ok(bytes.into())
}

fn snappy(packed: &Bytes) -> Result<Bytes, Damage> {
    let mut bytes = BytesMut::new();
    if !packed.starts_with(FRAMED) {
        add_block(packed, &mut bytes)?;
        return Ok(bytes.freeze());
    }
    let mut blocks = packed.get(FRAMED_HEAD..).ok_or(Damage::Cut)?;
    while blocks.has_remaining() {
        let length = blocks.try_get_u32().map_err(|_| Damage::Cut)? as usize;
        let (block, rest) = blocks.split_at_checked(length).ok_or(Damage::Cut)?;
        add_block(block, &mut bytes)?;
        blocks = rest;
    }
    Ok(bytes.freeze())
}

fn add_block(block: &[u8], to: &mut BytesMut) -> Result<(), Damage> {
    let damaged = |error: snap::Error| Damage::Packed(error.to_string());
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

    /// What each method makes of a text. The other producers' forms are tried on a real broker.
    fn packed(method: i16, text: &[u8]) -> Bytes {
        match method {
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
    fn every_method_is_unpacked_and_damage_is_told() {
        for method in 1..=4 {
            let bytes = packed(method, TEXT);
            assert_eq!(unpack(method, &bytes).unwrap(), TEXT);
            assert!(unpack(method, &bytes.slice(..bytes.len() / 2)).is_err(), "method {method}");
            assert!(unpack(method, &Bytes::from_static(b"nothing of the kind")).is_err());
        }
        assert_eq!(unpack(5, &Bytes::new()), Err(Damage::Method(5)));
    }

    #[test]
    fn snappy_in_the_frames_of_java_is_unpacked() {
        let mut framed = FRAMED.to_vec();
        framed.extend([0, 0, 0, 1, 0, 0, 0, 1]);
        for part in TEXT.chunks(20) {
            let block = packed(2, part);
            framed.extend((block.len() as u32).to_be_bytes());
            framed.extend(block);
        }
        let framed = Bytes::from(framed);
        assert_eq!(unpack(2, &framed).unwrap(), TEXT);
        assert!(unpack(2, &framed.slice(..framed.len() - 1)).is_err());
    }

    #[test]
    fn a_little_that_becomes_too_much_is_refused() {
        for method in [1, 3, 4] {
            let bomb = packed(method, &vec![0; MOST + 1]);
            assert_eq!(unpack(method, &bomb), Err(too_much()), "method {method}");
        }
        // A length that nothing is behind.
        let bomb = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert!(unpack(2, &bomb).is_err());
    }
}
