//! Sources and their tables.

use throng_api::{
    SourceColumn, SourceFile, SourcePassedOver, SourceRefusal, SourceTable, SourceTables,
};
use throng_lake::{PassedOver, Refused, SourceListing, TableListing};

/// A source and its tables.
pub fn source(source: SourceListing) -> SourceTables {
    SourceTables {
        name: source.name,
        path: source.path.display().to_string(),
        refused: source.refused.map(refusal),
        tables: source.tables.into_iter().map(table).collect(),
        passed_over: source.passed_over.into_iter().map(passed_over).collect(),
        passed_over_count: source.passed_over_count,
    }
}

fn table(table: TableListing) -> SourceTable {
    let files = table.files.into_iter().map(|file| SourceFile {
        path: file.path.display().to_string(),
        format: file.format,
        gzipped: file.gzipped,
        bytes: file.bytes,
        rows: file.rows,
    });
    let columns = table.columns.into_iter();
    let columns = columns.map(|column| SourceColumn { name: column.name, of: column.of });
    SourceTable {
        name: table.name,
        refused: table.refused.map(refusal),
        files: files.collect(),
        file_count: table.file_count,
        bytes: table.bytes,
        rows: table.rows,
        columns: columns.collect(),
        twice: table.twice,
        padded: table.padded,
        passed_over: table.passed_over.into_iter().map(passed_over).collect(),
        passed_over_count: table.passed_over_count,
        warnings: table.warnings,
    }
}

fn refusal(refused: Refused) -> SourceRefusal {
    SourceRefusal { message: refused.message, help: refused.help }
}

fn passed_over(file: PassedOver) -> SourcePassedOver {
    SourcePassedOver { path: file.path.display().to_string(), reason: file.reason }
}
