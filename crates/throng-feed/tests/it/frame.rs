//! Frames: what is encoded is decoded, damage is detected, and frames are small.

use proptest::prelude::*;
use throng_feed::{
    ENTRIES_PER_BYTE, FREE_ENTRIES, FeedEntry, FeedError, Frame, FrameKind, PassThroughRate,
};
use throng_model::{AdGroupIndex, Entropy, Micros, SplitMix64, Timestamp, append_checksum};

fn frame(kind: FrameKind, entries: Vec<FeedEntry>) -> Frame {
    Frame {
        partition: 3,
        epoch: 7,
        version: 1_000,
        kind,
        at: Timestamp(1_790_000_000_000_000),
        catalog_version: 12,
        log_position: None,
        entries,
    }
}

fn amounts() -> impl Strategy<Value = i64> {
    prop_oneof![
        Just(0),
        0i64..2_000_000,
        (0i64..1_000).prop_map(|cents| cents * 10_000),
        any::<i64>(),
        Just(i64::MIN),
        Just(i64::MAX),
    ]
}

fn frames() -> impl Strategy<Value = Frame> {
    let entry =
        (amounts(), amounts(), any::<u8>(), prop_oneof![4 => Just(u16::MAX), 1 => any::<u16>()]);
    let index = prop_oneof![0u32..2_000, any::<u32>()];
    let entries = prop::collection::btree_map(index, entry, 0..400);
    let position = any::<Option<u64>>();
    (any::<[u64; 4]>(), any::<i64>(), any::<u32>(), any::<bool>(), entries, position).prop_map(
        |(numbers, at, partition, keyframe, entries, log_position)| Frame {
            partition,
            epoch: numbers[0],
            version: numbers[1],
            kind: if keyframe {
                FrameKind::Keyframe
            } else {
                FrameKind::Delta { base_version: numbers[2] }
            },
            at: Timestamp(at),
            catalog_version: numbers[3],
            log_position,
            entries: entries
                .into_iter()
                .map(|(index, (actual, in_flight, flags, rate))| FeedEntry {
                    index: AdGroupIndex(index),
                    actual: Micros(actual),
                    in_flight: Micros(in_flight),
                    flags,
                    // Frames without a log position have none.
                    pass_through_rate: log_position
                        .map_or(PassThroughRate::ALL, |_| PassThroughRate(rate)),
                })
                .collect(),
        },
    )
}

/// Adds a valid checksum to invalid bytes, so that the checks after it are tested.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    append_checksum(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frame in frames()) {
        prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }

    #[test]
    fn damage_is_detected(frame in frames(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = frame.encode();
        let at = at.index(bytes.len());
        prop_assert!(Frame::decode(&bytes[..at]).is_err());
        bytes[at] ^= flip;
        prop_assert!(Frame::decode(&bytes).is_err());
    }

    #[test]
    fn invalid_bytes_with_a_valid_checksum_never_panic(
        frame in frames(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = frame.encode();
        bytes.truncate(bytes.len() - 8);
        for (at, to) in changes {
            let at = 4 + at.index(bytes.len() - 4);
            bytes[at] = to;
        }
        let length = bytes.len() + 8;
        if let Ok(decoded) = Frame::decode(&sealed(bytes)) {
            prop_assert!(decoded.entries.len() <= FREE_ENTRIES.max(ENTRIES_PER_BYTE * length));
            prop_assert_eq!(Frame::decode(&decoded.encode()), Ok(decoded));
        }
    }

    /// However many entries a frame says it has, memory is bounded by its length.
    #[test]
    fn a_small_frame_needs_little_memory(
        count in 1u32.., columns in prop::collection::vec((0u8..65, 1u64..1_000), 4),
    ) {
        let mut bytes = b"TF\x01\x00".to_vec();
        bytes.extend([0; 44]);
        bytes.extend(count.to_le_bytes());
        // Columns of one class, which need no bits but those below the leading one.
        for (class, unit) in columns {
            let class = if class < 2 { class } else { 0 };
            bytes.extend([0, (unit % 127 + 1) as u8, 1, class, 0]);
            bytes.extend([0; 4]);
        }
        let bytes = sealed(bytes);
        match Frame::decode(&bytes) {
            Ok(frame) => {
                let memory = frame.entries.capacity() * size_of::<FeedEntry>();
                prop_assert!(memory <= (3 << 19) + 192 * bytes.len(), "{memory} bytes");
                prop_assert_eq!(frame.entries.len(), count as usize);
            }
            Err(error) => prop_assert!(matches!(error, FeedError::Malformed(_)), "{error}"),
        }
    }

    #[test]
    fn random_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..300), count in 0u32..500) {
        prop_assert!(Frame::decode(&tail).is_err());
        let mut bytes = b"TF\x01\x00".to_vec();
        bytes.extend([0; 44]);
        bytes.extend(count.to_le_bytes());
        bytes.extend(tail);
        let _ = Frame::decode(&sealed(bytes));
    }
}

#[test]
fn entries_out_of_order_are_sorted_and_the_later_of_two_counts() {
    let entry = |index, actual| FeedEntry {
        index: AdGroupIndex(index),
        actual: Micros(actual),
        in_flight: Micros(0),
        flags: 0,
        pass_through_rate: PassThroughRate::ALL,
    };
    let mixed = frame(FrameKind::Keyframe, vec![entry(5, 1), entry(2, 2), entry(5, 3)]);
    let decoded = Frame::decode(&mixed.encode()).unwrap();
    assert_eq!(decoded.entries, [entry(2, 2), entry(5, 3)]);
}

