//! Dictionaries and snapshots for gates in other processes: what is served now, and the files. The bytes are those
//! that this node has open, so a file that is replaced or removed meanwhile arrives whole.

use std::io;
use std::ops::Range;

use axum::Json;
use axum::body::{Body as Stream, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use throng_api::{PublishedDictionary, PublishedMembership, PublishedSnapshot};
use throng_membership::{DICTIONARY_FOLDER, MembershipIndex, SnapshotIdentity};
use throng_model::{AudienceName, SHARD_COUNT};

use crate::api::state::LookupState;

use super::error::ApiError;

/// How much of a file is read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What this node serves: the hash seed, the dictionaries, and the snapshot of every audience.
#[utoipa::path(get, path = "/v1/membership", responses((status = 200, body = PublishedMembership, description = "`version` is also the `ETag`; with `If-None-Match` the response is 304 while nothing has changed")))]
pub(crate) async fn published(State(ctx): State<LookupState>, headers: HeaderMap) -> Response {
    let index = ctx.membership.load_full();
    let etag = quoted(index.fingerprint());
    if has_tag(&headers, header::IF_NONE_MATCH, &etag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
    }
    ([(header::ETAG, etag)], Json(description(&index))).into_response()
}

/// A segment of the dictionary of a user shard.
#[utoipa::path(get, path = "/v1/membership/dictionary/{shard}/{segment}", params(("shard" = String, Path, description = "two hexadecimal digits, as in the name of the segment"), ("segment" = String, Path)), responses((status = 200, body = Vec<u8>, description = "the file, with `ETag`; `Range` and `If-Range` are supported", content_type = "application/octet-stream"), (status = 404, description = "it is not part of what this node serves")))]
pub(crate) async fn segment(
    State(ctx): State<LookupState>,
    Path((shard, segment)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let index = ctx.membership.load_full();
    let number = u8::from_str_radix(&shard, 16).ok();
    let file = format!("{DICTIONARY_FOLDER}/{shard}/{segment}");
    let bytes = number.and_then(|shard| index.dictionary(shard)?.file_bytes(&file));
    // The name contains the checksum.
    let etag = quoted(segment.trim_end_matches(".dict"));
    file_response(bytes.ok_or_else(not_served)?, etag, &headers)
}

/// The snapshot of an audience.
#[utoipa::path(get, path = "/v1/membership/snapshots/{name}/{version}", params(("name" = String, Path), ("version" = u64, Path)), responses((status = 200, body = Vec<u8>, description = "the file, as docs/specs/snapshot-format.md describes it, with `ETag`; `Range` and `If-Range` are supported", content_type = "application/octet-stream"), (status = 404, description = "this node does not serve this version")))]
pub(crate) async fn snapshot(
    State(ctx): State<LookupState>,
    Path((name, version)): Path<(String, u64)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let index = ctx.membership.load_full();
    let file = AudienceName::new(name).ok().and_then(|name| index.snapshot(&name).cloned());
    let file = file.filter(|file| file.meta().version == version).ok_or_else(not_served)?;
    let etag = quoted(&tag_of(&file.identity()));
    file_response(file.file_bytes(), etag, &headers)
}

fn not_served() -> ApiError {
    ApiError::not_found("this file is not part of what this node serves now")
        .help("another snapshot may have been published: read /v1/membership again")
}

fn description(index: &MembershipIndex) -> PublishedMembership {
    let dictionary = (0..=u8::MAX).filter_map(|shard| {
        let manifest = index.dictionary(shard)?.manifest();
        (!manifest.is_empty()).then_some(PublishedDictionary { shard, manifest })
    });
    let snapshots = index.snapshots().map(|(audience, file)| {
        let identity = file.identity();
        PublishedSnapshot {
            audience: audience.clone(),
            version: identity.version,
            model_fingerprint: identity.model_fingerprint,
            members: identity.members,
            bytes: identity.bytes,
            checksum: identity.checksum,
        }
    });
    PublishedMembership {
        version: index.fingerprint().to_owned(),
        hash_seed: format!("{:016x}", index.seed().0),
        user_shards: SHARD_COUNT as u32,
        dictionary: dictionary.collect(),
        snapshots: snapshots.collect(),
        missing: index.missing().to_vec(),
    }
}

/// The tag of a snapshot file. Old snapshots have no recorded checksum.
fn tag_of(identity: &SnapshotIdentity) -> String {
    let SnapshotIdentity { version, members, bytes, checksum, .. } = identity;
    checksum.clone().unwrap_or_else(|| format!("{version}-{members}-{bytes}"))
}

fn quoted(tag: &str) -> String {
    format!("\"{tag}\"")
}

fn has_tag(headers: &HeaderMap, name: HeaderName, etag: &str) -> bool {
    headers.get(name).is_some_and(|value| value.as_bytes() == etag.as_bytes())
}

/// The part of a file that `Range` asks for. `Ok(None)`: all of it, as for a range of a form that is not
/// supported, which RFC 9110 lets a server ignore.
///
/// # Errors
/// If the range begins behind the end of the file.
fn range_of(text: &str, length: usize) -> Result<Option<Range<usize>>, ()> {
    let parsed = text.strip_prefix("bytes=").and_then(|range| {
        let (from, to) = range.split_once('-')?;
        let from: usize = from.parse().ok()?;
        let end = match to {
            "" => length,
            to => to.parse::<usize>().ok()?.checked_add(1)?.min(length),
        };
        (from < end || from >= length).then_some(from..end)
    });
    match parsed {
        Some(range) if range.start >= length => Err(()),
        other => Ok(other),
    }
}

fn file_response(bytes: Bytes, etag: String, headers: &HeaderMap) -> Result<Response, ApiError> {
    let length = bytes.len();
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    // A range of another file must not be appended to what the client has.
    let is_same =
        !headers.contains_key(header::IF_RANGE) || has_tag(headers, header::IF_RANGE, &etag);
    let range = match asked.filter(|_| is_same) {
        Some(text) => range_of(text, length).map_err(|()| {
            ApiError::bad_request(format!("the range begins behind the end, at {length} bytes"))
                .help("omit the header Range")
        })?,
        None => None,
    };
    let (status, part) = match range {
        Some(part) => (StatusCode::PARTIAL_CONTENT, part),
        None => (StatusCode::OK, 0..length),
    };
    let mut response = (
        status,
        [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_LENGTH, part.len().to_string()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::ETAG, etag),
        ],
        streamed(bytes, part.clone()),
    )
        .into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let last = part.end.saturating_sub(1);
        let value = format!("bytes {}-{last}/{length}", part.start);
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
    }
    Ok(response)
}

