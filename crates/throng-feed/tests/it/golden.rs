//! Frames of released formats, byte by byte. The files were made by another encoder, written from
//! `docs/specs/feed-format.md`: they never change, because gates of every version read the feed.

use throng_feed::{FLAG_CLOSED, FLAG_REMOVED, FeedEntry, Frame, FrameKind, PassThroughRate};
use throng_model::{AdGroupIndex, Micros, Timestamp};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn entry(index: u32, actual: i64, in_flight: i64, flags: u8) -> FeedEntry {
    let (actual, in_flight) = (Micros(actual), Micros(in_flight));
    let (index, pass_through_rate) = (AdGroupIndex(index), PassThroughRate::ALL);
    FeedEntry { index, actual, in_flight, flags, pass_through_rate }
}

fn is_written_and_read(hex: &str, frame: &Frame) {
    let golden = bytes(hex);
    assert_eq!(Frame::decode(&golden).as_ref(), Ok(frame));
    assert_eq!(frame.encode(), golden);
}

/// Four ad groups: gaps in the indexes, a correction below zero, one closed, one removed.
#[test]
fn a_keyframe_of_format_2() {
    let frame = Frame {
        partition: 3,
        epoch: 7,
        version: 1_000,
        kind: FrameKind::Keyframe,
        at: Timestamp(1_790_000_000_000_000),
        catalog_version: 12,
        log_position: Some(987_654),
        entries: vec![
            entry(0, 12_500_000, 300_000, 0),
            entry(1, 0, 0, 0),
            entry(5, 99_990_000, 20_000, FLAG_CLOSED),
            entry(70, -250_000, 0, FLAG_CLOSED | FLAG_REMOVED),
        ],
    };
    is_written_and_read(include_str!("golden/keyframe-format-2.hex"), &frame);
}

/// One ad group: every column has one class, and codes of no bits.
#[test]
fn a_delta_of_format_1() {
    let frame = Frame {
        partition: 3,
        epoch: 7,
        version: 1_001,
        kind: FrameKind::Delta { base_version: 1_000 },
        at: Timestamp(1_790_000_001_000_000),
        catalog_version: 12,
        log_position: None,
        entries: vec![entry(5, 100_000_000, 0, FLAG_CLOSED)],
    };
    is_written_and_read(include_str!("golden/delta-format-1.hex"), &frame);
}

/// No entries and no columns; a time before 1970 and the log's first offset.
#[test]
fn a_heartbeat_of_format_2() {
    let frame = Frame {
        partition: 0,
        epoch: 1,
        version: 2,
        kind: FrameKind::Delta { base_version: 1 },
        at: Timestamp(-1),
        catalog_version: 0,
        log_position: Some(0),
        entries: Vec::new(),
    };
    is_written_and_read(include_str!("golden/heartbeat-format-2.hex"), &frame);
}

/// Four ad groups: one at every request, one at two of three, one at hardly any, one at none.
#[test]
fn a_keyframe_of_format_3() {
    let at =
        |rate, entry: FeedEntry| FeedEntry { pass_through_rate: PassThroughRate(rate), ..entry };
    let frame = Frame {
        partition: 3,
        epoch: 7,
        version: 1_002,
        kind: FrameKind::Keyframe,
        at: Timestamp(1_790_000_002_000_000),
        catalog_version: 12,
        log_position: Some(987_700),
        entries: vec![
            entry(0, 12_500_000, 300_000, 0),
            at(43_690, entry(1, 50_000_000, 1_000_000, 0)),
            at(1, entry(5, 99_900_000, 20_000, 0)),
            at(0, entry(70, 100_000_000, 0, FLAG_CLOSED)),
        ],
    };
    is_written_and_read(include_str!("golden/keyframe-format-3.hex"), &frame);
}
