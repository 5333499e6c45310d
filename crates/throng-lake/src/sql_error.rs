//! Errors of planning, with their position in the SQL.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use throng_files::{shown_name, unusual_character};
use throng_query::position;
use throng_tables::{OpenTable, shown_column};

use crate::LakeError;
use crate::engine_failure::{file_fault, without_report};
use crate::engine_help::engine_help;
use crate::type_fault::type_fault;

/// The hint for an unknown column of a table whose header was assumed.
const ASSUMED_HEADER: &str = "the first line of a CSV file was taken as the header; if the file has none, declare \
     `header: false` and all `columns` in their order; if it has one, `header: true` shows all names";

/// The column that planning did not find, and the existing ones.
pub(crate) fn missing_column(error: &DataFusionError) -> Option<(&str, Vec<&str>)> {
    let DataFusionError::SchemaError(schema_error, _) = error.find_root() else { return None };
    let SchemaError::FieldNotFound { field, valid_fields } = schema_error.as_ref() else {
        return None;
    };
    Some((&field.name, valid_fields.iter().map(|f| f.name.as_str()).collect()))
}

/// Converts an error of planning into one with a position in the SQL.
pub(crate) fn sql_error(sql: &str, error: &DataFusionError, tables: &[OpenTable]) -> LakeError {
    if let Some(fault) = file_fault(error) {
        return LakeError::File(fault.clone().into());
    }
    if let Some((name, there)) = missing_column(error) {
        // Before the point stands a table, or a column with the field.
        if let Some(of) = missing_table(error)
            && let Some(fault) = conflict(sql, of, tables)
        {
            return fault;
        }
        return no_column(sql, name, &there, tables);
    }
    let text = error.find_root().strip_backtrace();
    if text.contains("RecursionLimitExceeded") {
        return LakeError::Sql {
            message: "the statement is nested too deeply to be parsed".to_owned(),
            position: None,
            help: Some("write subqueries as common table expressions (WITH)".to_owned()),
        };
    }
    if let Some(fault) = type_fault(sql, &text, tables) {
        return fault;
    }
    if let Some((message, help)) = engine_help(&text) {
        let (message, help) = (message.to_owned(), Some(help.to_owned()));
        return LakeError::Sql { message, position: None, help };
    }
    let text = without_report(&text)
        .trim_start_matches("Error during planning: ")
        .trim_start_matches("Internal error: ")
        .trim_start_matches("SQL error: ")
        .trim_start_matches("ParserError(\"")
        .trim_end_matches("\")");
    let (message, position) = position::from_parser(text);
    LakeError::Sql { message, position, help: None }
}

/// What stands before the column that planning did not find.
fn missing_table(error: &DataFusionError) -> Option<&str> {
    let DataFusionError::SchemaError(schema_error, _) = error.find_root() else { return None };
    match schema_error.as_ref() {
        SchemaError::FieldNotFound { field, .. } => field.relation.as_ref().map(|of| of.table()),
        _ => None,
    }
}

/// The error of a column whose types in the files do not agree.
fn conflict(sql: &str, column: &str, tables: &[OpenTable]) -> Option<LakeError> {
    let lower = column.to_lowercase();
    let mut conflicts = tables.iter().flat_map(|table| &table.layout.conflicts);
    let found = conflicts.find(|conflict| conflict.column.to_lowercase() == lower)?;
    let (message, help) = (found.message.clone(), Some(found.help.clone()));
    Some(LakeError::Sql { message, position: position::of_word(sql, column), help })
}

fn no_column(sql: &str, name: &str, there: &[&str], tables: &[OpenTable]) -> LakeError {
    let position = position::of_word(sql, name);
    let lower = name.to_lowercase();
    if let Some((message, help)) = tables.iter().find_map(|table| table.layout.twice_fault(name)) {
        return LakeError::Sql { message, position, help: Some(help.to_owned()) };
    }
    if let Some(fault) = conflict(sql, name, tables) {
        return fault;
    }
    let alike: Vec<&str> =
        there.iter().copied().filter(|other| other.to_lowercase() == lower).collect();
    let is_value = |name: &str| tables.iter().any(|t| t.layout.header.may_be_value(name));
    let names: Vec<&str> = there.iter().copied().filter(|name| !is_value(name)).collect();
    let is_assumed = alike.is_empty() && tables.iter().any(|t| t.layout.header.is_assumed);
    let mut help = match (alike.as_slice(), there, position::nearest(name, &names)) {
        ([one], ..) => format!("write \"{}\" in quotes", shown_name(one)),
        ([_, ..], ..) => {
            let alike: Vec<String> =
                alike.iter().map(|name| format!("\"{}\"", shown_name(name))).collect();
            format!("names in quotes are case-sensitive: {}", alike.join(", "))
        }
        (_, [one], _) if one.contains([';', '\t', '|']) => {
            "the header is one column: separate columns by commas".to_owned()
        }
        (.., Some(near)) => match unusual_character(near) {
            None => format!("did you mean {}?", quoted(near, tables)),
            Some(character) => format!(
                "did you mean {}? It has the character {character}, which looks like a space or like nothing: copy \
                 the name from the file, or rename the column",
                quoted(near, tables)
            ),
        },
        (_, [], _) if tables.is_empty() => {
            "the SQL reads no table: add FROM, with the name of a source and a table".to_owned()
        }
        (_, [], _) if tables.iter().any(|table| !table.layout.columns.is_empty()) => {
            "columns of tables cannot be used in this place of the SQL".to_owned()
        }
        (_, [], _) => "the files of the table are empty: they have no columns".to_owned(),
        _ => format!("the columns are: {}", listed(there, tables)),
    };
    if alike.is_empty() && !name.contains('\'') && sql.contains(&format!("\"{name}\"")) {
        help = format!(
            "in double quotes is the name of a column: write text in single quotes, '{name}'; or, if a column is \
             meant, {help}"
        );
    }
    if is_assumed {
        help = format!("{help}; {ASSUMED_HEADER}");
    }
    LakeError::Sql { message: format!("there is no column {name}"), position, help: Some(help) }
}

/// The columns of tables, without names that may be values.
fn listed(names: &[&str], tables: &[OpenTable]) -> String {
    let is_unsure = |name: &str| tables.iter().any(|t| t.layout.header.is_unsure(name));
    let shown = |name: &&str| match is_unsure(name) {
        true => "\"…\"".to_owned(),
        false => quoted(name, tables),
    };
    names.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// A name, in quotes if white space or case make them necessary.
fn quoted(name: &str, tables: &[OpenTable]) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let shown = shown_column(name, tables);
    if name.chars().all(plain) { shown.into_owned() } else { format!("\"{shown}\"") }
}