/// A part of a file in chunks. Each is copied where calls may block, because a mapped page may have to be read from
/// the disk first.
fn streamed(bytes: Bytes, part: Range<usize>) -> Stream {
    let chunks = futures::stream::unfold(part, move |rest| {
        let bytes = bytes.clone();
        async move {
            if rest.is_empty() {
                return None;
            }
            let end = rest.end.min(rest.start + CHUNK_BYTES);
            let chunk = rest.start..end;
            let copied =
                tokio::task::spawn_blocking(move || Bytes::copy_from_slice(&bytes[chunk])).await;
            Some((copied.map_err(io::Error::other), end..rest.end))
        }
    });
    Stream::from_stream(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_at_the_end_and_unknown_forms_are_ignored() {
        for (text, expected) in [
            ("bytes=0-", Ok(Some(0..10))),
            ("bytes=4-", Ok(Some(4..10))),
            ("bytes=4-6", Ok(Some(4..7))),
            ("bytes=4-99", Ok(Some(4..10))),
            ("bytes=9-9", Ok(Some(9..10))),
            ("bytes=10-", Err(())),
            ("bytes=99-100", Err(())),
            ("bytes=-3", Ok(None)),
            ("bytes=6-4", Ok(None)),
            ("bytes=1-2,4-5", Ok(None)),
            ("lines=1-2", Ok(None)),
        ] {
            assert_eq!(range_of(text, 10), expected, "{text}");
        }
        assert_eq!(range_of("bytes=0-", 0), Err(()));
    }

    async fn respond(headers: &[(HeaderName, &str)]) -> (u16, String) {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let bytes = Bytes::from_static(b"0123456789");
        match file_response(bytes, quoted("a"), &headers) {
            Ok(response) => {
                let status = response.status().as_u16();
                let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
                (status, String::from_utf8(body.to_vec()).unwrap())
            }
            Err(error) => (error.into_response().status().as_u16(), String::new()),
        }
    }

    #[tokio::test]
    async fn a_range_of_another_file_is_answered_with_all_of_this_one() {
        let range = (header::RANGE, "bytes=4-");
        assert_eq!(respond(&[]).await, (200, "0123456789".to_owned()));
        assert_eq!(respond(std::slice::from_ref(&range)).await, (206, "456789".to_owned()));
        let same = [range.clone(), (header::IF_RANGE, "\"a\"")];
        assert_eq!(respond(&same).await, (206, "456789".to_owned()));
        let other = [range, (header::IF_RANGE, "\"b\"")];
        assert_eq!(respond(&other).await, (200, "0123456789".to_owned()));
        assert_eq!(respond(&[(header::RANGE, "bytes=10-")]).await.0, 400);
    }
}
