//! The messages between a node and a query worker, and the data frames of their answers. Pure except
//! for writing.
//!
//! ```text
//! kind 1, control: JSON ([`Request`], [`Reply`])                (numbers are little-endian)
//! kind 2, keys:    rows u64 | NULL keys u64 | hashes u32 | with values u32 | hashes | values
//! kind 3, rows:    one after another: user's hash u64 | length u32 | the hasher's output
//! ```

use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use throng_files::FileError;
use throng_model::{HashSeed, UserHash};
use throng_spec::TemplateRows;
use throng_worker::SystemError;
use throng_worker::frame::{frame, invalid};

use crate::engine_failure::EngineFailure;
use crate::{
    HashedRow, IdentifierQuery, KeyBatch, LakeError, Model, ModelInfo, ScanPart, ScanStats,
    SourceListing, TableFacts,
};
use throng_statement::position::Position;

/// The kind of frames with keys.
pub(super) const KEYS: u8 = 2;
/// The kind of frames with rows of identifiers.
pub(super) const ROWS: u8 = 3;
/// Keys in one frame, at most.
const MAX_KEYS: usize = 1 << 20;

/// A request to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Plan a model and run it over the first rows of each file; answered by [`Reply::Plan`].
    Check { model: Model },
    /// Plan a model; answered by [`Reply::Plan`].
    Plan { model: Model, served: Vec<TableFacts> },
    /// Run a part of a scan; answered by keys and [`Reply::Scanned`].
    Scan { model: Model, part: ScanPart, seed: HashSeed },
    /// Run an identifier query; answered by rows and [`Reply::Checked`].
    Identifiers { query: IdentifierQuery, seed: HashSeed },
    /// Run the query of a template; answered by [`Reply::TemplateRows`].
    TemplateRows { sql: String, max_rows: u32 },
    /// List the tables of all sources; answered by [`Reply::Listed`].
    List,
    /// Plan an identifier query; answered by [`Reply::Checked`].
    CheckIdentifiers { sql: String, key: String, columns: Vec<String> },
}

/// The reply of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// A model is planned.
    Plan { info: ModelInfo, parts: Vec<ScanPart> },
    /// All keys of a scan are sent.
    Scanned(ScanStats),
    /// The rows of a template.
    TemplateRows(TemplateRows),
    /// The tables of all sources.
    Listed(Vec<SourceListing>),
    /// A query can be run, or was run.
    Checked,
    /// The request failed.
    Failed(Failure),
}

/// [`LakeError`] as it goes over a pipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Failure {
    Sql { message: String, position: Option<(u32, u32)>, help: Option<String> },
    Key { message: String, help: String },
    File(FileFailure),
    OutOfMemory(EngineFailure),
    Engine { doing: String, source: EngineFailure },
    Other(String),
}

/// [`FileError`] as it goes over a pipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum FileFailure {
    Source { path: PathBuf, error: SystemError },
    Table { message: String, help: String },
    Changed { path: PathBuf },
    LeadsOut { path: PathBuf, root: PathBuf },
}

impl From<FileError> for FileFailure {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Source { path, source } => {
                Self::Source { path, error: SystemError::of(&source) }
            }
            FileError::Table { message, help } => Self::Table { message, help },
            FileError::Changed { path } => Self::Changed { path },
            FileError::LeadsOut { path, root } => Self::LeadsOut { path, root },
        }
    }
}

impl From<FileFailure> for FileError {
    fn from(failure: FileFailure) -> Self {
        match failure {
            FileFailure::Source { path, error } => Self::Source { path, source: error.into() },
            FileFailure::Table { message, help } => Self::Table { message, help },
            FileFailure::Changed { path } => Self::Changed { path },
            FileFailure::LeadsOut { path, root } => Self::LeadsOut { path, root },
        }
    }
}

impl From<LakeError> for Failure {
    fn from(error: LakeError) -> Self {
        match error {
            LakeError::Sql { message, position, help } => {
                Self::Sql { message, position: position.map(|p| (p.line, p.column)), help }
            }
            LakeError::Key { message, help } => Self::Key { message, help },
            LakeError::File(error) => Self::File(error.into()),
            LakeError::OutOfMemory { source } => Self::OutOfMemory(source),
            LakeError::Engine { doing, source } => Self::Engine { doing, source },
            other => Self::Other(throng_model::with_causes(&other)),
        }
    }
}

impl From<Failure> for LakeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sql { message, position, help } => {
                let position = position.map(|(line, column)| Position { line, column });
                Self::Sql { message, position, help }
            }
            Failure::Key { message, help } => Self::Key { message, help },
            Failure::File(failure) => Self::File(failure.into()),
            Failure::OutOfMemory(source) => Self::OutOfMemory { source },
            Failure::Engine { doing, source } => Self::Engine { doing, source },
            Failure::Other(text) => Self::Sink(text.into()),
        }
    }
}

/// Writes the keys of a batch, in as many frames as they need.
pub(super) fn write_keys(out: &mut impl Write, batch: &KeyBatch) -> io::Result<()> {
    let mut from = 0;
    loop {
        let to = batch.hashes.len().min(from + MAX_KEYS);
        // The counts are in the first frame.
        let counts = if from == 0 { (batch.rows, batch.null_keys) } else { (0, 0) };
        let values = batch.values.as_ref().map(|values| &values[from..to]);
        out.write_all(&keys(counts, &batch.hashes[from..to], values)?)?;
        from = to;
        if from == batch.hashes.len() {
            return Ok(());
        }
    }
}

