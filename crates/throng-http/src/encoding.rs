//! Content encodings of request bodies.

use std::io::{self, Read};

use axum::http::{HeaderMap, header};
use bytes::Bytes;

/// The largest window of zstd, as a power of two: 8 MiB, as RFC 8878 recommends. The decoder allocates it
/// before it decodes anything, so a larger one would let a small body ask for much memory.
const ZSTD_WINDOW_LOG: u32 = 23;
const BROTLI_BUFFER: usize = 4096;

/// Why a body cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The encoding is not gzip, zstd or br, or there are several.
    #[error("the content encoding `{encoding}` is not supported")]
    Unsupported {
        /// The encoding, cut after 60 characters.
        encoding: String,
    },
    /// The decoded body is longer than the limit.
    #[error("the decoded body is too large")]
    TooLarge,
    /// The body is damaged or incomplete.
    #[error("the body does not have its content encoding, or is incomplete")]
    Invalid,
}

/// A supported content encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Gzip,
    Zstd,
    Brotli,
}

/// The encoding of a body; `None` if it is not encoded.
fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, DecodeError> {
    let unsupported =
        |name: &str| Err(DecodeError::Unsupported { encoding: name.chars().take(60).collect() });
    let mut found = None;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let Ok(names) = value.to_str() else { return unsupported("?") };
        for name in names.split(',').map(|name| name.trim().to_ascii_lowercase()) {
            let encoding = match &*name {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Encoding::Gzip,
                "zstd" => Encoding::Zstd,
                "br" => Encoding::Brotli,
                other => return unsupported(other),
            };
            if found.replace(encoding).is_some() {
                return unsupported("several at once");
            }
        }
    }
    Ok(found)
}

/// Whether a body has a supported encoding, for paths that do not decode bodies.
///
/// # Errors
/// [`DecodeError::Unsupported`].
pub fn is_encoded(headers: &HeaderMap) -> Result<bool, DecodeError> {
    Ok(encoding(headers)?.is_some())
}

/// The decoded body. Decoding stops after `limit` bytes, so that a small body cannot ask for much memory. A
/// body without an encoding is returned as it is, whatever its length.
///
/// # Errors
/// [`DecodeError`].
pub fn decoded(headers: &HeaderMap, body: Bytes, limit: usize) -> Result<Bytes, DecodeError> {
    let Some(encoding) = encoding(headers)? else { return Ok(body) };
    let decoded = match encoding {
        Encoding::Gzip => read(flate2::read::MultiGzDecoder::new(&*body), limit),
        Encoding::Zstd => zstd::stream::read::Decoder::new(&*body).and_then(|mut decoder| {
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            read(decoder, limit)
        }),
        Encoding::Brotli => brotli(&body, limit),
    };
    match decoded {
        Ok(bytes) if bytes.len() > limit => Err(DecodeError::TooLarge),
        Ok(bytes) => Ok(bytes.into()),
        Err(_) => Err(DecodeError::Invalid),
    }
}

/// Brotli has no concatenated streams: bytes after the first stream are an error.
fn brotli(body: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut decoder = brotli_decompressor::Decompressor::new(body, BROTLI_BUFFER);
    let bytes = read(&mut decoder, limit)?;
    if bytes.len() <= limit {
        // A read after the end returns bytes that are left in the buffer of the decoder.
        let more = decoder.read(&mut [0])?;
        if more > 0 || !decoder.get_ref().is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(bytes)
}

/// Reads at most one byte more than `limit`, so that the caller sees that the limit is exceeded.
fn read(decoder: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    decoder.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
