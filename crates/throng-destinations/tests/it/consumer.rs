//! A consumer of files, by the rules of `docs/specs/file-destination.md`: CSV, not compressed.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// The rows of a file, without its header line. The tests' values need no quotes.
pub(crate) fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n') && !text.contains('"'), "{text}");
    let cells = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    text.lines().skip(1).map(cells).collect()
}

/// The files of an audience's folder that are for consumers, sorted.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// The manifest, if there is one.
pub(crate) fn manifest(folder: &Path) -> Option<Value> {
    let text = std::fs::read(folder.join("manifest.json")).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

/// The first cells of the members; `None` if the folder does not exist.
pub(crate) fn members(folder: &Path) -> Option<BTreeSet<String>> {
    if !folder.is_dir() {
        return None;
    }
    let first = |name: &str| rows(&folder.join(name)).into_iter().map(|row| row[0].clone());
    let mut members = BTreeSet::new();
    let mut since = 0;
    if let Some(manifest) = manifest(folder) {
        since = manifest["run"].as_u64().unwrap();
        let mut counted = 0;
        for file in manifest["files"].as_array().unwrap() {
            let rows: Vec<String> = first(file["name"].as_str().unwrap()).collect();
            assert_eq!(file["rows"], rows.len(), "{file}");
            counted += rows.len();
            members.extend(rows);
        }
        assert_eq!(manifest["rows"], counted);
    }
    for name in files(folder) {
        let Some(run) = name.strip_prefix("run-").and_then(|rest| rest.split('-').next()) else {
            continue;
        };
        if run.parse::<u64>().unwrap() <= since {
            continue;
        }
        if name.ends_with("-add.csv") {
            members.extend(first(&name));
        } else if name.ends_with("-remove.csv") {
            first(&name).for_each(|member| assert!(members.remove(&member), "{member}"));
        }
    }
    Some(members)
}
