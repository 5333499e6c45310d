//! The tables of a model, recorded with each version that is made from them: a later file must not
//! change the meaning of the model without an error.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use throng_query::model::{ColumnFacts, TableFacts};
use throng_tables::{Layout, OpenTable, shown};

use crate::doubts::{has_own_text, of_columns, origins, origins_except};

/// The tables of a plan, with the columns whose names it uses anywhere. `keys`: the columns of keys and identifiers.
pub(crate) fn facts(plan: &LogicalPlan, tables: &[OpenTable], keys: &[&str]) -> Vec<TableFacts> {
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
    let texts = origins_except(plan, keys, has_own_text);
    let keys = origins(plan, keys);
    let fact = |table: &OpenTable| TableFacts {
        name: table.name.clone(),
        has_rows: table.layout.rows().map(|rows| rows > 0),
        columns: columns(&table.layout, &used, &texts),
        doubts: of_columns(&table.layout, &keys),
        unread: throng_files::unread(&table.layout.passed_over),
    };
    tables.iter().map(fact).collect()
}

fn columns(layout: &Layout, used: &BTreeSet<String>, texts: &BTreeSet<String>) -> Vec<ColumnFacts> {
    let columns = layout.columns.iter();
    let columns = columns.filter(|column| used.contains(&column.name) && !column.empty);
    columns
        .map(|column| ColumnFacts {
            name: column.name.clone(),
            of: shown(&column.data_type),
            declared: column.converted,
            is_key: texts.contains(&column.name),
        })
        .collect()
}
