//! Fuzz targets of this crate: each gives arbitrary bytes to a decoder and asserts what must hold for
//! what it accepts. `fuzz/` runs them under libFuzzer, the tests below over mutants of the seeds.

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

const ENCODINGS: [&str; 4] = ["gzip", "zstd", "br", "identity"];
/// Bytes that a body may decode to.
const LIMIT: usize = 1 << 16;

/// An insertion as a line of JSON, in brotli.
const BROTLI: [u8; 72] = [
    0x1b, 0x4d, 0x00, 0xd0, 0x1c, 0x07, 0x6e, 0xac, 0x1e, 0x8c, 0xa3, 0x27, 0xd8, 0xd4, 0x6d, 0xa9,
    0xdb, 0x0f, 0xff, 0x04, 0x83, 0x25, 0x9b, 0x6c, 0x97, 0x0b, 0x1e, 0xc1, 0xa0, 0x36, 0xb1, 0x58,
    0x74, 0x5a, 0xe4, 0x8b, 0xec, 0x6d, 0x6b, 0x32, 0x4b, 0x46, 0x50, 0x29, 0x02, 0x9a, 0xe3, 0x71,
    0x53, 0xdb, 0x98, 0xbe, 0xa6, 0x09, 0x6a, 0x25, 0xeb, 0x8c, 0xf7, 0x03, 0xbd, 0x02, 0x23, 0x91,
    0x08, 0x21, 0x16, 0x41, 0x66, 0x46, 0x0d, 0x1f,
];

fn decoded_length(encoding: &'static str, body: &[u8]) -> Option<usize> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    let decoded = crate::decoded(&headers, Bytes::copy_from_slice(body), LIMIT);
    decoded.ok().map(|bytes| bytes.len())
}

/// The body of a request: the first byte selects the content encoding. The decoded body is never
/// longer than the limit.
pub fn content_encoding(bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first() else { return };
    let encoding = ENCODINGS[usize::from(*first) % ENCODINGS.len()];
    if let Some(length) = decoded_length(encoding, body) {
        assert!(length <= LIMIT || encoding == "identity");
    }
}

/// A body of each encoding, and one that decodes to more than the limit.
pub fn content_encoding_seeds() -> Vec<Vec<u8>> {
    let text = b"{\"id\":\"a\"}\n".repeat(20);
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(vec![0u8], flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, text).expect("bytes in memory");
        encoder.finish().expect("bytes in memory")
    };
    let mut zstd = vec![1];
    zstd.extend(zstd::encode_all(&*text, 3).expect("bytes in memory"));
    let mut brotli = vec![2];
    brotli.extend(BROTLI);
    let mut plain = vec![3];
    plain.extend(&text);
    vec![gzip(&text), gzip(&vec![0; LIMIT + 1]), zstd, brotli, plain]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoders_accept_their_valid_seeds_only() {
        let seeds = content_encoding_seeds();
        let lengths = seeds.iter().map(|seed| {
            let encoding = ENCODINGS[usize::from(seed[0]) % ENCODINGS.len()];
            decoded_length(encoding, &seed[1..])
        });
        let decoded: Vec<bool> = lengths.map(|length| length.is_some()).collect();
        assert_eq!(decoded, [true, false, true, true, true]);
    }

    #[test]
    fn mutants_of_bodies() {
        mutate::run(&content_encoding_seeds(), 4_000, content_encoding);
    }
}
