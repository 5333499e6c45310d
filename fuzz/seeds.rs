//! Writes the seeds of every target to `corpus/<target>/`, where cargo-fuzz reads them.

use std::path::Path;

/// The name and the seeds of a target.
type Seeds = (&'static str, fn() -> Vec<Vec<u8>>);

const ALL: &[Seeds] = &[
    ("feed_frame", throng_feed::fuzzing::feed_frame_seeds),
    ("events_ndjson", throng_budget::fuzzing::events_ndjson_seeds),
    ("events_protobuf", throng_budget::fuzzing::event_record_seeds),
    ("event_record", throng_budget::fuzzing::event_record_seeds),
    ("checkpoint", throng_budget::fuzzing::checkpoint_seeds),
    ("id_file", throng_budget::fuzzing::id_file_seeds),
    ("log_segment", throng_log::fuzzing::log_segment_seeds),
    ("record_batch", throng_log::fuzzing::record_batch_seeds),
    ("snapshot_file", throng_membership::fuzzing::snapshot_file_seeds),
    ("dictionary_segment", throng_membership::fuzzing::dictionary_segment_seeds),
    ("dictionary_manifest", throng_membership::fuzzing::dictionary_manifest_seeds),
    ("spec_yaml", throng_spec::fuzzing::spec_yaml_seeds),
    ("limits_yaml", throng_spec::fuzzing::limits_yaml_seeds),
    ("prepared_row", throng_delivered::fuzzing::prepared_row_seeds),
    ("sealed_file", throng_delivered::fuzzing::sealed_file_seeds),
    ("sealed_section", throng_delivered::fuzzing::sealed_section_seeds),
    ("identifier_keys", throng_delivered::fuzzing::identifier_keys_seeds),
    ("pipe_frame", throng_lake::worker::fuzzing::pipe_frame_seeds),
    ("meta_response", throng_destinations::meta::fuzzing::response_seeds),
    ("content_encoding", throng_http::fuzzing::content_encoding_seeds),
    ("task_message", throng_activation::fuzzing::task_message_seeds),
];

fn main() -> std::io::Result<()> {
    for (target, seeds) in ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in seeds().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
