//! Scans of copies of objects, for an engine on other machines: these download the objects themselves. The message of a
//! scan of Parquet files is the engine's own, and of a file it has only path, size and time of change. So the path names
//! the object: a machine that does not know such paths finds no file there.
//!
//! ```text
//! /throng-object/ hexadecimal digits of the JSON list of bucket, key and ETag / name of the file
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result, internal_datafusion_err, internal_err};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::object_store::local::LocalFileSystem;
use throng_files::FileStamp;
use throng_model::{from_hex_of_any_length, to_hex};

use super::layout::Layout;
use super::scanned_file::scanned_file;
use super::text_source::TextSource;

/// What the paths of objects begin with.
const ROOT: &str = "/throng-object";

/// The object that a file of a scan is a copy of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedObject {
    /// The URL of its bucket, without a prefix: `s3://…` or `gs://…`.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// The store's identifier of its content.
    pub etag: String,
}

impl ScannedObject {
    /// The path of a file that names this object.
    pub fn path(&self) -> PathBuf {
        let json = serde_json::json!([self.bucket, self.key, self.etag]).to_string();
        Path::new(ROOT).join(to_hex(json.as_bytes())).join(self.name())
    }

    /// The object that a path names; `None` if it is one of a file.
    pub fn of_path(path: &Path) -> Option<Self> {
        let mut parts = path.strip_prefix(ROOT).ok()?.iter();
        let json = from_hex_of_any_length(parts.next()?.to_str()?)?;
        let (bucket, key, etag) = serde_json::from_slice(&json).ok()?;
        let object = Self { bucket, key, etag };
        let is_named = parts.next()?.to_str()? == object.name() && parts.next().is_none();
        is_named.then_some(object)
    }

    /// The last part of its key, from which the format of the file follows.
    fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }
}

/// A path as those of [`stamps`] are written: without `.` and `..`.
///
/// # Errors
/// If it is not a location.
pub fn as_scanned(path: &Path) -> Result<PathBuf> {
    let stamp = FileStamp { path: path.to_owned(), bytes: 0, modified: 0 };
    let location = scanned_file(&stamp)?.object_meta.location;
    Ok(LocalFileSystem::new().path_to_filesystem(&location)?)
}

/// The files of a scan, with a file that is read in several ranges several times.
///
/// # Errors
/// If one has no path or no time of change.
pub fn stamps(scan: &FileScanConfig) -> Result<Vec<FileStamp>> {
    let here = LocalFileSystem::new();
    let files = scan.file_groups.iter().flat_map(|group| group.files());
    let stamps = files.map(|file| {
        let meta = &file.object_meta;
        let path = here.path_to_filesystem(&meta.location)?;
        let modified = meta.last_modified.timestamp_nanos_opt();
        let modified = modified.and_then(|nanos| u64::try_from(nanos).ok());
        let modified =
            modified.ok_or_else(|| internal_datafusion_err!("a file has no time of change"))?;
        Ok::<_, DataFusionError>(FileStamp { path, bytes: meta.size, modified })
    });
    stamps.collect()
}

/// The scan with some of its files at other paths. `path` is called once for each file of [`stamps`], in their order, and
/// returns the other path; `None`: it stays. `None` if all files stay.
///
/// # Errors
/// If a path is not a location.
pub fn relocated(
    scan: &FileScanConfig,
    mut path: impl FnMut(&FileStamp) -> Option<PathBuf>,
) -> Result<Option<FileScanConfig>> {
    let paths: Vec<Option<PathBuf>> = stamps(scan)?.iter().map(&mut path).collect();
    if paths.iter().all(Option::is_none) {
        return Ok(None);
    }
    match scan.file_source().downcast_ref::<TextSource>() {
        Some(text) => text.at(scan, &paths).map(Some),
        None => at(scan, paths).map(Some),
    }
}

/// A scan of the engine with its files at these paths.
fn at(scan: &FileScanConfig, paths: Vec<Option<PathBuf>>) -> Result<FileScanConfig> {
    let mut paths = paths.into_iter();
    let mut groups = Vec::with_capacity(scan.file_groups.len());
    for group in &scan.file_groups {
        let mut files = group.files().to_vec();
        for (file, path) in files.iter_mut().zip(&mut paths) {
            if let Some(path) = path {
                let stamp = FileStamp { path, bytes: file.object_meta.size, modified: 0 };
                file.object_meta.location = scanned_file(&stamp)?.object_meta.location;
            }
        }
        groups.push(FileGroup::new(files));
    }
    Ok(FileScanConfigBuilder::from(scan.clone()).with_file_groups(groups).build())
}

