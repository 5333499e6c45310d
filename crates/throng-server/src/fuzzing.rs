//! Fuzz targets of this crate: each gives arbitrary bytes to a decoder and asserts what must hold for
//! what it accepts. `fuzz/` runs them under libFuzzer, the tests below over mutants of the seeds.

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

const ENCODINGS: [&str; 4] = ["gzip", "zstd", "br", "identity"];
/// Bytes that a body may decode to.
const LIMIT: usize = 1 << 16;

/// The body of a request: the first byte selects the content encoding. The decoded body is never
/// longer than the limit.
pub fn content_encoding(bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first() else { return };
    let encoding = ENCODINGS[usize::from(*first) % ENCODINGS.len()];
    if let Some(length) = crate::api::decoded_length(encoding, body, LIMIT) {
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
    brotli.extend(include_bytes!("../tests/it/cases/events/one-event.ndjson.br"));
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
            crate::api::decoded_length(encoding, &seed[1..], LIMIT)
        });
        let decoded: Vec<bool> = lengths.map(|length| length.is_some()).collect();
        assert_eq!(decoded, [true, false, true, true, true]);
    }

    #[test]
    fn mutants_of_bodies() {
        mutate::run(&content_encoding_seeds(), 4_000, content_encoding);
    }
}
