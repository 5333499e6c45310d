//! Ingested batches.

use serde::{Deserialize, Serialize};
use throng_model::counted;
use utoipa::ToSchema;

/// The query of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestQuery {
    /// The id of the batch.
    pub batch: Option<String>,
    /// The workspace of the schema.
    pub workspace: Option<String>,
}

/// What became of a batch of records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "schema": "customers", "batch": "2026-11-25-crm", "digest": "9f86d081884c7d65",
    "format": "csv", "rows": 10000, "accepted": 9990, "quarantined": 10, "quarantine_kept": 10,
    "faults": [{ "field": "email", "reason": "not_an_email", "rows": 10, "first_line": 17 }],
    "days": 1, "files": 2, "bytes": 524288, "seconds": 0.1, "repeated": false
}))]
pub struct IngestReport {
    /// The schema.
    pub schema: String,
    /// The id of the batch; the digest of its content unless one was sent.
    pub batch: String,
    /// The SHA-256 of the decoded content, in hexadecimal digits.
    pub digest: String,
    /// `csv`, `ndjson` or `parquet`.
    pub format: String,
    /// The rows of the content.
    pub rows: u64,
    /// The rows that are now in the table.
    pub accepted: u64,
    /// The rows that failed a check.
    pub quarantined: u64,
    /// How many of them are in the quarantine file; it has a limit.
    pub quarantine_kept: u64,
    /// Why rows failed: one entry for each field and reason, without values.
    pub faults: Vec<IngestFault>,
    /// The days of the accepted rows: partitions of the table.
    pub days: u64,
    /// The files that were written.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether the batch was ingested before: the report is that of the first time.
    #[serde(default)]
    #[schema(required)]
    pub repeated: bool,
}

impl IngestReport {
    /// What is said about a batch without rows, such as the export of a table that was empty when it was read; `None`
    /// if it has some. `file`: the name of what was sent.
    pub fn warning(&self, file: &str) -> Option<String> {
        let has = if self.format == "csv" { "has a header and no rows" } else { "has no rows" };
        (self.rows == 0).then(|| format!("warning: {file} {has}"))
    }
}

/// The rows of several batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IngestTotals {
    /// Those that are now in the table.
    pub accepted: u64,
    /// Those that failed a check.
    pub quarantined: u64,
}

impl IngestTotals {
    /// Adds those of a batch.
    pub fn add(&mut self, report: &IngestReport) {
        self.accepted = self.accepted.saturating_add(report.accepted);
        self.quarantined = self.quarantined.saturating_add(report.quarantined);
    }

    /// Whether there were rows, and none of them is in the table.
    pub fn is_refused(&self) -> bool {
        self.accepted == 0 && self.quarantined > 0
    }

    /// What is said about rows in quarantine, if there are some.
    pub fn note(&self) -> Option<String> {
        let rows = counted(self.quarantined, "row");
        let folder = "the folder `ingest/quarantine` of the node's data directory";
        (self.quarantined > 0).then(|| format!("{rows} in quarantine, in {folder}"))
    }
}

/// Rows that failed one check of one field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IngestFault {
    /// The field; null if the whole row is wrong.
    pub field: Option<String>,
    /// The reason, such as `missing`, `not_an_email` or `wrong_width`.
    pub reason: String,
    /// How many rows.
    pub rows: u64,
    /// The line of the first one, from 1; of Parquet its row.
    pub first_line: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_without_rows_is_warned_of() {
        let report = |format: &str, rows: u64| -> IngestReport {
            serde_json::from_value(serde_json::json!({
                "schema": "visits", "batch": "b", "digest": "d", "format": format, "rows": rows,
                "accepted": rows, "quarantined": 0, "quarantine_kept": 0, "faults": [], "days": 0,
                "files": 0, "bytes": 0, "seconds": 0.0, "repeated": false
            }))
            .unwrap()
        };
        let csv = report("csv", 0).warning("a.csv");
        assert_eq!(csv.unwrap(), "warning: a.csv has a header and no rows");
        let parquet = report("parquet", 0).warning("a.parquet");
        assert_eq!(parquet.unwrap(), "warning: a.parquet has no rows");
        assert_eq!(report("csv", 1).warning("a.csv"), None);
    }

    #[test]
    fn a_batch_is_refused_if_all_of_its_rows_are_in_quarantine() {
        let totals = |accepted, quarantined| IngestTotals { accepted, quarantined };
        assert!(totals(0, 1).is_refused());
        assert!(!totals(1, 9).is_refused() && !totals(0, 0).is_refused());
        assert_eq!(totals(3, 0).note(), None);
        let note = totals(1, 2_000).note().unwrap();
        assert!(note.starts_with("2,000 rows in quarantine, in the folder"), "{note}");
    }
}
