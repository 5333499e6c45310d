//! `throng sources`: the tables of the sources, and what is passed over.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use crate::args::NodeArgs;
use crate::client::Client;
use crate::out;

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Prints every table, then what is refused and what is passed over, with the cause of each.
pub(crate) async fn sources(node: &NodeArgs, json: bool) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/sources").await?;
    if json {
        out::json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for source in list(&answer["sources"]) {
        let name = text(&source["name"]);
        note(&name, source, &mut notes);
        for table in list(&source["tables"]) {
            let name = format!("{name}.{}", text(&table["name"]));
            let columns: Vec<String> = list(&table["columns"])
                .iter()
                .map(|column| format!("{} {}", text(&column["name"]), text(&column["type"])))
                .collect();
            let columns =
                if columns.is_empty() { "unknown".to_owned() } else { columns.join(", ") };
            let number = |field: &str| text(&table[field]);
            rows.push(vec![
                name.clone(),
                number("file_count"),
                number("bytes"),
                number("rows"),
                columns,
            ]);
            note(&name, table, &mut notes);
        }
    }
    out::table(&["TABLE", "FILES", "BYTES", "ROWS", "COLUMNS"], rows);
    notes.iter().for_each(out::line);
    Ok(ExitCode::SUCCESS)
}

/// Adds what is wrong with a source or a table, and what is passed over in it.
fn note(name: &str, of: &Value, notes: &mut Vec<String>) {
    if let Some(refused) = of["refused"].as_object() {
        let field = |field: &str| refused.get(field).and_then(Value::as_str).unwrap_or_default();
        notes.push(format!("{name}: refused: {} ({})", field("message"), field("help")));
    }
    for (field, words) in [
        ("twice", "two columns of one file have the name"),
        ("padded", "white space around values of the column"),
    ] {
        for column in list(&of[field]) {
            notes.push(format!("{name}: {words} {}", text(column)));
        }
    }
    let passed_over = list(&of["passed_over"]);
    for passed in passed_over {
        notes.push(format!(
            "{name}: passed over {}: {}",
            text(&passed["path"]),
            text(&passed["reason"])
        ));
    }
    let all = of["passed_over_count"].as_u64().unwrap_or_default();
    let left = all.saturating_sub(passed_over.len() as u64);
    if left > 0 {
        notes.push(format!("{name}: passed over {left} more"));
    }
}
