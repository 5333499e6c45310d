//! Folders of tables whose files must not be read by themselves (Delta, Hudi, Iceberg): they also have files that are
//! no longer part of the table.

use std::path::Path;

use crate::error::FileError;
use crate::format::{ICEBERG_FOLDER, is_iceberg_metadata};

/// Folders above a source that are inspected, at most.
const MAX_ABOVE: usize = 64;
/// Files in each folder of a Hudi table that has files with rows.
const HUDI_PARTITION: [&str; 2] =
    [".hoodie_partition_metadata", ".hoodie_partition_metadata.parquet"];

/// Refuses the folder of such a table.
pub(crate) fn refuse_table_format(folder: &Path) -> Result<(), FileError> {
    match format_of(folder) {
        Some(format) => {
            Err(refusal(format!("{} is {format}, which is not supported", folder.display())))
        }
        None => Ok(()),
    }
}

/// Refuses a folder in such a table, as that of a partition. `folder` is canonical. A folder above it that this
/// process may not read is not inspected.
pub(crate) fn refuse_part_of_table(folder: &Path) -> Result<(), FileError> {
    let mut above = folder.ancestors().skip(1).take(MAX_ABOVE);
    match above.find_map(|above| Some((above, format_of(above)?))) {
        Some((table, format)) => Err(refusal(format!(
            "{} is in {}, which is {format} and is not supported",
            folder.display(),
            table.display()
        ))),
        None => Ok(()),
    }
}

fn refusal(message: String) -> FileError {
    let help = "write its current rows to Parquet files in a separate folder".to_owned();
    FileError::Table { message, help }
}

fn format_of(folder: &Path) -> Option<&'static str> {
    if folder.join("_delta_log").is_dir() {
        Some("a Delta table")
    } else if folder.join(".hoodie").is_dir() {
        Some("a Hudi table")
    } else if HUDI_PARTITION.iter().any(|name| folder.join(name).is_file()) {
        // The table may have been copied without its folder `.hoodie`.
        Some("a folder of a Hudi table")
    } else if is_iceberg(&folder.join(ICEBERG_FOLDER)) {
        Some("an Iceberg table")
    } else {
        None
    }
}

fn is_iceberg(metadata: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(metadata) else {
        // A query worker may list only the folders of its sources. These names are those of tables without a catalog.
        let known = ["version-hint.text", "v1.metadata.json"];
        return known.iter().any(|name| metadata.join(name).is_file());
    };
    entries.flatten().any(|entry| is_iceberg_metadata(&entry.file_name().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use crate::of_folder;

    #[test]
    fn a_source_in_a_table_of_another_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in
            ["d/_delta_log", "d/region=1/day=2", "h/.hoodie", "h/x", "i/metadata", "i/data", "s"]
        {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for name in
            ["d/region=1/day=2/1.csv", "h/x/1.csv", "i/metadata/v1.metadata.json", "i/data/1.csv"]
        {
            std::fs::write(at(name), "id\n1\n").unwrap();
        }
        // What is said of a source, or of its only table.
        let said = |folder: &str, root: &str| {
            let error = match of_folder(&at(folder), &at(root)) {
                Ok(found) => found.tables.into_values().find_map(Result::err)?,
                Err(error) => error,
            };
            assert!(error.help().contains("in a separate folder"), "{error}");
            let root = dir.path().canonicalize().unwrap();
            Some(error.to_string().replace(&*root.to_string_lossy(), ""))
        };
        let delta = "/d/region=1/day=2 is in /d, which is a Delta table and is not supported";
        for root in ["d/region=1/day=2", "d/region=1", "."] {
            assert_eq!(said("d/region=1/day=2", root).as_deref(), Some(delta), "{root}");
        }
        let hudi = "/h/x is in /h, which is a Hudi table and is not supported";
        assert_eq!(said("h/x", "h/x").as_deref(), Some(hudi));
        let iceberg = "/i/data is in /i, which is an Iceberg table and is not supported";
        assert_eq!(said("i/data", "i/data").as_deref(), Some(iceberg));
        // A Hudi table without its folder `.hoodie`.
        for name in [".hoodie_partition_metadata", ".hoodie_partition_metadata.parquet"] {
            std::fs::create_dir_all(at("p/t/day=1")).unwrap();
            std::fs::write(at("p/t/day=1/1.csv"), "id\n1\n").unwrap();
            assert_eq!(said("p", "."), None);
            std::fs::write(at("p/t/day=1").join(name), "").unwrap();
            let hudi = "/p/t/day=1 is a folder of a Hudi table, which is not supported";
            assert_eq!(said("p", ".").as_deref(), Some(hudi));
            std::fs::remove_dir_all(at("p")).unwrap();
        }
        // A table that is a link to a partition.
        std::os::unix::fs::symlink("../d/region=1/day=2", at("s/t")).unwrap();
        assert_eq!(said("s", ".").as_deref(), Some(delta));
        // Descriptions of tables beside the source.
        std::fs::create_dir_all(at("x/metadata")).unwrap();
        std::fs::create_dir_all(at("x/users")).unwrap();
        std::fs::write(at("x/metadata/users.metadata.json"), "{}").unwrap();
        std::fs::write(at("x/users/1.csv"), "id\n1\n").unwrap();
        assert_eq!(said("x/users", "."), None);
        // The folder of a table of another format is beside the source.
        std::fs::remove_file(at("s/t")).unwrap();
        std::fs::write(at("s/1.csv"), "id\n1\n").unwrap();
        assert_eq!(said("s", "."), None);
    }
}
