//! Which columns a failed conversion is about: the engine names none. A type that is found in the values of one file
//! differs from that of another, and the engine converts text to it for a comparison.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan};
use throng_tables::{OpenTable, is_text, shown_column};

use crate::LakeError;
use crate::engine_failure::EngineFailure;
use crate::engine_help::engine_help;
use crate::error::PARSE;
use crate::session::Opened;
use crate::type_fault::type_name;

/// The columns of text that a plan converts to another type, each with the type. Of a computed text the name is empty.
fn conversions(plan: &LogicalPlan, tables: &[OpenTable]) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    // A visitor without errors cannot fail.
    let _ = plan.apply_with_subqueries(|node| {
        let inputs = merge_schema(&node.inputs());
        for computed in node.expressions() {
            let _ = computed.apply(|inner| {
                if let Expr::Cast(Cast { expr, field }) = inner
                    && !is_text(field.data_type())
                {
                    let name = match expr.as_ref() {
                        Expr::Column(column) => {
                            let is_of_text = !types_of(&column.name, tables, is_text).is_empty();
                            is_of_text.then(|| column.name.clone())
                        }
                        Expr::Literal(..) => None,
                        other => {
                            let is_of_text = other.get_type(&inputs).is_ok_and(|of| is_text(&of));
                            is_of_text.then(String::new)
                        }
                    };
                    found.extend(name.map(|name| (name, type_name(field.data_type()))));
                }
                Ok(TreeNodeRecursion::Continue)
            });
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// The tables in which a column of this name has such a type.
fn types_of<'t>(name: &str, tables: &'t [OpenTable], is: fn(&DataType) -> bool) -> Vec<&'t str> {
    let has = |table: &&OpenTable| {
        table.layout.columns.iter().any(|column| column.name == name && is(&column.data_type))
    };
    tables.iter().filter(has).map(|table| table.name.as_str()).collect()
}

/// Whether whole numbers of a text column of this name have two forms in the files.
fn has_two_forms(name: &str, tables: &[OpenTable]) -> bool {
    let mut forms = tables.iter().filter_map(|table| table.layout.number_forms_of(name));
    forms.any(|forms| forms.has_two_forms())
}

/// An error of a running query as [`Opened::unless_changed`], with the column if it is a failed conversion of one.
pub(crate) fn explained(error: LakeError, frame: &DataFrame, opened: &Opened) -> LakeError {
    match opened.unless_changed(error) {
        LakeError::Data { doing, source, help } if source.is_of_values() => {
            match explanation(frame, &opened.tables) {
                Some((text, help)) => LakeError::Data {
                    doing,
                    source: EngineFailure::of_text(text),
                    help: Some(help),
                },
                None => LakeError::Data { doing, source, help },
            }
        }
        error => of_statement(&error).unwrap_or(error),
    }
}

/// The error of a statement that the engine refuses only when it runs it.
fn of_statement(error: &LakeError) -> Option<LakeError> {
    let (LakeError::Data { source, .. } | LakeError::Engine { source, .. }) = error else {
        return None;
    };
    let (message, help) = engine_help(&source.to_string())?;
    let (message, help) = (message.to_owned(), Some(help.to_owned()));
    Some(LakeError::Sql { message, position: None, help })
}

/// What failed, and how to fix it, if the query converts only one column.
fn explanation(frame: &DataFrame, tables: &[OpenTable]) -> Option<(String, String)> {
    let written = conversions(frame.logical_plan(), tables);
    let found = conversions(&frame.clone().into_optimized_plan().ok()?, tables);
    // What failed may be the conversion of a computed text, such as `CAST(substr(zip, 1, 2) AS INT)`.
    if written.iter().chain(&found).any(|(name, _)| name.is_empty()) {
        return None;
    }
    let conversion = found.first().filter(|_| found.len() == 1)?;
    let (name, of) = conversion;
    let others = types_of(name, tables, |of| !is_text(of));
    let texts = types_of(name, tables, is_text).join(" and ");
    let column = shown_column(name, tables);
    let help = match (written.contains(conversion), others.as_slice()) {
        (true, _) if matches!(of.as_str(), "date" | "timestamp") => PARSE.to_owned(),
        (true, _) => format!(
            "correct the values, or write TRY_CAST, which is NULL for those that are not {of}"
        ),
        (false, []) if matches!(of.as_str(), "date" | "timestamp") => format!(
            "the query compares it with values that are {of}: read texts of another form by it, as in \
             to_date({column}, '%m/%d/%Y') or to_timestamp({column}, '%d.%m.%Y %H:%M'), or write \
             TRY_CAST({column} AS {of}), which is NULL for other texts"
        ),
        (false, []) => format!(
            "the query compares it with values that are {of}: declare amounts, as in \
             `columns: {{ {column}: decimal(12, 2) }}`, put quotes around numbers that are compared as text, or write \
             TRY_CAST({column} AS {of}), which is NULL for other texts"
        ),
        (false, others) if has_two_forms(name, tables) => format!(
            "{column} is {of} in {}, and whole numbers are written in two forms in {texts}, such as `1` and `1.0`, which \
             differ as text: write them with one form, declare `columns: {{ {column}: integer }}` in the source, which \
             refuses each file and line with another form, or write CAST(CAST({column} AS DECIMAL(38, 1)) AS BIGINT) \
             where they are compared",
            others.join(" and ")
        ),
        (false, others) => format!(
            "{column} is {of} in {}: declare `columns: {{ {column}: text }}` in the source, so that both are compared \
             as text",
            others.join(" and ")
        ),
    };
    let text = format!(
        "a value of the column {column} of {texts}, which is text, cannot be converted to {of}"
    );
    Some((text, help))
}
