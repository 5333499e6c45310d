//! Sources: tables with their files and columns, and skipped files.

use askama::Template;
use throng_api::{SourcePassedOver, SourceRefusal, SourceTable, SourceTables};

use crate::Rendered;
use crate::show::count;

#[derive(Template)]
#[template(path = "sources.html")]
struct List {
    /// Why the sources cannot be listed; empty if they can.
    problem: String,
    sources: Vec<SourceView>,
}

struct SourceView {
    name: String,
    path: String,
    refused: String,
    tables: Vec<TableRow>,
    skipped: Vec<String>,
    /// `and 12 more`; empty if all are listed.
    more: String,
}

struct TableRow {
    name: String,
    refused: String,
    files: String,
    bytes: String,
    rows: String,
    columns: String,
    notes: Vec<String>,
}

impl List {
    fn menu_path(&self) -> &'static str {
        "/sources"
    }
}

fn skipped_files(files: &[SourcePassedOver]) -> Vec<String> {
    files.iter().map(|p| format!("{}: {}", p.path, p.reason)).collect()
}

fn more(shown: usize, all: u64) -> String {
    match all.saturating_sub(shown as u64) {
        0 => String::new(),
        left => format!("and {} more", count(left)),
    }
}

fn refused(refused: Option<&SourceRefusal>) -> String {
    refused.map_or_else(String::new, |refused| match &refused.help {
        Some(help) => format!("{}. Suggested fix: {help}", refused.message),
        None => refused.message.clone(),
    })
}

fn table(table: SourceTable) -> TableRow {
    let columns: Vec<String> =
        table.columns.iter().map(|column| format!("{} {}", column.name, column.of)).collect();
    let mut notes = Vec::new();
    if !table.twice.is_empty() {
        notes.push(format!("duplicate columns in one file: {}", table.twice.join(", ")));
    }
    if !table.padded.is_empty() {
        notes.push(format!(
            "whitespace or invisible characters around values of {}",
            table.padded.join(", ")
        ));
    }
    notes.extend(table.warnings);
    notes.extend(skipped_files(&table.passed_over));
    let left = more(table.passed_over.len(), table.passed_over_count);
    notes.extend((!left.is_empty()).then_some(left));
    TableRow {
        refused: refused(table.refused.as_ref()),
        files: count(table.file_count),
        bytes: count(table.bytes),
        rows: table.rows.map_or_else(|| "unknown".to_owned(), count),
        columns: match columns.is_empty() {
            true => "unknown".to_owned(),
            false => columns.join(", "),
        },
        name: table.name,
        notes,
    }
}

fn source(source: SourceTables) -> SourceView {
    SourceView {
        refused: refused(source.refused.as_ref()),
        more: more(source.passed_over.len(), source.passed_over_count),
        skipped: skipped_files(&source.passed_over),
        tables: source.tables.into_iter().map(table).collect(),
        path: source.path,
        name: source.name,
    }
}

/// The sources of the applied spec, or why they cannot be listed.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn page(sources: Result<Vec<SourceTables>, String>) -> Rendered {
    let (problem, sources) = match sources {
        Ok(sources) => (String::new(), sources.into_iter().map(source).collect()),
        Err(problem) => (problem, Vec::new()),
    };
    List { problem, sources }.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_files_and_refused_tables_say_why() {
        let skipped = SourcePassedOver { path: "a.txt".to_owned(), reason: "no table".to_owned() };
        let refusal =
            SourceRefusal { message: "two types".to_owned(), help: Some("cast it".to_owned()) };
        let source = SourceTables {
            name: "lake".to_owned(),
            path: "/data".to_owned(),
            refused: Some(refusal),
            tables: Vec::new(),
            passed_over: vec![skipped],
            passed_over_count: 3,
        };
        let html = page(Ok(vec![source])).unwrap();
        assert!(html.contains("two types. Suggested fix: cast it"), "{html}");
        assert!(html.contains("a.txt: no table") && html.contains("and 2 more"), "{html}");
        let html = page(Err("no query worker".to_owned())).unwrap();
        assert!(html.contains("no query worker"), "{html}");
    }
}
