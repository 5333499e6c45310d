//! Lists the sources: every table with its files and columns, and what is passed over.

use throng_files::{FileError, Folder, Format, PassedOver, Table, unread};
use throng_query::listing::{ColumnListing, FileListing, Refused, SourceListing, TableListing};
use throng_tables::{Layout, shown};

use crate::doubts;
use crate::engine::Engine;

/// CSV and JSON files of a table that a listing reads, in bytes. For larger tables it has no types
/// and no count of rows.
const MAX_TEXT_BYTES: u64 = 256 << 20;
/// Files of a table that a listing names.
const MAX_FILES: usize = 1000;
/// Passed-over files that a listing names, of each table and each source.
const MAX_PASSED_OVER: usize = 100;

fn first(mut passed_over: Vec<PassedOver>) -> (Vec<PassedOver>, u64) {
    let count = passed_over.len() as u64;
    passed_over.truncate(MAX_PASSED_OVER);
    (passed_over, count)
}

/// Doubts about the files of a table, and columns that cannot be used.
fn doubts_of(layout: &Layout) -> Vec<String> {
    let conflicts = layout.conflicts.iter().map(|conflict| {
        format!("a column cannot be used: {} ({})", conflict.message, conflict.help)
    });
    doubts::of_table(layout).into_iter().chain(conflicts).collect()
}

impl Engine {
    /// Lists all sources. Costs a `stat` of every file; with `contents` also reading the CSV and JSON files of
    /// tables that have no more than 256 MiB of them.
    pub(crate) async fn list(&self, contents: bool) -> Vec<SourceListing> {
        let mut listed = Vec::new();
        for (number, source) in self.inner.sources().iter().enumerate() {
            let (name, path) = (source.name.clone(), source.folder.clone());
            let (folder, refused) = match source.read() {
                Ok(folder) => (folder, None),
                Err(error) => (Folder::default(), Some(Refused::from(&error))),
            };
            let of_tables = folder.tables.values().filter_map(|table| table.as_ref().ok());
            let of_tables = of_tables.flat_map(|table| &table.passed_over);
            let warnings = unread(folder.passed_over.iter().chain(of_tables)).into_iter().collect();
            let mut tables = Vec::with_capacity(folder.tables.len());
            for (name, table) in folder.tables {
                tables.push(self.list_table(number, name, table, contents).await);
            }
            let (passed_over, passed_over_count) = first(folder.passed_over);
            listed.push(SourceListing {
                name,
                path,
                refused,
                tables,
                passed_over,
                passed_over_count,
                warnings,
            });
        }
        listed
    }

    async fn list_table(
        &self,
        source: usize,
        name: String,
        table: Result<Table, FileError>,
        contents: bool,
    ) -> TableListing {
        let (table, mut refused) = match table {
            Ok(table) => (table, None),
            Err(error) => (Table::default(), Some(Refused::from(&error))),
        };
        let text = table.files.iter().filter(|file| file.format != Format::Parquet);
        let readable = contents && text.map(|f| f.stamp.bytes).sum::<u64>() <= MAX_TEXT_BYTES;
        let mut layout = None;
        if refused.is_none() && readable {
            match self.inner.whole(source, &table).await {
                Ok(found) => layout = Some(found),
                Err(error) => refused = Some(Refused::from(&error)),
            }
        }
        let rows_of =
            |at: usize| layout.as_ref().and_then(|l| l.files.get(at)).and_then(|f| f.rows);
        let files = table.files.iter().enumerate().take(MAX_FILES).map(|(at, file)| FileListing {
            path: file.path().to_owned(),
            format: file.format.to_string(),
            gzipped: file.gzipped,
            bytes: file.stamp.bytes,
            rows: rows_of(at),
        });
        let (files, file_count) = (files.collect(), table.files.len() as u64);
        let bytes = table.files.iter().map(|file| file.stamp.bytes).sum();
        let (passed_over, passed_over_count) = first(table.passed_over);
        // Without what may be a value of the data.
        let masked = |name: &str| {
            let header = layout.as_ref().map(|layout| &layout.header);
            header.map(|header| header.shown(name).into_owned()).unwrap_or_default()
        };
        let columns = layout.iter().flat_map(|layout| &layout.columns).map(|column| {
            ColumnListing { name: masked(&column.name), of: shown(&column.data_type) }
        });
        TableListing {
            name,
            refused,
            files,
            file_count,
            bytes,
            rows: layout.as_ref().and_then(Layout::rows),
            columns: columns.collect(),
            twice: layout.iter().flat_map(|l| &l.twice).map(|(name, _)| masked(name)).collect(),
            padded: layout.iter().flat_map(|l| &l.padded).map(|name| masked(name)).collect(),
            passed_over,
            passed_over_count,
            warnings: layout.iter().flat_map(doubts_of).collect(),
        }
    }
}
