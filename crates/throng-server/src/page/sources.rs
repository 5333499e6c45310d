//! Sources: tables with their files and columns, and skipped files.

use askama::Template;
use axum::extract::State;
use throng_lake::{PassedOver, SourceListing, TableListing};

use super::show::count;
use super::{Context, Page, render};

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

fn skipped_files(files: &[PassedOver]) -> Vec<String> {
    files.iter().map(|p| format!("{}: {}", p.path.display(), p.reason)).collect()
}

fn more(shown: usize, all: u64) -> String {
    match all.saturating_sub(shown as u64) {
        0 => String::new(),
        left => format!("and {} more", count(left)),
    }
}

fn refused(refused: Option<&throng_lake::Refused>) -> String {
    refused.map_or_else(String::new, |refused| match &refused.help {
        Some(help) => format!("{}. Suggested fix: {help}", refused.message),
        None => refused.message.clone(),
    })
}

fn table(table: TableListing) -> TableRow {
    let columns: Vec<String> =
        table.columns.iter().map(|column| format!("{} {}", column.name, column.of)).collect();
    let mut notes = Vec::new();
    if !table.twice.is_empty() {
        notes.push(format!("duplicate columns in one file: {}", table.twice.join(", ")));
    }
    if !table.padded.is_empty() {
        notes.push(format!("whitespace around values of {}", table.padded.join(", ")));
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

fn source(source: SourceListing) -> SourceView {
    SourceView {
        path: source.path.display().to_string(),
        refused: refused(source.refused.as_ref()),
        more: more(source.passed_over.len(), source.passed_over_count),
        skipped: skipped_files(&source.passed_over),
        tables: source.tables.into_iter().map(table).collect(),
        name: source.name,
    }
}

pub(super) async fn page(State(ctx): Context) -> Page {
    let (problem, sources) = match ctx.lake.load_full().list().await {
        Ok(sources) => (String::new(), sources.into_iter().map(source).collect()),
        Err(error) => (throng_model::with_causes(&error), Vec::new()),
    };
    render(&List { problem, sources })
}