impl TextSource {
    /// A scan of this source with its files at these paths.
    fn at(&self, scan: &FileScanConfig, paths: &[Option<PathBuf>]) -> Result<FileScanConfig> {
        let layout = &self.files.layout;
        let (mut files, mut groups) = (Vec::new(), Vec::with_capacity(scan.file_groups.len()));
        for group in &scan.file_groups {
            let first = files.len();
            for located in group.files() {
                let Some(number) = self.number(located) else {
                    return internal_err!("a scan has no such file");
                };
                let mut plan = layout.files[number].clone();
                if let Some(Some(path)) = paths.get(files.len()) {
                    plan.file.stamp.path.clone_from(path);
                }
                files.push(plan);
            }
            groups.push((first..files.len()).collect::<Vec<usize>>());
        }
        let Layout { columns, trim, positional, sample, .. } = layout.as_ref().clone();
        let layout = Layout { columns, files, trim, positional, sample, ..Layout::default() };
        let wanted = Arc::clone(&self.files.wanted);
        Self::scan(&Arc::new(layout), &groups, wanted, &self.files.schema, scan.limit)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use datafusion::datasource::physical_plan::ParquetSource;
    use datafusion::execution::object_store::ObjectStoreUrl;
    use throng_files::{DataFile, Format};

    use super::*;
    use crate::layout::{Column, FilePlan, Origin};

    fn object(key: &str) -> ScannedObject {
        ScannedObject {
            bucket: "s3://lake".to_owned(),
            key: key.to_owned(),
            etag: "a-2".to_owned(),
        }
    }

    fn stamp(path: &str) -> FileStamp {
        FileStamp { path: path.into(), bytes: 70, modified: 1_700_000_000_000_001_000 }
    }

    /// Of every file below `/copies` but the last one.
    fn of_copies(stamp: &FileStamp) -> Option<PathBuf> {
        let key = stamp.path.strip_prefix("/copies").ok()?.to_str()?;
        (key != "c.csv").then(|| object(key).path())
    }

    fn paths(scan: &FileScanConfig) -> Vec<PathBuf> {
        stamps(scan).unwrap().into_iter().map(|stamp| stamp.path).collect()
    }

    #[test]
    fn a_path_names_an_object() {
        for key in ["a.csv", "e/day=1/ü 1?.json.gz", "e/\"q\".csv"] {
            let path = object(key).path();
            assert_eq!(ScannedObject::of_path(&path), Some(object(key)), "{}", path.display());
            assert_eq!(path.file_name().unwrap().to_str(), Some(object(key).name()));
        }
        // Paths of files, also those of earlier versions, and other paths.
        let named = object("e/a.csv").path();
        let other = named.parent().unwrap().join("b.csv");
        for path in ["/lake/a.csv", "/throng-object/a.csv", "/throng-object/00/a.csv"] {
            assert_eq!(ScannedObject::of_path(Path::new(path)), None, "{path}");
        }
        assert_eq!(ScannedObject::of_path(&other), None);
        assert_eq!(ScannedObject::of_path(&named.join("x")), None);
    }

    #[test]
    fn a_folder_is_written_as_its_files_are() {
        let scanned = as_scanned(Path::new("/data/../copies/e 1")).unwrap();
        assert_eq!(scanned, Path::new("/copies/e 1"));
    }

    #[test]
    fn a_scan_of_text_files_is_sent_with_its_objects() {
        let file = |name: &str| FilePlan {
            file: DataFile {
                stamp: stamp(name),
                format: Format::Csv,
                gzipped: false,
                folders: Vec::new(),
            },
            origins: vec![Origin::Column("id".to_owned())],
            rows: Some(5),
        };
        let column = Column {
            name: "id".to_owned(),
            data_type: DataType::Utf8View,
            converted: false,
            empty: false,
            written: None,
        };
        let files = ["/copies/e/a.csv", "/copies/e/b.csv", "/copies/c.csv"].map(file).to_vec();
        let layout = Arc::new(Layout { columns: vec![column], files, ..Layout::default() });
        let schema = layout.schema();
        let groups = [vec![1, 2], vec![], vec![0]];
        let scan = TextSource::scan(&layout, &groups, [0].into(), &schema, Some(9)).unwrap();
        let named = relocated(&scan, of_copies).unwrap().unwrap();
        let bytes = TextSource::encode(&named).unwrap().unwrap();
        let read = TextSource::decode(&bytes).unwrap();
        let expected =
            [object("e/b.csv").path(), PathBuf::from("/copies/c.csv"), object("e/a.csv").path()];
        assert_eq!(paths(&read), expected);
        let sizes: Vec<usize> = read.file_groups.iter().map(|group| group.len()).collect();
        assert_eq!((sizes, read.limit), (vec![2, 0, 1], Some(9)));
        // Where the objects are files, it is the scan that it was.
        let found = |stamp: &FileStamp| {
            let object = ScannedObject::of_path(&stamp.path)?;
            Some(Path::new("/copies").join(object.key))
        };
        let back = relocated(&read, found).unwrap().unwrap();
        assert_eq!(stamps(&back).unwrap(), stamps(&scan).unwrap());
        // One of files only is sent as before.
        assert!(relocated(&scan, |_| None).unwrap().is_none());
    }

    #[test]
    fn a_scan_of_parquet_files_keeps_all_but_the_paths() {
        let schema: SchemaRef =
            Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8View, true)]));
        let file = |name: &str| scanned_file(&stamp(name)).unwrap().with_range(3, 9);
        let url = ObjectStoreUrl::local_filesystem();
        let scan = FileScanConfigBuilder::new(url, Arc::new(ParquetSource::new(schema)))
            .with_file_groups(vec![
                FileGroup::new(vec![file("/copies/e/a 1.parquet")]),
                FileGroup::new(vec![file("/copies/e/b.parquet"), file("/lake/c.parquet")]),
            ])
            .with_limit(Some(9))
            .build();
        let named = relocated(&scan, of_copies).unwrap().unwrap();
        let expected = [
            object("e/a 1.parquet").path(),
            object("e/b.parquet").path(),
            PathBuf::from("/lake/c.parquet"),
        ];
        assert_eq!(paths(&named), expected);
        let ranges = named.file_groups.iter().flat_map(|group| group.files());
        assert!(ranges.clone().all(|file| file.range.as_ref().is_some_and(|r| r.start == 3)));
        assert!(ranges.clone().all(|file| file.object_meta.size == 70));
        assert_eq!((named.limit, ranges.count()), (Some(9), 3));
        let modified = stamps(&named).unwrap().into_iter().map(|stamp| stamp.modified);
        assert_eq!(modified.collect::<Vec<_>>(), [stamp("").modified; 3]);
    }
}
