//! A scan of CSV and JSON files as bytes, for an engine on other machines.
//!
//! ```text
//! length of the JSON u32, little-endian | JSON: [`Scan`] | schema of the columns, as an Arrow stream without rows
//! ```

use std::io::Cursor;
use std::sync::Arc;

use datafusion::arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::common::{Result, internal_datafusion_err, internal_err};
use datafusion::datasource::physical_plan::FileScanConfig;
use serde::{Deserialize, Serialize};
use throng_files::{DataFile, FileKind, FileStamp, Format, file_kind};

use super::layout::{Column, FilePlan, Layout, Origin};
use super::text_source::TextSource;

/// A scan.
#[derive(Debug, Serialize, Deserialize)]
struct Scan {
    columns: Vec<ScanColumn>,
    /// The files, by partition.
    groups: Vec<Vec<ScanFile>>,
    trim: bool,
    positional: Option<Vec<String>>,
    limit: Option<usize>,
}

/// A column that is read.
#[derive(Debug, Serialize, Deserialize)]
struct ScanColumn {
    name: String,
    converted: bool,
    written: Option<String>,
}

/// A file, and where it has the columns.
#[derive(Debug, Serialize, Deserialize)]
struct ScanFile {
    stamp: FileStamp,
    origins: Vec<Origin>,
    rows: Option<u64>,
}

impl TextSource {
    /// A scan as bytes; `None` if it is one of another source.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn encode(scan: &FileScanConfig) -> Option<Result<Vec<u8>>> {
        let source = scan.file_source().downcast_ref::<Self>()?;
        Some(source.to_bytes(scan))
    }

    fn to_bytes(&self, scan: &FileScanConfig) -> Result<Vec<u8>> {
        let (layout, wanted) = (&self.files.layout, &self.files.wanted);
        let file = |at: usize| {
            let plan = &layout.files[at];
            let origins = wanted.iter().map(|column| plan.origins[*column].clone()).collect();
            ScanFile { stamp: plan.file.stamp.clone(), origins, rows: plan.rows }
        };
        let mut groups = Vec::with_capacity(scan.file_groups.len());
        for group in &scan.file_groups {
            let files = group.files().iter().map(|located| self.number(located).map(file));
            let Some(files) = files.collect::<Option<Vec<_>>>() else {
                return internal_err!("a scan has no such file");
            };
            groups.push(files);
        }
        let column = |at: &usize| {
            let Column { name, converted, written, .. } = layout.columns[*at].clone();
            ScanColumn { name, converted, written }
        };
        let parts = Scan {
            columns: wanted.iter().map(column).collect(),
            groups,
            trim: layout.trim,
            positional: layout.positional.clone(),
            limit: scan.limit,
        };
        let json = serde_json::to_vec(&parts)
            .map_err(|e| internal_datafusion_err!("a scan cannot be written: {e}"))?;
        let mut bytes = u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
        bytes.extend_from_slice(&json);
        let mut writer = StreamWriter::try_new(bytes, &self.files.schema)?;
        writer.finish()?;
        Ok(writer.into_inner()?)
    }

    /// The scan of these bytes.
    ///
    /// # Errors
    /// If they are not of one.
    pub fn decode(bytes: &[u8]) -> Result<FileScanConfig> {
        let invalid = || internal_datafusion_err!("these bytes are not a scan of text files");
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(invalid)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (json, schema) = rest.split_at_checked(length).ok_or_else(invalid)?;
        let scan: Scan = serde_json::from_slice(json).map_err(|_| invalid())?;
        let schema: SchemaRef = StreamReader::try_new(Cursor::new(schema), None)?.schema();
        let columns = scan.columns.len();
        if schema.fields().len() != columns
            || scan.groups.iter().flatten().any(|file| file.origins.len() != columns)
        {
            return Err(invalid());
        }
        let column = |(column, field): (ScanColumn, &FieldRef)| Column {
            name: column.name,
            data_type: field.data_type().clone(),
            converted: column.converted,
            empty: false,
            written: column.written,
        };
        let columns: Vec<Column> =
            scan.columns.into_iter().zip(schema.fields()).map(column).collect();
        let (mut files, mut groups) = (Vec::new(), Vec::with_capacity(scan.groups.len()));
        for group in scan.groups {
            let first = files.len();
            for file in group {
                files.push(file_plan(file).ok_or_else(invalid)?);
            }
            groups.push((first..files.len()).collect::<Vec<usize>>());
        }
        let wanted = (0..columns.len()).collect();
        let (trim, positional) = (scan.trim, scan.positional);
        let layout = Layout { columns, files, trim, positional, ..Layout::default() };
        Self::scan(&Arc::new(layout), &groups, wanted, &schema, scan.limit)
    }
}