fn keys(counts: (u64, u64), hashes: &[UserHash], values: Option<&[u64]>) -> io::Result<Vec<u8>> {
    frame(KEYS, |bytes| {
        let words = hashes.len() + values.map_or(0, <[u64]>::len);
        bytes.reserve_exact(24 + words * 8);
        bytes.extend_from_slice(&counts.0.to_le_bytes());
        bytes.extend_from_slice(&counts.1.to_le_bytes());
        bytes.extend_from_slice(&(hashes.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&u32::from(values.is_some()).to_le_bytes());
        hashes.iter().for_each(|hash| bytes.extend_from_slice(&hash.0.to_le_bytes()));
        values.into_iter().flatten().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
    })
}

/// The keys of a frame.
pub(super) fn read_keys(payload: &[u8]) -> io::Result<KeyBatch> {
    let (counts, words) =
        payload.split_at_checked(24).ok_or_else(|| invalid("a frame of keys is truncated"))?;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&counts[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let sizes = word(16);
    let (count, with_values) = ((sizes & u64::from(u32::MAX)) as usize, sizes >> 32 == 1);
    let expected = count.checked_mul(if with_values { 16 } else { 8 });
    if expected != Some(words.len()) {
        return Err(invalid("the length of a frame of keys does not match its counts"));
    }
    let (hashes, values) = words.split_at(count * 8);
    let values = with_values.then(|| numbers(values).collect());
    let hashes = numbers(hashes).map(UserHash).collect();
    Ok(KeyBatch { rows: word(0), hashes, values, null_keys: word(8) })
}

/// Rows of identifiers as a frame.
pub(super) fn rows(rows: &[HashedRow]) -> io::Result<Vec<u8>> {
    frame(ROWS, |bytes| {
        for (user, hashed) in rows {
            bytes.extend_from_slice(&user.0.to_le_bytes());
            bytes.extend_from_slice(&(hashed.len() as u32).to_le_bytes());
            bytes.extend_from_slice(hashed);
        }
    })
}

/// The rows of a frame.
pub(super) fn read_rows(mut payload: &[u8]) -> io::Result<Vec<HashedRow>> {
    let truncated = || invalid("a frame of rows is truncated");
    let mut rows = Vec::new();
    while !payload.is_empty() {
        let (user, rest) = payload.split_first_chunk::<8>().ok_or_else(truncated)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (hashed, rest) = rest.split_at_checked(length).ok_or_else(truncated)?;
        rows.push((UserHash(u64::from_le_bytes(*user)), hashed.into()));
        payload = rest;
    }
    Ok(rows)
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(|chunk| {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        u64::from_le_bytes(word)
    })
}

#[cfg(test)]
mod tests {
    use throng_worker::frame::{HEAD, head, message};

    use super::*;

    fn payload(frame: &[u8]) -> (u8, &[u8]) {
        let (length, kind) = head(frame[..HEAD].try_into().unwrap()).unwrap();
        (kind, &frame[HEAD..HEAD + length])
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let hashes: Vec<UserHash> = (0..5).map(|n| UserHash(n * 3)).collect();
        for values in [None, Some(vec![9, 8, 7, 6, u64::MAX])] {
            let batch = KeyBatch { rows: 7, hashes: hashes.clone(), values, null_keys: 2 };
            let mut out = Vec::new();
            write_keys(&mut out, &batch).unwrap();
            let (kind, bytes) = payload(&out);
            assert_eq!(kind, KEYS);
            let read = read_keys(bytes).unwrap();
            assert_eq!((read.rows, read.null_keys), (7, 2));
            assert_eq!((read.hashes, read.values), (batch.hashes, batch.values));
        }
    }

    #[test]
    fn many_keys_are_sent_in_several_frames_and_counted_once() {
        let hashes: Vec<UserHash> = (0..MAX_KEYS as u64 + 3).map(UserHash).collect();
        let batch = KeyBatch { rows: 9, hashes: hashes.clone(), values: None, null_keys: 1 };
        let mut out = Vec::new();
        write_keys(&mut out, &batch).unwrap();
        let (mut rest, mut rows, mut read) = (out.as_slice(), 0, Vec::new());
        while !rest.is_empty() {
            let (_, bytes) = payload(rest);
            rest = &rest[HEAD + bytes.len()..];
            let batch = read_keys(bytes).unwrap();
            rows += batch.rows;
            read.extend(batch.hashes);
        }
        assert_eq!((rows, read), (9, hashes));
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let written: Vec<HashedRow> =
            vec![(UserHash(7), [1, 2, 3].into()), (UserHash(u64::MAX), [].into())];
        let frame = rows(&written).unwrap();
        let (kind, bytes) = payload(&frame);
        assert_eq!(kind, ROWS);
        assert_eq!(read_rows(bytes).unwrap(), written);
        assert!(read_rows(&bytes[..bytes.len() - 1]).is_err());
        assert!(read_rows(&[]).unwrap().is_empty());
    }

    #[test]
    fn payloads_that_are_invalid_are_refused_without_allocating() {
        assert!(read_keys(&[0; 23]).is_err());
        let mut wrong_count = vec![0; 24];
        wrong_count[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(read_keys(&wrong_count).is_err());
        assert!(message::<Reply>(b"{}").is_err());
    }
}
