//! What is doubtful about the files that a query reads, although it can be run over them.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use throng_files::{doubt, named_copies, renamed};
use throng_tables::{Layout, OpenTable, compared_columns, is_decimal, shown_column, text_doubts};

/// Doubts about the files of a table, whatever a query reads of it.
pub(crate) fn of_table(layout: &Layout) -> Vec<String> {
    let shown = |name: &str| layout.header.shown(name).into_owned();
    let unlike = doubt(&layout.file_columns(), &shown);
    let copies = named_copies(layout.files.iter().map(|plan| &plan.file.stamp));
    layout.header.warning().into_iter().chain(unlike).chain(copies).collect()
}

/// Doubts about these columns of a table, which a query uses to find users.
pub(crate) fn of_columns(layout: &Layout, columns: &BTreeSet<String>) -> Vec<String> {
    let shown = |name: &str| layout.header.shown(name).into_owned();
    let files = layout.file_columns();
    let named = layout.columns.iter().filter(|column| columns.contains(&column.name));
    named.filter_map(|column| renamed(&files, &column.name, &shown)).collect()
}

/// Doubts about the tables of a query whose result has `columns` with keys and identifiers, of which `key` is used as it
/// is: of identifiers the white space around them is removed.
pub(crate) fn of_query(
    tables: &[OpenTable],
    plan: &LogicalPlan,
    columns: &[&str],
    key: &str,
) -> Vec<String> {
    let used = origins(plan, columns);
    let of_key = origins(plan, &[key]);
    let texts = origins_except(plan, columns, has_own_text);
    let fields = plan.schema().fields();
    let is_twice = |name: &&&str| fields.iter().filter(|field| field.name() == **name).count() > 1;
    let mut doubts: Vec<String> = BTreeSet::from_iter(columns.iter().filter(is_twice))
        .into_iter()
        .map(|name| {
            let name = shown_column(name, tables);
            format!(
                "the query returns several columns {name}, of which the first is used: select one of them, or give \
                 each its own name with AS"
            )
        })
        .collect();
    doubts.extend(compared_columns(plan, tables).doubts);
    for OpenTable { name, layout } in tables {
        let padded = layout.padded.iter().filter(|column| !layout.trim && of_key.contains(*column));
        let padded = padded.map(|column| {
            format!(
                "{name}: values of the column {} have white space or invisible characters around them, and are \
                 other keys than those without: declare `trim: true` in the source if they mean nothing",
                layout.header.shown(column)
            )
        });
        doubts.extend(of_columns(layout, &used));
        doubts.extend(of_table(layout));
        doubts.extend(padded);
        doubts.extend(of_texts(name, layout, &texts));
    }
    doubts
}

/// Doubts about the texts that columns of a table give to keys and identifiers.
fn of_texts(table: &str, layout: &Layout, texts: &BTreeSet<String>) -> Vec<String> {
    let used = |columns: &[String]| {
        let used = columns.iter().filter(|column| texts.contains(*column));
        used.map(|column| layout.header.shown(column).into_owned()).collect::<Vec<_>>()
    };
    let spreadsheet = used(&layout.spreadsheet).into_iter().map(|column| {
        format!(
            "{table}: values of the column {column} are written as by a spreadsheet that keeps numbers as text, `=\"42\"` \
             or `'42`, and are other keys than `42`: write them without these characters, or remove them in the SQL"
        )
    });
    // A decimal is refused, unless the SQL says how it is written.
    let integers = layout.rewritten.iter().filter(|column| !is_decimal(layout, column));
    let integers: Vec<String> = integers.cloned().collect();
    let rewritten = used(&integers).into_iter().map(|column| {
        format!(
            "{table}: the column {column} is declared as an integer, and some of its values are written otherwise in the \
             files, as `0042` or `+42`: they are the key `42`; declare `columns: {{ {column}: text }}` in the source if \
             the text matters"
        )
    });
    spreadsheet.chain(rewritten).chain(text_doubts(table, layout, texts)).collect()
}

/// The names of columns from which a query may compute columns of its result, and of these columns.
pub(crate) fn origins(plan: &LogicalPlan, columns: &[&str]) -> BTreeSet<String> {
    let mut names = origins_except(plan, columns, |_| false);
    names.extend(columns.iter().map(|name| (*name).to_owned()));
    names
}

/// Whether an expression converts its input to a number type: the text of the result is not that of the input.
pub(crate) fn has_own_text(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(cast) => cast.field.data_type().is_numeric(),
        Expr::TryCast(cast) => cast.field.data_type().is_numeric(),
        _ => false,
    }
}

/// The names of columns from which a query may compute columns of its result other than by expressions that are
/// `skipped`.
pub(crate) fn origins_except(
    plan: &LogicalPlan,
    columns: &[&str],
    skipped: fn(&Expr) -> bool,
) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    let mut found = BTreeSet::new();
    // A visitor without errors cannot fail. Nodes are visited from the result to the tables.
    let _ = plan.apply_with_subqueries(|node| {
        for computed in node.expressions() {
            let name = computed.qualified_name().1;
            if !names.contains(&name) {
                continue;
            }
            let mut is_skipped = false;
            let _ = computed.apply(|inner| {
                if skipped(inner) {
                    is_skipped = true;
                    return Ok(TreeNodeRecursion::Jump);
                }
                if let Expr::Column(column) = inner {
                    names.insert(column.name.clone());
                    found.insert(column.name.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            });
            // A column of the same name below has another text.
            if is_skipped && !found.contains(&name) {
                names.remove(&name);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}
