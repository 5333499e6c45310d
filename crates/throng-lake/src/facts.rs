//! The tables of a model, recorded with each version that is made from them: a later file must not
//! change the meaning of the model without an error.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use throng_query::model::{ColumnFacts, TableFacts};
use throng_tables::{Layout, OpenTable, shown};

use crate::doubts::{of_columns, origins};

/// The tables of a plan, with the columns whose names it uses anywhere. `key`: the column of the keys.
pub(crate) fn facts(plan: &LogicalPlan, tables: &[OpenTable], key: &str) -> Vec<TableFacts> {
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
    let keys = origins(plan, &[key]);
    let fact = |table: &OpenTable| TableFacts {
        name: table.name.clone(),
        has_rows: table.layout.rows().map(|rows| rows > 0),
        columns: columns(&table.layout, &used),
        doubts: of_columns(&table.layout, &keys),
        unread: throng_files::unread(&table.layout.passed_over),
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
pub(crate) fn kind(of: &str) -> String {
    let Ok(parsed) = of.parse::<DataType>() else { return of.to_owned() };
    match parsed {
        t if t.is_numeric() => "number".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        other => other.to_string(),
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
