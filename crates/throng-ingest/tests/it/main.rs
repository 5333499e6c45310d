//! Tests of the public API: what becomes of files of every kind, and of a process that ends at any step.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should panic")]

mod batches;
mod bucket;
mod bucket_failures;
mod bucket_server;
mod crash;
mod files;
mod unreadable;
mod workspaces;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::AsArray as _;
use arrow::datatypes::Date32Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use throng_api::IngestReport;
use throng_ingest::{Encoding, Ingest, IngestError, IngestRequest, IngestSettings, LakeStore};
use throng_model::{ManualClock, Timestamp};
use throng_schema::{RecordFormat, Schema};

/// 2026-11-25T10:00:00Z.
const NOW: Timestamp = Timestamp(1_795_600_800_000_000);

/// A lake in a temporary folder.
struct Rig {
    dir: PathBuf,
    clock: Arc<ManualClock>,
    ingest: Ingest,
}

fn schema() -> Schema {
    let schema: Schema = serde_json::from_str(
        r#"{"name": "customers", "description": null, "key": "email", "day": "seen", "default_country": "US",
            "fields": [
                {"name": "email", "type": "email", "required": true, "anonymise": "hash"},
                {"name": "seen", "type": "date", "required": true, "min": "2026-01-01"},
                {"name": "age", "type": "integer", "min": "13"},
                {"name": "note", "type": "text"},
                {"name": "ssn", "type": "text", "anonymise": "drop"}]}"#,
    )
    .unwrap();
    assert_eq!(schema.problems(), []);
    schema
}

fn csv(batch: &str) -> IngestRequest {
    let batch = (!batch.is_empty()).then(|| batch.to_owned());
    IngestRequest { batch, format: RecordFormat::Csv, encoding: Encoding::Identity }
}

fn settings(dir: &Path, clock: &Arc<ManualClock>) -> IngestSettings {
    IngestSettings {
        lake: LakeStore::Folder(dir.join("lake")),
        private: dir.join("private"),
        clock: Arc::clone(clock) as Arc<dyn throng_model::Clock>,
        workers: 2,
    }
}

impl Rig {
    fn new(dir: &Path) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let ingest = Ingest::new(settings(dir, &clock));
        Self { dir: dir.to_owned(), clock, ingest }
    }

    fn csv(&self, batch: &str, text: &str) -> Result<IngestReport, IngestError> {
        self.ingest.run(&schema(), &csv(batch), text.as_bytes())
    }

    /// The message of a batch that is refused.
    fn refusal(&self, text: &str) -> String {
        self.csv("", text).unwrap_err().to_string()
    }

    /// The rows that readers see, as `day email-hash-prefix age note`, sorted; or why they see none.
    fn rows(&self) -> Vec<String> {
        rows(&self.dir)
    }

    fn quarantine(&self) -> Vec<serde_json::Value> {
        let folder = self.dir.join("private/quarantine/default/customers");
        let mut rows = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            rows.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
        }
        rows.sort_by_key(|row: &serde_json::Value| row["line"].as_u64());
        rows
    }

    /// Files of the lake besides those that are named here.
    fn left_over(&self) -> Vec<PathBuf> {
        let staging = self.dir.join("lake/default/customers/.staging");
        let mut left: Vec<PathBuf> = std::fs::read_dir(staging)
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default();
        let table = throng_files::of_folder(&self.lake(), &self.lake()).unwrap();
        let table = table.tables["customers"].as_ref().unwrap();
        left.extend(table.passed_over.iter().map(|one| one.path.clone()));
        left
    }

    fn lake(&self) -> PathBuf {
        self.dir.join("lake/default")
    }
}

fn rows(dir: &Path) -> Vec<String> {
    rows_of(&dir.join("lake/default"))
}

/// Those of the folder of a workspace.
fn rows_of(lake: &Path) -> Vec<String> {
    let found = throng_files::of_folder(lake, lake).unwrap();
    let Some(table) = found.tables.get("customers") else { return Vec::new() };
    let mut rows = Vec::new();
    for file in &table.as_ref().unwrap().files {
        let reader = File::open(file.path()).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(reader).unwrap().build().unwrap();
        for batch in reader {
            let batch = batch.unwrap();
            let names: Vec<String> =
                batch.schema().fields().iter().map(|field| field.name().clone()).collect();
            assert_eq!(names, ["email", "seen", "age", "note"]);
            let emails = batch.column(0).as_string::<i32>();
            assert!(emails.iter().is_sorted(), "{}", file.path().display());
            let seen = batch.column(1).as_primitive::<Date32Type>();
            let ages = batch.column(2).as_primitive::<arrow::datatypes::Int64Type>();
            let notes = batch.column(3).as_string::<i32>();
            for row in 0..batch.num_rows() {
                let day = throng_schema::value::date_text(seen.value(row));
                assert_eq!(file.folders, [("day".to_owned(), Some(day.clone()))]);
                let age = ages.iter().nth(row).flatten().map(|age| age.to_string());
                let note = notes.iter().nth(row).flatten().unwrap_or("-");
                let hash = emails.value(row);
                assert_eq!(hash.len(), 64);
                rows.push(format!("{day} {} {} {note}", &hash[..8], age.unwrap_or("-".into())));
            }
        }
    }
    rows.sort();
    rows
}
