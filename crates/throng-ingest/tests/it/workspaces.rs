//! Workspaces: each has a folder of its own in the lake and in quarantine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use throng_ingest::{IngestError, create_tables, find_schema, preview_tables};
use throng_model::WorkspaceName;
use throng_schema::Schema;
use throng_spec::{Spec, load};

use super::{Rig, csv, schema};

const ROWS: &str = "email,seen\nmary@example.com,2026-11-25\nnobody,2026-11-25\n";

fn of_workspace(workspace: &str) -> Schema {
    let workspace: WorkspaceName = workspace.parse().unwrap();
    let schema = schema();
    Schema { name: schema.name.in_workspace(Some(&workspace)), ..schema }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_batch_is_in_the_folders_of_its_workspace_only() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let report = rig.ingest.run(&of_workspace("acme"), &csv("a"), ROWS.as_bytes()).unwrap();
    assert_eq!(
        (report.schema.as_str(), report.accepted, report.quarantined),
        ("acme:customers", 1, 1)
    );
    // The id of a batch is one of its table.
    let other = rig.ingest.run(&of_workspace("globex"), &csv("a"), ROWS.as_bytes()).unwrap();
    assert!(!other.repeated);
    assert!(rig.quarantine().is_empty() && !rig.lake().exists(), "the default workspace has none");
    for workspace in ["acme", "globex"] {
        let table = dir.path().join("lake").join(workspace).join("customers");
        assert_eq!(files(&table.join("day=2026-11-25")).len(), 1, "{workspace}");
        let quarantine = dir.path().join("private/quarantine").join(workspace).join("customers");
        assert_eq!(files(&quarantine).len(), 1, "{workspace}");
    }
}

#[test]
fn a_damaged_table_stops_no_other_workspace() {
    let dir = tempfile::tempdir().unwrap();
    let before = Rig::new(dir.path());
    for workspace in ["acme", "globex"] {
        before.ingest.run(&of_workspace(workspace), &csv("a"), ROWS.as_bytes()).unwrap();
    }
    drop(before);
    let manifests = files(&dir.path().join("lake/acme/customers/_batches"));
    let manifest = manifests.into_iter().find(|path| !path.ends_with("columns.json")).unwrap();
    let text = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, "damaged").unwrap();
    let rig = Rig::new(dir.path());
    let run =
        |workspace: &str| rig.ingest.run(&of_workspace(workspace), &csv("b"), ROWS.as_bytes());
    assert_eq!(run("globex").unwrap().accepted, 1);
    for _ in 0..2 {
        let error = run("acme").unwrap_err();
        assert!(matches!(error, IngestError::Table(_)), "{error}");
    }
    // The table is read again with the next batch.
    std::fs::write(&manifest, text).unwrap();
    assert_eq!(run("acme").unwrap().accepted, 1);
}

#[test]
fn rows_in_quarantine_expire_as_the_schema_of_their_workspace_says() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path());
    let short = Schema { quarantine_days: 1, ..of_workspace("acme") };
    let long = Schema { quarantine_days: 300, ..of_workspace("globex") };
    for schema in [&short, &long] {
        rig.ingest.run(schema, &csv("a"), ROWS.as_bytes()).unwrap();
    }
    rig.clock.advance(Duration::from_secs(10 * 86_400));
    assert_eq!(rig.ingest.remove_expired(&[short, long]).unwrap(), 1);
    let left =
        |name: &str| files(&dir.path().join("private/quarantine").join(name).join("customers"));
    assert_eq!((left("acme").len(), left("globex").len()), (0, 1));
}

/// A spec with a schema `visits` in three workspaces.
fn spec(folder: &Path, field: &str) -> Spec {
    let schema = |field: &str| {
        format!(
            "schemas: [{{ name: visits, key: id, fields: [{{ name: id, type: text, required: true }}{field}] }}]"
        )
    };
    let file = folder.join("throng.yaml");
    let text = format!(
        "version: 1\nnode: {{ lake: lake }}\n{}\nworkspaces:\n  - name: acme\n    {}\n  - name: globex\n    {}\n",
        schema(""),
        schema(field),
        schema("")
    );
    std::fs::write(&file, text).unwrap();
    load(&file).unwrap()
}

#[test]
fn the_tables_of_each_workspace_are_created_in_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let before = spec(dir.path(), "");
    create_tables(&before, None).unwrap();
    let sources: Vec<(&str, &Path)> =
        before.sources.iter().map(|source| (source.name.as_str(), source.path.as_path())).collect();
    let lake = dir.path().canonicalize().unwrap().join("lake");
    for (name, folder) in [("lake", "default"), ("acme:lake", "acme"), ("globex:lake", "globex")] {
        let path = lake.join(folder);
        assert!(path.join("visits/_batches/columns.json").is_file(), "{folder}");
        let found = sources.iter().find(|(source, _)| *source == name);
        assert!(found.is_some_and(|(_, source)| source.canonicalize().unwrap() == path), "{name}");
    }
    // A change in one workspace: the preview has the tables of all, and the lake stays.
    let preview = dir.path().join("preview");
    assert!(!preview_tables(&before, None, &preview).unwrap());
    assert!(
        preview_tables(&spec(dir.path(), ", { name: n, type: date }"), None, &preview).unwrap()
    );
    for folder in ["default", "acme", "globex"] {
        assert!(preview.join(folder).join("visits").is_dir(), "{folder}");
    }
    assert!(!preview_tables(&before, None, &dir.path().join("unused")).unwrap());
}

#[test]
fn a_schema_is_found_in_the_workspace_of_the_request_only() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path(), "");
    let found = |workspace: Option<&str>, name: &str| {
        let workspace: Option<WorkspaceName> = workspace.map(|name| name.parse().unwrap());
        find_schema(&spec, workspace.as_ref(), name).map(|schema| schema.name.to_string())
    };
    let acme = Some("acme:visits".to_owned());
    assert_eq!(found(Some("acme"), "visits"), acme);
    assert_eq!(found(Some("acme"), "acme:visits"), acme);
    assert_eq!(found(None, "acme:visits"), acme);
    assert_eq!(found(None, "visits"), Some("visits".to_owned()));
    assert_eq!(found(Some("acme"), "globex:visits"), None);
    assert_eq!(found(Some("initech"), "visits"), None);
    assert_eq!(found(Some("acme"), "Visits!"), None);
}
