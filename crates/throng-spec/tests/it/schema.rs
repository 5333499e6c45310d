//! The JSON schema is checked in, and says the same as the reader.

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

/// `good/full.yaml` uses every field. It parses as the raw form, and every field of the schema
/// is in it; that the reader takes it is tested in `good.rs`. So all three know the same fields.
#[test]
fn schema_raw_form_and_reader_know_the_same_fields() {
    let text = std::fs::read_to_string(here("good/full.yaml")).unwrap();
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options::<throng_spec::raw::RawSpec>(&text, options).unwrap();
    let schema = throng_spec::json_schema();
    let definitions = schema["$defs"].as_object().unwrap();
    let fields = definitions
        .values()
        .chain([&schema])
        .filter_map(|definition| definition["properties"].as_object())
        .flat_map(|properties| properties.keys());
    for field in fields {
        assert!(text.contains(&format!("{field}:")), "good/full.yaml does not use `{field}`");
    }
}
