//! The sources that the SQL of a spec is checked over, without a node and without a change to the lake.

use std::error::Error;
use std::io::ErrorKind;
use std::path::Path;

use tempfile::TempDir;
use throng_model::with_causes;
use throng_objects::ObjectsError;
use throng_schema::{LAKE_SOURCE, workspace_folder};
use throng_spec::{Source, Spec};

use crate::{BucketLake, IngestError, create_tables, preview_tables};

/// The sources that the SQL of a spec is checked over.
#[derive(Debug)]
pub struct CheckedSources {
    /// Those of the spec; where its schemas change the lake, tables without rows take the place of its tables.
    pub sources: Vec<Source>,
    /// What the check leaves out.
    pub warning: Option<String>,
    /// The folder of the tables without rows; removed with this value.
    _tables: Option<TempDir>,
}

/// The sources of a spec. If it would create or change tables of its schemas, all of them are empty tables in a
/// temporary folder: a check writes nothing to the lake. They are empty, with a warning, also if this user may not
/// read the lake, or its bucket cannot be reached. `bucket`: that of `node.lake_bucket`. Blocks.
///
/// # Errors
/// As [`preview_tables`], except for permissions.
pub fn sources_for_check(
    spec: &Spec,
    bucket: Option<&BucketLake>,
) -> Result<CheckedSources, IngestError> {
    with_preview(spec, |spec, folder| preview_tables(spec, bucket, folder))
}

/// As [`sources_for_check`], if the lake cannot be read for this reason.
///
/// # Errors
/// [`IngestError::Io`] or [`IngestError::Write`] for the temporary folder.
pub fn sources_without_lake(spec: &Spec, why: &dyn Error) -> Result<CheckedSources, IngestError> {
    with_tables(spec, |_, _| Ok(Err(with_causes(why))))
}

/// As [`sources_for_check`], with another [`preview_tables`].
fn with_preview(
    spec: &Spec,
    preview: impl FnOnce(&Spec, &Path) -> Result<bool, IngestError>,
) -> Result<CheckedSources, IngestError> {
    with_tables(spec, |spec, folder| match preview(spec, folder) {
        // Only the user of the node can read the lake.
        Err(error) if is_unreadable(&error) => Ok(Err(with_causes(&error))),
        found => found.map(Ok),
    })
}

/// The sources of a spec. `find` returns whether tables change, and has written them to the folder then; or why the lake
/// cannot be read.
fn with_tables(
    spec: &Spec,
    find: impl FnOnce(&Spec, &Path) -> Result<Result<bool, String>, IngestError>,
) -> Result<CheckedSources, IngestError> {
    let unchanged = |sources| CheckedSources { sources, warning: None, _tables: None };
    let mut sources = spec.sources.clone();
    if spec.schemas.is_empty() {
        return Ok(unchanged(sources));
    }
    let folder = tempfile::tempdir()
        .map_err(IngestError::io("create a folder in", &std::env::temp_dir()))?;
    let warning = match find(spec, folder.path())? {
        Ok(true) => None,
        Ok(false) => return Ok(unchanged(sources)),
        Err(why) => {
            let mut empty = spec.clone();
            empty.node.lake = Some(folder.path().to_owned());
            empty.node.lake_bucket = None;
            create_tables(&empty, None)?;
            Some(unreadable_lake(&why))
        }
    };
    for source in sources.iter_mut().filter(|source| source.name.local() == LAKE_SOURCE) {
        let workspace = source.name.workspace();
        if spec.schemas.iter().any(|schema| schema.name.workspace() == workspace) {
            source.path = folder.path().join(workspace_folder(workspace));
            source.bucket = None;
        }
    }
    Ok(CheckedSources { sources, warning, _tables: Some(folder) })
}

fn is_unreadable(error: &IngestError) -> bool {
    match error {
        IngestError::Io { source, .. } => source.kind() == ErrorKind::PermissionDenied,
        IngestError::Bucket(error) => matches!(error, ObjectsError::Store { .. }),
        _ => false,
    }
}

/// The warning of a check without the tables of the lake.
fn unreadable_lake(why: &str) -> String {
    format!(
        "{why}: the SQL over the source `{LAKE_SOURCE}` is checked over tables without rows, with only the columns that \
         the spec declares now; whether they agree with the tables of the lake is not checked. Run `throng check` as \
         the user of the node, with the keys of the bucket, or when the bucket can be reached"
    )
}

#[cfg(test)]
mod tests {
    use throng_schema::DEFAULT_WORKSPACE;

    use super::*;

    #[test]
    fn a_check_without_the_tables_of_the_lake_names_what_it_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("throng.yaml");
        let text = "version: 1\nnode: { lake: lake }\nschemas:\n  - name: s\n    key: id\n    fields:\n      \
                    - { name: id, type: text, required: true }\n";
        std::fs::write(&file, text).unwrap();
        let spec = throng_spec::load(&file).unwrap();
        let manifest = dir.path().join("lake/default/s/_batches/columns.json");
        let denied = |kind: ErrorKind| {
            let path = manifest.clone();
            with_preview(&spec, |_, _| {
                Err(IngestError::Io { doing: "read", path, source: kind.into() })
            })
        };
        let checked = denied(ErrorKind::PermissionDenied).unwrap();
        let warning = checked.warning.unwrap();
        assert!(warning.starts_with(&format!("cannot read {}", manifest.display())), "{warning}");
        assert!(warning.contains("permission denied") && warning.contains("`lake`"), "{warning}");
        let table = checked.sources[0].path.join("s/_batches/columns.json");
        assert!(table.is_file() && table != manifest);
        let error = denied(ErrorKind::Other).err().unwrap();
        assert!(error.to_string().contains(&manifest.display().to_string()), "{error}");
        assert_eq!(sources_for_check(&spec, None).unwrap().warning, None);
    }

    #[test]
    fn a_check_sees_new_columns_and_writes_nothing_to_the_lake() {
        let dir = tempfile::tempdir().unwrap();
        let spec = |more: &str| {
            let file = dir.path().join("throng.yaml");
            let text = format!(
                "version: 1\nnode: {{ lake: lake }}\nschemas:\n  - name: s\n    key: id\n    fields:\n      \
                 - {{ name: id, type: text, required: true }}\n{more}"
            );
            std::fs::write(&file, text).unwrap();
            throng_spec::load(&file).unwrap()
        };
        let lake = dir.path().join("lake");
        let seen =
            |spec: &Spec| sources_for_check(spec, None).map(|found| found.sources[0].path.clone());
        assert!(!seen(&spec("")).unwrap().starts_with(&lake) && !lake.exists());
        create_tables(&spec(""), None).unwrap();
        assert!(seen(&spec("")).unwrap().starts_with(&lake));
        assert!(!seen(&spec("      - { name: n, type: date }\n")).unwrap().starts_with(&lake));
        let other = spec("      - { name: n, type: date }\n");
        create_tables(&other, None).unwrap();
        let error = seen(&spec("      - { name: n, type: text }\n")).unwrap_err();
        assert!(error.to_string().starts_with("the column `n` of the schema `s` is text"));
        // A table that is damaged is not taken for one that does not exist.
        let manifest = lake.join(DEFAULT_WORKSPACE).join("s/_batches/columns.json");
        assert!(manifest.is_file());
        std::fs::write(&manifest, "damaged").unwrap();
        assert!(seen(&other).is_err());
    }
}
