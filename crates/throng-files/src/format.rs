//! The format of a file, by its name. Pure.

/// The first bytes of text that marks its encoding as UTF-8.
pub(crate) const BYTE_ORDER_MARK: &[u8] = &[0xEF, 0xBB, 0xBF];
/// The first bytes of a gzip file.
pub(crate) const GZIP: &[u8] = &[0x1F, 0x8B];

/// The format of a file's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Parquet.
    Parquet,
    /// Lines of values that are separated by commas.
    Csv,
    /// JSON objects.
    Json,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Json => "json",
        })
    }
}

/// The kind of a file, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A file that is read.
    Data {
        /// The format of its rows.
        format: Format,
        /// Whether it is compressed by gzip.
        gzipped: bool,
        /// Bytes of the ending.
        ending: usize,
    },
    /// A file with rows that is not read.
    Unreadable {
        /// What it is.
        what: &'static str,
        /// Bytes of the ending.
        ending: usize,
    },
    /// Anything else.
    Other,
}

/// Endings of files with rows that are not read.
const UNREADABLE: [(&str, &str); 12] = [
    (".tsv", "a file of tab-separated values"),
    (".orc", "an ORC file"),
    (".avro", "an Avro file"),
    (".arrow", "an Arrow file"),
    (".feather", "a Feather file"),
    (".xlsx", "an Excel file"),
    (".xls", "an Excel file"),
    (".xlsm", "an Excel file"),
    (".xlsb", "an Excel file"),
    (".ods", "an OpenDocument spreadsheet"),
    (".pq", "a file with the ending .pq: Parquet files end with .parquet"),
    (".xml", "an XML file"),
];

/// Endings of compressed files that are not read.
const COMPRESSED: [&str; 10] =
    [".zst", ".bz2", ".xz", ".zip", ".lz4", ".br", ".snappy", ".7z", ".lzo", ".gz"];

/// The kind of a file, by its name, regardless of case.
pub fn file_kind(name: &str) -> FileKind {
    let lower = name.to_ascii_lowercase();
    let (stem, gzipped) = match lower.strip_suffix(".gz") {
        Some(stem) => (stem, true),
        None => (lower.as_str(), false),
    };
    let known = [
        (".parquet", Format::Parquet),
        (".csv", Format::Csv),
        (".json", Format::Json),
        (".jsonl", Format::Json),
        (".ndjson", Format::Json),
    ];
    let found =
        known.iter().find(|(ending, _)| stem.len() > ending.len() && stem.ends_with(ending));
    if let Some((ending, format)) = found {
        let ending = ending.len() + lower.len() - stem.len();
        // Parquet compresses its pages itself.
        return match (format, gzipped) {
            (Format::Parquet, true) => {
                FileKind::Unreadable { what: "a compressed Parquet file", ending }
            }
            _ => FileKind::Data { format: *format, gzipped, ending },
        };
    }
    let found =
        UNREADABLE.iter().find(|(ending, _)| stem.len() > ending.len() && stem.ends_with(ending));
    if let Some((ending, what)) = found {
        return FileKind::Unreadable { what, ending: ending.len() + lower.len() - stem.len() };
    }
    for compressed in COMPRESSED {
        let Some(stem) = lower.strip_suffix(compressed) else { continue };
        if let FileKind::Data { ending, .. } = file_kind(&name[..stem.len()]) {
            let what = "compressed, but not by gzip";
            return FileKind::Unreadable { what, ending: ending + compressed.len() };
        }
    }
    FileKind::Other
}

/// Why a file or folder of this name is passed over, whatever it is; `None` if it is not.
pub fn passed_over_by_name(name: &str) -> Option<&'static str> {
    if name.starts_with('.') {
        return Some("its name begins with a dot");
    }
    if name.starts_with("~$") {
        return Some("it is the lock file of a program that has the file open");
    }
    // Internal files of other programs.
    name.starts_with('_').then_some("its name begins with _")
}

/// The folder whose files say that the folder above it is an Iceberg table.
pub const ICEBERG_FOLDER: &str = "metadata";

/// Whether a file of this name in a folder `metadata` says that the folder above it is an Iceberg table.
pub fn is_iceberg_metadata(name: &str) -> bool {
    let version =
        name.strip_suffix(".metadata.json").map(|stem| stem.strip_prefix('v').unwrap_or(stem));
    // `v1.metadata.json`, `v1.gz.metadata.json`, `00001-5fd3….metadata.json`.
    version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        || name == "version-hint.text"
}

/// A name as SQL has it: in lower case, `-`, `.` and space become `_`.
pub fn sql_name(name: &str) -> String {
    name.to_lowercase().replace(['-', '.', ' '], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_and_those_of_open_files_are_passed_over() {
        for name in [".x", "_SUCCESS", "_delta_log", "~$a.csv"] {
            assert!(passed_over_by_name(name).is_some(), "{name}");
        }
        for name in ["a.csv", "a_", "~a.csv", "$a.csv", "day=1"] {
            assert_eq!(passed_over_by_name(name), None, "{name}");
        }
    }

    #[test]
    fn endings_are_known_in_upper_and_lower_case() {
        let data = |format, gzipped, ending| FileKind::Data { format, gzipped, ending };
        for (name, found) in [
            ("a.csv", data(Format::Csv, false, 4)),
            ("A.CSV.GZ", data(Format::Csv, true, 7)),
            ("x.y.JSONL", data(Format::Json, false, 6)),
            ("x.ndjson.gz", data(Format::Json, true, 10)),
            ("part-0.snappy.parquet", data(Format::Parquet, false, 8)),
            (".csv", FileKind::Other),
            ("a.txt", FileKind::Other),
            ("csv", FileKind::Other),
            ("ü.csv", data(Format::Csv, false, 4)),
            ("notes.gz", FileKind::Other),
        ] {
            assert_eq!(file_kind(name), found, "{name}");
        }
        for name in ["a.csv.zst", "a.parquet.gz", "a.json.ZIP", "a.avro", "a.tsv.gz", "b.csv.gz.gz"]
        {
            assert!(matches!(file_kind(name), FileKind::Unreadable { .. }), "{name}");
        }
    }
}
