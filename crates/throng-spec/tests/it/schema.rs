//! The checked-in JSON schema is current, and has the same fields as the reader.

use super::{golden, here};

#[test]
fn the_schema_is_current() {
    let text = serde_json::to_string_pretty(&throng_spec::json_schema()).unwrap() + "\n";
    let path = here("../../../../docs/reference/throng.schema.json");
    if std::env::var_os("THRONG_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    golden(&path, &text).unwrap();
}

/// `good/full.yaml`, `good/gcs.yaml`, `good/bigquery.yaml`, `good/postgres.yaml`, `good/bigtable.yaml`,
/// `good/templates.yaml` and `good/workspaces.yaml` together use every field.
/// They parse as the raw form, and contain every field of the schema; `good.rs` tests that the reader accepts
/// them. So all three have the same fields.
#[test]
fn schema_raw_form_and_reader_have_the_same_fields() {
    let mut text = String::new();
    let files = [
        "good/full.yaml",
        "good/gcs.yaml",
        "good/bigquery.yaml",
        "good/postgres.yaml",
        "good/bigtable.yaml",
        "good/templates.yaml",
        "good/workspaces.yaml",
    ];
    for file in files {
        let spec = std::fs::read_to_string(here(file)).unwrap();
        let options = serde_saphyr::options! { strict_booleans: true };
        serde_saphyr::from_str_with_options::<throng_spec::raw::RawSpec>(&spec, options).unwrap();
        text.push_str(&spec);
    }
    let schema = throng_spec::json_schema();
    let definitions = schema["$defs"].as_object().unwrap();
    let fields = definitions
        .values()
        .chain([&schema])
        .filter_map(|definition| definition["properties"].as_object())
        .flat_map(|properties| properties.keys());
    for field in fields {
        assert!(text.contains(&format!("{field}:")), "no good spec uses `{field}`");
    }
}
