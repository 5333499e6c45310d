//! Content encodings of request bodies.

use std::io::{self, Read};

use axum::http::{HeaderMap, header};
use bytes::Bytes;

use super::error::ApiError;

const HELP: &str = "send the body as it is, or with one of gzip, zstd and br";
/// The largest window of zstd, as a power of two: 8 MiB, as RFC 8878 recommends. It is allocated before
/// anything is decoded.
const ZSTD_WINDOW_LOG: u32 = 23;
const BROTLI_BUFFER: usize = 4096;

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Gzip,
    Zstd,
    Brotli,
}

/// The encoding of a body; `None`: it is sent as it is.
fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, ApiError> {
    let unsupported = |name: &str| {
        let shown: String = name.chars().take(60).collect();
        let words = format!("bodies with the content encoding `{shown}` are not decoded");
        Err(ApiError::unsupported(words).help(HELP))
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

/// Refuses a body that is encoded, for paths that decode none.
pub(super) fn refuse_encoded(headers: &HeaderMap) -> Result<(), ApiError> {
    match encoding(headers)? {
        None => Ok(()),
        Some(_) => Err(ApiError::unsupported("this path takes no encoded bodies").help(
            "send the body without a content encoding; POST /v1/events takes gzip, zstd and br",
        )),
    }
}

/// The body as its content encoding means it, at most `limit` bytes of it: decoding stops there, so that
/// a small body cannot ask for much memory.
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
            let words = "the body is not what its content encoding says, or is cut short";
            Err(ApiError::bad_request(words).help(HELP))
        }
    }
}

/// How long a body of this encoding is; for the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn decoded_length(encoding: &'static str, body: &[u8], limit: usize) -> Option<usize> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_ENCODING, axum::http::HeaderValue::from_static(encoding));
    decoded(&headers, Bytes::copy_from_slice(body), limit).ok().map(|bytes| bytes.len())
}

/// Brotli has no streams behind each other: what follows the first one is an error.
fn brotli(body: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut decoder = brotli_decompressor::Decompressor::new(body, BROTLI_BUFFER);
    let bytes = read(&mut decoder, limit)?;
    if bytes.len() <= limit {
        // Asked after the end, the decoder says whether there is more in its buffer.
        let more = decoder.read(&mut [0])?;
        if more > 0 || !decoder.get_ref().is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(bytes)
}

/// At most one byte more than `limit`.
fn read(decoder: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    decoder.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