/// The format of a file follows from its name, as when it was found. Parquet files are scanned by the engine itself.
fn file_plan(file: ScanFile) -> Option<FilePlan> {
    let ScanFile { stamp, origins, rows } = file;
    let name = stamp.path.file_name()?.to_str()?;
    let FileKind::Data { format, gzipped, .. } = file_kind(name) else { return None };
    if format == Format::Parquet {
        return None;
    }
    let file = DataFile { stamp, format, gzipped, folders: Vec::new() };
    Some(FilePlan { file, origins, rows })
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{DataType, Field};

    use super::*;

    fn table() -> Arc<Layout> {
        let column = |name: &str, data_type: DataType, written: Option<&str>| Column {
            name: name.to_owned(),
            data_type,
            converted: written.is_none(),
            empty: false,
            written: written.map(str::to_owned),
        };
        let nested = DataType::Struct(vec![Field::new("zip", DataType::Utf8View, true)].into());
        let columns = vec![
            column("id", DataType::Utf8View, None),
            column("amount", DataType::Float64, Some("shortest")),
            column("address", nested, None),
        ];
        let file = |name: &str, origins: Vec<Origin>| {
            let stamp = FileStamp { path: name.into(), bytes: 70, modified: 1_700_000_000_000 };
            file_plan(ScanFile { stamp, origins, rows: Some(5) }).unwrap()
        };
        let of = |name: &str| Origin::Column(name.to_owned());
        let folder = Origin::Folder(Some("7".to_owned()));
        let files = vec![
            file("/lake/shop/a 1.csv", vec![of("id"), folder, Origin::Missing]),
            file("/lake/shop/b.json.gz", vec![of("ID"), of("n"), of("address")]),
            file("/lake/shop/c.csv", vec![of("id"), of("amount"), Origin::Missing]),
        ];
        let positional = Some(vec!["id".to_owned()]);
        Arc::new(Layout { columns, files, trim: true, positional, ..Layout::default() })
    }

    #[test]
    fn a_scan_is_read_as_it_was_written() {
        let layout = table();
        // Two of the columns, in another order, and not all files.
        let wanted: Arc<[usize]> = [2, 1].into();
        let schema: SchemaRef = Arc::new(layout.schema().project(&wanted).unwrap());
        let groups = [vec![2], vec![], vec![1]];
        let scan = TextSource::scan(&layout, &groups, wanted, &schema, Some(9)).unwrap();
        let bytes = TextSource::encode(&scan).unwrap().unwrap();
        let read = TextSource::decode(&bytes).unwrap();
        assert_eq!(read.limit, Some(9));
        let names = |scan: &FileScanConfig| {
            let group = |g: &datafusion::datasource::physical_plan::FileGroup| {
                let file =
                    |f: &datafusion::datasource::listing::PartitionedFile| f.object_meta.clone();
                g.files().iter().map(file).collect::<Vec<_>>()
            };
            scan.file_groups.iter().map(group).collect::<Vec<_>>()
        };
        assert_eq!(names(&read), names(&scan));
        let source = read.file_source().downcast_ref::<TextSource>().unwrap();
        assert_eq!(source.files.schema, schema);
        let Layout { columns, files, trim, positional, .. } = source.files.layout.as_ref();
        assert_eq!(columns[1], layout.columns[1]);
        assert_eq!(files[0].origins, [Origin::Missing, Origin::Column("amount".to_owned())]);
        assert_eq!(files[1].file.stamp, layout.files[1].file.stamp);
        assert!(files[1].file.gzipped && *trim);
        assert_eq!(*positional, layout.positional);
        // And again.
        assert_eq!(TextSource::encode(&read).unwrap().unwrap(), bytes);
    }

    #[test]
    fn other_bytes_are_not_a_scan() {
        let layout = table();
        let schema = layout.schema();
        let wanted = [0, 1, 2].into();
        let scan = TextSource::scan(&layout, &[vec![0, 1, 2]], wanted, &schema, None).unwrap();
        let bytes = TextSource::encode(&scan).unwrap().unwrap();
        for wrong in [&bytes[..3], &bytes[..40], &[255; 9][..], &[]] {
            assert!(TextSource::decode(wrong).is_err(), "{wrong:?}");
        }
    }
}
