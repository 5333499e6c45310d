//! Rows that failed a check, as they arrived: plain personal data. They are kept for some days in files of a folder
//! of their own, which only the user of the node can read, and are never part of an answer or a log.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::Serialize;
use throng_schema::value::{date, date_text};
use throng_schema::{QUARANTINE_DAYS, Schema};

use crate::error::IngestError;
use crate::paths::{create_file, create_folder, entries, name_of, remove_file, sync_folder};
use crate::reason::RowFault;

/// Bytes of the quarantine of one batch. Further rows are only counted.
const MAX_BYTES: u64 = 256 << 20;
/// Bytes of one row in quarantine. Longer ones are cut.
const MAX_ROW_BYTES: usize = 64 << 10;
/// The beginning of the names of files that are being written.
const UNFINISHED: &str = ".part-";

/// The quarantine of one batch.
#[derive(Debug)]
pub(crate) struct Quarantine {
    path: PathBuf,
    names: Vec<String>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    file: Option<BufWriter<File>>,
    /// The file once it has its name.
    finished: Option<PathBuf>,
    /// Whether it has replaced the file of an earlier try.
    has_replaced: bool,
    bytes: u64,
    rows: u64,
}

/// A line of a quarantine file.
#[derive(Serialize)]
struct Line<'a> {
    line: u64,
    field: Option<&'a str>,
    reason: &'static str,
    row: &'a str,
}

impl Quarantine {
    /// Creates nothing until the first row.
    pub(crate) fn new(folder: &Path, token: &str, schema: &Schema) -> Self {
        let path = folder.join(format!("{UNFINISHED}{token}"));
        let names = schema.fields.iter().map(|field| field.name.clone()).collect();
        Self { path, names, open: Mutex::default() }
    }

    /// Adds a row, as it arrived.
    pub(crate) fn add(&self, fault: RowFault, line: u64, row: &[u8]) -> Result<(), IngestError> {
        let mut open = self.open.lock();
        if open.bytes >= MAX_BYTES {
            return Ok(());
        }
        let row = String::from_utf8_lossy(&row[..row.len().min(MAX_ROW_BYTES)]);
        let field = fault.field.and_then(|at| self.names.get(at)).map(String::as_str);
        let text = Line { line, field, reason: fault.reason.as_str(), row: &row };
        let mut text = serde_json::to_vec(&text)
            .map_err(|error| IngestError::io("write", &self.path)(std::io::Error::other(error)))?;
        text.push(b'\n');
        if open.file.is_none() {
            if let Some(folder) = self.path.parent() {
                create_folder(folder)?;
            }
            open.file = Some(BufWriter::new(create_file(&self.path)?));
        }
        if let Some(file) = &mut open.file {
            file.write_all(&text).map_err(IngestError::io("write", &self.path))?;
        }
        open.bytes += text.len() as u64;
        open.rows += 1;
        Ok(())
    }

    /// The rows that it has.
    pub(crate) fn rows(&self) -> u64 {
        self.open.lock().rows
    }

    /// Gives the file its name, durably. A file that an interrupted try has left is replaced.
    pub(crate) fn finish(&self, today: i32, key: &str) -> Result<(), IngestError> {
        let mut open = self.open.lock();
        // After an error the file is removed with the batch.
        let Some(file) = &mut open.file else { return Ok(()) };
        let synced = file.flush().and_then(|()| file.get_ref().sync_all());
        synced.map_err(IngestError::io("write", &self.path))?;
        let folder = self.path.parent().unwrap_or(&self.path);
        let path = folder.join(format!("{}-{key}.ndjson", date_text(today)));
        open.has_replaced = path.exists();
        std::fs::rename(&self.path, &path).map_err(IngestError::io("rename", &self.path))?;
        open.file = None;
        open.finished = Some(path);
        sync_folder(folder)
    }

    /// Removes the file that has its name: the batch was not committed.
    pub(crate) fn discard(&self) {
        if let Some(path) = self.open.lock().finished.take() {
            remove_rows(&path);
        }
    }

    /// As [`Quarantine::discard`], if an earlier try of the batch may have been committed: with the file of that one
    /// its rows would be lost, which are the same.
    pub(crate) fn discard_new(&self) {
        if !self.open.lock().has_replaced {
            self.discard();
        }
    }
}

impl Drop for Quarantine {
    /// Removes the rows of a batch that failed.
    fn drop(&mut self) {
        if self.open.get_mut().file.take().is_some() {
            remove_rows(&self.path);
        }
    }
}

fn remove_rows(path: &Path) {
    if let Err(error) = remove_file(path) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to remove rows in quarantine"
        );
    }
}

/// Removes what a crash has left.
pub(crate) fn remove_unfinished(folder: &Path) -> Result<(), IngestError> {
    for schema in entries(folder)? {
        for file in entries(&schema)? {
            if name_of(&file).starts_with(UNFINISHED) {
                remove_file(&file)?;
            }
        }
    }
    Ok(())
}

/// Removes the files whose time has passed. `folder` is that of a workspace, `schemas` are its schemas. Returns how
/// many.
pub(crate) fn remove_expired(
    folder: &Path,
    schemas: &[&Schema],
    today: i32,
) -> Result<u64, IngestError> {
    let mut removed = 0;
    for folder in entries(folder)? {
        let schema = schemas.iter().find(|schema| schema.name.local() == name_of(&folder));
        let keep = schema.map_or(QUARANTINE_DAYS, |schema| schema.quarantine_days);
        for file in entries(&folder)? {
            let day = name_of(&file).get(..10).and_then(|text| date(text.as_bytes()));
            let is_old = day.is_some_and(|day| i64::from(today) - i64::from(day) > i64::from(keep));
            if is_old {
                remove_file(&file)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}
