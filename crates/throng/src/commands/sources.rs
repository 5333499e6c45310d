//! `throng sources`: the tables of the sources, and what is passed over.

use std::process::ExitCode;

use anyhow::Result;
use throng_api::{SourceList, SourcePassedOver, SourceRefusal};

use crate::args::NodeArgs;
use crate::client::Client;
use crate::out::{self, Output};

/// Prints every table, or those of a workspace, then what is refused and what is passed over, with the cause of each.
pub(crate) async fn sources(
    node: &NodeArgs,
    workspace: Option<&str>,
    output: Output,
) -> Result<ExitCode> {
    let answer = Client::new(node)?.get("/v1/sources").await?;
    if output.is_json() && workspace.is_none() {
        answer.print();
        return Ok(ExitCode::SUCCESS);
    }
    let SourceList { mut sources } = answer.read()?;
    if let Some(own) = workspace {
        sources.retain(|source| source.name.split_once(':').is_some_and(|(of, _)| of == own));
        if sources.is_empty() {
            out::message(format!("the applied spec has no source of a workspace `{own}`"));
        }
    }
    if output.is_json() {
        out::json(&SourceList { sources });
        return Ok(ExitCode::SUCCESS);
    }
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for source in &sources {
        refusal(&source.name, source.refused.as_ref(), &mut notes);
        passed_over(&source.name, &source.passed_over, source.passed_over_count, &mut notes);
        for table in &source.tables {
            let name = format!("{}.{}", source.name, table.name);
            let columns = table.columns.iter();
            let columns: Vec<String> =
                columns.map(|column| format!("{} {}", column.name, column.of)).collect();
            rows.push(vec![
                name.clone(),
                out::count(table.file_count),
                out::count(table.bytes),
                table.rows.map_or_else(|| "unknown".to_owned(), out::count),
                if columns.is_empty() { "unknown".to_owned() } else { columns.join(", ") },
            ]);
            refusal(&name, table.refused.as_ref(), &mut notes);
            for column in &table.twice {
                notes.push(format!("{name}: two columns of one file have the name {column}"));
            }
            for column in &table.padded {
                notes.push(format!("{name}: white space or invisible characters around values of the column {column}"));
            }
            notes
                .extend(table.warnings.iter().map(|warning| format!("{name}: warning: {warning}")));
            passed_over(&name, &table.passed_over, table.passed_over_count, &mut notes);
        }
    }
    out::table(&["TABLE", "FILES", "BYTES", "ROWS", "COLUMNS"], rows);
    notes.iter().for_each(out::line);
    Ok(ExitCode::SUCCESS)
}

/// Adds why a source or a table cannot be read.
fn refusal(name: &str, refused: Option<&SourceRefusal>, notes: &mut Vec<String>) {
    if let Some(SourceRefusal { message, help }) = refused {
        let help = help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
        notes.push(format!("{name}: refused: {message}{help}"));
    }
}

/// Adds the files that are passed over, of which an answer has the first ones, and how many more there are.
fn passed_over(name: &str, files: &[SourcePassedOver], count: u64, notes: &mut Vec<String>) {
    for SourcePassedOver { path, reason } in files {
        notes.push(format!("{name}: passed over {path}: {reason}"));
    }
    let left = count.saturating_sub(files.len() as u64);
    if left > 0 {
        notes.push(format!("{name}: passed over {} more", out::count(left)));
    }
}
