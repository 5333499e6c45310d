//! Fuzz targets of this crate: each passes arbitrary bytes to a decoder and asserts the invariants of
//! whatever it accepts. `fuzz/` runs them under libFuzzer, the tests below over mutants of the seeds.

use throng_model::HashedIdentifier;

use crate::columns::DeliveredColumns;
use crate::sealed::SealedWriter;
use crate::state::{ShardState, StateWriter};
use crate::{
    Binding, Cell, DeliveredState, IdentifierKeys, Note, PlanEntry, PlanFile, PreparedRow, Reasons,
    decode_with_notes, encode_with_notes,
};

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

const CELLS: usize = 3;

fn reasons() -> Reasons {
    Reasons { skips: &["nothing_usable", "no_id"], notes: &["trimmed", "refused_too_long"] }
}

fn row() -> PreparedRow {
    let hash = HashedIdentifier::of_normalised("a");
    vec![Cell::Hashed(hash), Cell::Empty, Cell::Plain("é".into())].into()
}

/// A row as a query worker sends it. An accepted row survives encoding and decoding.
pub fn prepared_row(bytes: &[u8]) {
    if let Ok((row, notes)) = decode_with_notes(bytes, CELLS, reasons()) {
        let mut encoded = Vec::new();
        assert_eq!(encode_with_notes(&row, &notes, reasons(), &mut encoded), Ok(()));
        assert_eq!(decode_with_notes(&encoded, CELLS, reasons()), Ok((row, notes)));
    }
}

/// A row with notes, one without, and one that is skipped.
pub fn prepared_row_seeds() -> Vec<Vec<u8>> {
    let note = |cell, reason| Note { cell, reason };
    let notes = [note(0, "trimmed"), note(1, "refused_too_long")];
    let skipped = Err(crate::Skip("no_id"));
    [(Ok(row()), &notes[..]), (Ok(row()), &notes[..0]), (skipped, &notes[..1])]
        .map(|(row, notes)| {
            let mut bytes = Vec::new();
            encode_with_notes(&row, notes, reasons(), &mut bytes).expect("known reasons");
            bytes
        })
        .to_vec()
}

/// A shard of the delivered state, and a section of a plan: the contents of sealed files.
pub fn sealed_section(bytes: &[u8]) {
    if let Some(state) = ShardState::decode(bytes) {
        assert!(ShardState::decode(&state.encode()).is_some());
    }
    for removes in [false, true] {
        let mut rest = bytes;
        while let Some((_, after)) = PlanEntry::read(rest, removes) {
            assert!(after.len() < rest.len(), "an entry takes no bytes");
            rest = after;
        }
    }
}

/// A shard of the delivered state, and entries of plans.
pub fn sealed_section_seeds() -> Vec<Vec<u8>> {
    let entry = |send, removed_row| {
        let mut bytes = Vec::new();
        PlanEntry { ordinal: 7, send, removed_row }.write(&mut bytes);
        bytes
    };
    vec![
        state().encode(),
        entry(Ok(row()), None),
        entry(Ok(row()), Some(row())),
        entry(Err("no_id".to_owned()), None),
    ]
}

fn state() -> ShardState {
    let mut state = ShardState::default();
    state.record_added(3, row(), true);
    state.record_added(9, row(), false);
    state.without_identifiers.insert(70_000);
    state
}

fn keys() -> IdentifierKeys {
    IdentifierKeys::parse(&"0123456789abcdef".repeat(4)).expect("64 digits")
}

fn binding() -> Binding {
    let text = |text: &str| text.to_owned();
    Binding { purpose: "delivered", account: text("a"), sync: text("s"), version: text("v") }
}

/// A sealed file, opened as delivered state and as a plan.
pub fn sealed_file(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("sealed");
    std::fs::write(&path, bytes).expect("a temporary file");
    if let Ok(state) = DeliveredState::open(&path, &keys(), binding()) {
        for shard in 0..=u8::MAX {
            let _ = state.shard(shard);
        }
    }
    let _ = PlanFile::open(&path, &keys(), binding());
}

/// A file of delivered state.
pub fn sealed_file_seeds() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("sealed");
    let writer = SealedWriter::create(&path, &keys(), binding(), [7; 32]).expect("a file");
    let mut writer = StateWriter::new(writer);
    writer.shard(4, &state()).expect("a section");
    let columns = DeliveredColumns { keys: vec!["EMAIL".to_owned(); CELLS], has_several: false };
    writer.finish(columns).expect("a file");
    vec![std::fs::read(&path).expect("the file")]
}

/// The text of `identifiers.key`.
pub fn identifier_keys(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = IdentifierKeys::parse(text);
    }
}

/// Two keys.
pub fn identifier_keys_seeds() -> Vec<Vec<u8>> {
    let line = "0123456789abcdef".repeat(4);
    vec![format!("{line}\n\n{line}\r\n").into_bytes()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_of_prepared_rows() {
        mutate::run(&prepared_row_seeds(), 4_000, prepared_row);
    }

    #[test]
    fn mutants_of_sealed_files() {
        mutate::run(&sealed_section_seeds(), 4_000, sealed_section);
        mutate::run(&sealed_file_seeds(), 500, sealed_file);
        mutate::run(&identifier_keys_seeds(), 500, identifier_keys);
    }
}
