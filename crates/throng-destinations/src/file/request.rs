//! The contents of a batch's file. Pure: the same rows give the same bytes.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value};
use throng_activation::{Cell, PreparedRow, Schema, SendRequest, SessionStep};
use throng_model::FileFormat;
use throng_store::Operation;

use super::config::Config;
use super::names;
use super::response::Failure;

/// The file of a batch, ready to be written.
pub(super) struct BatchFile {
    /// The audience's folder.
    pub(super) audience: String,
    /// The file's name.
    pub(super) name: String,
    pub(super) run: i64,
    pub(super) columns: Vec<String>,
    pub(super) rows: u64,
    pub(super) bytes: Vec<u8>,
    /// Set if and only if the file is part of a complete set.
    pub(super) session: Option<SessionStep>,
}

impl std::fmt::Debug for BatchFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the rows.
        f.debug_struct("Batch").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The file of a request.
pub(super) fn batch_file(request: &SendRequest<'_>, config: &Config) -> Result<BatchFile, Failure> {
    if !names::is_folder(request.platform_id) {
        return Err(Failure::Refused(
            "the recorded id of the audience is not the name of a folder",
        ));
    }
    if (request.operation == Operation::Replace) != request.session.is_some() {
        return Err(Failure::Refused("only a complete set is sent in a session, and always"));
    }
    let text = match config.format {
        FileFormat::Csv => csv(request.schema, request.rows),
        FileFormat::Jsonl => jsonl(request.schema, request.rows),
    };
    Ok(BatchFile {
        audience: request.platform_id.to_owned(),
        name: names::file_of(request.part, request.operation, config.format, config.gzip),
        run: request.part.run.0,
        columns: request.schema.keys.clone(),
        rows: request.rows.len() as u64,
        bytes: if config.gzip { compressed(&text)? } else { text },
        session: request.session,
    })
}

/// Compresses a text. The header has no time and no file name, so that the bytes depend on the text alone.
fn compressed(text: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text)?;
    Ok(encoder.finish()?)
}

fn text_of(cell: &Cell) -> String {
    match cell {
        Cell::Hashed(hash) => hash.to_hex(),
        Cell::Plain(text) => text.to_string(),
        Cell::Empty => String::new(),
    }
}

/// RFC 4180, with line feeds: a header line, then one line per row.
fn csv(schema: &Schema, rows: &[PreparedRow]) -> Vec<u8> {
    let mut out = String::new();
    csv_line(&mut out, schema.keys.iter().cloned());
    for row in rows {
        csv_line(&mut out, row.iter().map(text_of));
    }
    out.into_bytes()
}

fn csv_line(out: &mut String, cells: impl Iterator<Item = String>) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.push(',');
        }
        if cell.contains(['"', ',', '\r', '\n']) || cell.trim() != cell {
            out.push('"');
            out.push_str(&cell.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&cell);
        }
    }
    out.push('\n');
}

/// One JSON object per row, without the empty cells of the row.
fn jsonl(schema: &Schema, rows: &[PreparedRow]) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows {
        let cells = schema.keys.iter().zip(row.iter()).filter(|(_, cell)| **cell != Cell::Empty);
        let object: Map<String, Value> =
            cells.map(|(key, cell)| (key.clone(), Value::String(text_of(cell)))).collect();
        out.extend_from_slice(Value::Object(object).to_string().as_bytes());
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use throng_activation::BatchPart;
    use throng_model::{HashedIdentifier, SyncRunId};

    use super::*;
    use crate::file::FileAccount;
    use crate::file::config::check;

    fn config(format: FileFormat, gzip: bool) -> Config {
        check(&FileAccount { folder: "/f".into(), root: "/f".into(), format, gzip }).unwrap()
    }

    fn rows() -> Vec<PreparedRow> {
        let hash = Cell::Hashed(HashedIdentifier::of_normalised("test"));
        vec![
            vec![Cell::Plain("x-1".into()), hash].into(),
            vec![Cell::Plain("a \"b\", c\nd ".into()), Cell::Empty].into(),
        ]
    }

    fn batch(
        config: &Config,
        id: &str,
        operation: Operation,
        session: Option<SessionStep>,
    ) -> Result<BatchFile, Failure> {
        let schema =
            Schema { keys: vec!["EXTERN_ID".into(), "EMAIL".into()], default_country: None };
        let request = SendRequest {
            platform_id: id,
            part: BatchPart { run: SyncRunId(7), batch: 2, first: 0 },
            operation,
            schema: &schema,
            rows: &rows(),
            session,
        };
        batch_file(&request, config)
    }

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn rows_are_written_as_csv_and_as_json_lines() {
        let written = |format| {
            let batch = batch(&config(format, false), "a-1", Operation::Add, None).unwrap();
            assert_eq!((batch.rows, batch.run), (2, 7));
            (batch.name, String::from_utf8(batch.bytes).unwrap())
        };
        let (name, text) = written(FileFormat::Csv);
        assert_eq!(name, "run-0000000007-batch-000002-add.csv");
        assert_eq!(text, format!("EXTERN_ID,EMAIL\nx-1,{HASH}\n\"a \"\"b\"\", c\nd \",\n"));
        let (name, text) = written(FileFormat::Jsonl);
        assert_eq!(name, "run-0000000007-batch-000002-add.jsonl");
        let lines = [
            format!("{{\"EXTERN_ID\":\"x-1\",\"EMAIL\":\"{HASH}\"}}\n"),
            "{\"EXTERN_ID\":\"a \\\"b\\\", c\\nd \"}\n".to_owned(),
        ];
        assert_eq!(text, lines.concat());
    }

    #[test]
    fn a_compressed_file_is_the_same_each_time_and_decompresses_to_the_text() {
        let once =
            |gzip| batch(&config(FileFormat::Csv, gzip), "a-1", Operation::Remove, None).unwrap();
        let (plain, compressed) = (once(false), once(true));
        assert_eq!(compressed.name, "run-0000000007-batch-000002-remove.csv.gz");
        assert_eq!(once(true).bytes, compressed.bytes);
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(compressed.bytes.as_slice()).read_to_end(&mut text).unwrap();
        assert_eq!(text, plain.bytes);
    }

    #[test]
    fn invalid_requests_are_refused() {
        let config = config(FileFormat::Csv, false);
        let step = SessionStep {
            id: 1,
            seq: 1,
            last: true,
            repeated: false,
            sent_before: 0,
            estimated_total: 2,
        };
        for (id, operation, session) in [
            ("../etc", Operation::Add, None),
            ("a-1", Operation::Replace, None),
            ("a-1", Operation::Add, Some(step)),
        ] {
            let refused = batch(&config, id, operation, session).unwrap_err();
            assert!(matches!(refused, Failure::Refused(_)), "{id} {operation:?}");
        }
        assert!(batch(&config, "a-1", Operation::Replace, Some(step)).is_ok());
    }
}
