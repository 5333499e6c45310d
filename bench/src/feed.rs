//! Bytes that a gate receives per changed ad group, compared with the same values in protobuf and JSON.

use anyhow::Result;
use prost::Message;
use serde_json::json;
use throng_budget::Engine;
use throng_gate::feed::Frame;
use throng_model::Timestamp;

use crate::events::{AD_GROUPS, ad_group, traffic};

/// The simplest protobuf message of an update.
#[derive(Clone, PartialEq, Message)]
struct Update {
    #[prost(uint32, tag = "1")]
    index: u32,
    #[prost(int64, tag = "2")]
    actual_micros: i64,
    #[prost(int64, tag = "3")]
    in_flight_micros: i64,
    #[prost(uint32, tag = "4")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Updates {
    #[prost(message, repeated, tag = "1")]
    updates: Vec<Update>,
}

pub(crate) fn run() -> Result<()> {
    let groups = (0..AD_GROUPS).map(ad_group).collect::<Result<_>>()?;
    let mut engine = Engine::new(0, 1, 1, groups);
    let start: Timestamp = "2026-05-01T12:00:00Z".parse()?;
    let (mut entries, mut ours, mut protobuf, mut text) = (0, 0, 0, 0);
    // A frame every 20 ms at 50,000 events per second: most ad groups change in most frames.
    for (number, event) in traffic(1_000_000, start)?.iter().enumerate() {
        engine.apply(event, event.at)?;
        if number % 1_000 == 999 {
            engine.close(event.at);
            let frame = engine.delta(event.at);
            entries += frame.entries.len();
            ours += frame.encode().len();
            protobuf += protobuf_bytes(&frame);
            text += json_bytes(&frame);
        }
    }
    let keyframe = engine.keyframe();
    let per = |bytes: usize| bytes as f64 / entries as f64;
    let line = json!({
        "figure": "feed", "updates": entries,
        "throng_bytes": per(ours), "protobuf_bytes": per(protobuf), "json_bytes": per(text),
        "keyframe_bytes_per_ad_group":
            keyframe.encode().len() as f64 / keyframe.entries.len().max(1) as f64,
    });
    println!("{line}");
    Ok(())
}

fn protobuf_bytes(frame: &Frame) -> usize {
    let updates = frame.entries.iter().map(|entry| Update {
        index: entry.index.0,
        actual_micros: entry.actual.0,
        in_flight_micros: entry.in_flight.0,
        flags: u32::from(entry.flags),
    });
    Updates { updates: updates.collect() }.encoded_len()
}

fn json_bytes(frame: &Frame) -> usize {
    let updates = frame.entries.iter().map(|entry| {
        json!({ "index": entry.index.0, "actual_micros": entry.actual.0,
            "in_flight_micros": entry.in_flight.0, "flags": entry.flags })
        .to_string()
        .len()
            + 1
    });
    updates.sum()
}
