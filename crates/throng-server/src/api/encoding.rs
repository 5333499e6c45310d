//! Content encodings of request bodies.

use std::io::{self, Read};

use axum::http::{HeaderMap, header};
use bytes::Bytes;

use super::error::ApiError;

const HELP: &str = "send the body without an encoding, or with one of gzip, zstd and br";
/// The largest window of zstd, as a power of two: 8 MiB, as RFC 8878 recommends. The decoder allocates it
/// before it decodes anything, so a larger one would let a small body ask for much memory.
const ZSTD_WINDOW_LOG: u32 = 23;
const BROTLI_BUFFER: usize = 4096;

/// A supported content encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Gzip,
    Zstd,
    Brotli,
}

/// The encoding of a body; `None` if it is not encoded.
fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, ApiError> {
    let unsupported = |name: &str| {
        let shown: String = name.chars().take(60).collect();
        let message = format!("the content encoding `{shown}` is not supported");
        Err(ApiError::unsupported(message).help(HELP))
    };
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

/// Refuses an encoded body, for paths that do not decode bodies.
pub(super) fn refuse_encoded(headers: &HeaderMap) -> Result<(), ApiError> {
    match encoding(headers)? {
        None => Ok(()),
        Some(_) => Err(ApiError::unsupported("this path does not accept encoded bodies").help(
            "send the body without a content encoding; POST /v1/events accepts gzip, zstd and br",
        )),
    }
}

/// The decoded body. Decoding stops after `limit` bytes, so that a small body cannot ask for much memory.
pub(crate) fn decoded(headers: &HeaderMap, body: Bytes, limit: usize) -> Result<Bytes, ApiError> {
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
        Ok(bytes) if bytes.len() > limit => Err(ApiError::too_large()),
        Ok(bytes) => Ok(bytes.into()),
        Err(_) => {
            let message = "the body does not have its content encoding, or is incomplete";
            Err(ApiError::bad_request(message).help(HELP))
        }
    }
}

/// The length of a decoded body; for the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn decoded_length(encoding: &'static str, body: &[u8], limit: usize) -> Option<usize> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_ENCODING, axum::http::HeaderValue::from_static(encoding));
    decoded(&headers, Bytes::copy_from_slice(body), limit).ok().map(|bytes| bytes.len())
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
