//! Fuzz targets of this crate: each gives arbitrary bytes to a decoder and asserts what must hold for
//! what it accepts. `fuzz/` runs them under libFuzzer, the tests below over mutants of the seeds.

use throng_model::{AdGroupIndex, Micros, Timestamp, append_checksum};

use crate::{FLAG_CLOSED, FeedEntry, Frame, FrameKind, PassThroughRate};

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

/// A frame of the feed, as it is and with a valid checksum, so that the checks after the checksum are
/// reached. A frame that is accepted encodes to an equal one.
pub fn feed_frame(bytes: &[u8]) {
    let _ = Frame::decode(bytes);
    let Some((body, _)) = bytes.split_last_chunk::<8>() else { return };
    let mut sealed = body.to_vec();
    append_checksum(&mut sealed);
    if let Ok(frame) = Frame::decode(&sealed) {
        assert_eq!(Frame::decode(&frame.encode()).as_ref(), Ok(&frame));
    }
}

/// Keyframes and deltas of all formats.
pub fn feed_frame_seeds() -> Vec<Vec<u8>> {
    let entry = |index: u32, actual: i64, in_flight: i64, flags: u8| FeedEntry {
        index: AdGroupIndex(index),
        actual: Micros(actual),
        in_flight: Micros(in_flight),
        flags,
        pass_through_rate: PassThroughRate::ALL,
    };
    let frame = |kind, log_position, entries| Frame {
        partition: 3,
        epoch: 7,
        version: 1_000,
        kind,
        at: Timestamp(1_790_000_000_000_000),
        catalog_version: 12,
        log_position,
        entries,
    };
    let many = (0..300u32).map(|n| entry(n * 3, i64::from(n) * 130_001, 7, 0)).collect();
    let few = vec![entry(0, i64::MAX, -1, FLAG_CLOSED), entry(u32::MAX, 0, i64::MIN, 255)];
    let rates = [0, 1, 40_000, u16::MAX].map(PassThroughRate);
    let held_back = (0u32..)
        .zip(rates)
        .map(|(n, pass_through_rate)| FeedEntry { pass_through_rate, ..entry(n, 5, 1, 0) });
    let held_back = held_back.collect();
    let delta = FrameKind::Delta { base_version: 999 };
    [
        frame(FrameKind::Keyframe, Some(77), many),
        frame(FrameKind::Keyframe, None, few.clone()),
        frame(delta, Some(u64::MAX), few),
        frame(delta, Some(0), Vec::new()),
        frame(delta, Some(9), held_back),
    ]
    .iter()
    .map(Frame::encode)
    .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn mutants_of_feed_frames() {
        super::mutate::run(&super::feed_frame_seeds(), 4_000, super::feed_frame);
    }
}