/// Equal figures take no bits, but a frame must not have more entries than its length allows.
#[test]
fn equal_entries_by_the_hundred_thousand_are_decoded() {
    for count in [FREE_ENTRIES as u32, FREE_ENTRIES as u32 + 1, 300_000] {
        for flags in [0, 1, 255] {
            let entry = |index| FeedEntry {
                index: AdGroupIndex(index),
                actual: Micros(1_000),
                in_flight: Micros(0),
                flags,
                pass_through_rate: PassThroughRate::ALL,
            };
            let equal = frame(FrameKind::Keyframe, (0..count).map(entry).collect());
            let bytes = equal.encode();
            assert!(bytes.len() < 120 + count as usize, "{} bytes", bytes.len());
            assert_eq!(Frame::decode(&bytes), Ok(equal));
        }
    }
}

/// Of the formats before, a reader gets everything but the rates.
#[test]
fn pass_through_rates_are_in_format_3_alone() {
    let entry = |index, pass_through_rate| FeedEntry {
        index: AdGroupIndex(index),
        actual: Micros(1_000),
        in_flight: Micros(7),
        flags: 0,
        pass_through_rate,
    };
    let of = |rates: [PassThroughRate; 2]| {
        let entries = vec![entry(2, rates[0]), entry(9, rates[1])];
        Frame { log_position: Some(42), ..frame(FrameKind::Keyframe, entries) }
    };
    let all = of([PassThroughRate::ALL; 2]);
    assert_eq!((all.encode()[2], all.needs_format_3()), (2, false));
    assert_eq!(all.encode_format_2(), all.encode());
    let some = of([PassThroughRate::ALL, PassThroughRate(900)]);
    assert_eq!((some.encode()[2], some.needs_format_3()), (3, true));
    assert_eq!(Frame::decode(&some.encode()).as_ref(), Ok(&some));
    assert_eq!(Frame::decode(&some.encode_format_2()), Ok(all.clone()));
    let without_position = Frame { log_position: None, ..all };
    assert_eq!(Frame::decode(&some.encode_format_1()), Ok(without_position));
    // An entry more costs some bits, not bytes.
    let many = |rate: fn(u32) -> u16| {
        let entries = (0..10_000).map(|n| entry(n, PassThroughRate(rate(n)))).collect();
        Frame { log_position: Some(42), ..frame(FrameKind::Keyframe, entries) }.encode().len()
    };
    let costs = many(|n| if n % 100 == 0 { 30_000 } else { u16::MAX }) - many(|_| u16::MAX);
    assert!(costs < 10_000 / 8 + 100 * 3 + 40, "{costs} bytes for 100 rates");
}

#[test]
fn errors_say_what_to_do() {
    assert_eq!(Frame::decode(b"HTTP/1.1 404"), Err(FeedError::NotAFrame));
    let mut bytes = frame(FrameKind::Keyframe, Vec::new()).encode();
    assert_eq!(bytes.len(), 60);
    for cut in 0..bytes.len() {
        let error = Frame::decode(&bytes[..cut]).unwrap_err();
        assert_eq!(error, FeedError::NotAFrame, "cut at {cut}");
    }
    // The next format, whatever its length is.
    assert_eq!(Frame::decode(b"TF\x04\x00"), Err(FeedError::UnknownFormat(4)));
    bytes[2] = 9;
    let error = Frame::decode(&bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the feed frame has format version 9, this program knows 1 to 3: update the gate"
    );
}

/// A log-normal amount with median $0.20 and sigma 1.5, in whole micros.
fn log_normal(entropy: &mut SplitMix64) -> Micros {
    let (u, v) = (1.0 - entropy.next_f64(), entropy.next_f64());
    let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    Micros((200_000.0 * (1.5 * normal).exp()).round() as i64)
}

/// 20,000 of 200,000 ad groups, chosen uniformly.
fn updates(mut amount: impl FnMut(&mut SplitMix64) -> (Micros, Micros)) -> Vec<FeedEntry> {
    let mut entropy = SplitMix64::new(11);
    let mut indexes: Vec<u32> = (0..200_000).collect();
    for place in 0..20_000 {
        let other = place + entropy.below(200_000 - place as u64) as usize;
        indexes.swap(place, other);
    }
    indexes.truncate(20_000);
    indexes.sort_unstable();
    indexes
        .into_iter()
        .map(|index| {
            let (actual, in_flight) = amount(&mut entropy);
            let index = AdGroupIndex(index);
            FeedEntry {
                index,
                actual,
                in_flight,
                flags: 0,
                pass_through_rate: PassThroughRate::ALL,
            }
        })
        .collect()
}

#[test]
fn an_update_takes_less_than_six_bytes() {
    let size = |entries: Vec<FeedEntry>| {
        let delta = frame(FrameKind::Delta { base_version: 999 }, entries);
        let bytes = delta.encode();
        assert_eq!(Frame::decode(&bytes), Ok(delta));
        bytes.len() as f64 / 20_000.0
    };
    let micros = size(updates(|e| (log_normal(e), log_normal(e))));
    let cents = size(updates(|e| {
        let cent = |m: Micros| Micros((m.0 + 5_000) / 10_000 * 10_000);
        (cent(log_normal(e)), cent(log_normal(e)))
    }));
    let one = size(updates(|e| (log_normal(e), Micros(0))));
    println!("bytes per update: micros {micros:.3}, cents {cents:.3}, one amount {one:.3}");
    // The entropy of ids and two such amounts is 5.65 bytes; of ids and one, 3.12.
    assert!(micros < 5.8, "{micros}");
    assert!(one < 3.3, "{one}");
    assert!(cents < 2.8, "{cents}");
}
