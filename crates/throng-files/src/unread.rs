//! Warns of files that are not read because of their endings, although they may have rows. Pure.

use std::path::Path;

use crate::discover::{NOT_READ, PassedOver, UNKNOWN_ENDING};

/// Files that a warning names.
const MAX_NAMED: usize = 3;
/// Beginnings of the names of texts about data.
const TEXTS: [&str; 2] = ["readme", "license"];
/// Endings of files without rows: checksums, texts, and specs, which may be in the folder of a source.
const WITHOUT_ROWS: [&str; 4] = [".crc", ".md", ".yaml", ".yml"];

/// A warning about those of the files that may have rows; `None` if there is none. Hidden files, checksums (`.crc`),
/// files of other programs such as `_SUCCESS`, specs, and texts such as `README.md` have none.
///
/// ```
/// let passed_over = |name: &str| throng_files::PassedOver {
///     path: name.into(),
///     reason: "its ending is not known".to_owned(),
/// };
/// let found = throng_files::unread(&[passed_over("a.csv.old"), passed_over("a.crc")]).unwrap();
/// assert!(found.starts_with("1 file is not read because of its ending: a.csv.old"));
/// ```
pub fn unread<'p>(passed_over: impl IntoIterator<Item = &'p PassedOver>) -> Option<String> {
    let mut found = passed_over.into_iter().filter(|file| may_have_rows(file));
    let named: Vec<String> =
        found.by_ref().take(MAX_NAMED).map(|file| file.path.display().to_string()).collect();
    let more = found.count();
    let what = match (named.len(), more) {
        (0, _) => return None,
        (1, _) => format!("1 file is not read because of its ending: {}", named.join(", ")),
        (all, 0) => {
            format!("{all} files are not read because of their endings: {}", named.join(", "))
        }
        (all, more) => format!(
            "{} files are not read because of their endings: {} and {more} more",
            all + more,
            named.join(", ")
        ),
    };
    Some(format!(
        "{what}; end the names of files with rows with .parquet, .csv, .json, .jsonl or .ndjson (CSV and JSON may \
         be compressed: .csv.gz), and move other files, or begin their names with _"
    ))
}

fn may_have_rows(file: &PassedOver) -> bool {
    let by_ending = [UNKNOWN_ENDING, NOT_READ].contains(&file.reason.as_str());
    let name = Path::file_name(&file.path).map(|name| name.to_string_lossy().to_ascii_lowercase());
    by_ending
        && name.is_some_and(|name| {
            !WITHOUT_ROWS.iter().any(|ending| name.ends_with(ending))
                && !TEXTS.iter().any(|text| name.starts_with(text))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::of_folder;

    /// The warning about a source with these files.
    fn warning(names: &[&str]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "id\n1\n").unwrap();
        }
        let found = of_folder(dir.path(), dir.path()).unwrap();
        let of_tables = found.tables.values().filter_map(|table| table.as_ref().ok());
        let of_tables = of_tables.flat_map(|table| &table.passed_over);
        let warning = unread(found.passed_over.iter().chain(of_tables))?;
        Some(warning.replace(&format!("{}/", dir.path().display()), ""))
    }

    #[test]
    fn files_with_other_endings_are_named() {
        let one = warning(&["users.csv", "users.csv.old", "_SUCCESS", ".part-0.csv.crc"]).unwrap();
        assert!(
            one.starts_with("1 file is not read because of its ending: users.csv.old; "),
            "{one}"
        );
        let all = [
            "events/1.csv",
            "events/2.csv.bak",
            "events/day=1/3.csv~",
            "texts/a.txt",
            "texts/b.dat",
            "users",
        ];
        let several = warning(&all).unwrap();
        assert!(
            several.starts_with("5 files are not read because of their endings: "),
            "{several}"
        );
        assert!(several.contains("texts/a.txt, texts/b.dat, users and 2 more; "), "{several}");
        let three = warning(&all[2..5]).unwrap();
        assert!(three.starts_with("3 files ") && three.contains("b.dat; "), "{three}");
    }

    #[test]
    fn files_of_other_programs_are_not_named() {
        let silent = [
            "users.csv",
            "events/1.parquet",
            "events/_SUCCESS",
            "events/.1.parquet.crc",
            "events/1.parquet.crc",
            ".DS_Store",
            "~$users.xlsx",
            "throng.yaml",
            "README.txt",
            "events/LICENSE",
        ];
        assert_eq!(warning(&silent), None);
    }
}
