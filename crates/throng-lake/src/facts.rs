//! The tables of a model, recorded with each version that is made from them: a later file must not
//! change the meaning of the model without an error.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use serde::{Deserialize, Serialize};
use throng_files::{FileError, shown_name};

use crate::engine::Engine;
use crate::session::Opened;
use crate::tables::{Layout, OpenTable, shown};

/// A table of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFacts {
    /// `source.table`.
    pub name: String,
    /// Whether it had rows; `None` if that is unknown.
    pub has_rows: Option<bool>,
    /// The columns that the model uses.
    pub columns: Vec<ColumnFacts>,
}

/// A column that a model uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub of: String,
    /// Whether the source declares its type.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub declared: bool,
}

/// The tables of a plan, with the columns whose names it uses anywhere.
pub(crate) fn facts(plan: &LogicalPlan, tables: &[OpenTable]) -> Vec<TableFacts> {
    let mut used = BTreeSet::new();
    // A visitor without errors cannot fail.
    let _ = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                if let Expr::Column(column) = inner {
                    used.insert(column.name.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    let fact = |table: &OpenTable| TableFacts {
        name: table.name.clone(),
        has_rows: table.layout.rows().map(|rows| rows > 0),
        columns: columns(&table.layout, &used),
    };
    tables.iter().map(fact).collect()
}

fn columns(layout: &Layout, used: &BTreeSet<String>) -> Vec<ColumnFacts> {
    let columns = layout.columns.iter();
    let columns = columns.filter(|column| used.contains(&column.name) && !column.empty);
    columns
        .map(|column| ColumnFacts {
            name: column.name.clone(),
            of: shown(&column.data_type),
            declared: column.converted,
        })
        .collect()
}

/// The kind of a type: columns of one kind can replace each other in a model.
fn kind(of: &str) -> String {
    let Ok(parsed) = of.parse::<DataType>() else { return of.to_owned() };
    match parsed {
        t if t.is_numeric() => "number".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        other => other.to_string(),
    }
}

impl Engine {
    /// Refuses tables that have changed since the served version was made.
    ///
    /// # Errors
    /// [`FileError::Table`] naming the file, the column and both types, or the table that has no
    /// rows.
    pub(crate) async fn check_unchanged(
        &self,
        served: &[TableFacts],
        now: &[TableFacts],
        opened: &Opened,
    ) -> Result<(), FileError> {
        for before in served {
            let Some(after) = now.iter().find(|table| table.name == before.name) else { continue };
            if before.has_rows == Some(true) && after.has_rows == Some(false) {
                return Err(FileError::Table {
                    message: format!("the table {} no longer has rows", before.name),
                    help:
                        "the served version stays until the table has rows; if it is meant to be \
                           empty, change the model so that it does not read it"
                            .to_owned(),
                });
            }
            for column in &before.columns {
                let changed = after.columns.iter().find(|c| {
                    c.name == column.name && !c.declared && kind(&c.of) != kind(&column.of)
                });
                if let Some(changed) = changed {
                    let table = opened.tables.iter().find(|table| table.name == before.name);
                    return Err(self.retyped(table, column, changed).await);
                }
            }
        }
        Ok(())
    }

    async fn retyped(
        &self,
        table: Option<&OpenTable>,
        before: &ColumnFacts,
        after: &ColumnFacts,
    ) -> FileError {
        let name = &before.name;
        let place = match table {
            Some(table) => match self.inner.first_other(table, name, &kind(&before.of)).await {
                Some(path) => path.display().to_string(),
                None => table.name.clone(),
            },
            None => String::new(),
        };
        let name = shown_name(name);
        FileError::Table {
            message: format!(
                "column {name} is {} in {place}, and was {} when the served version was made",
                after.of, before.of
            ),
            help: format!(
                "correct the file; or accept the change: declare the column's type in the source, such \
                 as `columns: {{ {name}: text }}`"
            ),
        }
    }
}

/// Whether a type is of another kind.
pub(crate) fn is_other(of: &DataType, kind_before: &str) -> bool {
    kind(&shown(of)) != kind_before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_replace_each_other() {
        for (a, b, same) in [
            ("Int64", "Decimal128(18, 2)", true),
            ("Int32", "Float64", true),
            ("text", "Int64", false),
            ("Timestamp(s)", "Timestamp(ns)", true),
            ("Date32", "text", false),
            ("Boolean", "text", false),
        ] {
            assert_eq!(kind(a) == kind(b), same, "{a} {b}");
        }
    }
}
